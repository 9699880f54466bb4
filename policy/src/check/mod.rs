//! What only shows over all files: names given twice or nowhere, rules that can never match.

mod credentials;
mod launches;
mod manifest;
mod names;
mod reach;
mod shadow;
mod size;

pub(crate) use self::reach::in_part;
pub(crate) use self::shadow::redundant;

use crate::fault::{Fault, Place};
use crate::load::Draft;
use crate::model::{Rule, Written};

/// Checks the files against each other; every fault is reported.
pub(crate) fn check(draft: &Draft) -> Vec<Fault> {
    let mut faults = Vec::new();
    names::check(draft, &mut faults);
    credentials::check(draft, &mut faults);
    launches::check(draft, &mut faults);
    if size::check(draft, &mut faults) {
        reach::check(draft, &mut faults);
        shadow::check(draft, &mut faults);
    }
    faults
}

/// What people call a rule.
pub(crate) fn called(rule: &Rule) -> String {
    match rule.written {
        Written::Rule => format!("rule `{}`", rule.id),
        Written::Grant => format!("grant `{}`", rule.id),
    }
}

fn fault(place: &Place, message: String, hint: Option<String>) -> Fault {
    Fault {
        file: place.file.to_string(),
        line: place.span.line,
        column: place.span.column,
        message,
        hint,
    }
}
