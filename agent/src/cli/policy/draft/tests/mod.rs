//! What was seen is allowed by the draft, what was not is not, and the text is always the same.

use exeat_policy::{PolicySet, Source, compile};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::*;
use crate::audit::Record;
use crate::cli::policy::recorded::{Answer, Question};

mod wider;

const POLICY: &str = "version: 1
servers:
  bank:
    launch: { command: /usr/bin/bank, args: [-v, 'a b'], fetch: [packages.example, other.example], env: { T: { secret: s } } }
    mode: observe
    tools: { show: read, 'pay*': write }
    egress:
      - { host: '*.api.example' }
      - { host: raw.example, protocol: tcp, ports: [5432, 5433] }
      - { cidr: 10.0.0.0/8, ports: [22, 80], protocol: udp }
  wiki: { url: 'https://wiki.example/mcp' }
hosts:
  agent: { match: { exe: /usr/bin/agent }, servers: [bank, wiki], egress: [{ host: model.example, kind: model }] }
identities: { dave: { user: dave }, devs: { user: 'dev*' } }
roles: { team: { members: [dave, devs, agent], grants: [{ servers: [bank, wiki] }] } }
rules:
  - { id: all, effect: allow }
  - { id: docs, methods: ['resources/*', 'x/*'], effect: allow }
  - { id: no-tricks, who: [team], args: [{ any: true, matches: 'rm -rf' }], effect: deny, reason: 'no: tricks' }
limits: [{ per: [session], calls: 30 }]
";

const NOW: Timestamp = Timestamp::from_seconds(1_795_219_200);
/// A month later.
const LATER: Timestamp = Timestamp::from_seconds(1_797_811_200);

fn source(text: &str) -> Source {
    Source {
        name: "p.yaml".into(),
        text: text.into(),
    }
}

fn set(text: &str) -> PolicySet {
    compile(&[source(text)]).unwrap_or_else(|faults| panic!("{faults:?}\n{text}"))
}

fn record(sections: &Value) -> Record {
    let mut record = json!({
        "id": "01936b5e-7c00-7000-8000-000000000001",
        "time": "2026-11-26T12:00:00.000000Z",
        "mono": 1,
        "kind": "mcp",
        "decision": { "effect": "allow", "mode": "enforce" },
    });
    for (name, section) in sections.as_object().unwrap() {
        record[name] = section.clone();
    }
    serde_json::from_value(record).unwrap()
}

fn caller(host: bool, user: &str) -> Value {
    if host {
        json!({ "workload": { "name": "agent", "kind": "host" }, "identity": { "name": "agent", "verified_by": "kernel", "user": user } })
    } else {
        json!({ "identity": { "name": "", "verified_by": "kernel", "user": user } })
    }
}

fn message(
    who: Value,
    server: &str,
    method: &str,
    name: &str,
    class: &str,
    arguments: &Value,
) -> Value {
    let mut sections = who;
    sections["mcp"] = json!({ "server": server, "method": method, "name": name });
    if !class.is_empty() {
        sections["mcp"]["class"] = class.into();
    }
    if !arguments.is_null() {
        sections["mcp"]["arguments"] = arguments.clone();
    }
    sections
}

fn traffic(section: &str, content: &Value) -> Value {
    let mut sections = json!({
        "workload": { "name": "bank", "kind": "server" },
        "identity": { "name": "bank", "verified_by": "kernel", "user": "mcp" },
    });
    sections[section] = content.clone();
    sections
}

fn drafted(sections: &[Value]) -> (String, Vec<LeftOut>) {
    drafted_from(POLICY, sections)
}

fn drafted_from(text: &str, sections: &[Value]) -> (String, Vec<LeftOut>) {
    let base = set(text);
    let mut seen = Seen::default();
    let mut used = Use::new(NOW);
    for sections in sections {
        seen.note(&base, &record(sections), NOW);
        used.note(&base, &record(sections));
    }
    seen.end();
    let mut draft = Draft::new(&base, &[source(text)], seen).unwrap();
    draft.unused = used.end(&base, String::new()).grants;
    let policy = draft.policy().unwrap();
    let left = policy.left_out();
    (policy.text, left)
}

fn allows(set: &PolicySet, sections: &Value) -> bool {
    allows_at(set, sections, NOW)
}

fn allows_at(set: &PolicySet, sections: &Value, at: Timestamp) -> bool {
    let record = record(sections);
    let Answer::Decided { effect, .. } = Question::to(&record, set).unwrap().put(set, at) else {
        // What a record leaves out makes no constraint.
        return true;
    };
    effect == exeat_policy::Effect::Allow
}

/// Traffic of a server; the last of it is a lookup alone.
fn outbound() -> Vec<Value> {
    vec![
        traffic(
            "http",
            &json!({ "name": "x.api.example", "port": 443, "sni": "x.api.example", "method": "GET", "path": "/a?q=[masked]" }),
        ),
        traffic(
            "http",
            &json!({ "name": "x.api.example", "port": 443, "sni": "x.api.example", "method": "GET", "path": "/b" }),
        ),
        traffic(
            "http",
            &json!({ "name": "x.api.example", "port": 443, "sni": "x.api.example", "method": "POST", "path": "/a" }),
        ),
        traffic(
            "tcp",
            &json!({ "protocol": "tcp", "name": "raw.example", "port": 5432 }),
        ),
        traffic(
            "tcp",
            &json!({ "protocol": "udp", "address": "10.1.2.3", "port": 22 }),
        ),
        traffic("dns", &json!({ "name": "y.api.example", "type": "A" })),
    ]
}

/// Calls; the last of them cannot be told by a rule.
fn observed() -> Vec<Value> {
    let pay = |amount: Value| {
        message(
            caller(true, "dave"),
            "bank",
            "tools/call",
            "pay",
            "write",
            &amount,
        )
    };
    let none = Value::Null;
    let show = message(
        caller(false, "dave"),
        "bank",
        "tools/call",
        "show",
        "read",
        &none,
    );
    vec![
        pay(json!({ "amount": 5, "to": "x", "tags": ["a"], "deep": [{ "k": 1 }] })),
        pay(json!({ "amount": 6, "to": "y", "tags": ["b", "c"], "deep": [{ "k": 2 }] })),
        pay(json!({ "amount": 6.5, "password": "[masked]" })),
        show,
        message(
            caller(false, "dev1"),
            "wiki",
            "resources/read",
            "docs://a*b",
            "",
            &Value::Null,
        ),
        message(
            caller(false, "dev2"),
            "wiki",
            "initialize",
            "",
            "",
            &Value::Null,
        ),
        pay(json!({ "list": [1, "a"] })),
        pay(json!({ "list": [{ "id": 1, "ID": 2 }] })),
    ]
}

#[test]
fn a_draft() {
    let (text, left) = drafted(&[observed(), outbound()].concat());
    insta::assert_snapshot!(text);
    let left: Vec<_> = left
        .iter()
        .map(|left| format!("{} {}", left.count, left.why))
        .collect();
    assert_eq!(
        left,
        [
            "2 that no rule can tell from others",
            "1 lookups and connections without a request"
        ]
    );
    set(&text);
}

fn arguments() -> impl Strategy<Value = Value> {
    let value = || {
        prop_oneof![
            Just(json!(5)),
            Just(json!(500)),
            Just(json!(5.5)),
            Just(json!("x")),
            Just(json!("y")),
            Just(json!(true)),
            Just(Value::Null),
            Just(json!([])),
            Just(json!([1])),
            Just(json!(["a", "b"])),
            Just(json!([[1]])),
            Just(json!([{ "k": 1 }])),
            Just(json!([{ "k": 1, "l": "x" }])),
            Just(json!({ "k": 1 })),
            Just(json!({ "k": "x" })),
            Just(json!({})),
        ]
    };
    prop_oneof![
        1 => Just(Value::Null),
        5 => (prop::option::of(value()), prop::option::of(value()), prop::bool::weighted(0.1)).prop_map(|(a, b, other)| {
            let mut arguments = json!({});
            if let Some(a) = a { arguments["a"] = a; }
            if other { arguments["A"] = json!(1); }
            if let Some(b) = b { arguments["b ~/'"] = b; }
            arguments
        }),
    ]
}

fn one() -> impl Strategy<Value = Value> {
    let who = (any::<bool>(), select(vec!["dave", "dev1", "eve"]))
        .prop_map(|(host, user)| caller(host, user));
    one_by(who)
}

fn one_by(who: impl Strategy<Value = Value> + Clone) -> impl Strategy<Value = Value> {
    let arguments = arguments();
    let calls = (
        who.clone(),
        select(vec!["bank", "wiki"]),
        select(vec!["show", "pay", "pay_all", "a*", "\u{e9}"]),
        select(vec!["read", "write", "destructive, external"]),
        arguments,
    )
        .prop_map(|(who, server, tool, class, arguments)| {
            message(who, server, "tools/call", tool, class, &arguments)
        });
    let others = (
        who,
        select(vec!["bank", "wiki"]),
        select(vec![
            ("resources/read", "docs://a"),
            ("resources/read", "docs://*"),
            ("x/y", ""),
            ("x/y", "n"),
            ("tools/list", ""),
        ]),
    )
        .prop_map(|(who, server, (method, name))| {
            message(who, server, method, name, "", &Value::Null)
        });
    prop_oneof![5 => calls, 2 => others, 4 => network()]
}

fn network() -> impl Strategy<Value = Value> {
    let http = (
        select(vec!["x.api.example", "y.api.example"]),
        select(vec!["GET", "POST"]),
        select(vec!["/", "/a", "/a/b", "/%61"]),
    )
        .prop_map(|(name, method, path)| {
            traffic(
                "http",
                &json!({ "name": name, "port": 443, "sni": name, "method": method, "path": path }),
            )
        });
    let tcp = (select(vec![5432, 5433]),).prop_map(|(port,)| {
        traffic(
            "tcp",
            &json!({ "protocol": "tcp", "name": "raw.example", "port": port }),
        )
    });
    let udp =
        (select(vec!["10.1.2.3", "10.1.2.4"]), select(vec![22, 80])).prop_map(|(address, port)| {
            traffic(
                "tcp",
                &json!({ "protocol": "udp", "address": address, "port": port }),
            )
        });
    prop_oneof![2 => http, 1 => tcp, 1 => udp]
}

/// What a draft tells apart: a host whatever its user, unless the policy asks for that, whole numbers from others, paths as they are compared.
fn alike(one: &Value, other: &Value) -> bool {
    let reduced = |sections: &Value| {
        let mut sections = sections.clone();
        if sections["workload"]["kind"] == "host" {
            sections["identity"] = Value::Null;
        }
        if sections["http"]["path"] == "/%61" {
            sections["http"]["path"] = "/a".into();
        }
        let method = sections["mcp"]["method"].clone();
        // None are as good as an object without members.
        let shape = match sections["mcp"]["arguments"].take() {
            Value::Null => json!({}),
            shape => shape,
        };
        sections["mcp"]["class"] = Value::Null;
        (sections, method, shaped(&shape))
    };
    let (one, method, shape) = reduced(one);
    let (other, _, seen) = reduced(other);
    // Methods of the session follow from reaching the server.
    if method == "tools/list" {
        return one["workload"] == other["workload"]
            && one["identity"] == other["identity"]
            && one["mcp"]["server"] == other["mcp"]["server"];
    }
    one == other && within(&shape, &seen)
}

/// Whether a shape is one that was seen: `type: number` is about whole numbers as well.
fn within(shape: &Value, seen: &Value) -> bool {
    match (shape, seen) {
        (Value::Array(shapes), Value::Array(seen)) => {
            let known = |shape| seen.iter().any(|seen| within(shape, seen));
            let used = |seen| shapes.iter().any(|shape| within(shape, seen));
            shapes.iter().all(known) && seen.iter().all(used)
        }
        (Value::Object(shapes), Value::Object(seen)) => {
            let known = |(key, shape): (&String, &Value)| {
                seen.get(key).is_some_and(|seen| within(shape, seen))
            };
            shapes.len() == seen.len() && shapes.iter().all(known)
        }
        _ => shape == seen || (shape == "integer" && seen == "number"),
    }
}

/// Classes of a tool of which the register says nothing.
fn classes(sections: &Value) -> Vec<&str> {
    let class = sections["mcp"]["class"].as_str();
    let class = class.filter(|_| sections["mcp"]["server"] == "wiki");
    class
        .map(|class| class.split(", ").collect())
        .unwrap_or_default()
}

fn same_way(one: &Value, other: &Value) -> bool {
    let host = |sections: &Value| sections["workload"]["kind"] == "host";
    let same = one["mcp"]["server"] == other["mcp"]["server"] && host(one) == host(other);
    same && (host(one) || one["identity"] == other["identity"])
}

fn shaped(value: &Value) -> Value {
    match value {
        Value::Number(number) => {
            if number.is_i64() {
                json!("integer")
            } else {
                json!("number")
            }
        }
        Value::String(_) => json!("text"),
        Value::Bool(_) => json!("boolean"),
        Value::Null => json!("null"),
        Value::Array(list) => list.iter().map(shaped).fold(json!([]), |mut set, shape| {
            let all = set.as_array_mut().unwrap();
            if !all.contains(&shape) {
                all.push(shape);
            }
            set
        }),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), shaped(value)))
            .collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_was_seen_and_nothing_else(seen in prop::collection::vec(one(), 0..12), others in prop::collection::vec(one(), 64)) {
        let base = set(POLICY);
        let (text, left) = drafted(&seen);
        let draft = set(&text);
        let kept = left.is_empty();
        for one in &seen {
            prop_assert!(!kept || allows(&draft, one), "{one}\n{text}");
        }
        for other in &others {
            if allows(&draft, other) {
                prop_assert!(seen.iter().any(|one| alike(other, one)), "{other}\n{text}");
                prop_assert!(classes(other).iter().all(|class| seen.iter().any(|one| same_way(other, one) && classes(one).contains(class))), "{other}\n{text}");
                prop_assert!(allows(&base, other), "wider than the policy: {other}\n{text}");
            }
        }
        // The order of records does not show, nor does drafting again from what the draft allows.
        let mut turned = seen;
        turned.reverse();
        prop_assert_eq!(&drafted(&turned).0, &text);
    }
}

const BY_TOKEN: &str = "version: 1
servers: { bank: { listen: '127.0.0.1:80', match: { unit: bank.service }, tools: { show: read, pay: write } } }
hosts: { agent: { match: { exe: /usr/bin/agent }, servers: [bank] } }
identities:
  bot: { jwt: { issuer: i, claims: { app: bot } } }
  ops: { jwt: { issuer: i, claims: { group: ops } } }
rules:
  - { id: bots, who: [bot], tools: [show], effect: allow }
  - { id: ops, who: [ops], tools: [show, pay], effect: allow }
  - { id: x, when: caller.claims.dept == 'x', tools: [show], effect: allow }
";

/// A call by a token with these claims.
fn by_token(host: bool, tool: &str, subject: &str, claims: &Value) -> Value {
    let class = if tool == "show" { "read" } else { "write" };
    let who = caller(host, "mcp");
    let mut call = message(who, "bank", "tools/call", tool, class, &json!({}));
    show(&mut call, subject, claims);
    call
}

/// A token for who calls.
fn show(call: &mut Value, subject: &str, claims: &Value) {
    let identity = &mut call["identity"];
    identity["verified_by"] = "jwt".into();
    identity["issuer"] = "i".into();
    identity["subject"] = subject.into();
    identity["claims"] = claims.clone();
    identity["claims_read"] = json!(["/app", "/dept", "/group"]);
}

#[test]
fn callers_with_tokens_are_drafted_by_their_identities() {
    let seen = [
        by_token(false, "show", "s", &json!({ "app": "bot" })),
        by_token(true, "show", "s", &json!({ "app": "bot" })),
        by_token(false, "pay", "t", &json!({ "app": "bot", "group": "ops" })),
        by_token(false, "show", "u", &json!({ "dept": "x", "app": "o'ther" })),
    ];
    let (text, left) = drafted_from(BY_TOKEN, &seen);
    insta::assert_snapshot!(text);
    // Nobody whom a rule could name.
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0].why, Left::Untellable.words());
    let draft = set(&text);
    for one in &seen[..3] {
        assert!(allows(&draft, one), "{one}");
    }
    for other in [
        by_token(false, "show", "s", &json!({ "app": "other" })),
        by_token(true, "pay", "t", &json!({ "app": "bot", "group": "ops" })),
        by_token(false, "pay", "s", &json!({ "app": "bot" })),
        by_token(false, "show", "t", &json!({ "group": "ops" })),
        message(
            caller(false, "mcp"),
            "bank",
            "tools/call",
            "show",
            "read",
            &json!({}),
        ),
    ] {
        assert!(!allows(&draft, &other), "{other}");
    }
    // Where the policy asks for more of a token than for the identity, so does the draft.
    let base = BY_TOKEN.replace(
        "id: bots, who: [bot]",
        "id: bots, who: [bot], when: caller.claims.dept == 'x'",
    );
    let one = by_token(false, "show", "s", &json!({ "app": "bot", "dept": "x" }));
    let (text, left) = drafted_from(&base, std::slice::from_ref(&one));
    assert!(
        left.is_empty() && text.contains("caller.subject == 's'"),
        "{text}"
    );
    let draft = set(&text);
    assert!(allows(&draft, &one));
    let other = by_token(false, "show", "z", &json!({ "app": "bot", "dept": "x" }));
    assert!(!allows(&draft, &other));
    // Of whom a record holds no claims, it is not guessed.
    let mut old = seen[0].clone();
    old["identity"]["claims_read"] = json!([]);
    let (_, left) = drafted_from(BY_TOKEN, &[old]);
    assert_eq!(left[0].why, Left::Caller.words());
}

/// `exeat run` of the server, by a user or in a host.
fn start(mut who: Value, server: &str) -> Value {
    who["kind"] = "lifecycle".into();
    // As the gate records it: the caller is no name of the policy's.
    who["identity"]["name"] = "".into();
    who["lifecycle"] = json!({ "event": "run", "detail": server });
    who
}

/// What the gate does because the configuration says so.
fn own(reason: &str) -> Value {
    json!({
        "kind": "http",
        "http": { "name": "login.example", "port": 443, "sni": "login.example", "method": "GET", "path": "/keys" },
        "decision": { "effect": "allow", "mode": "enforce", "reason": reason },
    })
}

#[test]
fn starts_are_seen_and_the_gates_own_is_passed_over() {
    let unregistered = json!({
        "kind": "exec",
        "workload": { "name": "agent", "kind": "host" },
        "exec": { "exe": "/usr/bin/node", "pid": 1 },
    });
    let fetched = traffic(
        "http",
        &json!({ "name": "packages.example", "port": 443, "sni": "packages.example", "method": "GET", "path": "/x" }),
    );
    let by_user = start(caller(false, "dave"), "bank");
    let by_host = start(caller(true, "dave"), "bank");
    let records = [
        by_user.clone(),
        by_host.clone(),
        own("the configuration names the issuer"),
        own("the configuration names the webhook"),
        unregistered,
        fetched,
    ];
    let (text, left) = drafted(&records);
    assert!(left.is_empty(), "{left:?}");
    assert!(text.starts_with("# Drafted from 3 recorded"), "{text}");
    assert!(text.contains("fetch: [packages.example]"), "{text}");
    let draft = set(&text);
    assert!(allows(&draft, &by_user) && allows(&draft, &by_host));
    assert!(!allows(&draft, &start(caller(false, "eve"), "bank")));
    assert!(!allows(&draft, &start(caller(false, "dave"), "wiki")));
    let message = |tool| {
        message(
            caller(false, "dave"),
            "bank",
            "tools/call",
            tool,
            "read",
            &json!({}),
        )
    };
    assert!(!allows(&draft, &message("show")), "starting is no calling");
    // Who may start it no more is left out.
    let (_, left) = drafted(&[start(caller(false, "eve"), "none")]);
    assert_eq!(left[0].why, Left::Refused.words());
}

/// Grants that nothing needed are named, where a reader of the draft looks for them; it is a policy all the same.
#[test]
fn unused_grants_are_named() {
    let policy = POLICY.replace(
        "grants: [{ servers: [bank, wiki] }]",
        "grants: [{ servers: [bank], tools: [show] }, { servers: [wiki], tools: ['edit*'] }, { servers: [bank, wiki], tools: [never] }]",
    );
    let show = message(
        caller(false, "dave"),
        "bank",
        "tools/call",
        "show",
        "read",
        &json!({}),
    );
    let (text, _) = drafted_from(&policy, &[show]);
    let named: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("Unused"))
        .collect();
    assert_eq!(
        named,
        [
            "# Unused grant, left out: team/2: wiki (p.yaml:15:93)",
            "# Unused grant, left out: team/3: bank, wiki (p.yaml:15:132)",
        ]
    );
    drop(set(&text));
}

/// Of some of the records, nobody can tell what the others needed.
#[test]
fn filters_tell_nothing_of_unused_grants() {
    use crate::cli::args::{Cli, Command, PolicyCommand};
    use clap::Parser as _;
    let whole = is_all;
    let is_all = |options: &[&str]| {
        let words = [&["exeat", "policy", "draft"], options].concat();
        let Command::Policy(PolicyCommand::Draft(draft)) = Cli::parse_from(words).command else {
            panic!("{options:?}")
        };
        whole(&draft.records)
    };
    assert!(is_all(&[]) && is_all(&["--since", "3d", "--until", "today", "--dir", "x"]));
    for filter in [
        ["--server", "x"],
        ["--caller", "x"],
        ["--tool", "x"],
        ["--text", "x"],
        ["--kind", "mcp"],
        ["--effect", "allow"],
        ["--status", "done"],
        ["--limit", "5"],
    ] {
        assert!(!is_all(&filter), "{filter:?}");
    }
}
