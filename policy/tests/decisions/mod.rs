//! Decisions, one table for each part of the language.

mod arguments;
mod calls;
mod conditions;
mod credentials;
mod effects;
mod http;
mod identities;
mod limits;
mod network;
mod starts;

/// A policy with a little of everything.
const BASE: &str = r#"
servers:
  github:
    review_by: 2026-11-20
    launch: { command: npx, fetch: [packages.example.com] }
    egress:
      - { host: api.github.com, methods: [GET, POST], paths: ["/repos/acme/**", "/search/**"] }
      - { host: api.github.com, methods: [DELETE], paths: ["/repos/acme/scratch/*"] }
      - { host: "*.githubusercontent.com", methods: [GET] }
      - { host: wiki.corp.example, private: true }
      - { host: ws.example.com, upgrade: true }
      - { host: plain.example.com, tls: off }
      - { host: pinned.example.com, tls: passthrough }
      - { host: db.example.com, protocol: tcp, ports: [5432] }
      - { host: "*.echo.example", methods: [TRACE, GET] }
      - { cidr: 10.20.0.0/16, ports: [5432], protocol: tcp }
      - { cidr: "2001:db8::/32", ports: [123], protocol: udp }
    tools: { "get_*": read, "list_*": read, create_issue: write, "delete_*": destructive }
  linear:
    url: https://mcp.linear.app/mcp
  notes:
    url: http://localhost:3001/mcp
  inventory:
    listen: 127.0.0.1:3002
    match: { unit: inventory.service }
  trial:
    launch: { command: trial }
    mode: observe
hosts:
  claude: { servers: [github, linear, notes, inventory], egress: [{ host: api.anthropic.com, kind: model }] }
identities:
  dave: { user: dave }
  devs: { user: ["dev*", dave] }
rules:
  - { id: reading, who: [devs, claude], servers: [github], tools: { class: read }, effect: allow }
  - { id: issues, who: [dave], servers: [github], tools: [create_issue], effect: allow }
  - { id: not-this, who: [dave], servers: [github], tools: [get_secret], effect: deny, reason: hidden }
  - { id: search, servers: [linear], tools: ["search_*"], effect: allow }
  - { id: docs, servers: [linear], methods: [resources/read], tools: ["docs://*"], effect: allow }
  - { id: vendor, servers: [linear], methods: ["x/*"], effect: allow }
  - { id: old, servers: [linear], tools: [gone], effect: allow, expires: 2026-11-20 }
  - { id: today, servers: [linear], tools: [last], effect: allow, expires: 2026-11-21 }
  - { id: trying, servers: [linear], tools: [search_all], effect: deny, mode: observe }
"#;
