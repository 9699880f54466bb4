//! Rules that can never matter, because a deny rule speaks of everything that they speak of.
//!
//! Only what is certain is reported: a rule counts as wider where each of its parts names everything
//! that the other's part names, by the very same names or by patterns that plainly cover them.

use std::collections::HashMap;
use std::sync::Arc;

use super::fault;
use crate::fault::Fault;
use crate::glob::Glob;
use crate::load::Draft;
use crate::methods::TOOLS_CALL;
use crate::model::{Effect, Mode, Rule, Selector};

/// A server and a caller; `None` for all.
type Bucket<'a> = (Option<&'a str>, Option<&'a str>);

pub(super) fn check(draft: &Draft, faults: &mut Vec<Fault>) {
    // Wider rules name the same first server (or all), and the same first caller (or everyone).
    let mut denies: HashMap<Bucket<'_>, Vec<(usize, &Rule)>> = HashMap::new();
    for (index, rule) in draft.rules.iter().enumerate() {
        if rule.effect == Effect::Deny && rule.mode == Mode::Enforce {
            for server in keys(&rule.servers) {
                for who in keys(&rule.who) {
                    denies.entry((server, who)).or_default().push((index, rule));
                }
            }
        }
    }
    for (index, rule) in draft.rules.iter().enumerate() {
        let (server, who) = (first(&rule.servers), first(&rule.who));
        let buckets: &[Bucket<'_>] = match (server, who) {
            (None, None) => &[(None, None)],
            (None, who) => &[(None, None), (None, who)],
            (server, None) => &[(None, None), (server, None)],
            (server, who) => &[(None, None), (server, None), (None, who), (server, who)],
        };
        let wider = buckets
            .iter()
            .filter_map(|bucket| denies.get(bucket))
            .flatten()
            // Deny beats allow wherever it stands; of two denials the first one decides.
            .filter(|(other, _)| {
                if rule.effect == Effect::Deny {
                    *other < index
                } else {
                    *other != index
                }
            })
            .filter(|(_, deny)| covers(deny, rule))
            .min_by_key(|(other, _)| *other);
        if let Some((_, deny)) = wider {
            let message = format!(
                "rule `{}` can never matter: rule `{}` at {} denies all that it is about",
                rule.id, deny.id, deny.place,
            );
            faults.push(fault(&rule.place, message, None));
        }
    }
}

fn first(names: &[Arc<str>]) -> Option<&str> {
    names.first().map(|name| &**name)
}

fn keys(names: &[Arc<str>]) -> Vec<Option<&str>> {
    if names.is_empty() {
        vec![None]
    } else {
        names.iter().map(|name| Some(&**name)).collect()
    }
}

/// Whether `deny` matches every request that `rule` matches, at every time.
fn covers(deny: &Rule, rule: &Rule) -> bool {
    let includes = |wide: &[Arc<str>], narrow: &[Arc<str>]| {
        wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(|name| wide.contains(name)))
    };
    let lasts = match (deny.expires, rule.expires) {
        (None, _) => true,
        (Some(deny), Some(rule)) => deny >= rule,
        (Some(_), None) => false,
    };
    lasts
        && includes(&deny.who, &rule.who)
        && includes(&deny.servers, &rule.servers)
        && covers_methods(deny, rule)
        && covers_tools(&deny.tools, &rule.tools)
}

/// A rule without `methods` is about `tools/call` where it has `tools`, else about everything.
fn covers_methods(deny: &Rule, rule: &Rule) -> bool {
    let everything = |rule: &Rule| rule.methods.is_none() && rule.tools == Selector::Any;
    let matched = |method: &Glob| match &deny.methods {
        Some(globs) => globs.iter().any(|glob| glob.covers(method)),
        None => method.literal() == Some(TOOLS_CALL),
    };
    match &rule.methods {
        _ if everything(deny) => true,
        // `methods: ["*"]` is about every method, but not about starting a server.
        None if everything(rule) => false,
        None => deny
            .methods
            .as_ref()
            .is_none_or(|globs| globs.iter().any(|glob| glob.matches(TOOLS_CALL))),
        Some(methods) => methods.iter().all(matched),
    }
}

fn covers_tools(deny: &Selector, rule: &Selector) -> bool {
    let all = |globs: &[Glob]| globs.iter().any(Glob::is_everything);
    match (deny, rule) {
        (Selector::Any, _) => true,
        (Selector::Names(wide), Selector::Names(narrow)) => narrow
            .iter()
            .all(|name| wide.iter().any(|glob| glob.covers(name))),
        (Selector::Names(wide), Selector::Any | Selector::Classes(_)) => all(wide),
        (Selector::Classes(wide), Selector::Classes(narrow)) => narrow.is_within(*wide),
        (Selector::Classes(_), Selector::Any | Selector::Names(_)) => false,
    }
}
