//! MCP: starting a server, and each message to or from it.
//!
//! A host reaches the servers of its list, anyone else the servers that some allow rule in force lets
//! them use. Session methods follow from that (see [`methods`](crate::methods)); all others need a rule.

use std::sync::Arc;

use super::limits;
use super::rules::{Arguments, ByEffect, Found, Question, match_rules};
use super::watch::Watch;
use super::{Callers, Hints, Reason, Request, Verdict, Would, deny, observed};
use crate::index::{Id, position};
use crate::methods::{Governance, TOOLS_CALL, governance, names_uri};
use crate::model::{Effect, Mode, Server, Written};
use crate::set::PolicySet;
use crate::time::Timestamp;
use crate::uri;

/// One message.
pub(super) struct Message<'a> {
    pub(super) server: &'a str,
    pub(super) method: &'a str,
    pub(super) name: Option<&'a str>,
    pub(super) arguments: Arguments<'a>,
    pub(super) hints: Option<Hints>,
    pub(super) session: Option<&'a str>,
}

/// Decides on a message.
pub(super) fn message(
    set: &PolicySet,
    request: &Request<'_>,
    callers: &Callers<'_>,
    message: &Message<'_>,
    watch: &mut impl Watch,
) -> Verdict {
    let verdict = by_rules(set, callers, message, request.now, watch);
    let observes = observes(set, set.server(message.server));
    let passed = observes && verdict.mode == Mode::Observe;
    if verdict.effect == Effect::Deny || passed {
        return verdict;
    }
    let verdict = limits::apply(set, request, message, verdict, watch);
    if observes { observed(verdict) } else { verdict }
}

/// Decides on a message without its limits.
pub(super) fn by_rules(
    set: &PolicySet,
    callers: &Callers<'_>,
    message: &Message<'_>,
    now: Timestamp,
    watch: &mut impl Watch,
) -> Verdict {
    let Some(id) = set.index().server(message.server) else {
        let verdict = deny(Reason::NotRegistered);
        return if set.mode() == Mode::Observe {
            observed(verdict)
        } else {
            verdict
        };
    };
    let question = question(set, id, message);
    let (name, classes) = (question.name, question.classes);
    let tools = set.index().tools.get(position(id));
    let verdict = judge(
        set,
        callers,
        &question,
        now,
        watch,
        |reaches| match question.governance {
            Some(Governance::Session) if reaches => Verdict::of(Effect::Allow, Reason::Reachable),
            Some(Governance::Session) => deny(Reason::NotReachable),
            Some(Governance::Named | Governance::Unnamed) => deny(Reason::NoRule),
            None => deny(Reason::UnknownMethod),
        },
    );
    let dry_run = tools
        .filter(|_| verdict.effect == Effect::DryRun && classes.is_some())
        .and_then(|tools| tools.named(name)?.dry_run.clone());
    let verdict = Verdict {
        class: classes,
        dry_run,
        ..verdict
    };
    if observes(set, set.server_at(id)) {
        observed(verdict)
    } else {
        verdict
    }
}

/// What rules are asked about a message to a server.
pub(super) fn question<'a>(set: &PolicySet, server: Id, message: &Message<'a>) -> Question<'a> {
    let governance = governance(message.method);
    let name = named(governance, message);
    let tools = (message.method == TOOLS_CALL)
        .then(|| set.index().tools.get(position(server)))
        .flatten();
    Question {
        server,
        server_name: message.server,
        method: Some(message.method),
        governance,
        name,
        reading: names_uri(message.method, name).then(|| uri::read(name)),
        classes: tools.map(|tools| tools.classes(name, message.hints)),
        arguments: message.arguments,
    }
}

/// The name to match with. A known method that names nothing has none, whatever the message says.
fn named<'a>(governance: Option<Governance>, message: &Message<'a>) -> &'a str {
    match governance {
        Some(Governance::Session | Governance::Unnamed) => "",
        Some(Governance::Named) | None => message.name.unwrap_or_default(),
    }
}

/// Decides on starting a server. Never observed: an error here is a process that runs.
pub(super) fn run(
    set: &PolicySet,
    request: &Request<'_>,
    callers: &Callers<'_>,
    (server, extra_args): (&str, &[String]),
    watch: &mut impl Watch,
) -> Verdict {
    let Some(id) = set.index().server(server) else {
        return deny(Reason::NotRegistered);
    };
    let Some(launch) = set.server_at(id).and_then(Server::launch) else {
        return deny(Reason::NotLaunchable);
    };
    if launch.uncovered(extra_args).is_some() {
        return deny(Reason::ExtraArgument);
    }
    let question = Question {
        server: id,
        server_name: server,
        method: None,
        governance: None,
        name: "",
        reading: None,
        classes: None,
        arguments: Arguments::Given(None),
    };
    judge(set, callers, &question, request.now, watch, |reaches| {
        if reaches {
            Verdict::of(Effect::Allow, Reason::Reachable)
        } else {
            deny(Reason::NotReachable)
        }
    })
}

/// Whether denials of calls to the server are only observed.
fn observes(set: &PolicySet, server: Option<&Server>) -> bool {
    set.mode() == Mode::Observe || server.is_some_and(|server| server.mode == Mode::Observe)
}

/// Bounds first, then rules; `otherwise` where no rule says anything, told whether the server is reached.
fn judge(
    set: &PolicySet,
    callers: &Callers<'_>,
    question: &Question<'_>,
    now: Timestamp,
    watch: &mut impl Watch,
    otherwise: impl Fn(bool) -> Verdict,
) -> Verdict {
    let matched = match_rules(set, callers, question, now, watch);
    let server = set.server_at(question.server);
    let bound = match () {
        () if callers.barred.is_some() => callers.barred,
        () if set.strict_review() && server.is_none_or(|server| server.is_overdue(now)) => {
            Some(Reason::ReviewOverdue)
        }
        () if !within_list(set, callers, server) => Some(Reason::NotListed),
        () => None,
    };
    if let Some(reason) = bound {
        return deny(reason);
    }
    let reaches = callers.host.is_some()
        || set
            .index()
            .rules
            .slots(question.server)
            .any(|slots| slots.reaches(&callers.ids, now));
    let conclude = |matched: &ByEffect| match (matched.strongest(), otherwise(reaches)) {
        (Some(found), _) => by_rule(set, found),
        (None, otherwise) => match matched.failed {
            Some(failed) if otherwise.effect == Effect::Deny => by_rule(set, failed),
            _ => otherwise,
        },
    };
    // A rule about everything lets the server be started, yet only as reaching it does.
    let mut verdict = conclude(&matched.enforced);
    let strict = conclude(&matched.enforced.or(&matched.observed));
    if verdict.effect == Effect::Approve {
        let rules = matched.asking().into_iter();
        let rules = rules.filter_map(|id| set.rules().get(position(id)));
        verdict.asking = rules.map(|rule| Arc::clone(&rule.id)).collect();
    }
    if strict.effect == verdict.effect {
        return verdict;
    }
    let mode = if verdict.effect == Effect::Allow {
        Mode::Observe
    } else {
        Mode::Enforce
    };
    let would = Would {
        effect: strict.effect,
        rule: strict.rule,
        reason: strict.reason,
    };
    Verdict {
        mode,
        would: Some(would),
        ..verdict
    }
}

fn by_rule(set: &PolicySet, found: Found) -> Verdict {
    let rule = set.rules().get(position(found.rule));
    let granted = rule.is_some_and(|rule| rule.written == Written::Grant);
    let reason = match (found.failed, found.effect) {
        (Some(why), _) => Reason::RuleFailed(why),
        (None, Effect::Allow) if granted => Reason::Granted,
        (None, Effect::Allow) => Reason::RuleAllowed,
        (None, Effect::DryRun) => Reason::DryRun,
        (None, Effect::Approve) => Reason::NeedsApproval,
        (None, Effect::Deny) => Reason::RuleDenied,
    };
    Verdict {
        rule: rule.map(|rule| Arc::clone(&rule.id)),
        ..Verdict::of(found.effect, reason)
    }
}

/// A host uses the servers of its list and no others.
fn within_list(set: &PolicySet, callers: &Callers<'_>, server: Option<&Server>) -> bool {
    let Some(host) = callers.host else {
        return true;
    };
    let (Some(host), Some(server)) = (set.host_at(host), server) else {
        return false;
    };
    host.servers.contains(&server.name)
}
