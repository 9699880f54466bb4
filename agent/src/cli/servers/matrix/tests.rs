//! What the matrix shows, and which grants it calls unused.

use exeat_policy::{Source, compile};
use serde_json::{Value, json};

use super::*;
use crate::audit::Record;

const POLICY: &str = "version: 1
servers:
  github: { url: 'https://g.example/', tools: { get_issue: read, get_file: read, 'list_*': read, delete_repo: destructive } }
  linear: { url: 'https://l.example/' }
  wiki: { launch: { command: /usr/bin/wiki } }
hosts: { agent: { servers: [github, linear, wiki] } }
identities: { ann: { user: ann }, bob: { user: 'b*' } }
roles:
  reader: { members: [ann, agent], grants: [{ servers: [github], classes: [read] }, { servers: [linear], tools: ['search_*'] }] }
  owner: { members: [bob], grants: [{ servers: [github, wiki] }] }
rules: [{ id: never, servers: [github], tools: [delete_repo], effect: deny }]
";

fn set() -> PolicySet {
    let source = Source {
        name: "p.yaml".into(),
        text: POLICY.into(),
    };
    compile(&[source]).unwrap()
}

fn shown(set: &PolicySet, listed: &[(&str, &str, Option<bool>)], unused: Option<Unused>) -> Matrix {
    let mut known: BTreeMap<Arc<str>, Known> = set
        .servers()
        .map(|server| (Arc::clone(&server.name), named(server)))
        .collect();
    for (server, tool, read_only) in listed {
        let hints = Hints {
            read_only: *read_only,
            open_world: Some(false),
            ..Hints::default()
        };
        known
            .get_mut(*server)
            .unwrap()
            .insert((*tool).to_owned(), Some(hints));
    }
    Matrix {
        fingerprint: "f".into(),
        cells: cells(set, &known, Timestamp::from_seconds(0)),
        unused,
    }
}

fn record(sections: &Value) -> Record {
    let mut record = json!({
        "id": "01936b5e-7c00-7000-8000-000000000001",
        "time": "2026-11-26T12:00:00.000000Z",
        "mono": 1,
        "kind": "mcp",
        "identity": { "name": "ann", "verified_by": "kernel", "user": "ann" },
        "decision": { "effect": "allow", "mode": "enforce" },
    });
    for (name, section) in sections.as_object().unwrap() {
        record[name] = section.clone();
    }
    serde_json::from_value(record).unwrap()
}

fn call(server: &str, tool: &str) -> Value {
    json!({ "mcp": { "server": server, "method": "tools/call", "name": tool, "class": "read" } })
}

#[test]
fn roles_and_servers() {
    let set = set();
    let listed = [
        ("github", "list_issues", Some(true)),
        ("github", "get_issue", Some(false)),
        ("linear", "search_all", None),
        ("linear", "create", None),
    ];
    let matrix = shown(&set, &listed, None);
    assert_eq!(
        text(&matrix, &set, Painter::default()),
        "SERVER  reader  owner
github  3/4     3/4
linear  1/2     0/2
wiki    0/0     ?/0
"
    );
    let of_reader = serde_json::to_value(&matrix.cells[0]).unwrap();
    assert_eq!(
        of_reader["tools"],
        json!({ "get_file": "reader/1", "get_issue": "reader/1", "list_issues": "reader/1" })
    );
}

#[test]
fn grants_that_nobody_used() {
    let set = set();
    let used = |records: &[Record]| {
        let mut used = Use::new(Timestamp::from_seconds(0));
        for record in records {
            used.note(&set, record);
        }
        used.end(&set, "30d".to_owned())
    };
    let ann = record(&call("github", "get_issue"));
    let unused = used(std::slice::from_ref(&ann));
    let told: Vec<&str> = unused.grants.iter().map(|grant| &*grant.grant).collect();
    assert_eq!(told, ["reader/2", "owner/1"]);
    let matrix = shown(&set, &[], Some(unused));
    let text = text(&matrix, &set, Painter::default());
    assert!(
        text.ends_with(
            "unused  reader/2: linear  p.yaml:9:85
unused  owner/1: github, wiki  p.yaml:10:37
2 grants unused in 1 exchanges since 30d
"
        ),
        "{text}"
    );
    // Another caller, and ones whose token is not recorded: the grant counts that is named, and what the identities have.
    let mut bob = call("wiki", "edit");
    bob["identity"] = json!({ "name": "bob", "verified_by": "kernel", "user": "bob" });
    let mut token = call("linear", "search_x");
    token["identity"] = json!({ "name": "x", "verified_by": "jwt", "issuer": "i", "subject": "s" });
    token["decision"] = json!({ "effect": "allow", "mode": "enforce", "rule": "reader/2" });
    let unread = json!({ "mcp": { "server": "github", "method": "" } });
    let unused = used(&[ann, record(&bob), record(&token), record(&unread)]);
    assert_eq!(
        (
            unused.grants.len(),
            unused.exchanges,
            unused.with_token,
            unused.unreadable
        ),
        (0, 2, 1, 1)
    );
    let mut known = call("linear", "search_x");
    known["identity"] =
        json!({ "name": "ann", "verified_by": "jwt", "issuer": "i", "identities": ["ann"] });
    known["decision"] = json!({ "effect": "allow", "mode": "enforce", "rule": "another" });
    let unused = used(&[record(&known)]);
    let told: Vec<&str> = unused.grants.iter().map(|grant| &*grant.grant).collect();
    assert_eq!(told, ["reader/1", "owner/1"]);
}

/// What was held and approved, run dry or only observed has used the grant; what was refused has not.
#[test]
fn grants_that_what_passed_otherwise_used() {
    let set = set();
    for (decision, approval, used) in [
        (
            json!({ "effect": "approve", "mode": "enforce", "rule": "ask" }),
            Some("approved"),
            true,
        ),
        (
            json!({ "effect": "approve", "mode": "enforce", "rule": "ask" }),
            Some("denied"),
            false,
        ),
        (
            json!({ "effect": "approve", "mode": "enforce", "rule": "ask" }),
            None,
            false,
        ),
        (
            json!({ "effect": "dry_run", "mode": "enforce", "rule": "dry" }),
            None,
            true,
        ),
        (
            json!({ "effect": "allow", "mode": "observe", "would": "deny", "rule": "no" }),
            None,
            true,
        ),
        (
            json!({ "effect": "deny", "mode": "enforce", "rule": "no" }),
            None,
            false,
        ),
    ] {
        let mut sections = call("github", "get_issue");
        sections["decision"] = decision.clone();
        if let Some(word) = approval {
            sections["approval"] =
                json!({ "id": "a1", "decision": word, "arguments_sha256": "00" });
        }
        let mut use_ = Use::new(Timestamp::from_seconds(0));
        use_.note(&set, &record(&sections));
        let unused = use_.end(&set, "30d".to_owned());
        let reader = unused.grants.iter().any(|grant| grant.grant == "reader/1");
        assert_eq!(reader, !used, "{decision} {approval:?}");
    }
}
