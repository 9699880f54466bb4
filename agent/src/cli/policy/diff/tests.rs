//! Records, two policies, and what is said of them.

use exeat_policy::{Reason, Source, compile};
use serde_json::{Value, json};

use super::*;
use crate::audit::mask;

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
    // Of several behind one gateway, who it was is told.
    let by = |identities: Value, subject: &str| {
        let record = line(&json!({
            "identity": {
                "name": "", "verified_by": "jwt", "issuer": "i", "subject": subject, "user": "mcp",
                "identities": identities,
            },
            "mcp": { "server": "bank", "method": "tools/call", "name": "show", "class": "read" },
        }));
        Question::of(&record).unwrap().who()
    };
    assert_eq!(by(json!(["bot", "ops"]), "s"), "host agent as bot, ops");
    assert_eq!(by(json!([]), "alice"), "host agent as alice of i");
    assert_eq!(by(json!([]), "bob"), "host agent as bob of i");
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
    let old = format!("{SHOWN}{ALL}");
    let report = compared(&old, NO_LARGE, &[open, token, unread]);
    assert_eq!(
        (report.replayed, report.unknown, report.unreadable),
        (0, 1, 1)
    );
    assert_eq!(
        text(&report, Painter::default()),
        "cannot say who called  1 x
    the record does not name all identities of its caller; for example 01936b5e-7c00-7000-8000-000000000001
0 exchanges: 0 decided otherwise, 1 left out, since it cannot be said who called, \
         1 left out, since what was asked is not recorded\n"
    );
}

const SHOWN: &str = "identities:
  bot: { jwt: { issuer: i, claims: { app: bot } } }
  ops: { jwt: { issuer: i, claims: { group: ops } } }
  card: { certificate: { authority: corp, uri: 'spiffe://x/*' } }
";

/// A call of `show` that was recorded under this policy, with these identities shown by these means.
fn shown(policy: &str, means: &str, identities: &[&str]) -> Record {
    let mut identity = json!({
        "name": identities.first().unwrap_or(&""),
        "verified_by": means,
        "issuer": "i",
        "subject": "s",
        "user": "dave",
        "identities": identities,
    });
    if means == "certificate" {
        identity["issuer"] = json!("corp");
        identity["certificate"] = json!({ "authority": "corp", "subject": "s", "sha256": "0" });
    }
    line(&json!({
        "identity": identity,
        "decision": { "effect": "allow", "mode": "enforce", "policy": set(policy).fingerprint() },
        "mcp": { "server": "bank", "method": "tools/call", "name": "show", "class": "read" },
    }))
}

#[test]
fn who_showed_a_token_is_known_by_its_identities() {
    let rule = |who: &str| {
        format!(
            "rules: [{{ id: r, who: [{who}], servers: [bank], tools: [show], effect: allow }}]\n"
        )
    };
    let old = format!("{SHOWN}{}", rule("bot"));
    let told = |new: &str, means: &str, identities: &[&str]| {
        let record = shown(&old, means, identities);
        let report = compared(&old, new, &[record]);
        let why = report.cannot_say.first().map(|one| one.why.clone());
        (report.replayed, report.changed, why.unwrap_or_default())
    };
    let same = |changed| (1, changed, String::new());
    let for_ops = format!("{SHOWN}{}", rule("ops"));
    assert_eq!(told(&old, "jwt", &["bot", "ops"]), same(0));
    assert_eq!(told(&for_ops, "jwt", &["bot"]), same(1));
    assert_eq!(told(&for_ops, "jwt", &["bot", "ops"]), same(0));
    assert_eq!(told(&for_ops, "jwt", &[]), same(0), "neither allows");
    let for_cards = format!("{SHOWN}{}", rule("card"));
    assert_eq!(told(&for_cards, "certificate", &["card"]), same(1));
    assert_eq!(told(&for_cards, "certificate", &[]), same(0));
    // What an identity asks for by now, a record does not hold, unless it asks for nothing.
    let other = for_ops.replace("group: ops", "group: admins");
    let (replayed, _, why) = told(&other, "jwt", &["bot", "ops"]);
    assert_eq!(replayed, 0);
    assert_eq!(
        why,
        "identity `ops` asks for claims or names that are not recorded"
    );
    let any = for_ops.replace(", claims: { group: ops }", "");
    assert_eq!(
        told(&any, "jwt", &["bot"]),
        same(0),
        "everybody of the issuer"
    );
    assert_eq!(
        told(&any, "certificate", &["card"]),
        same(0),
        "and nobody else"
    );
    let elsewhere = shown(&for_ops, "jwt", &["ops"]);
    let report = compared(&old, &for_ops, &[elsewhere]);
    assert!(
        report.cannot_say[0].why.contains("under another policy"),
        "{report:?}"
    );
    // A condition on claims cannot be told.
    let when = for_ops.replace(
        "effect: allow",
        "when: caller.claims.dept == 'x', effect: allow",
    );
    let report = compared(&old, &when, &[shown(&old, "jwt", &["ops"])]);
    assert_eq!((report.replayed, report.untold), (1, 1), "{report:?}");
}

/// A call by a token, of which these claims are recorded, and that these were read.
fn claimed(claims: &Value, read: &[&str]) -> Record {
    line(&json!({
        "identity": {
            "name": "", "verified_by": "jwt", "issuer": "i", "subject": "s", "user": "dave",
            "claims": claims, "claims_read": read,
        },
        "decision": { "effect": "allow", "mode": "enforce", "policy": "another" },
        "mcp": { "server": "bank", "method": "tools/call", "name": "show", "class": "read" },
    }))
}

/// Whatever policy was in force: the claims say who it was, and what they say.
#[test]
fn recorded_claims_are_put_as_they_were() {
    let by = |rule: &str| {
        format!(
            "{SHOWN}rules: [{{ id: r, servers: [bank], tools: [show], effect: allow, {rule} }}]\n"
        )
    };
    let old = by("who: [bot]");
    let told = |new: &str, claims: &Value, read: &[&str]| {
        let report = compared(&old, new, &[claimed(claims, read)]);
        let why = report.cannot_say.first().map(|one| one.why.clone());
        (report.changed, report.untold, why.unwrap_or_default())
    };
    let of = |changed, untold| (changed, untold, String::new());
    let both = ["/app", "/group"];
    let ops = by("who: [ops]");
    let bot = json!({ "app": "bot" });
    assert_eq!(told(&old, &bot, &both), of(0, 0));
    assert_eq!(told(&ops, &bot, &both), of(1, 0));
    let as_ops = json!({ "app": "x", "group": ["a", "ops"] });
    assert_eq!(told(&ops, &as_ops, &both), of(1, 0));
    let (_, _, why) = told(&ops, &bot, &["/app"]);
    assert!(why.contains("under another policy"), "{why}");
    let masked = json!({ "app": "bot", "group": ["a", "[masked]"] });
    let (_, _, why) = told(&ops, &masked, &both);
    assert!(why.contains("under another policy"), "{why}");
    // Conditions: told of what is recorded, absent or not, and of nothing else.
    let when = |condition: &str| by(&format!("when: \"{condition}\""));
    let dept = json!({ "app": "bot", "dept": "x" });
    let read = ["/app", "/group", "/dept", "/realm/roles"];
    let told = |condition: &str| told(&when(condition), &dept, &read);
    assert_eq!(told("caller.claims.dept == 'x'"), of(0, 0));
    assert_eq!(told("caller.claims.dept == 'y'"), of(1, 0));
    assert_eq!(told("!has(caller.claims.group)"), of(0, 0));
    assert_eq!(told("has(caller.claims.group)"), of(1, 0));
    assert_eq!(
        told("caller.claims.group == 'x'"),
        of(1, 0),
        "it is not there"
    );
    assert_eq!(told("'x' in caller.claims.realm.roles"), of(1, 0));
    assert_eq!(
        told("caller.subject == 's' && caller.issuer == 'i'"),
        of(0, 0)
    );
    for unknown in [
        "caller.claims.level > 1",
        "has(caller.claims.level)",
        "!has(caller.claims.level)",
        "'level' in caller.claims",
        "size(caller.claims) == 2",
        "caller.claims[tool] == 'x'",
        "has(caller.claims.level) || caller.claims.dept == 'y'",
    ] {
        assert_eq!(told(unknown), of(0, 1), "{unknown}");
    }
    assert_eq!(
        told("caller.claims.dept == 'x' || has(caller.claims.level)"),
        of(0, 0)
    );
}

/// Where only something below a claim was read, the record does not tell what stood in its place.
#[test]
fn a_claim_in_place_of_an_object_is_not_told() {
    let by = |claim: &str, rule: &str| {
        let identities = SHOWN.replace("claims: { app: bot }", &format!("claims: {{ {claim} }}"));
        format!(
            "{identities}rules: [{{ id: r, servers: [bank], tools: [show], effect: allow, {rule} }}]\n"
        )
    };
    let read = ["/realm/roles", "/group", "/none"];
    let (told, _) = mask::claims(&json!({ "realm": "admin" }), read);
    let record = claimed(&told.unwrap(), &read);
    let compare = |old: &str, new: &str| {
        let report = compared(old, new, std::slice::from_ref(&record));
        (report.changed, report.untold, report.unknown)
    };
    let old = by("/realm/roles: admin", "who: [bot]");
    let new = by("realm: admin", "who: [bot]");
    assert_eq!(compare(&old, &new), (0, 0, 1));
    let when = |condition: &str| {
        let new = by("none: x", &format!("when: \"{condition}\""));
        compare(&by("none: x", "who: [bot]"), &new)
    };
    assert_eq!(when("caller.claims.realm == 'admin'"), (0, 1, 0));
    assert_eq!(when("caller.claims.realm == null"), (0, 1, 0));
    assert_eq!(when("has(caller.claims.realm)"), (1, 0, 0));
}

#[test]
fn limits_are_counted_over_the_records() {
    let at = |second: u32, session: &str, status: &str| {
        line(&json!({
            "time": format!("2026-11-26T12:00:{second:02}.000000Z"),
            "session": { "id": session },
            "mcp": { "server": "bank", "method": "tools/call", "name": "show", "class": "read", "arguments": {} },
            "outcome": { "status": status },
        }))
    };
    let with = |limit: &str| format!("{ALL}\nlimits: [{limit}]\n");
    let changed = |limit: &str, records: &[Record]| {
        let report = compared(ALL, &with(limit), records);
        assert_eq!(report.limited, u64::try_from(records.len()).unwrap());
        assert_eq!(report.untold, 0);
        report.changed
    };
    let calls: Vec<_> = (0..6).map(|second| at(second * 4, "a", "done")).collect();
    assert_eq!(changed("{ per: [session], calls: 4 }", &calls), 2);
    assert_eq!(changed("{ per: [session], rate: 2/min }", &calls), 4);
    let mixed: Vec<_> = (0..6)
        .map(|second| at(second, if second % 2 == 0 { "a" } else { "b" }, "done"))
        .collect();
    assert_eq!(changed("{ per: [session], calls: 2 }", &mixed), 2);
    // What failed upstream is given back where the limit says so.
    let failed: Vec<_> = (0..4).map(|second| at(second, "a", "failed")).collect();
    assert_eq!(changed("{ per: [session], calls: 1 }", &failed), 3);
    assert_eq!(
        changed("{ per: [session], rate: 1/min, refund: true }", &failed),
        0
    );
    // What a server asks of its host counts once: not its answer, which has a record of its own over HTTP.
    let sampled: Vec<_> = (0..4)
        .map(|second| {
            let mut mcp = json!({ "server": "bank", "method": "sampling/createMessage" });
            if second % 2 == 0 {
                mcp["from"] = json!("server");
            }
            line(&json!({
                "time": format!("2026-11-26T12:00:{second:02}.000000Z"),
                "mcp": mcp,
                "outcome": { "status": "done" },
            }))
        })
        .collect();
    let any = ALL.replace("tools: ['*']", "methods: ['*']");
    let limit = "limits: [{ per: [server], methods: [sampling/createMessage], calls: 1 }]";
    let report = compared(&any, &format!("{any}\n{limit}\n"), &sampled);
    assert_eq!((report.limited, report.changed), (2, 1), "{report:?}");
    let report = compared(ALL, &with("{ per: [session], calls: 4 }"), &calls);
    let told = text(&report, Painter::default());
    assert!(
        told.ends_with("6 under limits, which are counted from the first of these records on\n"),
        "{told}"
    );
}

/// The report of what was recorded under [`BASE`] with `rest`, put to it and to another policy.
fn against(old: &str, new: &str, records: &[Record]) -> (u64, u64, u64) {
    let read = |text: &str| {
        let source = Source {
            name: "p.yaml".into(),
            text: text.into(),
        };
        compile(&[source]).unwrap()
    };
    let mut comparison = Comparison::new(read(old), read(new), Timestamp::from_seconds(0));
    for record in records {
        comparison.compare(record);
    }
    let report = comparison.end();
    (report.replayed, report.changed, report.untold)
}

fn get(name: &str, status: Option<u16>, reason: &str, effect: &str) -> Record {
    line(&json!({
        "workload": { "name": "bank", "kind": "server" },
        "identity": { "name": "bank", "verified_by": "kernel", "user": "nobody" },
        "decision": { "effect": effect, "mode": "enforce", "reason": reason },
        "http": { "name": name, "port": 443, "sni": name, "method": "GET", "path": "/x", "status": status },
    }))
}

#[test]
fn upgrades_are_put_as_such() {
    let with = BASE.replace("methods: [GET] }", "methods: [GET], upgrade: true }");
    let passed = get("api.example", Some(101), "", "allow");
    assert_eq!(against(&with, BASE, &[passed]), (1, 1, 0));
    let plain = get("api.example", Some(200), "", "allow");
    assert_eq!(against(&with, BASE, &[plain]), (1, 0, 0));
    let refused = get(
        "api.example",
        None,
        Reason::UpgradeNotAllowed.text(),
        "deny",
    );
    assert_eq!(against(BASE, &with, &[refused]), (1, 1, 0));
}

#[test]
fn what_a_server_fetched_is_put_as_such() {
    let with = BASE.replace(
        "command: /usr/bin/bank }",
        "command: /usr/bin/bank, fetch: [packages.example] }",
    );
    let fetched = || get("packages.example", Some(200), "", "allow");
    assert_eq!(against(&with, BASE, &[fetched()]), (1, 1, 0));
    assert_eq!(against(&with, &with, &[fetched()]), (1, 0, 0));
    let late = get("packages.example", None, Reason::FetchOver.text(), "deny");
    assert_eq!(against(&with, &with, &[late]), (1, 0, 0));
    // Nobody knows whether it had spoken.
    let refused = get("packages.example", None, "", "deny");
    assert_eq!(against(BASE, &with, &[refused]), (1, 0, 1));
}

#[test]
fn starts_are_put_as_well() {
    let start = |workload: Value| {
        line(&json!({
            "kind": "lifecycle",
            "workload": workload,
            "identity": { "name": "", "verified_by": "kernel", "user": "dave" },
            "lifecycle": { "event": "run", "detail": "bank" },
        }))
    };
    let daves = "identities: { d: { user: dave } }
rules: [{ id: daves, who: [d], tools: ['*'], effect: allow }]";
    let report = compared(daves, "", &[start(Value::Null)]);
    assert_eq!((report.replayed, report.changed), (1, 1), "{report:?}");
    assert_eq!(report.changes[0].what, "start of bank");
    // A host starts what its list names.
    let host = json!({ "name": "agent", "kind": "host" });
    let report = compared(daves, "", &[start(host)]);
    assert_eq!((report.replayed, report.changed), (1, 0), "{report:?}");
}

#[test]
fn what_was_added_to_a_start_is_put_and_what_is_masked_of_it_is_not_guessed() {
    let start = |added: &[&str]| {
        line(&json!({
            "kind": "lifecycle",
            "lifecycle": { "event": "run", "detail": "bank", "extra_args": added },
        }))
    };
    let covering = |patterns: &str| {
        let launch = format!("command: /usr/bin/bank, extra_args: {patterns} }}");
        BASE.replace("command: /usr/bin/bank }", &launch)
    };
    let (all, some) = (covering("['*']"), covering("[--ro, '--in=*']"));
    let told = |added: &[&str]| against(&all, &some, &[start(added)]);
    assert_eq!(told(&[]), (1, 0, 0));
    assert_eq!(told(&["--ro", "--in=x"]), (1, 0, 0));
    assert_eq!(told(&["--rw"]), (1, 1, 0));
    assert_eq!(told(&["--in=[masked]"]), (1, 0, 0));
    for unknown in ["[masked]", "[more]", "/srv/x[+12 bytes]"] {
        assert_eq!(told(&[unknown]), (1, 0, 1), "{unknown}");
    }
}

#[test]
fn what_an_unknown_value_cannot_change_is_told() {
    let masked = [call("pay", &json!({ "amount": "[masked]", "to": "x" }))];
    let told = |rules: &str| {
        let report = compared(ALL, &format!("rules:\n{rules}"), &masked);
        (report.changed, report.untold)
    };
    let small =
        "  - { id: small, tools: [pay], args: [{ field: /amount, max: 100 }], effect: allow }\n";
    let all = "  - { id: all, tools: ['*'], effect: allow }\n";
    let ask = "  - { id: ask, tools: [pay], args: [{ field: /to, in: [x] }], effect: approve }\n";
    assert_eq!(told(small), (0, 1));
    assert_eq!(told(&format!("{all}{small}")), (0, 0));
    assert_eq!(told(&format!("{ask}{small}")), (1, 0));
    let restricting = small.replace("allow", "approve");
    assert_eq!(told(&format!("{all}{restricting}")), (0, 1));
    let observing = small.replace("effect: allow", "effect: deny, mode: observe");
    assert_eq!(told(&format!("{all}{observing}")), (0, 0));
}

#[test]
fn the_gates_own_is_passed_over() {
    let own = line(&json!({
        "workload": null,
        "identity": null,
        "decision": { "effect": "allow", "mode": "enforce", "reason": "the configuration names the issuer" },
        "http": { "name": "api.example", "port": 443, "sni": "api.example", "method": "GET", "path": "/keys" },
    }));
    let report = compared(ALL, ALL, &[own]);
    assert_eq!((report.replayed, report.unreadable), (0, 0), "{report:?}");
}
