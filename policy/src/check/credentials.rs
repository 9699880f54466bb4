//! Credentials that could be sent nowhere, or elsewhere than their own hosts.

use std::collections::BTreeMap;

use super::fault;
use crate::fault::{Fault, Place};
use crate::index::reached;
use crate::load::Draft;
use crate::model::{Credential, EgressRule, HostRule, Server, Tls, Transport, Wire};
use crate::name::{HostPattern, Name};

pub(super) fn check(draft: &Draft, faults: &mut Vec<Fault>) {
    let known: BTreeMap<&str, &Credential> = draft
        .credentials
        .iter()
        .map(|credential| (&*credential.name, credential))
        .collect();
    for server in &draft.servers {
        check_hosts(&server.egress, &known, &server.place, faults);
        check_tools(server, &known, faults);
        check_messages(server, &known, faults);
    }
    for host in &draft.hosts {
        check_hosts(&host.egress, &known, &host.place, faults);
        let listed = draft
            .servers
            .iter()
            .filter(|server| host.servers.contains(&server.name));
        for server in listed {
            for rule in credentialed(&host.egress) {
                if is_there(rule, server) {
                    let message = format!(
                        "the egress entry for `{}` of host `{}` has a credential, and server `{}` is reached there: \
                         what is put into messages to it, its `authorization` says",
                        rule.host, host.name, server.name
                    );
                    faults.push(fault(&host.place, message, None));
                }
            }
        }
    }
}

fn credentialed(egress: &[EgressRule]) -> impl Iterator<Item = &HostRule> {
    let rules = egress.iter().filter_map(EgressRule::host);
    rules.filter(|rule| rule.credential.is_some())
}

/// Whether the entry speaks of where the server is reached.
fn is_there(rule: &HostRule, server: &Server) -> bool {
    reached(server).is_some_and(|reached| {
        let named = |name: &Name| rule.host.matches(name);
        rule.ports.contains(&reached.port) && reached.names.iter().any(named)
    })
}

fn check_hosts(
    egress: &[EgressRule],
    known: &BTreeMap<&str, &Credential>,
    place: &Place,
    faults: &mut Vec<Fault>,
) {
    for rule in credentialed(egress) {
        let credential = rule.credential.as_deref().and_then(|name| known.get(name));
        let Some(credential) = credential.filter(|credential| !credential.hosts.is_empty()) else {
            continue;
        };
        if !credential.hosts.iter().any(|own| covers(own, &rule.host)) {
            let message = format!(
                "credential `{}` is not for `{}`: its `hosts` do not name it",
                credential.name, rule.host
            );
            faults.push(fault(place, message, None));
        }
    }
}

/// What is put into messages to the server goes over TLS or nowhere, and stands where MCP has nothing.
fn check_messages(server: &Server, known: &BTreeMap<&str, &Credential>, faults: &mut Vec<Fault>) {
    let credential = server.authorization.credential();
    let credential = credential.and_then(|name| known.get(&**name));
    let (Some(credential), Some(reached)) = (credential, reached(server)) else {
        return;
    };
    let (name, own) = (&credential.name, &server.name);
    let (endpoint, tls) = match &server.transport {
        Transport::Launch(_) => return,
        Transport::Url(url) => (&url.endpoint, url.tls),
        Transport::Listen(endpoint) => (endpoint, false),
    };
    // Also on loopback: while the server is down, any user of the machine can listen in its place.
    if !tls {
        let message = format!(
            "server `{own}` has the credential `{name}` and is reached in clear text, where it would go to whoever has the port: none is sent there"
        );
        let hint = "say `url: https://…`, or `authorization: strip` and give the secret to the server itself";
        faults.push(fault(&server.place, message, Some(hint.to_owned())));
    }
    let named = |host: &Name| credential.hosts.iter().any(|own| own.matches(host));
    if !credential.hosts.is_empty() && !reached.names.iter().any(named) {
        let host = reached.names.first().map(ToString::to_string);
        let message = format!(
            "credential `{name}` is not for `{}`: its `hosts` do not name it",
            host.unwrap_or_else(|| endpoint.to_string())
        );
        faults.push(fault(&server.place, message, None));
    }
    if let Some(header) = credential.placement.header().filter(|name| is_of_mcp(name)) {
        let message = format!(
            "server `{own}` has the credential `{name}`, whose header `{header}` is that of the messages themselves"
        );
        faults.push(fault(&server.place, message, None));
    }
}

/// Whether a header (in lower case) means something in MCP over HTTP, as many receivers read it.
fn is_of_mcp(header: &str) -> bool {
    let plain = header.replace('_', "-");
    plain.starts_with("mcp-") || matches!(&*plain, "accept" | "last-event-id")
}

/// A tool's credential goes where its own `hosts` say, since no entry says so.
fn check_tools(server: &Server, known: &BTreeMap<&str, &Credential>, faults: &mut Vec<Fault>) {
    for (pattern, tool) in &server.tools {
        let credential = tool.credential.as_deref().and_then(|name| known.get(name));
        let Some(credential) = credential else {
            continue;
        };
        let carries = |rule: &HostRule| rule.wire == Wire::Http && rule.tls == Tls::Intercept;
        let meets = |rule: &HostRule| {
            let mut own = credential.hosts.iter();
            own.any(|own| covers(own, &rule.host) || covers(&rule.host, own))
        };
        let mut rules = server.egress.iter().filter_map(EgressRule::host);
        let (shown, name) = (pattern.as_str(), &credential.name);
        let message = if credential.hosts.is_empty() {
            format!(
                "tool `{shown}` has the credential `{name}`, which does not say its `hosts`: a tool's is sent to those alone"
            )
        } else if !rules.any(|rule| carries(rule) && meets(rule)) {
            format!(
                "tool `{shown}` has the credential `{name}`, and no egress entry of server `{}` for decoded https names one of its `hosts`",
                server.name
            )
        } else {
            continue;
        };
        faults.push(fault(&server.place, message, None));
    }
}

/// Whether every name that `narrow` means is one that `wide` means.
fn covers(wide: &HostPattern, narrow: &HostPattern) -> bool {
    match (wide, narrow) {
        (_, HostPattern::Exact(name)) => wide.matches(name),
        (HostPattern::Below(wide), HostPattern::Below(narrow)) => {
            narrow == wide || narrow.is_below(wide)
        }
        (HostPattern::Exact(_), HostPattern::Below(_)) => false,
    }
}
