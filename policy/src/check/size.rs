//! How much the rules come to in all: a set that would fill the memory is a fault, and the last good one stays.

use super::{called, fault};
use crate::fault::Fault;
use crate::load::Draft;

/// Combinations of a server, a caller and a pattern that rules and grants name. Each takes some 200 bytes where no two
/// callers are named by the same rules.
const NAMED_MAX: usize = 1 << 21;

/// Whether they are not too many.
pub(super) fn check(draft: &Draft, faults: &mut Vec<Fault>) -> bool {
    let mut all: usize = 0;
    for rule in &draft.rules {
        let patterns = rule.tools.names().map_or(0, <[_]>::len).max(1);
        let named = rule
            .servers
            .len()
            .max(1)
            .saturating_mul(rule.who.len().max(1));
        all = all.saturating_add(named.saturating_mul(patterns));
        if all > NAMED_MAX {
            let message = format!(
                "{}, with all before it, names more than {NAMED_MAX} combinations of a server, a caller and a pattern",
                called(rule)
            );
            let hint =
                "name callers by what they have in common: a claim, a pattern of users".to_owned();
            faults.push(fault(&rule.place, message, Some(hint)));
            return false;
        }
    }
    true
}
