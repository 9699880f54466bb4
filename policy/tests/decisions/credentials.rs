//! Which secret goes where, and by whose call.

use std::sync::Arc;

use exeat_policy::{Action, Caller, PolicySet, Target, Timestamp, Underway};

use crate::support::{NOW, ask, host, name, policy, server, shown};

const POLICY: &str = r#"
credentials:
  reads: { file: /etc/exeat/reads }
  writes: { systemd: writes, header: X-Api-Key, hosts: [api.example.com, "*.cdn.example.com"] }
  models: { command: [/usr/bin/key, models], basic: key, refresh: 10m }
  query: { file: /etc/exeat/query, query: api_key }
servers:
  api:
    launch: { command: x, env: { KEY: { secret: reads }, OTHER: { secret: absent } } }
    egress:
      - { host: api.example.com, methods: [GET], credential: reads }
      - { host: api.example.com, methods: [POST], paths: ["/q/**"], credential: query }
      - { host: api.example.com, methods: [POST, TRACE] }
      - { host: a.cdn.example.com }
      - { host: open.example.com }
      - { host: plain.example.com, tls: off }
      - { host: pinned.example.com, tls: passthrough }
    tools: { "get_*": read, "set_*": { class: write, credential: writes }, ask: { class: read, credential: writes } }
  tracker: { url: "https://tracker.example.com/mcp" }
hosts:
  agent: { servers: [tracker], egress: [{ host: models.example.com, kind: model, credential: models }] }
"#;

/// In place of a tool: a request that is no call, and one of which nothing is known.
const OTHER: &str = "-";
const UNKNOWN: &str = "?";

/// The credential of a request over TLS; the refusal's reason, if it is refused.
fn sent(set: &PolicySet, caller: Caller<'_>, to: &str, calls: &[&str]) -> String {
    let (method, url) = to.split_once(' ').unwrap();
    let (host, path) = url.split_once('/').unwrap();
    let host = name(host);
    let calls = calls.iter().map(|call| match *call {
        OTHER => Underway::Other,
        UNKNOWN => Underway::Unknown,
        tool => Underway::Call(Arc::from(tool)),
    });
    let calls: Vec<Underway> = calls.collect();
    let verdict = ask(
        set,
        caller,
        Action::Http {
            target: Target::Name(&host),
            port: 443,
            method,
            path: &format!("/{path}"),
            tls: true,
            upgrade: false,
            calls: &calls,
        },
    );
    match verdict.egress {
        None => verdict.reason.to_string(),
        Some(egress) => egress.credential.map_or_else(
            || "none".to_owned(),
            |credential| credential.name.to_string(),
        ),
    }
}

#[test]
fn what_goes_where() {
    let set = policy(POLICY);
    for (to, calls, credential) in [
        ("GET api.example.com/", vec![], "reads"),
        ("GET api.example.com/", vec!["get_x"], "reads"),
        ("GET api.example.com/", vec!["set_x"], "writes"),
        (
            "GET api.example.com/",
            vec!["set_x", "set_y", "ask"],
            "writes",
        ),
        (
            "GET api.example.com/",
            vec!["get_x", "get_y", "other"],
            "reads",
        ),
        ("POST api.example.com/q/1", vec![], "query"),
        // The first entry that allows the request counts.
        ("POST api.example.com/other", vec![], "none"),
        ("POST api.example.com/other", vec!["set_x"], "writes"),
        // Nothing of it is read back.
        ("TRACE api.example.com/", vec!["set_x"], "none"),
        // A tool's goes to its own hosts, with or without another there.
        ("GET a.cdn.example.com/", vec!["get_x"], "none"),
        ("GET a.cdn.example.com/", vec!["set_x"], "writes"),
        ("GET open.example.com/", vec!["set_x"], "none"),
        // What is no call has the entry's.
        ("GET api.example.com/", vec![OTHER], "reads"),
        ("GET api.example.com/", vec![OTHER, "get_x"], "reads"),
        ("GET open.example.com/", vec![UNKNOWN], "none"),
    ] {
        assert_eq!(
            sent(&set, server("api"), to, &calls),
            credential,
            "{to} {calls:?}"
        );
    }
    let unclear = "calls in flight have different credentials, and any of them may have caused it";
    for (to, calls) in [
        ("GET api.example.com/", ["get_x", "set_x"]),
        ("GET a.cdn.example.com/", ["set_x", "get_x"]),
        ("POST api.example.com/other", ["unknown", "ask"]),
        ("GET api.example.com/", [OTHER, "set_x"]),
        ("GET a.cdn.example.com/", ["set_x", OTHER]),
        ("GET api.example.com/", ["get_x", UNKNOWN]),
        ("GET a.cdn.example.com/", [UNKNOWN, UNKNOWN]),
    ] {
        assert_eq!(sent(&set, server("api"), to, &calls), unclear, "{to}");
    }
    // Where neither has another, whose call it was does not matter.
    let to = "GET open.example.com/";
    assert_eq!(sent(&set, server("api"), to, &["get_x", "set_x"]), "none");
    // A host makes no calls for others.
    let to = "GET models.example.com/";
    assert_eq!(sent(&set, host("agent"), to, &[]), "models");
    let to = "POST tracker.example.com/mcp";
    assert_eq!(sent(&set, host("agent"), to, &[]), "none");
}

#[test]
fn an_unclear_cause_is_refused_whatever_is_only_observed() {
    let set = policy(&POLICY.replace(
        "    launch: { command: x,",
        "    mode: observe\n    launch: { command: x,",
    ));
    let calls = ["get_x", "set_x"];
    assert!(sent(&set, server("api"), "GET api.example.com/", &calls).contains("different"));
    // What is only let pass to be observed gets nothing.
    assert_eq!(
        sent(&set, server("api"), "PUT api.example.com/", &[]),
        "none"
    );
}

#[test]
fn what_is_of_no_use_is_a_warning() {
    let set = policy(&POLICY.replace(", credential: query }", " }"));
    let told = shown(&set.warnings(NOW));
    for warning in [
        "nothing sends the credential `query`",
        "`{ secret: absent }` of server `api` is a placeholder that nothing replaces: \
         no egress entry and no tool of the server has the credential `absent`",
    ] {
        assert!(told.contains(warning), "{told}");
    }
    assert_eq!(set.warnings(Timestamp::from_seconds(0)).len(), 2, "{told}");
}
