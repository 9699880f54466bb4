//! Records, two policies, and what is said of them.

use exeat_policy::{Source, compile};
use serde_json::{Value, json};

use super::*;

const BASE: &str = "version: 1
servers:
  bank:
    launch: { command: /usr/bin/bank }
    tools: { show: read, pay: write }
    egress: [{ host: api.example, methods: [GET] }]
hosts: { agent: { match: { exe: /usr/bin/agent }, servers: [bank] } }
";

fn set(rest: &str) -> PolicySet {
    let source = Source {
        name: "p.yaml".into(),
        text: format!("{BASE}{rest}"),
    };
    compile(&[source]).unwrap()
}

/// A record's line with these sections.
fn line(sections: &Value) -> Record {
    let mut record = json!({
        "id": "01936b5e-7c00-7000-8000-000000000001",
        "time": "2026-11-26T12:00:00.000000Z",
        "mono": 1,
        "kind": "mcp",
        "workload": { "name": "agent", "kind": "host" },
        "identity": { "name": "agent", "verified_by": "kernel", "user": "dave" },
        "decision": { "effect": "allow", "mode": "enforce" },
    });
    for (name, section) in sections.as_object().unwrap() {
        record[name] = section.clone();
    }
    serde_json::from_value(record).unwrap()
}

fn call(tool: &str, arguments: &Value) -> Record {
    line(&json!({
        "mcp": { "server": "bank", "method": "tools/call", "name": tool, "class": "write", "arguments": arguments },
    }))
}

fn compared(old: &str, new: &str, records: &[Record]) -> Report {
    let mut comparison = Comparison::new(set(old), set(new), Timestamp::from_seconds(0));
    for record in records {
        comparison.compare(record);
    }
    comparison.end()
}

const ALL: &str = "rules: [{ id: all, tools: ['*'], effect: allow }]";
const NO_LARGE: &str = "rules:
  - { id: all, tools: ['*'], effect: allow }
  - { id: large, tools: [pay], args: [{ field: /amount, above: 100 }], effect: deny }";

#[test]
fn what_is_decided_otherwise_is_told_by_kind() {
    let records = [
        call("pay", &json!({ "amount": 5 })),
        call("pay", &json!({ "amount": 500 })),
        call("pay", &json!({ "amount": 501 })),
        call("show", &json!({})),
    ];
    let report = compared(ALL, NO_LARGE, &records);
    assert_eq!(
        text(&report, Painter::default()),
        "allow -> deny  2 x  host agent: tools/call pay of bank
    rule `large`; before: rule `all`; for example 01936b5e-7c00-7000-8000-000000000001
4 exchanges: 2 decided otherwise
"
    );
    let same = compared(NO_LARGE, NO_LARGE, &records);
    assert_eq!(
        text(&same, Painter::default()),
        "4 exchanges: 0 decided otherwise\n"
    );
}

#[test]
fn what_the_record_leaves_out_and_a_rule_asks_for_is_no_answer() {
    let masked = call("pay", &json!({ "amount": "[masked]" }));
    let cut = call("pay", &json!({ "amount": "9[+12 bytes]" }));
    let mut none = call("pay", &json!({ "amount": 6 }));
    none.mcp.as_mut().unwrap().arguments_cut = true;
    let long = call("pay", &json!({ "amount": "9 9 9[600 bytes]" }));
    for record in [masked, cut, long, none] {
        let report = compared(ALL, NO_LARGE, std::slice::from_ref(&record));
        assert_eq!((report.changed, report.untold), (0, 1), "{record:?}");
        assert_eq!(report.doubts[0].rule, "rule `large`");
        assert!(text(&report, Painter::default()).contains("cannot be told  1 x"));
        // Nobody asks, or another rule denies in any case.
        let told = compared(ALL, ALL, std::slice::from_ref(&record));
        assert_eq!((told.changed, told.untold), (0, 0));
        let denied = format!("{NO_LARGE}\n  - {{ id: never, tools: [pay], effect: deny }}");
        let told = compared(ALL, &denied, std::slice::from_ref(&record));
        assert_eq!((told.changed, told.untold), (1, 0));
    }
    // The same in CEL: unknown unless the rest of the expression decides.
    let when = |expression: &str| {
        format!(
            "rules:\n  - {{ id: all, tools: ['*'], effect: allow }}\n  - {{ id: large, tools: [pay], when: {expression}, effect: deny }}"
        )
    };
    let masked = [call("pay", &json!({ "amount": "[masked]", "to": "x" }))];
    let told = |expression| {
        let told = compared(ALL, &when(expression), &masked);
        (told.changed, told.untold)
    };
    assert_eq!(told("args.amount > 100"), (0, 1));
    assert_eq!(told("args.amount > 100 && args.none > 1"), (0, 1));
    assert_eq!(told("args.amount > 100 && args.to == 'y'"), (0, 0));
    assert_eq!(told("args.amount > 100 || args.to == 'x'"), (1, 0));
    assert_eq!(told("has(args.amount)"), (1, 0));
    // Beside what is asked for.
    let beside = call("pay", &json!({ "amount": 5, "note": "[masked]" }));
    let told = compared(ALL, NO_LARGE, &[beside]);
    assert_eq!((told.changed, told.untold), (0, 0));
}

#[test]
fn who_acts_is_who_was_judged() {
    let host = call("pay", &json!({}));
    assert_eq!(Question::of(&host).unwrap().who(), "host agent");
    // A user's call to a server under `exeat run`: the process is the server's, the caller the user.
    let user = line(&json!({
        "workload": { "name": "bank", "kind": "server" },
        "identity": { "name": "", "verified_by": "kernel", "user": "dave" },
        "mcp": { "server": "bank", "method": "tools/call", "name": "show" },
    }));
    assert_eq!(Question::of(&user).unwrap().who(), "user dave");
    let daves = "identities: { d: { user: dave } }
rules: [{ id: daves, who: [d], tools: ['*'], effect: allow }]";
    let report = compared("", daves, &[user]);
    assert_eq!(report.changes[0].new.effect, "allow", "{report:?}");
}

#[test]
fn outbound_traffic_is_put_as_well() {
    let server = json!({ "name": "bank", "kind": "server" });
    let identity = json!({ "name": "bank", "verified_by": "kernel", "user": "nobody" });
    let section = |name: &str, section: Value| {
        let mut all = json!({ "workload": server, "identity": identity });
        all[name] = section;
        line(&all)
    };
    let get = section(
        "http",
        json!({ "name": "api.example", "port": 443, "sni": "api.example", "method": "GET", "path": "/x?q=[masked]" }),
    );
    let lookup = section("dns", json!({ "name": "api.example", "type": "A" }));
    let dialled = section(
        "tcp",
        json!({ "protocol": "tcp", "name": "api.example", "port": 5432 }),
    );
    let raw = section("tcp", json!({ "protocol": "icmp" }));
    let records = [get, lookup, dialled, raw];
    let mut comparison = Comparison::new(set(""), set(""), Timestamp::from_seconds(0));
    let source = Source {
        name: "p.yaml".into(),
        text: BASE.replace("[GET]", "[POST]"),
    };
    comparison.new = compile(&[source]).unwrap();
    for record in &records {
        comparison.compare(record);
    }
    let report = comparison.end();
    assert_eq!(
        (report.replayed, report.changed, report.unreadable),
        (3, 1, 1)
    );
    assert_eq!(report.changes[0].what, "GET api.example:443");
    assert_eq!(report.changes[0].who, "server bank");
}

#[test]
fn what_cannot_be_replayed_is_counted() {
    let mut open = call("pay", &json!({}));
    open.decision = None;
    let token = line(&json!({
        "identity": { "name": "a", "verified_by": "jwt", "issuer": "i", "subject": "s" },
        "mcp": { "server": "bank", "method": "tools/call", "name": "show" },
    }));
    let unread = line(&json!({ "mcp": { "server": "bank", "method": "" } }));
    let report = compared(ALL, NO_LARGE, &[open, token, unread]);
    assert_eq!(
        (report.replayed, report.with_token, report.unreadable),
        (0, 1, 1)
    );
    assert_eq!(
        summary(&report),
        "0 exchanges: 0 decided otherwise, 1 left out, since a token spoke for the caller, \
         1 left out, since what was asked is not recorded\n"
    );
}
