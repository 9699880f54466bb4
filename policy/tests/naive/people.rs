//! Who may approve a call: as the policy reads, and as the engine says.

use exeat_policy::{Effect, PolicySet, Verdict};

use super::world::{GenRule, IDENTITIES};

/// Users who may be asked; the last is nobody in particular.
const PEOPLE: [&str; 4] = ["dave", "eve", "x", "mallory"];

/// Whom each of the rules that ask names.
pub(crate) fn named<'a>(
    asking: impl Iterator<Item = &'a GenRule>,
    glob: fn(&str, &str) -> bool,
) -> Vec<&'static str> {
    let mut people = PEOPLE.to_vec();
    for rule in asking {
        people.retain(|user| {
            IDENTITIES.iter().any(|(name, users)| {
                rule.approvers.contains(name) && users.iter().any(|pattern| glob(pattern, user))
            })
        });
    }
    people
}

/// Who may, by the rules that the engine names.
pub(crate) fn told(set: &PolicySet, verdict: &Verdict) -> Vec<&'static str> {
    let asks = verdict.effect == Effect::Approve;
    let decides = verdict.rule.as_ref().filter(|_| asks);
    assert_eq!(verdict.asking.first(), decides, "the first decides");
    let may = |user: &&str| verdict.asking.iter().all(|rule| set.approves(rule, user));
    PEOPLE
        .into_iter()
        .filter(|user| asks && may(user))
        .collect()
}
