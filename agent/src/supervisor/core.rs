//! The supervisor's one task: everything that happens is handled here, one thing after the other.

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use exeat_ebpf::{Event, EventStream, Kernel, KernelError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::approvals::Approvals;
use super::cgroups::Tree;
use super::configurations::Configurations;
use super::credentials::{self, Sources as CredentialSources};
use super::error::DaemonError;
use super::fetched::Arriving;
use super::gate_life::{Backoff, GateLife, GatePlan};
use super::guarding::Guarding;
use super::judging::{Judged, Judging};
use super::notify::notify;
use super::placing::{Found, Scan, UnitWatch};
use super::policy_files::{Policy, Watch};
use super::processes::{Hashes, Processes};
use super::reload::for_gate;
use super::reviews::Reviews;
use super::runs::Asked;
use super::serving::{Offer, Over};
use super::settle::Settling;
use super::severing::Disconnections;
use super::signing::Signing;
use super::start::{Inheritance, Material};
use super::workloads::Workloads;
use crate::channel::{ChannelError, Setup, ToGate, ToSupervisor};
use crate::config::Config;
use crate::control::server::Settings;
use crate::control::slots::Limits;
use crate::control::{Client, Listener, Responder};
use crate::launch::stage::{Trust, chain};
use crate::telemetry::clock::{self, Monotonic, Timestamp};

/// Time for the first gate to become ready.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// Clients that wait to be looked at.
const CLIENTS: usize = 64;
/// Results of the supervisor's own tasks that wait to be looked at.
const HAPPENINGS: usize = 256;
/// Messages from the gate in a second: more is a flood, and the gate that makes it is replaced.
const GATE_MESSAGES: u32 = 10_000;
/// Executables that wait to be hashed; beyond it records go without.
const HASHES: usize = 64;
/// Process messages to the gate in a second about one workload: a fork bomb must occupy neither the gate nor what others
/// are told by.
const PROCESS_MESSAGES: u32 = 1000;

/// What [`super::start`] prepares.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) config: Config,
    pub(super) tree: Tree,
    pub(super) kernel: Kernel,
    pub(super) signing: Signing,
    pub(super) policy: Policy,
    pub(super) plan: GatePlan,
    pub(super) inheritance: Inheritance,
    pub(super) material: Material,
    pub(super) trust: Trust,
    pub(super) degraded: Vec<String>,
}

/// The supervisor's state.
#[derive(Debug)]
pub(super) struct Supervisor {
    pub(super) parts: Parts,
    pub(super) generation: u64,
    pub(super) loaded: Timestamp,
    pub(super) rejected: Option<String>,
    pub(super) workloads: Workloads,
    pub(super) processes: Processes,
    pub(super) hashes: Arc<Hashes>,
    pub(super) hashing: Arc<Semaphore>,
    pub(super) gate: Option<GateLife>,
    pub(super) backoff: Backoff,
    pub(super) asked: HashMap<u64, Asked>,
    pub(super) settling: Settling,
    pub(super) running: HashMap<u32, oneshot::Sender<Over>>,
    pub(super) next_request: u64,
    pub(super) reloads: Vec<(u64, Responder)>,
    pub(super) happenings: mpsc::Sender<Happening>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    pub(super) units: UnitWatch,
    pub(super) started: Timestamp,
    restart_at: Option<Instant>,
    pub(super) missing_links: Vec<String>,
    pub(super) disconnections: Disconnections,
    pub(super) approvals: Approvals,
    pub(super) reviews: Reviews,
    pub(super) credentials: CredentialSources,
    pub(super) arriving: Arriving,
    pub(super) guarding: Guarding,
    pub(super) judging: Judging,
    process_messages: HashMap<u32, u32>,
    gate_messages: u32,
    /// Until when the gate wants to be told of processes.
    pub(super) catching: Option<Monotonic>,
    received: Option<mpsc::Receiver<Happening>>,
}

/// What the supervisor's own tasks report.
#[derive(Debug)]
pub(super) enum Happening {
    /// A server's session is ready to be handed to the gate.
    Offered(Box<Offer>),
    /// The processes of a started workload are gone; its cgroup is empty.
    Ended { number: u32 },
    /// The first process of a started workload exists.
    Started { number: u32, pid: u32 },
    /// A stopped process was looked at.
    Looked {
        pid: u32,
        started: u64,
        found: Option<Found>,
    },
    /// Processes of hosts were looked at; the host that was cut off meanwhile.
    Judged(Vec<Judged>, Option<u32>),
    /// The running processes were looked at.
    Scanned(Scan),
    /// The source of a credential was read.
    Credential(Box<credentials::Asked>),
    /// An executable was hashed.
    Hashed {
        pid: u32,
        started: u64,
        sha256: String,
    },
}

/// Everything that can happen next.
enum Occurrence {
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
struct Sources {
    clients: Option<mpsc::Receiver<Client>>,
    processes: Option<EventStream>,
    policy: Option<Watch>,
    happenings: mpsc::Receiver<Happening>,
    tick: Interval,
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Supervisor {
    pub(super) fn new(parts: Parts) -> Result<Self, DaemonError> {
        let used = parts
            .kernel
            .managed()?
            .iter()
            .map(|(_, number)| *number)
            .max()
            .unwrap_or(0);
        let workloads = Workloads::new(used, &parts.tree.root, &parts.tree.gate);
        let (happenings, received) = mpsc::channel(HAPPENINGS);
        let units = UnitWatch::new().map_err(|cause| DaemonError::System {
            attempt: "watching for units",
            cause,
        })?;
        let configurations = Configurations::new(
            parts.plan.stage.clone(),
            parts.plan.account.clone(),
            parts.tree.managed.clone(),
        );
        let mut supervisor = Self {
            approvals: Approvals::load(&parts.config.state_dir),
            reviews: Reviews::load(&parts.config.state_dir),
            credentials: CredentialSources::default(),
            judging: Judging::new(configurations, parts.kernel.lost()?),
            disconnections: Disconnections::load(&parts.config.state_dir)?,
            arriving: Arriving::new(&parts.config.state_dir),
            parts,
            generation: 1,
            loaded: clock::wall(),
            rejected: None,
            workloads,
            processes: Processes::default(),
            hashes: Arc::default(),
            gate: None,
            backoff: Backoff::new(),
            asked: HashMap::new(),
            settling: Settling::new(),
            running: HashMap::new(),
            next_request: 1,
            reloads: Vec::new(),
            happenings,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            units,
            started: clock::wall(),
            restart_at: None,
            missing_links: Vec::new(),
            guarding: Guarding::default(),
            process_messages: HashMap::new(),
            catching: None,
            gate_messages: GATE_MESSAGES,
            hashing: Arc::new(Semaphore::new(HASHES)),
            received: Some(received),
        };
        supervisor.adopt()?;
        Ok(supervisor)
    }

    /// Serves until it is told to stop.
    pub(super) async fn run(mut self) -> Result<(), DaemonError> {
        let mut sources = self.sources()?;
        self.relay_logs();
        self.start_gate().await?;
        self.wait_ready(&mut sources).await?;
        sources.clients = Some(self.listen().await?);
        self.begin().await;
        notify("READY=1\nSTATUS=serving");
        loop {
            self.catch_up(&mut sources.processes).await;
            let occurrence = tokio::select! {
                biased;
                occurrence = self.next(&mut sources) => occurrence,
                // More is to be caught up with, whether or not anything else happens.
                () = yield_now(), if self.catching.is_some() => continue,
            };
            match occurrence {
                Occurrence::Terminate => break,
                Occurrence::Process(event) if event.is_err() => {
                    self.process_events_failed(*event).await;
                    sources.processes = None;
                }
                Occurrence::PolicyChanged(Err(error)) => {
                    let error = error.to_string();
                    self.finding("policy_watch_failed", None, vec![error]).await;
                    sources.policy = None;
                }
                Occurrence::PolicyChanged(Ok(())) | Occurrence::Hangup => {
                    // A directory that was made meanwhile is watched itself from now on. Before the files are read, so
                    // that no change falls between.
                    sources.policy = self.watch_policy();
                    self.reload(None).await;
                }
                occurrence => self.handle(occurrence).await,
            }
        }
        notify("STOPPING=1");
        self.shut_down(&mut sources.happenings).await;
        Ok(())
    }

    fn sources(&mut self) -> Result<Sources, DaemonError> {
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

    fn watch_policy(&self) -> Option<Watch> {
        Watch::new(&self.parts.config.policy)
            .inspect_err(|error| tracing::error!(error = chain(error), "policy is not watched"))
            .ok()
    }

    fn relay_logs(&mut self) {
        match self.parts.kernel.logs() {
            Ok(mut logs) => {
                let stop = self.stop.clone();
                self.tasks.spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        ended = logs.relay() => {
                            if let Err(error) = ended {
                                tracing::warn!(error = chain(&error), "the programs' messages are not read");
                            }
                        }
                    }
                });
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "the programs' messages are not read");
            }
        }
    }

    /// Handles what happens until the first gate is ready.
    async fn wait_ready(&mut self, sources: &mut Sources) -> Result<(), DaemonError> {
        let deadline = Instant::now() + READY_LIMIT;
        while !self.gate.as_ref().is_some_and(|gate| gate.ready) {
            let occurrence = tokio::select! {
                occurrence = self.next(sources) => occurrence,
                () = sleep_until(deadline) => {
                    return Err(DaemonError::NotReady("it said nothing in time".into()));
                }
            };
            match occurrence {
                Occurrence::Gate(Ok(None)) => {
                    return Err(DaemonError::NotReady("it ended".into()));
                }
                Occurrence::Gate(Err(error)) => {
                    return Err(DaemonError::NotReady(chain(&error)));
                }
                Occurrence::Terminate => {
                    return Err(DaemonError::NotReady("the daemon was stopped".into()));
                }
                occurrence => self.handle(occurrence).await,
            }
        }
        Ok(())
    }

    async fn listen(&self) -> Result<mpsc::Receiver<Client>, DaemonError> {
        let settings = Settings {
            path: self.parts.config.run_dir.join("control.sock"),
            limits: Limits::default(),
            request_deadline: Duration::from_secs(5),
            cgroups: self.workloads.roles(),
        };
        let listener = Listener::bind(settings).await?;
        let (sender, clients) = mpsc::channel(CLIENTS);
        self.tasks.spawn(listener.serve(sender, self.stop.clone()));
        Ok(clients)
    }

    /// The first acts of a daemon that serves.
    async fn begin(&mut self) {
        let adopted = self.parts.kernel.adopted();
        let mut details = vec![format!(
            "{} workloads were running",
            self.workloads.iter().count()
        )];
        if adopted {
            details.push("enforcement of an earlier daemon was taken over".into());
        }
        details.extend(self.parts.degraded.iter().cloned());
        self.record("daemon_started", None, details).await;
        if let Some(forgotten) = self.approvals.forgotten.take() {
            self.finding("approvals_forgotten", None, vec![forgotten])
                .await;
        }
        self.end_orphans().await;
        self.rewatch().await;
    }

    async fn next(&self, sources: &mut Sources) -> Occurrence {
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

    async fn handle(&mut self, occurrence: Occurrence) {
        match occurrence {
            Occurrence::Gate(message) => self.hear(message).await,
            Occurrence::Client(client) => self.serve(*client).await,
            Occurrence::Process(event) => match *event {
                Ok(event) => self.process_event(event).await,
                failed @ Err(_) => self.process_events_failed(failed).await,
            },
            Occurrence::Happened(happening) => self.happened(happening).await,
            Occurrence::Units(Ok(())) => self.find_cgroups().await,
            Occurrence::Units(Err(error)) => {
                tracing::warn!(%error, "units are looked for only every second");
            }
            Occurrence::Restart => self.restart_gate().await,
            Occurrence::Tick => self.tick().await,
            Occurrence::PolicyChanged(_) | Occurrence::Hangup => self.reload(None).await,
            Occurrence::Terminate => {}
        }
    }

    async fn happened(&mut self, happening: Happening) {
        match happening {
            Happening::Offered(offer) => self.offer(*offer).await,
            Happening::Ended { number } => self.end(number).await,
            Happening::Started { number, pid } => {
                if let Some(live) = self.workloads.get_mut(number) {
                    live.record.pid = Some(pid);
                }
            }
            Happening::Looked {
                pid,
                started,
                found,
            } => self.place_stopped(pid, started, found).await,
            Happening::Judged(all, mend) => self.judged(all, mend).await,
            Happening::Scanned(scan) => self.scanned(scan).await,
            Happening::Credential(asked) => self.credential_read(*asked).await,
            Happening::Hashed {
                pid,
                started,
                sha256,
            } => {
                let process = self.processes.hashed(pid, started, &sha256).cloned();
                if let Some(process) = process {
                    self.tell_process(process.workload, ToGate::Process(Box::new(process)))
                        .await;
                }
            }
        }
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        self.process_messages.clear();
        self.gate_messages = GATE_MESSAGES;
        notify("WATCHDOG=1");
        if self.gate.as_ref().is_some_and(|gate| gate.is_silent(now)) {
            self.gate_ended("it was silent for too long").await;
        }
        self.refuse_overdue(now);
        self.sever_overdue().await;
        self.refresh_credentials(now);
        self.find_cgroups().await;
        self.sweep().await;
        self.look_for_lost();
        self.look_at_links().await;
        self.say_overdue().await;
    }

    /// Says it once for each change, when somebody detached or replaced a program.
    async fn look_at_links(&mut self) {
        let missing = match self.parts.kernel.missing_links() {
            Ok(missing) => missing,
            Err(error) => vec![chain(&error)],
        };
        if missing != self.missing_links {
            self.missing_links.clone_from(&missing);
            if !missing.is_empty() {
                self.finding("enforcement_damaged", None, missing).await;
            }
        }
    }

    /// Starts a gate with everything that it needs.
    async fn start_gate(&mut self) -> Result<(), DaemonError> {
        // Before anything is open: an unregistered server may have been started while there was no gate.
        for host in self.hosts() {
            self.survey(&host, true);
        }
        let setup = self.setup();
        let maps = self.parts.kernel.gate_descriptors()?;
        let mut descriptors: Vec<_> = maps
            .iter()
            .map(|(map, fd)| (crate::channel::Role::Map(map.name().to_owned()), fd.as_fd()))
            .collect();
        let inherited = &self.parts.inheritance.descriptors;
        descriptors.extend(
            inherited
                .iter()
                .map(|(role, fd)| (role.clone(), fd.as_fd())),
        );
        let gate = GateLife::start(&self.parts.plan, setup, descriptors, Instant::now()).await?;
        tracing::info!(pid = gate.pid, "the gate was started");
        self.gate = Some(gate);
        self.read_credentials();
        Ok(())
    }

    fn setup(&self) -> Setup {
        let parts = &self.parts;
        Setup {
            descriptors: Vec::new(),
            config: parts.config.clone(),
            generation: self.generation,
            sources: for_gate(&parts.policy.sources),
            ca_certificate: parts.signing.certificate().to_owned(),
            extra_roots: parts.material.extra_roots.clone(),
            client_identities: parts.material.client_identities.clone(),
            client_authorities: parts.material.client_authorities.clone(),
            key_sets: parts.material.key_sets.clone(),
            proxy_credentials: parts.material.proxy_credentials.clone(),
            approving: parts.material.approving.clone(),
            workloads: self.workloads.records(),
            processes: self.processes.all(),
            disconnected: self.disconnections.all(),
            approvals: self.approvals.all(),
            proxy_port: parts.inheritance.listening.proxy_port,
            dns_port: parts.inheritance.listening.dns_port,
        }
    }

    async fn restart_gate(&mut self) {
        self.restart_at = None;
        if let Err(error) = self.start_gate().await {
            tracing::error!(error = chain(&error), "the gate could not be started");
            self.gate = None;
            self.restart_at = Some(self.backoff.next(None, Instant::now()));
        }
    }

    /// Ends what is left of the gate, and sees to another. Enforcement holds meanwhile: what the
    /// kernel sends to the gate's sockets waits there.
    pub(super) async fn gate_ended(&mut self, why: &str) {
        let Some(mut gate) = self.gate.take() else {
            return;
        };
        tracing::error!(pid = gate.pid, why, "the gate ended");
        if let Err(error) = gate.child.start_kill() {
            tracing::debug!(%error, "the gate was gone already");
        }
        if let Err(error) = super::cgroups::empty(&self.parts.tree.gate).await {
            tracing::error!(
                error = chain(&error),
                "the gate's cgroup could not be emptied"
            );
        }
        self.fail_asked("the gate is being started anew").await;
        self.restart_at = Some(self.backoff.next(Some(gate.started), Instant::now()));
    }

    async fn hear(&mut self, message: Result<Option<ToSupervisor>, ChannelError>) {
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => return self.gate_ended("it closed the channel").await,
            Err(error) => return self.gate_ended(&chain(&error)).await,
        };
        let Some(left) = self.gate_messages.checked_sub(1) else {
            return self.gate_ended("it floods the channel").await;
        };
        self.gate_messages = left;
        let now = Instant::now();
        let restarted = self.backoff.restarts > 0;
        let Some(gate) = &mut self.gate else { return };
        gate.heard(now);
        match message {
            ToSupervisor::Ready => {
                let first = !gate.ready;
                gate.ready = true;
                if first && restarted {
                    self.finding("gate_restarted", None, Vec::new()).await;
                }
                self.report_untold().await;
            }
            ToSupervisor::Sign {
                request,
                names,
                key,
            } => {
                let chain = self.parts.signing.sign(&names, &key, now);
                self.tell(ToGate::Certificate { request, chain }).await;
            }
            ToSupervisor::Catch => self.catching = Some(clock::monotonic()),
            ToSupervisor::Reloaded { generation, faults } => {
                self.reloaded(generation, faults).await;
            }
            ToSupervisor::RunVerdict { request, verdict } => self.verdict(request, verdict).await,
            ToSupervisor::Settled { number, fault } => self.settled(number, fault),
            ToSupervisor::SessionOver { number } => self.session_over(number),
            ToSupervisor::Fetched {
                number,
                artefacts,
                last,
                rest,
            } => self.fetched(number, artefacts, last, rest).await,
            ToSupervisor::Severed { server } => self.severed(&server).await,
            ToSupervisor::Approvals { request, waiting } => {
                self.keep_approvals(request, waiting).await;
            }
            ToSupervisor::Health(health) => gate.health = health,
            ToSupervisor::Drained | ToSupervisor::Stopped => {
                self.gate_ended("it stopped of its own accord").await;
            }
        }
    }

    /// Sends to the gate, where there is one; a gate that does not take it is ended.
    pub(super) async fn tell(&mut self, message: ToGate) {
        let Some(gate) = &self.gate else { return };
        if let Err(error) = gate.send(&message, &[]).await {
            self.gate_lost(&error).await;
        }
    }

    /// Boxed, because ending a gate tells others, who may lose it in turn.
    pub(super) async fn gate_lost(&mut self, error: &ChannelError) {
        Box::pin(self.gate_ended(&chain(error))).await;
    }

    /// As [`Self::tell`], for messages that come as fast as processes are made.
    pub(super) async fn tell_process(&mut self, workload: u32, message: ToGate) {
        if self.may_tell_process(workload) {
            let told = self.process_messages.entry(workload).or_default();
            *told = told.saturating_add(1);
            self.tell(message).await;
        }
    }

    /// Whether the gate still takes process messages about a workload in this second.
    pub(super) fn may_tell_process(&self, workload: u32) -> bool {
        let told = self.process_messages.get(&workload);
        told.is_none_or(|told| *told < PROCESS_MESSAGES)
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
