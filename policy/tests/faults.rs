//! Faults as people see them: one snapshot for each part of the language.

use crate::support::*;

#[test]
fn files() {
    for (name, text) in [
        ("empty", ""),
        ("not_a_mapping", "- a\n- b\n"),
        ("no_version", "servers: {}\n"),
        ("wrong_version", "version: 2\n"),
        ("quoted_version", "version: \"1\"\n"),
        ("syntax", "version: 1\nservers: [\n"),
        (
            "misspelt",
            "version: 1\nserver: {}\nrulse: []\nfirewall: {}\nmode: observ\nstrict_review: yes\n",
        ),
    ] {
        insta::assert_snapshot!(format!("file_{name}"), faults(text));
    }
}

#[test]
fn servers() {
    insta::assert_snapshot!(faults(
        r#"version: 1
servers:
  none: { purpose: x }
  both: { launch: { command: a }, url: "https://a.example/" }
  root: { launch: { command: a, user: root } }
  no-command: { launch: { args: [1, true, ~] } }
  "bad name": { url: "https://a.example/" }
  urls: { url: "ftp://a.example/" }
  user-url: { url: "https://me:secret@a.example/" }
  query: { url: "https://a.example/mcp?key=1" }
  number: { url: "https://2130706433/" }
  port: { listen: 127.0.0.1 }
  data: { launch: { command: a }, data: secret, review_by: 2027-02-30, owner: 7 }
  env: { launch: { command: a, env: { "A-B": x, C: [1], D: { secrets: x }, E: { secret: "a b" } } } }
  tools: { launch: { command: a }, tools: { "": read, "a[b]": read, c: reads, d: { klass: read } } }
  matched: { url: "https://a.example/", match: { user: x }, egress: [] }
  listening: { listen: "127.0.0.1:1", egress: [] }
  matcher: { listen: "127.0.0.1:2", match: { args: [x], sha256: abc, unit: nginx, exe: claude } }
  nothing: { listen: "127.0.0.1:3", match: {} }
  fetch: { launch: { command: a, fetch: ["*.example.com", 127.0.0.1] } }
"#
    ));
}

#[test]
fn egress() {
    insta::assert_snapshot!(faults(
        r#"version: 1
servers:
  s:
    launch: { command: a }
    egress:
      - {}
      - { host: a.example, cidr: 10.0.0.0/8 }
      - { host: "*" }
      - { host: "*.com" }
      - { host: "*.co.uk" }
      - { host: "api-*.example.com" }
      - { host: 127.1 }
      - { host: "127.0.0.1" }
      - { host: "0x7f.1" }
      - { host: bücher.example }
      - { host: "https://a.example" }
      - { host: a.example, port: 443 }
      - { host: a.example, ports: [0, 65536, "80", 443, 443] }
      - { host: a.example, ports: [] }
      - { host: b.example, methods: [get, "*"], paths: [] }
      - { host: c.example, methods: [] }
      - { host: c.example, methods: [GET, CONNECT], ports: [8080] }
      - { host: d.example, paths: ["repos/**", "/a/../b", "/a**", "/%61", "/a?b=c"] }
      - { host: e.example, tls: pass, private: 1, kind: llm, addresses: real, protocol: udp }
      - { host: f.example, tls: passthrough, methods: [GET] }
      - { host: g.example, protocol: tcp, tls: off }
      - { cidr: 10.1.0.0/8, ports: [1] }
      - { cidr: 10.0.0.0, ports: [1] }
      - { cidr: 10.0.0.0/8, methods: [GET] }
      - { host: h.example }
      - { host: h.example, ports: [80, 443], tls: passthrough }
      - { host: h.example, private: true }
"#
    ));
}

#[test]
fn rules_and_limits() {
    insta::assert_snapshot!(faults(
        r#"version: 1
servers: { github: { launch: { command: a } }, linear: { url: "https://l.example/" } }
hosts: { claude: { servers: [github, githib], unregistered: kill } }
identities: { dave: { user: dave }, claude: { user: x }, none: {}, empty: { user: [] } }
rules:
  - { effect: allow }
  - { id: a }
  - { id: a, effect: allow, servers: [gihub], who: [dvae] }
  - { id: b, effect: permit, mode: off, expires: tomorrow }
  - { id: c, effect: allow, servers: [], who: [], tools: [], methods: [] }
  - { id: d, effect: deny, tools: { class: reads } }
  - { id: e, effect: deny, tools: { class: [] } }
  - { id: f, effect: deny, tools: "get_*", servers: github }
  - { id: g, effect: deny, methods: [resources/read], tools: { class: read } }
  - { id: h, effect: deny, methods: [initialize, ping], tools: [x] }
  - { id: i, effect: allow, who: [claude], servers: [linear] }
  - { id: j, effect: allow, servers: [github, github] }
limits:
  - {}
  - { per: [], calls: 1 }
  - { per: [sesion, tool, tool], calls: 0, rate: 1/min }
  - { per: [tool], rate: 60 }
  - { per: [tool], rate: "0/min" }
  - { per: [server], rate: 60/week, servers: [x] }
  - { per: [server], sum: amount, max: -1, window: 1w }
  - { per: [server], sum: /amount }
  - { per: [server], sum: /amount, calls: 1, max: 1e30, window: 24h }
  - { per: [server], calls: 1, max: 1 }
  - { per: [session, tool], methods: [tools/call, resources/read], calls: 1 }
  - { per: [tool], methods: ["prompts/*"], calls: 1 }
  - { per: [server], methods: [prompts/get], sum: /n, max: 1, window: 1h }
  - { per: [server], methods: [], calls: 1 }
  - { per: [server], methods: resources/read, calls: 1 }
  - { per: [server], methods: ["resources/*"], tools: { class: read }, calls: 1 }
  - { per: [server], methods: [sampling/createMessage, roots/list], tools: [x], calls: 1 }
  - { per: [session, tool], methods: [tools/call, prompts/get], calls: 1 }
"#
    ));
}

#[test]
fn roles() {
    insta::assert_snapshot!(faults(
        r#"version: 1
servers: { github: { launch: { command: a } } }
hosts: { claude: { servers: [] } }
identities: { dave: { user: dave } }
roles:
  nothing: {}
  empty: { members: [], grants: [] }
  unknown: { members: [dvae], grants: [{ servers: [gihub], tools: [], classes: [reads] }] }
  nested: { members: [unknown, dave, dave], grants: [{ servers: [github] }] }
  dave: { members: [dave], grants: [{ tools: ["x"] }] }
  unused: { members: [dave] }
  no-server: { members: [dave], grants: [{ servers: [] }] }
  fine: { members: [dave], grants: [{ servers: [github], classes: [] }] }
  denied: { members: [dave], grants: [{ servers: [github], tools: ["get_x"] }] }
  unlisted: { members: [claude], grants: [{ servers: [github] }] }
rules:
  - { id: all-gets, tools: ["get_*"], effect: deny }
  - { id: a, who: [fien], effect: allow }
  - { id: "fine/1", who: [fine], effect: allow }
"#
    ));
}

#[test]
fn arguments() {
    insta::assert_snapshot!(faults(
        r#"version: 1
rules:
  - { id: a1, effect: deny, args: [] }
  - { id: a2, effect: deny, args: {} }
  - { id: a3, effect: deny, args: [{}, { field: /x }, { matches: x }] }
  - { id: a4, effect: deny, args: [{ field: x, matches: x }, { field: "/a~b", absent: true }] }
  - { id: a5, effect: deny, args: [{ field: /x, any: true, matches: x }, { any: false, matches: x }] }
  - { id: a6, effect: deny, args: [{ any: true, matches: '(' }, { any: true, matches: '(?=x)' }] }
  - { id: a7, effect: deny, args: [{ any: true, matches: '\w{1000}{1000}' }, { any: true, glob: '[a]' }] }
  - { id: a8, effect: deny, args: [{ field: /x, min: "1" }, { field: /x, max: 0x10 }, { field: /x, above: 1_000 }, { field: /x, below: .inf }] }
  - { id: a9, effect: deny, args: [{ field: /x, in: [] }, { field: /x, in: [[x], ~, True, 0x1] }] }
  - { id: b1, effect: deny, args: [{ field: /x, length: {} }, { field: /x, length: -1 }, { field: /x, length: { min: 3, max: 2 } }] }
  - { id: b2, effect: deny, args: [{ field: /x, type: strings }, { field: /x, type: text, absent: yes }] }
  - { id: b3, effect: deny, args: [{ field: /x, absent: true, type: string }, { any: true, absent: true }] }
  - { id: b4, effect: deny, args: [{ field: /x, matches: x, min: 1 }, { field: /x, type: number, glob: x }, { field: /x, min: 2, max: 1.5 }, { field: /x, above: 1, below: 1.0 }] }
  - { id: b5, effect: deny, args: [{ any: true, keys: true, min: 1 }, { field: /x, keys: false, matches: x }] }
  - { id: b6, effect: allow, tools: [x], args: [{ any: true, matches: x }] }
  - { id: b7, effect: deny, args: [{ field: /x, regex: x }, { path: /x, matches: x }] }
  - { id: b8, effect: deny, approvers: [dave], timeout: 10m }
  - { id: b9, effect: approve, approvers: [], timeout: 10 }
"#
    ));
}

/// Tests that contradict each other, in one entry and over several about the same value.
#[test]
fn arguments_that_contradict_each_other() {
    insta::assert_snapshot!(faults(
        r#"version: 1
servers: { a: { launch: { command: a } } }
rules:
  - { id: a1, effect: deny, tools: [a1], args: [{ field: /x, min: 5 }, { field: /y, matches: x }, { field: /x, max: 4 }] }
  - { id: a2, effect: deny, tools: [a2], args: [{ field: /x, type: string }, { field: /x, type: integer }] }
  - { id: a3, effect: deny, tools: [a3], args: [{ field: /x, absent: true }, { field: /x/y, glob: "a*" }] }
  - { id: a4, effect: deny, tools: [a4], args: [{ field: "/x/*/y", min: 1 }, { field: "/x/*", absent: true }] }
  - { id: a5, effect: deny, tools: [a5], args: [{ field: /x, in: [a, b], type: number }] }
  - { id: a6, effect: deny, tools: [a6], args: [{ field: /x, in: [1, 2, true] }, { field: /x, above: 3 }] }
  - { id: a7, effect: allow, tools: [a7], args: [{ field: /x, in: [main, develop], glob: "release/*" }] }
  - { id: a8, effect: allow, tools: [a8], args: [{ field: "/x/*", in: [main] }, { field: "/x/*", in: [develop] }] }
  - { id: a9, effect: allow, tools: [a9], args: [{ field: /x, keys: true, in: [a] }, { field: /x, keys: true, matches: '^b' }] }
  - { id: b1, effect: allow, tools: [b1], args: [{ field: /x, length: { min: 3 } }, { field: /x, length: 2 }] }
  - { id: b2, effect: allow, tools: [b2], args: [{ field: /x, min: 3 }, { field: /x, length: 2 }] }
"#
    ));
}

/// What only looks like a contradiction: other values, other forms of a text, other effects.
#[test]
fn arguments_that_some_value_passes_are_not_accused() {
    let text = r#"version: 1
servers: { a: { launch: { command: a } } }
rules:
  - { id: several, effect: deny, tools: [a1], args: [{ field: "/x/*", min: 5 }, { field: "/x/*", max: 4 }] }
  - { id: forms, effect: deny, tools: [a2], args: [{ field: /x, in: [main] }, { field: /x, glob: "release/*" }] }
  - { id: lengths, effect: deny, tools: [a3], args: [{ field: /x, in: [main], length: 9 }] }
  - { id: keys, effect: deny, tools: [a4], args: [{ field: /x, keys: true, glob: "a*" }, { field: /x, keys: true, glob: "b*" }, { field: /x, type: object }] }
  - { id: absent, effect: deny, tools: [a5], args: [{ field: /x, absent: true }, { field: /xy, min: 1 }, { field: /x/y, absent: true }] }
  - { id: there, effect: deny, tools: [a6], args: [{ field: /x, absent: false }, { field: /x, type: string }, { field: /x, matches: a }] }
  - { id: some, effect: allow, tools: [a7], args: [{ field: /x, in: [main, release/1], glob: "release/*" }] }
  - { id: numbers, effect: allow, tools: [a8], args: [{ field: /x, in: [1, 2.0] }, { field: /x, type: integer }, { field: /x, min: 2 }] }
  - { id: touching, effect: allow, tools: [a9], args: [{ field: /x, min: 5 }, { field: /x, max: 5.0, type: number }] }
  - { id: anywhere, effect: deny, tools: [b1], args: [{ any: true, glob: "a*" }, { any: true, min: 5 }] }
  - { id: doubles, effect: deny, tools: [b2], args: [{ field: /x, in: [1, 2] }, { field: /x, above: 2, max: 2 }] }
"#;
    assert_eq!(faults(text), "");
}

#[test]
fn hosts_that_contradict_their_servers() {
    insta::assert_snapshot!(faults(
        r#"version: 1
servers:
  a: { url: "https://mcp.corp.example/a" }
  b: { url: "http://mcp.corp.example:443/b" }
  c: { listen: 127.0.0.1:9, match: { user: x } }
  d: { listen: 127.0.0.1:8, match: { user: x } }
hosts:
  one: { servers: [a, b] }
  two: { servers: [a], egress: [{ host: mcp.corp.example, tls: passthrough }] }
  fine: { servers: [a], egress: [{ host: mcp.corp.example, methods: [GET] }, { host: "*.corp.example", tls: passthrough }] }
"#
    ));
}

#[test]
fn networks_that_would_pass_servers_by() {
    insta::assert_snapshot!(faults(
        r#"version: 1
servers:
  a: { url: "http://localhost:3001/mcp" }
  b: { url: "https://10.1.2.3/mcp" }
  c: { listen: "0.0.0.0:3002", match: { user: x } }
  d: { launch: { command: d }, egress: [{ cidr: 127.0.0.0/8, ports: [3001, 3002] }] }
  named: { url: "https://mcp.corp.example/" }
hosts:
  one: { servers: [a], egress: [{ cidr: 127.0.0.0/8, ports: [3001], protocol: tcp }] }
  listed: { servers: [named], egress: [{ host: "*.corp.example", tls: passthrough }] }
  names: { servers: [], egress: [{ host: "*.corp.example", tls: passthrough }, { host: localhost, protocol: tcp, ports: [3001, 3003], private: true }] }
  two: { servers: [], egress: [{ cidr: 10.1.2.3/32, ports: [22, 443] }, { cidr: "::/0", ports: [3001] }] }
  fine: { servers: [a, b, named], egress: [{ cidr: 127.0.0.0/8, ports: [3001], protocol: udp }, { cidr: 10.0.0.0/8, ports: [22, 3002] }, { cidr: 192.0.2.0/24, ports: [443] }] }
"#
    ));
}

#[test]
fn names_given_in_two_files() {
    let one = "version: 1\nmode: observe\nservers: { a: { launch: { command: a } } }\nrules: [{ id: r, effect: allow }]\n";
    let two = "version: 1\nmode: enforce\nservers: { a: { launch: { command: b } } }\nrules: [{ id: r, effect: allow }]\n";
    let faults =
        exeat_policy::compile(&[source("20.yaml", two), source("10.yaml", one)]).unwrap_err();
    insta::assert_snapshot!(shown(&faults));
}

#[test]
fn rules_that_cannot_matter() {
    insta::assert_snapshot!(faults(
        r#"version: 1
servers: { a: { launch: { command: a } }, b: { launch: { command: b } } }
identities: { dave: { user: dave }, eve: { user: eve } }
rules:
  - { id: late-deny-hides-this, servers: [a], tools: ["get_x", "get_y*"], effect: allow }
  - { id: wide, servers: [a, b], tools: ["get_*"], effect: deny }
  - { id: narrower-deny, who: [dave], servers: [b], tools: ["get_z"], effect: deny }
  - { id: eve-nothing, who: [eve], effect: deny }
  - { id: eve-something, who: [eve], servers: [a], methods: [tools/call], tools: { class: read }, effect: allow }
  - { id: destructive, tools: { class: [destructive, external] }, effect: deny }
  - { id: external, servers: [a], tools: { class: external }, effect: allow }
  - { id: ask, servers: [b], tools: ["pay_*"], effect: approve }
  - { id: pay-is-asked-for, servers: [b], tools: [pay_x], args: [{ field: /n, max: 5 }], effect: allow }
  - { id: dry, servers: [b], tools: [pay_y], effect: dry_run }
  - { id: dave-is-asked, servers: [b], tools: [sell], effect: approve, approvers: [dave] }
  - { id: both-are-asked, servers: [b], tools: [sell], effect: approve, approvers: [dave, eve] }
"#
    ));
}

#[test]
fn rules_that_can_matter_are_not_accused() {
    let text = r#"version: 1
servers: { a: { launch: { command: a } }, b: { launch: { command: b } } }
identities: { dave: { user: dave }, eve: { user: eve } }
rules:
  - { id: observed, servers: [a], effect: deny, mode: observe }
  - { id: expiring, servers: [a], tools: [x], effect: deny, expires: 2027-01-01 }
  - { id: x, servers: [a], tools: [x], effect: allow }
  - { id: other-server, servers: [b], tools: [y], effect: deny }
  - { id: y, servers: [a, b], tools: [y], effect: allow }
  - { id: other-user, who: [eve], tools: [z], effect: deny }
  - { id: z, tools: [z], effect: allow }
  - { id: narrow, tools: ["get_a?"], effect: deny }
  - { id: wide, tools: ["get_*"], effect: allow }
  - { id: names, tools: ["del*"], effect: deny }
  - { id: class, tools: { class: destructive }, effect: allow }
  - { id: reads, tools: { class: read }, effect: deny }
  - { id: two-classes, tools: { class: [read, write] }, effect: allow }
  - { id: all-methods, servers: [b], methods: ["*"], effect: deny }
  - { id: start, servers: [b], effect: allow }
  - { id: both-are-asked, servers: [a], tools: [sell], effect: approve, approvers: [dave, eve], timeout: 5m }
  - { id: eve-alone-is-asked, servers: [a], tools: [sell], effect: approve, approvers: [eve], timeout: 5m }
  - { id: asked-in-a-hurry, servers: [a], tools: [sell], effect: approve, approvers: [dave, eve], timeout: 1m }
  - { id: deny-later, servers: [a], tools: [w1], effect: deny }
  - { id: deny-wider-later, servers: [a], tools: ["w*"], effect: deny }
  - { id: some-arguments, servers: [a], tools: [v], args: [{ field: /n, min: 5 }], effect: deny }
  - { id: other-arguments, servers: [a], tools: [v], effect: allow }
  - { id: ask, servers: [a], tools: [u], args: [{ field: /n, min: 5 }], effect: approve }
  - { id: asked, servers: [a], tools: [u], effect: allow }
  - { id: weaker-and-wider, servers: [a], tools: ["t*"], effect: dry_run }
  - { id: stronger-and-narrower, servers: [a], tools: [t1], effect: approve }
"#;
    assert_eq!(faults(text), "");
}

/// The character that is wrong, wherever the expression stands in the file.
#[test]
fn conditions() {
    insta::assert_snapshot!(faults(
        r#"version: 1
servers: { a: { launch: { command: a } } }
rules:
  - { id: plain, when: args.n > 4 && arg.m, effect: deny }
  - { id: quoted, when: "args.s == 'a' || cal.user == 'x'", effect: deny }
  - id: block
    when: |
      args.n > 4
        && tol == 'x'
    effect: deny
  - id: folded
    when: >
      args.n > 4
      && tol == 'x'
    effect: deny
  - id: escaped
    when: "args.s == \"a\" && tol == 'x'"
    effect: deny
  - { id: several, when: a == b, effect: deny }
  - { id: number, when: 5, effect: deny }
  - { id: always, when: "true", effect: deny }
  - { id: unfinished, when: "args.n ==", effect: deny }
"#
    ));
}

#[test]
fn identities() {
    insta::assert_snapshot!(faults(
        r#"version: 1
servers: { s: { launch: { command: a }, authorization: strip }, t: { url: "https://t.example/", authorization: drop } }
identities:
  both: { user: dave, jwt: { issuer: "https://a.example" } }
  none: {}
  no-issuer: { jwt: { claims: { a: b } } }
  odd: { jwt: { issuer: 7, audience: x, claims: { a: 7, b: [], /c~: d, "": e, f: [g, null] } } }
  empty: { jwt: { issuer: x, claims: {} } }
  listed: { jwt: [x] }
  two: { certificate: { authority: corp }, user: dave }
  whose: { user: a, person: [b] }
  nobody: { certificate: { uri: "spiffe://a/b" } }
  numbered: { certificate: { authority: 7 } }
  strange: { certificate: { authority: corp, san: x, dns: [], email: 7, common_name: "a[b]" } }
"#
    ));
}

#[test]
fn credentials() {
    insta::assert_snapshot!(faults(
        r#"version: 1
credentials:
  none: {}
  both: { file: /a, systemd: b }
  relative: { file: a/b }
  names: { systemd: ../x }
  commands: { command: [key] }
  no-command: { command: [] }
  ways: { file: /a, header: X-Key, query: key }
  prefixes: { file: /a, query: key, prefix: x }
  lonely-prefix: { file: /a, prefix: x }
  hosts: { file: /a, header: Host }
  headers: { file: /a, header: "a b" }
  parameters: { file: /a, query: "a&b" }
  users: { file: /a, basic: "a:b" }
  signed: { file: /a, aws_sigv4: { region: a }, header: X-Key }
  signing: { file: /a, aws_sigv4: { service: s3, regoin: a }, prefix: x }
  times: { file: /a, refresh: soon, hosts: [] }
  fine: { file: /a }
  homed: { file: /a, hosts: [a.example] }
servers:
  egress:
    launch: { command: a }
    egress:
      - { host: a.example, credential: fien }
      - { host: b.example, tls: off, credential: fine }
      - { host: c.example, tls: passthrough, credential: fine }
      - { host: d.example, protocol: tcp, ports: [1], credential: fine }
      - { host: e.example, methods: [TRACE], credential: fine }
      - { cidr: 10.0.0.0/8, ports: [1], credential: fine }
"#
    ));
    insta::assert_snapshot!(
        "credentials_that_go_elsewhere",
        faults(
            r#"version: 1
credentials:
  fine: { file: /a }
  homed: { file: /a, hosts: [a.example, "*.b.example"] }
servers:
  tools:
    launch: { command: a }
    egress: [{ host: a.example, tls: off }, { host: c.example, credential: homed }]
    tools: { x: { class: read, credential: fine }, y: { class: read, credential: homed } }
  wild:
    launch: { command: b }
    egress: [{ host: "*.example.com", credential: homed }, { host: "*.c.b.example", credential: homed }]
    tools: { y: { class: read, credential: homed } }
  remote: { url: "https://mcp.d.example/x" }
hosts: { agent: { servers: [remote], egress: [{ host: "*.d.example", credential: fine }] } }
"#
        )
    );
}

#[test]
fn tokens_that_are_replaced() {
    insta::assert_snapshot!(faults(
        r#"version: 1
credentials:
  fine: { file: /a }
  homed: { file: /a, hosts: [a.example] }
  session: { file: /a, header: Mcp_Session-Id }
servers:
  empty: { url: "https://a.example/1", authorization: {} }
  more: { url: "https://a.example/2", authorization: { credential: fine, header: X } }
  number: { url: "https://a.example/3", authorization: { credential: 7 } }
  list: { url: "https://a.example/4", authorization: [fine] }
  misspelt: { url: "https://a.example/5", authorization: { credential: fien } }
  started: { launch: { command: a }, authorization: { credential: fine } }
  clear: { url: "http://a.example/", authorization: { credential: fine } }
  open: { listen: 10.0.0.1:3001, authorization: { credential: fine } }
  near: { url: "http://localhost:3003/mcp", authorization: { credential: fine } }
  six: { listen: "[::1]:3004", authorization: { credential: fine } }
  everywhere: { listen: 0.0.0.0:3005, authorization: { credential: fine } }
  elsewhere: { url: "https://b.example/", authorization: { credential: homed } }
  nameless: { url: "https://93.184.216.34/", authorization: { credential: homed } }
  local: { listen: 127.0.0.1:3002, authorization: { credential: homed } }
  taken: { url: "https://a.example/6", authorization: { credential: session } }
"#
    ));
    let text = r#"version: 1
credentials:
  fine: { file: /a, header: X-Key }
  homed: { file: /a, hosts: ["*.corp.example", localhost] }
servers:
  far: { url: "https://a.corp.example/", authorization: { credential: homed } }
  addressed: { url: "https://93.184.216.34/", authorization: { credential: fine } }
  near: { url: "https://localhost:3001/mcp", authorization: { credential: homed } }
"#;
    assert_eq!(faults(text), "");
    let set = exeat_policy::compile(&[source("policy.yaml", text)]).unwrap();
    assert_eq!(shown(&set.warnings(NOW)), "", "each is sent");
}

#[test]
fn masks() {
    insta::assert_snapshot!(faults(
        r#"version: 1
servers: { crm: { launch: { command: a } } }
mask:
  - {}
  - { servers: [crm] }
  - { servers: [], args: [/a] }
  - { servers: [crmm], args: [/a] }
  - { args: [] }
  - { args: /a }
  - { args: [a, "/b~", 7], results: [""] }
  - { arguments: [/a], results: [/a] }
"#
    ));
    let text = r#"version: 1
servers: { crm: { launch: { command: a } }, other: { launch: { command: b } } }
mask:
  - { servers: [crm], args: [/customer/email, "/list/*/phone"], results: ["/content/*/text"] }
  - { args: [/note] }
"#;
    assert_eq!(faults(text), "");
    let set = exeat_policy::compile(&[source("policy.yaml", text)]).unwrap();
    let masked = |server: &str| -> Vec<String> {
        let pointers = set.masked(server).iter();
        pointers.map(ToString::to_string).collect()
    };
    let all = ["/customer/email", "/list/*/phone", "/note"];
    assert_eq!(masked("crm"), all);
    assert_eq!(masked("other"), ["/note"]);
    assert_eq!(masked("gone"), all, "what is not known is masked as any");
    assert_eq!(set.masks()[0].results[0].to_string(), "/content/*/text");
}

#[test]
fn responses() {
    insta::assert_snapshot!(faults(
        r#"version: 1
responses: {}
servers:
  sizes: { url: "https://a.example/1", responses: { max_bytes: 1000 } }
  bare: { url: "https://a.example/9", responses: { max_bytes: "1000" } }
  units: { url: "https://a.example/2", responses: { max_bytes: 1MB } }
  large: { url: "https://a.example/3", responses: { max_bytes: 2GiB } }
  nothing: { url: "https://a.example/4", responses: { content: [] } }
  kinds: { url: "https://a.example/5", responses: { content: [text, imagee, resource_link] } }
  single: { url: "https://a.example/6", responses: { content: text } }
  unsure: { url: "https://a.example/7", responses: { structured: true } }
  other: { url: "https://a.example/8", responses: { maximum: 1MiB } }
"#
    ));
    let text = r#"version: 1
responses: { max_bytes: 1MiB, content: [text, image] }
servers:
  own: { url: "https://a.example/1", responses: { structured: required } }
  others: { launch: { command: a } }
"#;
    assert_eq!(faults(text), "");
    let set = exeat_policy::compile(&[source("policy.yaml", text)]).unwrap();
    let (own, others) = (set.responses("own"), set.responses("others"));
    let (own, others) = (own.unwrap(), others.unwrap());
    assert_eq!((own.max_bytes, own.structured), (None, true));
    assert_eq!(
        (others.max_bytes, others.structured),
        (Some(1 << 20), false)
    );
    let permitted = |of: &exeat_policy::Responses| {
        let all = [
            "text",
            "image",
            "audio",
            "resource",
            "resource_link",
            "Text",
            "",
        ];
        all.map(|kind| of.permits(kind))
    };
    assert_eq!(permitted(own), [true; 7]);
    assert_eq!(
        permitted(others),
        [true, true, false, false, false, false, false]
    );
}

#[test]
fn breakers() {
    insta::assert_snapshot!(faults(
        "version: 1\nbreaker: { error_rate: 20, window: 2h, min_calls: 0, open_for: soon, errors: 1 }\n"
    ));
    assert!(faults("version: 1\nbreaker: {}\n").contains("`error_rate` is missing"));
    assert_eq!(faults("version: 1\nbreaker: { error_rate: 5% }\n"), "");
}

/// A role's members times its servers times their patterns: what would fill the memory is told of where it begins to.
#[test]
fn too_much_in_all() {
    let names = |what: &str, count: usize, value: &str| -> (String, String) {
        let all = (0..count).map(|number| format!("{what}{number}"));
        let lines: Vec<String> = all
            .clone()
            .map(|name| format!("  {name}: {value}\n"))
            .collect();
        let given = lines.concat();
        (given, all.collect::<Vec<_>>().join(", "))
    };
    let (servers, all_servers) = names("s", 600, "{ launch: { command: x } }");
    let (identities, all_identities) = names("i", 600, "{ user: x }");
    let text = |patterns: &str| {
        format!(
            "version: 1
servers:
{servers}identities:
{identities}roles:
  all: {{ members: [{all_identities}], grants: [{{ servers: [{all_servers}], tools: [{patterns}] }}] }}
"
        )
    };
    assert_eq!(faults(&text("a*, b*, c*, d*, e*")), "");
    let told = faults(&text("a*, b*, c*, d*, e*, f*"));
    insta::assert_snapshot!(told);
}

/// A pattern's other forms are those of a resource's URI: a tool's name has none.
#[test]
fn a_name_that_looks_like_a_uri_is_not_covered_by_another_form() {
    let text = |methods: &str| {
        format!(
            r#"version: 1
servers: {{ a: {{ launch: {{ command: a }} }} }}
rules:
  - {{ id: no-admin, methods: ["*"], tools: ["Admin:*"], effect: deny }}
  - {{ id: list, {methods}tools: ["admin:list"], effect: allow }}
"#
        )
    };
    assert_eq!(faults(&text("")), "");
    assert_eq!(faults(&text("methods: [prompts/get], ")), "");
    let never = faults(&text("methods: [resources/read], "));
    assert!(never.contains("can never matter"), "{never}");
}
