//! Rules by server, caller and name: a decision looks only at rules that can be about it.

use std::sync::Arc;

use super::{Id, Map, position};
use crate::load::Draft;
use crate::model::{Effect, Mode, Rule};
use crate::time::{Date, Timestamp};

/// Stands for everyone in place of a caller's number.
const ANYONE: Id = Id::MAX;

/// All rules, by the servers that they name.
#[derive(Debug)]
pub(crate) struct RuleTable {
    /// For each rule the numbers of the servers and callers that it names; empty means all.
    pub(crate) about: Vec<About>,
    by_server: Vec<Slots>,
    everywhere: Slots,
}

/// Whom a rule names, as sorted numbers.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) servers: Box<[Id]>,
    pub(crate) who: Box<[Id]>,
}

impl RuleTable {
    pub(super) fn new(
        draft: &Draft,
        servers: &Map<Arc<str>, Id>,
        hosts: &Map<Arc<str>, Id>,
    ) -> Self {
        let mut who = hosts.clone();
        let first = Id::try_from(hosts.len()).unwrap_or(ANYONE);
        who.extend(
            (first..)
                .zip(&draft.identities)
                .map(|(id, identity)| (Arc::clone(&identity.name), id)),
        );
        let mut table = Self {
            about: Vec::with_capacity(draft.rules.len()),
            by_server: draft.servers.iter().map(|_| Slots::default()).collect(),
            everywhere: Slots::default(),
        };
        for (id, rule) in (0..).zip(&draft.rules) {
            let about = About {
                servers: numbers(&rule.servers, servers),
                who: numbers(&rule.who, &who),
            };
            if about.servers.is_empty() {
                table.everywhere.insert(id, rule, &about.who);
            }
            for server in &about.servers {
                if let Some(slots) = table.by_server.get_mut(position(*server)) {
                    slots.insert(id, rule, &about.who);
                }
            }
            table.about.push(about);
        }
        table
    }

    /// The two sets of slots with rules for a server.
    pub(crate) fn slots(&self, server: Id) -> impl Iterator<Item = &Slots> {
        self.by_server
            .get(position(server))
            .into_iter()
            .chain([&self.everywhere])
    }
}

fn numbers(names: &[Arc<str>], ids: &Map<Arc<str>, Id>) -> Box<[Id]> {
    let mut numbers: Vec<Id> = names
        .iter()
        .filter_map(|name| ids.get(name).copied())
        .collect();
    numbers.sort_unstable();
    numbers.into()
}

/// The rules of one server (or of all), by the caller that they name.
#[derive(Debug, Default)]
pub(crate) struct Slots(Map<Id, Slot>);

impl Slots {
    fn insert(&mut self, id: Id, rule: &Rule, who: &[Id]) {
        let everyone = [ANYONE];
        for caller in if who.is_empty() { &everyone } else { who } {
            self.0.entry(*caller).or_default().insert(id, rule);
        }
    }

    fn of<'a>(&'a self, callers: &'a [Id]) -> impl Iterator<Item = &'a Slot> {
        callers
            .iter()
            .chain([&ANYONE])
            .filter_map(|caller| self.0.get(caller))
    }

    /// Shows each rule that may be about this name and these callers, and may be the first of its effect; some more
    /// than once.
    pub(crate) fn candidates(&self, callers: &[Id], name: &str, mut show: impl FnMut(Id)) {
        for slot in self.of(callers) {
            if let Some(named) = slot.exact.get(name) {
                named.ids.iter().for_each(|id| show(*id));
            }
            slot.beginnings.walk(name.bytes(), &mut show);
            slot.endings.walk(name.bytes().rev(), &mut show);
        }
    }

    /// Whether an allow rule in force names one of these callers, whatever else it asks for.
    pub(crate) fn reaches(&self, callers: &[Id], now: Timestamp) -> bool {
        self.of(callers).any(|slot| slot.reach.holds(now))
    }
}

/// The rules for one caller.
#[derive(Debug, Default)]
struct Slot {
    exact: Map<Box<str>, Named>,
    beginnings: Literals,
    /// Of those that begin with anything.
    endings: Literals,
    reach: Reach,
}

impl Slot {
    fn insert(&mut self, id: Id, rule: &Rule) {
        // A rule that asks for approvals is often about everyone, and is not meant to let everyone in.
        if rule.effect == Effect::Allow && rule.mode == Mode::Enforce {
            self.reach.add(rule.expires);
        }
        let Some(globs) = rule.tools.names() else {
            return self.beginnings.insert([], id);
        };
        for glob in globs {
            match (glob.literal(), glob.prefix(), glob.suffix()) {
                (Some(name), ..) => self.exact.entry(name.into()).or_default().insert(id, rule),
                (None, "", suffix) => self.endings.insert(suffix.bytes().rev(), id),
                (None, prefix, _) => self.beginnings.insert(prefix.bytes(), id),
            }
        }
    }
}

/// The rules that have a name written out.
#[derive(Debug, Default)]
struct Named {
    ids: Vec<Id>,
    /// The effects and modes of those that match each call of a tool of this name.
    certain: Vec<(Effect, Mode)>,
}

impl Named {
    /// Leaves out what never is the first of its effect: there is one before it that matches whenever it does.
    fn insert(&mut self, id: Id, rule: &Rule) {
        let kind = (rule.effect, rule.mode);
        let only_narrows = rule.methods.is_none() && !rule.is_conditional();
        if only_narrows && self.certain.contains(&kind) {
            return;
        }
        self.ids.push(id);
        if only_narrows && rule.tools.classes().is_none() && rule.expires.is_none() {
            self.certain.push(kind);
        }
    }
}

/// How long some allow rule is in force.
#[derive(Debug, Default)]
struct Reach {
    forever: bool,
    until: Option<Date>,
}

impl Reach {
    fn add(&mut self, expires: Option<Date>) {
        self.forever |= expires.is_none();
        self.until = self.until.max(expires);
    }

    fn holds(&self, now: Timestamp) -> bool {
        self.forever || self.until.is_some_and(|until| !until.is_past(now))
    }
}

/// A tree of bytes: rules by the literal text that their patterns begin, or end, with.
#[derive(Debug, Default)]
struct Literals {
    here: Vec<Id>,
    below: Vec<(u8, Literals)>,
}

impl Literals {
    fn insert(&mut self, literal: impl IntoIterator<Item = u8>, id: Id) {
        let mut node = self;
        for byte in literal {
            let at = match node.below.binary_search_by_key(&byte, |(byte, _)| *byte) {
                Ok(at) => at,
                Err(at) => {
                    node.below.insert(at, (byte, Self::default()));
                    at
                }
            };
            match node.below.get_mut(at) {
                Some((_, below)) => node = below,
                None => return,
            }
        }
        if node.here.last() != Some(&id) {
            node.here.push(id);
        }
    }

    fn walk(&self, name: impl IntoIterator<Item = u8>, show: &mut impl FnMut(Id)) {
        let mut node = self;
        node.here.iter().for_each(|id| show(*id));
        for byte in name {
            let Ok(at) = node.below.binary_search_by_key(&byte, |(byte, _)| *byte) else {
                return;
            };
            let Some((_, below)) = node.below.get(at) else {
                return;
            };
            node = below;
            node.here.iter().for_each(|id| show(*id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Source, compile};

    /// The ids of the rules that are looked at for a call of this tool by somebody whom no identity names.
    fn looked_at(rules: &str, tool: &str) -> Vec<String> {
        let text =
            format!("version: 1\nservers:\n  s: {{ launch: {{ command: x }} }}\nrules:\n{rules}");
        let name = "p.yaml".to_owned();
        let set = compile(&[Source { name, text }]).unwrap();
        let mut found = Vec::new();
        for slots in set.index().rules.slots(0) {
            slots.candidates(&[], tool, |id| {
                found.push(set.rules()[position(id)].id.to_string());
            });
        }
        found
    }

    #[test]
    fn what_never_comes_first_is_not_looked_at() {
        let rules =
            "  - { id: narrow, servers: [s], tools: [t], effect: allow, expires: 2100-01-01 }
  - { id: first, servers: [s], tools: [t, u], effect: allow }
  - { id: late, servers: [s], tools: [t], effect: allow }
  - { id: late-expires, servers: [s], tools: [t], effect: allow, expires: 2100-01-01 }
  - { id: args, servers: [s], tools: [t], effect: allow, args: [{ field: /x, matches: x }] }
  - { id: when, servers: [s], tools: [t], effect: allow, when: args.x == 1 }
  - { id: methods, servers: [s], tools: [t], effect: allow, methods: [prompts/get] }
  - { id: observed, servers: [s], tools: [t], effect: allow, mode: observe }
  - { id: late-observed, servers: [s], tools: [t], effect: allow, mode: observe }
  - { id: asks, servers: [s], tools: [t], effect: approve, when: args.y == 1 }
  - { id: other, servers: [s], tools: [u], effect: allow }
";
        let expected = [
            "narrow", "first", "args", "when", "methods", "observed", "asks",
        ];
        assert_eq!(looked_at(rules, "t"), expected);
        assert_eq!(looked_at(rules, "u"), ["first"]);
    }

    #[test]
    fn rules_are_found_by_what_their_patterns_begin_or_end_with() {
        let rules = "  - { id: whole, tools: [get_all], effect: deny }
  - { id: beginning, tools: ['get_*'], effect: deny }
  - { id: ending, tools: ['*_all', '?et_all'], effect: deny }
  - { id: both, tools: ['get*all'], effect: deny }
  - { id: middle, tools: ['*et_*'], effect: deny }
  - { id: not, tools: ['*_small', 'get_one*'], effect: deny }
";
        let mut found = looked_at(rules, "get_all");
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, ["beginning", "both", "ending", "middle", "whole"]);
        assert_eq!(looked_at(rules, "ü"), ["middle"]);
    }
}
