//! What must hold whatever the policy says.

use std::path::Path;

use exeat_policy::{
    Action, AsJson as _, Caller, Cap, Counter, Effect, Glob, LimitKey, Name, PathGlob, Protocol,
    Request, Target, Timestamp, Workload, evaluate, limit_keys, normalise_path,
};
use proptest::prelude::*;

use crate::naive::arguments::Tree;
use crate::naive::bytes::agree;
use crate::support::*;

#[test]
fn an_empty_policy_allows_nothing() {
    let set = exeat_policy::compile(&[]).unwrap();
    let example = name("example.com");
    for caller in [user("root"), host("h"), server("s"), Caller::default()] {
        for action in [
            Action::Run {
                server: "s",
                extra_args: &[],
            },
            Action::Resolve { name: &example },
            connect(&example, 443),
            http(&example, "GET", "/"),
            call("s", "t"),
            mcp("s", "initialize", None),
        ] {
            assert_eq!(
                ask(&set, caller, action).effect,
                Effect::Deny,
                "{caller:?} {action:?}"
            );
        }
    }
}

#[test]
fn the_fingerprint_is_that_of_the_texts() {
    let print = |texts: &[(&str, &str)]| {
        let sources: Vec<_> = texts
            .iter()
            .map(|(name, text)| source(name, text))
            .collect();
        exeat_policy::compile(&sources)
            .unwrap()
            .fingerprint()
            .to_owned()
    };
    let (one, two) = ("version: 1\n", "version: 1\nservers: {}\n");
    assert_eq!(
        print(&[("a", one), ("b", two)]),
        print(&[("y", two), ("x", one)])
    );
    assert_ne!(
        print(&[("a", one), ("b", two)]),
        print(&[("a", two), ("b", one)])
    );
    assert_ne!(print(&[("a", one)]), print(&[("a", "version: 1\n\n")]));
}

#[test]
fn faults_never_show_what_may_be_secret() {
    let text = "version: 1\nservers: { a: { url: \"https://me:hunter2@a.example/?key=hunter2\" }, \
                b: { launch: { command: x, env: { PIN: 4711, TOKEN: { secret: s, value: hunter2 } } } } }\n";
    let faults = faults(text);
    assert!(
        !faults.contains("hunter2") && !faults.contains("4711"),
        "{faults}"
    );
    assert_eq!(faults.lines().count(), 3, "{faults}");
}

fn glob_parts() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop::sample::select(vec!["a", "b", "*", "?", "ab", "é"]),
        1..7,
    )
    .prop_map(|parts| parts.concat())
}

fn naive(pattern: &[char], text: &[char]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        (['*', rest @ ..], _) => (0..=text.len()).any(|cut| naive(rest, &text[cut..])),
        (['?', rest @ ..], [_, after @ ..]) => naive(rest, after),
        ([want, rest @ ..], [have, after @ ..]) if want == have => naive(rest, after),
        _ => false,
    }
}

fn naive_path(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern, path) {
        ([], []) => true,
        (["**", rest @ ..], _) => (0..=path.len()).any(|cut| naive_path(rest, &path[cut..])),
        ([want, rest @ ..], [have, after @ ..]) => {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            naive(&chars(want), &chars(have)) && naive_path(rest, after)
        }
        _ => false,
    }
}

proptest! {
    #[test]
    fn patterns_match_as_the_naive_reading_does(pattern in glob_parts(), text in "[abé]{0,8}") {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        let glob = Glob::parse(&pattern).unwrap();
        prop_assert_eq!(glob.matches(&text), naive(&chars(&pattern), &chars(&text)));
    }

    #[test]
    fn path_patterns_match_as_the_naive_reading_does(
        pattern in prop::collection::vec(prop::sample::select(vec!["**", "a", "b*", "?", "*"]), 1..6),
        path in prop::collection::vec(prop::sample::select(vec!["a", "b", "bc", "c"]), 1..6),
    ) {
        let glob = PathGlob::parse(&format!("/{}", pattern.join("/"))).unwrap();
        prop_assert_eq!(glob.matches(&format!("/{}", path.join("/"))), naive_path(&pattern, &path));
    }

    #[test]
    fn a_normal_path_stays_as_it_is(raw in "/([a-z%.;/\\\\0-9A-F]|%2[0-9A-Fa-f]|%[4-7][0-9A-Fa-f]){0,20}") {
        if let Ok(normal) = normalise_path(&raw) {
            prop_assert!(normal.starts_with('/') && !normal.contains("//") && !normal.contains("/../"));
            prop_assert_eq!(normalise_path(&normal).unwrap(), normal);
        }
    }

    #[test]
    fn a_name_reads_the_same_twice(text in "[a-zA-Z0-9_.\\-*%]{0,20}") {
        if let Ok(name) = Name::parse(&text) {
            prop_assert_eq!(&Name::parse(name.as_str()).unwrap(), &name);
            prop_assert!(name.as_str().parse::<std::net::IpAddr>().is_err());
        }
    }

    /// Nothing that a workload sends makes the engine panic or allows what no entry names.
    #[test]
    fn hostile_requests_are_answered(path in "\\PC{0,40}", method in "\\PC{0,10}", port: u16, tls: bool, upgrade: bool) {
        let set = policy("servers: { s: { launch: { command: x }, egress: [{ host: a.example, methods: [GET], paths: ['/ok/**'] }] } }");
        let name = name("a.example");
        let caller = Caller { workload: Some(Workload::Server("s")), ..Caller::default() };
        let action = Action::Http { target: Target::Name(&name), port, method: &method, path: &path, tls, upgrade, calls: &[] };
        let verdict = evaluate(&set, &Request { caller, action, now: NOW, counts: &[] });
        let may = port == 443 && method == "GET" && tls && !upgrade && path.starts_with("/ok");
        prop_assert!(may || verdict.effect == Effect::Deny);
        let action = Action::Connect { target: Target::Name(&name), port, protocol: Protocol::Tcp };
        prop_assert_eq!(ask(&set, caller, action).effect == Effect::Allow, port == 443);
        let action = Action::Mcp { server: &path, method: &method, name: Some(&path), arguments: None, hints: None, session: None };
        prop_assert_eq!(ask(&set, caller, action).effect, Effect::Deny);
    }

    /// The window slides exactly: never more than N calls within any window, and a call is refused only
    /// where N calls lie within the window before it.
    #[test]
    fn rates_are_exact(most in 1_u32..5, steps in prop::collection::vec(0_i64..700, 1..60)) {
        let window = 1_000_u64;
        let set = policy(&format!(
            "servers: {{ s: {{ url: 'https://s.example/' }} }}\nrules: [{{ id: all, effect: allow }}]\n\
             limits: [{{ per: [server], rate: {most}/s }}]\n"
        ));
        let cap = Cap::Rate { calls: most, window_ms: window };
        let key = LimitKey { limit: 0, key: String::new(), cap, amount: None, refund: false, session: false };
        let mut counter = Counter::new(cap);
        let mut allowed: Vec<i64> = Vec::new();
        let mut now = NOW.as_millis();
        for step in steps {
            now += step;
            let at = Timestamp::from_millis(now);
            let counts = [counter.count(&key, at)];
            let request = Request { caller: Caller::default(), action: call("s", "t"), now: at, counts: &counts };
            let verdict = evaluate(&set, &request);
            let recent = allowed.iter().filter(|then| now - **then < 1_000).count();
            prop_assert_eq!(verdict.effect == Effect::Allow, recent < usize::try_from(most).unwrap());
            if verdict.effect == Effect::Allow {
                counter.charge(&key, at);
                allowed.push(now);
            } else {
                let wait = i64::try_from(verdict.retry_after.unwrap()).unwrap();
                let later = allowed.iter().filter(|then| now + wait - **then < 1_000).count();
                let just_before = allowed.iter().filter(|then| now + wait - 1 - **then < 1_000).count();
                let most = usize::try_from(most).unwrap();
                prop_assert!(later < most && just_before >= most);
            }
        }
    }

    /// Within no window the calls that were allowed add up to more than the most, and one is refused only where
    /// it would; the wait is the shortest after which it passes.
    #[test]
    fn sums_are_exact(most in 0_i64..50, steps in prop::collection::vec((0_i64..700, 0_i64..30), 1..60)) {
        let window = 1_000;
        let set = policy(&format!(
            "servers: {{ s: {{ url: 'https://s.example/' }} }}\nrules: [{{ id: all, effect: allow }}]\n\
             limits: [{{ per: [server], sum: /n, max: {}.{}, window: 1s }}]\n", most / 10, most % 10
        ));
        let mut counter = None;
        let mut allowed: Vec<(i64, i64)> = Vec::new();
        let mut now = NOW.as_millis();
        for (step, tenths) in steps {
            now += step;
            let at = Timestamp::from_millis(now);
            let arguments = Tree::Map(vec![("n", Tree::Number(format!("{}.{}", tenths / 10, tenths % 10).leak()))]);
            let action = Action::Mcp { server: "s", method: "tools/call", name: Some("t"), arguments: Some(arguments.as_json()), hints: None, session: None };
            let mut request = Request { caller: Caller::default(), action, now: at, counts: &[] };
            let keys = limit_keys(&set, &request);
            let counter = counter.get_or_insert_with(|| Counter::new(keys[0].cap));
            let counts = [counter.count(&keys[0], at)];
            request.counts = &counts;
            let verdict = evaluate(&set, &request);
            let fits = |now: i64| {
                let used: i64 = allowed.iter().filter(|(then, _)| now - then < window).map(|(_, n)| n).sum();
                tenths == 0 || used + tenths <= most
            };
            prop_assert_eq!(verdict.effect == Effect::Allow, fits(now));
            match verdict.retry_after {
                Some(wait) => {
                    let later = now + i64::try_from(wait).unwrap();
                    prop_assert!(fits(later) && !fits(later - 1));
                }
                None => prop_assert!(fits(now) || tenths > most),
            }
            if verdict.effect == Effect::Allow {
                counter.charge(&keys[0], at);
                allowed.push((now, tenths));
            }
        }
    }

    /// Nothing that a workload sends as arguments makes a rule that restricts let it through by failing.
    #[test]
    fn hostile_arguments_are_answered(text in "\\PC{0,60}", number in "-?[0-9]{1,30}(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,6})?") {
        let set = policy(
            "servers: { s: { url: 'https://s.example/' } }
rules:
  - { id: all, effect: allow }
  - { id: texts, args: [{ any: true, matches: '^[^a-z]*$' }], effect: deny }
  - { id: size, args: [{ field: /n, above: 5 }], effect: deny }
",
        );
        let (text, number): (&str, &str) = (text.leak(), number.leak());
        for n in [Tree::Number(number), Tree::Text(text)] {
            let arguments = Tree::Map(vec![("t", Tree::Text(text)), ("n", n.clone())]);
            let action = Action::Mcp { server: "s", method: "tools/call", name: Some("t"), arguments: Some(arguments.as_json()), hints: None, session: None };
            let request = Request { caller: Caller::default(), action, now: NOW, counts: &[] };
            let verdict = evaluate(&set, &request);
            prop_assert_eq!(&verdict, &evaluate(&set, &request));
            let lower = text.chars().any(|c| c.is_ascii_lowercase());
            if !lower || matches!(n, Tree::Text(_)) {
                prop_assert_eq!(verdict.effect, Effect::Deny);
            } else if number.parse::<f64>().unwrap() > 5.1 {
                prop_assert_eq!(verdict.effect, Effect::Deny);
            }
        }
    }
}

/// The fuzz targets' properties over their corpus, so that every test run has them; and over each file with one bit
/// turned, at each of the places that are this far apart.
fn run(target: &str, apart: usize, property: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/fuzz/corpus");
    let mut found = 0;
    for entry in std::fs::read_dir(corpus.join(target)).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        property(&bytes);
        for place in (0..bytes.len()).step_by(apart) {
            let mut turned = bytes.clone();
            turned[place] ^= 1_u8 << (place % 8);
            property(&turned);
        }
        found += 1;
    }
    assert!(found >= 8, "{found} files for {target}");
}

#[test]
fn the_corpus_of_policies_holds() {
    run("policy", 1, exeat_policy::oracle::policy);
}

#[test]
fn the_corpus_of_calls_holds() {
    run("calls", 1, exeat_policy::oracle::calls);
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/fuzz/corpus/calls");
    for entry in std::fs::read_dir(corpus).unwrap() {
        let seed = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let (policy, calls) = seed.split_once("\n---\n").unwrap();
        assert_eq!(faults(policy), "", "{policy}");
        assert!(calls.lines().count() > 1, "{calls}");
    }
}

#[test]
fn the_corpus_of_worlds_holds() {
    run("agree", 7, agree);
}
