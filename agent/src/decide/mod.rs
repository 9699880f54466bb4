//! The decision: the one caller of `exeat_policy::evaluate`, and the only maker of permits and refusals.

mod admitting;
pub mod approvals;
mod arguments;
mod attempt;
pub mod breakers;
mod counters;
mod dry_run;
mod in_force;
mod permit;
mod severed;
mod tally;
mod within;

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use exeat_policy::{
    Action, Binding, Caller, Count, Counter, Effect, Egress, Hints, Json, LimitKey, Name, Origin,
    PolicySet, Protocol, Range, Reason, Request, Target, Timestamp, Tls, Underway, Wire, Workload,
    evaluate, limit_keys, ports_for, ranges,
};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::admitting::Admission;
use self::approvals::Approved;
use self::attempt::Attempt;
use self::breakers::{Breakers, Standing, Turn};
use self::counters::{Counters, Held};
pub use self::counters::{MalformedLine, Unwritten};
pub use self::dry_run::Rehearsal;
pub use self::in_force::{InForce, overruled};
use self::permit::Judged;
pub use self::permit::{Asks, Connect, Exchange, Message, Permit, Refused, Resolve, Run};
use self::severed::Severed;
pub use self::tally::Tally;
pub use self::within::Within;
use crate::audit::Text;
use crate::audit::record::{Decision, Effect as RecordedEffect, Mode as RecordedMode};
use crate::channel::Disconnection;
use crate::decode::json::Object;
use crate::identify::live::Unread;
use crate::telemetry::clock;

/// The method of calls, which breakers are about.
const TOOLS_CALL: &str = "tools/call";

/// Why the gate itself asks an issuer for its keys.
const KEYS: &str = "the configuration names the issuer";
/// Why the gate itself tells an approver of a call.
const WEBHOOK: &str = "the configuration names the webhook";

/// Decides.
#[derive(Debug)]
pub struct Decider {
    state: ArcSwap<InForce>,
    counters: Arc<Counters>,
    /// Fires after each change of `state`.
    changed: watch::Sender<()>,
    /// Why the newest policy was not taken.
    rejected: ArcSwapOption<String>,
    severed: Severed,
    breakers: Breakers,
}

/// An HTTP request, as far as policy judges it.
#[derive(Debug, Clone, Copy)]
pub struct HttpRequest<'a> {
    /// Where to: the peer that was agreed on.
    pub target: Target<'a>,
    /// Which port.
    pub port: u16,
    /// The method as sent.
    pub method: &'a str,
    /// The path as sent, without the query.
    pub path: &'a str,
    /// Whether the connection is intercepted TLS.
    pub tls: bool,
    /// Whether it asks for an upgrade.
    pub upgrade: bool,
    /// What the requests in flight that may have caused it ask for.
    pub calls: &'a [Underway],
}

/// An MCP message, as far as policy judges it.
#[derive(Debug, Clone, Copy)]
pub struct McpMessage<'a> {
    /// The registered server that it goes to or comes from.
    pub server: &'a str,
    /// The JSON-RPC method.
    pub method: &'a str,
    /// The tool, prompt or resource that it names.
    pub name: Option<&'a str>,
    /// Its arguments.
    pub arguments: Option<&'a Object>,
    /// What the server lists of the tool.
    pub hints: Option<Hints>,
    /// The session.
    pub session: Option<&'a str>,
    /// The request that it came in, if it came over HTTP.
    pub within: Option<&'a Within>,
    /// Whether it was let through and counted before, as itself or as what it answers: limits let it pass.
    pub again: bool,
}

/// Whether a recorded decision is no policy's, but about what the gate does by itself.
pub fn is_own(decision: &Decision) -> bool {
    let why = decision.reason.as_deref();
    decision.policy.is_none() && why.is_some_and(|why| [KEYS, WEBHOOK].contains(&why))
}

impl Decider {
    /// Starts with `set` in force.
    pub fn new(set: PolicySet, generation: u64) -> Self {
        Self {
            state: ArcSwap::from_pointee(InForce::new(set, generation)),
            changed: watch::Sender::default(),
            counters: Arc::default(),
            rejected: ArcSwapOption::empty(),
            severed: Severed::default(),
            breakers: Breakers::default(),
        }
    }

    /// Puts `set` in force, at once and whole.
    pub fn replace(&self, set: PolicySet, generation: u64) {
        self.state.store(Arc::new(InForce::new(set, generation)));
        self.changed.send_replace(());
        self.rejected.store(None);
    }

    /// What fires whenever another policy comes into force.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Remembers why the newest policy was not taken; the last good one stays in force.
    pub fn reject(&self, why: String) {
        self.rejected.store(Some(Arc::new(why)));
    }

    /// Why the newest policy was not taken, if it was not.
    pub fn rejected(&self) -> Option<String> {
        self.rejected.load_full().map(|why| (*why).clone())
    }

    /// From now on nothing new begins with `disconnection.server`, whatever policy says.
    pub fn disconnect(&self, disconnection: Disconnection) {
        self.severed.disconnect(disconnection);
    }

    /// Ends what is under way with a disconnected server: from now on every decision about it is a refusal, on
    /// what is asked of it and on what it asks for.
    pub fn cut(&self, server: &str) {
        self.severed.cut(server);
    }

    /// Policy alone decides about `server` again.
    pub fn reconnect(&self, server: &str) {
        self.severed.reconnect(server);
    }

    /// The servers that are disconnected.
    pub fn disconnected(&self) -> Vec<Arc<Disconnection>> {
        self.severed.all()
    }

    /// Fires when what is under way with `server` is to end. To be taken before the decision on what it guards;
    /// whoever holds a session of the server ends it then, and tells those who wait.
    pub fn watch(&self, server: &str) -> CancellationToken {
        self.severed.watch(server)
    }

    /// Is `server` connected, so that something new may begin with it: a call, a stream, a connection, a session?
    /// To be asked beside the decision on that; while a server is drained, what is under way goes on.
    pub fn connected(&self, server: &str) -> Result<(), Refused> {
        match self.severed.of(server) {
            None => Ok(()),
            Some(_) => Err(Refused::new(
                self.state.load().refusal(Reason::Disconnected),
            )),
        }
    }

    /// Goes on with what an earlier gate counted, sessions included where they may still live; how many counters.
    ///
    /// # Errors
    /// [`MalformedLine`]: then nothing is taken up.
    pub fn take_up(&self, lines: &str, sessions: bool) -> Result<usize, MalformedLine> {
        self.counters.restore(lines, sessions, now())
    }

    /// What is to be written by now of what limits count, beside the `length` bytes that are written.
    pub fn unwritten(&self, length: u64) -> Unwritten {
        self.counters.unwritten(length, now())
    }

    /// All that limits count is to be written anew.
    pub fn write_anew(&self) {
        self.counters.write_anew();
    }

    /// Whether an earlier gate counted calls of this session.
    pub fn counted(&self, session: &str) -> bool {
        self.counters.knows(session)
    }

    /// How the breakers stand of which something is known.
    pub fn breakers(&self) -> Vec<Standing> {
        let terms = self.state.load().set.breaker();
        self.breakers.standing(terms, Instant::now())
    }

    /// What breakers do, for whoever asks first.
    pub fn turns(&self) -> Option<UnboundedReceiver<Turn>> {
        self.breakers.turns()
    }

    /// What the counter of `key` stands at, for explanations.
    pub fn count(&self, key: &LimitKey) -> Count {
        self.counters.count(key, now())
    }

    /// The policy in force now. A decision takes one; two calls may see two generations.
    pub fn in_force(&self) -> Arc<InForce> {
        self.state.load_full()
    }

    /// May `caller` start `server`?
    pub fn run(
        &self,
        caller: Caller<'_>,
        server: &str,
        extra_args: &[String],
    ) -> Result<Permit<Run>, Refused> {
        self.judge(caller, None, Action::Run { server, extra_args })
    }

    /// May `caller` know the addresses of `name`?
    pub fn resolve(&self, caller: Caller<'_>, name: &Name) -> Result<Permit<Resolve>, Refused> {
        self.judge(caller, None, Action::Resolve { name })
    }

    /// May `caller` connect to `target` by TCP?
    pub fn connect(
        &self,
        caller: Caller<'_>,
        target: Target<'_>,
        port: u16,
    ) -> Result<Permit<Connect>, Refused> {
        self.judge(
            caller,
            None,
            Action::Connect {
                target,
                port,
                protocol: Protocol::Tcp,
            },
        )
    }

    /// The gate's own way to the keys of an issuer. The configuration permits it by naming the issuer, which no policy
    /// can refuse: without keys nobody's token is judged.
    pub fn keys(&self, private: bool) -> Permit<Connect> {
        Self::own(KEYS, private)
    }

    /// The gate's own way to an approver, by a webhook that the configuration names.
    pub fn webhook(&self, private: bool) -> Permit<Connect> {
        Self::own(WEBHOOK, private)
    }

    /// What the gate does by itself, because the configuration says so.
    fn own(reason: &'static str, private: bool) -> Permit<Connect> {
        Permit::new(Judged {
            decision: Decision {
                effect: RecordedEffect::Allow,
                rule: None,
                reason: Some(Text::fixed(reason)),
                mode: RecordedMode::Enforce,
                would: None,
                would_rule: None,
                would_reason: None,
                policy: None,
                generation: None,
                counters: Vec::new(),
            },
            reason: Reason::EgressAllowed,
            egress: Some(Egress {
                tls: Tls::Intercept,
                wire: Wire::Http,
                private,
                synthetic: false,
                upgrade: false,
                kind: None,
                origin: Origin::Egress(0),
                server: None,
                asks_certificate: false,
                credential: None,
            }),
            class: None,
            identities: Vec::new(),
            retry_after: None,
            asks: None,
            dry_run: None,
            attempt: None,
        })
    }

    /// May `caller` send this HTTP request?
    pub fn exchange(
        &self,
        caller: Caller<'_>,
        request: HttpRequest<'_>,
    ) -> Result<Permit<Exchange>, Refused> {
        let HttpRequest {
            target,
            port,
            method,
            path,
            tls,
            upgrade,
            calls,
        } = request;
        self.judge(
            caller,
            None,
            Action::Http {
                target,
                port,
                method,
                path,
                tls,
                upgrade,
                calls,
            },
        )
    }

    /// Whether a client that connects there is asked for a certificate.
    pub fn asks_certificate(&self, caller: Caller<'_>, target: Target<'_>, port: u16) -> bool {
        self.connect(caller, target, port)
            .is_ok_and(|permit| permit.egress().is_some_and(|terms| terms.asks_certificate))
    }

    /// May what goes by unread on a connection go on, now that the policy changed?
    pub fn goes_on(
        &self,
        caller: Caller<'_>,
        target: Target<'_>,
        port: u16,
        unread: Option<&Unread>,
    ) -> bool {
        let Ok(permit) = self.connect(caller, target, port) else {
            return false;
        };
        match unread {
            None => true,
            Some(Unread::Bytes { wire, tls }) => permit
                .egress()
                .is_some_and(|terms| terms.wire == *wire && terms.tls == *tls),
            Some(Unread::Upgraded { method, path, tls }) => {
                let request = HttpRequest {
                    target,
                    port,
                    method,
                    path,
                    tls: *tls,
                    upgrade: true,
                    // What was sent with the request is sent.
                    calls: &[],
                };
                self.exchange(caller, request)
                    .is_ok_and(|permit| permit.egress().is_some_and(|terms| terms.upgrade))
            }
        }
    }

    /// May this MCP message pass? `approved`: a person's approval of this very message, which is used up.
    pub fn message(
        &self,
        caller: Caller<'_>,
        message: McpMessage<'_>,
        approved: Option<Approved>,
    ) -> Result<Permit<Message>, Refused> {
        self.message_by(&self.state.load(), caller, message, approved)
    }

    /// The same by `policy`, which decides something else along with it.
    pub fn message_by(
        &self,
        policy: &InForce,
        caller: Caller<'_>,
        message: McpMessage<'_>,
        approved: Option<Approved>,
    ) -> Result<Permit<Message>, Refused> {
        let McpMessage {
            server,
            method,
            name,
            arguments,
            hints,
            session,
            within,
            again,
        } = message;
        if let Some(within) = within {
            self.leads_to(policy, caller, within, server)?;
        }
        self.judge_by(
            policy,
            caller,
            approved,
            Action::Mcp {
                server,
                method,
                name,
                arguments: arguments.map(|arguments| Json::Map(arguments)),
                hints,
                session,
            },
            again,
        )
    }

    /// The ports at which the addresses of `name` are opened for `caller`.
    pub fn ports(&self, caller: Caller<'_>, name: &Name) -> Vec<Binding> {
        ports_for(&self.state.load().set, caller, name)
    }

    /// Whether a registered server is known to be at this address and port.
    pub fn serves(&self, address: IpAddr, port: u16) -> bool {
        self.state.load().set.serves(address, port)
    }

    /// The addresses that `workload` may reach without a name.
    pub fn ranges(&self, workload: Workload<'_>) -> Vec<Range> {
        ranges(&self.state.load().set, workload)
    }

    fn judge<A>(
        &self,
        caller: Caller<'_>,
        approved: Option<Approved>,
        action: Action<'_>,
    ) -> Result<Permit<A>, Refused> {
        self.judge_by(&self.state.load(), caller, approved, action, false)
    }

    fn judge_by<A>(
        &self,
        state: &InForce,
        caller: Caller<'_>,
        approved: Option<Approved>,
        action: Action<'_>,
        again: bool,
    ) -> Result<Permit<A>, Refused> {
        if let Action::Run { server, .. } = action {
            self.connected(server)?;
        }
        if concerned(&caller, &action).any(|server| self.severed.is_cut(server)) {
            return Err(Refused::new(state.refusal(Reason::Disconnected)));
        }
        let now = now();
        let mut request = Request {
            caller,
            action,
            now,
            counts: &[],
        };
        let (held, counts) = self.counted_for(&state.set, &request, again);
        request.counts = &counts;
        // INVARIANT: the one call of `evaluate`; `cargo xtask tidy` counts them.
        let verdict = evaluate(&state.set, &request);
        let effect = verdict.effect;
        let suits = |approved: &Approved| approved.suits(&state.set, &verdict.asking);
        let suited = effect == Effect::Approve && approved.as_ref().is_some_and(suits);
        let admitted = approved.map(Approved::admitted);
        let mut judged = state.judged(verdict);
        let passes = effect == Effect::Allow || suited;
        // What its tool is told to run dry reaches the server, and counts.
        let reaches = passes || judged.dry_run.is_some();
        let told = |charged| {
            let told = |held: &Held<'_>| state.counters(held.standing(charged));
            held.as_ref().map(told).unwrap_or_default()
        };
        let mut trial = None;
        if reaches {
            let unbroken = self.unbroken(&state.set, &action, admitted, judged);
            (judged, trial) = unbroken.map_err(|mut refused| {
                refused.judged.decision.counters = told(false);
                refused
            })?;
        }
        judged.decision.counters = told(reaches);
        if reaches {
            let charges = held.map(Held::charge).unwrap_or_default();
            judged.attempt = Attempt::new(trial, charges, &self.counters);
        }
        if passes {
            return Ok(Permit::new(judged));
        }
        // Not as it is: a dry run passes changed (`Refused::rehearse`), and what is to be approved is judged anew then.
        Err(Refused::new(judged))
    }

    /// The counters that `request` charges where it passes, and what they stand at.
    fn counted_for(
        &self,
        set: &PolicySet,
        request: &Request<'_>,
        again: bool,
    ) -> (Option<Held<'_>>, Vec<Count>) {
        let keys = limit_keys(set, request);
        if again {
            return (None, keys.iter().map(unused).collect());
        }
        let session = match request.action {
            Action::Mcp { session, .. } => session,
            _ => None,
        };
        let held = (!keys.is_empty()).then(|| {
            let owner = self.counters.owner(&request.caller);
            self.counters.hold(keys, owner, session, request.now)
        });
        let counts = held.as_ref().map(Held::counts);
        (held, counts.unwrap_or_default())
    }
}

/// The servers without which `action` means nothing: the one that acts, and the one that is acted upon. A
/// connection to one may still be opened as far as it takes to answer the client: see [`Decider::connected`].
fn concerned<'a>(caller: &Caller<'a>, action: &Action<'a>) -> impl Iterator<Item = &'a str> {
    let acting = match caller.workload {
        Some(Workload::Server(server)) => Some(server),
        Some(Workload::Host(_) | Workload::Unregistered(_)) | None => None,
    };
    let acted_upon = match action {
        Action::Run { server, .. } | Action::Mcp { server, .. } => Some(*server),
        Action::Resolve { .. } | Action::Connect { .. } | Action::Http { .. } => None,
    };
    acting.into_iter().chain(acted_upon)
}

/// The count of a limit that nothing was charged to.
pub fn unused(key: &LimitKey) -> Count {
    // What nothing was charged to stands the same at every time.
    Counter::new(key.cap).count(key, Timestamp::default())
}

fn now() -> Timestamp {
    Timestamp::from_millis(clock::wall().microseconds() / 1000)
}

#[cfg(test)]
mod tests;
