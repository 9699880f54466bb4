//! The documented example, in the parts that this version supports; and the rest, refused by name.

use exeat_policy::{Data, EnvValue, Transport};

use crate::support::*;

const SUPPORTED: &str = r#"
version: 1

servers:
  github:
    purpose: issues and pull requests for the platform team
    owner: platform@example.com
    data: internal
    review_by: 2027-02-01
    launch:
      command: npx
      args: [-y, "@modelcontextprotocol/server-github@2026.8.31"]
      user: mcp
      fetch: [packages.example.com]
      env: { GITHUB_TOKEN: { secret: github-read } }
    egress:
      - { host: api.github.com, methods: [GET, POST], paths: ["/repos/acme/**", "/search/**"], credential: github-read }
      - { host: "*.githubusercontent.com", methods: [GET] }
      - { host: wiki.corp.example, private: true }
      - { cidr: 10.20.0.0/16, ports: [5432], protocol: tcp }
    tools:
      "get_*": read
      "list_*": read
      create_issue: { class: write }
      "delete_*": destructive
  linear:
    purpose: ticket search
    owner: product@example.com
    url: https://mcp.linear.app/mcp
  inventory:
    listen: 127.0.0.1:3001
    match: { unit: inventory-mcp.service }

credentials:
  github-read: { file: /etc/exeat/secrets/github-read }

hosts:
  claude-code: { match: { exe: /usr/local/bin/claude, user: "dev*" }, servers: [github, linear], egress: [{ host: api.anthropic.com, kind: model }] }

identities:
  research-agent: { user: research }
  analysts:       { user: "analyst*" }
  finance:        { user: fin }
  dave:           { user: dave }

roles:
  reader: { members: [analysts, research-agent], grants: [{ servers: [github], classes: [read] }, { servers: [linear], tools: ["search_*"] }] }

rules:
  - id: no-shell-tricks
    tools: ["*"]
    args: [{ any: true, matches: '(?i)rm\s+-rf|DROP\s+TABLE' }]
    effect: deny
    reason: destructive command in an argument
  - id: big-invoices-need-a-person
    who: [research-agent]
    servers: [inventory]
    tools: [send_invoice]
    when: has(args.amountCents) && args.amountCents > 100000
    effect: approve
    approvers: [finance]
    timeout: 10m
  - id: try-the-new-rule
    tools: { class: destructive }
    effect: deny
    mode: observe
    expires: 2027-01-01

breaker: { error_rate: 20%, window: 30s, min_calls: 10, open_for: 30s }
mask: [{ servers: [linear], args: [/customer/email], results: ["/content/*/text"] }]
responses: { max_bytes: 1MiB, content: [text, image], structured: required }

limits:
  - { per: [session, tool], calls: 30 }
  - { per: [session], calls: 100 }
  - { per: [identity, tool], rate: 60/min }
  - { per: [identity], servers: [inventory], sum: /amountCents, max: 500000, window: 24h }
"#;

#[test]
fn the_supported_example_compiles() {
    let set = exeat_policy::compile(&[source("example.yaml", SUPPORTED)])
        .unwrap_or_else(|faults| panic!("{}", shown(&faults)));
    assert_eq!(
        set.servers()
            .map(|server| &*server.name)
            .collect::<Vec<_>>(),
        ["github", "inventory", "linear"]
    );
    let github = set.server("github").unwrap();
    assert_eq!(github.data, Some(Data::Internal));
    let launch = github.launch().unwrap();
    assert_eq!(
        launch.env,
        [(
            "GITHUB_TOKEN".to_owned(),
            EnvValue::Secret("github-read".to_owned())
        )]
    );
    assert_eq!(launch.user.as_deref(), Some("mcp"));
    assert_eq!(github.egress.len(), 4);
    let Transport::Url(url) = &set.server("linear").unwrap().transport else {
        panic!("not a url")
    };
    assert_eq!(url.to_string(), "https://mcp.linear.app/mcp");
    assert_eq!(set.host("claude-code").unwrap().servers.len(), 2);
    assert!(set.identity("dave").is_some());
    assert_eq!((set.written_rules().count(), set.limits().len()), (3, 4));
    assert_eq!(set.rules().len(), 5);
    assert_eq!(set.fingerprint().len(), 64);
}

#[test]
fn what_later_versions_bring_is_refused_by_name() {
    let text = r"
version: 1
servers:
  github:
    launch: { command: npx }
    egress:
      - { host: api.github.com }
    tools:
      create_issue: { class: write, labels: [x] }
    labels: { returns: [untrusted], reads: [private] }
  inventory:
    listen: 127.0.0.1:3001
    match: { unit: x.service }
identities:
  research-agent: { jwt: { issuer: https://login.example.com, claims: { appid: 7f3c0a } } }
rules:
  - { id: b, who: [research-agent], effect: approve }
detect: {}
manifest: {}
sequences: []
anomaly: {}
exceptions: []
";
    insta::assert_snapshot!(faults(text));
}

/// Every example in the documentation is a policy; the parts of one that show no first line are taken for one that has it.
#[test]
fn documented_examples_compile() {
    let pages = [
        include_str!("../../agent/docs/policy.md"),
        include_str!("../../README.md"),
    ];
    let (mut whole, mut parts) = (0, 0);
    for page in pages {
        for block in page.split("```yaml\n").skip(1) {
            let text = block.split("```").next().unwrap();
            if text.starts_with("version: 1") {
                assert_eq!(faults(text), "", "{text}");
                whole += 1;
            } else if text.starts_with("servers:") {
                assert_eq!(faults(&format!("version: 1\n{text}")), "", "{text}");
                parts += 1;
            }
        }
    }
    assert_eq!((whole, parts), (17, 3));
}
