//! Names, connections and what the kernel is told.

use exeat_policy::{
    Action, Caller, Origin, Protocol, Target, Tls, Wire, Workload, ports_for, ranges,
};

use super::BASE;
use crate::support::{ask, connect, host, name, policy, said, server, user};

#[test]
fn the_network() {
    let set = policy(BASE);
    let [github, raw, apex, evil] = [
        "api.github.com",
        "raw.githubusercontent.com",
        "githubusercontent.com",
        "evilgithubusercontent.com",
    ]
    .map(name);
    let [wiki, plain, pinned, db, packages, linear] = [
        "wiki.corp.example",
        "plain.example.com",
        "pinned.example.com",
        "db.example.com",
        "packages.example.com",
        "mcp.linear.app",
    ]
    .map(name);
    let at = |address: &str, port, protocol| Action::Connect {
        target: Target::Address(address.parse().unwrap()),
        port,
        protocol,
    };
    let fetching = Caller {
        fetching: true,
        ..server("github")
    };
    let table = [
        (
            server("github"),
            connect(&github, 443),
            "allow: the egress list allows it",
        ),
        (
            server("github"),
            connect(&github, 80),
            "deny: the port is not allowed",
        ),
        (
            server("github"),
            connect(&raw, 443),
            "allow: the egress list allows it",
        ),
        (
            server("github"),
            connect(&apex, 443),
            "deny: the host is not allowed",
        ),
        (
            server("github"),
            connect(&evil, 443),
            "deny: the host is not allowed",
        ),
        (
            server("github"),
            connect(&plain, 80),
            "allow: the egress list allows it",
        ),
        (
            server("github"),
            connect(&plain, 443),
            "deny: the port is not allowed",
        ),
        (
            server("github"),
            connect(&db, 5432),
            "allow: the egress list allows it",
        ),
        (
            server("github"),
            connect(&packages, 443),
            "deny: the host is not allowed",
        ),
        (
            fetching,
            connect(&packages, 443),
            "allow: the egress list allows it",
        ),
        (
            server("github"),
            at("10.20.1.2", 5432, Protocol::Tcp),
            "allow: the egress list allows it",
        ),
        (
            server("github"),
            at("::ffff:10.20.1.2", 5432, Protocol::Tcp),
            "allow: the egress list allows it",
        ),
        (
            server("github"),
            at("10.20.1.2", 5432, Protocol::Udp),
            "deny: the protocol is not allowed",
        ),
        (
            server("github"),
            at("10.20.1.2", 22, Protocol::Tcp),
            "deny: the port is not allowed",
        ),
        (
            server("github"),
            at("10.21.1.2", 5432, Protocol::Tcp),
            "deny: the address is not allowed",
        ),
        (
            server("github"),
            at("2001:db8::1", 123, Protocol::Udp),
            "allow: the egress list allows it",
        ),
        (
            server("github"),
            at("127.0.0.1", 3002, Protocol::Tcp),
            "deny: the address is not allowed",
        ),
        (
            host("claude"),
            at("127.0.0.1", 3002, Protocol::Tcp),
            "allow: the egress list allows it",
        ),
        (
            host("claude"),
            at("::1", 3001, Protocol::Tcp),
            "allow: the egress list allows it",
        ),
        (
            host("claude"),
            connect(&linear, 443),
            "allow: the egress list allows it",
        ),
        (
            host("claude"),
            connect(&github, 443),
            "deny: the host is not allowed",
        ),
        (
            server("linear"),
            connect(&github, 443),
            "deny: the host is not allowed",
        ),
        (
            server("nobody"),
            connect(&github, 443),
            "deny: no managed workload",
        ),
        (
            user("dave"),
            connect(&github, 443),
            "deny: the host is not allowed",
        ),
        (
            server("github"),
            Action::Resolve { name: &raw },
            "allow: the egress list allows it",
        ),
        (
            server("github"),
            Action::Resolve { name: &evil },
            "deny: the host is not allowed",
        ),
    ];
    for (caller, action, expected) in table {
        assert_eq!(
            said(&ask(&set, caller, action)),
            expected,
            "{caller:?} {action:?}"
        );
    }
    let egress = |caller, action| ask(&set, caller, action).egress.unwrap();
    assert!(egress(server("github"), connect(&wiki, 443)).private);
    assert!(!egress(server("github"), connect(&github, 443)).private);
    assert_eq!(
        egress(server("github"), connect(&pinned, 443)).tls,
        Tls::Passthrough
    );
    assert!(egress(server("github"), Action::Resolve { name: &db }).synthetic);
    assert_eq!(
        egress(fetching, connect(&packages, 443)).origin,
        Origin::Fetch(0)
    );
    assert_eq!(
        egress(host("claude"), connect(&linear, 443))
            .server
            .as_deref(),
        Some("linear")
    );
}

#[test]
fn bindings_and_ranges_for_the_kernel() {
    let set = policy(BASE);
    let ports = |caller, host: &str| {
        ports_for(&set, caller, &name(host))
            .into_iter()
            .map(|binding| binding.port)
            .collect::<Vec<_>>()
    };
    assert_eq!(ports(server("github"), "api.github.com"), [443]);
    assert_eq!(ports(server("github"), "db.example.com"), [5432]);
    assert_eq!(ports(server("github"), "evil.example"), [0_u16; 0]);
    assert_eq!(ports(server("github"), "packages.example.com"), [0_u16; 0]);
    assert_eq!(
        ports(
            Caller {
                fetching: true,
                ..server("github")
            },
            "packages.example.com"
        ),
        [443]
    );
    assert_eq!(ports(host("claude"), "localhost"), [3001, 3002]);
    let shown = |workload| {
        ranges(&set, workload)
            .into_iter()
            .map(|range| {
                format!(
                    "{} {:?} {} {:?}",
                    range.net, range.ports, range.protocol, range.egress.server
                )
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        shown(Workload::Server("github")),
        [
            "10.20.0.0/16 [5432] tcp None",
            "2001:db8::/32 [123] udp None"
        ]
    );
    assert_eq!(
        shown(Workload::Host("claude")),
        [
            "127.0.0.1/32 [3001] tcp Some(\"notes\")",
            "::1/128 [3001] tcp Some(\"notes\")",
            "127.0.0.1/32 [3002] tcp Some(\"inventory\")",
        ]
    );
    assert_eq!(
        ranges(&set, Workload::Server("github"))[0].egress.wire,
        Wire::Tcp
    );
}

#[test]
fn localhost_needs_no_query() {
    let set = policy(
        "hosts: { h: { egress: [{ host: localhost, ports: [8080, 9090], tls: off, private: true }, { host: api.example }] } }
",
    );
    let found: Vec<_> = ranges(&set, Workload::Host("h"))
        .into_iter()
        .map(|range| (range.net.to_string(), range.ports, range.egress.wire))
        .collect();
    let ports = vec![8080, 9090];
    assert_eq!(
        found,
        [
            ("127.0.0.1/32".to_owned(), ports.clone(), Wire::Http),
            ("::1/128".to_owned(), ports, Wire::Http)
        ]
    );
}

#[test]
fn users_reach_the_servers_that_listen_here_as_rules_say() {
    let set = policy(
        "servers:
  notes: { purpose: p, owner: o@example.com, listen: \"127.0.0.1:3001\", match: { unit: notes.service } }
  wide: { purpose: p, owner: o@example.com, listen: \"0.0.0.0:3002\" }
  remote: { purpose: p, owner: o@example.com, url: \"https://mcp.example.com/mcp\" }
identities: { dave: { user: dave }, eve: { user: eve } }
rules:
  - { id: daves, who: [dave], servers: [notes, remote], tools: [\"*\"], effect: allow }
  - { id: eves, who: [eve], servers: [wide], tools: [echo], effect: allow }
",
    );
    let local = name("localhost");
    let remote = name("mcp.example.com");
    let http = |target, port, tls| Action::Http {
        target,
        port,
        method: "POST",
        path: "/mcp",
        tls,
        upgrade: false,
    };
    let at = |text: &str| Target::Address(text.parse().unwrap());
    let (allowed, unreached) = (
        "allow: the egress list allows it",
        "deny: the caller may not reach the server",
    );
    for (who, action, expected) in [
        (user("dave"), http(at("127.0.0.1"), 3001, false), allowed),
        (
            user("dave"),
            http(Target::Name(&local), 3001, false),
            allowed,
        ),
        (
            user("dave"),
            http(at("127.0.0.1"), 3001, true),
            "deny: tls and plain http do not agree with the egress list",
        ),
        (
            user("dave"),
            http(at("10.0.0.5"), 3001, false),
            "deny: the port is not allowed",
        ),
        (user("dave"), http(at("127.0.0.1"), 3002, false), unreached),
        (user("eve"), http(at("127.0.0.1"), 3001, false), unreached),
        (user("eve"), http(at("10.0.0.5"), 3002, false), allowed),
        (user("eve"), http(at("fd00::5"), 3002, false), allowed),
        // Nothing but these: a user's own connections are not the policy's business.
        (
            user("dave"),
            http(Target::Name(&remote), 443, true),
            "deny: the host is not allowed",
        ),
        (
            user("dave"),
            connect(&remote, 443),
            "deny: the host is not allowed",
        ),
        (
            user("dave"),
            Action::Resolve { name: &local },
            "deny: no managed workload",
        ),
        (
            Caller::default(),
            http(at("127.0.0.1"), 3001, false),
            "deny: no managed workload",
        ),
        (
            server("notes"),
            http(at("127.0.0.1"), 3001, false),
            "deny: the address is not allowed",
        ),
    ] {
        assert_eq!(
            said(&ask(&set, who, action)),
            expected,
            "{who:?} {action:?}"
        );
    }
    let verdict = ask(&set, user("dave"), http(at("127.0.0.1"), 3001, false));
    let egress = verdict.egress.unwrap();
    assert_eq!(egress.server.as_deref(), Some("notes"));
    assert_eq!(egress.tls, Tls::Off);
}
