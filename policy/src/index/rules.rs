//! Rules by server, caller and name: a decision looks only at rules that can be about it.

use std::sync::Arc;

use super::{Id, Map, position};
use crate::load::Draft;
use crate::methods::{NAME_URIS, name_uris};
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
        let about: Vec<About> = draft
            .rules
            .iter()
            .map(|rule| About {
                servers: numbers(&rule.servers, servers),
                who: numbers(&rule.who, &who),
            })
            .collect();
        let mut everywhere = Vec::new();
        let mut by_server = vec![Vec::new(); draft.servers.len()];
        for (id, about) in (0..).zip(&about) {
            if about.servers.is_empty() {
                everywhere.push(id);
            }
            for server in &about.servers {
                if let Some(rules) = by_server.get_mut(position(*server)) {
                    rules.push(id);
                }
            }
        }
        let mut shared = Map::default();
        let mut slots = |rules: &[Id]| Slots::new(rules, &draft.rules, &about, &mut shared);
        Self {
            by_server: by_server.iter().map(|rules| slots(rules)).collect(),
            everywhere: slots(&everywhere),
            about,
        }
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
///
/// Those whom the same rules name share a slot, also at several servers: a role's members, mostly.
#[derive(Debug)]
pub(crate) struct Slots(Map<Id, Arc<Slot>>);

impl Slots {
    /// Of these rules, ascending.
    fn new(
        ids: &[Id],
        rules: &[Rule],
        about: &[About],
        shared: &mut Map<Box<[Id]>, Arc<Slot>>,
    ) -> Self {
        let mut by_caller: Map<Id, Vec<Id>> = Map::default();
        for id in ids {
            let who = about.get(position(*id)).map_or(&[][..], |about| &about.who);
            let everyone = [ANYONE];
            for caller in if who.is_empty() { &everyone } else { who } {
                by_caller.entry(*caller).or_default().push(*id);
            }
        }
        let mut slot = |ids: Vec<Id>| {
            let made = shared.entry(ids.into()).or_insert_with_key(|ids| {
                let mut slot = Slot::default();
                for id in ids {
                    if let Some(rule) = rules.get(position(*id)) {
                        slot.insert(*id, rule);
                    }
                }
                Arc::new(slot)
            });
            Arc::clone(made)
        };
        let slots = by_caller.into_iter();
        Self(slots.map(|(caller, ids)| (caller, slot(ids))).collect())
    }

    fn of<'a>(&'a self, callers: &'a [Id]) -> impl Iterator<Item = &'a Slot> {
        callers
            .iter()
            .chain([&ANYONE])
            .filter_map(|caller| self.0.get(caller).map(|slot| &**slot))
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

    /// Shows each rule that restricts resources by their names, may be about this method and these callers, and may be the
    /// first of its effect, whatever is named.
    pub(crate) fn restricting(&self, callers: &[Id], method: &str, mut show: impl FnMut(Id)) {
        let Some(at) = NAME_URIS.iter().position(|name| *name == method) else {
            return;
        };
        for slot in self.of(callers) {
            let named = slot.restricting.as_ref().and_then(|all| all.get(at));
            if let Some(named) = named {
                named.ids.iter().for_each(|id| show(*id));
            }
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
    /// For each method that names URIs, those that restrict by name.
    restricting: Option<Box<[Named; NAME_URIS.len()]>>,
    reach: Reach,
}

impl Slot {
    fn insert(&mut self, id: Id, rule: &Rule) {
        // A rule that asks for approvals is often about everyone, and is not meant to let everyone in.
        if rule.effect == Effect::Allow && rule.mode == Mode::Enforce {
            self.reach.add(rule.expires);
        }
        let Some(globs) = rule.tools.names() else {
            return self.beginnings.insert(&[], id);
        };
        for glob in globs.iter().chain(&rule.also) {
            match (glob.literal(), glob.prefix(), glob.suffix()) {
                (Some(name), ..) => self.exact.entry(name.into()).or_default().insert(id, rule),
                (None, "", suffix) => {
                    let backwards: Vec<u8> = suffix.bytes().rev().collect();
                    self.endings.insert(&backwards, id);
                }
                (None, prefix, _) => self.beginnings.insert(prefix.as_bytes(), id),
            }
        }
        let methods = rule.methods.as_deref();
        if rule.effect != Effect::Allow && name_uris(methods) {
            let all = self.restricting.get_or_insert_default();
            for (named, method) in all.iter_mut().zip(NAME_URIS) {
                let mut globs = methods.unwrap_or_default().iter();
                if globs.any(|glob| glob.matches(method)) {
                    named.insert_any(id, rule);
                }
            }
        }
    }
}

/// The rules that have a name written out, or that some name is compared with whatever they have.
#[derive(Debug, Default)]
struct Named {
    ids: Vec<Id>,
    /// The effects and modes of those that match each call of a tool of this name, or each message.
    certain: Vec<(Effect, Mode)>,
}

impl Named {
    /// Leaves out what never is the first of its effect: there is one before it that matches whenever it does. What
    /// asks for an approval stays: who may approve differs.
    fn insert(&mut self, id: Id, rule: &Rule) {
        let kind = (rule.effect, rule.mode);
        let only_narrows = rule.methods.is_none() && !rule.is_conditional();
        if only_narrows && rule.effect != Effect::Approve && self.certain.contains(&kind) {
            return;
        }
        self.ids.push(id);
        if only_narrows && rule.tools.classes().is_none() && rule.expires.is_none() {
            self.certain.push(kind);
        }
    }

    /// The same for one that matches every name.
    fn insert_any(&mut self, id: Id, rule: &Rule) {
        let kind = (rule.effect, rule.mode);
        // A condition that fails denies, whatever the rule would.
        let is_outdone = match rule.effect {
            Effect::Deny => true,
            Effect::DryRun => !rule.is_conditional(),
            Effect::Approve | Effect::Allow => false,
        };
        let comes_later = self.certain.contains(&kind);
        if is_outdone && comes_later {
            return;
        }
        self.ids.push(id);
        if !comes_later && !rule.is_conditional() && rule.expires.is_none() {
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

/// A tree of texts, each of which goes on where the one above it ends: rules by the literal text that their patterns
/// begin, or end, with.
#[derive(Debug, Default)]
struct Literals {
    text: Box<[u8]>,
    here: Vec<Id>,
    /// By their first bytes, of which no two are the same.
    below: Vec<Literals>,
}

impl Literals {
    fn insert(&mut self, literal: &[u8], id: Id) {
        let (mut node, mut rest) = (self, literal);
        while let Some(first) = rest.first() {
            let at = match node.find(*first) {
                Ok(at) => at,
                Err(at) => {
                    let leaf = Self {
                        text: rest.into(),
                        ..Self::default()
                    };
                    node.below.insert(at, leaf);
                    at
                }
            };
            let Some(below) = node.below.get_mut(at) else {
                return;
            };
            let pairs = below.text.iter().zip(rest);
            let same = pairs.take_while(|(one, other)| one == other).count();
            below.divide(same);
            rest = rest.get(same..).unwrap_or_default();
            node = below;
        }
        if node.here.last() != Some(&id) {
            node.here.push(id);
        }
    }

    fn find(&self, first: u8) -> Result<usize, usize> {
        let key = |node: &Self| node.text.first().copied();
        self.below.binary_search_by_key(&Some(first), key)
    }

    /// Has its text end after so many bytes, and the rest stand below it.
    fn divide(&mut self, at: usize) {
        let Some((text, rest)) = self.text.split_at_checked(at) else {
            return;
        };
        if rest.is_empty() {
            return;
        }
        let (text, rest) = (text.into(), rest.into());
        let lower = Self {
            text: rest,
            ..std::mem::take(self)
        };
        self.text = text;
        self.below.push(lower);
    }

    fn walk(&self, name: impl IntoIterator<Item = u8>, show: &mut impl FnMut(Id)) {
        let (mut node, mut name) = (self, name.into_iter());
        loop {
            node.here.iter().for_each(|id| show(*id));
            let Some(first) = name.next() else {
                return;
            };
            let below = node.find(first).ok().and_then(|at| node.below.get(at));
            let Some(below) = below else {
                return;
            };
            let mut rest = below.text.iter().skip(1);
            if !rest.all(|byte| name.next() == Some(*byte)) {
                return;
            }
            node = below;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

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

    #[test]
    fn what_may_be_any_place_is_compared_with_few_rules() {
        let deny = |n: u32| {
            format!(
                "  - {{ id: d{n}, methods: ['resources/*'], tools: ['file:///d{n}/*'], effect: deny }}\n"
            )
        };
        let others = "  - { id: when, methods: [resources/read], tools: [a], when: args.x == 1, effect: deny }
  - { id: dry, methods: [resources/read], tools: [b], effect: dry_run }
  - { id: dry-later, methods: [resources/read], tools: [c], effect: dry_run }
  - { id: dry-when, methods: [resources/read], tools: [d], when: args.x == 1, effect: dry_run }
  - { id: asks, methods: [resources/read], tools: [e], effect: approve }
  - { id: asks-later, methods: [resources/read], tools: [f], effect: approve }
  - { id: watched, methods: [resources/read], tools: [g], effect: deny, mode: observe }
  - { id: prompts, methods: [prompts/get], tools: [h], effect: deny }
  - { id: calls, tools: [i], effect: deny }
  - { id: allows, methods: [resources/read], tools: [j], effect: allow }
";
        let denied: String = (0..100).map(deny).collect();
        let text = format!(
            "version: 1\nservers: {{ s: {{ launch: {{ command: x }} }} }}\nrules:\n{denied}{others}"
        );
        let name = "p.yaml".to_owned();
        let set = compile(&[Source { name, text }]).unwrap();
        for (method, expected) in [
            (
                "resources/read",
                &["d0", "dry", "dry-when", "asks", "asks-later", "watched"][..],
            ),
            ("resources/subscribe", &["d0"]),
            ("completion/complete", &[]),
            ("tools/call", &[]),
        ] {
            let mut found = Vec::new();
            for slots in set.index().rules.slots(0) {
                slots.restricting(&[], method, |id| {
                    found.push(set.rules()[position(id)].id.to_string());
                });
            }
            assert_eq!(found, expected, "{method}");
        }
    }

    #[test]
    fn patterns_of_uris_are_found_in_all_their_forms() {
        let rules = "  - { id: written, methods: ['resources/*'], tools: ['FILE:/etc/*', 'https://X.example/%61'], effect: deny }
  - { id: allows, methods: ['resources/*'], tools: ['FILE:/*'], effect: allow }
  - { id: prompts, methods: [prompts/get], tools: ['FILE:/etc/*'], effect: deny }
";
        assert_eq!(looked_at(rules, "file:///etc/x"), ["written"]);
        assert_eq!(looked_at(rules, "https://x.example/a"), ["written"]);
        let mut all = looked_at(rules, "FILE:/etc/x");
        all.sort_unstable();
        assert_eq!(all, ["allows", "prompts", "written"]);
    }

    #[test]
    fn who_is_named_by_the_same_rules_shares_what_is_kept_of_them() {
        let text = "version: 1
servers: { s: { launch: { command: x } }, t: { launch: { command: x } } }
identities: { ann: { user: ann }, bob: { user: bob }, eve: { user: eve } }
roles: { all: { members: [ann, bob, eve], grants: [{ servers: [s, t], tools: ['get_*'] }] } }
rules: [{ id: not, who: [eve], servers: [t], tools: [get_a], effect: deny }]
";
        let (name, text) = ("p.yaml".to_owned(), text.to_owned());
        let set = compile(&[Source { name, text }]).unwrap();
        let rules = &set.index().rules;
        let of = |server: usize, caller: Id| Arc::as_ptr(&rules.by_server[server].0[&caller]);
        let first = of(0, 0);
        for (server, caller) in [(0, 1), (0, 2), (1, 0), (1, 1)] {
            assert_eq!(of(server, caller), first);
        }
        assert_ne!(of(1, 2), first);
    }

    proptest! {
        #[test]
        fn a_text_is_found_by_its_beginnings_alone(
            literals in vec("[abü]{0,4}", 0..24),
            name in "[abü]{0,6}",
        ) {
            let mut tree = Literals::default();
            for (id, literal) in (0..).zip(&literals) {
                tree.insert(literal.as_bytes(), id);
            }
            let mut found = Vec::new();
            tree.walk(name.bytes(), &mut |id| found.push(id));
            found.sort_unstable();
            let begins = |literal: &str| name.starts_with(literal);
            let ids = (0..).zip(&literals);
            let expected: Vec<Id> = ids.filter(|(_, it)| begins(it)).map(|(id, _)| id).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
