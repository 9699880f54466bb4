//! Rules that can never matter, because a rule of a stronger effect speaks of everything that they speak of.
//!
//! Only what is certain is reported: a rule counts as wider where each of its parts names everything
//! that the other's part names, by the very same names or by patterns that plainly cover them.

use std::collections::HashMap;
use std::sync::Arc;

use super::{called, fault};
use crate::fault::Fault;
use crate::glob::Glob;
use crate::load::Draft;
use crate::methods::TOOLS_CALL;
use crate::model::{Effect, Mode, Rule, Selector};

/// A server and a caller; `None` for all.
type Bucket<'a> = (Option<&'a str>, Option<&'a str>);

pub(super) fn check(draft: &Draft, faults: &mut Vec<Fault>) {
    // Wider rules name the same first server (or all), and the same first caller (or everyone).
    let mut stronger: HashMap<Bucket<'_>, Vec<(usize, &Rule)>> = HashMap::new();
    for (index, rule) in draft.rules.iter().enumerate() {
        // What looks at arguments is wider than nothing that can be told here.
        if rule.effect != Effect::Allow && rule.mode == Mode::Enforce && !rule.is_conditional() {
            for server in keys(&rule.servers) {
                for who in keys(&rule.who) {
                    stronger
                        .entry((server, who))
                        .or_default()
                        .push((index, rule));
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
            .filter_map(|bucket| stronger.get(bucket))
            .flatten()
            // A stronger effect counts wherever it stands; of two rules of one effect the first decides.
            .filter(|(other, wide)| {
                wide.effect > rule.effect || (wide.effect == rule.effect && *other < index)
            })
            .filter(|(_, wide)| covers(wide, rule))
            .min_by_key(|(other, _)| *other);
        if let Some((_, wide)) = wider {
            let does = match wide.effect {
                Effect::Allow => "allows",
                Effect::DryRun => "runs dry",
                Effect::Approve => "asks an approval for",
                Effect::Deny => "denies",
            };
            let message = format!(
                "{} can never matter: {} at {} {does} all that it is about",
                called(rule),
                called(wide),
                wide.place,
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

/// Whether `wide` matches every request that `rule` matches, at every time.
fn covers(wide: &Rule, rule: &Rule) -> bool {
    let includes = |all: &[Arc<str>], some: &[Arc<str>]| {
        all.is_empty() || (!some.is_empty() && some.iter().all(|name| all.contains(name)))
    };
    let lasts = match (wide.expires, rule.expires) {
        (None, _) => true,
        (Some(wide), Some(rule)) => wide >= rule,
        (Some(_), None) => false,
    };
    lasts
        && includes(&wide.who, &rule.who)
        && includes(&wide.servers, &rule.servers)
        && covers_methods(wide, rule)
        && covers_tools(&wide.tools, &rule.tools)
}

/// A rule without `methods` is about `tools/call`, or about everything.
fn covers_methods(wide: &Rule, rule: &Rule) -> bool {
    let matched = |method: &Glob| match &wide.methods {
        Some(globs) => globs.iter().any(|glob| glob.covers(method)),
        None => method.literal() == Some(TOOLS_CALL),
    };
    match &rule.methods {
        _ if wide.is_about_everything() => true,
        // `methods: ["*"]` is about every method, but not about starting a server.
        None if rule.is_about_everything() => false,
        None => wide
            .methods
            .as_ref()
            .is_none_or(|globs| globs.iter().any(|glob| glob.matches(TOOLS_CALL))),
        Some(methods) => methods.iter().all(matched),
    }
}

fn covers_tools(wide: &Selector, rule: &Selector) -> bool {
    let everything = |globs: &[Glob]| globs.iter().any(Glob::is_everything);
    let names = match (wide.names(), rule.names()) {
        (None, _) => true,
        (Some(wide), Some(narrow)) => narrow
            .iter()
            .all(|name| wide.iter().any(|glob| glob.covers(name))),
        (Some(wide), None) => everything(wide),
    };
    let classes = match (wide.classes(), rule.classes()) {
        (None, _) => true,
        (Some(wide), Some(narrow)) => narrow.is_within(wide),
        (Some(_), None) => false,
    };
    names && classes
}
