//! Everything that can happen to the supervisor, and where it is heard of.

use std::future::pending;
use std::io;
use std::time::Duration;

use exeat_ebpf::{Event, EventStream, KernelError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use super::core::{Happening, Supervisor};
use super::error::DaemonError;
use super::gate_life::GateLife;
use super::policy_files::Watch;
use crate::channel::{ChannelError, ToSupervisor};
use crate::control::Client;
use crate::launch::stage::chain;

/// Everything that can happen next.
pub(super) enum Occurrence {
    Gate(Result<Option<ToSupervisor>, ChannelError>),
    Client(Box<Client>),
    Process(Box<Result<Event, KernelError>>),
    PolicyChanged(io::Result<()>),
    Units(io::Result<()>),
    Happened(Happening),
    Restart,
    Tick,
    Hangup,
    Terminate,
}

/// Where occurrences come from.
pub(super) struct Sources {
    pub(super) clients: Option<mpsc::Receiver<Client>>,
    pub(super) processes: Option<EventStream>,
    pub(super) policy: Option<Watch>,
    pub(super) happenings: mpsc::Receiver<Happening>,
    tick: Interval,
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Supervisor {
    pub(super) fn sources(&mut self) -> Result<Sources, DaemonError> {
        let on = |kind| {
            signal(kind).map_err(|cause| DaemonError::System {
                attempt: "handling signals",
                cause,
            })
        };
        let mut tick = interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (_unused, empty) = mpsc::channel(1);
        Ok(Sources {
            clients: None,
            processes: Some(self.parts.kernel.process_events()?),
            policy: Some(Watch::new(&self.parts.config.policy)?),
            happenings: self.received.take().unwrap_or(empty),
            tick,
            hangup: on(SignalKind::hangup())?,
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
        })
    }

    pub(super) fn watch_policy(&self) -> Option<Watch> {
        Watch::new(&self.parts.config.policy)
            .inspect_err(|error| tracing::error!(error = chain(error), "policy is not watched"))
            .ok()
    }

    pub(super) async fn next(&self, sources: &mut Sources) -> Occurrence {
        tokio::select! {
            _ = sources.terminate.recv() => Occurrence::Terminate,
            _ = sources.interrupt.recv() => Occurrence::Terminate,
            () = self.stop.cancelled() => Occurrence::Terminate,
            message = from_gate(self.gate.as_ref()) => Occurrence::Gate(message),
            Some(happening) = sources.happenings.recv() => Occurrence::Happened(happening),
            changed = changed(sources.policy.as_ref()) => Occurrence::PolicyChanged(changed),
            seen = self.units.changed() => Occurrence::Units(seen),
            Some(event) = next_event(&mut sources.processes) => Occurrence::Process(Box::new(event)),
            Some(client) = next_client(&mut sources.clients) => Occurrence::Client(Box::new(client)),
            () = until(self.restart_at) => Occurrence::Restart,
            _ = sources.tick.tick() => Occurrence::Tick,
            _ = sources.hangup.recv() => Occurrence::Hangup,
        }
    }
}

async fn from_gate(gate: Option<&GateLife>) -> Result<Option<ToSupervisor>, ChannelError> {
    match gate {
        Some(gate) => gate.receive().await,
        None => pending().await,
    }
}

async fn changed(watch: Option<&Watch>) -> io::Result<()> {
    match watch {
        Some(watch) => watch.changed().await,
        None => pending().await,
    }
}

async fn next_event(stream: &mut Option<EventStream>) -> Option<Result<Event, KernelError>> {
    Some(stream.as_mut()?.next().await)
}

async fn next_client(clients: &mut Option<mpsc::Receiver<Client>>) -> Option<Client> {
    clients.as_mut()?.recv().await
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}
