//! MCP calls and session methods.

use exeat_policy::{Action, Caller, Effect, Hints, Reason, Request, explain, listable};

use super::BASE;
use crate::support::{NOW, ask, call, host, http, mcp, name, policy, said, server, user};

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
            Action::Run {
                server: "a",
                extra_args: &[],
            },
            "allow: a rule allows it (all)",
        ),
        (
            user("eve"),
            Action::Run {
                server: "a",
                extra_args: &[],
            },
            "deny: a rule denies it (not-eve)",
        ),
        (
            user("eve"),
            Action::Run {
                server: "b",
                extra_args: &[],
            },
            "allow: a rule allows it (all)",
        ),
        (
            user("eve"),
            Action::Run {
                server: "c",
                extra_args: &[],
            },
            "deny: the server is not one that run starts",
        ),
        (
            user("eve"),
            Action::Run {
                server: "d",
                extra_args: &[],
            },
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

/// Neither what its host may nor what its user may is its own.
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
            arguments: None,
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

/// A URI is the server's to read: what allows is about what it says for certain, and what restricts about all that it
/// may come to.
#[test]
fn uris_that_servers_read_in_several_ways() {
    let set = policy(
        "servers:
  docs: { launch: { command: x } }
  all: { launch: { command: x } }
rules:
  - { id: some, servers: [docs], methods: ['resources/*', completion/complete], tools: ['file:///srv/docs/*', 'file:///odd/../x'], effect: allow }
  - { id: any, servers: [all], methods: ['resources/*'], tools: ['*'], effect: allow }
  - { id: not-etc, servers: [all], methods: ['resources/*'], tools: ['file:///etc/*', 'file:/srv/My%20Docs/*', 'https://Internal.Example/*'], effect: deny }
",
    );
    let asked = |method: &'static str, server: &'static str, uri: &'static str| {
        let action = Action::Mcp {
            server,
            method,
            name: Some(uri),
            arguments: None,
            hints: None,
            session: None,
        };
        let verdict = ask(&set, user("dave"), action);
        (
            verdict.effect == Effect::Allow,
            verdict.rule.as_deref().map(str::to_owned),
        )
    };
    for (uri, docs, all) in [
        ("file:///srv/docs/a.md", true, true),
        ("file:///srv/docs/b%20c", true, true),
        ("file:///srv/docs/../../etc/shadow", false, false),
        ("file:///srv/docs/%2e%2e/%2e%2e/etc/shadow", false, false),
        ("file:///srv/docs/..\\..\\etc\\shadow", false, false),
        ("file:///odd/../x", true, false),
        ("file:///etc/x", false, false),
        ("FILE:///etc/x", false, false),
        ("file:/etc/x", false, false),
        ("file://localhost/etc/x", false, false),
        ("file:////etc/x", false, false),
        ("file://elsewhere/etc/x", false, false),
        ("file:///%65tc/x", false, false),
        ("file:///etc/x?y", false, false),
        ("file:///srv/docs//etc/x", false, false),
        ("file:///srv/My%20Docs/x", false, false),
        ("file:///srv/My Docs/x", false, false),
        ("FILE:///srv/%4dy%20Docs/x", false, false),
        ("https://internal.example/x", false, false),
        ("https://internal.example:443/x", false, false),
        ("https:/internal.example/x", false, false),
        ("memo://etc/x", false, true),
    ] {
        for method in ["resources/read", "resources/subscribe"] {
            let (allowed, rule) = asked(method, "docs", uri);
            assert_eq!(
                (allowed, rule.as_deref()),
                (docs, docs.then_some("some")),
                "{uri}"
            );
            let rule = if all { "any" } else { "not-etc" };
            assert_eq!(
                asked(method, "all", uri),
                (all, Some(rule.to_owned())),
                "{uri}"
            );
        }
        assert_eq!(asked("completion/complete", "docs", uri).0, docs, "{uri}");
    }
    // What ends like something that is allowed, for who reads no query; and conditions on the name.
    let set = policy(
        "servers: { docs: { launch: { command: x } }, all: { launch: { command: x } } }
rules:
  - { id: ends, servers: [docs], methods: [resources/read], tools: ['file:///srv/*.md', 'search://q?t=*'], effect: allow }
  - { id: some, servers: [all], methods: [resources/read], when: tool.startsWith('file:///srv/'), effect: allow }
  - { id: any, servers: [all], methods: [resources/read], tools: ['memo:*', 'file:///etc/*'], effect: allow }
  - { id: not-x, servers: [all], methods: [resources/read], when: tool.startsWith('file:///etc/x'), effect: deny }
",
    );
    for (server, uri, allowed) in [
        ("docs", "file:///srv/a.md", true),
        ("docs", "file:///srv/secret.txt#x.md", false),
        ("docs", "file:///srv/secret.txt?x.md", false),
        ("docs", "search://q?t=a", true),
        ("all", "file:///srv/a", true),
        ("all", "file:///srv/../etc/shadow", false),
        ("all", "memo:x", true),
        ("all", "file:///etc/y", true),
        ("all", "file:///etc/x", false),
        ("all", "file:///etc/%78", false),
    ] {
        let verdict = ask(&set, user("dave"), mcp(server, "resources/read", Some(uri)));
        assert_eq!(verdict.effect == Effect::Allow, allowed, "{uri}");
    }
    // A tool's name is no URI.
    let set = policy(
        "servers: { s: { launch: { command: x } } }
rules: [{ id: t, servers: [s], tools: ['a/*'], effect: allow }]
",
    );
    assert_eq!(
        ask(&set, user("dave"), call("s", "a/../b")).effect,
        Effect::Allow
    );
}

/// A rule that allows and cannot be evaluated has not matched, so what follows from reaching the server is allowed; what
/// nothing else allows is denied for that reason. What no arguments make callable is not listed.
#[test]
fn an_allow_rule_that_fails_is_none() {
    let set = policy(
        "servers: { s: { launch: { command: x } } }
identities: { ops: { user: dave } }
rules:
  - { id: all, servers: [s], methods: ['*'], when: args.x == 1, effect: allow }
  - { id: own, servers: [s], tools: [own], when: caller.claims.group == 'ops', effect: allow }
  - { id: own-n, servers: [s], tools: [own_n], args: [{ field: /n, min: 1 }], when: caller.claims.group == 'ops', effect: allow }
  - { id: wide, servers: [s], tools: [wide], effect: allow }
  - { id: not-wide, servers: [s], tools: [wide], when: caller.claims.group == 'ops', effect: deny }
  - { id: part, servers: [s], tools: [part], effect: allow }
  - { id: not-part, servers: [s], tools: [part], args: [{ field: /n, min: 1 }], when: caller.claims.group == 'ops', effect: deny }
",
    );
    let said = |action| said(&ask(&set, user("dave"), action));
    assert!(said(mcp("s", "initialize", None)).starts_with("allow: "));
    assert!(said(mcp("s", "ping", None)).starts_with("allow: "));
    assert!(said(call("s", "x")).starts_with("deny: "));
    let verdict = ask(&set, user("dave"), call("s", "x"));
    assert!(
        matches!(verdict.reason, Reason::RuleFailed(_)),
        "{verdict:?}"
    );
    for (tool, listed) in [("own", true), ("wide", false), ("part", true), ("x", true)] {
        // By `all`, with some arguments.
        assert_eq!(
            listable(&set, user("dave"), "s", tool, None, NOW),
            listed,
            "{tool}"
        );
    }
    let set = policy(
        "servers: { s: { launch: { command: x } } }
rules:
  - { id: own, servers: [s], tools: [own], when: caller.claims.group == 'ops', effect: allow }
  - { id: own-n, servers: [s], tools: [own_n], args: [{ field: /n, min: 1 }], when: caller.claims.group == 'ops', effect: allow }
  - { id: some, servers: [s], tools: [some], when: args.n == 1, effect: allow }
",
    );
    for (tool, listed) in [("own", false), ("own_n", false), ("some", true)] {
        assert_eq!(
            listable(&set, user("dave"), "s", tool, None, NOW),
            listed,
            "{tool}"
        );
    }
}
