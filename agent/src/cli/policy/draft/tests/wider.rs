//! What a rule of the policy asks for is asked for by the draft: of values, of users, of days.

use super::*;

/// One server, and a host with whatever users.
fn policy(rules: &str) -> String {
    format!(
        "version: 1
servers: {{ files: {{ url: 'https://files.example/mcp' }} }}
hosts: {{ agent: {{ match: {{ exe: /usr/bin/agent }}, servers: [files] }} }}
identities:
  dave: {{ user: dave }}
  bot: {{ jwt: {{ issuer: i, claims: {{ app: bot }} }} }}
rules:
{rules}
"
    )
}

fn call(who: Value, arguments: &Value) -> Value {
    message(who, "files", "tools/call", "show", "read", arguments)
}

fn token(user: &str, subject: &str) -> Value {
    let mut who = caller(false, user);
    show(&mut who, subject, &json!({ "app": "bot" }));
    who
}

/// The draft of these calls, all of which the policy allows.
fn draft_of(rules: &str, seen: &[Value]) -> (PolicySet, String) {
    let (text, left) = drafted_from(&policy(rules), seen);
    assert!(left.is_empty(), "{left:?}\n{text}");
    let draft = set(&text);
    for one in seen {
        assert!(allows(&draft, one), "{one}\n{text}");
    }
    (draft, text)
}

/// Dave asks what there is.
fn list() -> Value {
    let who = caller(false, "dave");
    message(who, "files", "tools/list", "", "", &Value::Null)
}

#[test]
fn values_stay_within_the_rule_that_allowed_them() {
    let dave = || caller(false, "dave");
    let path = |path: &str| call(dave(), &json!({ "path": path }));
    let globbed =
        "  - { id: r, tools: [show], args: [{ field: /path, glob: '/data/**' }], effect: allow }";
    let (draft, text) = draft_of(globbed, &[path("/data/a")]);
    assert!(allows(&draft, &path("/data/b")), "{text}");
    assert!(!allows(&draft, &path("/etc/shadow")), "{text}");

    let amount = |amount: u32| call(dave(), &json!({ "amount": amount }));
    let small = "  - { id: r, tools: [show], when: 'args.amount < 100 || args.amount == 500', effect: allow }";
    let (draft, text) = draft_of(small, &[amount(5)]);
    assert!(allows(&draft, &amount(500)), "{text}");
    assert!(!allows(&draft, &amount(501)), "{text}");
    let more = call(dave(), &json!({ "amount": 500, "more": 1 }));
    assert!(!allows(&draft, &more), "{text}");

    let until = "  - { id: r, tools: [show], expires: 2026-12-01, effect: allow }";
    let (draft, text) = draft_of(until, &[amount(5)]);
    assert!(!allows_at(&draft, &amount(5), LATER), "{text}");

    // Each by its own rule.
    let two =
        "  - { id: r, tools: [show], args: [{ field: /path, glob: '/data/**' }], effect: allow }
  - { id: s, tools: [show], when: args.path == '/etc/hosts', expires: 2026-12-01, effect: allow }";
    let (draft, text) = draft_of(two, &[path("/data/a"), path("/etc/hosts")]);
    assert!(!allows_at(&draft, &path("/etc/hosts"), LATER), "{text}");
    assert!(allows_at(&draft, &path("/data/b"), LATER), "{text}");
    assert!(!allows(&draft, &path("/etc/shadow")), "{text}");
}

#[test]
fn a_masked_value_is_allowed_by_the_rule_that_its_record_names() {
    let rules = |other: &str| {
        format!(
            "  - {{ id: r, tools: [show], args: [{{ field: /password, glob: 'a*' }}], effect: allow }}
  - {{ id: s, tools: [show], args: [{{ field: /password, glob: '{other}' }}], effect: allow }}"
        )
    };
    let mut masked = call(caller(false, "dave"), &json!({ "password": "[masked]" }));
    let (_, left) = drafted_from(&policy(&rules("b*")), std::slice::from_ref(&masked));
    assert_eq!(left[0].why, Left::Untellable.words());
    masked["decision"] = json!({ "effect": "allow", "mode": "enforce", "rule": "s" });
    let (draft, text) = draft_of(&rules("b*"), &[masked]);
    let said = |word: &str| call(caller(false, "dave"), &json!({ "password": word }));
    assert!(allows(&draft, &said("b")), "{text}");
    assert!(!allows(&draft, &said("a")), "{text}");
}

#[test]
fn users_of_a_host_are_those_whom_the_policy_names() {
    let dave = "  - { id: r, who: [dave], effect: allow }";
    let of = |host: bool, user: &str| call(caller(host, user), &json!({}));
    let (draft, text) = draft_of(dave, &[of(true, "dave")]);
    for other in [of(true, "eve"), of(false, "dave"), of(false, "eve")] {
        assert!(!allows(&draft, &other), "{other}\n{text}");
    }
    let list = list();
    assert!(!allows(&draft, &list), "{text}");
    // Where it names the host, its users make no difference.
    let agent = "  - { id: r, who: [dave, agent], effect: allow }";
    let (draft, text) = draft_of(agent, &[of(true, "dave")]);
    assert!(allows(&draft, &of(true, "eve")), "{text}");
}

#[test]
fn tokens_are_those_for_which_the_policy_allows_it() {
    let by = |user: &str, subject: &str| call(token(user, subject), &json!({}));
    let user =
        "  - { id: r, who: [bot], tools: [show], when: caller.user == 'mcp', effect: allow }";
    let (draft, text) = draft_of(user, &[by("mcp", "s")]);
    assert!(!allows(&draft, &by("eve", "s")), "{text}");

    let not = "  - { id: r, who: [bot], tools: [show], when: \"!has(caller.subject) || caller.subject != 'x'\", effect: allow }";
    let (draft, text) = draft_of(not, &[by("mcp", "s")]);
    assert!(!allows(&draft, &by("mcp", "x")), "{text}");

    // Whom it knows by the user, it does not know by the token; the draft is for the one that was seen.
    let dave = "  - { id: r, who: [dave], tools: [show], effect: allow }";
    let (draft, text) = draft_of(dave, &[by("dave", "s")]);
    for other in [by("eve", "s"), by("dave", "t")] {
        assert!(!allows(&draft, &other), "{other}\n{text}");
    }
}

/// A server may list its tools otherwise by then.
#[test]
fn classes_that_a_rule_asks_for_stay() {
    let rules = "  - { id: r, tools: { class: [read] }, effect: allow }
  - { id: s, tools: [pay], effect: allow }";
    let of = |tool: &str, class: &str| {
        message(
            caller(false, "dave"),
            "files",
            "tools/call",
            tool,
            class,
            &json!({}),
        )
    };
    let (draft, text) = draft_of(rules, &[of("show", "read"), of("pay", "write")]);
    assert!(!allows(&draft, &of("show", "write")), "{text}");
}

#[test]
fn who_only_reaches_a_server_does_so_as_long_as_the_policy_lets_them() {
    let list = list();
    let until = "  - { id: r, tools: [show], expires: 2026-12-01, effect: allow }";
    let (draft, text) = draft_of(until, std::slice::from_ref(&list));
    assert!(!allows_at(&draft, &list, LATER), "{text}");
    let longer = format!("{until}\n  - {{ id: s, tools: [pay], effect: allow }}");
    let (draft, text) = draft_of(&longer, std::slice::from_ref(&list));
    assert!(allows_at(&draft, &list, LATER), "{text}");
}

/// A draft of what a draft allowed says nothing twice.
#[test]
fn a_draft_of_a_draft_is_the_same() {
    let rules = "  - { id: r, tools: [show], args: [{ field: /path, glob: '/data/**' }], when: \"args.path != '/data/(' || false\", expires: 2026-12-01, effect: allow }";
    let seen = [call(caller(false, "dave"), &json!({ "path": "/data/a" }))];
    let (_, text) = draft_of(rules, &seen);
    let (again, left) = drafted_from(&text, &seen);
    assert!(left.is_empty(), "{left:?}");
    let rules = |text: &str| {
        let rule = text.split("  - id: ").nth(1).map(str::to_owned);
        rule.map(|rule| rule.split_once('\n').map(|(_, rest)| rest.to_owned()))
    };
    assert_eq!(rules(&again), rules(&text));
}

/// Anything by anybody, by whoever shows a token as well.
fn one_or_by_token() -> impl Strategy<Value = Value> {
    let shown = (
        any::<bool>(),
        select(vec!["dave", "eve"]),
        select(vec!["s", "t"]),
        select(vec![
            json!({ "app": "bot" }),
            json!({ "app": "bot", "dept": "x" }),
            json!({ "app": "bot", "group": "ops" }),
            json!({ "group": "ops" }),
            json!({ "dept": "x" }),
        ]),
    );
    let shown = shown.prop_map(|(host, user, subject, claims)| {
        let mut who = caller(host, user);
        show(&mut who, subject, &claims);
        who
    });
    prop_oneof![2 => one(), 1 => one_by(shown)]
}

/// Without a token that shows no identity: what it is not needed for is allowed whoever shows it.
fn as_known(one: &Value) -> Value {
    let mut one = one.clone();
    let claims = &one["identity"]["claims"];
    if claims.is_object() && claims["app"].is_null() && claims["group"].is_null() {
        let (name, user) = (&one["identity"]["name"], &one["identity"]["user"]);
        one["identity"] = json!({ "name": name, "verified_by": "kernel", "user": user });
    }
    one
}

/// What differs from one in one place: what a policy may ask for and a shape does not tell.
fn near(one: &Value) -> Vec<Value> {
    let places = [
        ("/mcp/arguments/a", json!([5, 500, "x", "y", true, false])),
        (
            "/mcp/class",
            json!(["read", "write", "destructive, external"]),
        ),
        ("/identity/user", json!(["dave", "dev1", "eve"])),
        ("/identity/subject", json!(["s", "t"])),
        ("/identity/claims/app", json!(["bot", "x"])),
        ("/identity/claims/dept", json!(["x", "y"])),
        ("/identity/claims", json!([{}, { "app": "bot" }])),
    ];
    let mut all = vec![one.clone()];
    for (place, values) in places {
        for value in values.as_array().unwrap() {
            let mut other = one.clone();
            if let Some(found) = other.pointer_mut(place) {
                *found = value.clone();
                all.push(other);
            }
        }
    }
    all
}

/// What a policy asks for beside names: values, users of hosts, claims, classes that a server tells, days.
const NARROW: &str = "version: 1
servers:
  bank: { url: 'https://bank.example/mcp', tools: { show: read, 'pay*': write } }
  wiki: { url: 'https://wiki.example/mcp' }
hosts: { agent: { match: { exe: /usr/bin/agent }, servers: [bank, wiki] } }
identities:
  dave: { user: dave }
  devs: { user: 'dev*' }
  bot: { jwt: { issuer: i, claims: { app: bot } } }
  ops: { jwt: { issuer: i, claims: { group: ops } } }
roles:
  team: { members: [devs, ops], grants: [{ servers: [wiki], classes: [read] }] }
rules:
  - { id: text, servers: [bank], tools: [show, pay], args: [{ field: /a, glob: 'x*' }], effect: allow }
  - { id: small, servers: [bank, wiki], tools: [pay], when: 'args.a < 100 || false', effect: allow }
  - { id: until, who: [dave, agent], servers: [bank], args: [{ field: /a, in: [true] }], expires: 2026-12-01, effect: allow }
  - { id: by-user, who: [dave], servers: [wiki], tools: ['*'], effect: allow }
  - { id: with-user, who: [bot], tools: [show], when: caller.user == 'dave', effect: allow }
  - { id: no-other, who: [bot], tools: [pay], when: \"!has(caller.subject) || caller.subject != 's'\", effect: allow }
  - { id: dept, servers: [wiki], tools: [pay_all], when: caller.claims.dept == 'x', effect: allow }
  - { id: docs, who: [devs], servers: [wiki], methods: ['resources/*', 'x/*'], expires: 2026-12-05, effect: allow }
";

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_the_policy_refuses(seen in prop::collection::vec(one_or_by_token(), 0..16), others in prop::collection::vec(one_or_by_token(), 64)) {
        let base = set(NARROW);
        let (text, _) = drafted_from(NARROW, &seen);
        let draft = set(&text);
        let close: Vec<_> = seen.iter().flat_map(near).collect();
        for (other, at) in others.iter().chain(&close).flat_map(|other| [(other, NOW), (other, LATER)]) {
            if allows_at(&draft, other, at) {
                prop_assert!(allows_at(&base, other, at), "wider than the policy: {other} at {at:?}\n{text}");
            }
        }
        // Who may call with a token may open sessions without: that is by name alone.
        let told = |other: &&Value| other["identity"]["issuer"].is_null() && other["mcp"]["method"] != "tools/list";
        for other in others.iter().filter(told) {
            if allows(&draft, other) {
                prop_assert!(seen.iter().any(|one| alike(other, &as_known(one))), "{other}\n{text}");
            }
        }
        // What the policy allows and a rule can tell is in the draft of it.
        for one in seen.iter().take(4) {
            let (text, left) = drafted_from(NARROW, std::slice::from_ref(one));
            if allows(&base, one) && left.is_empty() {
                prop_assert!(allows(&set(&text), one), "{one}\n{text}");
            }
        }
    }
}

#[test]
fn servers_are_started_with_the_arguments_that_were_added() {
    let policy = "version: 1
servers:
  notes: { launch: { command: /usr/bin/notes, extra_args: ['--notes=*', '--token=*', '-v'] } }
rules: [{ id: r, effect: allow }]
";
    let start = |added: &[&str]| {
        let mut who = caller(false, "dave");
        who["kind"] = "lifecycle".into();
        who["lifecycle"] = json!({ "event": "run", "detail": "notes", "extra_args": added });
        who
    };
    let seen = [start(&["--notes=/srv/a"]), start(&["--token=[masked]"])];
    let (text, left) = drafted_from(policy, &seen);
    assert!(left.is_empty(), "{left:?}");
    let draft = set(&text);
    for added in [&[][..], &["--notes=/srv/a"], &["--token=x"]] {
        assert!(allows(&draft, &start(added)), "{added:?}\n{text}");
    }
    for added in ["--notes=/srv/b", "-v"] {
        assert!(!allows(&draft, &start(&[added])), "{added}\n{text}");
    }
    // No pattern is about it alone.
    let (text, left) = drafted_from(policy, &[start(&["--notes=*"])]);
    assert_eq!(left[0].why, Left::Untellable.words());
    assert!(!allows(&set(&text), &start(&["--notes=/srv/b"])), "{text}");
    let (text, _) = drafted_from(policy, &[start(&[])]);
    assert!(!text.contains("extra_args"), "{text}");
}
