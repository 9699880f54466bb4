//! Names given twice, names used and nowhere given, processes claimed twice.

use std::collections::BTreeMap;

use super::fault;
use crate::fault::{Fault, Place};
use crate::load::{Draft, Kind};
use crate::model::Matcher;
use crate::yaml::closest;

pub(super) fn check(draft: &Draft, faults: &mut Vec<Fault>) {
    let mut defined: BTreeMap<(Kind, &str), &Place> = BTreeMap::new();
    for mention in &draft.defined {
        // A rule's `who` names hosts and identities alike, so they share their names.
        let kind = if mention.kind == Kind::Host {
            Kind::Identity
        } else {
            mention.kind
        };
        if let Some(first) = defined.get(&(kind, &*mention.name)) {
            let message = format!(
                "{} `{}` is already given at {first}",
                word(mention.kind),
                mention.name
            );
            faults.push(fault(&mention.place, message, None));
            continue;
        }
        defined.insert((kind, &mention.name), &mention.place);
    }
    for mention in &draft.used {
        let kind = if mention.kind == Kind::Who {
            Kind::Identity
        } else {
            mention.kind
        };
        if !defined.contains_key(&(kind, &*mention.name)) {
            let names = defined
                .keys()
                .filter(|(other, _)| *other == kind)
                .map(|(_, name)| *name);
            let hint =
                closest(&mention.name, names).map(|meant| format!("did you mean `{meant}`?"));
            let message = format!(
                "unknown {} `{}`",
                word(mention.kind),
                mention.name.escape_debug()
            );
            faults.push(fault(&mention.place, message, hint));
        }
    }
    check_matchers(draft, faults);
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
        Kind::Identity => "identity",
        Kind::Rule => "rule",
        Kind::Setting => "setting",
        Kind::Who => "identity or host",
    }
}
