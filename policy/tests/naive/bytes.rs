//! A world and questions out of any bytes, for the fuzz target: each part from a few bytes of its own, so that turning
//! one changes one rule or one question.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::compared::{compare, deny_beats_all, nothing_is_given};
use super::question::{Question, question};
use super::world::{frame, grant, rule};

/// How many bytes a part is drawn from.
const PART: usize = 4;
/// The most questions that are put to one world.
const QUESTIONS: usize = 64;

/// Both evaluators agree on what the bytes say, and what must hold of every policy holds. The first byte says how many
/// rules and grants there are; parts that are left ask.
pub(crate) fn agree(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else {
        return;
    };
    let mut parts = bytes.chunks(PART);
    let rules = usize::from(first % 8);
    let grants = usize::from(first / 8 % 4);
    let frame = drawn(&frame(), parts.next());
    let rules = (0..rules).map(|_| drawn(&rule(), parts.next())).collect();
    let grants = (0..grants).map(|_| drawn(&grant(), parts.next())).collect();
    let more = drawn(&rule(), parts.next());
    let questions: Vec<Question> = parts
        .take(QUESTIONS)
        .map(|part| drawn(&question(), Some(part)))
        .collect();
    let world = frame.with(rules, grants);
    compare(world.clone(), &questions).unwrap();
    nothing_is_given(world.clone(), &questions).unwrap();
    deny_beats_all(world, more, &questions).unwrap();
}

/// The one value of its kind that this part stands for; none is as one of zeros.
fn drawn<S: Strategy>(strategy: &S, part: Option<&[u8]>) -> S::Value {
    let mut seed = [0; 32];
    for (byte, drawn) in seed.iter_mut().zip(part.unwrap_or_default()) {
        *byte = *drawn;
    }
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    strategy.new_tree(&mut runner).unwrap().current()
}
