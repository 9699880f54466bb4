//! The policy in force, and what is recorded of its verdicts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use exeat_policy::{
    Caller, Effect, Hints, Limit, Mode, Place, PolicySet, Reason, Rule, Verdict, listable,
};

use super::counters::Standing;
use super::now;
use super::permit::{Asks, Judged};
use crate::audit::Text;
use crate::audit::record::{Counter, Decision, Effect as RecordedEffect, Mode as RecordedMode};
use crate::telemetry::clock;

/// Why what a rule wants approved does not pass as it is.
pub(super) const NEEDS_APPROVAL: &str = "needs an approval";
/// How long an approval is waited for where the rule does not say.
const WAIT: Duration = Duration::from_mins(10);
/// Why what a rule wants run dry does not pass as it is.
pub(super) const DRY_RUN: &str = "is run dry";

/// A policy in force.
#[derive(Debug)]
pub struct InForce {
    /// The set.
    pub set: PolicySet,
    /// Counts from 1 in the daemon's life.
    pub generation: u64,
    /// When it was taken.
    pub loaded: clock::Timestamp,
    fingerprint: Text,
    /// What records call each limit.
    limits: Vec<Text>,
    /// What records say of what a rule decides that has a reason of its own, by its id.
    reasons: HashMap<Arc<str>, Text>,
}

impl InForce {
    pub(super) fn new(set: PolicySet, generation: u64) -> Self {
        let fingerprint = Text::new(set.fingerprint());
        let called = |limit: &Limit| {
            let Place { file, span } = &limit.place;
            Text::new(&format!("{limit} ({file}:{})", span.line))
        };
        let reasoned = |rule: &Rule| {
            let text = format!("{}: {}", fixed(by(rule.effect)), rule.reason.as_deref()?);
            Some((Arc::clone(&rule.id), Text::new(&text)))
        };
        Self {
            generation,
            loaded: clock::wall(),
            fingerprint,
            limits: set.limits().iter().map(called).collect(),
            reasons: set.rules().iter().filter_map(reasoned).collect(),
            set,
        }
    }

    /// What limits stood at, as it is recorded.
    pub(super) fn counters(&self, standing: impl Iterator<Item = Standing>) -> Vec<Counter> {
        let counter = |one: Standing| Counter {
            name: self.limit(one.limit),
            value: one.value,
            limit: one.most,
        };
        standing.map(counter).collect()
    }

    /// What records call the limit with this index.
    fn limit(&self, index: usize) -> Text {
        self.limits.get(index).cloned().unwrap_or_default()
    }

    /// Why something is decided so (by this rule, where one decides), as it is recorded.
    fn why(&self, rule: Option<&str>, reason: Reason) -> Text {
        match reason {
            Reason::PathRefused(fault) => Text::new(&fault.to_string()),
            Reason::LimitReached(index)
            | Reason::AmountRefused(index)
            | Reason::CountMissing(index) => {
                Text::new(&format!("{}: {}", reason.text(), self.limit(index)))
            }
            // What a rule was written for is not what came up.
            Reason::RuleFailed(_) => Text::fixed(reason.text()),
            _ => {
                let own = rule.and_then(|rule| self.reasons.get(rule));
                own.cloned().unwrap_or_else(|| Text::fixed(fixed(reason)))
            }
        }
    }

    /// Whether a tool is shown to `caller`. Of a list all are asked of the same policy.
    pub fn lists(&self, caller: Caller<'_>, server: &str, tool: &str, hints: Hints) -> bool {
        listable(&self.set, caller, server, tool, Some(hints), now())
    }

    /// What is recorded of what passes, as it was `decided` (where it was), though this policy, which observes, would
    /// have refused it for `why`.
    pub fn observed(&self, decided: Option<Decision>, why: Text) -> Decision {
        let passes = || Decision {
            effect: RecordedEffect::Allow,
            rule: None,
            reason: None,
            mode: RecordedMode::Observe,
            would: None,
            would_rule: None,
            would_reason: None,
            policy: Some(self.fingerprint.clone()),
            generation: Some(self.generation),
            counters: Vec::new(),
        };
        Decision {
            reason: Some(why.clone()),
            mode: RecordedMode::Observe,
            would: Some(RecordedEffect::Deny),
            would_rule: None,
            would_reason: Some(Box::new(why)),
            ..decided.unwrap_or_else(passes)
        }
    }

    /// A refusal that no policy made.
    pub(super) fn refusal(&self, reason: Reason) -> Judged {
        self.judged(Verdict::of(Effect::Deny, reason))
    }

    pub(super) fn judged(&self, verdict: Verdict) -> Judged {
        let Verdict {
            effect,
            rule,
            asking,
            reason,
            mode,
            would,
            identities,
            class,
            egress,
            dry_run,
            retry_after,
        } = verdict;
        let wait = |rule: &Arc<str>| {
            let wait = self.set.rule(rule).and_then(|rule| rule.timeout_ms);
            wait.map_or(WAIT, Duration::from_millis)
        };
        let wait = asking.iter().map(wait).min();
        let asks = wait.map(|wait| Asks {
            rules: asking,
            wait,
        });
        let would_rule = would.as_ref().and_then(|would| would.rule.as_deref());
        let decision = Decision {
            effect: recorded(effect),
            rule: rule.as_deref().map(Text::new),
            reason: Some(self.why(rule.as_deref(), reason)),
            mode: match mode {
                Mode::Enforce => RecordedMode::Enforce,
                Mode::Observe => RecordedMode::Observe,
            },
            would: would.as_ref().map(|would| recorded(would.effect)),
            would_rule: would_rule.map(|rule| Box::new(Text::new(rule))),
            would_reason: would
                .as_ref()
                .map(|would| Box::new(self.why(would_rule, would.reason))),
            policy: Some(self.fingerprint.clone()),
            generation: Some(self.generation),
            counters: Vec::new(),
        };
        Judged {
            decision,
            reason,
            egress,
            class,
            identities,
            dry_run,
            retry_after,
            asks,
            attempt: None,
        }
    }
}

/// What is decided in the end where `decided` (by policy, as far as the exchange was known then) cannot stand: what was
/// seen since refuses (MCP spoken to a stranger, an answer that cannot be judged), by no rule.
pub fn overruled(decided: Option<Decision>, why: Text) -> Decision {
    let refused = Decision {
        effect: RecordedEffect::Deny,
        rule: None,
        reason: Some(why),
        mode: RecordedMode::Enforce,
        would: None,
        would_rule: None,
        would_reason: None,
        policy: None,
        generation: None,
        counters: Vec::new(),
    };
    match decided {
        None => refused,
        // It is refused whatever a rule in observation said.
        Some(decided) => Decision {
            effect: refused.effect,
            rule: refused.rule,
            reason: refused.reason,
            mode: refused.mode,
            ..decided
        },
    }
}

/// Why, of what a rule with this effect decides.
const fn by(effect: Effect) -> Reason {
    match effect {
        Effect::Allow => Reason::RuleAllowed,
        Effect::DryRun => Reason::DryRun,
        Effect::Approve => Reason::NeedsApproval,
        Effect::Deny => Reason::RuleDenied,
    }
}

/// The words of a record, without particulars.
const fn fixed(reason: Reason) -> &'static str {
    match reason {
        Reason::NeedsApproval => NEEDS_APPROVAL,
        Reason::DryRun => DRY_RUN,
        other => other.text(),
    }
}

fn recorded(effect: Effect) -> RecordedEffect {
    match effect {
        Effect::Allow => RecordedEffect::Allow,
        Effect::DryRun => RecordedEffect::DryRun,
        Effect::Approve => RecordedEffect::Approve,
        Effect::Deny => RecordedEffect::Deny,
    }
}
