//! Every message of the loader and of the checks stands in a snapshot: those that `faults` does not come to, and the
//! proof that there are no others.

use std::fs;
use std::path::{Path, PathBuf};

use exeat_policy::{Outcome, PathFault, Reason, Subject, Unevaluated, normalise_path};
use regex::Regex;

use crate::support::*;

#[test]
fn texts() {
    let many = format!("version: 1\nrules: [{}]\n", "1,".repeat(1_000_001));
    let large = format!("version: 1\n#{}\n", "x".repeat(8 << 20));
    let deep = format!("version: {}1{}\n", "[".repeat(40), "]".repeat(40));
    let faults = [
        "version: 1\nmode: \u{1}\n",
        "version: 1\n---\nversion: 1\n",
        "version: 1\nservers: &all {}\nhosts: *all\nmode: !x enforce\n",
        "version: 1\n? [a]\n: b\n<<: { mode: observe }\n~: x\nmode: enforce\nmode: enforce\n",
        "version: 1\nservers: { a: { launch: { command: '' } } }\n",
        &many,
        &large,
        &deep,
    ]
    .map(faults);
    insta::assert_snapshot!(faults.join("\n"));
}

#[test]
fn words() {
    let (long, pointer) = ("a".repeat(65), "/a".repeat(33));
    let (pattern, glob) = ("a".repeat(4097), "a".repeat(257));
    let listed = "1, ".repeat(10_001);
    let label = format!("{}.example", "a".repeat(64));
    let host = format!("{}example", "aaaaaaaa.".repeat(30));
    let path = "a".repeat(8200);
    insta::assert_snapshot!(faults(&format!(
        r#"version: 1
servers:
  {long}: {{ url: "https://[x]/" }}
  texts: {{ purpose: 7, launch: {{ command: a, user: 1x, directory: x, args: x, fetch: x }}, egress: {{}} }}
  wheres: {{ launch: {{ command: a, directory: [] }} }}
  tools: {{ launch: {{ command: a }}, tools: {{ a: {{ class: read, credential: 7, dry_run: {{ argument: "/a/*", value: 1 }} }}, b: {{ class: read, dry_run: {{ argument: a, value: 1 }} }} }} }}
  matched: {{ listen: "127.0.0.1:1", match: {{ cgroup: "/a/../b", args: x }} }}
  paths: {{ listen: "127.0.0.1:2", match: {{ cgroup: a, user: "a[" , sha256: "00" }} }}
  names:
    launch: {{ command: a }}
    egress:
      - {{ host: "" }}
      - {{ host: "." }}
      - {{ host: a..example }}
      - {{ host: {label} }}
      - {{ host: {host} }}
      - {{ host: -a.example }}
      - {{ cidr: x/8, ports: [1] }}
      - {{ cidr: "::ffff:10.0.0.0/104", ports: [1] }}
      - {{ cidr: 10.0.0.0/33, ports: [1] }}
      - {{ host: b.example, paths: ["/%zz", '/a\b', "/a#b", "/a b", "/%00", "/%2f", "/%2e", "/%25", "/a//b", "/{path}"] }}
credentials: {{ a: {{ file: /a, header: x, prefix: 7 }}, b: {{ file: /a, header: x, prefix: " x" }}, c: {{ file: /a, aws_sigv4: {{ region: EU/1, service: 3 }} }}, d: {{ file: /a, aws_sigv4: s3 }} }}
identities: {{ dave: {{ user: dave }} }}
roles: {{ r: {{ members: dave }} }}
rules:
  - {{ id: a, who: dave, reason: 7, effect: approve, approvers: dave, timeout: "10" }}
  - {{ id: b, effect: approve, timeout: 0s, args: [{{ field: /x, min: 1, length: 3 }}] }}
  - {{ id: c, effect: deny, args: [{{ field: {pointer}, matches: x }}, {{ field: /x, glob: {glob} }}] }}
  - {{ id: d, effect: deny, args: [{{ field: /x, matches: {pattern} }}, {{ field: /x, in: [{listed}] }}] }}
limits: [{{ per: session, calls: 1 }}, {{ per: [tool], rate: "60" }}]
breaker: {{ error_rate: 0% }}
"#
    )));
}

#[test]
fn containers() {
    let servers = [
        "args: x",
        "user: mcp",
        "args: [ps]",
        "args: [run, -i, --privileged, x]",
        "args: [run, -i, --rm]",
        "args: [run, -i, -e]",
        "args: [run, x]",
        "args: [run, -i, X]",
        "args: [run, -i, 'a:sha256-00']",
        "args: [run, -i, -u, root, x]",
        "args: [run, -i, --user=7, x]",
        "args: [run, -i, -u, '7:0', x]",
        "args: [run, -i, -e, 'a b', x]",
        "args: [run, -i, -w, a, x]",
        "args: [run, -i, -v, a, x]",
        "args: [run, -i, '--volume=/a:/b:z', x]",
        "args: [run, -i, -v, '/var/run/docker.sock:/a', x]",
        "args: [run, -i, x], env: { DOCKER_CONTEXT: a, DOCKER_HOST: 'tcp://a' }",
        "args: [run, -i, -v, '/srv:/a', x], env: { DOCKER_HOST: 'unix:///srv/docker.sock' }",
        "args: [run, -i, x, --privileged], env: { DOCKER_HOST: 'unix:///a', A: b }",
    ];
    let mut text = "version: 1\nservers:\n".to_owned();
    for (number, rest) in servers.iter().enumerate() {
        text.push_str(&format!(
            "  s{number}: {{ launch: {{ command: /usr/bin/docker, {rest} }} }}\n"
        ));
    }
    insta::assert_snapshot!(faults(&text));
}

#[test]
fn labels() {
    insta::assert_snapshot!(faults(
        "version: 1
servers:
  none: { listen: '127.0.0.1:1', match: { container: { label: [] } } }
  bare: { listen: '127.0.0.1:2', match: { container: {} } }
  unnamed: { listen: '127.0.0.1:3', match: { container: { label: '=x' } } }
  twice: { listen: '127.0.0.1:4', match: { container: { label: [app=a, app=b] } } }
  beside: { listen: '127.0.0.1:5', match: { container: { label: a }, args: [x], user: root } }
  mapped: { listen: '127.0.0.1:6', match: { container: { label: { app: a } } } }
  first: { listen: '127.0.0.1:7', match: { container: { label: [team, app=a] } } }
  second: { listen: '127.0.0.1:8', match: { container: { label: [app=a, team] } } }
  nothing: { listen: '127.0.0.1:9', match: {} }
hosts: { agent: { match: { container: { label: agent } } } }
"
    ));
}

#[test]
fn containers_beside_other_servers() {
    insta::assert_snapshot!(faults(
        "version: 1
servers:
  docker: { launch: { command: docker, args: [run, -i, x] } }
  plain: { launch: { command: python3 } }
  docker-mcp: { launch: { command: /usr/bin/docker, args: [run, -i, x], user: mcp } }
  docker-own: { launch: { command: docker, args: [run, -i, x], user: docked } }
  plain-mcp: { launch: { command: python3, user: mcp } }
  elsewhere: { url: 'https://mcp.example/mcp' }
"
    ));
}

#[test]
fn conditions_that_never_fit() {
    let deep = format!("args{} == 1", ".a".repeat(70));
    let (long, tokens) = ("a".repeat(4097), "1 + ".repeat(200));
    let nested = format!("{}args.a{}", "(".repeat(13), ")".repeat(13));
    let mut rules = String::new();
    for (place, when) in [
        &deep,
        "-tool == args.x",
        "size(tool == 'x') > args.n",
        "tool.all(x, x)",
        "args.x == 1 // why",
        "args.x == 1 # 2",
        "args.x == 0.1234567890123456",
        "args.x == 'a",
        "5'a' == args.x",
        "args.x + 1",
        "caller == 'x'",
        "caller.name == 'x'",
        "tool.x == args.y",
        "has(args.x, 1)",
        "sizes(args.x) == 1",
        "has(args)",
        "args.x == tool && tool == 5",
        "args.x in tool",
        "tool.matches(args.x)",
        "tool.matches('(')",
        "args.l.all(1, true)",
        "args.l.all(tool, true)",
        "args.l.all(a, a.all(b, b.all(c, c)))",
        "tool && args.x",
        "(tool == 'a') < args.x",
        "[1] + args.x == args.y",
        "args.x.contains(1)",
        "{'a': args.x} == args.y",
        "args.x > 1e999",
        "b'a' == args.x",
        &long,
        &tokens,
        &nested,
    ]
    .iter()
    .enumerate()
    {
        rules.push_str(&format!(
            "  - {{ id: r{place}, effect: deny, when: \"{when}\" }}\n"
        ));
    }
    insta::assert_snapshot!(faults(&format!("version: 1\nrules:\n{rules}")));
}

#[test]
fn what_runs_dry_for_nothing() {
    insta::assert_snapshot!(faults(
        r#"version: 1
servers: { a: { launch: { command: a } } }
rules:
  - { id: wide, servers: [a], tools: ["pay_*"], effect: dry_run }
  - { id: narrow, servers: [a], tools: [pay_x], effect: allow }
"#
    ));
}

#[test]
fn warnings() {
    let set = policy(
        r"
servers:
  old: { launch: { command: a, env: { A: { secret: unused } } }, review_by: 2020-01-01 }
credentials: { unused: { file: /a } }
rules: [{ id: over, effect: allow, expires: 2026-01-01 }]
",
    );
    insta::assert_snapshot!(shown(&set.warnings(NOW)));
}

/// Who shows a token is nobody over standard streams, so that what is said of it there says nothing.
#[test]
fn nobody_shows_a_token_over_standard_streams() {
    let set = policy(
        r#"
servers: { a: { launch: { command: a } }, b: { launch: { command: b } }, c: { url: "https://c.example/" } }
identities:
  ann: { user: ann }
  bot: { jwt: { issuer: i } }
  card: { certificate: { authority: x } }
roles:
  bots: { members: [bot, card], grants: [{ servers: [c, a, b], tools: [x] }, { servers: [c], tools: [y] }] }
  mixed: { members: [ann, bot], grants: [{ servers: [a], tools: [z] }] }
rules:
  - { id: everywhere, who: [bot], tools: [v], effect: allow }
  - { id: no-bots, who: [bot], servers: [b], tools: [w], effect: deny }
  - { id: people, who: [ann], servers: [a], tools: [u], effect: allow }
"#,
    );
    insta::assert_snapshot!(shown(&set.warnings(NOW)));
}

/// Arguments are asked for where there are none: of all that a rule is about, or of a part of it.
#[test]
fn arguments_of_methods_that_have_none() {
    let rules = |methods: &str, args: &str| {
        format!(
            "servers: {{ a: {{ launch: {{ command: a }} }} }}
rules: [{{ id: r, methods: [{methods}], args: [{args}], effect: deny }}]
"
        )
    };
    let any = "{ any: true, matches: AKIA }";
    let refused: Vec<String> = [
        "resources/read",
        "sampling/createMessage, elicitation/create",
        "'resources/*', ping",
        "vendor/x",
    ]
    .into_iter()
    .map(|methods| faults(&format!("version: 1\n{}", rules(methods, any))))
    .collect();
    insta::assert_snapshot!(refused.join("\n"));
    let absent = "{ field: /x, absent: true }";
    let some = format!("{absent}, {{ field: /y, absent: false }}");
    let warned = |(methods, args)| shown(&policy(&rules(methods, args)).warnings(NOW));
    let of_a_part = [
        ("tools/call, 'resources/*', ping", any),
        ("resources/read, prompts/get", &some),
    ];
    insta::assert_snapshot!(of_a_part.map(warned).join("\n"));
    let of_nothing = [
        ("tools/call", any),
        ("'*'", any),
        ("'prompts/*', completion/complete", any),
        // What is true where there are none.
        ("resources/read", absent),
    ];
    assert_eq!(of_nothing.map(warned).concat(), "");
}

/// What another rule allows as well; what is wider in one part and narrower in another changes something.
#[test]
fn what_changes_nothing() {
    let set = policy(
        r#"
servers: { a: { launch: { command: a } }, b: { launch: { command: b } } }
identities: { ann: { user: ann }, bob: { user: bob } }
roles:
  reader: { members: [ann], grants: [{ servers: [a], classes: [read] }, { servers: [b], tools: [x] }] }
  writer: { members: [ann, bob], grants: [{ servers: [a], classes: [read, write] }] }
rules:
  - { id: narrow, who: [ann], servers: [a], tools: [get_x], args: [{ field: /n, max: 5 }], effect: allow }
  - { id: wide, servers: [a], tools: ["get_*"], effect: allow }
  - { id: again, servers: [a], tools: ["get_*"], effect: allow }
  - { id: observed, servers: [a], tools: [get_y], effect: allow, mode: observe }
  - { id: only-observed, servers: [b], effect: allow, mode: observe }
  - { id: until, servers: [b], tools: ["put_*"], effect: allow, expires: 2027-01-01 }
  - { id: longer, servers: [b], tools: [put_x], effect: allow }
  - { id: some-arguments, servers: [b], tools: ["del_*"], args: [{ field: /n, max: 5 }], effect: allow }
  - { id: all-arguments, servers: [b], tools: [del_x], effect: allow }
  - { id: start, who: [bob], servers: [b], effect: allow }
  - { id: known, who: [bob], servers: [b], methods: [resources/read, ping], effect: allow }
  - { id: unknown, who: [bob], servers: [b], methods: [vendor/x], effect: allow }
  - { id: any-method, who: [bob], servers: [b], methods: ["*"], effect: allow }
  - { id: over, servers: [a], tools: [get_z], effect: allow, expires: 2026-01-01 }
"#,
    );
    insta::assert_snapshot!(shown(&set.warnings(NOW)));
}

/// Names that fit nothing which is listed; what is about a server that is not known, or not only about tools, is passed over.
#[test]
fn names_that_fit_no_tool() {
    let set = policy(
        r#"
servers:
  github: { launch: { command: a }, tools: { get_issue: read, "lst_*": read } }
  linear: { launch: { command: b }, tools: { "find_*": read } }
  wiki: { launch: { command: c }, tools: { anything: read } }
identities: { ann: { user: ann } }
roles: { reader: { members: [ann], grants: [{ servers: [github, linear], tools: [get_isue, "get_*"] }] } }
rules:
  - { id: none, servers: [linear], tools: [search_all], effect: deny }
  - { id: also-unknown, servers: [linear, wiki], tools: [search_all], effect: deny }
  - { id: everywhere, tools: [search_all], effect: deny }
  - { id: prompts, servers: [linear], methods: ["*"], tools: [search_all], effect: deny }
  - { id: called, servers: [linear], methods: [tools/call], tools: [search_any], effect: deny }
  - { id: fits, servers: [linear], tools: ["*", find_x], effect: deny, mode: observe }
limits:
  - { per: [tool], servers: [github], tools: [close_issue, get_issue], calls: 1 }
  - { per: [tool], servers: [github], methods: [prompts/get], tools: [greet], calls: 1 }
"#,
    );
    let listed = |server: &str, tools: &[&str]| {
        let tools = tools.iter().map(ToString::to_string).collect();
        (server.into(), tools)
    };
    let mut known = [
        listed("github", &["get_issue", "list_issues"]),
        listed("linear", &["find_x"]),
    ]
    .into();
    insta::assert_snapshot!(shown(&set.unlisted(&known)));
    known.extend([listed("wiki", &["anything"])]);
    let all = shown(&set.unlisted(&known));
    assert!(
        all.contains("`everywhere`: `search_all` fits no tool that its servers list"),
        "{all}"
    );
    assert!(all.contains("`also-unknown`"), "{all}");
    assert_eq!(set.unlisted(&[].into()), []);
}

/// A pattern of URIs that covers another as a text does not always allow, or restrict, all that the other does.
#[test]
fn patterns_of_uris_that_do_more_than_those_that_cover_them() {
    let set = policy(
        "servers: { s: { launch: { command: x } } }
rules:
  - { id: wide, methods: [resources/read], tools: ['file:///d/*'], effect: allow }
  - { id: climbs, methods: [resources/read], tools: ['file:///d/../b'], effect: allow }
  - { id: narrow, methods: [resources/read], tools: ['file:///d/e/*', 'file:///d/f'], effect: allow }
  - { id: written, methods: [resources/read], tools: ['FILE:*'], effect: deny }
  - { id: in-other-ways, methods: [resources/read], tools: ['FILE:/x/*'], effect: deny }
",
    );
    let warnings = shown(&set.warnings(NOW));
    assert_eq!(warnings.lines().count(), 1, "{warnings}");
    assert!(
        warnings.contains("rule `narrow` changes nothing"),
        "{warnings}"
    );
    let asked = |uri| ask(&set, user("dave"), mcp("s", "resources/read", Some(uri))).rule;
    assert_eq!(asked("file:///d/../b").as_deref(), Some("written"));
    assert_eq!(asked("file:///x/a").as_deref(), Some("in-other-ways"));
}

/// A request's path, which is said in its record alone.
#[test]
fn paths_of_requests() {
    let long = format!("/{}", "a".repeat(8192));
    let said: Vec<String> = [
        &long, "a", "/%zz", "/a\\b", "/a?b", "/a#b", "/a b", "/%00", "/%2f", "/%2e", "/%25",
        "/./a", "/a//b",
    ]
    .into_iter()
    .map(|path| {
        let fault: PathFault = normalise_path(path).unwrap_err();
        fault.to_string()
    })
    .collect();
    insta::assert_snapshot!(said.join("\n"));
}

/// What callers, records and explanations say of decisions.
#[test]
fn decisions() {
    const FAILED: [Unevaluated; 7] = [
        Unevaluated::TooDeep,
        Unevaluated::TooLarge,
        Unevaluated::OtherType,
        Unevaluated::Confusable,
        Unevaluated::Missing,
        Unevaluated::Arithmetic,
        Unevaluated::Unknown,
    ];
    let reasons = [
        Reason::RuleAllowed,
        Reason::Reachable,
        Reason::EgressAllowed,
        Reason::Granted,
        Reason::RuleDenied,
        Reason::NeedsApproval,
        Reason::DryRun,
        Reason::NoRule,
        Reason::UnknownMethod,
        Reason::NotReachable,
        Reason::NotListed,
        Reason::NotRegistered,
        Reason::NotLaunchable,
        Reason::ExtraArgument,
        Reason::Disconnected,
        Reason::BreakerOpen,
        Reason::ReviewOverdue,
        Reason::UnknownWorkload,
        Reason::Unregistered,
        Reason::HostNotAllowed,
        Reason::FetchOver,
        Reason::AddressNotAllowed,
        Reason::PortNotAllowed,
        Reason::ProtocolNotAllowed,
        Reason::TlsMismatch,
        Reason::NotDecoded,
        Reason::MethodNotAllowed,
        Reason::PathNotAllowed,
        Reason::PathRefused(normalise_path("/%zz").unwrap_err()),
        Reason::UpgradeNotAllowed,
        Reason::CredentialUnclear,
        Reason::LimitReached(0),
        Reason::AmountRefused(0),
        Reason::CountMissing(0),
    ];
    let outcomes = [
        Outcome::Matched,
        Outcome::Observed,
        Outcome::OtherServer,
        Outcome::OtherCaller,
        Outcome::OtherMethod,
        Outcome::OtherName,
        Outcome::OtherClass,
        Outcome::Expired,
        Outcome::OtherArguments,
        Outcome::Failed(Unevaluated::Missing),
        Outcome::FailedObserved(Unevaluated::Missing),
        Outcome::OtherHost,
        Outcome::OtherPort,
        Outcome::OtherProtocol,
        Outcome::OtherPath,
        Outcome::NoUpgrade,
        Outcome::FetchOver,
        Outcome::Within,
        Outcome::UsedUp,
        Outcome::NoAmount,
        Outcome::NoCount,
    ];
    let subjects = [
        Subject::Rule("r".into()),
        Subject::Grant("g/1".into()),
        Subject::Limit(0),
        Subject::Egress(0),
        Subject::Fetch(0),
        Subject::Server("s".into()),
    ];
    let failed = FAILED.map(Reason::RuleFailed);
    let reasons = reasons.into_iter().chain(failed);
    let mut said: Vec<String> = reasons
        .flat_map(|reason| [reason.text().to_owned(), reason.to_string()])
        .collect();
    said.dedup();
    said.extend(FAILED.map(|failed| failed.to_string()));
    said.extend(outcomes.map(|outcome| outcome.to_string()));
    said.extend(subjects.map(|subject| subject.to_string()));
    insta::assert_snapshot!(said.join("\n"));
}

/// Texts that nobody sees, each with where it stands: no messages, or what `cel/scan.rs` refuses before.
const OTHERS: [(&str, &str); 4] = [
    ("cel/parse.rs", "Syntax error: "),
    ("cel/parse.rs", "bytes are not supported"),
    ("cel/parse.rs", "the number is too large"),
    ("cel/parse.rs", "this construct is not supported"),
];

/// Reads the sources, so that a message that is written tomorrow has a snapshot as well.
#[test]
fn every_message_stands_in_a_snapshot() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let shown = snapshots();
    let mut messages = 0;
    let mut missing = Vec::new();
    for path in rust(&sources) {
        let place = path.strip_prefix(&sources).unwrap().display().to_string();
        for text in messages_of(&place, &fs::read_to_string(&path).unwrap()) {
            messages += 1;
            if !shown.iter().any(|line| is_shown(&text, line)) {
                missing.push(format!("{place}: {text}"));
            }
        }
    }
    assert!(messages > 250, "only {messages} messages were found");
    assert_eq!(missing, [""; 0]);
}

fn rust(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !path.ends_with("tests.rs")
        {
            found.push(path);
        }
    }
    found
}

fn snapshots() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots");
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        // Behind the head, which repeats the test's source.
        let body = text.splitn(3, "---\n").nth(2).unwrap();
        lines.extend(body.lines().map(str::to_owned));
    }
    lines
}

/// The messages that a source can come to: where faults are found all texts of more than a word, elsewhere those of
/// errors.
fn messages_of(place: &str, source: &str) -> Vec<String> {
    let folder = place.split('/').next().unwrap();
    let finds = matches!(folder, "load" | "check" | "yaml" | "set.rs")
        || matches!(place, "cel/check.rs" | "cel/parse.rs" | "cel/scan.rs")
        || matches!(
            place,
            "decide/verdict.rs" | "decide/explain.rs" | "decide/arguments/mod.rs"
        );
    let errors = matches!(folder, "model" | "name" | "path" | "glob.rs");
    let own = source.split("#[cfg(test)]\nmod tests").next().unwrap();
    let token = Regex::new(r#"(?s)//[^\n]*|'(?:\\.|[^'\\])'|"((?:[^"\\]|\\.)*)""#).unwrap();
    let mut messages = Vec::new();
    for found in token.captures_iter(own) {
        let Some(text) = found.get(1) else { continue };
        let before = own[..text.start() - 1].trim_end();
        let wanted =
            (finds && !before.ends_with("reason =")) || (errors && before.ends_with("error("));
        let text = unescaped(text.as_str());
        if wanted && text.trim().contains(' ') && !OTHERS.contains(&(place, &*text)) {
            messages.push(text);
        }
    }
    messages
}

fn unescaped(literal: &str) -> String {
    let joined = Regex::new(r"\\\n\s*").unwrap().replace_all(literal, "");
    joined.replace("\\\"", "\"").replace("\\\\", "\\")
}

/// Whether `line` is the message `text`, whatever stands in its braces.
fn is_shown(text: &str, line: &str) -> bool {
    let text = text.replace("{{", "\u{1}").replace("}}", "\u{2}");
    let mut rest = line;
    for part in text
        .split('{')
        .enumerate()
        .map(|(place, part)| match place {
            0 => part,
            _ => part.split_once('}').map_or(part, |(_, behind)| behind),
        })
    {
        let part = part.replace('\u{1}', "{").replace('\u{2}', "}");
        let Some((_, behind)) = rest.split_once(&*part) else {
            return false;
        };
        rest = behind;
    }
    true
}
