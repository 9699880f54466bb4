//! The gate's side of the channel: what the supervisor says, carried out in order.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use exeat_policy::{Caller, PolicySet, Reason};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, interval, sleep_until, timeout};

use super::GateError;
use super::build::compile;
use super::commands::{self, Answering};
use super::unregistered;
use super::workloads::Openings;
use crate::audit::record::{Decision, Finding, Identity, Kind, Lifecycle, PolicyChange};
use crate::audit::{Outcome, Start, Text};
use crate::channel::{
    Artefact, Disconnection, GateEnd, Hex, Lifecycle as Told, Process, Received, RunVerdict,
    Secret, Session, Setup, ToGate, ToSupervisor, Workload,
};
use crate::control::Handover;
use crate::decide::approvals::KeepRequest;
use crate::flow::{Offered, Stages, Word, serve_stdio};
use crate::identify::certificate::Authorities;
use crate::identify::workloads::Known;
use crate::telemetry::clock::{self, Monotonic};
use crate::tls::leaf::{Chain, SignRequest};

/// How often calls in flight are counted while a server is drained.
const DRAIN: Duration = Duration::from_millis(50);
/// How often the supervisor is asked for processes at most, whatever workloads do: far from what it takes for a flood.
const CATCHES: Duration = Duration::from_millis(1);
/// Certificates asked for and not yet answered.
const WAITING: usize = 256;
/// Words of sessions that wait to be told.
const WORDS: usize = 1024;
/// Time for a session's beginning to be recorded.
const ACCEPTED: Duration = Duration::from_secs(5);
/// Time for the supervisor to say the last.
const FAREWELL: Duration = Duration::from_millis(500);
/// What is told where nothing can be recorded.
const UNRECORDED: &str = "nothing can be recorded at present, so nothing is started";

/// What the gate keeps of its conversation with the supervisor.
pub(super) struct Supervisor {
    channel: Arc<GateEnd>,
    stages: Arc<Stages>,
    requests: mpsc::Receiver<SignRequest>,
    /// That somebody waits to hear of processes.
    asked: mpsc::Receiver<()>,
    /// Whether the supervisor is to be asked; since when it has been and has not answered; when it may be again.
    catching: (bool, Option<Instant>, Instant),
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
            catching: (false, None, Instant::now()),
            keeping,
            keeps: None,
            waiting: HashMap::new(),
            next: 0,
            openings: Openings::default(),
            prepared: None,
            answering,
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
                Some(()) = self.asked.recv(), if !self.catching.0 => self.catching.0 = true,
                () = sleep_until(self.catching.2), if self.catching.0 && self.catching.1.is_none() => {
                    self.catch_up().await?;
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
            } => {
                let verdict = self.may_run(uid, user.as_deref(), workload, &server).await;
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

    async fn catch_up(&mut self) -> Result<(), GateError> {
        let now = Instant::now();
        self.catching = (false, Some(now), now + CATCHES);
        Ok(self.channel.send(&ToSupervisor::Catch, &[]).await?)
    }

    fn caught(&mut self, until: Monotonic) {
        let since = self.catching.1.take();
        let time = since.map_or(Duration::ZERO, |since| since.elapsed());
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

    fn certificate(&mut self, request: u64, chain: Result<Vec<Hex>, String>) {
        if let Some(waiting) = self.waiting.remove(&request) {
            let chain = chain.map(|chain| chain.into_iter().map(|Hex(der)| der).collect());
            // Who asked may have given up.
            drop(waiting.send(chain));
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

    /// Tells the supervisor what a session says.
    async fn pass_on(&self, word: Word) -> Result<(), GateError> {
        let (number, fetched) = match word {
            Word::Over(number) => {
                let over = ToSupervisor::SessionOver { number };
                return Ok(self.channel.send(&over, &[]).await?);
            }
            Word::Fetched(number, fetched) => (number, fetched),
        };
        let mut pieces = Artefact::pieces(&fetched.artefacts).peekable();
        while let Some(piece) = pieces.next() {
            let last = pieces.peek().is_none();
            let fetched = ToSupervisor::Fetched {
                number,
                artefacts: piece.to_vec(),
                last,
                rest: fetched.rest.clone().filter(|_| last),
            };
            self.channel.send(&fetched, &[]).await?;
        }
        Ok(())
    }

    async fn settled(&self, number: u32, fault: Option<String>) -> Result<(), GateError> {
        let settled = ToSupervisor::Settled { number, fault };
        Ok(self.channel.send(&settled, &[]).await?)
    }

    /// A stdio server is about to be started: its session is served from before its first instruction.
    async fn session(&self, told: Session, descriptors: Vec<OwnedFd>) -> Result<(), String> {
        let offered = Offered { told, descriptors };
        // Everything else waits meanwhile.
        let words = self.words.0.clone();
        let served = timeout(ACCEPTED, serve_stdio(&self.stages, offered, words)).await;
        served.map_err(|_late| UNRECORDED.to_owned())?
    }

    async fn keep(&mut self, request: KeepRequest) -> Result<(), GateError> {
        let KeepRequest { waiting, reply } = request;
        self.next = self.next.wrapping_add(1);
        let request = self.next;
        self.keeps = Some((request, reply));
        let keep = ToSupervisor::Approvals { request, waiting };
        Ok(self.channel.send(&keep, &[]).await?)
    }

    fn kept(&mut self, request: u64, fault: Option<String>) {
        if let Some((_, waiting)) = self.keeps.take_if(|(kept, _)| *kept == request) {
            // Who asked may have given up.
            drop(waiting.send(fault.map_or(Ok(()), Err)));
        }
    }

    async fn sign(&mut self, request: SignRequest) -> Result<(), GateError> {
        let SignRequest {
            name,
            public_key,
            reply,
        } = request;
        self.waiting.retain(|_, waiting| !waiting.is_closed());
        if self.waiting.len() >= WAITING {
            drop(reply.send(Err("too many certificates are being asked for".to_owned())));
            return Ok(());
        }
        self.next = self.next.wrapping_add(1);
        let request = self.next;
        self.waiting.insert(request, reply);
        let sign = ToSupervisor::Sign {
            request,
            names: vec![name],
            key: Hex(public_key),
        };
        Ok(self.channel.send(&sign, &[]).await?)
    }

    async fn record_policy(&self, action: &'static str, faults: &[String]) {
        let state = self.stages.decider.in_force();
        let mut record = self.stages.log.record(Kind::Policy, clock::now());
        record.policy = Some(PolicyChange {
            action: Text::fixed(action),
            fingerprint: Some(Text::new(state.set.fingerprint())),
            generation: Some(state.generation),
            faults: faults.iter().map(Text::from).collect(),
        });
        if let Err(error) = self.stages.log.event(record).await {
            tracing::error!(%error, "a change of policy could not be recorded");
        }
    }

    /// All or nothing: the new policy is in force for every decision after this, the kernel is brought in step,
    /// and connections that are no longer allowed are cut.
    async fn policy(&mut self, generation: u64) -> Result<(), GateError> {
        let mut faults = Vec::new();
        let action = match self.compiled(generation).await {
            Ok(set) => {
                self.stages.credentials.keep(&set);
                self.stages.decider.replace(set, generation);
                self.stages.log.in_force(generation);
                for known in self.stages.intake.workloads.all() {
                    if let Err(error) = self.openings.agree(&self.stages, &known) {
                        tracing::error!(%error, "bringing the kernel in step with the policy");
                    }
                }
                let cut = self.stages.cut_disallowed(|_any| true);
                let sessions = self.stages.sessions.recheck(&self.stages.decider);
                tracing::info!(generation, cut, sessions, "the policy is in force");
                "reloaded"
            }
            Err(error) => {
                self.stages.decider.reject(error.to_string());
                faults.push(error.to_string());
                "refused"
            }
        };
        self.record_policy(action, &faults).await;
        let reloaded = ToSupervisor::Reloaded {
            generation: self.stages.decider.in_force().generation,
            faults,
        };
        Ok(self.channel.send(&reloaded, &[]).await?)
    }

    /// The policy of this number, which is being compiled since it was told.
    async fn compiled(&mut self, generation: u64) -> Result<PolicySet, GateError> {
        match self.prepared.take() {
            Some((prepared, compiled)) if prepared == generation => compiled
                .await
                .unwrap_or_else(|gone| resume_unwind(gone.into_panic())),
            _ => Err(GateError::Policy(format!(
                "policy {generation} was not told of"
            ))),
        }
    }

    /// Client certificates are verified by these from here on, at the next request of each connection.
    fn authorities(&self, given: &[(String, String)]) {
        let given = given.iter().map(|(name, text)| (&**name, &**text));
        match Authorities::new(given) {
            Ok(authorities) => self.stages.authorities.store(Arc::new(authorities)),
            // The supervisor made them before it sent them.
            Err(fault) => tracing::error!(%fault, "the client authorities were not taken"),
        }
    }

    /// Nothing new begins with the server from here on; what is under way ends now or when it is drained, and
    /// then the supervisor is told.
    async fn disconnect(&self, disconnection: Disconnection, drain_ms: Option<u64>) {
        let server = disconnection.server.clone();
        self.stages.decider.disconnect(disconnection.clone());
        if drain_ms.is_none() {
            cut(&self.stages, &server);
        }
        record_word(&self.stages, "server_disconnected", &disconnection).await;
        let (stages, channel) = (Arc::clone(&self.stages), Arc::clone(&self.channel));
        self.stages.tasks.spawn(async move {
            if let Some(limit) = drain_ms.map(Duration::from_millis) {
                let over = timeout(limit, drained(&stages, &server)).await.is_err();
                // Connected again meanwhile, and so nobody's to cut.
                if stages.decider.connected(&server).is_ok() {
                    return;
                }
                tracing::info!(server, over, "the server was given time for its calls");
                cut(&stages, &server);
            }
            let severed = ToSupervisor::Severed { server };
            if let Err(error) = channel.send(&severed, &[]).await {
                tracing::warn!(%error, "telling the supervisor that a server is cut off");
            }
        });
    }

    /// May this user start this server? The answer is recorded before it is given.
    async fn may_run(
        &self,
        uid: u32,
        user: Option<&str>,
        workload: Option<u32>,
        server: &str,
    ) -> RunVerdict {
        let refused = |reason: &str| RunVerdict::Refused {
            reason: reason.to_owned(),
        };
        let unavailable = || refused(UNRECORDED);
        // A host starts the servers of its list and no others, whatever its user may start elsewhere.
        let workloads = &self.stages.intake.workloads;
        let known = workload.map(|number| workloads.get(number));
        let gone = matches!(known, Some(None));
        let known = known.flatten();
        let identity = Identity {
            verified_by: Text::fixed("kernel"),
            user: user.map(Text::new),
            uid: Some(uid),
            ..Identity::default()
        };
        let start = Start {
            workload: known.as_ref().map(|known| workloads.recorded(known, 0)),
            identity: Some(identity.into()),
            ..Start::default()
        };
        let Ok(mut record) = self.stages.log.open(Kind::Lifecycle, start).await else {
            return unavailable();
        };
        record.record_mut().lifecycle = Some(Lifecycle {
            event: Text::fixed("run"),
            detail: Some(Text::new(server)),
            ..Lifecycle::default()
        });
        if gone {
            let why = "the workload that asks is gone";
            drop(record.close(Outcome {
                error: Some(Text::fixed(why)),
                ..Outcome::refused()
            }));
            return refused(why);
        }
        let caller = Caller {
            workload: known.as_deref().and_then(Known::judged),
            user,
            fetching: false,
            token: None,
            certificate: None,
            known_as: &[],
        };
        let (decision, verdict) = self.decide_run(caller, server);
        record.record_mut().decision = Some(decision);
        let outcome = match verdict {
            RunVerdict::Permitted => Outcome::done(),
            RunVerdict::Refused { .. } => Outcome::refused(),
        };
        match record.close(outcome).recorded().await {
            Ok(()) => verdict,
            Err(_) => unavailable(),
        }
    }

    fn decide_run(&self, caller: Caller<'_>, server: &str) -> (Decision, RunVerdict) {
        match self.stages.decider.run(caller, server) {
            Ok(permit) => (permit.decision().clone(), RunVerdict::Permitted),
            Err(by) => {
                let reason = match by.reason() {
                    Reason::Disconnected => {
                        format!("`{server}` was disconnected by an administrator")
                    }
                    _ => format!("`{server}` may not be started by this user"),
                };
                (by.decision().clone(), RunVerdict::Refused { reason })
            }
        }
    }

    async fn record(&self, told: Told) {
        let Told {
            finding,
            event,
            workload,
            details,
        } = told;
        let kind = if finding {
            Kind::Finding
        } else {
            Kind::Lifecycle
        };
        let mut record = self.stages.log.record(kind, clock::now());
        record.workload = workload
            .and_then(|number| self.stages.intake.workloads.get(number))
            .map(|known| self.stages.intake.workloads.recorded(&known, 0));
        let detail = (!details.is_empty()).then(|| Text::new(&details.join("; ")));
        if finding {
            record.finding = Some(Finding {
                what: Text::new(&event),
                detail,
                count: None,
            });
        } else {
            let event = Text::new(&event);
            record.lifecycle = Some(Lifecycle {
                event,
                detail,
                ..Lifecycle::default()
            });
        }
        if let Err(error) = self.stages.log.event(record).await {
            tracing::error!(%error, "an event of the supervisor could not be recorded");
        }
    }
}

/// Ends what is under way with a disconnected server: its clients are answered, its own connections and what
/// goes to it unread are cut.
pub(super) fn cut(stages: &Stages, server: &str) {
    stages.decider.cut(server);
    let cut = stages.intake.live.recheck(|connected| {
        let workloads = &stages.intake.workloads;
        let Some(known) = workloads.get(connected.workload) else {
            return true;
        };
        if known.server() == Some(server) {
            return false;
        }
        let (Some(peer), Some(_unread)) = (&connected.peer, &connected.unread) else {
            return true;
        };
        let permit = stages
            .decider
            .connect(known.caller(), peer.target(), connected.port);
        permit.is_ok_and(|permit| {
            permit.egress().and_then(|terms| terms.server.as_deref()) != Some(server)
        })
    });
    tracing::info!(server, cut, "the server is cut off");
}

/// Ends when no call of the server is in flight, or it is connected again.
async fn drained(stages: &Stages, server: &str) {
    let mut tick = interval(DRAIN);
    let is_its = |number| {
        let known = stages.intake.workloads.get(number);
        known.is_some_and(|known| known.server() == Some(server))
    };
    while stages.calls.in_flight(server, is_its) > 0 && stages.decider.connected(server).is_err() {
        tick.tick().await;
    }
}

/// Records an administrator's word on a server.
async fn record_word(stages: &Stages, event: &'static str, word: &Disconnection) {
    let mut record = stages.log.record(Kind::Lifecycle, clock::now());
    let identity = Identity {
        verified_by: Text::fixed("kernel"),
        user: Some(Text::new(&word.user)),
        uid: Some(word.uid),
        ..Identity::default()
    };
    record.identity = Some(identity.into());
    let detail = match &word.reason {
        Some(reason) => format!("{}: {reason}", word.server),
        None => word.server.clone(),
    };
    record.lifecycle = Some(Lifecycle {
        event: Text::fixed(event),
        detail: Some(Text::new(&detail)),
        ..Lifecycle::default()
    });
    if let Err(error) = stages.log.event(record).await {
        tracing::error!(%error, event, "an administrator's word could not be recorded");
    }
}
