//! The decision on one MCP message, and what its sender is told when it is refused.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use exeat_policy::{Endpoint, Hints as PolicyHints, Pointer, Reason, Transport, Underway};
use serde_json::Value as Arguments;

use super::super::describe::Story as _;
use super::observed::{From, Talk};
use super::tool;
use crate::audit::record::{Kind, Mcp, Session as RecordedSession, Side, Stage};
use crate::audit::{OpenRecord, RecordId, Text, mask};
use crate::decide::approvals::Approved;
use crate::decide::{InForce, McpMessage, Message as AboutMessage, Permit, Refused, Within};
use crate::decode::json::Object;
use crate::decode::mcp::{
    Embedded, Era, Hints, Method, Name, View, ViewFault, method, spoken, view,
};
use crate::decode::rpc::{Id, Message};
use crate::flow::Stages;
use crate::identify::account::Account;
use crate::identify::calls::{self, Callee, InFlight};
use crate::identify::peer::Peer;
use crate::intake::Actor;
use crate::refuse::{Refusal, Subject};
use crate::telemetry::clock;

/// Who talks with whom.
#[derive(Clone)]
pub(super) struct Talking {
    pub(super) stages: Arc<Stages>,
    pub(super) actor: Actor,
    pub(super) talk: Talk,
    /// Who carries out what is asked, and for whom: by it is remembered what was listed, and which tasks are whose.
    pub(super) account: Account,
    /// What limits for each session count by: a session that the server opened for the caller. All its other conversations
    /// are one: an id that a client makes up must not make a count of its own.
    counted: String,
    /// The request whose messages are judged; none over standard streams.
    pub(super) within: Option<Arc<Within>>,
}

/// A refused message: what its sender is told, and what the record says beyond the decision.
pub(super) struct NotPassed {
    pub(super) told: Told,
    pub(super) refused: Option<Refused>,
    pub(super) why: &'static str,
}

/// A refusal that owns the name that it hides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// As it is.
    Plain(Refusal<'static>),
    /// The tool does not exist for this caller.
    HiddenTool(String),
}

impl Told {
    pub(super) fn refusal(&self) -> Refusal<'_> {
        match self {
            Self::Plain(refusal) => *refusal,
            Self::HiddenTool(name) => Refusal::Hidden(Subject::Tool, name),
        }
    }
}

impl NotPassed {
    pub(super) fn plain(refusal: Refusal<'static>, why: &'static str) -> Self {
        Self {
            told: Told::Plain(refusal),
            refused: None,
            why,
        }
    }

    /// Ends the record of what was refused.
    pub(super) fn record(self, record: OpenRecord) {
        match &self.refused {
            Some(refused) => record.refuse(refused),
            None => record.refuse_with(self.why),
        }
    }
}

impl Talking {
    pub(super) fn new(stages: Arc<Stages>, actor: Actor, talk: Talk, callee: Callee) -> Self {
        let workload = stages.intake.workloads.get(talk.workload);
        let workload = workload.map_or_else(|| talk.workload.to_string(), |it| it.lasting_name());
        let whose = talk.whose.clone();
        let count = |session: &str| format!("{workload}/{}/{session}", whose.as_str());
        // One that an earlier gate counted was opened then.
        let is_open = |session: &&str| {
            stages.observed.is_open(&talk) || stages.decider.counted(&count(session))
        };
        let counted = count(talk.session.as_deref().filter(is_open).unwrap_or(""));
        Self {
            stages,
            actor,
            talk,
            account: Account { callee, whose },
            counted,
            within: None,
        }
    }

    /// May `message`, sent by the client, pass?
    pub(super) fn judge_client(
        &self,
        record: &mut OpenRecord,
        message: &Message,
    ) -> Result<Permit<AboutMessage>, NotPassed> {
        let Message::Response(response) = message else {
            return self.judge_call(record, Side::Client, message);
        };
        let waiting = response
            .id
            .as_ref()
            .and_then(|id| self.stages.observed.answered(&self.talk, From::Server, id));
        record.stage(Stage::Decode);
        let Some(waiting) = waiting else {
            self.tell_unread(record, Side::Client);
            return Err(answers_nothing());
        };
        // The answer to what the server asked for: decided as what was asked.
        let seen = Seen {
            method: &waiting.method,
            id: response.id.as_ref(),
            again: true,
            ..Seen::default()
        };
        let policy = self.stages.decider.in_force();
        self.describe(&policy, record, Side::Client, seen.method, Some(&seen));
        self.decide(&policy, record, &seen)
    }

    /// May the request or notification `message` of `from` reach the other side?
    pub(super) fn judge_call(
        &self,
        record: &mut OpenRecord,
        from: Side,
        message: &Message,
    ) -> Result<Permit<AboutMessage>, NotPassed> {
        record.stage(Stage::Decode);
        // What decides says as well what the record leaves out.
        let policy = self.stages.decider.in_force();
        match view(message) {
            Ok(seen) => {
                let (known, seen) = (seen.known, Seen::from(&seen));
                let exists = known.is_none_or(|known| known.exists_in(era(message)));
                self.describe(&policy, record, from, seen.method, Some(&seen));
                directed(from, known, message)?;
                if from == Side::Client && matches!(message, Message::Request(_)) {
                    let connected = self.stages.decider.connected(&self.talk.server);
                    connected.map_err(disconnected)?;
                }
                self.asks_after(&policy, seen.task_of(from), exists)?;
                let listened = self.listens(&policy, record, message)?;
                let judged = self.decide(&policy, record, &seen);
                listened.end(judged.is_ok());
                judged
            }
            Err(fault) => {
                self.describe(&policy, record, from, message.method().unwrap_or(""), None);
                Err(unviewable(fault))
            }
        }
    }

    /// A request of the client is on its way: until it is answered, it may be the cause of what the server does.
    pub(super) fn begin(&self, message: &Message, record: RecordId) -> Option<InFlight> {
        let Message::Request(request) = message else {
            return None;
        };
        let asks = match request.method.as_str() {
            "tools/call" => Underway::Call(Arc::from(tool(message).unwrap_or_default())),
            _ => Underway::Other,
        };
        let acts = calls::acts(&request.method);
        acts.then(|| self.stages.calls.begin(self.account.clone(), record, asks))
    }

    /// May `message` of the client pass, now that a person approved it?
    pub(super) fn judge_approved(
        &self,
        record: &mut OpenRecord,
        message: &Message,
        approved: Approved,
    ) -> Result<Permit<AboutMessage>, NotPassed> {
        let connected = self.stages.decider.connected(&self.talk.server);
        connected.map_err(disconnected)?;
        let now = u64::try_from(clock::wall().microseconds()).map(Duration::from_micros);
        let now = now.unwrap_or(Duration::MAX);
        if self
            .actor
            .token
            .as_deref()
            .is_some_and(|token| token.is_over(now))
        {
            let why = "its token expired while it waited for an approval";
            return Err(NotPassed::plain(Refusal::InvalidToken, why));
        }
        let authorities = self.stages.authorities.load();
        let shown = self.actor.certificate.as_ref();
        if shown.is_some_and(|shown| !shown.holds(&authorities)) {
            let why = "its client certificate is not acceptable any more";
            return Err(NotPassed::plain(Refusal::InvalidCertificate, why));
        }
        let state = self.stages.decider.in_force();
        if approved.is_by(&self.actor.caller(), &state.set) {
            let why = "it was approved by who calls, as the policy knows people by now";
            return Err(NotPassed::plain(Refusal::NeedsApproval, why));
        }
        let seen = view(message).map_err(unviewable)?;
        let seen = Seen::from(&seen);
        if let Some(mcp) = &mut record.record_mut().mcp {
            self.tell_arguments(&state, mcp, &seen);
        }
        let mut judged = self.judge_by(&state, &seen, Some(approved));
        self.tell_caller(&state, record);
        tell_judged(record, &judged);
        watch(record, &mut judged);
        judged
    }

    /// The same for a message of which it is seen later whether it has a record ([`Talking::tell_call`]).
    pub(super) fn consider(
        &self,
        from: Side,
        message: &Message,
    ) -> Result<Permit<AboutMessage>, NotPassed> {
        let seen = view(message).map_err(unviewable)?;
        directed(from, seen.known, message)?;
        self.judge(&Seen::from(&seen))
    }

    /// Writes into `record` what `from` said, and what was decided of it.
    pub(super) fn tell_considered(
        &self,
        record: &mut OpenRecord,
        from: Side,
        message: &Message,
        judged: &Result<Permit<AboutMessage>, NotPassed>,
    ) {
        self.tell_call(record, from, message);
        record.stage(Stage::Decide);
        tell_judged(record, judged);
    }

    /// Writes into the record which call it is about.
    pub(super) fn tell_call(&self, record: &mut OpenRecord, from: Side, message: &Message) {
        let seen = view(message).ok();
        let seen = seen.as_ref().map(Seen::from);
        let policy = self.stages.decider.in_force();
        let method = message.method().unwrap_or("");
        self.describe(&policy, record, from, method, seen.as_ref());
    }

    /// Writes into the record that the server answers a request with `method`.
    pub(super) fn tell_answer(&self, record: &mut OpenRecord, method: &str, id: Option<&Id>) {
        let seen = Seen {
            method,
            id,
            ..Seen::default()
        };
        let policy = self.stages.decider.in_force();
        self.describe(&policy, record, Side::Server, method, Some(&seen));
    }

    /// Writes into the record that `from` sent something that is no message.
    pub(super) fn tell_unread(&self, record: &mut OpenRecord, from: Side) {
        let policy = self.stages.decider.in_force();
        self.describe(&policy, record, from, "", None);
    }

    /// May what the server asks for inside a message reach the client? It has a record of its own.
    pub(super) fn judge_inside(
        &self,
        record: &mut OpenRecord,
        asked: &Embedded<'_>,
    ) -> Result<Permit<AboutMessage>, NotPassed> {
        record.stage(Stage::Decode);
        let policy = self.stages.decider.in_force();
        let key = Id::Text(asked.key.to_owned());
        let seen = Seen {
            method: asked.method,
            name: None,
            id: Some(&key),
            arguments: None,
            again: false,
        };
        self.describe(&policy, record, Side::Server, seen.method, Some(&seen));
        if !method(asked.method).is_some_and(Method::stands_in_results) {
            let why = "a request that does not stand in results";
            return Err(NotPassed::plain(Refusal::Denied, why));
        }
        self.decide(&policy, record, &seen)
    }

    /// May the client's answer to what the server asked for (`method`) reach the server? Decided as what was asked, which
    /// was counted then.
    pub(super) fn may_answer(&self, method: &str) -> Result<Permit<AboutMessage>, NotPassed> {
        self.judge(&Seen {
            method,
            again: true,
            ..Seen::default()
        })
    }

    /// Whether the caller is shown `tool` by `policy`.
    pub(super) fn lists(&self, policy: &InForce, tool: &str, hints: PolicyHints) -> bool {
        policy.lists(self.actor.caller(), &self.talk.server, tool, hints)
    }

    /// The policy by which an answer's tools are shown, and by which its request, whose record this is, passes in the
    /// end: it is decided anew where another came into force since.
    pub(super) fn shown_by(
        &self,
        record: &mut OpenRecord,
        method: Option<&str>,
    ) -> Result<Arc<InForce>, Refusal<'static>> {
        let policy = self.stages.decider.in_force();
        let decision = record.record_mut().decision.clone();
        let decided = decision.and_then(|decision| decision.generation);
        if decided.is_none() || decided == Some(policy.generation) {
            return Ok(policy);
        }
        let seen = Seen {
            method: method.unwrap_or_default(),
            again: true,
            ..Seen::default()
        };
        let judged = self.judge_by(&policy, &seen, None);
        self.tell_caller(&policy, record);
        tell_judged(record, &judged);
        match judged {
            Ok(_permit) => Ok(policy),
            Err(_refused) => Err(Refusal::Denied),
        }
    }

    /// Waits until the policy in force would not let the request go where it went in which the messages come. What it was
    /// asked for alone does not tell, nor who asked: users outside policy, and tokens, are the requests' own.
    pub(super) async fn unreachable(self) {
        let Some(within) = &self.within else {
            return pending().await;
        };
        let decider = &self.stages.decider;
        let mut changes = decider.changes();
        while decider.leads(self.actor.caller(), within, &self.talk.server) {
            if changes.changed().await.is_err() {
                return pending().await;
            }
        }
    }

    /// Whether another server of the register stands at `path` (normalised) of `peer`.
    pub(super) fn belongs_to_another(&self, path: &str, peer: &Peer, port: u16) -> bool {
        let state = self.stages.decider.in_force();
        let there = state.set.servers().filter_map(|server| {
            let Transport::Url(url) = &server.transport else {
                return None;
            };
            let same = match &url.endpoint {
                Endpoint::Name(name, at) => *peer == Peer::Name(name.clone()) && *at == port,
                Endpoint::Address(address, at) => *peer == Peer::Address(*address) && *at == port,
            };
            let own = *server.name == *self.talk.server;
            (same && url.covers(path)).then_some((url.path.len(), own))
        });
        there.max().is_some_and(|(_, own)| !own)
    }

    pub(super) fn decide(
        &self,
        policy: &InForce,
        record: &mut OpenRecord,
        seen: &Seen<'_>,
    ) -> Result<Permit<AboutMessage>, NotPassed> {
        record.stage(Stage::Decide);
        let mut judged = self.judge_by(policy, seen, None);
        tell_judged(record, &judged);
        watch(record, &mut judged);
        judged
    }

    fn judge(&self, seen: &Seen<'_>) -> Result<Permit<AboutMessage>, NotPassed> {
        self.judge_by(&self.stages.decider.in_force(), seen, None)
    }

    fn judge_by(
        &self,
        policy: &InForce,
        seen: &Seen<'_>,
        approved: Option<Approved>,
    ) -> Result<Permit<AboutMessage>, NotPassed> {
        let tool = matches!(seen.name, Some(Name::Tool(_)));
        let name = seen.name.map(Name::text);
        let hints = name
            .filter(|_| tool)
            .and_then(|name| self.stages.observed.hints(&self.account, name));
        let asked = McpMessage {
            server: &self.talk.server,
            method: seen.method,
            name,
            arguments: seen.arguments,
            hints,
            session: Some(&self.counted),
            within: self.within.as_deref(),
            again: seen.again,
        };
        let caller = self.actor.caller();
        self.stages
            .decider
            .message_by(policy, caller, asked, approved)
            .map_err(|refused| {
                let told = match (refused.reason(), name) {
                    (Reason::LimitReached(_) | Reason::CountMissing(_), _) => {
                        Told::Plain(Refusal::LimitReached(refused.retry_after()))
                    }
                    (Reason::BreakerOpen, _) => {
                        Told::Plain(Refusal::BreakerOpen(refused.retry_after()))
                    }
                    (Reason::Disconnected, _) => Told::Plain(Refusal::Disconnected),
                    (Reason::AmountRefused(_), _) => Told::Plain(Refusal::InvalidParams),
                    (Reason::NeedsApproval, _) => Told::Plain(Refusal::NeedsApproval),
                    (Reason::DryRun, _) => Told::Plain(Refusal::DryRun),
                    (Reason::UnknownMethod, _) => Told::Plain(Refusal::Hidden(Subject::Method, "")),
                    (_, Some(name))
                        if tool && !self.lists(policy, name, hints.unwrap_or_default()) =>
                    {
                        Told::HiddenTool(name.to_owned())
                    }
                    (_, _) => Told::Plain(Refusal::Denied),
                };
                NotPassed {
                    told,
                    refused: Some(refused),
                    why: "",
                }
            })
    }

    /// Arguments as records hold them by `policy`, and as approvers see them. The second: whether only names and sizes are
    /// left of them.
    pub(super) fn masked(&self, policy: &InForce, arguments: &Arguments) -> (Arguments, bool) {
        let pointers = policy.set.masked(&self.talk.server).iter();
        let pointers: Vec<_> = pointers.map(Pointer::as_str).collect();
        mask::arguments(arguments, &pointers)
    }

    /// Writes the arguments as records hold them by `policy`.
    fn tell_arguments(&self, policy: &InForce, mcp: &mut Mcp, seen: &Seen<'_>) {
        if let Some(arguments) = seen.arguments {
            let (kept, cut) = self.masked(policy, &arguments.to_serde());
            (mcp.arguments, mcp.arguments_cut) = (Some(kept), cut);
        }
    }

    pub(super) fn describe(
        &self,
        policy: &InForce,
        record: &mut OpenRecord,
        from: Side,
        method: &str,
        seen: Option<&Seen<'_>>,
    ) {
        let mut mcp = Mcp {
            server: Some(Text::new(&self.talk.server)),
            method: Text::new(method),
            from: Some(from).filter(|side| *side == Side::Server),
            ..Mcp::default()
        };
        if let Some(seen) = seen {
            mcp.name = seen.name.map(|name| Text::new(name.text()));
            mcp.id = seen.id.map(|id| Text::new(&id.to_text()));
            let became = self.became(seen.task_of(from));
            mcp.task_of = became.and_then(|call| call.record());
            self.tell_arguments(policy, &mut mcp, seen);
        }
        self.tell_caller(policy, record);
        let mut record = record.record_mut();
        record.kind = Kind::Mcp;
        record.mcp = Some(mcp);
    }

    /// Writes into the record who asks, as the policy that decides has it.
    fn tell_caller(&self, policy: &InForce, record: &mut OpenRecord) {
        if let Some(identity) = self.actor.identity_by(policy) {
            record.record_mut().identity = Some(identity);
        }
    }
}

/// The call's record tells how it ends.
fn watch(record: &mut OpenRecord, judged: &mut Result<Permit<AboutMessage>, NotPassed>) {
    if let Ok(permit) = judged {
        permit.watched(record);
    }
}

fn tell_judged(record: &mut OpenRecord, judged: &Result<Permit<AboutMessage>, NotPassed>) {
    let (decision, class) = match judged {
        Ok(permit) => (permit.decision(), permit.class()),
        Err(NotPassed {
            refused: Some(refused),
            ..
        }) => (refused.decision(), refused.class()),
        Err(_) => return,
    };
    record.tell_decision(decision);
    let mut record = record.record_mut();
    if let Some(mcp) = &mut record.mcp {
        mcp.class = class.map(|class| Text::new(&class.to_string()));
    }
}

/// A session's id, as it is kept.
pub(super) fn digest_of(session: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, session.as_bytes());
    crate::channel::encode_hex(digest.as_ref())
}

/// Names the session in a record without giving away its id, which some servers take for a credential: by the
/// beginning of its digest ([`digest_of`]).
pub(super) fn recorded_session(
    digest: Option<&str>,
    revision: Option<&str>,
) -> Option<RecordedSession> {
    if digest.is_none() && revision.is_none() {
        return None;
    }
    let short = digest.map(|digest| digest.get(..16).unwrap_or(digest));
    Some(RecordedSession {
        id: Text::new(short.unwrap_or_default()),
        revision: revision.map(Text::new),
        ..RecordedSession::default()
    })
}

/// Hints as policy takes them.
pub(super) fn hints(seen: Hints) -> PolicyHints {
    PolicyHints {
        read_only: seen.read_only,
        destructive: seen.destructive,
        open_world: seen.open_world,
    }
}

/// The era of `message`, by what it says itself.
pub(super) fn era(message: &Message) -> Era {
    spoken(message, None).era
}

/// What a decision on a message needs.
#[derive(Default)]
pub(super) struct Seen<'a> {
    pub(super) method: &'a str,
    pub(super) name: Option<Name<'a>>,
    pub(super) id: Option<&'a Id>,
    pub(super) arguments: Option<&'a Object>,
    /// Whether limits counted it before.
    pub(super) again: bool,
}

impl<'a> Seen<'a> {
    /// The server's task that it is about. What a server asks after are its client's, of whose calls nothing is kept.
    fn task_of(&self, from: Side) -> Option<&'a str> {
        match (from, self.name) {
            (Side::Client, Some(Name::Task(id))) => Some(id),
            _ => None,
        }
    }
}

impl<'a> std::convert::From<&View<'a>> for Seen<'a> {
    fn from(view: &View<'a>) -> Self {
        Self {
            method: view.method,
            name: view.name,
            id: view.id,
            arguments: view.arguments,
            again: false,
        }
    }
}

/// What is asked of a server that an administrator disconnected.
fn disconnected(refused: Refused) -> NotPassed {
    NotPassed {
        told: Told::Plain(Refusal::Disconnected),
        refused: Some(refused),
        why: "",
    }
}

/// Only what the protocol has `from` send goes that way: the other side's own is neither decided nor counted as if the
/// other had sent it. Of methods that are not the protocol's nothing is known.
fn directed(from: Side, known: Option<&Method>, message: &Message) -> Result<(), NotPassed> {
    let Some(known) = known else {
        return Ok(());
    };
    let era = era(message);
    let (goes, why) = match from {
        Side::Client => (
            known.goes_to_server(era),
            "a method that clients do not send",
        ),
        Side::Server => (
            known.goes_to_client(era),
            "a method that servers do not send",
        ),
    };
    if goes {
        return Ok(());
    }
    Err(NotPassed::plain(Refusal::Hidden(Subject::Method, ""), why))
}

/// A response that nobody waits for.
pub(super) fn answers_nothing() -> NotPassed {
    NotPassed::plain(Refusal::InvalidRequest, "an answer to nothing")
}

/// A message with something inside that cannot be judged.
pub(super) fn unjudgeable() -> NotPassed {
    NotPassed::plain(Refusal::InvalidRequest, "something inside cannot be judged")
}

pub(super) fn unviewable(fault: ViewFault) -> NotPassed {
    let why = match fault {
        ViewFault::Name => "the method's subject is missing or not a string",
        ViewFault::LongName => "a name or a URI that is too long",
        ViewFault::Subscriptions => "resources to be listened to that are no list of URIs",
        ViewFault::Arguments => "arguments that are not an object",
        ViewFault::Meta => "_meta that is not an object",
        ViewFault::Response => "a response where a request is due",
    };
    NotPassed::plain(Refusal::from(fault), why)
}
