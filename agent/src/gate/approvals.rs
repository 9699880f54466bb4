//! `exeat approvals`: what waits for a person, and a person's decision, recorded before it counts.

use std::str::FromStr as _;

use thiserror::Error;

use crate::audit::record::{Cause, Identity, Kind, Mcp};
use crate::audit::{AuditUnavailable, RecordId, Text};
use crate::channel::{Approval, Granted};
use crate::control::command::{ApprovalDecision, ApprovalLink, Verdict};
use crate::control::peer::Peer;
use crate::control::reply::{Decided, Reply, Waiting};
use crate::control::{Code, ControlError, Responder, Scope, chain};
use crate::decide::approvals::{
    Approver, NotKept, Reserved, Shown, Undecided, may_approve, recorded, takes_part,
};
use crate::flow::Stages;
use crate::telemetry::clock;

/// Answers `approvals`: everything to administrators; to others, what they called and what they may approve.
pub(super) async fn list(
    stages: &Stages,
    peer: &Peer,
    scope: Scope,
    mut responder: Responder,
) -> Result<(), ControlError> {
    let state = stages.decider.in_force();
    let waiting = stages.approvals.waiting(|approval| {
        scope == Scope::All
            || approval.caller.uids.contains(&peer.uid)
            || may_approve(&state.set, approval.rules(), peer.uid, &peer.user)
    });
    for (approval, shown) in waiting {
        let reply = Reply::Waiting(Box::new(told(approval, shown)));
        responder.reply(reply).await?;
    }
    responder.done().await
}

fn told(approval: Approval, shown: Option<Shown>) -> Waiting {
    let Approval {
        id,
        arguments,
        server,
        tool,
        rule,
        other_rules,
        caller,
        record,
        asked,
        until,
        granted,
        ..
    } = approval;
    let connected = shown.is_some();
    let (shown, further, subject) = shown.map_or_else(Default::default, |shown| {
        (Some(shown.arguments), shown.further, shown.subject)
    });
    Waiting {
        id,
        server,
        tool,
        rule,
        other_rules,
        host: caller.workload,
        user: caller.user,
        uids: caller.uids,
        subject,
        asked,
        until,
        connected,
        arguments: shown,
        further,
        arguments_sha256: arguments,
        record,
        approved_by: granted.map(|granted| granted.user),
    }
}

/// Answers `approvals approve` and `approvals deny`.
pub(super) async fn decide(
    stages: &Stages,
    peer: &Peer,
    decision: ApprovalDecision,
    responder: Responder,
) -> Result<(), ControlError> {
    let approver = Approver {
        uid: peer.uid,
        user: peer.user.clone(),
    };
    let id = decision.id.clone();
    let done = carry_out(stages, decision, &approver, "kernel").await;
    answer(&id, done, responder).await
}

/// Answers `approvals decide`: the link says who decides; who shows it may have no part in the call either.
pub(super) async fn by_link(
    stages: &Stages,
    peer: &Peer,
    shown: &ApprovalLink,
    responder: Responder,
) -> Result<(), ControlError> {
    let Some(approving) = &stages.approving else {
        let text = "exeat.yaml has no `approvals`, so no link is of this daemon";
        return responder.fail(Code::Refused, text).await;
    };
    let (link, approver) = match approving.read(&shown.token, clock::wall()) {
        Ok(read) => read,
        Err(why) => return responder.fail(Code::Refused, why.to_string()).await,
    };
    let id = link.id.clone();
    let waits = stages.approvals.undecided(&id);
    let by = Approver {
        uid: peer.uid,
        user: peer.user.clone(),
    };
    let state = stages.decider.in_force();
    if waits.is_some_and(|(approval, shown)| {
        takes_part(&approval.caller, shown.as_ref(), &by, &state.set)
    }) {
        return answer(&id, Err(Undecided::OwnCall.into()), responder).await;
    }
    let decision = ApprovalDecision {
        id: link.id,
        verdict: link.verdict,
        reason: None,
    };
    let done = carry_out(stages, decision, approver, "link").await;
    answer(&id, done, responder).await
}

async fn answer(
    id: &str,
    done: Result<Decided, Fault>,
    mut responder: Responder,
) -> Result<(), ControlError> {
    match done {
        Ok(decided) => {
            responder.reply(Reply::Decided(decided)).await?;
            responder.done().await
        }
        Err(fault) => {
            let code = match &fault {
                Fault::Undecided(Undecided::NotFound) => Code::NotFound,
                Fault::Undecided(Undecided::OwnCall) => Code::Refused,
                Fault::Undecided(Undecided::Decided) => Code::Invalid,
                Fault::Unrecorded(_) | Fault::NotKept(_) => Code::Unavailable,
            };
            let text = format!("`{id}`: {}", chain(&fault));
            responder.fail(code, text).await
        }
    }
}

/// Why a decision came to nothing.
#[derive(Debug, Error)]
pub(super) enum Fault {
    /// It is not this person's, or not open.
    #[error(transparent)]
    Undecided(#[from] Undecided),
    /// It would not be recorded.
    #[error("it stays undecided, since nothing can be recorded")]
    Unrecorded(#[source] AuditUnavailable),
    /// It was recorded, and could not be carried out.
    #[error("it came to nothing")]
    NotKept(#[source] NotKept),
}

/// Records a decision of `approver`, who was `verified_by` these means, and has it count.
pub(super) async fn carry_out(
    stages: &Stages,
    decision: ApprovalDecision,
    approver: &Approver,
    verified_by: &'static str,
) -> Result<Decided, Fault> {
    let ApprovalDecision {
        id,
        verdict,
        reason,
    } = decision;
    let state = stages.decider.in_force();
    let reserved = stages.approvals.reserve(&id, approver, &state.set)?;
    record(stages, &reserved, verdict, reason.as_deref(), verified_by)
        .await
        .map_err(Fault::Unrecorded)?;
    let told = Decided {
        id,
        decision: verdict,
        server: reserved.approval().server.clone(),
        tool: reserved.approval().tool.clone(),
    };
    let done = match verdict {
        Verdict::Approve => reserved.grant().await,
        Verdict::Deny => reserved.deny(reason),
    };
    done.map_err(Fault::NotKept)?;
    Ok(told)
}

async fn record(
    stages: &Stages,
    reserved: &Reserved,
    verdict: Verdict,
    reason: Option<&str>,
    verified_by: &'static str,
) -> Result<(), AuditUnavailable> {
    let approval = reserved.approval();
    let by: &Granted = reserved.by();
    let word = match verdict {
        Verdict::Approve => "approved",
        Verdict::Deny => "denied",
    };
    let mut record = stages.log.record(Kind::Approval, clock::now());
    let identity = Identity {
        verified_by: Text::fixed(verified_by),
        user: Some(Text::new(&by.user)),
        uid: Some(by.uid),
        ..Identity::default()
    };
    record.identity = Some(identity.into());
    record.mcp = Some(Mcp {
        server: Some(Text::new(&approval.server)),
        method: Text::fixed("tools/call"),
        name: Some(Text::new(&approval.tool)),
        ..Mcp::default()
    });
    record.approval = Some(recorded(approval, Some((by, word, reason))));
    record.cause = RecordId::from_str(&approval.record).ok().map(Cause::Id);
    stages.log.event(record).await?.recorded().await
}
