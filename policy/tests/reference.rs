//! A second evaluator, naive on purpose: it reads the generated policy as written, matches by trying
//! everything, and shares no code with the engine. Both must say the same.

use exeat_policy::{
    Action, AsJson as _, Caller, Effect, Hints, Mode, Reason, Request, Source, Workload, compile,
    evaluate, explain, listable,
};
use proptest::prelude::*;
use proptest::sample::select;

use crate::arguments::{Tree, arguments, hold};
use crate::support::{NOW, shown};
use crate::world::{
    GenEffect, GenRule, GenTools, IDENTITIES, METHODS, NAMES, ROLES, SERVERS, World, rule, world,
};

/// A question in the small world.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    user: Option<&'static str>,
    workload: Option<(bool, &'static str)>,
    server: &'static str,
    /// `None`: the server is to be started.
    method: Option<&'static str>,
    name: Option<&'static str>,
    arguments: Option<Tree>,
    hints: Option<(Option<bool>, Option<bool>, Option<bool>)>,
}

impl Question {
    fn ask<T>(&self, answer: impl FnOnce(&Request<'_>) -> T) -> T {
        let workload = self.workload.map(|(host, name)| {
            if host {
                Workload::Host(name)
            } else {
                Workload::Server(name)
            }
        });
        let caller = Caller {
            workload,
            user: self.user,
            fetching: false,
            token: None,
        };
        let hints = self
            .hints
            .map(|(read_only, destructive, open_world)| Hints {
                read_only,
                destructive,
                open_world,
            });
        let action = match self.method {
            None => Action::Run {
                server: self.server,
            },
            Some(method) => Action::Mcp {
                server: self.server,
                method,
                name: self.name,
                arguments: self.arguments.as_ref().map(Tree::as_json),
                hints,
                session: None,
            },
        };
        answer(&Request {
            caller,
            action,
            now: NOW,
            counts: &[],
        })
    }
}

fn question() -> impl Strategy<Value = Question> {
    let servers = SERVERS.into_iter().chain(["nowhere"]).collect::<Vec<_>>();
    (
        prop::option::weighted(0.8, select(vec!["dave", "eve", "x", "zoe"])),
        prop::option::weighted(
            0.4,
            select(vec![
                (true, "h"),
                (true, "unknown"),
                (false, "a"),
                (false, "gone"),
            ]),
        ),
        select(servers),
        prop::option::weighted(0.9, select(METHODS.to_vec())),
        prop::option::weighted(0.9, select(NAMES.to_vec())),
        prop::option::weighted(0.8, arguments()),
        prop::option::of(any::<(Option<bool>, Option<bool>, Option<bool>)>()),
    )
        .prop_map(
            |(user, workload, server, method, name, arguments, hints)| Question {
                user,
                workload,
                server,
                method,
                name,
                arguments,
                hints,
            },
        )
}

#[derive(Debug, Clone, PartialEq)]
struct Answer {
    effect: GenEffect,
    rule: Option<usize>,
    /// The rule could not be evaluated.
    failed: bool,
    would: Option<(GenEffect, Option<usize>)>,
}

fn glob(pattern: &str, text: &str) -> bool {
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
const NAMING: [&str; 5] = [
    "tools/call",
    "resources/read",
    "prompts/get",
    "x/y",
    "notifications/z",
];
const SESSION: [&str; 2] = ["initialize", "tools/list"];
const DECIDED: [&str; 4] = [
    "tools/call",
    "resources/read",
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

fn name(question: &Question) -> &'static str {
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
    };
    let belongs = |role: &str| {
        ROLES
            .iter()
            .any(|(name, members)| *name == role && members.iter().any(|member| is(member)))
    };
    let who = rule.who.is_empty() || rule.who.iter().any(|who| is(who) || belongs(who));
    who && (rule.servers.is_empty() || rule.servers.contains(&question.server))
}

fn in_force(rule: &GenRule) -> bool {
    // Today is 2026-11-21.
    rule.expires != Some("2026-11-20")
}

/// `None`: the rule cannot be evaluated.
fn matches(world: &World, rule: &GenRule, question: &Question) -> Option<bool> {
    let plain = rule.methods.is_none() && rule.tools == GenTools::Any && rule.args.is_empty();
    let everything = plain && matches!(rule.effect, GenEffect::Allow | GenEffect::Deny);
    let method = match (question.method, &rule.methods) {
        (None, _) => everything,
        (Some(method), Some(globs)) => globs.iter().any(|pattern| glob(pattern, method)),
        (Some(method), None) if everything => {
            rule.effect == GenEffect::Deny || SESSION.contains(&method) || DECIDED.contains(&method)
        }
        (Some(method), None) => method == "tools/call",
    };
    let named = |globs: &[&str]| globs.iter().any(|pattern| glob(pattern, name(question)));
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
    hold(
        &rule.args,
        rule.effect == GenEffect::Allow,
        question.arguments.as_ref(),
    )
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
        by_rule.or(failed).unwrap_or(if reaches && session {
            (GenEffect::Allow, None, false)
        } else {
            nothing
        })
    };
    let (real, strict) = (conclude(false), conclude(true));
    if observes && real.0 != GenEffect::Allow {
        return refused(real);
    }
    Answer {
        effect: real.0,
        rule: real.1,
        failed: real.2,
        would: (strict.0 != real.0).then_some((strict.0, strict.1)),
    }
}

/// Compiles the world; rules that are faults are taken out and given back.
fn compiled(mut world: World) -> (World, exeat_policy::PolicySet, Vec<GenRule>) {
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

fn told(world: &World, set: &exeat_policy::PolicySet, question: &Question) -> Answer {
    question.ask(|request| {
        let verdict = evaluate(set, request);
        assert_eq!(explain(set, request).verdict, verdict);
        assert_eq!(
            verdict.mode == Mode::Observe,
            verdict.would.is_some() && verdict.effect == Effect::Allow
        );
        Answer {
            effect: effect(verdict.effect),
            rule: verdict.rule.as_deref().map(|rule| number(world, rule)),
            failed: matches!(verdict.reason, Reason::RuleFailed(_)),
            would: verdict.would.map(|would| {
                let rule = would.rule.as_deref().map(|rule| number(world, rule));
                (effect(would.effect), rule)
            }),
        }
    })
}

/// Whether some arguments make the call possible: shown, or not. The naive way is to ask with none of the
/// rules that restrict by arguments, and with no tests on those that allow.
fn shown_to(world: &World, question: &Question) -> bool {
    let mut open = world.clone();
    open.rules
        .retain(|rule| rule.effect == GenEffect::Allow || rule.args.is_empty());
    for rule in &mut open.rules {
        if !rule.args.is_empty() {
            rule.args.clear();
            // Without its tests it stays a rule about calls.
            rule.methods.get_or_insert_with(|| vec!["tools/call"]);
        }
    }
    answer(&open, question).effect != GenEffect::Deny
}

proptest! {
    #[test]
    fn both_evaluators_agree(world in world(), questions in prop::collection::vec(question(), 32)) {
        let (world, set, _) = compiled(world);
        for question in questions {
            prop_assert_eq!(told(&world, &set, &question), answer(&world, &question), "{:?}\n{}", question, world.text().0);
            if question.method == Some("tools/call") {
                let listed = question.ask(|request| match request.action {
                    Action::Mcp { server, name, hints, .. } => {
                        listable(&set, request.caller, server, name.unwrap_or(""), hints, NOW)
                    }
                    _ => false,
                });
                prop_assert_eq!(listed, shown_to(&world, &question), "{:?}\n{}", question, world.text().0);
            }
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
                prop_assert_eq!(before.effect, after.effect, "{:?}\n{:?}\n{}", rule, question, with.text().0);
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
