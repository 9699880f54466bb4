//! The engine beside the naive evaluator, and what must hold of it whatever the policy says.

use exeat_policy::{
    Action, Effect, Mode, PolicySet, Reason, Request, Source, compile, evaluate, explain,
    limit_keys, listable,
};
use proptest::prelude::*;

use super::arguments::Tree;
use super::conditions::Unclear;
use super::evaluator::{Answer, SESSION, answer, asked, limited};
use super::limited::Kept;
use super::people;
use super::question::{NOW, Question};
use super::world::{GenEffect, GenRule, GenServer, GenTools, World};

/// Compiles the world; rules that are faults are taken out and given back.
pub(crate) fn compiled(mut world: World) -> (World, PolicySet, Vec<GenRule>) {
    let mut accused = Vec::new();
    loop {
        let (text, lines) = world.text();
        let source = Source {
            name: "w".to_owned(),
            text,
        };
        match compile(&[source]) {
            Ok(set) => return (world, set, accused),
            Err(faults) => {
                let bad = lines
                    .iter()
                    .find(|(line, _)| faults.iter().any(|fault| fault.line == *line));
                let Some((_, bad)) = bad else {
                    panic!("{faults:?}");
                };
                // One at a time: taking one out may clear another.
                for rules in [&mut world.rules, &mut world.grants] {
                    accused.extend(rules.extract_if(.., |rule| rule.id == *bad));
                }
            }
        }
    }
}

fn number(world: &World, id: &str) -> usize {
    let Some((role, number)) = id.split_once('/') else {
        return id.trim_start_matches('r').parse().unwrap();
    };
    let mut grants = world.grants.iter().filter(|grant| grant.who == [role]);
    grants.nth(number.parse::<usize>().unwrap() - 1).unwrap().id
}

const fn effect(effect: Effect) -> GenEffect {
    match effect {
        Effect::Allow => GenEffect::Allow,
        Effect::DryRun => GenEffect::DryRun,
        Effect::Approve => GenEffect::Approve,
        Effect::Deny => GenEffect::Deny,
    }
}

/// What the engine says, the same twice and with every explanation.
fn told(world: &World, set: &PolicySet, question: &Question, at: i64, kept: &mut Kept) -> Answer {
    let now = NOW.plus_millis(u64::try_from(at).unwrap());
    question.ask(|request| {
        let mut request = Request { now, ..*request };
        let keys = limit_keys(set, &request);
        let counts = kept.counts(&keys, now);
        request.counts = &counts;
        let verdict = evaluate(set, &request);
        assert_eq!(evaluate(set, &request), verdict);
        assert_eq!(explain(set, &request).verdict, verdict);
        assert_eq!(
            verdict.mode == Mode::Observe,
            verdict.would.is_some() && verdict.effect == Effect::Allow
        );
        if verdict.effect == Effect::Allow {
            kept.charge(&keys, now);
        }
        let stricter = verdict.would.as_ref();
        let limit = |reason: Reason| match reason {
            Reason::LimitReached(limit) | Reason::AmountRefused(limit) => Some(limit),
            _ => None,
        };
        Answer {
            effect: effect(verdict.effect),
            rule: verdict.rule.as_deref().map(|rule| number(world, rule)),
            failed: matches!(verdict.reason, Reason::RuleFailed(_)),
            would: stricter.map(|would| {
                let rule = would.rule.as_deref().map(|rule| number(world, rule));
                (effect(would.effect), rule)
            }),
            limit: limit(verdict.reason),
            approve: people::told(set, &verdict),
        }
    })
}

/// Whether some arguments make the call possible: shown, or not. The naive way is to ask with none of the
/// rules that restrict by arguments, and with no tests on those that allow. A condition that is the same whatever
/// the arguments are is no test on them.
fn shown_to(world: &World, question: &Question) -> bool {
    let mut open = world.clone();
    let none = Tree::Map(Vec::new());
    open.rules.retain_mut(|rule| {
        let tests = !rule.args.is_empty();
        let when = rule.when.take();
        if when.is_none() && !tests {
            return true;
        }
        rule.args.clear();
        // Without its tests it stays a rule about calls.
        rule.methods.get_or_insert_with(|| vec!["tools/call"]);
        let allows = rule.effect == GenEffect::Allow;
        let holds = when.map_or(Ok(true), |when| when.whatever(asked(question, &none)));
        match holds {
            Ok(false) => false,
            Ok(true) => allows || !tests,
            Err(Unclear::Depends) => allows,
            Err(Unclear::Fails) => {
                rule.effect = GenEffect::Deny;
                !allows && !tests
            }
        }
    });
    answer(&open, question).effect != GenEffect::Deny
}

/// Compares both evaluators on one world and a sequence of questions; how many of them were allowed.
pub(crate) fn compare(world: World, questions: &[Question]) -> Result<u64, TestCaseError> {
    let (world, set, _) = compiled(world);
    let (mut at, mut kept, mut passed, mut allowed) = (0, Kept::default(), Vec::new(), 0);
    for question in questions {
        at += question.after;
        let told = told(&world, &set, question, at, &mut kept);
        let expected = limited(&world, question, at, &mut passed);
        prop_assert_eq!(&told, &expected, "{:?}\n{}", question, world.text().0);
        allowed += u64::from(told.effect == GenEffect::Allow);
        if question.method == Some("tools/call") {
            let listed = question.ask(|request| match request.action {
                Action::Mcp {
                    server,
                    name,
                    hints,
                    ..
                } => listable(&set, request.caller, server, name.unwrap_or(""), hints, NOW),
                _ => false,
            });
            prop_assert_eq!(
                listed,
                shown_to(&world, question),
                "{:?}\n{}",
                question,
                world.text().0
            );
        }
    }
    Ok(allowed)
}

/// What the engine does with a question by itself, whatever was charged.
fn effect_of(set: &PolicySet, question: &Question) -> Effect {
    question.ask(|request| {
        let mut request = *request;
        let keys = limit_keys(set, &request);
        let counts = Kept::default().counts(&keys, request.now);
        request.counts = &counts;
        evaluate(set, &request).effect
    })
}

/// The same, and nothing of it only observes.
fn enforced(world: World) -> World {
    let enforced = |server: GenServer| GenServer {
        observe: false,
        ..server
    };
    World {
        observe: false,
        servers: world.servers.into_iter().map(enforced).collect(),
        ..world
    }
}

/// What no rule and no grant allows is denied, unless denials are only observed.
pub(crate) fn nothing_is_given(world: World, questions: &[Question]) -> Result<(), TestCaseError> {
    let quiet = World {
        rules: Vec::new(),
        grants: Vec::new(),
        ..enforced(world)
    };
    let (_, set, _) = compiled(quiet);
    for question in questions {
        let session = question
            .method
            .is_none_or(|method| SESSION.contains(&method));
        let host = matches!(question.workload, Some((true, _)));
        let denied = effect_of(&set, question) == Effect::Deny;
        prop_assert!(denied || (host && session), "{:?}", question);
    }
    Ok(())
}

/// A deny rule about everything leaves nothing; one more deny rule never allows what was not allowed; the same files,
/// read again, say the same.
pub(crate) fn deny_beats_all(
    world: World,
    more: GenRule,
    questions: &[Question],
) -> Result<(), TestCaseError> {
    let world = enforced(world);
    let deny = |rule: GenRule| {
        let mut narrower = world.clone();
        narrower.rules.push(GenRule {
            id: 99,
            effect: GenEffect::Deny,
            observe: false,
            expires: None,
            ..rule
        });
        compiled(narrower).1
    };
    let everything = GenRule {
        who: Vec::new(),
        servers: Vec::new(),
        methods: None,
        tools: GenTools::Any,
        args: Vec::new(),
        when: None,
        ..more.clone()
    };
    let (before, again) = (compiled(world.clone()).1, compiled(world.clone()).1);
    let (narrower, nothing) = (deny(more), deny(everything));
    for question in questions {
        let was = effect_of(&before, question);
        prop_assert_eq!(was, effect_of(&again, question));
        prop_assert_eq!(effect_of(&nothing, question), Effect::Deny);
        let now = effect_of(&narrower, question);
        prop_assert!(now >= was, "{:?}\n{}", question, world.text().0);
    }
    Ok(())
}
