//! Names, connections and what the kernel is told.

use exeat_policy::{
    Action, Caller, Origin, Protocol, Request, Target, Timestamp, Tls, Wire, Workload, explain,
    ports_for, ranges,
};

use super::BASE;
use crate::support::{ask, connect, host, http, name, policy, said, server, user};

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
        (server("github"), connect(&packages, 443), OVER),
        (server("github"), Action::Resolve { name: &packages }, OVER),
        (server("github"), http(&packages, "GET", "/x"), OVER),
        (
            fetching,
            connect(&packages, 443),
            "allow: the egress list allows it",
        ),
        (
            fetching,
            http(&packages, "GET", "/x"),
            "allow: the egress list allows it",
        ),
        (
            fetching,
            http(&packages, "HEAD", "/x"),
            "allow: the egress list allows it",
        ),
        (
            fetching,
            http(&packages, "POST", "/x"),
            "deny: the http method is not allowed",
        ),
        (
            fetching,
            connect(&packages, 80),
            "deny: the port is not allowed",
        ),
        (
            Caller {
                fetching: true,
                ..server("trial")
            },
            connect(&packages, 443),
            "deny: the host is not allowed",
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

/// By the narrowest network, whatever order they are written in; a name that means addresses is as narrow as these.
#[test]
fn the_narrowest_network_says_how_an_address_is_reached() {
    let set = policy(
        "servers: { s: { launch: { command: s } }, all: { listen: \"0.0.0.0:7\", match: { user: x } } }
hosts:
  h:
    egress:
      - { cidr: 0.0.0.0/0, ports: [22, 8080] }
      - { cidr: 127.0.0.1/32, ports: [8080], protocol: tcp }
      - { cidr: 127.0.0.0/8, ports: [22, 53], protocol: udp }
      - { host: localhost, ports: [8080], tls: off, private: true }
      - { cidr: 10.0.0.0/8, ports: [22] }
",
    );
    let treated = |address: &str, port| {
        let target = Target::Address(address.parse().unwrap());
        let action = Action::Connect {
            target,
            port,
            protocol: Protocol::Tcp,
        };
        let egress = ask(&set, host("h"), action).egress.unwrap();
        (egress.wire, egress.origin)
    };
    assert_eq!(treated("127.0.0.1", 8080), (Wire::Http, Origin::Egress(3)));
    assert_eq!(treated("127.0.0.2", 8080), (Wire::Tcp, Origin::Egress(0)));
    assert_eq!(treated("127.0.0.1", 22), (Wire::Tcp, Origin::Egress(0)));
    assert_eq!(treated("10.0.0.1", 22), (Wire::Tcp, Origin::Egress(4)));
    let serves = |address: &str, port| set.serves(address.parse().unwrap(), port);
    assert!(serves("10.9.8.7", 7) && serves("::ffff:127.0.0.1", 7));
    assert!(!serves("10.9.8.7", 8));
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
        calls: &[],
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

const OVER: &str =
    "deny: the host may be fetched from only until the server's first protocol message";

/// What egress allows as well stays so, is a fetch while the server fetches, and keeps what egress says of it.
#[test]
fn a_host_that_egress_names_too() {
    let set = policy(
        "
servers:
  both:
    launch: { command: npx, fetch: [a.example.com, b.example.com] }
    egress:
      - { host: a.example.com, methods: [POST], private: true }
      - { host: b.example.com, methods: [GET] }
",
    );
    let [a, b] = ["a.example.com", "b.example.com"].map(name);
    let fetching = Caller {
        fetching: true,
        ..server("both")
    };
    let origin = |caller, name, method| {
        let verdict = ask(&set, caller, http(name, method, "/x"));
        verdict.egress.map(|egress| egress.origin)
    };
    assert_eq!(origin(fetching, &a, "GET"), Some(Origin::Fetch(0)));
    assert_eq!(origin(fetching, &a, "POST"), Some(Origin::Egress(0)));
    assert_eq!(origin(fetching, &b, "GET"), Some(Origin::Fetch(1)));
    assert_eq!(origin(server("both"), &a, "GET"), None);
    assert_eq!(origin(server("both"), &a, "POST"), Some(Origin::Egress(0)));
    assert_eq!(origin(server("both"), &b, "GET"), Some(Origin::Egress(1)));
    assert!(
        ask(&set, fetching, connect(&a, 443))
            .egress
            .unwrap()
            .private
    );
    let request = Request {
        caller: server("both"),
        action: http(&a, "GET", "/x"),
        now: Timestamp::default(),
        counts: &[],
    };
    let shown: Vec<_> = explain(&set, &request)
        .considered
        .into_iter()
        .map(|item| format!("{} {}", item.subject, item.outcome))
        .collect();
    assert_eq!(
        shown,
        [
            "fetch host 1 is in force only until the server's first protocol message",
            "egress entry 1 is about other methods"
        ]
    );
}
