//! The gate as the supervisor has it: set up, heard, told, and started anew when it ended.

use std::os::fd::AsFd as _;

use tokio::time::Instant;

use super::core::Supervisor;
use super::error::DaemonError;
use super::gate_life::GateLife;
use super::reload::for_gate;
use crate::channel::{ChannelError, Role, Setup, ToGate, ToSupervisor};
use crate::launch::stage::chain;
use crate::telemetry::clock;

/// Messages from the gate in a second: more is a flood, and the gate that makes it is replaced.
pub(super) const GATE_MESSAGES: u32 = 10_000;
/// Process messages to the gate in a second about one workload: a fork bomb must occupy neither the gate nor what others
/// are told by.
const PROCESS_MESSAGES: u32 = 1000;

impl Supervisor {
    /// Starts a gate with everything that it needs.
    pub(super) async fn start_gate(&mut self) -> Result<(), DaemonError> {
        // Before anything is open: an unregistered server may have been started while there was no gate.
        for host in self.hosts() {
            self.survey(&host, true);
        }
        let setup = self.setup();
        let maps = self.parts.kernel.gate_descriptors()?;
        let mut descriptors: Vec<_> = maps
            .iter()
            .map(|(map, fd)| (Role::Map(map.name().to_owned()), fd.as_fd()))
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

    pub(super) async fn restart_gate(&mut self) {
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

    pub(super) async fn hear(&mut self, message: Result<Option<ToSupervisor>, ChannelError>) {
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
                    self.say_lost().await;
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
            ToSupervisor::Severed { server } => self.severed(&server),
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
