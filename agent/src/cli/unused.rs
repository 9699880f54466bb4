//! Grants that nothing which was recorded needed.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use exeat_policy::{PolicySet, Timestamp, Written};
use serde::Serialize;

use super::policy::recorded::{NotReplayed, Question, shows};
use crate::audit::Record;
use crate::audit::record::{Effect, Kind};

/// What the log says of grants.
#[derive(Debug, Serialize)]
pub(super) struct Unused {
    pub(super) since: String,
    /// Messages that passed and were put to the grants.
    pub(super) exchanges: u64,
    /// Those whose caller showed a token or a certificate: the identities count that their record names, and the grant.
    pub(super) with_token: u64,
    /// Those that the record does not tell in full.
    pub(super) unreadable: u64,
    pub(super) grants: Vec<UnusedGrant>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct UnusedGrant {
    pub(super) grant: String,
    pub(super) servers: Vec<String>,
    pub(super) place: String,
}

impl fmt::Display for UnusedGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.grant, self.servers.join(", "))
    }
}

/// Which grants were used.
#[derive(Debug)]
pub(super) struct Use {
    now: Timestamp,
    used: BTreeSet<Arc<str>>,
    exchanges: u64,
    with_token: u64,
    unreadable: u64,
}

impl Use {
    pub(super) const fn new(now: Timestamp) -> Self {
        Self {
            now,
            used: BTreeSet::new(),
            exchanges: 0,
            with_token: 0,
            unreadable: 0,
        }
    }

    /// Puts one record to the grants, if it is of a message that passed.
    pub(super) fn note(&mut self, set: &PolicySet, record: &Record) {
        if record.kind != Kind::Mcp || !passed(record) {
            return;
        }
        let question = Question::of(record);
        if shows(record) && question.as_ref().err() != Some(&NotReplayed::Undecided) {
            self.shown(set, record);
            return;
        }
        match question {
            Ok(question) => {
                self.exchanges += 1;
                self.used.extend(question.granted(set, self.now, &[]));
            }
            Err(NotReplayed::Unreadable) => self.unreadable += 1,
            Err(NotReplayed::Undecided | NotReplayed::Caller) => {}
        }
    }

    /// One whose caller showed a token or a certificate.
    fn shown(&mut self, set: &PolicySet, record: &Record) {
        self.with_token += 1;
        let decided = record.decision.as_ref();
        let named = decided.and_then(|decided| decided.rule.as_ref());
        self.used.extend(named.map(|rule| Arc::from(&**rule)));
        let Ok(question) = Question::of(record) else {
            return;
        };
        let known_as: Vec<Arc<str>> = record
            .identity
            .iter()
            .flat_map(|who| &who.identities)
            .map(|name| Arc::from(&**name))
            .collect();
        let granted = question.granted(set, self.now, &known_as);
        self.used.extend(granted);
    }

    pub(super) fn end(self, set: &PolicySet, since: String) -> Unused {
        let grants = set
            .rules()
            .iter()
            .filter(|rule| rule.written == Written::Grant);
        let unused = grants.filter(|rule| !self.used.contains(&rule.id));
        Unused {
            since,
            exchanges: self.exchanges,
            with_token: self.with_token,
            unreadable: self.unreadable,
            grants: unused
                .map(|rule| UnusedGrant {
                    grant: rule.id.to_string(),
                    servers: rule.servers.iter().map(ToString::to_string).collect(),
                    place: rule.place.to_string(),
                })
                .collect(),
        }
    }
}

/// Whether the message came to something: at once, only observed, run dry, or when a person had approved it.
fn passed(record: &Record) -> bool {
    let effect = record.decision.as_ref().map(|decision| decision.effect);
    match effect {
        Some(Effect::Allow | Effect::DryRun) => true,
        Some(Effect::Approve) => {
            let approval = record.approval.as_ref();
            let decision = approval.and_then(|approval| approval.decision.as_deref());
            decision == Some("approved")
        }
        Some(Effect::Deny) | None => false,
    }
}
