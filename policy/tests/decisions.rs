//! Decisions, one table for each part of the language.

use exeat_policy::{
    Action, Caller, Cap, Count, Counter, Effect, Hints, Origin, Protocol, Reason, Request, Target,
    Timestamp, Tls, Used, Wire, Workload, evaluate, explain, limit_keys, listable, ports_for,
    ranges,
};

use crate::support::*;

const BASE: &str = r#"
servers:
  github:
    review_by: 2026-11-20
    launch: { command: npx, fetch: [packages.example.com] }
    egress:
      - { host: api.github.com, methods: [GET, POST], paths: ["/repos/acme/**", "/search/**"] }
      - { host: api.github.com, methods: [DELETE], paths: ["/repos/acme/scratch/*"] }
      - { host: "*.githubusercontent.com", methods: [GET] }
      - { host: wiki.corp.example, private: true }
      - { host: ws.example.com, upgrade: true }
      - { host: plain.example.com, tls: off }
      - { host: pinned.example.com, tls: passthrough }
      - { host: db.example.com, protocol: tcp, ports: [5432] }
      - { host: "*.tunnel.example", methods: [CONNECT, GET] }
      - { cidr: 10.20.0.0/16, ports: [5432], protocol: tcp }
      - { cidr: "2001:db8::/32", ports: [123], protocol: udp }
    tools: { "get_*": read, "list_*": read, create_issue: write, "delete_*": destructive }
  linear:
    url: https://mcp.linear.app/mcp
  notes:
    url: http://localhost:3001/mcp
  inventory:
    listen: 127.0.0.1:3002
    match: { unit: inventory.service }
  trial:
    launch: { command: trial }
    mode: observe
hosts:
  claude: { servers: [github, linear, notes, inventory], egress: [{ host: api.anthropic.com, kind: model }] }
identities:
  dave: { user: dave }
  devs: { user: ["dev*", dave] }
rules:
  - { id: reading, who: [devs, claude], servers: [github], tools: { class: read }, effect: allow }
  - { id: issues, who: [dave], servers: [github], tools: [create_issue], effect: allow }
  - { id: not-this, who: [dave], servers: [github], tools: [get_secret], effect: deny, reason: hidden }
  - { id: search, servers: [linear], tools: ["search_*"], effect: allow }
  - { id: docs, servers: [linear], methods: [resources/read], tools: ["docs://*"], effect: allow }
  - { id: vendor, servers: [linear], methods: ["x/*"], effect: allow }
  - { id: old, servers: [linear], tools: [gone], effect: allow, expires: 2026-11-20 }
  - { id: today, servers: [linear], tools: [last], effect: allow, expires: 2026-11-21 }
  - { id: trying, servers: [linear], tools: [search_all], effect: deny, mode: observe }
"#;

#[test]
fn calls() {
    let set = policy(BASE);
    let table = [
        (
            user("dave"),
            call("github", "get_issue"),
            "allow: a rule allows it (reading)",
        ),
        (
            user("dev7"),
            call("github", "get_issue"),
            "allow: a rule allows it (reading)",
        ),
        (
            user("eve"),
            call("github", "get_issue"),
            "deny: no rule matched",
        ),
        (
            Caller::default(),
            call("github", "get_issue"),
            "deny: no rule matched",
        ),
        (
            host("claude"),
            call("github", "get_issue"),
            "allow: a rule allows it (reading)",
        ),
        (
            host("codex"),
            call("github", "get_issue"),
            "deny: no managed workload",
        ),
        (
            host("claude"),
            call("trial", "x"),
            "allow: the host does not list the server; would deny: the host does not list the server",
        ),
        (
            user("dave"),
            call("github", "get_secret"),
            "deny: a rule denies it (not-this)",
        ),
        (
            user("dave"),
            call("github", "create_issue"),
            "allow: a rule allows it (issues)",
        ),
        (
            user("dev7"),
            call("github", "create_issue"),
            "deny: no rule matched",
        ),
        (
            user("dave"),
            call("github", "delete_repo"),
            "deny: no rule matched",
        ),
        (
            user("dave"),
            call("github", "GET_issue"),
            "deny: no rule matched",
        ),
        (
            user("dave"),
            call("nothing", "x"),
            "deny: the server is not registered",
        ),
        (
            user("eve"),
            call("linear", "search_x"),
            "allow: a rule allows it (search)",
        ),
        (user("eve"), call("linear", "gone"), "deny: no rule matched"),
        (
            user("eve"),
            call("linear", "last"),
            "allow: a rule allows it (today)",
        ),
        (
            user("eve"),
            call("linear", "search_all"),
            "allow: a rule allows it (search); would deny: a rule denies it",
        ),
        (
            user("eve"),
            call("trial", "x"),
            "allow: no rule matched; would deny: no rule matched",
        ),
    ];
    for (caller, action, expected) in table {
        assert_eq!(
            said(&ask(&set, caller, action)),
            expected,
            "{caller:?} {action:?}"
        );
    }
}

#[test]
fn other_methods() {
    let set = policy(BASE);
    let uri = Some("docs://intro");
    let table = [
        (
            user("dave"),
            mcp("github", "initialize", None),
            "allow: follows from reaching the server",
        ),
        (
            user("dave"),
            mcp("github", "tools/list", None),
            "allow: follows from reaching the server",
        ),
        (
            user("eve"),
            mcp("github", "initialize", None),
            "deny: the caller may not reach the server",
        ),
        (
            host("claude"),
            mcp("inventory", "initialize", None),
            "allow: follows from reaching the server",
        ),
        (
            host("claude"),
            mcp("inventory", "tools/call", Some("x")),
            "deny: no rule matched",
        ),
        (
            user("eve"),
            mcp("linear", "resources/read", uri),
            "allow: a rule allows it (docs)",
        ),
        (
            user("eve"),
            mcp("linear", "resources/read", Some("file:///etc")),
            "deny: no rule matched",
        ),
        (
            user("eve"),
            mcp("linear", "resources/subscribe", uri),
            "deny: no rule matched",
        ),
        (
            user("eve"),
            mcp("linear", "sampling/createMessage", None),
            "deny: no rule matched",
        ),
        (
            user("eve"),
            mcp("linear", "tools/call", None),
            "deny: no rule matched",
        ),
        (
            user("eve"),
            mcp("linear", "x/y", None),
            "allow: a rule allows it (vendor)",
        ),
        (
            user("eve"),
            mcp("linear", "y/x", None),
            "deny: unknown method that no rule names",
        ),
        (
            user("eve"),
            mcp("linear", "notifications/vendor", None),
            "deny: unknown method that no rule names",
        ),
    ];
    for (caller, action, expected) in table {
        assert_eq!(
            said(&ask(&set, caller, action)),
            expected,
            "{caller:?} {action:?}"
        );
    }
}

#[test]
fn rules_about_everything() {
    let set = policy(
        "servers: { a: { launch: { command: a } }, b: { launch: { command: b } }, c: { url: 'https://c.example/' } }
identities: { dave: { user: dave }, eve: { user: eve } }
rules:
  - { id: all, effect: allow }
  - { id: not-eve, who: [eve], servers: [a], effect: deny }
  - { id: no-sampling, methods: ['sampling/*'], effect: deny }
",
    );
    let table = [
        (
            user("dave"),
            Action::Run { server: "a" },
            "allow: a rule allows it (all)",
        ),
        (
            user("eve"),
            Action::Run { server: "a" },
            "deny: a rule denies it (not-eve)",
        ),
        (
            user("eve"),
            Action::Run { server: "b" },
            "allow: a rule allows it (all)",
        ),
        (
            user("eve"),
            Action::Run { server: "c" },
            "deny: the server is not one that run starts",
        ),
        (
            user("eve"),
            Action::Run { server: "d" },
            "deny: the server is not registered",
        ),
        (
            user("eve"),
            mcp("a", "initialize", None),
            "deny: a rule denies it (not-eve)",
        ),
        (
            user("dave"),
            mcp("a", "prompts/get", Some("p")),
            "allow: a rule allows it (all)",
        ),
        (
            user("dave"),
            mcp("a", "vendor/thing", None),
            "deny: unknown method that no rule names",
        ),
        (
            user("dave"),
            mcp("a", "sampling/createMessage", None),
            "deny: a rule denies it (no-sampling)",
        ),
    ];
    for (caller, action, expected) in table {
        let said =
            said(&ask(&set, caller, action)).replace("started by run", "one that run starts");
        assert_eq!(said, expected, "{caller:?} {action:?}");
    }
}

#[test]
fn starting_servers() {
    let set = policy(BASE);
    let table = [
        (
            user("dave"),
            "github",
            "allow: follows from reaching the server",
        ),
        (
            host("claude"),
            "github",
            "allow: follows from reaching the server",
        ),
        (
            user("eve"),
            "github",
            "deny: the caller may not reach the server",
        ),
        // Observing lets calls pass, not processes start.
        (
            user("eve"),
            "trial",
            "deny: the caller may not reach the server",
        ),
    ];
    for (caller, server, expected) in table {
        assert_eq!(
            said(&ask(&set, caller, Action::Run { server })),
            expected,
            "{caller:?} {server}"
        );
    }
    let strict = policy(&format!("strict_review: true\n{BASE}"));
    let run = Action::Run { server: "github" };
    assert_eq!(
        ask(&strict, user("dave"), run).reason,
        Reason::ReviewOverdue
    );
    assert_eq!(
        ask(&strict, user("dave"), call("github", "get_x")).reason,
        Reason::ReviewOverdue
    );
    let early = Timestamp::from_seconds(1_795_219_200 - 86_401);
    let request = Request {
        caller: user("dave"),
        action: run,
        now: early,
        counts: &[],
    };
    assert_eq!(evaluate(&strict, &request).effect, Effect::Allow);
}

#[test]
fn hints_decide_the_class_where_the_policy_does_not() {
    let set = policy(
        "servers: { s: { url: 'https://s.example/mcp', tools: { pinned: destructive } } }
rules:
  - { id: reads, servers: [s], tools: { class: [read, write] }, effect: allow }
  - { id: never, servers: [s], tools: { class: external }, effect: deny }
",
    );
    let hints = |read_only, destructive, open_world| {
        Some(Hints {
            read_only,
            destructive,
            open_world,
        })
    };
    let table = [
        (
            "t",
            None,
            "deny: a rule denies it (never)",
            "destructive, external",
        ),
        (
            "t",
            hints(Some(true), None, None),
            "deny: a rule denies it (never)",
            "read, external",
        ),
        (
            "t",
            hints(Some(true), None, Some(false)),
            "allow: a rule allows it (reads)",
            "read",
        ),
        (
            "t",
            hints(None, Some(false), Some(false)),
            "allow: a rule allows it (reads)",
            "write",
        ),
        (
            "t",
            hints(None, None, Some(false)),
            "deny: no rule matched",
            "destructive",
        ),
        (
            "pinned",
            hints(Some(true), None, Some(false)),
            "deny: no rule matched",
            "destructive",
        ),
    ];
    for (tool, hints, expected, class) in table {
        let action = Action::Mcp {
            server: "s",
            method: "tools/call",
            name: Some(tool),
            hints,
            session: None,
        };
        let verdict = ask(&set, user("x"), action);
        assert_eq!(said(&verdict), expected, "{tool} {hints:?}");
        assert_eq!(verdict.class.unwrap().to_string(), class);
        assert_eq!(
            listable(&set, user("x"), "s", tool, hints, NOW),
            verdict.effect == Effect::Allow
        );
    }
}

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
            "deny: no managed workload",
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
fn http_requests() {
    let set = policy(BASE);
    let [github, ws, plain, pinned, raw, tunnel] = [
        "api.github.com",
        "ws.example.com",
        "plain.example.com",
        "pinned.example.com",
        "raw.githubusercontent.com",
        "a.tunnel.example",
    ]
    .map(name);
    let with = |name, tls, upgrade, port| Action::Http {
        target: Target::Name(name),
        port,
        method: "GET",
        path: "/",
        tls,
        upgrade,
    };
    let table = [
        (
            http(&github, "GET", "/repos/acme/x"),
            "allow: the egress list allows it",
        ),
        (
            http(&github, "GET", "/repos/acme"),
            "allow: the egress list allows it",
        ),
        (
            http(&github, "POST", "/search/code"),
            "allow: the egress list allows it",
        ),
        (
            http(&github, "GET", "/repos/%61cme/x"),
            "allow: the egress list allows it",
        ),
        (
            http(&github, "GET", "/repos/other/x"),
            "deny: the path is not allowed",
        ),
        (
            http(&github, "GET", "/repos/acme/../other"),
            "deny: the path holds a dot segment",
        ),
        (
            http(&github, "GET", "/repos/acme/%2e%2e/other"),
            "deny: the path holds an escaped dot",
        ),
        (
            http(&github, "GET", "/repos//acme/x"),
            "deny: the path holds an empty segment",
        ),
        (
            http(&github, "GET", "/repos/acme%2Fx"),
            "deny: the path holds an escaped slash or backslash",
        ),
        (
            http(&github, "PUT", "/repos/acme/x"),
            "deny: the http method is not allowed",
        ),
        (
            http(&github, "get", "/repos/acme/x"),
            "deny: the http method is not allowed",
        ),
        (
            http(&github, "DELETE", "/repos/acme/scratch/7"),
            "allow: the egress list allows it",
        ),
        (
            http(&github, "DELETE", "/repos/acme/scratch/7/8"),
            "deny: the path is not allowed",
        ),
        (
            http(&raw, "GET", "/a//../%2f"),
            "allow: the egress list allows it",
        ),
        (
            http(&raw, "POST", "/"),
            "deny: the http method is not allowed",
        ),
        (
            with(&ws, true, true, 443),
            "allow: the egress list allows it",
        ),
        (
            with(&raw, true, true, 443),
            "deny: an upgrade is not allowed",
        ),
        (
            with(&raw, false, false, 443),
            "deny: tls and plain http do not agree with the egress list",
        ),
        (
            with(&plain, false, false, 80),
            "allow: the egress list allows it",
        ),
        (
            with(&plain, true, false, 80),
            "deny: tls and plain http do not agree with the egress list",
        ),
        (
            with(&plain, false, false, 443),
            "deny: the port is not allowed",
        ),
        (
            with(&pinned, true, false, 443),
            "deny: the connection is not one to be decoded",
        ),
        (
            http(&ws, "TRACE", "/"),
            "deny: the http method is not allowed",
        ),
        (
            http(&ws, "CONNECT", "/"),
            "deny: the http method is not allowed",
        ),
        (
            http(&tunnel, "CONNECT", "/"),
            "allow: the egress list allows it",
        ),
    ];
    for (action, expected) in table {
        assert_eq!(
            said(&ask(&set, server("github"), action)),
            expected,
            "{action:?}"
        );
    }
    let observing = policy(&format!("mode: observe\n{BASE}"));
    let evil = name("evil.example");
    let table = [
        (
            http(&github, "PUT", "/x"),
            "allow: the http method is not allowed; would deny: the http method is not allowed",
        ),
        (http(&evil, "GET", "/"), "deny: the host is not allowed"),
        (connect(&evil, 443), "deny: the host is not allowed"),
        (
            with(&raw, false, false, 443),
            "deny: tls and plain http do not agree with the egress list",
        ),
        (
            call("nothing", "x"),
            "allow: the server is not registered; would deny: the server is not registered",
        ),
    ];
    for (action, expected) in table {
        assert_eq!(
            said(&ask(&observing, server("github"), action)),
            expected,
            "{action:?}"
        );
    }
}

#[test]
fn servers_are_known_by_their_urls() {
    let set = policy(
        "servers:
  one: { url: 'https://mcp.example/one' }
  two: { url: 'https://mcp.example/one/two' }
  sse: { url: 'https://old.example/sse' }
  inside: { url: 'https://inside.example/mcp' }
hosts: { h: { servers: [one, two, sse, inside], egress: [{ host: inside.example, private: true }] } }
",
    );
    let [shared, old, inside] = ["mcp.example", "old.example", "inside.example"].map(name);
    for (at, path, server) in [
        (&shared, "/one", Some("one")),
        (&shared, "/one/x", Some("one")),
        (&shared, "/one/two", Some("two")),
        (&shared, "/onetwo", None),
        (&shared, "/.well-known/oauth-protected-resource", None),
        (&old, "/message", Some("sse")),
        (&inside, "/mcp", Some("inside")),
    ] {
        let verdict = ask(&set, host("h"), http(at, "POST", path));
        assert_eq!(verdict.effect, Effect::Allow, "{path}");
        assert_eq!(verdict.egress.unwrap().server.as_deref(), server, "{path}");
    }
    assert!(
        ask(&set, host("h"), connect(&inside, 443))
            .egress
            .unwrap()
            .private
    );
    assert!(
        !ask(&set, host("h"), connect(&old, 443))
            .egress
            .unwrap()
            .private
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
fn limits_count_and_slide() {
    let set = policy(
        "servers: { s: { url: 'https://s.example/mcp' } }
rules: [{ id: all, effect: allow }]
limits:
  - { per: [session, tool], calls: 2 }
  - { per: [identity], servers: [s], tools: ['slow_*'], rate: 2/min }
",
    );
    let call = |tool, session| Action::Mcp {
        server: "s",
        method: "tools/call",
        name: Some(tool),
        hints: None,
        session: Some(session),
    };
    let at = |seconds: i64, action, counts: &[Count]| {
        let now = Timestamp::from_millis(NOW.as_millis() + seconds * 1000);
        evaluate(
            &set,
            &Request {
                caller: user("dave"),
                action,
                now,
                counts,
            },
        )
    };
    let keys = |action| {
        limit_keys(
            &set,
            &Request {
                caller: user("dave"),
                action,
                now: NOW,
                counts: &[],
            },
        )
    };
    assert_eq!(keys(mcp("s", "tools/list", None)).len(), 0);
    assert_eq!(keys(call("fast", "a")).len(), 1);
    assert_eq!(keys(call("slow_x", "a")).len(), 2);
    assert_ne!(
        keys(call("fast", "a"))[0].key,
        keys(call("fast", "b"))[0].key
    );
    assert_ne!(
        keys(call("fast", "a"))[0].key,
        keys(call("faster", "a"))[0].key
    );
    // No name can be built that shares another's counter.
    assert_ne!(
        keys(call("t at=1:s session=1:b", "a"))[0].key,
        keys(call("t", "b"))[0].key
    );
    assert_eq!(
        at(0, call("fast", "a"), &[]).reason,
        Reason::CountMissing(0)
    );

    let mut calls = Counter::new(Cap::Calls(2));
    let mut rate = Counter::new(Cap::Rate {
        calls: 2,
        window_ms: 60_000,
    });
    let mut told = Vec::new();
    for (seconds, session) in [
        (0, "a"),
        (10, "a"),
        (20, "b"),
        (59, "b"),
        (60, "b"),
        (61, "b"),
        (70, "b"),
    ] {
        let own = if session == "a" {
            calls.count(0)
        } else {
            Count {
                limit: 0,
                used: Used::Calls(0),
            }
        };
        let verdict = at(seconds, call("slow_x", session), &[own, rate.count(1)]);
        told.push((seconds, verdict.effect, verdict.retry_after));
        if verdict.effect == Effect::Allow {
            let now = Timestamp::from_millis(NOW.as_millis() + seconds * 1000);
            rate.charge(now);
            calls.charge(now);
        }
    }
    let (allow, deny) = (Effect::Allow, Effect::Deny);
    assert_eq!(
        told,
        [
            (0, allow, None),
            (10, allow, None),
            (20, deny, Some(40_000)),
            (59, deny, Some(1_000)),
            (60, allow, None),
            (61, deny, Some(9_000)),
            (70, allow, None),
        ]
    );
    let spent = Count {
        limit: 0,
        used: Used::Calls(2),
    };
    let verdict = at(0, call("fast", "a"), &[spent]);
    assert_eq!(
        (verdict.reason, verdict.retry_after),
        (Reason::LimitReached(0), None)
    );
    assert!(!rate.is_idle(Timestamp::from_millis(NOW.as_millis() + 129_999)));
    assert!(rate.is_idle(Timestamp::from_millis(NOW.as_millis() + 130_000)));
}

#[test]
fn an_observed_rule_does_not_switch_limits_off() {
    let set = policy(
        "servers: { s: { url: 'https://s.example/mcp' } }
rules: [{ id: all, effect: allow }, { id: trying, tools: [t], effect: deny, mode: observe }]
limits: [{ per: [server], calls: 1 }]
",
    );
    let spent = [Count {
        limit: 0,
        used: Used::Calls(1),
    }];
    let request = Request {
        caller: user("x"),
        action: call("s", "t"),
        now: NOW,
        counts: &spent,
    };
    assert_eq!(evaluate(&set, &request).reason, Reason::LimitReached(0));
}

#[test]
fn explanations_name_everything_considered() {
    let set = policy(BASE);
    let told = |caller, action| {
        let explanation = explain(
            &set,
            &Request {
                caller,
                action,
                now: NOW,
                counts: &[],
            },
        );
        explanation
            .considered
            .iter()
            .map(|considered| format!("{} {}", considered.subject, considered.outcome))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        told(user("dave"), call("github", "get_secret")),
        [
            "rule `reading` matched",
            "rule `issues` is about other names",
            "rule `not-this` matched",
            "rule `search` is about other servers",
            "rule `docs` is about other servers",
            "rule `vendor` is about other servers",
            "rule `old` is about other servers",
            "rule `today` is about other servers",
            "rule `trying` is about other servers",
        ]
    );
    assert_eq!(
        told(
            server("github"),
            http(&name("api.github.com"), "DELETE", "/repos/acme/x")
        ),
        [
            "egress entry 1 is about other methods",
            "egress entry 2 is about other paths"
        ]
    );
}
