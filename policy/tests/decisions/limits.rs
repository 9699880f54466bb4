//! Limits: counters and windows.

use exeat_policy::{
    Action, AsJson as _, Cap, Count, Counter, Effect, LimitKey, Reason, Request, Timestamp, Used,
    evaluate, limit_keys,
};

use crate::naive::arguments::Tree::{self, Map, Null, Number, Text};
use crate::support::{NOW, call, mcp, policy, user};

const RATE: Cap = Cap::Rate {
    calls: 2,
    window_ms: 60_000,
};

fn key(limit: usize, cap: Cap) -> LimitKey {
    LimitKey {
        limit,
        key: String::new(),
        cap,
        amount: None,
        refund: false,
        session: false,
    }
}

#[test]
fn limits_count_and_slide() {
    let set = policy(
        "servers: { s: { url: 'https://s.example/mcp' } }
rules: [{ id: all, effect: allow }]
limits:
  - { per: [session, tool], calls: 2 }
  - { per: [identity], servers: [s], tools: ['slow_*'], rate: 2/min }
",
    );
    let call = |tool, session| Action::Mcp {
        server: "s",
        method: "tools/call",
        name: Some(tool),
        arguments: None,
        hints: None,
        session: Some(session),
    };
    let at = |seconds: i64, action, counts: &[Count]| {
        let now = Timestamp::from_millis(NOW.as_millis() + seconds * 1000);
        evaluate(
            &set,
            &Request {
                caller: user("dave"),
                action,
                now,
                counts,
            },
        )
    };
    let keys = |action| {
        limit_keys(
            &set,
            &Request {
                caller: user("dave"),
                action,
                now: NOW,
                counts: &[],
            },
        )
    };
    assert_eq!(keys(mcp("s", "tools/list", None)).len(), 0);
    assert_eq!(keys(call("fast", "a")).len(), 1);
    assert_eq!(keys(call("slow_x", "a")).len(), 2);
    assert_ne!(
        keys(call("fast", "a"))[0].key,
        keys(call("fast", "b"))[0].key
    );
    assert_ne!(
        keys(call("fast", "a"))[0].key,
        keys(call("faster", "a"))[0].key
    );
    // No name can be built that shares another's counter.
    assert_ne!(
        keys(call("t at=1:s session=1:b", "a"))[0].key,
        keys(call("t", "b"))[0].key
    );
    assert_eq!(
        at(0, call("fast", "a"), &[]).reason,
        Reason::CountMissing(0)
    );

    let mut calls = Counter::new(Cap::Calls(2));
    let mut rate = Counter::new(RATE);
    let mut told = Vec::new();
    for (seconds, session) in [
        (0, "a"),
        (10, "a"),
        (20, "b"),
        (59, "b"),
        (60, "b"),
        (61, "b"),
        (70, "b"),
    ] {
        let own = if session == "a" {
            calls.count(&key(0, Cap::Calls(2)), NOW)
        } else {
            Count {
                limit: 0,
                used: Used::Calls(0),
            }
        };
        let verdict = at(
            seconds,
            call("slow_x", session),
            &[own, rate.count(&key(1, RATE), NOW)],
        );
        told.push((seconds, verdict.effect, verdict.retry_after));
        if verdict.effect == Effect::Allow {
            let now = Timestamp::from_millis(NOW.as_millis() + seconds * 1000);
            rate.charge(&key(1, RATE), now);
            calls.charge(&key(0, Cap::Calls(2)), now);
        }
    }
    let (allow, deny) = (Effect::Allow, Effect::Deny);
    assert_eq!(
        told,
        [
            (0, allow, None),
            (10, allow, None),
            (20, deny, Some(40_000)),
            (59, deny, Some(1_000)),
            (60, allow, None),
            (61, deny, Some(9_000)),
            (70, allow, None),
        ]
    );
    let spent = Count {
        limit: 0,
        used: Used::Calls(2),
    };
    let verdict = at(0, call("fast", "a"), &[spent]);
    assert_eq!(
        (verdict.reason, verdict.retry_after),
        (Reason::LimitReached(0), None)
    );
    assert!(!rate.is_idle(Timestamp::from_millis(NOW.as_millis() + 129_999)));
    assert!(rate.is_idle(Timestamp::from_millis(NOW.as_millis() + 130_000)));
}

/// In both directions, and what follows from reaching the server as well.
#[test]
fn every_message_can_be_limited() {
    let set = policy(
        "servers: { s: { url: 'https://s.example/mcp' } }
rules: [{ id: all, methods: ['*'], effect: allow }]
limits:
  - { per: [session], calls: 1 }
  - { per: [session], methods: ['resources/*'], tools: ['file:///etc/*'], calls: 1 }
  - { per: [identity], methods: [sampling/createMessage, elicitation/create, ping], calls: 1 }
  - { per: [tool], methods: [tools/call, prompts/get], calls: 1 }
",
    );
    let asked = |action| Request {
        caller: user("dave"),
        action,
        now: NOW,
        counts: &[],
    };
    for (method, name, limits) in [
        ("tools/call", Some("t"), &[0, 3][..]),
        ("prompts/get", Some("t"), &[3]),
        ("resources/read", Some("file:///etc/x"), &[1]),
        ("resources/subscribe", Some("file:///etc/x"), &[1]),
        ("resources/read", Some("memo://x"), &[]),
        // What restricts is about all that may be meant.
        ("resources/read", Some("FILE:///etc/x"), &[1]),
        ("resources/read", Some("memo://x/../y"), &[1]),
        ("sampling/createMessage", None, &[2]),
        ("elicitation/create", None, &[2]),
        ("roots/list", None, &[]),
        ("ping", None, &[2]),
    ] {
        let request = asked(mcp("s", method, name));
        let keys = limit_keys(&set, &request);
        let found: Vec<usize> = keys.iter().map(|key| key.limit).collect();
        assert_eq!(found, limits, "{method} {name:?}");
        let judged = |calls| {
            let count = |key: &LimitKey| Count {
                limit: key.limit,
                used: Used::Calls(calls),
            };
            let counts: Vec<_> = keys.iter().map(count).collect();
            let counts = &counts;
            evaluate(&set, &Request { counts, ..request })
        };
        assert_eq!(judged(0).effect, Effect::Allow, "{method} {name:?}");
        let used_up = match limits.first() {
            None => Reason::RuleAllowed,
            Some(limit) => Reason::LimitReached(*limit),
        };
        assert_eq!(judged(1).reason, used_up, "{method} {name:?}");
        if let Some(limit) = limits.first() {
            let reason = evaluate(&set, &request).reason;
            assert_eq!(reason, Reason::CountMissing(*limit), "{method} {name:?}");
        }
    }
    // A prompt is no tool, whatever its name.
    let key = |method| limit_keys(&set, &asked(mcp("s", method, Some("t")))).pop();
    assert_ne!(
        key("tools/call").unwrap().key,
        key("prompts/get").unwrap().key
    );
}

#[test]
fn an_observed_rule_does_not_switch_limits_off() {
    let set = policy(
        "servers: { s: { url: 'https://s.example/mcp' } }
rules: [{ id: all, effect: allow }, { id: trying, tools: [t], effect: deny, mode: observe }]
limits: [{ per: [server], calls: 1 }]
",
    );
    let spent = [Count {
        limit: 0,
        used: Used::Calls(1),
    }];
    let request = Request {
        caller: user("x"),
        action: call("s", "t"),
        now: NOW,
        counts: &spent,
    };
    assert_eq!(evaluate(&set, &request).reason, Reason::LimitReached(0));
}

#[test]
fn sums_are_exact_and_slide() {
    let set = policy(
        "servers: { s: { url: 'https://s.example/mcp' } }
rules: [{ id: all, effect: allow }]
limits: [{ per: [identity], servers: [s], sum: '/amount', max: 100.5, window: 1h }]
",
    );
    let mut counter = None;
    let mut ask = |minute: i64, amount: &Tree| {
        let now = Timestamp::from_millis(NOW.as_millis() + minute * 60_000);
        let arguments = Map(vec![("amount", amount.clone())]);
        let mut request = Request {
            caller: user("dave"),
            action: Action::Mcp {
                server: "s",
                method: "tools/call",
                name: Some("pay"),
                arguments: Some(arguments.as_json()),
                hints: None,
                session: None,
            },
            now,
            counts: &[],
        };
        let keys = limit_keys(&set, &request);
        let [key] = keys.as_slice() else {
            panic!("{keys:?}")
        };
        let counter = counter.get_or_insert_with(|| Counter::new(key.cap));
        let counts = [counter.count(key, now)];
        request.counts = &counts;
        let verdict = evaluate(&set, &request);
        if verdict.effect == Effect::Allow {
            counter.charge(key, now);
        }
        (
            verdict.effect,
            verdict.reason,
            verdict.retry_after.map(|wait| wait / 60_000),
        )
    };
    let allow = (Effect::Allow, Reason::RuleAllowed, None);
    let reached = |wait| (Effect::Deny, Reason::LimitReached(0), wait);
    let refused = (Effect::Deny, Reason::AmountRefused(0), None);
    for (minute, amount, expected) in [
        (0, Number("60"), allow),
        (10, Number("40.5"), allow),
        (20, Number("0.000000001"), reached(Some(40))),
        (20, Number("0"), allow),
        (20, Number("70"), reached(Some(50))),
        // More than all of it: waiting does not help.
        (20, Number("100.6"), reached(None)),
        (21, Number("-60"), refused),
        (21, Text("1"), refused),
        (21, Null, refused),
        (21, Number("1e400"), refused),
        (60, Number("60"), allow),
        (61, Number("0.1"), reached(Some(9))),
        (70, Number("4.05e1"), allow),
    ] {
        assert_eq!(ask(minute, &amount), expected, "{minute} {amount:?}");
    }
}

/// The keys of a call of `pay` with this amount, under one limit.
fn keys_under(limit: &str) -> Vec<LimitKey> {
    let set = policy(&format!(
        "servers: {{ s: {{ url: 'https://s.example/mcp' }}, t: {{ url: 'https://t.example/mcp' }} }}
rules: [{{ id: all, effect: allow }}]
limits: [{limit}]
"
    ));
    let arguments = Map(vec![("n", Number("2")), ("m", Number("2"))]);
    let action = Action::Mcp {
        server: "s",
        method: "tools/call",
        name: Some("pay"),
        arguments: Some(arguments.as_json()),
        hints: None,
        session: Some("a"),
    };
    let request = Request {
        caller: user("dave"),
        action,
        now: NOW,
        counts: &[],
    };
    limit_keys(&set, &request)
}

/// What was counted counts on where a policy changes how much is allowed, and nothing else.
#[test]
fn another_cap_is_the_same_counter() {
    let name = |limit: &str| keys_under(limit).pop().expect(limit).key;
    for (one, other) in [
        ("calls: 30", "calls: 20"),
        ("rate: 60/min", "rate: 5/min"),
        (
            "sum: /n, max: 5, window: 1h",
            "sum: /n, max: 4.5, window: 60m",
        ),
    ] {
        for rest in [
            "",
            ", servers: [s], tools: ['p*'], methods: [tools/call], refund: true",
        ] {
            let of = |cap| name(&format!("{{ per: [identity], {cap}{rest} }}"));
            assert_eq!(of(one), of(other), "{one} {other} {rest}");
        }
    }
    let different = [
        "{ per: [identity], calls: 1 }",
        "{ per: [session], calls: 1 }",
        "{ per: [identity, tool], calls: 1 }",
        "{ per: [identity], calls: 1, refund: true }",
        "{ per: [identity], calls: 1, servers: [s] }",
        "{ per: [identity], calls: 1, servers: [s, t] }",
        "{ per: [identity], calls: 1, tools: [pay] }",
        "{ per: [identity], calls: 1, tools: ['p*'] }",
        "{ per: [identity], calls: 1, tools: { class: destructive } }",
        "{ per: [identity], calls: 1, methods: [tools/call] }",
        "{ per: [identity], rate: 1/min }",
        "{ per: [identity], rate: 1/h }",
        "{ per: [identity], sum: /n, max: 1, window: 1m }",
        "{ per: [identity], sum: /m, max: 1, window: 1m }",
        "{ per: [identity], sum: /n, max: 1, window: 1h }",
    ];
    let mut names: Vec<String> = different.map(name).into();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), different.len());
}

#[test]
fn what_was_counted_counts_under_another_cap() {
    let at = |seconds: i64| Timestamp::from_millis(NOW.as_millis() + seconds * 1000);
    let under = |cap: &str| {
        keys_under(&format!("{{ per: [identity], {cap} }}"))
            .pop()
            .unwrap()
    };
    let mut calls = Counter::new(under("calls: 5").cap);
    let mut rate = Counter::new(under("rate: 3/min").cap);
    let mut sum = Counter::new(under("sum: /n, max: 6, window: 1m").cap);
    for seconds in [0, 1, 2] {
        calls.charge(&under("calls: 5"), at(seconds));
        rate.charge(&under("rate: 3/min"), at(seconds));
        sum.charge(&under("sum: /n, max: 6, window: 1m"), at(seconds));
    }
    let used = |counter: &Counter, cap: &str| counter.count(&under(cap), at(3)).used;
    for most in ["calls: 5", "calls: 2", "calls: 9"] {
        assert_eq!(used(&calls, most), Used::Calls(3));
    }
    // The last that the rate lets through is the one that decides.
    assert_eq!(used(&rate, "rate: 3/min"), Used::Nth(Some(at(0))));
    assert_eq!(used(&rate, "rate: 2/min"), Used::Nth(Some(at(1))));
    assert_eq!(used(&rate, "rate: 1/min"), Used::Nth(Some(at(2))));
    assert_eq!(used(&rate, "rate: 4/min"), Used::Nth(None));
    rate.charge(&under("rate: 4/min"), at(3));
    assert_eq!(used(&rate, "rate: 4/min"), Used::Nth(Some(at(0))));
    for max in ["6", "5", "100"] {
        let cap = format!("sum: /n, max: {max}, window: 1m");
        let Used::Sum { used, calls, .. } = used(&sum, &cap) else {
            panic!("a sum")
        };
        assert_eq!((used.to_string().as_str(), calls), ("6", 3), "{max}");
    }
    // What has left the window is not kept, however much was allowed once.
    rate.charge(&under("rate: 1/min"), at(100));
    assert_eq!(rate.recent().len(), 1);
}
