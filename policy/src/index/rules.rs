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

    /// Shows each rule that may be about this name and these callers; some more than once.
    pub(crate) fn candidates(&self, callers: &[Id], name: &str, mut show: impl FnMut(Id)) {
        for slot in self.of(callers) {
            for id in slot.exact.get(name).into_iter().flatten() {
                show(*id);
            }
            slot.prefixes.walk(name, &mut show);
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
    exact: Map<Box<str>, Vec<Id>>,
    prefixes: Prefixes,
    reach: Reach,
}

impl Slot {
    fn insert(&mut self, id: Id, rule: &Rule) {
        // A rule that asks for approvals is often about everyone, and is not meant to let everyone in.
        if rule.effect == Effect::Allow && rule.mode == Mode::Enforce {
            self.reach.add(rule.expires);
        }
        let Some(globs) = rule.tools.names() else {
            return self.prefixes.insert("", id);
        };
        for glob in globs {
            match glob.literal() {
                Some(name) => self.exact.entry(name.into()).or_default().push(id),
                None => self.prefixes.insert(glob.prefix(), id),
            }
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

/// A tree of bytes: rules by the literal text that their patterns begin with.
#[derive(Debug, Default)]
struct Prefixes {
    here: Vec<Id>,
    below: Vec<(u8, Prefixes)>,
}

impl Prefixes {
    fn insert(&mut self, prefix: &str, id: Id) {
        let mut node = self;
        for byte in prefix.bytes() {
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

    fn walk(&self, name: &str, show: &mut impl FnMut(Id)) {
        let mut node = self;
        node.here.iter().for_each(|id| show(*id));
        for byte in name.bytes() {
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
