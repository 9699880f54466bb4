//! The two results of a decision. Nothing outside this folder can make either.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use exeat_policy::{ClassSet, DryRun, Egress, Reason};

use super::attempt::Attempt;
use crate::audit::OpenRecord;
use crate::audit::record::{Decision, Mode};

/// What a decision was about: a workload's connection to a peer.
#[derive(Debug)]
pub struct Connect;
/// What a decision was about: an HTTP request.
#[derive(Debug)]
pub struct Exchange;
/// What a decision was about: an MCP message.
#[derive(Debug)]
pub struct Message;
/// What a decision was about: a name's addresses.
#[derive(Debug)]
pub struct Resolve;
/// What a decision was about: a server's start.
#[derive(Debug)]
pub struct Run;

/// Proof that policy allowed one thing, once. Not `Clone`; whatever forwards takes it by value.
#[must_use = "a permit that is not used was asked for in vain"]
pub struct Permit<A> {
    pub(super) judged: Judged,
    about: std::marker::PhantomData<A>,
}

/// Proof that policy refused.
#[must_use = "a refusal has to be answered and recorded"]
pub struct Refused {
    pub(super) judged: Box<Judged>,
}

/// What both hold.
pub(super) struct Judged {
    pub(super) decision: Decision,
    pub(super) reason: Reason,
    pub(super) egress: Option<Egress>,
    pub(super) class: Option<ClassSet>,
    pub(super) identities: Vec<Arc<str>>,
    pub(super) dry_run: Option<Arc<DryRun>>,
    pub(super) retry_after: Option<u64>,
    pub(super) asks: Option<Asks>,
    pub(super) attempt: Option<Attempt>,
}

/// What rules ask a person for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asks {
    /// The rules, in the order of the files: who approves has to be an approver of each.
    pub rules: Vec<Arc<str>>,
    /// How long it is waited: the shortest of their times.
    pub wait: Duration,
}

impl<A> Permit<A> {
    pub(super) fn new(judged: Judged) -> Self {
        Self {
            judged,
            about: std::marker::PhantomData,
        }
    }

    /// For the record.
    pub fn decision(&self) -> &Decision {
        &self.judged.decision
    }

    /// Whether the decision says no more than that it is allowed: no rule that is only observed says otherwise.
    pub fn is_plain(&self) -> bool {
        let Decision { mode, would, .. } = &self.judged.decision;
        *mode == Mode::Enforce && would.is_none()
    }

    /// How the connection is to be treated; absent for what does not go over the network.
    pub fn egress(&self) -> Option<&Egress> {
        self.judged.egress.as_ref()
    }

    /// The tool's class, of a call.
    pub fn class(&self) -> Option<ClassSet> {
        self.judged.class
    }

    /// The identities that the caller matched.
    pub fn identities(&self) -> &[Arc<str>] {
        &self.judged.identities
    }
}

impl Permit<Message> {
    /// Has `record`, which ends with the call, tell how it ends.
    pub fn watched(&mut self, record: &mut OpenRecord) {
        if let Some(attempt) = self.judged.attempt.take() {
            record.watch(Box::new(attempt));
        }
    }
}

impl Refused {
    pub(super) fn new(judged: Judged) -> Self {
        Self {
            judged: Box::new(judged),
        }
    }

    /// For the record.
    pub fn decision(&self) -> &Decision {
        &self.judged.decision
    }

    /// Why; for choosing what the caller is told, which never is this.
    pub fn reason(&self) -> Reason {
        self.judged.reason
    }

    /// The tool's class, of a call.
    pub fn class(&self) -> Option<ClassSet> {
        self.judged.class
    }

    /// The identities that the caller matched.
    pub fn identities(&self) -> &[Arc<str>] {
        &self.judged.identities
    }

    /// What a person is to be asked, where an approval would let it pass.
    pub fn asks(&self) -> Option<&Asks> {
        self.judged.asks.as_ref()
    }

    /// Milliseconds after which the limit or the breaker that refused lets a call pass.
    pub fn retry_after(&self) -> Option<u64> {
        self.judged.retry_after
    }
}

impl<A> fmt::Debug for Permit<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("decision", &self.judged.decision)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused")
            .field("decision", &self.judged.decision)
            .finish_non_exhaustive()
    }
}
