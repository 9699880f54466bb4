//! Cases in, verdicts and reports out.

use clap::CommandFactory as _;
use exeat_policy::Source;

use super::*;
use crate::cli::args::Cli;
use crate::cli::output::Painter;

const POLICY: &str = r#"version: 1
servers:
  bank: { launch: { command: bank, fetch: [packages.example.com] }, egress: [{ host: api.example.com, methods: [GET] }] }
hosts: { claude: { servers: [bank] } }
identities:
  dave: { user: dave }
  analysts: { jwt: { issuer: "https://login.example.com", claims: { groups: analysts } } }
  robots: { certificate: { authority: corp, uri: "spiffe://corp/*", dns: "*.bots.example" } }
roles: { clerk: { members: [dave], grants: [{ servers: [bank], tools: ["get_*"] }] } }
rules:
  - { id: small, who: [dave], servers: [bank], tools: [pay], args: [{ field: /cents, max: 9007199254740992 }], effect: allow }
  - { id: trying, tools: [get_all], effect: deny, mode: observe }
  - { id: ask, servers: [bank], tools: [refund], effect: approve }
  - { id: search, who: [analysts], servers: [bank], tools: [search], when: caller.claims.tenant == 'acme' && caller.subject == 'ann', effect: allow }
  - { id: robots, who: [robots], servers: [bank], tools: [feed], effect: allow }
  - { id: reading, who: [dave], servers: [bank], tools: { class: [read] }, effect: allow }
  - { id: once, who: [dave], servers: [bank], tools: [once], effect: allow, expires: 2026-12-31 }
"#;

const CASES: &str = r#"version: 1
today: 2026-12-01
cases:
  - { name: a grant, user: dave, server: bank, tool: get_x, expect: { effect: allow, rule: clerk/1 } }
  - { name: nobody, server: bank, tool: get_x, expect: deny }
  - { name: small, user: dave, server: bank, tool: pay, args: { cents: 9007199254740992 }, expect: { effect: allow, rule: small } }
  - { name: large, user: dave, server: bank, tool: pay, args: { cents: 9007199254740993, note: "5" }, expect: deny }
  - { name: observed, user: dave, server: bank, tool: get_all, expect: { effect: allow, would: deny } }
  - { name: asked for, user: dave, server: bank, tool: refund, expect: { effect: approve, rule: ask } }
  - { name: start, user: dave, server: bank, expect: allow }
  - { name: start by another, user: eve, server: bank, expect: deny }
  - { name: session, host: claude, server: bank, method: initialize, expect: allow }
  - { name: leaves, server: bank, request: [GET, "https://api.example.com/x"], expect: allow }
  - { name: connects, server: bank, connect: "api.example.com:22", expect: deny }
  - { name: before, user: dave, server: bank, tool: once, expect: allow }
  - { name: an analyst, token: { issuer: "https://login.example.com", subject: ann, claims: { groups: [a, analysts], tenant: acme } }, server: bank, tool: search, expect: { effect: allow, rule: search } }
  - { name: of another tenant, token: { issuer: "https://login.example.com", subject: ann, claims: { groups: [a, analysts], tenant: evil } }, server: bank, tool: search, expect: deny }
  - { name: no analyst, token: { issuer: "https://login.example.com", subject: ann, claims: { tenant: acme } }, server: bank, tool: search, expect: deny }
  - { name: a robot, certificate: { authority: corp, uri: "spiffe://corp/x", dns: [x.example, X.BOTS.example] }, server: bank, tool: feed, expect: { effect: allow, rule: robots } }
  - { name: no robot, certificate: { authority: corp, uri: "spiffe://corp/x", common_name: x.bots.example }, server: bank, tool: feed, expect: deny }
  - { name: listed as reading, user: dave, server: bank, tool: look, hints: { readOnlyHint: true, openWorldHint: false }, expect: { effect: allow, rule: reading } }
  - { name: listed as anything, user: dave, server: bank, tool: look, expect: deny }
  - { name: upgrades, server: bank, request: [GET, "https://api.example.com/x"], upgrade: true, expect: deny }
  - { name: fetches, server: bank, fetching: true, request: [GET, "https://packages.example.com/x"], expect: allow }
  - { name: fetches later, server: bank, request: [GET, "https://packages.example.com/x"], expect: deny }
  - { name: after, today: 2027-01-01, user: dave, server: bank, tool: once, expect: deny }
"#;

fn source(name: &str, text: &str) -> Source {
    Source {
        name: name.to_owned(),
        text: text.to_owned(),
    }
}

fn set() -> PolicySet {
    compile(&[source("p.yaml", POLICY)]).unwrap()
}

fn report(cases: &str) -> Report {
    let set = set();
    let cases = cases::read(&source("p.test.yaml", cases), &set).unwrap();
    let now = Timestamp::from_seconds(1_795_219_200);
    Report::new(cases.iter().map(|case| judge(&set, case, now)).collect())
}

#[test]
fn what_is_as_expected_passes() {
    let report = report(CASES);
    assert_eq!(
        (report.passed, report.failed),
        (23, 0),
        "{}",
        report.text(Painter::default())
    );
}

#[test]
fn what_is_otherwise_is_told() {
    let report = report(
        r#"version: 1
cases:
  - { name: "<a> & \"b\"", user: dave, server: bank, tool: get_x, expect: deny }
  - { user: dave, server: bank, tool: get_x, expect: { effect: allow, rule: small } }
  - { name: c, user: dave, server: bank, tool: get_all, expect: { effect: allow, would: approve } }
  - { name: d, user: dave, server: bank, tool: get_x, expect: { effect: allow, would: deny } }
  - { name: e, user: dave, server: bank, tool: get_x, expect: allow }
"#,
    );
    insta::assert_snapshot!("failures", report.text(Painter::default()));
    insta::assert_snapshot!("junit", report.junit());
}

#[test]
fn cases_that_test_nothing_are_faults() {
    let faults = cases::read(
        &source(
            "p.test.yaml",
            r#"version: 1
cases:
  - { user: dave, server: bnak, tool: x, expect: deny }
  - { host: claud, server: bank, tool: x, expect: { effect: deny, rule: smal } }
  - { server: bank, tool: x, method: ping, expect: deny }
  - { server: bank, tool: x, args: [1], expect: denied }
  - { server: bank, args: { a: 1 }, expect: deny }
  - { server: bank, tool: x, args: { a: 0x10 }, expect: deny }
  - { request: [GET], expect: deny }
  - { connect: x:1, expect: deny }
  - { server: bank, connect: x, expect: deny }
  - { user: dave, expect: deny }
  - { server: bank, tool: x }
  - { server: bank, tool: x, today: tomorrow, expect: deny }
  - { token: { issuer: "https://other.example" }, server: bank, tool: x, expect: deny }
  - { token: { subject: ann, claim: { a: b } }, server: bank, tool: x, expect: deny }
  - { certificate: { authority: crop, uri: [{}] }, server: bank, tool: x, expect: deny }
  - { token: { issuer: "https://login.example.com", claims: [a] }, server: bank, expect: deny }
  - { server: bank, tool: x, hints: { readOnly: true, openWorldHint: maybe }, fetching: true, expect: deny }
  - { server: bank, method: ping, hints: { readOnlyHint: true }, upgrade: true, expect: deny }
"#,
        ),
        &set(),
    )
    .unwrap_err();
    let shown: Vec<_> = faults.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!("faults", shown.join("\n"));
}

/// What `policy test --help` shows as a file of cases is one, and says what it seems to say.
#[test]
fn the_cases_in_the_help_are_cases() {
    let mut command = Cli::command();
    let policy = command.find_subcommand_mut("policy").unwrap();
    let test = policy.find_subcommand_mut("test").unwrap();
    let help = test.get_after_help().unwrap().to_string();
    let shown = help.split_once("A file of cases:\n").unwrap().1;
    // What stands far to the right is a remark.
    let cases: Vec<String> = shown
        .lines()
        .map(|line| {
            let line = line.strip_prefix("  ").unwrap_or(line);
            let words = line.trim_start();
            let indent = " ".repeat(line.len() - words.len());
            format!("{indent}{}", words.split("   ").next().unwrap())
        })
        .collect();
    let policy = "version: 1
servers: { billing: { launch: { command: bill } } }
identities:
  dave: { user: dave }
  analysts: { jwt: { issuer: https://login.example.com, claims: { groups: analysts } } }
  robots: { certificate: { authority: corp } }
rules:
  - { id: small-payments, who: [dave], servers: [billing], tools: [pay], args: [{ field: /amountCents, max: 100 }], effect: allow }
";
    let set = compile(&[source("p.yaml", policy)]).unwrap();
    let cases = cases::read(&source("p.test.yaml", &cases.join("\n")), &set).unwrap();
    let now = Timestamp::from_seconds(1_795_219_200);
    let report = Report::new(cases.iter().map(|case| judge(&set, case, now)).collect());
    let said = report.text(Painter::default());
    assert_eq!((report.passed, report.failed), (4, 0), "{said}");
}
