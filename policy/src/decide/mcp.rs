//! MCP: starting a server, and each message to or from it.
//!
//! A host reaches the servers of its list, anyone else the servers that some allow rule in force lets
//! them use. Session methods follow from that (see [`methods`](crate::methods)); all others need a rule.

use std::sync::Arc;

use super::arguments::{self, Quantity, Unevaluated};
use super::explain::{Outcome, Subject, Tested};
use super::limits;
use super::watch::Watch;
use super::{Callers, Hints, Reason, Request, Verdict, Would, deny, observed, plain};
use crate::index::{Id, position};
use crate::json::Json;
use crate::methods::{Governance, TOOLS_CALL, governance};
use crate::model::{ArgumentTest, ClassSet, Effect, Mode, Rule, Server, Written};
use crate::set::PolicySet;
use crate::time::Timestamp;

/// One message.
pub(super) struct Message<'a> {
    pub(super) server: &'a str,
    pub(super) method: &'a str,
    pub(super) name: Option<&'a str>,
    pub(super) arguments: Arguments<'a>,
    pub(super) hints: Option<Hints>,
    pub(super) session: Option<&'a str>,
}

/// The arguments of a message.
#[derive(Clone, Copy)]
pub(super) enum Arguments<'a> {
    /// These, or none.
    Given(Option<Json<'a>>),
    /// Not known yet: rules that depend on them restrict nothing and allow what they can.
    Open,
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
    arguments: Arguments<'a>,
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
        arguments: message.arguments,
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
        arguments: Arguments::Given(None),
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
    let conclude = |matched: &ByEffect| match matched.strongest() {
        Some(found) => by_rule(set, found),
        None => Verdict {
            rule: None,
            ..otherwise(reaches)
        },
    };
    // A rule about everything lets the server be started, yet only as reaching it does.
    let verdict = conclude(&matched.enforced);
    let strict = conclude(&matched.enforced.or(&matched.observed));
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

fn by_rule(set: &PolicySet, found: Found) -> Verdict {
    let rule = set.rules().get(position(found.rule));
    let granted = rule.is_some_and(|rule| rule.written == Written::Grant);
    let reason = match (found.failed, found.effect) {
        (Some(why), _) => Reason::RuleFailed(why),
        (None, Effect::Allow) if granted => Reason::Granted,
        (None, Effect::Allow) => Reason::RuleAllowed,
        (None, Effect::DryRun) => Reason::DryRun,
        (None, Effect::Approve) => Reason::NeedsApproval,
        (None, Effect::Deny) => Reason::RuleDenied,
    };
    Verdict {
        rule: rule.map(|rule| Arc::clone(&rule.id)),
        ..plain(found.effect, reason)
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

/// A rule that counts, and for what.
#[derive(Clone, Copy)]
struct Found {
    rule: Id,
    effect: Effect,
    failed: Option<Unevaluated>,
}

/// The first rule of each effect, in the order of the files.
#[derive(Clone, Copy, Default)]
struct ByEffect {
    deny: Option<Found>,
    approve: Option<Found>,
    dry_run: Option<Found>,
    allow: Option<Found>,
    /// An allow rule that could not be evaluated: why nothing is allowed, where nothing else says anything.
    failed: Option<Found>,
}

impl ByEffect {
    const fn slots(&self) -> [Option<Found>; 5] {
        [
            self.deny,
            self.approve,
            self.dry_run,
            self.allow,
            self.failed,
        ]
    }

    fn strongest(&self) -> Option<Found> {
        self.slots().into_iter().flatten().next()
    }

    fn or(&self, other: &Self) -> Self {
        Self {
            deny: first(self.deny, other.deny),
            approve: first(self.approve, other.approve),
            dry_run: first(self.dry_run, other.dry_run),
            allow: first(self.allow, other.allow),
            failed: first(self.failed, other.failed),
        }
    }
}

/// What matched, by whether it is enforced.
#[derive(Default)]
struct Matched {
    enforced: ByEffect,
    observed: ByEffect,
}

impl Matched {
    /// Notes a rule that [`compare`] said this of.
    fn add(&mut self, rule: Id, written: &Rule, outcome: Outcome) {
        let (failed, by_effect) = match outcome {
            Outcome::Matched => (None, &mut self.enforced),
            Outcome::Observed => (None, &mut self.observed),
            Outcome::Failed(why) => (Some(why), &mut self.enforced),
            Outcome::FailedObserved(why) => (Some(why), &mut self.observed),
            _ => return,
        };
        // What cannot be evaluated denies, whatever else it would have asked for.
        let effect = match failed {
            Some(_) => Effect::Deny,
            None => written.effect,
        };
        let found = Found {
            rule,
            effect,
            failed,
        };
        let slot = match (written.effect, effect) {
            (Effect::Allow, Effect::Deny) => &mut by_effect.failed,
            (_, Effect::Deny) => &mut by_effect.deny,
            (_, Effect::Approve) => &mut by_effect.approve,
            (_, Effect::DryRun) => &mut by_effect.dry_run,
            (_, Effect::Allow) => &mut by_effect.allow,
        };
        *slot = first(*slot, Some(found));
    }
}

/// The one that stands earlier.
fn first(left: Option<Found>, right: Option<Found>) -> Option<Found> {
    match (left, right) {
        (Some(left), Some(right)) => Some(if right.rule < left.rule { right } else { left }),
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
            let subject = || match rule.written {
                Written::Rule => Subject::Rule(Arc::clone(&rule.id)),
                Written::Grant => Subject::Grant(Arc::clone(&rule.id)),
            };
            watch.note(subject, Some(&rule.place), outcome);
            if let Arguments::Given(arguments) = question.arguments
                && came_to_arguments(outcome)
            {
                watch.trace(|| trace(rule, arguments));
            }
            matched.add(id, rule, outcome);
        }
    } else {
        for slots in set.index().rules.slots(question.server) {
            slots.candidates(&callers.ids, question.name, |id| {
                if let Some(rule) = set.rules().get(position(id)) {
                    matched.add(id, rule, compare(rule, question, now));
                }
            });
        }
    }
    matched
}

const fn came_to_arguments(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Matched
            | Outcome::Observed
            | Outcome::OtherArguments
            | Outcome::Failed(_)
            | Outcome::FailedObserved(_)
    )
}

/// Each test of a rule by itself.
fn trace(rule: &Rule, arguments: Option<Json<'_>>) -> Vec<Tested> {
    let tested = |test: &ArgumentTest| Tested {
        test: test.to_string(),
        holds: arguments::hold(std::slice::from_ref(test), arguments, quantity(rule)),
    };
    rule.args.iter().map(tested).collect()
}

fn quantity(rule: &Rule) -> Quantity {
    match rule.effect {
        Effect::Allow => Quantity::All,
        Effect::DryRun | Effect::Approve | Effect::Deny => Quantity::Some,
    }
}

/// Compares a rule with a question about one of its servers by one of its callers.
fn compare(rule: &Rule, question: &Question<'_>, now: Timestamp) -> Outcome {
    let method = match (&rule.methods, question.method) {
        // What a method does that nobody here knows is allowed only by its name.
        (None, _) if rule.is_about_everything() => question.known || rule.effect != Effect::Allow,
        (None, Some(method)) => method == TOOLS_CALL,
        (Some(globs), Some(method)) => globs.iter().any(|glob| glob.matches(method)),
        (_, None) => false,
    };
    if !method {
        return Outcome::OtherMethod;
    }
    if let Some(globs) = rule.tools.names()
        && !globs.iter().any(|glob| glob.matches(question.name))
    {
        return Outcome::OtherName;
    }
    if let Some(named) = rule.tools.classes() {
        let matches = question.classes.is_some_and(|classes| match rule.effect {
            Effect::Allow => classes.is_within(named),
            Effect::DryRun | Effect::Approve | Effect::Deny => classes.meets(named),
        });
        if !matches {
            return Outcome::OtherClass;
        }
    }
    if rule.expires.is_some_and(|date| date.is_past(now)) {
        return Outcome::Expired;
    }
    let held = match question.arguments {
        _ if !rule.is_conditional() => Ok(true),
        Arguments::Given(arguments) => arguments::hold(&rule.args, arguments, quantity(rule)),
        Arguments::Open => Ok(rule.effect == Effect::Allow),
    };
    match (held, rule.mode) {
        (Ok(false), _) => Outcome::OtherArguments,
        (Ok(true), Mode::Enforce) => Outcome::Matched,
        (Ok(true), Mode::Observe) => Outcome::Observed,
        (Err(why), Mode::Enforce) => Outcome::Failed(why),
        (Err(why), Mode::Observe) => Outcome::FailedObserved(why),
    }
}
