//! Rules that no request can match, limits that count nothing, and hosts whose entries contradict their servers' URLs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{called, fault};
use crate::fault::{Fault, Place};
use crate::glob::Glob;
use crate::index::reached;
use crate::load::Draft;
use crate::methods::{Governance, TOOLS_CALL, governance};
use crate::model::{Effect, EgressRule, Host, Protocol, Rule, Selector, Server, Tls, Wire};
use crate::name::HostPattern;

pub(super) fn check(draft: &Draft, faults: &mut Vec<Fault>) {
    let hosts: BTreeMap<&str, &Host> = draft.hosts.iter().map(|host| (&*host.name, host)).collect();
    for rule in &draft.rules {
        if let Some(why) = never(rule, &hosts) {
            faults.push(fault(
                &rule.place,
                format!("{} can never match: {why}", called(rule)),
                None,
            ));
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
        let whose = format!("host `{}`", host.name);
        check_ranges((&whose, &host.place), &host.egress, &draft.servers, faults);
    }
    for server in &draft.servers {
        let whose = format!("server `{}`", server.name);
        check_ranges(
            (&whose, &server.place),
            &server.egress,
            &draft.servers,
            faults,
        );
    }
}

/// What is sent to a registered server is read and decided on, whoever sends it: a network whose bytes pass unread
/// contradicts that where a server is known to be at one of its addresses.
fn check_ranges(
    (whose, place): (&str, &Place),
    egress: &[EgressRule],
    servers: &[Server],
    faults: &mut Vec<Fault>,
) {
    for rule in egress {
        let EgressRule::Range(rule) = rule else {
            continue;
        };
        if rule.protocol != Protocol::Tcp {
            continue;
        }
        for server in servers {
            let Some(reached) = reached(server).filter(|at| rule.ports.contains(&at.port)) else {
                continue;
            };
            let mut addresses = reached.addresses.iter();
            let Some(address) = addresses.find(|address| rule.net.contains(**address)) else {
                continue;
            };
            let message = format!(
                "an egress entry of {whose} passes on unread what is sent to {}, port {}, and server `{}` is reached at {address}, \
                 whose messages are decided on",
                rule.net, reached.port, server.name,
            );
            let hint = format!(
                "leave out port {}, or write narrower networks",
                reached.port
            );
            faults.push(fault(place, message, Some(hint)));
        }
    }
}

/// Why no request can match the rule, if none can.
fn never(rule: &Rule, hosts: &BTreeMap<&str, &Host>) -> Option<String> {
    let methods = rule.methods.as_deref();
    if let Some(why) = methods.and_then(|methods| apart(methods, &rule.tools)) {
        return Some(why);
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
        .then(|| format!("{} list none of its servers", joined(&rule.who)))
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
