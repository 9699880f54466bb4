//! A second evaluator, naive on purpose: it reads the generated policy as written, matches by trying
//! everything, and shares no code with the engine. Both must say the same.

use exeat_policy::{
    Action, Caller, Effect, Hints, Mode, Request, Source, Workload, compile, evaluate, explain,
    listable,
};
use proptest::prelude::*;
use proptest::sample::select;

use crate::support::{NOW, shown};
use crate::world::{GenRule, GenTools, IDENTITIES, METHODS, NAMES, SERVERS, World, rule, world};

/// A question in the small world.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    user: Option<&'static str>,
    workload: Option<(bool, &'static str)>,
    server: &'static str,
    /// `None`: the server is to be started.
    method: Option<&'static str>,
    name: Option<&'static str>,
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
        prop::option::of(any::<(Option<bool>, Option<bool>, Option<bool>)>()),
    )
        .prop_map(|(user, workload, server, method, name, hints)| Question {
            user,
            workload,
            server,
            method,
            name,
            hints,
        })
}

#[derive(Debug, Clone, PartialEq)]
struct Answer {
    allow: bool,
    rule: Option<usize>,
    would: Option<(bool, Option<usize>)>,
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
    let who = rule.who.is_empty()
        || rule.who.iter().any(|who| {
            question.workload == Some((true, who))
                || IDENTITIES.iter().any(|(name, users)| {
                    name == who
                        && question
                            .user
                            .is_some_and(|user| users.iter().any(|glob_| glob(glob_, user)))
                })
        });
    who && (rule.servers.is_empty() || rule.servers.contains(&question.server))
}

fn in_force(rule: &GenRule) -> bool {
    // Today is 2026-11-21.
    rule.expires != Some("2026-11-20")
}

fn matches(world: &World, rule: &GenRule, question: &Question) -> bool {
    let everything = rule.methods.is_none() && rule.tools == GenTools::Any;
    let method = match (question.method, &rule.methods) {
        (None, _) => everything,
        (Some(method), Some(globs)) => globs.iter().any(|pattern| glob(pattern, method)),
        (Some(method), None) if everything => {
            !rule.allow || SESSION.contains(&method) || DECIDED.contains(&method)
        }
        (Some(method), None) => method == "tools/call",
    };
    let tool = match &rule.tools {
        GenTools::Any => true,
        GenTools::Names(globs) => globs.iter().any(|pattern| glob(pattern, name(question))),
        GenTools::Classes(named) if question.method == Some("tools/call") => {
            let classes = classes(world, question);
            if rule.allow {
                classes.iter().all(|class| named.contains(class))
            } else {
                classes.iter().any(|class| named.contains(class))
            }
        }
        GenTools::Classes(_) => false,
    };
    is_about(rule, question) && method && tool && in_force(rule)
}

fn answer(world: &World, question: &Question) -> Answer {
    let server = world
        .servers
        .iter()
        .find(|server| server.name == question.server);
    let observes =
        question.method.is_some() && (world.observe || server.is_some_and(|server| server.observe));
    let refused = |rule: Option<usize>| Answer {
        allow: observes,
        rule,
        would: observes.then_some((false, rule)),
    };
    let Some(server) = server else {
        return refused(None);
    };
    if question.method.is_none() && server.url {
        return refused(None);
    }
    let unknown = matches!(question.workload, Some((true, "unknown") | (false, "gone")));
    let is_host = matches!(question.workload, Some((true, _)));
    if unknown
        || (world.strict && server.overdue)
        || (is_host && !world.listed.contains(&question.server))
    {
        return refused(None);
    }
    let reaches = is_host
        || world
            .rules
            .iter()
            .any(|rule| rule.allow && !rule.observe && is_about(rule, question) && in_force(rule));
    let found = |allow: bool, observed: bool| {
        world
            .rules
            .iter()
            .find(|rule| {
                rule.allow == allow && (observed || !rule.observe) && matches(world, rule, question)
            })
            .map(|rule| rule.id)
    };
    let conclude = |observed: bool| match (found(false, observed), found(true, observed)) {
        (Some(rule), _) => (false, Some(rule)),
        (None, Some(rule)) => (true, Some(rule)),
        (None, None) => (
            reaches
                && question
                    .method
                    .is_none_or(|method| SESSION.contains(&method)),
            None,
        ),
    };
    let (real, strict) = (conclude(false), conclude(true));
    if real.0 {
        return Answer {
            allow: true,
            rule: real.1,
            would: (!strict.0).then_some(strict),
        };
    }
    if observes {
        return refused(real.1);
    }
    Answer {
        allow: false,
        rule: real.1,
        would: strict.0.then_some(strict),
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
                let bad: Vec<usize> = (0..world.rules.len())
                    .filter(|index| faults.iter().any(|fault| fault.line == lines[*index]))
                    .collect();
                assert!(!bad.is_empty(), "{}", shown(&faults));
                // One at a time: taking one out may clear another.
                accused.push(world.rules.remove(bad[0]));
            }
        }
    }
}

fn told(set: &exeat_policy::PolicySet, question: &Question) -> Answer {
    let number = |rule: &str| rule.trim_start_matches('r').parse::<usize>().unwrap();
    question.ask(|request| {
        let verdict = evaluate(set, request);
        assert_eq!(explain(set, request).verdict, verdict);
        assert_eq!(
            verdict.mode == Mode::Observe,
            verdict.would.is_some() && verdict.effect == Effect::Allow
        );
        if let Action::Mcp {
            server,
            method: "tools/call",
            name,
            hints,
            ..
        } = request.action
        {
            let shown = listable(set, request.caller, server, name.unwrap_or(""), hints, NOW);
            assert_eq!(shown, verdict.effect == Effect::Allow);
        }
        Answer {
            allow: verdict.effect == Effect::Allow,
            rule: verdict.rule.as_deref().map(number),
            would: verdict.would.map(|would| {
                (
                    would.effect == Effect::Allow,
                    would.rule.as_deref().map(number),
                )
            }),
        }
    })
}

proptest! {
    #[test]
    fn both_evaluators_agree(world in world(), questions in prop::collection::vec(question(), 32)) {
        let (world, set, _) = compiled(world);
        for question in questions {
            prop_assert_eq!(told(&set, &question), answer(&world, &question), "{:?}\n{}", question, world.text().0);
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
                prop_assert_eq!(before.allow, after.allow, "{:?}\n{:?}\n{}", rule, question, with.text().0);
            }
        }
    }

    /// One more deny rule never allows anything; the order of rules never changes what happens.
    #[test]
    fn deny_only_takes_away(world in world(), more in rule(), questions in prop::collection::vec(question(), 16)) {
        let mut narrower = world.clone();
        narrower.rules.push(GenRule { id: 99, allow: false, observe: false, ..more });
        let mut turned = world.clone();
        turned.rules.reverse();
        for question in &questions {
            let before = answer(&world, question);
            prop_assert!(before.allow || !answer(&narrower, question).allow);
            prop_assert_eq!(before.allow, answer(&turned, question).allow);
        }
    }
}
