//! Random policies and requests: the engine says what the naive evaluator says.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::naive::arguments::is_doubtful;
use crate::naive::compared::{compare, compiled, deny_beats_all, nothing_is_given};
use crate::naive::evaluator::{SESSION, answer};
use crate::naive::question::{NOW, question};
use crate::naive::world::{GenEffect, GenRule, rule, world};

/// Pairs of a policy and a request that are compared where `EXEAT_PAIRS` says nothing.
const PAIRS: u32 = 20_000;
/// Requests that are put to one policy.
const REQUESTS: u32 = 64;

#[test]
fn both_evaluators_agree() {
    let pairs = match std::env::var("EXEAT_PAIRS") {
        Ok(pairs) => pairs.parse().expect("EXEAT_PAIRS is a number"),
        Err(_) => PAIRS,
    };
    let config = ProptestConfig {
        cases: pairs / REQUESTS,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let allowed = Cell::new(0);
    let requests = usize::try_from(REQUESTS).unwrap();
    let questions = prop::collection::vec(question(), requests);
    let compared = TestRunner::new(config).run(&(world(), questions), |(world, questions)| {
        allowed.set(allowed.get() + compare(world, &questions)?);
        Ok(())
    });
    compared.unwrap_or_else(|error| panic!("{error}"));
    // Neither of them says one thing to all.
    let (allowed, pairs) = (allowed.get(), u64::from(pairs));
    assert!(
        allowed > pairs / 20 && allowed < pairs / 2,
        "{allowed} of {pairs} allowed"
    );
}

proptest! {
    #[test]
    fn what_nothing_allows_is_denied(world in world(), questions in prop::collection::vec(question(), 32)) {
        nothing_is_given(world, &questions)?;
    }

    #[test]
    fn deny_beats_everything(world in world(), more in rule(), questions in prop::collection::vec(question(), 32)) {
        deny_beats_all(world, more, &questions)?;
    }

    /// A rule refused as one that can never match or matter changes no decision that rules make.
    #[test]
    fn accusations_are_true(world in world(), questions in prop::collection::vec(question(), 32)) {
        let (innocent, _, accused) = compiled(world);
        for rule in accused {
            let mut with = innocent.clone();
            with.rules.push(rule.clone());
            with.rules.sort_by_key(|rule| rule.id);
            for question in questions.iter().filter(|question| question.method.is_some_and(|method| !SESSION.contains(&method))) {
                let (before, after) = (answer(&innocent, question), answer(&with, question));
                // Where a test cannot be evaluated, what restricts by it denies: it matters as a mistake alone. So it does
                // where one test holds of one member and another of what may be taken for it.
                let doubtful = question.arguments.as_ref().is_some_and(is_doubtful);
                if rule.effect != GenEffect::Allow && (after.failed || doubtful) {
                    continue;
                }
                prop_assert_eq!(before.effect, after.effect, "{:?}\n{:?}\n{}", rule, question, with.text().0);
            }
        }
    }

    /// Without a rule or grant that is said to change nothing, everything is decided the same.
    #[test]
    fn what_is_said_to_change_nothing_does_not(world in world(), questions in prop::collection::vec(question(), 32)) {
        let (world, set, _) = compiled(world);
        let (text, lines) = world.text();
        for warning in set.warnings(NOW).iter().filter(|warning| warning.message.contains("changes nothing")) {
            let (_, idle) = lines.iter().find(|(line, _)| *line == warning.line).unwrap();
            let mut without = world.clone();
            without.rules.retain(|rule| rule.id != *idle);
            without.grants.retain(|rule| rule.id != *idle);
            for question in &questions {
                let (with, without) = (answer(&world, question), answer(&without, question));
                prop_assert_eq!(with.effect, without.effect, "{}\n{:?}\n{}", warning, question, text);
            }
        }
    }

    /// One more deny rule never allows anything; the order of rules never changes what happens.
    #[test]
    fn deny_only_takes_away(world in world(), more in rule(), questions in prop::collection::vec(question(), 16)) {
        let mut narrower = world.clone();
        narrower.rules.push(GenRule { id: 99, effect: GenEffect::Deny, observe: false, ..more });
        let mut turned = world.clone();
        turned.rules.reverse();
        for question in &questions {
            let before = answer(&world, question);
            prop_assert!(answer(&narrower, question).effect >= before.effect);
            prop_assert_eq!(before.effect, answer(&turned, question).effect);
        }
    }
}
