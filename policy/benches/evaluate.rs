//! What a decision costs, by the number of rules; and what reading a large policy costs.
//!
//! `cargo bench -p exeat-policy`. A decision is to stay under a microsecond with 1,000 rules and 200 tools,
//! and about as cheap with 10,000; one that reaches conditions in CEL under five.

use divan::{Bencher, black_box};
use exeat_policy::{
    Action, Caller, Json, Members, Name, PolicySet, Request, Source, Target, Timestamp, Workload,
    compile, evaluate,
};

const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];
const TOOLS: usize = 200;
const SERVERS: usize = 8;
const IDENTITIES: usize = 20;

fn main() {
    divan::main();
}

/// Rules as people write them: some about a tool, some about a family, some about a class, most for
/// one group and one server; every tenth denies.
fn text(rules: usize) -> String {
    let mut out = String::from("version: 1\nservers:\n");
    for server in 0..SERVERS {
        out.push_str("  s");
        out.push_str(&server.to_string());
        out.push_str(":\n    launch: { command: x }\n    tools:\n");
        out.extend((0..TOOLS).map(|tool| format!("      tool_{tool}: read\n")));
        out.push_str("    egress:\n");
        out.push_str("      - { host: \"*.example.com\", methods: [GET], paths: [\"/a/**\"] }\n");
        out.extend((0..50).map(|host| format!("      - {{ host: h{host}.example.net }}\n")));
    }
    out.push_str("identities:\n");
    out.extend((0..IDENTITIES).map(|identity| format!("  i{identity}: {{ user: u{identity} }}\n")));
    out.push_str("rules:\n");
    out.extend((0..rules).map(rule_text));
    out
}

fn rule_text(rule: usize) -> String {
    let (server, identity) = (rule % SERVERS, rule / SERVERS % IDENTITIES);
    let (tools, effect) = match (rule % 10, rule % 7) {
        (9, _) => (format!("never_{rule}"), "deny"),
        (_, 0) => (format!("\"family_{rule}_*\""), "allow"),
        (_, 1) => (format!("\"*_{rule}\""), "allow"),
        _ => (format!("tool_{}, other_{rule}", rule % TOOLS), "allow"),
    };
    format!(
        "  - {{ id: r{rule}, who: [i{identity}], servers: [s{server}], tools: [{tools}], effect: {effect} }}\n"
    )
}

fn compiled(text: String) -> Option<PolicySet> {
    compile(&[Source {
        name: "bench.yaml".to_owned(),
        text,
    }])
    .ok()
}

fn measure(bencher: Bencher<'_, '_>, rules: usize, caller: Caller<'_>, action: Action<'_>) {
    if let Some(set) = compiled(text(rules)) {
        ask(bencher, &set, caller, action);
    }
}

fn ask(bencher: Bencher<'_, '_>, set: &PolicySet, caller: Caller<'_>, action: Action<'_>) {
    let request = Request {
        caller,
        action,
        now: Timestamp::from_seconds(1_795_219_200),
        counts: &[],
    };
    bencher.bench(|| evaluate(black_box(set), black_box(&request)));
}

const fn user(user: &str) -> Caller<'_> {
    Caller {
        workload: None,
        user: Some(user),
        fetching: false,
        token: None,
        certificate: None,
        known_as: &[],
    }
}

const fn call<'a>(server: &'a str, tool: &'a str) -> Action<'a> {
    Action::Mcp {
        server,
        method: "tools/call",
        name: Some(tool),
        arguments: None,
        hints: None,
        session: None,
    }
}

#[divan::bench(args = SIZES)]
fn tool_call_allowed(bencher: Bencher<'_, '_>, rules: usize) {
    measure(bencher, rules, user("u0"), call("s2", "tool_2"));
}

#[divan::bench(args = SIZES)]
fn tool_call_denied(bencher: Bencher<'_, '_>, rules: usize) {
    measure(bencher, rules, user("u7"), call("s1", "no_such_tool"));
}

/// An object with a few members, as a call brings it.
struct Arguments([(&'static str, Json<'static>); 4]);

const ARGUMENTS: Arguments = Arguments([
    (
        "title",
        Json::Text("the printer on the second floor does not print"),
    ),
    ("amountCents", Json::Number("4200")),
    ("dryRun", Json::Bool(false)),
    ("path", Json::Text("/srv/projects/printer/readme.md")),
]);

impl Members for Arguments {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn at(&self, index: usize) -> Option<(&str, Json<'_>)> {
        self.0.get(index).copied()
    }

    fn get(&self, key: &str) -> Option<Json<'_>> {
        let found = self.0.iter().find(|(name, _)| *name == key);
        found.map(|(_, value)| *value)
    }
}

/// Three rules that look at arguments are about the call, one of them at every text.
#[divan::bench(args = SIZES)]
fn tool_call_with_arguments(bencher: Bencher<'_, '_>, rules: usize) {
    const TESTS: &str = "  - { id: tricks, tools: ['*'], args: [{ any: true, matches: '(?i)rm\\s+-rf|DROP\\s+TABLE' }], effect: deny }
  - { id: large, servers: [s2], tools: [tool_2], args: [{ field: /amountCents, above: 100000 }], effect: deny }
  - { id: here, servers: [s2], tools: [tool_2], args: [{ field: /path, glob: '/srv/*' }], effect: allow }\n";
    let action = Action::Mcp {
        server: "s2",
        method: "tools/call",
        name: Some("tool_2"),
        arguments: Some(Json::Map(&ARGUMENTS)),
        hints: None,
        session: None,
    };
    let Some(set) = compiled(text(rules) + TESTS) else {
        return;
    };
    ask(bencher, &set, user("u0"), action);
}

/// Three rules with a condition are about the call: a comparison, a pattern, one that goes through a list's kin.
#[divan::bench(args = SIZES)]
fn tool_call_with_conditions(bencher: Bencher<'_, '_>, rules: usize) {
    const TESTS: &str = "  - { id: large, servers: [s2], tools: [tool_2], when: args.amountCents > 100000 && !args.dryRun, effect: approve }
  - { id: titles, servers: [s2], tools: [tool_2], when: \"args.title.matches(r'(?i)rm\\\\s+-rf') || size(args.title) > 200\", effect: deny }
  - { id: here, servers: [s2], tools: [tool_2], when: \"args.path.startsWith('/srv/') && has(args.title)\", effect: allow }\n";
    let action = Action::Mcp {
        server: "s2",
        method: "tools/call",
        name: Some("tool_2"),
        arguments: Some(Json::Map(&ARGUMENTS)),
        hints: None,
        session: None,
    };
    let Some(set) = compiled(text(rules) + TESTS) else {
        return;
    };
    ask(bencher, &set, user("u0"), action);
}

/// Rules about resources, some of whose URIs are written in another way; every tenth denies.
fn resources(rules: usize) -> String {
    let rule = |rule: usize| {
        let (server, identity) = (rule % SERVERS, rule / SERVERS % IDENTITIES);
        let (uri, effect) = match (rule % 10, rule % 7) {
            (9, 0) => (format!("FILE:///never/%61_{rule}/*"), "deny"),
            (9, _) => (format!("file:///never/{rule}/*"), "deny"),
            (_, 0) => (format!("file:///srv/{rule}/a.md"), "allow"),
            _ => (format!("file:///srv/{rule}/*"), "allow"),
        };
        format!(
            "  - {{ id: u{rule}, who: [i{identity}], servers: [s{server}], methods: [resources/read], tools: ['{uri}'], effect: {effect} }}\n"
        )
    };
    text(0) + &(0..rules).map(rule).collect::<String>()
}

fn read(bencher: Bencher<'_, '_>, rules: usize, uri: &str) {
    let action = Action::Mcp {
        server: "s2",
        method: "resources/read",
        name: Some(uri),
        arguments: None,
        hints: None,
        session: None,
    };
    if let Some(set) = compiled(resources(rules)) {
        ask(bencher, &set, user("u0"), action);
    }
}

#[divan::bench(args = SIZES)]
fn resource_read(bencher: Bencher<'_, '_>, rules: usize) {
    read(bencher, rules, "file:///srv/2/a.txt");
}

/// A URI that says the same as another.
#[divan::bench(args = SIZES)]
fn resource_read_otherwise(bencher: Bencher<'_, '_>, rules: usize) {
    read(bencher, rules, "FILE:///srv/2/%61.txt?x");
}

/// A URI that may be any place, which every rule that denies is about.
#[divan::bench(args = SIZES)]
fn resource_read_anywhere(bencher: Bencher<'_, '_>, rules: usize) {
    read(bencher, rules, "file:///srv/2/../a.txt");
}

#[divan::bench(args = SIZES)]
fn session_method(bencher: Bencher<'_, '_>, rules: usize) {
    let action = Action::Mcp {
        server: "s2",
        method: "tools/list",
        name: None,
        arguments: None,
        hints: None,
        session: None,
    };
    measure(bencher, rules, user("u0"), action);
}

#[divan::bench(args = SIZES)]
fn http_request(bencher: Bencher<'_, '_>, rules: usize) {
    let Ok(name) = Name::parse("api.example.com") else {
        return;
    };
    let caller = Caller {
        workload: Some(Workload::Server("s0")),
        user: None,
        fetching: false,
        token: None,
        certificate: None,
        known_as: &[],
    };
    let action = Action::Http {
        target: Target::Name(&name),
        port: 443,
        method: "GET",
        path: "/a/b/c",
        tls: true,
        upgrade: false,
        calls: &[],
    };
    measure(bencher, rules, caller, action);
}

#[divan::bench(args = SIZES, sample_count = 10)]
fn compile_policy(bencher: Bencher<'_, '_>, rules: usize) {
    let source = [Source {
        name: "bench.yaml".to_owned(),
        text: text(rules),
    }];
    bencher.bench(|| compile(black_box(&source)).is_ok());
}
