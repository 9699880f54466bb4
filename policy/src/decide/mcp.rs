//! MCP: starting a server, and each message to or from it.
//!
//! A host reaches the servers of its list, anyone else the servers that some allow rule in force lets
//! them use. Session methods follow from that (see [`methods`](crate::methods)); all others need a rule.

use super::explain::{Outcome, Subject};
use super::limits;
use super::watch::Watch;
use super::{Callers, Hints, Reason, Request, Verdict, Would, deny, observed, plain};
use crate::index::{Id, position};
use crate::methods::{Governance, TOOLS_CALL, governance};
use crate::model::{ClassSet, Effect, Mode, Rule, Selector, Server};
use crate::set::PolicySet;
use crate::time::Timestamp;

/// One message.
pub(super) struct Message<'a> {
    pub(super) server: &'a str,
    pub(super) method: &'a str,
    pub(super) name: Option<&'a str>,
    pub(super) hints: Option<Hints>,
    pub(super) session: Option<&'a str>,
}

/// What rules are matched with.
struct Question<'a> {
    server: Id,
    /// `None`: the server is to be started. Only rules about everything are about that.
    method: Option<&'a str>,
    known: bool,
    name: &'a str,
    /// For tools only.
    classes: Option<ClassSet>,
}

/// Decides on a message.
pub(super) fn message(
    set: &PolicySet,
    request: &Request<'_>,
    callers: &Callers,
    message: &Message<'_>,
    watch: &mut impl Watch,
) -> Verdict {
    let verdict = by_rules(set, callers, message, request.now, watch);
    let observes = observes(set, set.server(message.server));
    let passed = observes && verdict.mode == Mode::Observe;
    if verdict.effect == Effect::Deny || message.method != TOOLS_CALL || passed {
        return verdict;
    }
    let verdict = limits::apply(set, request, message, verdict, watch);
    if observes { observed(verdict) } else { verdict }
}

/// Decides on a message without its limits.
pub(super) fn by_rules(
    set: &PolicySet,
    callers: &Callers,
    message: &Message<'_>,
    now: Timestamp,
    watch: &mut impl Watch,
) -> Verdict {
    let Some(id) = set.index().server(message.server) else {
        let verdict = deny(Reason::NotRegistered);
        return if set.mode() == Mode::Observe {
            observed(verdict)
        } else {
            verdict
        };
    };
    let governance = governance(message.method);
    let name = named(message);
    let classes = (message.method == TOOLS_CALL)
        .then(|| set.index().tools.get(position(id)))
        .flatten()
        .map(|tools| tools.classes(name, message.hints));
    let question = Question {
        server: id,
        method: Some(message.method),
        known: governance.is_some(),
        name,
        classes,
    };
    let verdict = judge(
        set,
        callers,
        &question,
        now,
        watch,
        |reaches| match governance {
            Some(Governance::Session) if reaches => plain(Effect::Allow, Reason::Reachable),
            Some(Governance::Session) => deny(Reason::NotReachable),
            Some(Governance::Named | Governance::Unnamed) => deny(Reason::NoRule),
            None => deny(Reason::UnknownMethod),
        },
    );
    let verdict = Verdict {
        class: classes,
        ..verdict
    };
    if observes(set, set.server_at(id)) {
        observed(verdict)
    } else {
        verdict
    }
}

/// The name to match with. A known method that names nothing has none, whatever the message says.
pub(super) fn named<'a>(message: &Message<'a>) -> &'a str {
    match governance(message.method) {
        Some(Governance::Session | Governance::Unnamed) => "",
        Some(Governance::Named) | None => message.name.unwrap_or_default(),
    }
}

/// Decides on starting a server. Never observed: an error here is a process that runs.
pub(super) fn run(
    set: &PolicySet,
    request: &Request<'_>,
    callers: &Callers,
    server: &str,
    watch: &mut impl Watch,
) -> Verdict {
    let Some(id) = set.index().server(server) else {
        return deny(Reason::NotRegistered);
    };
    if set
        .server_at(id)
        .is_none_or(|server| server.launch().is_none())
    {
        return deny(Reason::NotLaunchable);
    }
    let question = Question {
        server: id,
        method: None,
        known: true,
        name: "",
        classes: None,
    };
    judge(set, callers, &question, request.now, watch, |reaches| {
        if reaches {
            plain(Effect::Allow, Reason::Reachable)
        } else {
            deny(Reason::NotReachable)
        }
    })
}

/// Whether denials of calls to the server are only observed.
fn observes(set: &PolicySet, server: Option<&Server>) -> bool {
    set.mode() == Mode::Observe || server.is_some_and(|server| server.mode == Mode::Observe)
}

/// Bounds first, then rules; `otherwise` where no rule says anything, told whether the server is reached.
fn judge(
    set: &PolicySet,
    callers: &Callers,
    question: &Question<'_>,
    now: Timestamp,
    watch: &mut impl Watch,
    otherwise: impl Fn(bool) -> Verdict,
) -> Verdict {
    let matched = match_rules(set, callers, question, now, watch);
    let server = set.server_at(question.server);
    let bound = match () {
        () if callers.unknown => Some(Reason::UnknownWorkload),
        () if set.strict_review() && server.is_none_or(|server| server.is_overdue(now)) => {
            Some(Reason::ReviewOverdue)
        }
        () if !within_list(set, callers, server) => Some(Reason::NotListed),
        () => None,
    };
    if let Some(reason) = bound {
        return deny(reason);
    }
    let reaches = callers.host.is_some()
        || set
            .index()
            .rules
            .slots(question.server)
            .any(|slots| slots.reaches(&callers.ids, now));
    let conclude = |denied: Option<Id>, allowed: Option<Id>| match (denied, allowed) {
        (Some(rule), _) => by_rule(set, rule, Effect::Deny, Reason::RuleDenied),
        // A rule about everything lets the server be started, yet only as reaching it does.
        (None, Some(rule)) => by_rule(set, rule, Effect::Allow, Reason::RuleAllowed),
        (None, None) => otherwise(reaches),
    };
    let verdict = conclude(matched.deny, matched.allow);
    let strict = conclude(
        first(matched.deny, matched.observed_deny),
        first(matched.allow, matched.observed_allow),
    );
    if strict.effect == verdict.effect {
        return verdict;
    }
    let mode = if verdict.effect == Effect::Allow {
        Mode::Observe
    } else {
        Mode::Enforce
    };
    let would = Would {
        effect: strict.effect,
        rule: strict.rule,
        reason: strict.reason,
    };
    Verdict {
        mode,
        would: Some(would),
        ..verdict
    }
}

fn by_rule(set: &PolicySet, rule: Id, effect: Effect, reason: Reason) -> Verdict {
    let rule = set
        .rules()
        .get(position(rule))
        .map(|rule| std::sync::Arc::clone(&rule.id));
    Verdict {
        rule,
        ..plain(effect, reason)
    }
}

/// A host uses the servers of its list and no others.
fn within_list(set: &PolicySet, callers: &Callers, server: Option<&Server>) -> bool {
    let Some(host) = callers.host else {
        return true;
    };
    let (Some(host), Some(server)) = (set.host_at(host), server) else {
        return false;
    };
    host.servers.contains(&server.name)
}

/// The first rule of each kind that matches, in the order of the files.
#[derive(Default)]
struct Matched {
    deny: Option<Id>,
    allow: Option<Id>,
    observed_deny: Option<Id>,
    observed_allow: Option<Id>,
}

impl Matched {
    fn add(&mut self, id: Id, rule: &Rule) {
        let slot = match (rule.mode, rule.effect) {
            (Mode::Enforce, Effect::Deny) => &mut self.deny,
            (Mode::Enforce, Effect::Allow) => &mut self.allow,
            (Mode::Observe, Effect::Deny) => &mut self.observed_deny,
            (Mode::Observe, Effect::Allow) => &mut self.observed_allow,
        };
        *slot = first(*slot, Some(id));
    }
}

/// The smaller of two positions.
fn first(left: Option<Id>, right: Option<Id>) -> Option<Id> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (left, right) => left.or(right),
    }
}

fn match_rules<W: Watch>(
    set: &PolicySet,
    callers: &Callers,
    question: &Question<'_>,
    now: Timestamp,
    watch: &mut W,
) -> Matched {
    let mut matched = Matched::default();
    if W::ALL {
        for (id, (rule, about)) in (0..).zip(set.rules().iter().zip(&set.index().rules.about)) {
            let outcome = if !about.servers.is_empty() && !about.servers.contains(&question.server)
            {
                Outcome::OtherServer
            } else if !about.who.is_empty()
                && !about.who.iter().any(|who| callers.ids.contains(who))
            {
                Outcome::OtherCaller
            } else {
                compare(rule, question, now)
            };
            watch.note(
                || Subject::Rule(std::sync::Arc::clone(&rule.id)),
                Some(&rule.place),
                outcome,
            );
            if matches!(outcome, Outcome::Matched | Outcome::Observed) {
                matched.add(id, rule);
            }
        }
    } else {
        for slots in set.index().rules.slots(question.server) {
            slots.candidates(&callers.ids, question.name, |id| {
                let Some(rule) = set.rules().get(position(id)) else {
                    return;
                };
                if matches!(
                    compare(rule, question, now),
                    Outcome::Matched | Outcome::Observed
                ) {
                    matched.add(id, rule);
                }
            });
        }
    }
    matched
}

/// Compares a rule with a question about one of its servers by one of its callers.
fn compare(rule: &Rule, question: &Question<'_>, now: Timestamp) -> Outcome {
    let method = match (&rule.methods, &rule.tools, question.method) {
        // What a method does that nobody here knows is allowed only by its name.
        (None, Selector::Any, _) => question.known || rule.effect == Effect::Deny,
        (None, _, Some(method)) => method == TOOLS_CALL,
        (Some(globs), _, Some(method)) => globs.iter().any(|glob| glob.matches(method)),
        (_, _, None) => false,
    };
    if !method {
        return Outcome::OtherMethod;
    }
    let tool = match (&rule.tools, question.classes) {
        (Selector::Any, _) => None,
        (Selector::Names(globs), _) => {
            (!globs.iter().any(|glob| glob.matches(question.name))).then_some(Outcome::OtherName)
        }
        (Selector::Classes(named), Some(classes)) => {
            let matches = match rule.effect {
                Effect::Allow => classes.is_within(*named),
                Effect::Deny => classes.meets(*named),
            };
            (!matches).then_some(Outcome::OtherClass)
        }
        (Selector::Classes(_), None) => Some(Outcome::OtherClass),
    };
    match tool {
        Some(other) => other,
        None if rule.expires.is_some_and(|date| date.is_past(now)) => Outcome::Expired,
        None if rule.mode == Mode::Observe => Outcome::Observed,
        None => Outcome::Matched,
    }
}
