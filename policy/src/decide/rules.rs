//! Which rules match a message, and which of them count.

use std::sync::Arc;

use super::arguments::{self, Quantity, Unevaluated};
use super::explain::{Outcome, Subject, Tested};
use super::watch::Watch;
use super::{Callers, Workload};
use crate::cel::{self, Facts};
use crate::glob::Glob;
use crate::index::{Id, position};
use crate::json::Json;
use crate::methods::{Governance, TOOLS_CALL};
use crate::model::{ArgumentTest, ClassSet, Effect, Mode, Rule, Written};
use crate::set::PolicySet;
use crate::time::Timestamp;
use crate::uri::{self, Reading};

/// The arguments of a message.
#[derive(Clone, Copy)]
pub(super) enum Arguments<'a> {
    /// These, or none.
    Given(Option<Json<'a>>),
    /// Not known yet: rules that depend on them restrict nothing and allow what they can.
    Open,
}

/// What rules are matched with.
pub(super) struct Question<'a> {
    pub(super) server: Id,
    pub(super) server_name: &'a str,
    /// `None`: the server is to be started. Only rules about everything are about that.
    pub(super) method: Option<&'a str>,
    /// Of the method, where it is a known one.
    pub(super) governance: Option<Governance>,
    pub(super) name: &'a str,
    /// What else a server may read in the name, where it is a URI.
    pub(super) reading: Option<Reading>,
    /// For tools only.
    pub(super) classes: Option<ClassSet>,
    pub(super) arguments: Arguments<'a>,
}

impl Question<'_> {
    /// Whether patterns of a rule with this effect, which are also of these forms, are about the name. What may be
    /// another place than it says is allowed only by name or where all are, and restricted by whatever may be meant.
    pub(super) fn is_named(&self, globs: &[Glob], forms: &[Glob], effect: Effect) -> bool {
        let name = self.name;
        let Some(reading) = &self.reading else {
            return globs.iter().any(|glob| glob.matches(name));
        };
        if effect == Effect::Allow {
            let bare = uri::without_tail(name);
            // A query is no part of what ends like something that is allowed.
            let ends = |glob: &Glob| glob.matches(bare) || glob.prefix() == bare;
            let outright =
                |glob: &Glob| glob.is_everything() || glob.literal().is_some_and(|it| it == name);
            return globs.iter().any(|glob| {
                outright(glob) || (reading.certain && glob.matches(name) && ends(glob))
            });
        }
        let is_read =
            |glob: &Glob| glob.matches(name) || reading.also.iter().any(|name| glob.matches(name));
        !reading.certain || globs.iter().chain(forms).any(is_read)
    }

    /// What rules are found by: the name, and what else may be read in one that is one place.
    fn names(&self) -> impl Iterator<Item = &str> {
        let one = self.reading.iter().filter(|reading| reading.certain);
        let also = one.flat_map(|reading| &reading.also);
        std::iter::once(self.name).chain(also.map(String::as_str))
    }

    /// The method, where what it names may be any place.
    fn anywhere(&self) -> Option<&str> {
        let any = self.reading.as_ref().is_some_and(|it| !it.certain);
        self.method.filter(|_| any)
    }

    /// Whether a condition holds, of whatever may be meant by the name.
    fn holds(
        &self,
        when: &cel::Condition,
        rule: &Rule,
        facts: Facts<'_>,
    ) -> Result<bool, Unevaluated> {
        let of = |name: &str| {
            cel::hold(
                when,
                &Facts {
                    tool: name,
                    ..facts
                },
                quantity(rule),
            )
        };
        let said = of(self.name);
        let allows = rule.effect == Effect::Allow;
        let Some(reading) = &self.reading else {
            return said;
        };
        if said != Ok(allows) || !when.may_ask_name() {
            return said;
        }
        if !reading.certain {
            return Ok(!allows);
        }
        let others = reading.also.iter().map(|name| of(name));
        others
            .into_iter()
            .find(|other| *other != said)
            .unwrap_or(said)
    }
}

/// A rule that counts, and for what.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) rule: Id,
    pub(super) effect: Effect,
    pub(super) failed: Option<Unevaluated>,
}

/// The first rule of each effect, in the order of the files.
#[derive(Clone, Copy, Default)]
pub(super) struct ByEffect {
    deny: Option<Found>,
    approve: Option<Found>,
    dry_run: Option<Found>,
    allow: Option<Found>,
    /// An allow rule that could not be evaluated, and so did not match: why nothing is allowed, where nothing else is.
    pub(super) failed: Option<Found>,
}

impl ByEffect {
    /// Of what matched.
    pub(super) fn strongest(&self) -> Option<Found> {
        let matched = [self.deny, self.approve, self.dry_run, self.allow];
        matched.into_iter().flatten().next()
    }

    pub(super) fn or(&self, other: &Self) -> Self {
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
pub(super) struct Matched {
    pub(super) enforced: ByEffect,
    pub(super) observed: ByEffect,
    /// Every rule in force that asks for an approval, as it was found: each has a say in who may give it.
    asking: Vec<Id>,
}

impl Matched {
    /// The rules in force that ask for an approval, in the order of the files.
    pub(super) fn asking(mut self) -> Vec<Id> {
        self.asking.sort_unstable();
        self.asking.dedup();
        self.asking
    }

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
        if (outcome, effect) == (Outcome::Matched, Effect::Approve) {
            self.asking.push(rule);
        }
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

/// Compares the rules that may be about the question; for an explanation all of them.
pub(super) fn match_rules<W: Watch>(
    set: &PolicySet,
    callers: &Callers<'_>,
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
                compare(rule, callers, question, now)
            };
            let subject = || match rule.written {
                Written::Rule => Subject::Rule(Arc::clone(&rule.id)),
                Written::Grant => Subject::Grant(Arc::clone(&rule.id)),
            };
            watch.note(subject, Some(&rule.place), outcome);
            if let Arguments::Given(arguments) = question.arguments
                && came_to_arguments(outcome)
            {
                watch.trace(|| trace(rule, callers, question, arguments));
            }
            matched.add(id, rule, outcome);
        }
    } else {
        let mut conditional = Vec::new();
        let mut look = |id: Id, rule: &Rule| {
            matched.add(id, rule, compare(rule, callers, question, now));
        };
        let mut show = |id: Id| match set.rules().get(position(id)) {
            // A URI has several readings, each of which may lead to it.
            Some(rule) if rule.is_conditional() || question.reading.is_some() => {
                conditional.push((id, rule));
            }
            Some(rule) => look(id, rule),
            None => {}
        };
        for slots in set.index().rules.slots(question.server) {
            for name in question.names() {
                slots.candidates(&callers.ids, name, &mut show);
            }
            if let Some(method) = question.anywhere() {
                slots.restricting(&callers.ids, method, &mut show);
            }
        }
        // Arguments are read once for a rule, however many callers and patterns lead to it.
        conditional.sort_unstable_by_key(|(id, _)| *id);
        conditional.dedup_by_key(|(id, _)| *id);
        for (id, rule) in conditional {
            look(id, rule);
        }
    }
    matched
}

/// The strongest rule in force for all of `members`: one that allows is about every one of them, one that restricts
/// about some; none where nothing matches.
pub(super) fn callable_by_all<'a>(
    set: &'a PolicySet,
    members: &[Arc<str>],
    nobody: &Callers<'_>,
    question: &Question<'_>,
    now: Timestamp,
) -> Option<(&'a Rule, Effect)> {
    let mut matched = Matched::default();
    for (id, (rule, about)) in (0..).zip(set.rules().iter().zip(&set.index().rules.about)) {
        let server = about.servers.is_empty() || about.servers.contains(&question.server);
        let named = |member| rule.who.contains(member);
        let who = rule.who.is_empty()
            || match rule.effect {
                Effect::Allow => members.iter().all(named),
                Effect::DryRun | Effect::Approve | Effect::Deny => members.iter().any(named),
            };
        if server && who {
            matched.add(id, rule, compare(rule, nobody, question, now));
        }
    }
    let found = matched.enforced.strongest()?;
    Some((set.rules().get(position(found.rule))?, found.effect))
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
fn trace(
    rule: &Rule,
    callers: &Callers<'_>,
    question: &Question<'_>,
    arguments: Option<Json<'_>>,
) -> Vec<Tested> {
    let tested = |test: &ArgumentTest| Tested {
        test: test.to_string(),
        holds: arguments::hold(std::slice::from_ref(test), arguments, quantity(rule)),
    };
    let mut trace: Vec<Tested> = rule.args.iter().map(tested).collect();
    trace.extend(rule.when.iter().map(|when| Tested {
        test: when.to_string(),
        holds: cel::hold(when, &facts(callers, question), quantity(rule)),
    }));
    trace
}

/// What an expression may ask for.
fn facts<'a>(callers: &Callers<'a>, question: &Question<'a>) -> Facts<'a> {
    Facts {
        arguments: match question.arguments {
            Arguments::Given(arguments) => arguments,
            Arguments::Open => Some(Json::Unknown),
        },
        tool: question.name,
        server: question.server_name,
        method: question.method.unwrap_or_default(),
        user: callers.caller.user,
        host: match callers.caller.workload {
            Some(Workload::Host(name)) => Some(name),
            Some(Workload::Server(_) | Workload::Unregistered(_)) | None => None,
        },
        issuer: callers.caller.token.map(|token| token.issuer),
        subject: callers.caller.token.map(|token| token.subject),
        claims: callers.caller.token.map(|token| token.claims),
    }
}

/// Whether all that a rule asks for beyond names holds; what does not outweighs what cannot be evaluated.
fn conditions(
    rule: &Rule,
    callers: &Callers<'_>,
    question: &Question<'_>,
) -> Result<bool, Unevaluated> {
    let tests = match question.arguments {
        _ if rule.args.is_empty() => Ok(true),
        Arguments::Given(arguments) => arguments::hold(&rule.args, arguments, quantity(rule)),
        Arguments::Open => Err(Unevaluated::Unknown),
    };
    let when = match &rule.when {
        Some(when) if tests != Ok(false) => question.holds(when, rule, facts(callers, question)),
        Some(_) | None => Ok(true),
    };
    match (question.arguments, tests, when) {
        (_, Ok(false), _) | (_, _, Ok(false)) => Ok(false),
        (_, Ok(true), Ok(true)) => Ok(true),
        // Some arguments may make it either.
        (Arguments::Open, Err(_), Ok(true)) | (Arguments::Open, _, Err(Unevaluated::Unknown)) => {
            Ok(rule.effect == Effect::Allow)
        }
        // What fails whatever they are never allows; it restricts those for which the tests hold.
        (Arguments::Open, Err(_), Err(_)) if rule.effect != Effect::Allow => Ok(false),
        // With the value that is not known, the other error might not have come up.
        (Arguments::Given(_), Err(_), Err(Unevaluated::Unknown)) => when,
        (Arguments::Given(_), Err(_), _) => tests,
        (_, _, Err(_)) => when,
    }
}

const fn quantity(rule: &Rule) -> Quantity {
    arguments::quantity(rule.effect)
}

/// Compares a rule with a question about one of its servers by one of its callers.
fn compare(rule: &Rule, callers: &Callers<'_>, question: &Question<'_>, now: Timestamp) -> Outcome {
    let method = match (&rule.methods, question.method) {
        // What a method does that nobody here knows is allowed only by its name.
        (None, method) if rule.is_about_everything() => {
            method.is_none() || question.governance.is_some() || rule.effect != Effect::Allow
        }
        (None, Some(method)) => method == TOOLS_CALL,
        (Some(globs), Some(method)) => globs.iter().any(|glob| glob.matches(method)),
        (_, None) => false,
    };
    if !method {
        return Outcome::OtherMethod;
    }
    if let Some(globs) = rule.tools.names()
        && !question.is_named(globs, &rule.also, rule.effect)
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
    match (conditions(rule, callers, question), rule.mode) {
        (Ok(false), _) => Outcome::OtherArguments,
        (Ok(true), Mode::Enforce) => Outcome::Matched,
        (Ok(true), Mode::Observe) => Outcome::Observed,
        (Err(why), Mode::Enforce) => Outcome::Failed(why),
        (Err(why), Mode::Observe) => Outcome::FailedObserved(why),
    }
}
