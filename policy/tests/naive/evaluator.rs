//! A second evaluator, naive on purpose: it reads the generated policy as written, matches by trying
//! everything, and shares no code with the engine. Both must say the same.

use exeat_policy::NameKind;

use super::arguments::{Tree, hold};
use super::conditions::Asked;
use super::limited::{Call, Charged, charge, refuses};
use super::people;
use super::question::Question;
use super::uris::{holds, is_named};
use super::world::{
    CERTIFICATES, Claim, GenEffect, GenRule, GenTools, IDENTITIES, Names, ROLES, TOKENS, World,
};

/// What a policy says to a question.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) effect: GenEffect,
    pub(crate) rule: Option<usize>,
    /// The rule could not be evaluated.
    pub(crate) failed: bool,
    pub(crate) would: Option<(GenEffect, Option<usize>)>,
    /// The limit that refuses.
    pub(crate) limit: Option<usize>,
    /// Of a call that waits for a person: which people may approve it.
    pub(crate) approve: Vec<&'static str>,
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
pub(crate) const SESSION: [&str; 2] = ["initialize", "tools/list"];
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
pub(crate) fn asked<'a>(question: &'a Question, arguments: &'a Tree) -> Asked<'a> {
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

pub(crate) fn answer(world: &World, question: &Question) -> Answer {
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
pub(crate) fn limited(
    world: &World,
    question: &Question,
    at: i64,
    passed: &mut Vec<Charged>,
) -> Answer {
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
