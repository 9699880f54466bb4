//! Egress lists against a naive reading of them: every entry is tried for every question.

use exeat_policy::{Action, Effect, Protocol, Request, Target, evaluate, explain, ports_for};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::support::{NOW, connect, name, server, shown, source};

#[derive(Debug, Clone)]
struct Entry {
    host: &'static str,
    ports: Vec<u16>,
    methods: Vec<&'static str>,
    paths: Vec<&'static str>,
    tls: &'static str,
    upgrade: bool,
}

const HOSTS: [&str; 5] = [
    "a.example.com",
    "b.a.example.com",
    "example.com",
    "xexample.com",
    "a.example.org",
];

fn entry() -> impl Strategy<Value = Entry> {
    (
        select(vec![
            "a.example.com",
            "*.example.com",
            "*.a.example.com",
            "b.a.example.com",
            "*.example.org",
        ]),
        subsequence(vec![80, 443, 8443], 1..=2),
        subsequence(vec!["GET", "POST", "TRACE"], 0..=2),
        subsequence(vec!["/x/**", "/x/y", "/*"], 0..=2),
        select(vec![
            "intercept",
            "intercept",
            "intercept",
            "off",
            "passthrough",
        ]),
        any::<bool>(),
    )
        .prop_map(|(host, ports, methods, paths, tls, upgrade)| {
            let read = tls != "passthrough";
            Entry {
                host,
                ports,
                methods: if read { methods } else { Vec::new() },
                paths: if read { paths } else { Vec::new() },
                tls,
                upgrade: upgrade && read,
            }
        })
}

impl Entry {
    fn text(&self) -> String {
        let mut out = format!(
            "      - {{ host: \"{}\", ports: {:?}, tls: {}",
            self.host, self.ports, self.tls
        );
        if !self.methods.is_empty() {
            out.push_str(&format!(", methods: {:?}", self.methods));
        }
        if !self.paths.is_empty() {
            out.push_str(&format!(", paths: {:?}", self.paths));
        }
        if self.upgrade {
            out.push_str(", upgrade: true");
        }
        out + " }\n"
    }

    fn names(&self, host: &str) -> bool {
        match self.host.strip_prefix('*') {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => self.host == host,
        }
    }
}

fn path_matches(pattern: &str, path: &str) -> bool {
    match pattern {
        "/x/**" => path == "/x" || path.starts_with("/x/"),
        "/*" => !path[1..].contains('/'),
        _ => pattern == path,
    }
}

/// Entries for one host and port that differ on tls are a fault, so the first of them stays.
fn agreeing(entries: Vec<Entry>) -> Vec<Entry> {
    let mut kept: Vec<Entry> = Vec::new();
    for entry in entries {
        let clash = kept.iter().any(|other| {
            let port = other.ports.iter().any(|port| entry.ports.contains(port));
            other.host == entry.host && port && other.tls != entry.tls
        });
        if !clash {
            kept.push(entry);
        }
    }
    kept
}

fn allows(entries: &[Entry], host: &str, action: Action<'_>) -> bool {
    let Action::Http {
        port,
        method,
        path,
        tls,
        upgrade,
        ..
    } = action
    else {
        return false;
    };
    let mut here: Vec<&Entry> = entries
        .iter()
        .filter(|entry| entry.names(host) && entry.ports.contains(&port))
        .collect();
    // The most specific first: no star, then the longest; stable for equal ones.
    here.sort_by_key(|entry| {
        (
            entry.host.starts_with('*'),
            std::cmp::Reverse(entry.host.len()),
        )
    });
    let Some(first) = here.first() else {
        return false;
    };
    let agreed = match first.tls {
        "intercept" => tls,
        "off" => !tls,
        _ => false,
    };
    agreed
        && here.iter().any(|entry| {
            let method_allowed = if entry.methods.is_empty() {
                !["CONNECT", "TRACE"].contains(&method)
            } else {
                entry.methods.contains(&method)
            };
            entry.tls == first.tls
                && method_allowed
                && (entry.paths.is_empty()
                    || entry
                        .paths
                        .iter()
                        .any(|pattern| path_matches(pattern, path)))
                && (!upgrade || entry.upgrade)
        })
}

proptest! {
    #[test]
    fn egress_lists_mean_what_they_say(
        entries in prop::collection::vec(entry(), 0..6).prop_map(agreeing),
        host in select(HOSTS.to_vec()),
        port in select(vec![80_u16, 443, 8443, 22]),
        method in select(vec!["GET", "POST", "CONNECT", "TRACE", "PUT"]),
        path in select(vec!["/", "/x", "/x/y", "/x/y/z", "/z"]),
        tls: bool,
        upgrade: bool,
    ) {
        let list: String = entries.iter().map(Entry::text).collect();
        let list = if list.is_empty() { "      []\n".to_owned() } else { list };
        let text = format!("version: 1\nservers:\n  s:\n    launch: {{ command: x }}\n    egress:\n{list}");
        let set = exeat_policy::compile(&[source("p.yaml", &text)]).map_err(|faults| TestCaseError::fail(shown(&faults)))?;
        let named = name(host);
        let ask = |action| evaluate(&set, &Request { caller: server("s"), action, now: NOW, counts: &[] });
        let reached = entries.iter().any(|entry| entry.names(host) && entry.ports.contains(&port));
        prop_assert_eq!(ask(connect(&named, port)).effect == Effect::Allow, reached, "{}", text);
        let datagram = Action::Connect { target: Target::Name(&named), port, protocol: Protocol::Udp };
        prop_assert_eq!(ask(datagram).effect, Effect::Deny);
        let known = entries.iter().any(|entry| entry.names(host));
        prop_assert_eq!(ask(Action::Resolve { name: &named }).effect == Effect::Allow, known);
        prop_assert_eq!(ports_for(&set, server("s"), &named).iter().any(|binding| binding.port == port), reached);
        let action = Action::Http { target: Target::Name(&named), port, method, path, tls, upgrade, calls: &[] };
        let expected = allows(&entries, host, action);
        let verdict = ask(action);
        prop_assert_eq!(verdict.effect == Effect::Allow, expected, "{:?}\n{}", action, text);
        let request = Request { caller: server("s"), action, now: NOW, counts: &[] };
        prop_assert_eq!(explain(&set, &request).verdict, verdict);
    }
}
