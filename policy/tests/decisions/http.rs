//! HTTP requests, and which server they are meant for.

use exeat_policy::{Action, Effect, Target};

use super::BASE;
use crate::support::{ask, call, connect, host, http, name, policy, said, server};

#[test]
fn http_requests() {
    let set = policy(BASE);
    let [github, ws, plain, pinned, raw, echo] = [
        "api.github.com",
        "ws.example.com",
        "plain.example.com",
        "pinned.example.com",
        "raw.githubusercontent.com",
        "a.echo.example",
    ]
    .map(name);
    let with = |name, tls, upgrade, port| Action::Http {
        target: Target::Name(name),
        port,
        method: "GET",
        path: "/",
        tls,
        upgrade,
        calls: &[],
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
            http(&echo, "CONNECT", "/"),
            "deny: the http method is not allowed",
        ),
        (
            http(&echo, "TRACE", "/"),
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
fn a_server_is_reached_at_its_url_and_nowhere_else() {
    let set = policy(
        "servers:
  one: { url: 'https://mcp.example/one' }
  two: { url: 'https://mcp.example/two' }
  wide: { url: 'https://wide.example/mcp' }
  local: { listen: 127.0.0.1:3001 }
hosts:
  h: { servers: [one, local] }
  w: { servers: [wide], egress: [{ host: wide.example, methods: [GET, POST] }] }
",
    );
    let [shared, wide, localhost] = ["mcp.example", "wide.example", "localhost"].map(name);
    let judged = |who, at, method, path| {
        let verdict = ask(&set, who, http(at, method, path));
        (
            said(&verdict),
            verdict.egress.and_then(|egress| egress.server),
        )
    };
    // `two` is not the host's, and neither is anything else that stands at the same origin.
    for path in [
        "/two",
        "/onetwo",
        "/",
        "/admin",
        "/one/../two",
        "//one",
        "/%6fne/%2e%2e/two",
    ] {
        for method in ["POST", "GET", "DELETE"] {
            let (said, _) = judged(host("h"), &shared, method, path);
            assert!(said.starts_with("deny"), "{method} {path}: {said}");
        }
    }
    // Where a client learns how to log in (RFC 9728, RFC 8414): read only, and not MCP.
    for path in [
        "/.well-known/oauth-protected-resource/one",
        "/.well-known/oauth-authorization-server",
    ] {
        let (said, server) = judged(host("h"), &shared, "GET", path);
        assert!(
            said.starts_with("allow") && server.is_none(),
            "{path}: {said}"
        );
        let (said, _) = judged(host("h"), &shared, "POST", path);
        assert!(said.starts_with("deny"), "{path}: {said}");
    }
    // What an operator opens beside a server is not the server, as long as the two can be told apart.
    let (said, server) = judged(host("w"), &wide, "POST", "/token");
    assert!(said.starts_with("allow") && server.is_none(), "{said}");
    assert_eq!(
        judged(host("w"), &wide, "POST", "/mcp").1.as_deref(),
        Some("wide")
    );
    let (said, _) = judged(host("w"), &wide, "POST", "//mcp");
    assert!(said.starts_with("deny"), "{said}");
    // A server that only listens has no path of its own.
    let listening = Action::Http {
        target: Target::Name(&localhost),
        port: 3001,
        method: "POST",
        path: "/any",
        tls: false,
        upgrade: false,
        calls: &[],
    };
    let verdict = ask(&set, host("h"), listening);
    assert_eq!(verdict.egress.unwrap().server.as_deref(), Some("local"));
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
        (&old, "/sse/", Some("sse")),
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
