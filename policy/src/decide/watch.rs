//! How `explain` looks over the shoulder of the one engine.

use super::explain::{Considered, Outcome, Subject, Tested};
use crate::fault::Place;

/// Sees what the engine considers.
pub(super) trait Watch {
    /// Everything is to be shown, not only what the tables find.
    const ALL: bool;
    /// Notes one outcome.
    fn note(&mut self, subject: impl FnOnce() -> Subject, place: Option<&Place>, outcome: Outcome);
    /// Adds the tests of what was noted last.
    fn trace(&mut self, tests: impl FnOnce() -> Vec<Tested>);
}

/// Sees nothing and costs nothing.
pub(super) struct Blind;

impl Watch for Blind {
    const ALL: bool = false;
    fn note(&mut self, _: impl FnOnce() -> Subject, _: Option<&Place>, _: Outcome) {}
    fn trace(&mut self, _: impl FnOnce() -> Vec<Tested>) {}
}

/// Writes everything down.
#[derive(Default)]
pub(super) struct Notes(pub(super) Vec<Considered>);

impl Watch for Notes {
    const ALL: bool = true;
    fn note(&mut self, subject: impl FnOnce() -> Subject, place: Option<&Place>, outcome: Outcome) {
        self.0.push(Considered {
            subject: subject(),
            place: place.cloned(),
            outcome,
            trace: Vec::new(),
        });
    }

    fn trace(&mut self, tests: impl FnOnce() -> Vec<Tested>) {
        if let Some(last) = self.0.last_mut() {
            last.trace = tests();
        }
    }
}
