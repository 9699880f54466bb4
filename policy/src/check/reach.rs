//! Rules that no request can match, limits that count nothing, and hosts whose entries contradict their servers' URLs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{called, fault};
use crate::fault::{Fault, Place};
use crate::glob::Glob;
use crate::index::{Reached, reached};
use crate::load::Draft;
use crate::methods::{Governance, TOOLS_CALL, WITH_ARGUMENTS, governance, may_have_arguments};
use crate::model::{
    ArgumentTest, Effect, EgressRule, Host, Protocol, Rule, Selector, Server, Test, Tls, Wire,
};
use crate::name::HostPattern;

pub(super) fn check(draft: &Draft, faults: &mut Vec<Fault>) {
    let hosts: BTreeMap<&str, &Host> = draft.hosts.iter().map(|host| (&*host.name, host)).collect();
    for rule in &draft.rules {
        if let Some((why, hint)) = never(rule, &hosts) {
            let message = format!("{} can never match: {why}", called(rule));
            faults.push(fault(&rule.place, message, hint));
        }
    }
    for limit in &draft.limits {
        let methods = limit.methods.as_deref();
        if let Some(why) = methods.and_then(|methods| apart(methods, &limit.tools)) {
            let message = format!("the limit can never count: {why}");
            faults.push(fault(&limit.place, message, None));
        }
    }
    let servers: BTreeMap<&str, &Server> = draft
        .servers
        .iter()
        .map(|server| (&*server.name, server))
        .collect();
    for host in &draft.hosts {
        check_host(host, &servers, faults);
        let whose = (format!("host `{}`", host.name), &host.place);
        check_unread(
            &whose,
            (&host.egress, &host.servers),
            &draft.servers,
            faults,
        );
    }
    for server in &draft.servers {
        let whose = (format!("server `{}`", server.name), &server.place);
        check_unread(&whose, (&server.egress, &[]), &draft.servers, faults);
    }
}

/// What is sent to a registered server is read and decided on, whoever sends it: an entry whose bytes pass unread
/// contradicts that where a server is known to be at one of its addresses or names.
fn check_unread(
    (whose, place): &(String, &Place),
    (egress, listed): (&[EgressRule], &[Arc<str>]),
    servers: &[Server],
    faults: &mut Vec<Fault>,
) {
    let own = servers.iter().filter(|one| listed.contains(&one.name));
    let own: Vec<Reached> = own.filter_map(reached).collect();
    for rule in egress {
        for server in servers {
            let Some(reached) = reached(server) else {
                continue;
            };
            let Some((entry, at)) = unread(rule, &reached, &own) else {
                continue;
            };
            let message = format!(
                "an egress entry of {whose} passes on unread what is sent to {entry}, port {}, and server `{}` is reached at {at}, \
                 whose messages are decided on",
                reached.port, server.name,
            );
            let narrower = match rule {
                EgressRule::Range(_) => "narrower networks",
                EgressRule::Host(_) => "names that are not the server's",
            };
            let hint = format!("leave out port {}, or write {narrower}", reached.port);
            faults.push(fault(place, message, Some(hint)));
        }
    }
}

/// What the entry is about and where the server is, if its messages would pass by unread; `own` are the servers that a
/// host lists.
fn unread(rule: &EgressRule, reached: &Reached, own: &[Reached]) -> Option<(String, String)> {
    match rule {
        EgressRule::Range(rule) => {
            let mut addresses = reached.addresses.iter();
            let address = addresses.find(|address| rule.net.contains(**address))?;
            let is_unread = rule.protocol == Protocol::Tcp && rule.ports.contains(&reached.port);
            is_unread.then(|| (rule.net.to_string(), address.to_string()))
        }
        EgressRule::Host(rule) => {
            let name = reached.names.iter().find(|name| rule.host.matches(name))?;
            let passes = rule.wire == Wire::Tcp || rule.tls == Tls::Passthrough;
            // A listed server's own name counts before a wildcard; an entry of that name is checked with the host.
            let is_own = |own: &Reached| own.port == reached.port && own.names.contains(name);
            let is_unread = passes && rule.ports.contains(&reached.port) && !own.iter().any(is_own);
            is_unread.then(|| (rule.host.to_string(), name.to_string()))
        }
    }
}

/// Why no request can match the rule, if none can, and what to write instead.
fn never(rule: &Rule, hosts: &BTreeMap<&str, &Host>) -> Option<(String, Option<String>)> {
    let methods = rule.methods.as_deref();
    if let Some(why) = methods.and_then(|methods| apart(methods, &rule.tools)) {
        return Some((why, None));
    }
    let untested = without_arguments(rule);
    if !untested.is_empty() && methods.is_some_and(|all| all.len() == untested.len()) {
        let why = format!("`args` asks for arguments, and {}", have_arguments());
        let hint = "leave out `args` to be about all of these messages, or name resources by their URIs, as `tools: ['file:///secrets/*']`";
        return Some((why, Some(hint.to_owned())));
    }
    // A host reaches no server outside its list, whatever the rules say.
    let listed = |name: &Arc<str>, server: &Arc<str>| {
        hosts
            .get(&**name)
            .is_none_or(|host| host.servers.contains(server))
    };
    let reachable = rule
        .who
        .iter()
        .any(|name| rule.servers.iter().any(|server| listed(name, server)));
    (!rule.who.is_empty() && !rule.servers.is_empty() && !reachable && rule.effect != Effect::Deny)
        .then(|| {
            (
                format!("{} list none of its servers", joined(&rule.who)),
                None,
            )
        })
}

/// The patterns of methods for which the rule can never match, since it asks for an argument and theirs have none. What
/// is only not to be there is not there.
fn without_arguments(rule: &Rule) -> Vec<&Glob> {
    let asks = |test: &ArgumentTest| !matches!(*test.tests, [Test::Absent(true)]);
    let methods = rule.methods.as_deref().unwrap_or_default().iter();
    methods
        .filter(|glob| rule.args.iter().any(asks) && !may_have_arguments(glob))
        .collect()
}

fn have_arguments() -> String {
    let names = WITH_ARGUMENTS.map(|method| format!("`{method}`"));
    format!("only messages of {} have any", names.join(", "))
}

/// What of a rule that matches some messages matches none, though it is written as if it did.
pub(crate) fn in_part(rule: &Rule) -> Option<String> {
    let methods = without_arguments(rule);
    let methods: Vec<_> = methods.iter().map(|glob| format!("`{glob}`")).collect();
    (!methods.is_empty()).then(|| {
        format!(
            "{} never matches {}: `args` asks for arguments, and {}; write a rule without `args` for the others",
            called(rule),
            methods.join(", "),
            have_arguments(),
        )
    })
}

/// Why no message of these methods is about any of these tools, if none is.
fn apart(methods: &[Glob], tools: &Selector) -> Option<String> {
    if tools.classes().is_some() && !methods.iter().any(|glob| glob.matches(TOOLS_CALL)) {
        return Some(format!("only `{TOOLS_CALL}` has classes"));
    }
    let names = tools.names()?;
    let nameless =
        |method: &str| matches!(governance(method), Some(how) if how != Governance::Named);
    let none = methods
        .iter()
        .all(|glob| glob.literal().is_some_and(nameless));
    (none && !names.iter().any(|glob| glob.matches("")))
        .then(|| "none of its methods names a tool, prompt or resource".to_owned())
}

fn joined(names: &[Arc<str>]) -> String {
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// A registered server's URL is read and decided on; an entry of the host that would pass the same
/// connection on unread contradicts that.
fn check_host(host: &Host, servers: &BTreeMap<&str, &Server>, faults: &mut Vec<Fault>) {
    let listed = host
        .servers
        .iter()
        .filter_map(|name| servers.get(&**name).copied());
    let mut seen: Vec<(HostPattern, u16, Tls, Arc<str>)> = Vec::new();
    for server in listed {
        let Some(reached) = reached(server) else {
            continue;
        };
        for name in &reached.names {
            let pattern = HostPattern::Exact(name.clone());
            let same = |other: &&(HostPattern, u16, Tls, Arc<str>)| {
                other.0 == pattern && other.1 == reached.port
            };
            if let Some((.., tls, other)) = seen.iter().find(same) {
                if *tls != reached.tls {
                    let message = format!(
                        "servers `{other}` and `{}` of host `{}` share {name}:{} and differ on tls",
                        server.name, host.name, reached.port,
                    );
                    faults.push(fault(&host.place, message, None));
                }
                continue;
            }
            seen.push((pattern, reached.port, reached.tls, Arc::clone(&server.name)));
        }
    }
    for rule in host.egress.iter().filter_map(|rule| rule.host()) {
        for (pattern, port, tls, server) in &seen {
            let same = rule.host == *pattern && rule.ports.contains(port);
            if same && (rule.tls != *tls || rule.wire != Wire::Http) {
                let message = format!(
                    "an egress entry of host `{}` for {pattern}:{port} treats it otherwise than server `{server}`, which is reached there",
                    host.name,
                );
                faults.push(fault(&host.place, message, None));
            }
        }
    }
}
