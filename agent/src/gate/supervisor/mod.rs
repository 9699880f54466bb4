//! The gate's side of the channel: what the supervisor says, carried out in order.

mod asking;
mod policy;
mod recording;
mod runs;
mod sessions;
mod severing;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use exeat_policy::PolicySet;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout};

use self::severing::record_word;
use super::GateError;
use super::build::compile;
use super::catching::Catching;
use super::commands::{self, Answering};
use super::unregistered;
use super::workloads::Openings;
use crate::channel::{GateEnd, Process, Received, Secret, Setup, ToGate, ToSupervisor, Workload};
use crate::control::{ClientLimits, Handover, Slots};
use crate::decide::approvals::KeepRequest;
use crate::flow::{Stages, Word};
use crate::telemetry::clock::Monotonic;
use crate::tls::leaf::{Chain, SignRequest};

/// Words of sessions that wait to be told.
const WORDS: usize = 1024;
/// Time for the supervisor to say the last.
const FAREWELL: Duration = Duration::from_millis(500);
/// What is told where nothing can be recorded.
const UNRECORDED: &str = "nothing can be recorded at present, so nothing is started";

/// How many refused starts are answered at once.
const TURNED_AWAY: ClientLimits = ClientLimits {
    all: 64,
    each: 16,
    reserved: 16,
};

/// What the gate keeps of its conversation with the supervisor.
pub(super) struct Supervisor {
    channel: Arc<GateEnd>,
    stages: Arc<Stages>,
    requests: mpsc::Receiver<SignRequest>,
    /// That somebody waits to hear of processes.
    asked: mpsc::Receiver<()>,
    catching: Catching,
    /// Calls that wait for a person, to be kept.
    keeping: mpsc::Receiver<KeepRequest>,
    /// The number of what is being kept, and who waits for that.
    keeps: Option<(u64, oneshot::Sender<Result<(), String>>)>,
    waiting: HashMap<u64, oneshot::Sender<Result<Chain, String>>>,
    next: u64,
    openings: Openings,
    /// The policy that was told last and is not in force: its number, and what becomes of it.
    prepared: Option<(u64, JoinHandle<Result<PolicySet, GateError>>)>,
    answering: Arc<Answering>,
    /// Starts that were refused, of which somebody is being told.
    turned_away: Slots,
    /// What sessions say.
    words: (mpsc::Sender<Word>, mpsc::Receiver<Word>),
}

impl Supervisor {
    pub(super) fn new(
        channel: Arc<GateEnd>,
        stages: Arc<Stages>,
        requests: mpsc::Receiver<SignRequest>,
        asked: mpsc::Receiver<()>,
        audit: OwnedFd,
        setup: &Setup,
    ) -> Self {
        let directory: PathBuf = setup.config.state_dir.join("audit");
        let answering = Arc::new(Answering::new(
            Arc::clone(&stages),
            audit,
            directory,
            commands::certificate(&setup.ca_certificate),
        ));
        let (keeper, keeping) = mpsc::channel(1);
        tokio::spawn(Arc::clone(&stages.approvals).keep(keeper));
        Self {
            channel,
            stages,
            requests,
            asked,
            catching: Catching::new(),
            keeping,
            keeps: None,
            waiting: HashMap::new(),
            next: 0,
            openings: Openings::default(),
            prepared: None,
            answering,
            turned_away: Slots::new(TURNED_AWAY),
            words: mpsc::channel(WORDS),
        }
    }

    /// Takes in what is alive already. Whatever a gate before this one opened is shut first: its names are
    /// not known here.
    pub(super) fn begin(&mut self, workloads: Vec<Workload>, processes: &[Process]) {
        for workload in workloads {
            if let Err(error) = self.stages.intake.kernel.forget(workload.number) {
                tracing::error!(%error, workload = workload.number, "shutting what was open");
            }
            self.workload(workload);
        }
        for process in processes {
            self.stages.intake.workloads.process(process);
        }
    }

    /// Carries out what the supervisor says until it says to stop, or is gone; returns how long what is under
    /// way may take.
    pub(super) async fn serve(&mut self) -> Result<Duration, GateError> {
        // With which policy this gate begins.
        self.record_policy("loaded", &[]).await;
        loop {
            let due = self.catching.due();
            tokio::select! {
                received = self.channel.receive() => {
                    let Some(received) = received? else {
                        // Nobody is left to sign or to restart: end in order.
                        return Ok(Duration::ZERO);
                    };
                    if let ToGate::Stop { deadline_ms } = received.message {
                        return Ok(Duration::from_millis(deadline_ms));
                    }
                    self.heed(received).await?;
                }
                Some(()) = self.asked.recv(), if !self.catching.is_wanted() => self.catching.want(),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.catching.ask(Instant::now());
                    self.channel.send(&ToSupervisor::Catch, &[]).await?;
                }
                Some(request) = self.requests.recv() => self.sign(request).await?,
                Some(request) = self.keeping.recv() => self.keep(request).await?,
                Some(word) = self.words.1.recv() => self.pass_on(word).await?,
            }
        }
    }

    /// Passes on what sessions say while they end, until `drained`, and records what the supervisor has to say of it.
    pub(super) async fn see_out(&mut self, drained: impl Future<Output = ()>) {
        let mut drained = pin!(drained);
        let mut told = Ok(());
        loop {
            tokio::select! {
                () = &mut drained => break,
                Some(word) = self.words.1.recv(), if told.is_ok() => told = self.pass_on(word).await,
            }
        }
        while told.is_ok()
            && let Ok(word) = self.words.1.try_recv()
        {
            told = self.pass_on(word).await;
        }
        if told.is_ok() {
            match timeout(FAREWELL, self.hear_out()).await {
                Ok(heard) => told = heard,
                Err(_late) => tracing::warn!("the supervisor did not have its last word in time"),
            }
        }
        if let Err(error) = told {
            tracing::warn!(%error, "the supervisor was not told all of what ended");
        }
    }

    /// Says that nothing is under way any more, and takes in what the supervisor says to that.
    async fn hear_out(&self) -> Result<(), GateError> {
        self.channel.send(&ToSupervisor::Drained, &[]).await?;
        while let Some(received) = self.channel.receive().await? {
            match received.message {
                ToGate::Record(told) => self.record(*told).await,
                ToGate::Stop { .. } => break,
                _ => {}
            }
        }
        Ok(())
    }

    async fn heed(&mut self, received: Received<ToGate>) -> Result<(), GateError> {
        let Received {
            message,
            descriptors,
        } = received;
        match message {
            ToGate::Setup(_) | ToGate::Stop { .. } => {}
            ToGate::Prepare {
                generation,
                sources,
            } => self.prepared = Some((generation, spawn_blocking(move || compile(&sources)))),
            ToGate::Policy { generation } => self.policy(generation).await?,
            ToGate::ClientAuthorities(authorities) => self.authorities(&authorities),
            ToGate::Workload(workload) => {
                self.workload(*workload);
            }
            ToGate::WorkloadGone { number } => self.workload_gone(number),
            ToGate::Process(process) => self.stages.intake.workloads.process(&process),
            ToGate::ProcessGone { pid } => self.stages.intake.workloads.process_gone(pid),
            // Messages are heeded in order, so all that came before has been.
            ToGate::Caught { until } => self.caught(until),
            ToGate::Settle { number } => self.settled(number, None).await?,
            ToGate::Session(told) => {
                let number = told.number;
                let fault = self.session(*told, descriptors).await.err();
                self.settled(number, fault).await?;
            }
            ToGate::NotStarted { uid, why } => self.not_started(uid, why, descriptors),
            ToGate::Certificate { request, chain } => self.certificate(request, chain),
            ToGate::ApprovalsKept { request, fault } => self.kept(request, fault),
            ToGate::Credential { name, secret } => self.credential(&name, secret),
            ToGate::Client(handover) => self.client(*handover, descriptors),
            ToGate::MayRun {
                request,
                uid,
                user,
                workload,
                server,
                extra_args,
            } => {
                let asked = (&*server, &*extra_args);
                let verdict = self.may_run(uid, user.as_deref(), workload, asked).await;
                self.channel
                    .send(&ToSupervisor::RunVerdict { request, verdict }, &[])
                    .await?;
            }
            ToGate::Record(told) => self.record(*told).await,
            ToGate::Unregistered(told) => unregistered::record(&self.stages, &told).await,
            ToGate::Disconnect {
                disconnection,
                drain_ms,
            } => self.disconnect(*disconnection, drain_ms).await,
            ToGate::Reconnect { reconnection } => {
                self.stages.decider.reconnect(&reconnection.server);
                record_word(&self.stages, "server_reconnected", &reconnection).await;
            }
        }
        Ok(())
    }

    fn caught(&mut self, until: Monotonic) {
        let time = self.catching.answered(Instant::now());
        self.stages.intake.told.told(until, time);
    }

    fn client(&self, handover: Handover, descriptors: Vec<OwnedFd>) {
        if let Some(socket) = descriptors.into_iter().next() {
            let answering = Arc::clone(&self.answering);
            self.stages
                .tasks
                .spawn(commands::answer(answering, handover, socket));
        }
    }

    fn credential(&self, name: &str, secret: Result<Secret, String>) {
        let state = self.stages.decider.in_force();
        // One of a policy that was not taken here is nobody's.
        if let Some(credential) = state.set.credential(name) {
            self.stages.credentials.learn(credential, secret);
        }
    }

    fn workload(&mut self, workload: Workload) {
        let known = self.stages.intake.workloads.add(workload);
        if let Err(error) = self.openings.agree(&self.stages, &known) {
            tracing::error!(%error, workload = known.workload.number, "opening a workload's ways");
        }
    }

    fn workload_gone(&mut self, number: u32) {
        self.stages.intake.workloads.remove(number);
        self.stages
            .intake
            .live
            .recheck(|connected| connected.workload != number);
        if let Err(error) = self.openings.forget(&self.stages, number) {
            tracing::error!(%error, number, "forgetting a workload");
        }
    }
}
