//! The supervisor's one task: everything that happens is handled here, one thing after the other.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use exeat_ebpf::Kernel;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::approvals::Approvals;
use super::cgroups::Tree;
use super::configurations::Configurations;
use super::credentials::{self, Sources as CredentialSources};
use super::error::DaemonError;
use super::fetched::Arriving;
use super::gate::GATE_MESSAGES;
use super::gate_life::{Backoff, GateLife, GatePlan};
use super::guarding::Guarding;
use super::judging::{Judged, Judging};
use super::labelled::Labelled;
use super::notify::notify;
use super::occurrences::Occurrence;
use super::placing::{Found, Scan, UnitWatch};
use super::policy_files::Policy;
use super::processes::{Hashes, Processes};
use super::reviews::Reviews;
use super::runs::{Asked, LostSession};
use super::serving::{Offer, Over};
use super::settle::Settling;
use super::severing::Disconnections;
use super::signing::Signing;
use super::start::{Inheritance, Material};
use super::workloads::Workloads;
use crate::channel::ToGate;
use crate::config::Config;
use crate::control::Responder;
use crate::launch::stage::{Trust, chain};
use crate::telemetry::clock::{self, Monotonic, Timestamp};

/// Results of the supervisor's own tasks that wait to be looked at.
const HAPPENINGS: usize = 256;
/// Executables that wait to be hashed; beyond it records go without.
const HASHES: usize = 64;

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
    /// Sessions whose gate ended, until another records it.
    pub(super) lost: Vec<LostSession>,
    pub(super) next_request: u64,
    pub(super) reloads: Vec<(u64, Responder)>,
    pub(super) happenings: mpsc::Sender<Happening>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    pub(super) stopping: CancellationToken,
    pub(super) units: UnitWatch,
    pub(super) labelled: Labelled,
    /// Cgroups that should be managed and are not, and why: what was said already.
    pub(super) untaken: BTreeSet<String>,
    pub(super) started: Timestamp,
    pub(super) restart_at: Option<Instant>,
    pub(super) missing_links: Vec<String>,
    pub(super) disconnections: Disconnections,
    pub(super) approvals: Approvals,
    pub(super) reviews: Reviews,
    pub(super) credentials: CredentialSources,
    pub(super) arriving: Arriving,
    pub(super) guarding: Guarding,
    pub(super) judging: Judging,
    pub(super) process_messages: HashMap<u32, u32>,
    pub(super) gate_messages: u32,
    /// Until when the gate wants to be told of processes.
    pub(super) catching: Option<Monotonic>,
    pub(super) received: Option<mpsc::Receiver<Happening>>,
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
    /// Connections of a server that was disconnected stay open, and why.
    LeftOpen { number: u32, why: String },
    /// An executable was hashed.
    Hashed {
        pid: u32,
        started: u64,
        sha256: String,
    },
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
            lost: Vec::new(),
            next_request: 1,
            reloads: Vec::new(),
            happenings,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            stopping: CancellationToken::new(),
            units,
            labelled: Labelled::default(),
            untaken: BTreeSet::new(),
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

    pub(super) async fn handle(&mut self, occurrence: Occurrence) {
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
            Happening::LeftOpen { number, why } => {
                self.finding("connections_left_open", Some(number), vec![why])
                    .await;
            }
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
        self.sever_overdue();
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
}
