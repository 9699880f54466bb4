//! Names given twice, names used and nowhere given, processes claimed twice.

use std::collections::{BTreeMap, BTreeSet};

use super::fault;
use crate::fault::Fault;
use crate::load::{Draft, Kind, Mention};
use crate::model::Matcher;
use crate::yaml::closest;

pub(super) fn check(draft: &Draft, faults: &mut Vec<Fault>) {
    let mut defined: BTreeMap<(Kind, &str), &Mention> = BTreeMap::new();
    for mention in &draft.defined {
        if let Some(first) = defined.get(&(space(mention.kind), &*mention.name)) {
            let message = format!(
                "{} `{}` is already given at {}",
                word(mention.kind),
                mention.name,
                first.place
            );
            faults.push(fault(&mention.place, message, None));
            continue;
        }
        defined.insert((space(mention.kind), &mention.name), mention);
    }
    for mention in &draft.used {
        let kind = space(mention.kind);
        let shown = mention.name.escape_debug();
        match defined.get(&(kind, &*mention.name)) {
            Some(found) if mention.kind == Kind::Member && found.kind == Kind::Role => {
                let message = format!("`{shown}` is a role: members are identities and hosts");
                faults.push(fault(&mention.place, message, None));
            }
            Some(_) => {}
            None => {
                let names = defined
                    .keys()
                    .filter(|(other, _)| *other == kind)
                    .map(|(_, name)| *name);
                let hint =
                    closest(&mention.name, names).map(|meant| format!("did you mean `{meant}`?"));
                let message = format!("unknown {} `{shown}`", word(mention.kind));
                faults.push(fault(&mention.place, message, hint));
            }
        }
    }
    check_roles(draft, faults);
    check_matchers(draft, faults);
}

/// A rule's `who` names hosts, identities and roles alike, so they share their names.
const fn space(kind: Kind) -> Kind {
    match kind {
        Kind::Host | Kind::Identity | Kind::Role | Kind::Who | Kind::Member => Kind::Who,
        Kind::Server | Kind::Credential | Kind::Rule | Kind::Setting => kind,
    }
}

/// A role that grants nothing and that no rule names.
fn check_roles(draft: &Draft, faults: &mut Vec<Fault>) {
    let named: BTreeSet<&str> = draft
        .used
        .iter()
        .filter(|mention| mention.kind == Kind::Who)
        .map(|mention| &*mention.name)
        .collect();
    for role in &draft.roles {
        if role.grants.is_empty() && !named.contains(&*role.name) {
            let message = format!("role `{}` grants nothing, and no rule names it", role.name);
            faults.push(fault(&role.place, message, None));
        }
    }
}

/// Two entries that claim exactly the same processes: which policy would hold for them?
fn check_matchers(draft: &Draft, faults: &mut Vec<Fault>) {
    let servers = draft
        .servers
        .iter()
        .map(|server| (&server.matcher, &server.name, &server.place));
    let hosts = draft
        .hosts
        .iter()
        .map(|host| (&host.matcher, &host.name, &host.place));
    let mut seen: BTreeMap<&Matcher, &str> = BTreeMap::new();
    for (matcher, name, place) in servers.chain(hosts) {
        let Some(matcher) = matcher else { continue };
        if let Some(first) = seen.get(matcher) {
            let message = format!("`{name}` matches exactly the processes that `{first}` does");
            faults.push(fault(place, message, None));
        } else {
            seen.insert(matcher, name);
        }
    }
}

const fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Server => "server",
        Kind::Host => "host",
        Kind::Credential => "credential",
        Kind::Identity => "identity",
        Kind::Role => "role",
        Kind::Rule => "rule",
        Kind::Setting => "setting",
        Kind::Who => "identity, host or role",
        Kind::Member => "identity or host",
    }
}
