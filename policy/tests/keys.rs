//! Every key of the schema is exercised: what a policy says by it changes a decision, or what is handed on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr};

use exeat_policy::{
    Action, AsJson as _, Caller, Cap, Certificate, CertifiedName, Count, Counter, Json, Limit,
    LimitKey, NameKind, PolicySet, Protocol, Request, Rule, Target, Token, Underway, Used, compile,
    evaluate, limit_keys, schema,
};
use serde_json::Value;

use crate::naive::arguments::Tree::{self, List, Map, Number, Text};
use crate::support::{NOW, host, mcp, name, server, shown, source, user};

/// Together they say everything that can be said.
const POLICIES: [&str; 2] = [
    r#"{
  "version": 1,
  "strict_review": true,
  "servers": {
    "api": {
      "purpose": "asks", "owner": "o@example.com", "data": "internal",
      "launch": {
        "command": "/usr/bin/api", "args": ["--all"], "extra_args": ["--more"], "user": "mcp",
        "env": { "TOKEN": { "secret": "reads" }, "PLAIN": "x" }, "directory": "/srv/api", "fetch": ["packages.example.com"]
      },
      "egress": [
        { "host": "api.example.com", "methods": ["GET"], "paths": ["/repos/**"], "credential": "reads" },
        { "host": "up.example.com", "upgrade": true, "private": true, "credential": "signs" },
        { "host": "plain.example.com", "tls": "off" },
        { "host": "alt.example.com", "ports": [8443], "kind": "model" },
        { "host": "made.example.com", "addresses": "synthetic" },
        { "host": "db.example.com", "ports": [5432], "protocol": "tcp" },
        { "cidr": "10.20.0.0/16", "ports": [5432] }
      ],
      "tools": {
        "get_*": "read",
        "create": { "class": "write", "dry_run": { "argument": "/dry", "value": true }, "credential": "writes" }
      }
    },
    "old": {
      "url": "https://old.example/mcp", "review_by": "2020-01-01", "authorization": { "credential": "third" },
      "responses": { "max_bytes": "2MiB", "structured": "required" }
    },
    "trial": { "url": "https://trial.example/mcp", "mode": "observe", "authorization": "strip" },
    "inventory": {
      "listen": "127.0.0.1:3001",
      "match": {
        "unit": "i.service", "cgroup": "/i", "exe": "/usr/bin/i", "args": ["x*"], "user": ["inv*"],
        "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
      }
    },
    "boxed": { "listen": "127.0.0.1:3002", "match": { "container": { "label": ["app=boxed", "team"] } } },
    "bank": {
      "url": "https://bank.example/mcp",
      "tools": { "get_all": "destructive", "get_*": "read", "look": "read", "send": "external" }
    }
  },
  "hosts": {
    "agent": {
      "match": { "user": "dev*" }, "servers": ["api", "bank"], "unregistered": "stop",
      "egress": [{ "host": "model.example.com", "kind": "model", "credential": "third" }]
    }
  },
  "identities": {
    "ann": { "user": "ann" },
    "bob": { "user": ["bob"] },
    "bot": { "jwt": { "issuer": "https://login.example", "claims": { "groups": ["a", "b"] } }, "person": "bea" },
    "cell": { "certificate": {
      "authority": "corp", "uri": "spiffe://corp/*", "dns": ["a.example"], "email": "a@corp.example", "common_name": "a"
    } }
  },
  "roles": {
    "reader": { "members": ["ann"], "grants": [{ "servers": ["bank"], "tools": ["get_*"], "classes": ["read"] }] }
  },
  "credentials": {
    "reads": { "file": "/etc/reads", "header": "X-Key", "prefix": "token ", "refresh": "10m", "hosts": ["api.example.com"] },
    "writes": { "systemd": "writes", "query": "key", "hosts": ["api.example.com"] },
    "third": { "command": ["/bin/key"], "basic": "u" },
    "signs": { "file": "/etc/signs", "aws_sigv4": { "region": "eu-central-1", "service": "s3" } }
  },
  "rules": [
    { "id": "reached", "servers": ["bank", "api"], "methods": ["ping"], "effect": "allow" },
    { "id": "tested", "servers": ["bank"], "tools": ["tested"], "effect": "allow", "args": [
      { "field": "/x", "glob": "a*", "length": { "min": 2, "max": 3 } },
      { "field": "/y", "matches": "^b", "type": "string" },
      { "field": "/z", "in": ["k", 5], "type": "string" },
      { "field": "/n", "min": 1, "max": 10 },
      { "field": "/m", "above": 1, "below": 10 },
      { "field": "/w", "absent": true }
    ] },
    { "id": "named", "tools": ["named"], "effect": "deny", "args": [{ "field": "/h", "keys": true, "matches": "auth" }] },
    { "id": "anywhere", "tools": ["anywhere"], "effect": "deny", "args": [{ "any": true, "matches": "rm" }] },
    { "id": "others", "servers": ["bank"], "tools": ["named", "anywhere", "watched"], "effect": "allow" },
    { "id": "computed", "tools": ["computed"], "when": "args.n > 5", "effect": "allow" },
    { "id": "asked", "tools": ["asked"], "effect": "approve", "approvers": ["bob"], "timeout": "5m", "reason": "ask" },
    { "id": "watched", "tools": ["watched"], "effect": "deny", "mode": "observe" },
    { "id": "over", "tools": ["over"], "effect": "allow", "expires": "2026-01-01" },
    { "id": "hers", "who": ["ann"], "servers": ["bank"], "tools": ["hers"], "effect": "allow" },
    { "id": "by-certificate", "who": ["cell"], "tools": ["by_certificate"], "effect": "allow" },
    { "id": "by-token", "who": ["bot"], "tools": ["by_token"], "effect": "allow" },
    { "id": "read", "servers": ["bank"], "methods": ["resources/read"], "tools": ["docs://*"], "effect": "allow" },
    { "id": "by-class", "who": ["bob"], "servers": ["bank"], "tools": { "class": "external" }, "effect": "allow" },
    { "id": "writes", "servers": ["api"], "tools": ["create", "change"], "effect": "allow" },
    { "id": "dry", "servers": ["api"], "tools": ["create"], "effect": "dry_run" },
    { "id": "limited", "tools": ["limited"], "effect": "allow" }
  ],
  "limits": [
    { "per": ["session", "tool"], "servers": ["bank"], "tools": ["limited"], "calls": 1 },
    { "per": ["identity"], "tools": { "class": ["write", "destructive"] }, "rate": "2/min" },
    { "per": ["identity"], "methods": ["resources/*"], "rate": "9/h" },
    { "per": ["server"], "tools": ["limited"], "sum": "/n", "max": 5, "window": "1h", "refund": true }
  ],
  "breaker": { "error_rate": "20%", "window": "10s", "min_calls": 4, "open_for": "5s" },
  "mask": [{ "servers": ["api"], "args": ["/customer/email"], "results": ["/content/*/text"] }],
  "responses": { "max_bytes": "1MiB", "content": ["text", "image"], "structured": "required" }
}"#,
    r#"{ "version": 1, "mode": "observe", "servers": { "bank": { "url": "https://bank.example/mcp" } } }"#,
];

/// Keys that no decision depends on: what is said by them is handed to whoever starts, recognises, tries or tells.
const HANDED: [&str; 29] = [
    "/$defs/host/properties/match",
    "/$defs/host/properties/unregistered",
    "/$defs/mask/properties/args",
    "/$defs/mask/properties/results",
    "/$defs/mask/properties/servers",
    "/$defs/match/properties/args",
    "/$defs/match/properties/cgroup",
    "/$defs/match/properties/sha256",
    "/$defs/match/properties/unit",
    "/$defs/responses/properties/content",
    "/$defs/responses/properties/max_bytes",
    "/$defs/responses/properties/structured",
    "/$defs/rule/properties/reason",
    "/$defs/server/properties/authorization",
    "/$defs/server/properties/data",
    "/$defs/server/properties/launch/properties/args",
    "/$defs/server/properties/launch/properties/directory",
    "/$defs/server/properties/launch/properties/env",
    "/$defs/server/properties/launch/properties/user",
    "/$defs/server/properties/match",
    "/$defs/server/properties/owner",
    "/$defs/server/properties/purpose",
    "/$defs/server/properties/responses",
    "/properties/breaker",
    "/properties/breaker/properties/min_calls",
    "/properties/breaker/properties/open_for",
    "/properties/breaker/properties/window",
    "/properties/mask",
    "/properties/responses",
];

/// Where a key stands in a policy: members and elements from the top.
type Location = Vec<String>;

#[test]
fn each_key_changes_what_it_is_for() {
    let schema = schema();
    let mut keys = BTreeSet::new();
    named(&schema, "", &mut keys);
    assert!(keys.len() > 90, "{keys:?}");
    let mut differs: BTreeMap<String, Difference> = BTreeMap::new();
    for text in POLICIES {
        let policy: Value = serde_json::from_str(text).unwrap();
        let whole = Seen::of(&policy).unwrap_or_else(|faults| panic!("{faults}"));
        let mut found = BTreeMap::new();
        places(&schema, "", &policy, &mut Vec::new(), &mut found);
        for (key, places) in found {
            for place in places {
                if differs.get(&key) == Some(&Difference::Decided) {
                    break;
                }
                let mut changed = policy.clone();
                remove(&mut changed, &place);
                let difference = whole.differs(&Seen::of(&changed));
                let known = differs.entry(key.clone()).or_insert(Difference::None);
                *known = (*known).max(difference);
            }
        }
    }
    let missing: Vec<_> = keys
        .iter()
        .filter(|key| !differs.contains_key(*key))
        .collect();
    assert!(missing.is_empty(), "no policy says {missing:?}");
    let of = |wanted: Difference| -> Vec<&str> {
        let those = differs.iter().filter(|(_, found)| **found == wanted);
        those.map(|(key, _)| key.as_str()).collect()
    };
    assert_eq!(of(Difference::None), [""; 0], "nothing is made of them");
    assert_eq!(of(Difference::Handed), HANDED);
}

/// What comes of a policy without a key; the strongest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    None,
    /// No decision differs, but what is handed on does.
    Handed,
    /// It is no policy any more.
    Fault,
    /// A decision differs.
    Decided,
}

/// What a policy comes to.
#[derive(PartialEq)]
struct Seen {
    decided: Vec<String>,
    handed: String,
}

impl Seen {
    fn of(policy: &Value) -> Result<Self, String> {
        let text = serde_json::to_string_pretty(policy).unwrap();
        let set = compile(&[source("p.yaml", &text)]).map_err(|faults| shown(&faults))?;
        Ok(Self {
            decided: decided(&set),
            handed: handed(&set),
        })
    }

    fn differs(&self, other: &Result<Self, String>) -> Difference {
        match other {
            Err(_) => Difference::Fault,
            Ok(other) if other.decided != self.decided => Difference::Decided,
            Ok(other) if other.handed != self.handed => Difference::Handed,
            Ok(_) => Difference::None,
        }
    }
}

/// Its debugging text, without places: they move when something is left out.
fn told(what: &impl Debug) -> String {
    let text = format!("{what:?}");
    let mut parts = text.split("line: ");
    let mut told = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        told.push_str(part.split_once('}').map_or(part, |(_, rest)| rest));
    }
    told
}

/// Everything that is asked of a policy beside decisions.
fn handed(set: &PolicySet) -> String {
    let servers: Vec<_> = set.servers().collect();
    let hosts: Vec<_> = set.hosts().collect();
    let names = || set.servers().map(|own| &*own.name);
    let answers: Vec<_> = names().map(|name| set.responses(name)).collect();
    let masked: Vec<_> = names().map(|name| set.masked(name)).collect();
    let whole = (set.rules(), set.breaker(), set.masks());
    told(&(servers, hosts, whole, answers, masked))
}

fn arguments() -> Vec<Tree> {
    let good = [
        ("x", Text("ab")),
        ("y", Text("b")),
        ("z", Text("k")),
        ("n", Number("1")),
        ("m", Number("2")),
    ];
    let with = |name: &'static str, value: Tree| {
        let mut all = good.to_vec();
        all.retain(|(known, _)| *known != name);
        all.push((name, value));
        Map(all)
    };
    vec![
        Map(good.to_vec()),
        with("x", Text("a")),
        with("x", Text("abcd")),
        with("x", Text("bb")),
        with("y", Text("c")),
        with("y", List(vec![Text("b")])),
        with("z", Text("j")),
        with("z", Number("5")),
        with("n", Number("0")),
        with("n", Number("11")),
        with("n", Number("7")),
        with("m", Number("1")),
        with("m", Number("10")),
        with("w", Number("1")),
        with("h", Map(vec![("auth", Text("a"))])),
        with("h", Text("rm")),
    ]
}

const NAMES: [(NameKind, &str); 4] = [
    (NameKind::Uri, "spiffe://corp/a"),
    (NameKind::Dns, "a.example"),
    (NameKind::Email, "a@corp.example"),
    (NameKind::CommonName, "a"),
];

/// The names but the one of this index.
fn certified(without: usize) -> Vec<CertifiedName> {
    let those = NAMES.iter().enumerate();
    let others = those.filter(|(index, _)| *index != without);
    others
        .map(|(_, (kind, text))| CertifiedName {
            kind: *kind,
            text: (*text).to_owned(),
        })
        .collect()
}

/// All answers to a fixed list of questions.
fn decided(set: &PolicySet) -> Vec<String> {
    let mut answers = Vec::new();
    let mut ask = |caller: Caller<'_>, action: Action<'_>| {
        let mut request = Request {
            caller,
            action,
            now: NOW,
            counts: &[],
        };
        let keys = limit_keys(set, &request);
        let unused = |key: &LimitKey| Counter::new(key.cap).count(key, NOW);
        let unused: Vec<Count> = keys.iter().map(unused).collect();
        let used_up: Vec<Count> = keys.iter().map(used_up).collect();
        request.counts = &unused;
        let verdict = told(&evaluate(set, &request));
        request.counts = &used_up;
        answers.push(format!(
            "{verdict} {} {}",
            told(&keys),
            told(&evaluate(set, &request))
        ));
    };
    let claims = [List(vec![Text("b")]), Text("c")].map(|groups| Map(vec![("groups", groups)]));
    let mut callers = vec![user("ann"), user("bob"), host("agent")];
    for claims in &claims {
        for issuer in ["https://login.example", "https://other.example"] {
            callers.push(token(issuer, claims.as_json()));
        }
    }
    // One certificate with every name, and each without one of them.
    let shown: Vec<Vec<CertifiedName>> = (0..=NAMES.len()).map(certified).collect();
    for names in &shown {
        callers.push(Caller {
            certificate: Some(Certificate {
                authority: "corp",
                subject: "CN=a",
                names,
            }),
            ..user("dave")
        });
    }
    let trees = arguments();
    let mut persons = Vec::new();
    for caller in callers {
        persons.push(format!("{:?}", set.persons(&caller)));
        for server in ["api", "old", "trial", "inventory", "bank"] {
            for tool in [
                "get_x",
                "get_all",
                "look",
                "send",
                "create",
                "asked",
                "watched",
                "over",
                "hers",
                "by_token",
                "by_certificate",
                "limited",
            ] {
                ask(caller, called(server, tool, &trees[0]));
            }
            ask(caller, mcp(server, "ping", None));
            ask(caller, mcp(server, "resources/read", Some("docs://x")));
            ask(caller, mcp(server, "resources/read", Some("x://x")));
            for extra_args in [&[][..], &["--more".to_owned()]] {
                ask(caller, Action::Run { server, extra_args });
            }
        }
    }
    for tool in ["tested", "named", "anywhere", "computed"] {
        for tree in &trees {
            ask(user("ann"), called("bank", tool, tree));
        }
    }
    for caller in [
        server("api"),
        server("inventory"),
        host("agent"),
        Caller {
            fetching: true,
            ..server("api")
        },
        user("ann"),
    ] {
        network(caller, &mut ask);
    }
    answers.extend(persons);
    let approves = |who| set.approves("asked", who);
    let waits = set.rule("asked").map(|rule: &Rule| rule.timeout_ms);
    let limits: &[Limit] = set.limits();
    answers.push(format!("{:?} {waits:?} {}", approves("bob"), limits.len()));
    answers
}

fn called<'a>(server: &'a str, tool: &'a str, arguments: &'a Tree) -> Action<'a> {
    Action::Mcp {
        server,
        method: "tools/call",
        name: Some(tool),
        arguments: Some(arguments.as_json()),
        hints: None,
        session: Some("s"),
    }
}

fn token<'a>(issuer: &'a str, claims: Json<'a>) -> Caller<'a> {
    Caller {
        token: Some(Token {
            issuer,
            subject: "s",
            claims,
        }),
        ..user("dave")
    }
}

/// A counter that lets nothing more pass.
fn used_up(key: &LimitKey) -> Count {
    let used = match key.cap {
        Cap::Calls(_) => Used::Calls(1_000_000),
        Cap::Rate { .. } => Used::Nth(Some(NOW)),
        Cap::Sum { max, .. } => Used::Sum {
            used: max,
            calls: 1,
            free: Some(NOW),
        },
    };
    Count {
        limit: key.limit,
        used,
    }
}

fn network(caller: Caller<'_>, ask: &mut impl FnMut(Caller<'_>, Action<'_>)) {
    let calls: [Vec<Underway>; 2] = [Vec::new(), vec![Underway::Call("create".into())]];
    for text in [
        "api.example.com",
        "up.example.com",
        "plain.example.com",
        "alt.example.com",
        "made.example.com",
        "db.example.com",
        "packages.example.com",
        "model.example.com",
        "bank.example",
    ] {
        let name = name(text);
        ask(caller, Action::Resolve { name: &name });
        let ports: &[(u16, bool)] = match text {
            "plain.example.com" => &[(443, true), (80, false)],
            "db.example.com" => &[(5432, false)],
            "alt.example.com" => &[(443, true), (8443, true)],
            _ => &[(443, true)],
        };
        for &(port, tls) in ports {
            let target = Target::Name(&name);
            let protocol = Protocol::Tcp;
            ask(
                caller,
                Action::Connect {
                    target,
                    port,
                    protocol,
                },
            );
            for (method, path) in [("GET", "/repos/x"), ("POST", "/repos/x"), ("GET", "/y")] {
                for (upgrade, calls) in [(false, &calls[0]), (true, &calls[0]), (false, &calls[1])]
                {
                    ask(
                        caller,
                        Action::Http {
                            target,
                            port,
                            method,
                            path,
                            tls,
                            upgrade,
                            calls,
                        },
                    );
                }
            }
        }
    }
    for (address, port) in [
        (Ipv4Addr::new(10, 20, 0, 1), 5432),
        (Ipv4Addr::LOCALHOST, 3001),
    ] {
        ask(
            caller,
            Action::Connect {
                target: Target::Address(IpAddr::V4(address)),
                port,
                protocol: Protocol::Tcp,
            },
        );
    }
}

/// The pointer of every key that the schema names.
fn named(node: &Value, at: &str, keys: &mut BTreeSet<String>) {
    let members: Vec<(String, &Value)> = match node {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), value))
            .collect(),
        Value::Array(list) => (0..).map(|n: u32| n.to_string()).zip(list).collect(),
        _ => return,
    };
    for (key, value) in members {
        let at = format!("{at}/{key}");
        if let (true, Some(properties)) = (key == "properties", value.as_object()) {
            keys.extend(properties.keys().map(|name| format!("{at}/{name}")));
        }
        named(value, &at, keys);
    }
}

/// Where `value`, which is to be as the schema says at `at`, has each key.
fn places(
    schema: &Value,
    at: &str,
    value: &Value,
    here: &mut Location,
    found: &mut BTreeMap<String, Vec<Location>>,
) {
    let node = schema.pointer(at).unwrap();
    if let Some(other) = node.get("$ref").and_then(Value::as_str) {
        return places(schema, other.trim_start_matches('#'), value, here, found);
    }
    let branches = node
        .get("anyOf")
        .and_then(Value::as_array)
        .map_or(0, Vec::len);
    for branch in 0..branches {
        places(schema, &format!("{at}/anyOf/{branch}"), value, here, found);
    }
    let mut below = |at: String, step: &str, value: &Value, is_key: bool| {
        here.push(step.to_owned());
        if is_key {
            found.entry(at.clone()).or_default().push(here.clone());
        }
        places(schema, &at, value, here, found);
        here.pop();
    };
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                if node.pointer(&format!("/properties/{key}")).is_some() {
                    below(format!("{at}/properties/{key}"), key, value, true);
                } else if node
                    .get("additionalProperties")
                    .is_some_and(Value::is_object)
                {
                    below(format!("{at}/additionalProperties"), key, value, false);
                }
            }
        }
        Value::Array(items) if node.get("items").is_some() => {
            for (index, item) in items.iter().enumerate() {
                below(format!("{at}/items"), &index.to_string(), item, false);
            }
        }
        _ => {}
    }
}

/// Leaves out what stands at `place`.
fn remove(value: &mut Value, place: &[String]) {
    let [step, rest @ ..] = place else { return };
    match value {
        Value::Object(members) if rest.is_empty() => drop(members.remove(step)),
        Value::Object(members) => remove(members.get_mut(step).unwrap(), rest),
        Value::Array(items) => remove(&mut items[step.parse::<usize>().unwrap()], rest),
        _ => panic!("{step} of a scalar"),
    }
}
