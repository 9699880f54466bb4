//! The documented example, but for the lines that later versions bring; and those, refused by name.

use exeat_policy::{
    Action, AsJson as _, Caller, Content, Data, Date, Effect, EnvValue, PolicySet, Protocol,
    Reason, Request, Target, Timestamp, Token, Transport, evaluate, limit_keys,
};

use crate::naive::arguments::Tree::{self, List, Map, Number, Text};
use crate::naive::limited::Kept;
use crate::support::*;

/// The example of the language's description, verbatim.
const DOCUMENTED: &str = include_str!("data/documented.yaml");

/// What the example names and leaves to other files of the same folder.
const BESIDE: &str = r#"
version: 1
servers:
  billing: { url: "https://billing.example.com/mcp" }
  crm: { url: "https://crm.example.com/mcp", tools: { "get_*": read } }
identities: { finance: { user: fin } }
credentials: { github-read: { file: /etc/exeat/secrets/github-read } }
# The documented rules restrict, and its role reads: somebody has to be allowed to write, too.
rules:
  - { id: agent-bills, who: [research-agent], servers: [billing], effect: allow }
  - { id: dave-writes, who: [dave], servers: [github, crm], effect: allow }
"#;

/// Lines of the example about what later versions bring: labels, detectors, pins, sequences, anomalies.
const LATER: [&str; 7] = [
    "    labels: { returns: [untrusted], reads: [private] }           # for sequences; may stand on a tool as well",
    "detect: { secrets: block, pii: mask, injection: block, hidden_text: block }    # off | record | mask | block; per server too",
    "manifest: { pin: on_register, on_change: quarantine, on_collision: deny }",
    "sequences:",
    "  - { id: trifecta, after: [private, untrusted], then: external, effect: approve }",
    "anomaly: { first_use: record, rate_over_baseline: { factor: 5, effect: record } }",
    "exceptions: [{ servers: [linear], detector: injection, field: /content/*/text, reason: quotes its own docs, expires: 2027-03-01 }]",
];

/// The example as it is, but for the lines of later versions.
fn documented() -> PolicySet {
    let mut text = DOCUMENTED.to_owned();
    for line in LATER {
        let (before, after) = text
            .split_once(&format!("{line}\n"))
            .unwrap_or_else(|| panic!("the example does not say {line}"));
        text = format!("{before}{after}");
    }
    let sources = [
        source("documented.yaml", &text),
        source("beside.yaml", BESIDE),
    ];
    exeat_policy::compile(&sources).unwrap_or_else(|faults| panic!("{}", shown(&faults)))
}

#[test]
fn the_documented_example_compiles() {
    let set = documented();
    assert_eq!(
        set.servers()
            .map(|server| &*server.name)
            .collect::<Vec<_>>(),
        ["billing", "crm", "github", "inventory", "linear"]
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
    assert_eq!((set.written_rules().count(), set.limits().len()), (5, 4));
    assert_eq!(set.rules().len(), 7);
    assert_eq!(set.fingerprint().len(), 64);
}

/// A caller of the example, by what attests it.
enum By {
    /// A token of the documented issuer, with this claim.
    Token(&'static str, Tree),
    User(&'static str),
    Host(&'static str),
}

/// What the example says to the last of these calls, each a tool and a session, where those before it were made.
fn decided<'a>(
    set: &PolicySet,
    by: &By,
    server: &str,
    calls: impl IntoIterator<Item = (&'a str, &'a str)>,
    (arguments, now): (&Tree, Timestamp),
) -> String {
    let claims = match by {
        By::Token(claim, value) => Map(vec![(claim, value.clone())]),
        _ => Map(Vec::new()),
    };
    let caller = match by {
        By::Token(..) => Caller {
            token: Some(Token {
                issuer: "https://login.example.com",
                subject: "u1",
                claims: claims.as_json(),
            }),
            ..Caller::default()
        },
        By::User(name) => user(name),
        By::Host(name) => host(name),
    };
    let mut kept = Kept::default();
    let mut last = String::new();
    for (tool, session) in calls {
        let action = Action::Mcp {
            server,
            method: "tools/call",
            name: Some(tool),
            arguments: Some(arguments.as_json()),
            hints: None,
            session: Some(session),
        };
        let request = Request {
            caller,
            action,
            now,
            counts: &[],
        };
        let keys = limit_keys(set, &request);
        let counts = kept.counts(&keys, now);
        let counts = &counts;
        let verdict = evaluate(set, &Request { counts, ..request });
        if verdict.effect == Effect::Allow {
            kept.charge(&keys, now);
        }
        last = match verdict.reason {
            Reason::LimitReached(limit) => format!("{} of {limit}", said(&verdict)),
            _ => said(&verdict),
        };
    }
    last
}

#[test]
fn the_documented_rules_decide_as_they_read() {
    let set = documented();
    let none = Map(Vec::new());
    let agent = By::Token("appid", Text("7f3c0a"));
    let analyst = By::Token("groups", List(vec![Text("sales"), Text("analysts")]));
    let (dave, dev) = (By::User("dave"), By::Host("claude-code"));
    let body = |text| Map(vec![("body", Text(text))]);
    let cents = |number| Map(vec![("amountCents", Number(number))]);
    let once = |by: &By, (server, tool), arguments: &Tree| {
        decided(&set, by, server, [(tool, "s")], (arguments, NOW))
    };
    // The role: reading of one server, searching of another.
    for (by, call, expected) in [
        (
            &analyst,
            ("github", "get_issue"),
            "allow: a role grants it (reader/1)",
        ),
        (
            &agent,
            ("github", "list_issues"),
            "allow: a role grants it (reader/1)",
        ),
        (
            &analyst,
            ("linear", "search_issues"),
            "allow: a role grants it (reader/2); would deny: a rule denies it",
        ),
        (
            &analyst,
            ("github", "create_issue"),
            "deny: no rule matched",
        ),
        (&analyst, ("linear", "get_issue"), "deny: no rule matched"),
        (
            &By::Token("groups", Text("sales")),
            ("github", "get_issue"),
            "deny: no rule matched",
        ),
        (
            &By::Token("appid", Text("7f3c0b")),
            ("github", "get_issue"),
            "deny: no rule matched",
        ),
        (
            &By::User("mallory"),
            ("github", "get_issue"),
            "deny: no rule matched",
        ),
        (&dev, ("github", "get_issue"), "deny: no rule matched"),
        (
            &dev,
            ("inventory", "get_stock"),
            "deny: the host does not list the server",
        ),
        (
            &dave,
            ("ledger", "get_issue"),
            "deny: the server is not registered",
        ),
    ] {
        assert_eq!(once(by, call, &none), expected, "{call:?}");
    }
    // `no-shell-tricks`, in any argument and writing.
    let create = ("github", "create_issue");
    let (writes, bills) = (
        "allow: a rule allows it (dave-writes)",
        "allow: a rule allows it (agent-bills); would deny: a rule denies it",
    );
    assert_eq!(once(&dave, create, &body("remove it")), writes);
    for trick in ["RM  -rf /", "; drop TABLE x", "r\u{200b}m -rf"] {
        let arguments = Map(vec![("steps", List(vec![body(trick)]))]);
        let found = once(&dave, create, &arguments);
        assert_eq!(found, "deny: a rule denies it (no-shell-tricks)", "{trick}");
    }
    // `big-invoices-need-a-person`: past the sum; and where it is not told, nothing goes.
    let send = ("billing", "send_invoice");
    assert_eq!(once(&agent, send, &cents("100000")), bills);
    assert_eq!(
        once(&agent, send, &cents("100000.5")),
        "approve: a rule asks for an approval (big-invoices-need-a-person); would deny: a rule denies it"
    );
    assert_eq!(
        once(&agent, send, &none),
        "deny: a rule could not be evaluated: its expression asks for what is not there (big-invoices-need-a-person)"
    );
    assert_eq!(once(&agent, ("billing", "list"), &cents("100001")), bills);
    // `try-the-new-rule`: recorded until its day is over.
    let day = |date| Date::parse(date).unwrap().noon();
    for (date, expected) in [
        (
            "2027-01-01",
            "allow: a rule allows it (dave-writes); would deny: a rule denies it",
        ),
        ("2027-01-02", writes),
    ] {
        let call = [("delete_repo", "s")];
        let found = decided(&set, &dave, "github", call, (&none, day(date)));
        assert_eq!(found, expected, "{date}");
    }
}

#[test]
fn the_documented_limits_are_reached_as_they_read() {
    let set = documented();
    let none = Map(Vec::new());
    let analyst = By::Token("groups", Text("analysts"));
    let reads = |calls: Vec<(&'static str, &'static str)>| {
        decided(&set, &analyst, "github", calls, (&none, NOW))
    };
    let passes = "allow: a role grants it (reader/1)";
    // Of a tool in a session; of a session; of an identity and a tool, whatever the session.
    assert_eq!(reads(vec![("get_a", "s"); 30]), passes);
    assert_eq!(
        reads(vec![("get_a", "s"); 31]),
        "deny: a limit is reached of 0"
    );
    let four = |last: usize| {
        let calls = [("get_a", 30), ("get_b", 30), ("get_c", 30), ("get_d", last)];
        let calls = calls.into_iter();
        calls
            .flat_map(|(tool, times)| vec![(tool, "s"); times])
            .collect()
    };
    assert_eq!(reads(four(10)), passes);
    assert_eq!(reads(four(11)), "deny: a limit is reached of 1");
    let sessions = |last: usize| {
        let calls = [("s", 30), ("t", 29), ("u", last)].into_iter();
        calls
            .flat_map(|(session, times)| vec![("get_a", session); times])
            .collect()
    };
    assert_eq!(reads(sessions(1)), passes);
    assert_eq!(reads(sessions(2)), "deny: a limit is reached of 2");
    // Of what is billed in a day.
    let agent = By::Token("appid", Text("7f3c0a"));
    let bills = |cents, times| {
        let arguments = Map(vec![("amountCents", Number(cents))]);
        let calls = vec![("send_invoice", "s"); times];
        decided(&set, &agent, "billing", calls, (&arguments, NOW))
    };
    let passes = "allow: a rule allows it (agent-bills); would deny: a rule denies it";
    assert_eq!(bills("100000", 5), passes);
    assert_eq!(bills("100000", 6), "deny: a limit is reached of 3");
    assert_eq!(
        bills("-1", 1),
        "deny: an argument that a limit sums cannot be summed"
    );
}

#[test]
fn the_documented_network_is_reached_as_it_reads() {
    let set = documented();
    let github = server("github");
    let reached = |caller, action| said(&ask(&set, caller, action));
    let (api, raw) = (name("api.github.com"), name("raw.githubusercontent.com"));
    let (wiki, model) = (name("wiki.corp.example"), name("api.anthropic.com"));
    for (caller, name, method, path, expected) in [
        (
            github,
            &api,
            "GET",
            "/repos/acme/x/issues",
            "allow: the egress list allows it",
        ),
        (
            github,
            &api,
            "GET",
            "/repos/acme/../other",
            "deny: the path holds a dot segment",
        ),
        (
            github,
            &api,
            "GET",
            "/repos/other/x",
            "deny: the path is not allowed",
        ),
        (
            github,
            &api,
            "DELETE",
            "/repos/acme/x",
            "deny: the http method is not allowed",
        ),
        (
            github,
            &raw,
            "GET",
            "/acme/x",
            "allow: the egress list allows it",
        ),
        (
            github,
            &raw,
            "POST",
            "/acme/x",
            "deny: the http method is not allowed",
        ),
        (
            github,
            &wiki,
            "GET",
            "/",
            "allow: the egress list allows it",
        ),
        (
            github,
            &model,
            "POST",
            "/v1/messages",
            "deny: the host is not allowed",
        ),
        (
            host("claude-code"),
            &model,
            "POST",
            "/v1/messages",
            "allow: the egress list allows it",
        ),
        (
            host("claude-code"),
            &api,
            "GET",
            "/repos/acme/x",
            "deny: the host is not allowed",
        ),
    ] {
        assert_eq!(
            reached(caller, http(name, method, path)),
            expected,
            "{method} {path}"
        );
    }
    for (address, port, protocol, expected) in [
        (
            [10, 20, 255, 255],
            5432,
            Protocol::Tcp,
            "allow: the egress list allows it",
        ),
        (
            [10, 20, 0, 1],
            5432,
            Protocol::Udp,
            "deny: the protocol is not allowed",
        ),
        (
            [10, 20, 0, 1],
            5433,
            Protocol::Tcp,
            "deny: the port is not allowed",
        ),
        (
            [10, 21, 0, 1],
            5432,
            Protocol::Tcp,
            "deny: the address is not allowed",
        ),
    ] {
        let target = Target::Address(address.into());
        let action = Action::Connect {
            target,
            port,
            protocol,
        };
        assert_eq!(reached(github, action), expected, "{address:?} {port}");
    }
    // What its launcher fetches from, until it has spoken.
    let packages = name("packages.example.com");
    let fetching = Caller {
        fetching: true,
        ..github
    };
    let resolve = Action::Resolve { name: &packages };
    assert_eq!(
        reached(fetching, resolve),
        "allow: the egress list allows it"
    );
    assert_eq!(
        reached(github, resolve),
        "deny: the host may be fetched from only until the server's first protocol message"
    );
    let run = |by| {
        let action = Action::Run {
            server: "github",
            extra_args: &[],
        };
        reached(by, action)
    };
    assert_eq!(run(user("dave")), "allow: a rule allows it (dave-writes)");
    assert_eq!(
        run(user("mallory")),
        "deny: the caller may not reach the server"
    );
    // The secret goes along to one host alone.
    let credential = |name| {
        let verdict = ask(&set, github, http(name, "GET", "/search/issues"));
        let egress = verdict.egress.unwrap();
        egress
            .credential
            .map(|credential| credential.name.to_string())
    };
    assert_eq!(credential(&api).as_deref(), Some("github-read"));
    assert_eq!(credential(&raw), None);
}

#[test]
fn the_rest_of_the_documented_example_is_in_force() {
    let set = documented();
    assert!(set.approves("big-invoices-need-a-person", "fin"));
    assert!(!set.approves("big-invoices-need-a-person", "dave"));
    let of = |pointers: &[exeat_policy::Pointer]| {
        let texts = pointers.iter().map(ToString::to_string);
        texts.collect::<Vec<_>>()
    };
    assert_eq!(of(set.masked("crm")), ["/customer/email"]);
    assert_eq!(of(set.masked("linear")), [""; 0]);
    let responses = set.responses("github").unwrap();
    assert_eq!(responses.max_bytes, Some(1 << 20));
    assert!(responses.structured);
    let content = responses.content.as_deref();
    assert_eq!(content, Some(&[Content::Text, Content::Image][..]));
    let breaker = set.breaker().unwrap();
    assert_eq!((breaker.error_rate, breaker.min_calls), (20, 10));
    assert_eq!((breaker.window_ms, breaker.open_for_ms), (30_000, 30_000));
    let warned = |date: &str| {
        let faults = set.warnings(Date::parse(date).unwrap().noon());
        shown(&faults)
    };
    let voiceless = "documented.yaml:42:59: grant `reader/1` never matches for `analysts`, `research-agent` at `github`: \
                     over standard streams nobody shows a token or a certificate";
    assert_eq!(warned("2026-11-21"), voiceless);
    let due = "documented.yaml:4:3: the review of server `github` was due by 2027-02-01";
    let expired = "documented.yaml:58:5: rule `try-the-new-rule` expired on 2027-01-01 and means nothing since";
    assert_eq!(warned("2027-02-02"), [due, voiceless, expired].join("\n"));
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
    let (mut whole, mut parts) = (0, 0);
    for page in PAGES {
        for block in page.split("\n```").skip(1).step_by(2) {
            let (language, text) = block.split_once('\n').unwrap();
            match language {
                "yaml" if text.starts_with("version: 1") => {
                    assert_eq!(faults(text), "", "{text}");
                    whole += 1;
                }
                "yaml" => {
                    assert_eq!(faults(&format!("version: 1\n{text}")), "", "{text}");
                    parts += 1;
                }
                // What is typed in a shell, and what is shown of one.
                "sh" | "" => {}
                language => panic!("nothing tries out examples in {language}: {text}"),
            }
        }
    }
    assert_eq!((whole, parts), (17, 3));
}

/// The pages that users read.
const PAGES: [&str; 4] = [
    include_str!("../../agent/docs/policy.md"),
    include_str!("../../agent/docs/config.md"),
    include_str!("../../agent/docs/audit-format.md"),
    include_str!("../../README.md"),
];

/// Every condition within a sentence of the page is one.
#[test]
fn documented_conditions_compile() {
    let section = PAGES[0].split("\n## Conditions\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let prose = section.split("\n```").step_by(2).collect::<String>();
    let mut found = 0;
    for span in prose.split('`').skip(1).step_by(2) {
        let is_one = span.contains("args.") || span.contains("args[") || span.contains("caller.");
        if !is_one || span.starts_with("caller.") {
            continue;
        }
        let condition = span.replace('…', "true").replace('\'', "''");
        let text = format!(
            "version: 1\nservers: {{ s: {{ url: 'https://s.example/' }} }}\n\
             rules: [{{ id: r, when: '{condition}', effect: deny }}]\n"
        );
        assert_eq!(faults(&text), "", "{span}");
        found += 1;
    }
    assert_eq!(found, 15);
}
