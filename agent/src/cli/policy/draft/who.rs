//! Who asks, and by which rule of the policy they may: a drafted rule is for no others, and asks for no less.

use std::sync::Arc;

use exeat_policy::cel::Condition;
use exeat_policy::{
    ClassSet, Effect, Glob, Governance, Mode, Outcome, PolicySet, Rule, Subject, Timestamp,
    Unevaluated, Workload, governance,
};

use super::seen::{Left, Message};
use super::shape::quoted;
use crate::audit::is_whole;
use crate::cli::policy::recorded::{Answer, Asked, Question};

/// Who acts. What of it a rule cannot name, its condition asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Who {
    /// The identity that a token or a certificate showed.
    pub(super) identity: Option<String>,
    /// The Unix user: of a process that belongs to no host, or where the policy asks for it.
    pub(super) user: Option<String>,
    /// The host that it came from, if it came from one.
    pub(super) host: Option<String>,
    /// Issuer and subject of the token, where the policy asks for more of the caller than for the identity.
    token: Option<(String, String)>,
}

impl Who {
    /// The user that a rule about them is about.
    pub(super) fn as_user(&self) -> Option<&str> {
        let named = self.identity.is_none() && self.host.is_none();
        self.user.as_deref().filter(|_| named)
    }

    pub(super) const fn is_one_token(&self) -> bool {
        self.token.is_some()
    }

    /// What keeps a user's rule from the hosts that run as it, an identity's from where it was not seen, and a host's from
    /// users that the policy does not name.
    pub(super) fn alone(&self) -> Option<String> {
        let mut parts = Vec::new();
        match &self.host {
            None => parts.push("!has(caller.host)".to_owned()),
            Some(host) if self.identity.is_some() => {
                let host = quoted(host);
                parts.push(format!("has(caller.host) && caller.host == {host}"));
            }
            Some(_) => {}
        }
        if let Some(user) = self.user.as_ref().filter(|_| self.as_user().is_none()) {
            let user = quoted(user);
            parts.push(format!("has(caller.user) && caller.user == {user}"));
        }
        if let Some((issuer, subject)) = &self.token {
            parts.push(format!(
                "has(caller.issuer) && caller.issuer == {} && caller.subject == {}",
                quoted(issuer),
                quoted(subject)
            ));
        }
        (!parts.is_empty()).then(|| parts.join(" && "))
    }
}

/// Who asks for what the policy still allows, as a rule can name them, and the rule by which they may: none where the
/// policy only observes.
pub(super) fn who<'s>(
    set: &'s PolicySet,
    question: &Question<'_>,
    now: Timestamp,
) -> Result<(Who, Option<&'s Rule>), Left> {
    match question.put(set, now) {
        Answer::Untold(_)
        | Answer::Decided {
            effect: Effect::Allow,
            ..
        } => {}
        Answer::Decided { .. } => return Err(Left::Refused),
    }
    let (shown, alone) = question.identities(set, now);
    let rule = allowing(set, question, &shown, now)?;
    let names = |name: &str| rule.is_none_or(|rule| is_about(rule, name));
    let any = shown.iter().find(|name| names(name));
    let alone = alone.iter().find(|name| names(name));
    let identity = alone.or(any).map(ToString::to_string);
    if identity.is_none() && shown.is_empty() && !question.needs_nothing(set, now) {
        // What the token is allowed for beyond its identities is not for everybody who comes from there.
        return Err(Left::Untellable);
    }
    let token = question
        .token()
        .filter(|_| alone.is_none() && !shown.is_empty());
    if token.is_some_and(|token| !(is_whole(token.issuer) && is_whole(token.subject))) {
        return Err(Left::Untellable);
    }
    // By what it was shown beside it, no rule tells a certificate that it does not name.
    if identity.is_none() && !shown.is_empty() && token.is_none() {
        return Err(Left::Untellable);
    }
    let host = host(question);
    let by_host = identity.is_some() || host.as_deref().is_some_and(names);
    let user = question.caller().user.filter(|_| !by_host);
    if !by_host && !user.is_some_and(is_alone) {
        return Err(Left::Untellable);
    }
    let who = Who {
        identity,
        user: user.map(str::to_owned),
        host,
        token: token.map(|token| (token.issuer.to_owned(), token.subject.to_owned())),
    };
    Ok((who, rule))
}

fn is_about(rule: &Rule, name: &str) -> bool {
    rule.who.is_empty() || rule.who.iter().any(|who| **who == *name)
}

/// Whether an identity can be of this user alone.
fn is_alone(user: &str) -> bool {
    is_whole(user) && Glob::parse(user).is_ok_and(|glob| glob.literal().is_some())
}

fn host(question: &Question<'_>) -> Option<String> {
    match question.caller().workload {
        Some(Workload::Host(host)) => Some(host.to_owned()),
        _ => None,
    }
}

/// All that rules about who asks may be about.
pub(super) fn everybody(set: &PolicySet, question: &Question<'_>, now: Timestamp) -> Vec<Who> {
    let (shown, _) = question.identities(set, now);
    let (host, user) = (host(question), question.caller().user.map(str::to_owned));
    let of = |identity: Option<String>, user: Option<String>| Who {
        identity,
        user,
        host: host.clone(),
        token: None,
    };
    let shown = shown
        .into_iter()
        .map(|name| of(Some(name.to_string()), None));
    let at_host = host.is_some().then(|| of(None, None));
    let as_user = user.map(|user| of(None, Some(user)));
    shown.chain(at_host).chain(as_user).collect()
}

/// The rule that allows it: of a message the first one that matches, of a session and a start the one by which the server
/// is reached for the longest time, if possible as what was shown.
fn allowing<'s>(
    set: &'s PolicySet,
    question: &Question<'_>,
    shown: &[Arc<str>],
    now: Timestamp,
) -> Result<Option<&'s Rule>, Left> {
    let explanation = question.explanation(set, now);
    let considered = explanation.considered.iter().filter_map(|item| {
        let (Subject::Rule(id) | Subject::Grant(id)) = &item.subject else {
            return None;
        };
        let rule = set.rule(id)?;
        let allows = rule.effect == Effect::Allow && rule.mode == Mode::Enforce;
        allows.then_some((rule, item.outcome))
    });
    let reaching = match &question.asked {
        Asked::Mcp { mcp, .. } => governance(&mcp.method) == Some(Governance::Session),
        _ => true,
    };
    if reaching {
        let reach = considered.filter(|(rule, outcome)| {
            !matches!(outcome, Outcome::OtherServer | Outcome::OtherCaller)
                && !rule.expires.is_some_and(|date| date.is_past(now))
        });
        // No end is the latest.
        let latest = reach.min_by_key(|(rule, _)| {
            let ends = rule.expires.map(std::cmp::Reverse);
            let names = shown.iter().any(|name| is_about(rule, name));
            (ends.is_some(), ends, !names)
        });
        return Ok(latest.map(|(rule, _)| rule));
    }
    let (matched, unknown): (Vec<_>, Vec<_>) = considered
        .filter(|(_, outcome)| {
            matches!(
                outcome,
                Outcome::Matched | Outcome::Failed(Unevaluated::Unknown)
            )
        })
        .partition(|(_, outcome)| *outcome == Outcome::Matched);
    if let Some((rule, _)) = matched.first() {
        return Ok(Some(rule));
    }
    if explanation.verdict.effect == Effect::Allow {
        return Ok(None);
    }
    // Which of those it was that test what is not recorded, the record may say.
    let decision = question.record.decision.as_ref();
    let by = decision.and_then(|decision| decision.rule.as_deref());
    let recorded = unknown.iter().find(|(rule, _)| Some(&*rule.id) == by);
    match (recorded, unknown.as_slice()) {
        (Some((rule, _)), _) | (None, [(rule, _)]) => Ok(Some(rule)),
        _ => Err(Left::Untellable),
    }
}

/// The classes that a rule asks for, of a tool that the register does not name: its server may list it otherwise by then.
fn classes(set: &PolicySet, rule: &Rule, server: &str, name: &str) -> Option<ClassSet> {
    let named = |server: &exeat_policy::Server| {
        let mut tools = server.tools.iter();
        tools.any(|(glob, _)| glob.matches(name))
    };
    let asked = rule.tools.classes();
    asked.filter(|_| !set.server(server).is_some_and(named))
}

/// Whether a rule asks for more than names.
pub(super) fn asks(set: &PolicySet, rule: &Rule, server: &str, name: &str) -> bool {
    rule.is_conditional() || rule.expires.is_some() || classes(set, rule, server, name).is_some()
}

impl Message {
    /// The rule of the policy whose tests hold of it.
    pub(super) fn rule<'s>(&self, set: &'s PolicySet) -> Option<&'s Rule> {
        set.rule(self.rule.as_deref()?)
    }

    pub(super) fn classes(&self, set: &PolicySet) -> Option<ClassSet> {
        classes(set, self.rule(set)?, &self.server, &self.name)
    }

    /// Whether `tools` names what is called; else the condition does.
    pub(super) fn is_named(&self, set: &PolicySet) -> bool {
        let literal = Glob::parse(&self.name).is_ok_and(|glob| glob.literal().is_some());
        literal && self.classes(set).is_none()
    }

    /// The condition of the rule that allows it; `None` where there is none that can be written.
    pub(super) fn condition(&self, set: &PolicySet) -> Option<String> {
        let mut parts = self.shape.tests()?.when;
        let names = !matches!(
            governance(&self.method),
            Some(Governance::Session | Governance::Unnamed)
        );
        if names && !self.is_named(set) {
            parts.push(format!("tool == {}", quoted(&self.name)));
        }
        parts.extend(self.who.alone());
        let own = parts.join(" && ");
        let when = match self.rule(set).and_then(|rule| rule.when.as_ref()) {
            Some(asked) => both(own, asked.as_str()),
            None => own,
        };
        Condition::parse(&when).is_ok().then_some(when)
    }
}

/// Both conditions; the second alone where it begins with the first, as that of a draft does.
fn both(own: String, asked: &str) -> String {
    let rest = asked.strip_prefix(&own);
    let more = rest
        .and_then(|rest| rest.strip_prefix(" && ("))
        .and_then(|rest| rest.strip_suffix(')'));
    if rest == Some("") || more.is_some_and(|more| Condition::parse(more).is_ok()) {
        asked.to_owned()
    } else {
        format!("{own} && ({asked})")
    }
}
