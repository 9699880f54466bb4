//! A second evaluator, naive on purpose: it reads the generated policy as written, matches by trying
//! everything, and shares no code with the engine. Both must say the same.

use std::cell::Cell;

use exeat_policy::{
    Action, Effect, Mode, NameKind, PolicySet, Reason, Request, Source, compile, evaluate, explain,
    limit_keys, listable,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::arguments::{Tree, hold, is_doubtful};
use crate::conditions::{Asked, Unclear};
use crate::limited::{Call, Charged, Kept, charge, refuses};
use crate::people;
use crate::question::{Question, question};
use crate::support::{NOW, shown};
use crate::uris::{holds, is_named};
use crate::world::{
    CERTIFICATES, Claim, GenEffect, GenRule, GenServer, GenTools, IDENTITIES, Names, ROLES, TOKENS,
    World, rule, world,
};

#[derive(Debug, Clone, PartialEq)]
struct Answer {
    effect: GenEffect,
    rule: Option<usize>,
    /// The rule could not be evaluated.
    failed: bool,
    would: Option<(GenEffect, Option<usize>)>,
    /// The limit that refuses.
    limit: Option<usize>,
    /// Of a call that waits for a person: which people may approve it.
    approve: Vec<&'static str>,
}

pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let Some(first) = pattern.chars().next() else {
        return text.is_empty();
    };
    let rest = &pattern[first.len_utf8()..];
    match first {
        '*' => (0..=text.len()).any(|cut| text.is_char_boundary(cut) && glob(rest, &text[cut..])),
        '?' => text
            .chars()
            .next()
            .is_some_and(|c| glob(rest, &text[c.len_utf8()..])),
        _ => text.starts_with(first) && glob(rest, &text[first.len_utf8()..]),
    }
}

/// What the methods of the world name; the others name nothing, whatever the request says.
const NAMING: [&str; 6] = [
    "tools/call",
    "resources/read",
    "completion/complete",
    "prompts/get",
    "x/y",
    "notifications/z",
];
const SESSION: [&str; 2] = ["initialize", "tools/list"];
const DECIDED: [&str; 5] = [
    "tools/call",
    "resources/read",
    "completion/complete",
    "prompts/get",
    "sampling/createMessage",
];

fn classes(world: &World, question: &Question) -> Vec<&'static str> {
    let server = world
        .servers
        .iter()
        .find(|server| server.name == question.server)
        .unwrap();
    let name = name(question);
    let literal = |pattern: &str| pattern.find(['*', '?']).unwrap_or(usize::MAX);
    let mut best: Option<(usize, usize, &'static str)> = None;
    for (pattern, class) in &server.tools {
        let rank = (literal(pattern), pattern.len());
        if glob(pattern, name) && best.is_none_or(|best| rank > (best.0, best.1)) {
            best = Some((rank.0, rank.1, class));
        }
    }
    if let Some((_, _, class)) = best {
        return vec![class];
    }
    let (read_only, destructive, open_world) = question.hints.unwrap_or_default();
    let mut classes = Vec::new();
    classes.push(if read_only == Some(true) {
        "read"
    } else if destructive == Some(false) {
        "write"
    } else {
        "destructive"
    });
    if open_world != Some(false) {
        classes.push("external");
    }
    classes
}

pub(crate) fn name(question: &Question) -> &'static str {
    let names = question
        .method
        .is_some_and(|method| NAMING.contains(&method));
    question.name.filter(|_| names).unwrap_or("")
}

fn is_about(rule: &GenRule, question: &Question) -> bool {
    let is = |who: &str| {
        question
            .workload
            .is_some_and(|(host, name)| host && name == who)
            || IDENTITIES.iter().any(|(name, users)| {
                *name == who
                    && question
                        .user
                        .is_some_and(|user| users.iter().any(|glob_| glob(glob_, user)))
            })
            || TOKENS
                .iter()
                .any(|(name, issuer, claim)| *name == who && shows(question, issuer, *claim))
            || CERTIFICATES.iter().any(|(name, authority, names)| {
                *name == who && certified(question, authority, names)
            })
    };
    let belongs = |role: &str| {
        ROLES
            .iter()
            .any(|(name, members)| *name == role && members.iter().any(|member| is(member)))
    };
    let who = rule.who.is_empty() || rule.who.iter().any(|who| is(who) || belongs(who));
    who && (rule.servers.is_empty() || rule.servers.contains(&question.server))
}

fn shows(question: &Question, issuer: &str, claim: Option<Claim>) -> bool {
    let Some((of, _, Tree::Map(claims))) = &question.token else {
        return false;
    };
    let Some((claim, any)) = claim else {
        return *of == issuer;
    };
    let is = |value: &Tree| matches!(value, Tree::Text(text) if any.contains(text));
    let claimed = claims.iter().any(|(name, value)| {
        *name == claim
            && match value {
                Tree::List(list) => list.iter().any(is),
                value => is(value),
            }
    });
    *of == issuer && claimed
}

fn certified(question: &Question, authority: &str, names: Names) -> bool {
    let Some((of, shown)) = &question.certificate else {
        return false;
    };
    let has = |key: &str, any: &[&str]| {
        shown.iter().any(|name| {
            let its = match name.kind {
                NameKind::Uri => "uri",
                NameKind::Dns => "dns",
                NameKind::Email => "email",
                NameKind::CommonName => "common_name",
            };
            its == key && any.iter().any(|pattern| glob(pattern, &name.text))
        })
    };
    *of == authority && names.iter().all(|(key, any)| has(key, any))
}

fn in_force(rule: &GenRule) -> bool {
    // Today is 2026-11-21.
    rule.expires != Some("2026-11-20")
}

/// `None`: the rule cannot be evaluated.
fn matches(world: &World, rule: &GenRule, question: &Question) -> Option<bool> {
    let plain = rule.methods.is_none()
        && rule.tools == GenTools::Any
        && rule.args.is_empty()
        && rule.when.is_none();
    let everything = plain && matches!(rule.effect, GenEffect::Allow | GenEffect::Deny);
    let method = match (question.method, &rule.methods) {
        (None, _) => everything,
        (Some(method), Some(globs)) => globs.iter().any(|pattern| glob(pattern, method)),
        (Some(method), None) if everything => {
            rule.effect == GenEffect::Deny || SESSION.contains(&method) || DECIDED.contains(&method)
        }
        (Some(method), None) => method == "tools/call",
    };
    let named = |globs: &[&str]| is_named(globs, rule.effect == GenEffect::Allow, question);
    let of_class = |named: &[&str]| {
        question.method == Some("tools/call") && {
            let classes = classes(world, question);
            if rule.effect == GenEffect::Allow {
                classes.iter().all(|class| named.contains(class))
            } else {
                classes.iter().any(|class| named.contains(class))
            }
        }
    };
    let tool = match &rule.tools {
        GenTools::Any => true,
        GenTools::Names(globs) => named(globs),
        GenTools::Classes(classes) => of_class(classes),
        GenTools::Both(globs, classes) => named(globs) && of_class(classes),
    };
    if !(is_about(rule, question) && method && tool && in_force(rule)) {
        return Some(false);
    }
    let allows = rule.effect == GenEffect::Allow;
    let args = hold(&rule.args, allows, question.arguments.as_ref());
    let none = Tree::Map(Vec::new());
    let arguments = question.arguments.as_ref().unwrap_or(&none);
    let when = rule.when.as_ref().map_or(Some(true), |when| {
        let asked = asked(question, arguments);
        if when.text().contains("tool") {
            return holds(allows, question, |tool| {
                when.holds(allows, Asked { tool, ..asked })
            });
        }
        when.holds(allows, asked)
    });
    match (args, when) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

/// What a rule's condition is asked of.
fn asked<'a>(question: &'a Question, arguments: &'a Tree) -> Asked<'a> {
    Asked {
        arguments,
        tool: name(question),
        server: question.server,
        user: question.user,
        token: question
            .token
            .as_ref()
            .map(|(_, subject, claims)| (*subject, claims)),
        host: question
            .workload
            .filter(|(host, _)| *host)
            .map(|(_, name)| name),
    }
}

/// An effect, the rule behind it, and whether that could not be evaluated.
type Said = (GenEffect, Option<usize>, bool);

fn answer(world: &World, question: &Question) -> Answer {
    let server = world
        .servers
        .iter()
        .find(|server| server.name == question.server);
    let observes =
        question.method.is_some() && (world.observe || server.is_some_and(|server| server.observe));
    let refused = |(effect, rule, failed): Said| Answer {
        effect: if observes { GenEffect::Allow } else { effect },
        rule,
        failed,
        would: observes.then_some((effect, rule)),
        limit: None,
        approve: Vec::new(),
    };
    let nothing = (GenEffect::Deny, None, false);
    let Some(server) = server else {
        return refused(nothing);
    };
    if question.method.is_none() && server.url {
        return refused(nothing);
    }
    let unknown = matches!(question.workload, Some((true, "unknown") | (false, "gone")));
    let is_host = matches!(question.workload, Some((true, _)));
    if unknown
        || (world.strict && server.overdue)
        || (is_host && !world.listed.contains(&question.server))
    {
        return refused(nothing);
    }
    let all: Vec<&GenRule> = world.rules.iter().chain(&world.grants).collect();
    let reaches = is_host
        || all.iter().any(|rule| {
            rule.effect == GenEffect::Allow
                && !rule.observe
                && is_about(rule, question)
                && in_force(rule)
        });
    let conclude = |observed: bool| -> Said {
        let mut said: Vec<Said> = Vec::new();
        let mut failed = None;
        for rule in all.iter().filter(|rule| observed || !rule.observe) {
            match matches(world, rule, question) {
                Some(true) => said.push((rule.effect, Some(rule.id), false)),
                Some(false) => {}
                None if rule.effect == GenEffect::Allow => {
                    failed = failed.or(Some((GenEffect::Deny, Some(rule.id), true)));
                }
                None => said.push((GenEffect::Deny, Some(rule.id), true)),
            }
        }
        let strongest = said.iter().map(|said| said.0).max();
        let by_rule = said.into_iter().find(|said| Some(said.0) == strongest);
        let session = question
            .method
            .is_none_or(|method| SESSION.contains(&method));
        let otherwise = if reaches && session {
            (GenEffect::Allow, None, false)
        } else {
            failed.unwrap_or(nothing)
        };
        by_rule.unwrap_or(otherwise)
    };
    let (real, strict) = (conclude(false), conclude(true));
    if observes && real.0 != GenEffect::Allow {
        return refused(real);
    }
    let asks = |rule: &&&GenRule| {
        rule.effect == GenEffect::Approve
            && !rule.observe
            && matches(world, rule, question) == Some(true)
    };
    let asking = all.iter().filter(asks).copied();
    let approve = (real.0 == GenEffect::Approve).then(|| people::named(asking, glob));
    Answer {
        effect: real.0,
        rule: real.1,
        failed: real.2,
        would: (strict.0 != real.0).then_some((strict.0, strict.1)),
        limit: None,
        approve: approve.unwrap_or_default(),
    }
}

/// The same with what the limits say, which keep what passed.
fn limited(world: &World, question: &Question, at: i64, passed: &mut Vec<Charged>) -> Answer {
    let answer = answer(world, question);
    let server = world
        .servers
        .iter()
        .find(|server| server.name == question.server);
    let observes = world.observe || server.is_some_and(|server| server.observe);
    let lets_pass = observes && answer.effect == GenEffect::Allow && answer.would.is_some();
    let Some(method) = question.method else {
        return answer;
    };
    if answer.effect == GenEffect::Deny || server.is_none() {
        return answer;
    }
    let classes = match method {
        "tools/call" => classes(world, question),
        _ => Vec::new(),
    };
    let call = Call {
        server: question.server,
        method,
        tool: name(question),
        is_named: &|globs| is_named(globs, false, question),
        classes: &classes,
        arguments: question.arguments.as_ref(),
        caller: match (
            &question.token,
            &question.certificate,
            question.user,
            question.workload,
        ) {
            (Some((issuer, subject, _)), ..) => format!("token {issuer} {subject}"),
            (None, Some((authority, names)), ..) => {
                let subject = names.first().map_or("", |name| &*name.text);
                format!("certificate {authority} {subject}")
            }
            (None, None, Some(user), _) => format!("user {user}"),
            (None, None, None, Some((host, name))) => format!("workload {host} {name}"),
            (None, None, None, None) => "nobody".to_owned(),
        },
        session: question.session.unwrap_or(""),
        at,
    };
    let refused = refuses(&world.limits, &call, passed, glob).filter(|_| !lets_pass);
    let answer = match refused {
        None => answer,
        Some(limit) => Answer {
            effect: if observes {
                GenEffect::Allow
            } else {
                GenEffect::Deny
            },
            rule: None,
            failed: false,
            would: observes.then_some((GenEffect::Deny, None)),
            limit: Some(limit),
            approve: Vec::new(),
        },
    };
    if answer.effect == GenEffect::Allow {
        charge(&world.limits, &call, passed, glob);
    }
    answer
}

/// Compiles the world; rules that are faults are taken out and given back.
fn compiled(mut world: World) -> (World, PolicySet, Vec<GenRule>) {
    let mut accused = Vec::new();
    loop {
        let (text, lines) = world.text();
        let source = Source {
            name: "w".to_owned(),
            text,
        };
        match compile(&[source]) {
            Ok(set) => return (world, set, accused),
            Err(faults) => {
                let bad = lines
                    .iter()
                    .find(|(line, _)| faults.iter().any(|fault| fault.line == *line));
                let Some((_, bad)) = bad else {
                    panic!("{}", shown(&faults));
                };
                // One at a time: taking one out may clear another.
                for rules in [&mut world.rules, &mut world.grants] {
                    accused.extend(rules.extract_if(.., |rule| rule.id == *bad));
                }
            }
        }
    }
}

fn number(world: &World, id: &str) -> usize {
    let Some((role, number)) = id.split_once('/') else {
        return id.trim_start_matches('r').parse().unwrap();
    };
    let mut grants = world.grants.iter().filter(|grant| grant.who == [role]);
    grants.nth(number.parse::<usize>().unwrap() - 1).unwrap().id
}

const fn effect(effect: Effect) -> GenEffect {
    match effect {
        Effect::Allow => GenEffect::Allow,
        Effect::DryRun => GenEffect::DryRun,
        Effect::Approve => GenEffect::Approve,
        Effect::Deny => GenEffect::Deny,
    }
}

/// What the engine says, the same twice and with every explanation.
fn told(world: &World, set: &PolicySet, question: &Question, at: i64, kept: &mut Kept) -> Answer {
    let now = NOW.plus_millis(u64::try_from(at).unwrap());
    question.ask(|request| {
        let mut request = Request { now, ..*request };
        let keys = limit_keys(set, &request);
        let counts = kept.counts(&keys, now);
        request.counts = &counts;
        let verdict = evaluate(set, &request);
        assert_eq!(evaluate(set, &request), verdict);
        assert_eq!(explain(set, &request).verdict, verdict);
        assert_eq!(
            verdict.mode == Mode::Observe,
            verdict.would.is_some() && verdict.effect == Effect::Allow
        );
        if verdict.effect == Effect::Allow {
            kept.charge(&keys, now);
        }
        let stricter = verdict.would.as_ref();
        let limit = |reason: Reason| match reason {
            Reason::LimitReached(limit) | Reason::AmountRefused(limit) => Some(limit),
            _ => None,
        };
        Answer {
            effect: effect(verdict.effect),
            rule: verdict.rule.as_deref().map(|rule| number(world, rule)),
            failed: matches!(verdict.reason, Reason::RuleFailed(_)),
            would: stricter.map(|would| {
                let rule = would.rule.as_deref().map(|rule| number(world, rule));
                (effect(would.effect), rule)
            }),
            limit: limit(verdict.reason),
            approve: people::told(set, &verdict),
        }
    })
}

/// Whether some arguments make the call possible: shown, or not. The naive way is to ask with none of the
/// rules that restrict by arguments, and with no tests on those that allow. A condition that is the same whatever
/// the arguments are is no test on them.
fn shown_to(world: &World, question: &Question) -> bool {
    let mut open = world.clone();
    let none = Tree::Map(Vec::new());
    open.rules.retain_mut(|rule| {
        let tests = !rule.args.is_empty();
        let when = rule.when.take();
        if when.is_none() && !tests {
            return true;
        }
        rule.args.clear();
        // Without its tests it stays a rule about calls.
        rule.methods.get_or_insert_with(|| vec!["tools/call"]);
        let allows = rule.effect == GenEffect::Allow;
        let holds = when.map_or(Ok(true), |when| when.whatever(asked(question, &none)));
        match holds {
            Ok(false) => false,
            Ok(true) => allows || !tests,
            Err(Unclear::Depends) => allows,
            Err(Unclear::Fails) => {
                rule.effect = GenEffect::Deny;
                !allows && !tests
            }
        }
    });
    answer(&open, question).effect != GenEffect::Deny
}

/// Compares both evaluators on one world and a sequence of questions; how many of them were allowed.
fn compare(world: World, questions: &[Question]) -> Result<u64, TestCaseError> {
    let (world, set, _) = compiled(world);
    let (mut at, mut kept, mut passed, mut allowed) = (0, Kept::default(), Vec::new(), 0);
    for question in questions {
        at += question.after;
        let told = told(&world, &set, question, at, &mut kept);
        let expected = limited(&world, question, at, &mut passed);
        prop_assert_eq!(&told, &expected, "{:?}\n{}", question, world.text().0);
        allowed += u64::from(told.effect == GenEffect::Allow);
        if question.method == Some("tools/call") {
            let listed = question.ask(|request| match request.action {
                Action::Mcp {
                    server,
                    name,
                    hints,
                    ..
                } => listable(&set, request.caller, server, name.unwrap_or(""), hints, NOW),
                _ => false,
            });
            prop_assert_eq!(
                listed,
                shown_to(&world, question),
                "{:?}\n{}",
                question,
                world.text().0
            );
        }
    }
    Ok(allowed)
}

/// Pairs of a policy and a request that are compared where `EXEAT_PAIRS` says nothing.
const PAIRS: u32 = 20_000;
/// Requests that are put to one policy.
const REQUESTS: u32 = 64;

#[test]
fn both_evaluators_agree() {
    let pairs = match std::env::var("EXEAT_PAIRS") {
        Ok(pairs) => pairs.parse().expect("EXEAT_PAIRS is a number"),
        Err(_) => PAIRS,
    };
    let config = ProptestConfig {
        cases: pairs / REQUESTS,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let allowed = Cell::new(0);
    let requests = usize::try_from(REQUESTS).unwrap();
    let questions = prop::collection::vec(question(), requests);
    let compared = TestRunner::new(config).run(&(world(), questions), |(world, questions)| {
        allowed.set(allowed.get() + compare(world, &questions)?);
        Ok(())
    });
    compared.unwrap_or_else(|error| panic!("{error}"));
    // Neither of them says one thing to all.
    let (allowed, pairs) = (allowed.get(), u64::from(pairs));
    assert!(
        allowed > pairs / 20 && allowed < pairs / 2,
        "{allowed} of {pairs} allowed"
    );
}

/// What the engine does with a question by itself, whatever was charged.
fn effect_of(set: &PolicySet, question: &Question) -> Effect {
    question.ask(|request| {
        let mut request = *request;
        let keys = limit_keys(set, &request);
        let counts = Kept::default().counts(&keys, request.now);
        request.counts = &counts;
        evaluate(set, &request).effect
    })
}

proptest! {
    /// What no rule and no grant allows is denied, unless denials are only observed.
    #[test]
    fn what_nothing_allows_is_denied(world in world(), questions in prop::collection::vec(question(), 32)) {
        let quiet = World { rules: Vec::new(), grants: Vec::new(), observe: false, servers: world.servers.iter().map(|server| GenServer { observe: false, ..server.clone() }).collect(), ..world };
        let (_, set, _) = compiled(quiet);
        for question in questions {
            let session = question.method.is_none_or(|method| SESSION.contains(&method));
            let host = matches!(question.workload, Some((true, _)));
            prop_assert!(effect_of(&set, &question) == Effect::Deny || (host && session), "{:?}", question);
        }
    }

    /// A deny rule about everything leaves nothing; one more deny rule never allows what was not allowed; the same
    /// files, read again, say the same.
    #[test]
    fn deny_beats_all(world in world(), more in rule(), questions in prop::collection::vec(question(), 32)) {
        let world = World { observe: false, servers: world.servers.iter().map(|server| GenServer { observe: false, ..server.clone() }).collect(), ..world };
        let deny = |rule: GenRule| {
            let mut narrower = world.clone();
            narrower.rules.push(GenRule { id: 99, effect: GenEffect::Deny, observe: false, expires: None, ..rule });
            compiled(narrower).1
        };
        let everything = |more| GenRule { who: Vec::new(), servers: Vec::new(), methods: None, tools: GenTools::Any, args: Vec::new(), when: None, ..more };
        let (before, again) = (compiled(world.clone()).1, compiled(world.clone()).1);
        let (narrower, nothing) = (deny(more.clone()), deny(everything(more)));
        for question in &questions {
            let was = effect_of(&before, question);
            prop_assert_eq!(was, effect_of(&again, question));
            prop_assert_eq!(effect_of(&nothing, question), Effect::Deny);
            prop_assert!(effect_of(&narrower, question) >= was, "{:?}\n{}", question, world.text().0);
        }
    }

    /// A rule refused as one that can never match or matter changes no decision that rules make.
    #[test]
    fn accusations_are_true(world in world(), questions in prop::collection::vec(question(), 32)) {
        let (innocent, _, accused) = compiled(world);
        for rule in accused {
            let mut with = innocent.clone();
            with.rules.push(rule.clone());
            with.rules.sort_by_key(|rule| rule.id);
            for question in questions.iter().filter(|question| question.method.is_some_and(|method| !SESSION.contains(&method))) {
                let (before, after) = (answer(&innocent, question), answer(&with, question));
                // Where a test cannot be evaluated, what restricts by it denies: it matters as a mistake alone. So it does
                // where one test holds of one member and another of what may be taken for it.
                let doubtful = question.arguments.as_ref().is_some_and(is_doubtful);
                if rule.effect != GenEffect::Allow && (after.failed || doubtful) {
                    continue;
                }
                prop_assert_eq!(before.effect, after.effect, "{:?}\n{:?}\n{}", rule, question, with.text().0);
            }
        }
    }

    /// Without a rule or grant that is said to change nothing, everything is decided the same.
    #[test]
    fn what_is_said_to_change_nothing_does_not(world in world(), questions in prop::collection::vec(question(), 32)) {
        let (world, set, _) = compiled(world);
        let (text, lines) = world.text();
        for warning in set.warnings(NOW).iter().filter(|warning| warning.message.contains("changes nothing")) {
            let (_, idle) = lines.iter().find(|(line, _)| *line == warning.line).unwrap();
            let mut without = world.clone();
            without.rules.retain(|rule| rule.id != *idle);
            without.grants.retain(|rule| rule.id != *idle);
            for question in &questions {
                let (with, without) = (answer(&world, question), answer(&without, question));
                prop_assert_eq!(with.effect, without.effect, "{}\n{:?}\n{}", warning, question, text);
            }
        }
    }

    /// One more deny rule never allows anything; the order of rules never changes what happens.
    #[test]
    fn deny_only_takes_away(world in world(), more in rule(), questions in prop::collection::vec(question(), 16)) {
        let mut narrower = world.clone();
        narrower.rules.push(GenRule { id: 99, effect: GenEffect::Deny, observe: false, ..more });
        let mut turned = world.clone();
        turned.rules.reverse();
        for question in &questions {
            let before = answer(&world, question);
            prop_assert!(answer(&narrower, question).effect >= before.effect);
            prop_assert_eq!(before.effect, answer(&turned, question).effect);
        }
    }
}
