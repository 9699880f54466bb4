//! Rules that can never matter, because a rule of a stronger effect speaks of everything that they speak of; and those
//! that allow only what another allows as well.
//!
//! Only what is certain is reported: a rule counts as wider where each of its parts names everything
//! that the other's part names, by the very same names or by patterns that plainly cover them.

use std::collections::HashMap;
use std::sync::Arc;

use super::{called, fault};
use crate::fault::Fault;
use crate::glob::Glob;
use crate::load::Draft;
use crate::methods::{TOOLS_CALL, governance, name_uris};
use crate::model::{Effect, Mode, Rule};
use crate::uri;

/// A server and a caller; `None` for all.
type Bucket<'a> = (Option<&'a str>, Option<&'a str>);

/// Rules that may be wider than others, found by the server and the caller that they name.
struct Wider<'a>(HashMap<Bucket<'a>, Vec<(usize, &'a Rule)>>);

impl<'a> Wider<'a> {
    fn new(rules: &'a [Rule], wanted: impl Fn(&Rule) -> bool) -> Self {
        // Wider rules name the same first server (or all), and the same first caller (or everyone).
        let mut wider: HashMap<Bucket<'_>, Vec<(usize, &Rule)>> = HashMap::new();
        for (index, rule) in rules.iter().enumerate() {
            // What looks at arguments is wider than nothing that can be told here.
            if rule.mode == Mode::Enforce && !rule.is_conditional() && wanted(rule) {
                for server in keys(&rule.servers) {
                    for who in keys(&rule.who) {
                        let bucket = wider.entry((server, who)).or_default();
                        bucket.push((index, rule));
                    }
                }
            }
        }
        Self(wider)
    }

    /// The first that is wider than `rule` and passes `counts`, by its place and itself.
    fn than(
        &self,
        rule: &'a Rule,
        counts: impl Fn(usize, &Rule) -> bool,
    ) -> Option<(usize, &'a Rule)> {
        let (server, who) = (first(&rule.servers), first(&rule.who));
        let buckets: &[Bucket<'_>] = match (server, who) {
            (None, None) => &[(None, None)],
            (None, who) => &[(None, None), (None, who)],
            (server, None) => &[(None, None), (server, None)],
            (server, who) => &[(None, None), (server, None), (None, who), (server, who)],
        };
        buckets
            .iter()
            .filter_map(|bucket| self.0.get(bucket))
            .flatten()
            .copied()
            .filter(|(place, wide)| counts(*place, wide) && covers(wide, rule))
            .min_by_key(|(place, _)| *place)
    }
}

pub(super) fn check(draft: &Draft, faults: &mut Vec<Fault>) {
    let stronger = Wider::new(&draft.rules, |rule| rule.effect != Effect::Allow);
    for (index, rule) in draft.rules.iter().enumerate() {
        // A stronger effect counts wherever it stands; of two rules of one effect the earlier.
        let counts = |other: usize, wide: &Rule| {
            let alike = wide.effect == rule.effect && other < index;
            wide.effect > rule.effect || (alike && asks_no_more(wide, rule))
        };
        if let Some((_, wide)) = stronger.than(rule, counts) {
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

/// The rules and grants that allow nothing that another one does not allow as well: without them every decision would
/// be the same. Of two that are alike, the later.
pub(crate) fn redundant(rules: &[Rule]) -> impl Iterator<Item = (&Rule, String)> {
    let wider = Wider::new(rules, |rule| rule.effect == Effect::Allow);
    let allows = |(_, rule): &(usize, &Rule)| rule.effect == Effect::Allow;
    let rules = rules.iter().enumerate().filter(allows);
    rules.filter_map(move |(index, rule)| {
        let counts = |other: usize, wide: &Rule| {
            let alike = rule.mode == Mode::Enforce && !rule.is_conditional() && covers(rule, wide);
            other < index || (other > index && !alike)
        };
        let (_, wide) = wider.than(rule, counts)?;
        let message = format!(
            "{} changes nothing: {} at {} allows all that it allows",
            called(rule),
            called(wide),
            wide.place,
        );
        Some((rule, message))
    })
}

/// Whether who approves for `wide`, and in its time, does so for `rule` as well: of several rules that ask for an approval
/// each has a say. Of other effects the first decides.
fn asks_no_more(wide: &Rule, rule: &Rule) -> bool {
    let named = |who| rule.approvers.contains(who);
    let sooner = wide.timeout_ms.zip(rule.timeout_ms);
    wide.approvers.iter().all(named)
        && (wide.timeout_ms == rule.timeout_ms || sooner.is_some_and(|(wide, rule)| wide < rule))
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
        && covers_tools(wide, rule)
}

/// A rule without `methods` is about `tools/call`, or about everything.
fn covers_methods(wide: &Rule, rule: &Rule) -> bool {
    let matched = |method: &Glob| match &wide.methods {
        Some(globs) => globs.iter().any(|glob| glob.covers(method)),
        None => method.literal() == Some(TOOLS_CALL),
    };
    // What is unknown is allowed by its name alone.
    let known = |method: &Glob| {
        method
            .literal()
            .is_some_and(|name| governance(name).is_some())
    };
    match &rule.methods {
        Some(methods) if wide.is_about_everything() && wide.effect == Effect::Allow => {
            methods.iter().all(known)
        }
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

/// Whether all that a rule can be about is named by a URI.
fn about_resources(rule: &Rule) -> bool {
    let of_resources = |glob: &Glob| {
        let method = glob.literal();
        matches!(method, Some("resources/read" | "resources/subscribe"))
    };
    let methods = rule.methods.as_deref();
    methods.is_some_and(|globs| globs.iter().all(of_resources))
}

fn covers_tools(wide: &Rule, rule: &Rule) -> bool {
    let everything = |globs: &[Glob]| globs.iter().any(Glob::is_everything);
    let names = match (wide.tools.names(), rule.tools.names()) {
        (None, _) => true,
        (Some(wide_names), Some(names)) => {
            // Of resources, what restricts is also of other forms, and what allows goes by what is certain.
            let goes_by = wide.effect == Effect::Allow && name_uris(rule.methods.as_deref());
            let mut names = names.iter().chain(&rule.also);
            names.all(|name| {
                // Other forms are those of a resource's URI, and of nothing else's name.
                let also = wide.also.iter().filter(|_| about_resources(rule));
                let mut globs = wide_names.iter().chain(also);
                globs.any(|glob| glob.covers(name) && (!goes_by || allows(glob, name)))
            })
        }
        (Some(wide), None) => everything(wide),
    };
    let classes = match (wide.tools.classes(), rule.tools.classes()) {
        (None, _) => true,
        (Some(wide), Some(narrow)) => narrow.is_within(wide),
        (Some(_), None) => false,
    };
    names && classes
}

/// Whether a pattern that covers another allows all resources that the other does: not those that may be another place
/// than they say, and none by what ends like it.
fn allows(glob: &Glob, other: &Glob) -> bool {
    let within = || match other.literal() {
        Some(uri) => uri::read(uri).is_plain(),
        None => glob.matches(other.prefix()),
    };
    glob == other || glob.is_everything() || within()
}
