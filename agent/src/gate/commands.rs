//! Commands of the control socket that the gate answers: state, register, log, explanations.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use exeat_policy::{Mode, PolicySet, Server as Registered, Timestamp, Transport};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::approvals;
use super::theirs::Theirs;
use crate::audit::record::Kind;
use crate::audit::{Filter, Segments};
use crate::control::command::Action;
use crate::control::records::{self, Owner};
use crate::control::reply::{
    AuditState, BreakerPosition, BreakerState, Certificate, CredentialState, Disconnected, Finding,
    IssuerState, ListedTool, PolicyState, Reply, Server, Status, WebhookState, Workload,
    WorkloadKind,
};
use crate::control::{
    ClientLimits, Code, Command, ControlError, Facts, Handover, Question, Responder, Slots, chain,
};
use crate::control::{describe, explain};
use crate::decide::InForce;
use crate::decide::breakers::Position;
use crate::flow::Stages;
use crate::identify::token::{Standing, Supply};
use crate::identify::workloads::Known;
use crate::telemetry::clock;

/// Findings shown by `status`.
const FINDINGS: usize = 10;
/// The one method of which what a server lists tells something.
const TOOLS_CALL: &str = "tools/call";
/// Tools shown of what a server lists.
const LISTED: usize = 4096;

/// What answering needs.
pub(super) struct Answering {
    stages: Arc<Stages>,
    audit: OwnedFd,
    directory: PathBuf,
    certificate: Certificate,
    /// The supervisor's count of a client ends where the gate takes it over.
    slots: Slots,
}

impl Answering {
    pub(super) fn new(
        stages: Arc<Stages>,
        audit: OwnedFd,
        directory: PathBuf,
        certificate: Certificate,
    ) -> Self {
        Self {
            stages,
            audit,
            directory,
            certificate,
            slots: Slots::new(ClientLimits::default()),
        }
    }

    fn segments(&self) -> Result<Segments, std::io::Error> {
        Ok(Segments::from_descriptor(self.audit.try_clone()?))
    }
}

/// Answers one client. What fails is told to the client or, where it is gone, to the log.
pub(super) async fn answer(answering: Arc<Answering>, handover: Handover, socket: OwnedFd) {
    let slot = answering.slots.take(handover.peer.uid);
    let busy = slot.is_none();
    let told = match Responder::adopt(socket, slot) {
        Ok(responder) if busy => {
            let why = "the daemon serves as many clients as it may";
            responder.fail(Code::Busy, why).await
        }
        Ok(responder) => reply(&answering, handover, responder).await,
        Err(error) => Err(error),
    };
    if let Err(error) = told {
        tracing::debug!(
            error = chain(&error),
            "a control client was not answered to the end"
        );
    }
}

async fn reply(
    answering: &Answering,
    handover: Handover,
    mut responder: Responder,
) -> Result<(), ControlError> {
    let Handover {
        peer,
        scope,
        command,
        facts,
    } = handover;
    let owner = Owner::of(scope, peer.uid);
    let stages = &answering.stages;
    match command {
        Command::Status => {
            let status = status(answering, facts, owner).await;
            responder.reply(Reply::Status(Box::new(status))).await?;
            responder.done().await
        }
        Command::Servers => {
            let state = stages.decider.in_force();
            let theirs = Theirs::of(stages, &state.set, owner).await;
            for server in state.set.servers() {
                if !theirs.has(&server.name) {
                    continue;
                }
                let shown = shown(stages, &state.set, server, false);
                responder.reply(Reply::Server(Box::new(shown))).await?;
            }
            responder.done().await
        }
        Command::ServerShow(show) => one(stages, &show.name, owner, responder).await,
        Command::AuditQuery(filter) => match answering.segments() {
            Ok(segments) => records::query(responder, segments, filter, owner).await,
            Err(error) => responder.fail(Code::Internal, chain(&error)).await,
        },
        Command::AuditTail(filter) => match answering.segments() {
            Ok(segments) => records::tail(responder, segments, filter, owner).await,
            Err(error) => responder.fail(Code::Internal, chain(&error)).await,
        },
        Command::PolicyExplain(question) => explained(stages, *question, responder).await,
        Command::CaExport => {
            responder
                .reply(Reply::Certificate(answering.certificate.clone()))
                .await?;
            responder.done().await
        }
        Command::Doctor => doctor(stages, owner, responder).await,
        Command::Approvals => approvals::list(stages, &peer, scope, responder).await,
        Command::ApprovalDecide(decision) => {
            approvals::decide(stages, &peer, decision, responder).await
        }
        Command::ApprovalLink(link) => approvals::by_link(stages, &peer, &link, responder).await,
        Command::Run(_)
        | Command::Reload
        | Command::Canary
        | Command::ServerDisconnect(_)
        | Command::ServerReconnect(_) => {
            responder
                .fail(Code::Internal, "this command is for the supervisor")
                .await
        }
    }
}

/// What is to be said of this machine, the client sees itself; the daemon adds what runs, for administrators.
async fn doctor(
    stages: &Stages,
    owner: Owner,
    mut responder: Responder,
) -> Result<(), ControlError> {
    if owner != Owner::Anybody {
        return responder.done().await;
    }
    for issuer in issuers(stages) {
        responder.reply(Reply::Check(issuer.check())).await?;
    }
    for webhook in webhooks(stages) {
        responder.reply(Reply::Check(webhook.check())).await?;
    }
    responder.done().await
}

async fn one(
    stages: &Stages,
    name: &str,
    owner: Owner,
    mut responder: Responder,
) -> Result<(), ControlError> {
    let state = stages.decider.in_force();
    let theirs = Theirs::of(stages, &state.set, owner).await;
    let Some(server) = state.set.server(name).filter(|_| theirs.has(name)) else {
        // The same whether there is none or it is not theirs.
        let whose = match owner {
            Owner::Anybody => "",
            Owner::User(_) => " that you may start or call",
        };
        let text = format!("there is no server `{name}`{whose} in the register");
        return responder.fail(Code::NotFound, text).await;
    };
    let shown = shown(stages, &state.set, server, owner == Owner::Anybody);
    responder.reply(Reply::Server(Box::new(shown))).await?;
    responder.done().await
}

async fn explained(
    stages: &Stages,
    mut question: Question,
    mut responder: Responder,
) -> Result<(), ControlError> {
    if let Action::Call(call) = &mut question.action
        && call.hints.is_none()
        && let Some(tool) = call.name.as_ref().filter(|_| call.method == TOOLS_CALL)
    {
        // As a live call of whom it was listed to last.
        let hints = stages.observed.lists(&Arc::from(&*call.server), tool);
        call.hints = hints.map(ListedTool::from);
    }
    let state = stages.decider.in_force();
    let now = Timestamp::from_millis(clock::wall().microseconds() / 1000);
    let count = |key: &_| stages.decider.count(key);
    match explain::answer(&state.set, &question, now, count) {
        Ok(explanation) => {
            responder.reply(Reply::Explanation(explanation)).await?;
            responder.done().await
        }
        Err(error) => responder.fail(Code::Invalid, chain(&error)).await,
    }
}

async fn status(answering: &Answering, facts: Facts, owner: Owner) -> Status {
    let stages = &answering.stages;
    let state = stages.decider.in_force();
    let theirs = Theirs::of(stages, &state.set, owner).await;
    let whole = owner == Owner::Anybody;
    let mut rejected = facts.rejected.or_else(|| stages.decider.rejected());
    if !whole {
        rejected = rejected.map(|_why| "an administrator is told why".to_owned());
    }
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        supervisor: facts.supervisor,
        gate: facts.gate,
        gate_restarts: facts.gate_restarts,
        kernel: facts.kernel,
        policy: policy_state(&state, rejected),
        audit: Some(audit_state(stages, &answering.directory)),
        issuers: if whole { issuers(stages) } else { Vec::new() },
        credentials: if whole {
            credentials(stages)
        } else {
            Vec::new()
        },
        webhooks: if whole { webhooks(stages) } else { Vec::new() },
        breakers: breakers(stages, &theirs),
        workloads: workloads(stages, owner),
        disconnected: stages
            .decider
            .disconnected()
            .iter()
            .filter(|disconnection| theirs.has(&disconnection.server))
            .map(|disconnection| Disconnected::from(&**disconnection))
            .collect(),
        findings: findings(answering, owner),
    }
}

fn policy_state(state: &InForce, rejected: Option<String>) -> PolicyState {
    PolicyState {
        generation: state.generation,
        fingerprint: state.set.fingerprint().to_owned(),
        loaded: state.loaded,
        servers: u32::try_from(state.set.servers().count()).unwrap_or(u32::MAX),
        rules: u32::try_from(state.set.written_rules().count()).unwrap_or(u32::MAX),
        rejected,
    }
}

fn audit_state(stages: &Stages, directory: &Path) -> AuditState {
    let available = stages.log.available();
    AuditState {
        healthy: available.is_ok(),
        directory: directory.display().to_string(),
        sequence: stages.log.head().seq,
        queued: stages.log.queued(),
        problem: available.err().map(|error| error.to_string()),
    }
}

fn issuers(stages: &Stages) -> Vec<IssuerState> {
    let shown = |supply: &Arc<Supply>| {
        let Standing {
            keys,
            fetched,
            fault,
        } = supply.standing();
        IssuerState {
            issuer: supply.issuer.to_string(),
            keys,
            fetched,
            problem: fault,
        }
    };
    stages.tokens.supplies().into_iter().map(shown).collect()
}

fn credentials(stages: &Stages) -> Vec<CredentialState> {
    let state = stages.decider.in_force();
    let standing = stages.credentials.standing(&state.set).into_iter();
    let shown = standing.map(|standing| CredentialState {
        name: standing.name.to_string(),
        read: standing.read,
        problem: standing.fault,
    });
    shown.collect()
}

fn webhooks(stages: &Stages) -> Vec<WebhookState> {
    let webhooks = stages.approving.iter().flat_map(|of| &of.webhooks);
    let shown = webhooks.map(|webhook| WebhookState {
        approver: webhook.approver.user.clone(),
        host: webhook.host(),
        problem: webhook.fault(),
    });
    shown.collect()
}

fn breakers(stages: &Stages, theirs: &Theirs) -> Vec<BreakerState> {
    let known = stages.decider.breakers().into_iter();
    let known = known.filter(|standing| theirs.has(&standing.scope.server));
    let shown = known.map(|standing| {
        let (position, wait) = match standing.position {
            Position::Closed => (BreakerPosition::Closed, None),
            Position::Open(wait) => (BreakerPosition::Open, Some(wait)),
            Position::HalfOpen => (BreakerPosition::HalfOpen, None),
        };
        BreakerState {
            server: standing.scope.server.to_string(),
            tool: standing.scope.tool.map(|tool| tool.to_string()),
            position,
            retry_after_ms: wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            calls: standing.calls,
            failed: standing.failed,
        }
    });
    shown.collect()
}

fn workloads(stages: &Stages, owner: Owner) -> Vec<Workload> {
    let mut shown: Vec<Workload> = stages
        .intake
        .workloads
        .all()
        .iter()
        .filter(|known| match owner {
            Owner::Anybody => true,
            Owner::User(uid) => known.workload.uid == uid || known.workload.started_by == Some(uid),
        })
        .map(|known| shown_workload(stages, known))
        .collect();
    shown.sort_by_key(|workload| workload.number);
    shown
}

fn shown_workload(stages: &Stages, known: &Known) -> Workload {
    let workload = &known.workload;
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Workload {
        number: workload.number,
        name: workload.name.clone(),
        kind: match workload.kind {
            crate::channel::Kind::Server => WorkloadKind::Server,
            crate::channel::Kind::Host => WorkloadKind::Host,
            crate::channel::Kind::Unregistered => WorkloadKind::Unregistered,
        },
        cgroup: workload.cgroup.display().to_string(),
        uid: workload.uid,
        processes: count(stages.intake.workloads.processes(workload.number)),
        connections: count(stages.intake.live.of(workload.number)),
        started: known.since,
    }
}

/// The newest findings, newest first.
fn findings(answering: &Answering, owner: Owner) -> Vec<Finding> {
    let filter = Filter {
        kind: Some(Kind::Finding),
        limit: Some(FINDINGS),
        ..Filter::default()
    };
    let found = answering.segments().map(|segments| segments.query(&filter));
    let Ok(Ok(entries)) = found else {
        return Vec::new();
    };
    entries
        .into_iter()
        .rev()
        .filter(|entry| owner.owns(&entry.record))
        .map(|entry| {
            let record = entry.record;
            let text = record.finding.map(|finding| match finding.detail {
                Some(detail) => format!("{}: {detail}", finding.what),
                None => finding.what.to_string(),
            });
            Finding {
                time: record.time,
                record: record.id.to_string(),
                workload: record.workload.map(|workload| workload.name.to_string()),
                text: text.unwrap_or_default(),
            }
        })
        .collect()
}

fn shown(stages: &Stages, set: &PolicySet, server: &Registered, whole: bool) -> Server {
    let all = stages.intake.workloads.all();
    let running = all
        .iter()
        .filter(|known| known.server() == Some(&server.name))
        .count();
    let observed = set.mode() == Mode::Observe || server.mode == Mode::Observe;
    Server {
        name: server.name.to_string(),
        purpose: server.purpose.clone().unwrap_or_default(),
        owner: server.owner.clone().unwrap_or_default(),
        reached: match &server.transport {
            Transport::Launch(_) => "stdio".to_owned(),
            Transport::Url(url) => url.to_string(),
            Transport::Listen(endpoint) => format!("listens on {endpoint}"),
        },
        running: u32::try_from(running).unwrap_or(u32::MAX),
        mode: if observed { "observe" } else { "enforce" }.to_owned(),
        review_by: server.review_by.map(|date| date.to_string()),
        disconnected: stages
            .decider
            .disconnected()
            .iter()
            .find(|disconnection| *disconnection.server == *server.name)
            .map(|disconnection| Disconnected::from(&**disconnection)),
        egress: if whole {
            server.egress.iter().map(describe::egress).collect()
        } else {
            Vec::new()
        },
        tools: if whole {
            let row = |(glob, tool): &(exeat_policy::Glob, exeat_policy::Tool)| {
                (glob.to_string(), tool.class.to_string())
            };
            server.tools.iter().map(row).collect()
        } else {
            BTreeMap::new()
        },
        listed: if whole {
            listed(stages, &server.name)
        } else {
            BTreeMap::new()
        },
    }
}

/// What a server was seen to list.
fn listed(stages: &Stages, server: &str) -> BTreeMap<String, ListedTool> {
    let listed = stages.observed.listed(server, LISTED).into_iter();
    listed
        .map(|(name, hints)| (name, ListedTool::from(hints)))
        .collect()
}

/// The CA's certificate as it is shown.
pub(super) fn certificate(pem: &str) -> Certificate {
    let fingerprint = CertificateDer::from_pem_slice(pem.as_bytes())
        .map(|der| crate::channel::encode_hex(digest(&SHA256, &der).as_ref()))
        .unwrap_or_default();
    Certificate {
        pem: pem.to_owned(),
        fingerprint,
    }
}
