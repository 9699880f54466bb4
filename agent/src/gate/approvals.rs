//! `exeat approvals`: what waits for a person, and a person's decision, recorded before it counts.

use std::str::FromStr as _;

use crate::audit::record::{Cause, Identity, Kind, Mcp};
use crate::audit::{AuditUnavailable, RecordId, Text};
use crate::channel::{Approval, Granted};
use crate::control::command::{ApprovalDecision, Verdict};
use crate::control::peer::Peer;
use crate::control::reply::{Decided, Reply, Waiting};
use crate::control::{Code, ControlError, Responder, Scope, chain};
use crate::decide::approvals::{Approver, Reserved, Shown, Undecided, may_approve, recorded};
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
            || may_approve(&state.set, &approval.rule, peer.uid, &peer.user)
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
    mut responder: Responder,
) -> Result<(), ControlError> {
    let ApprovalDecision {
        id,
        verdict,
        reason,
    } = decision;
    let approver = Approver {
        uid: peer.uid,
        user: peer.user.clone(),
    };
    let state = stages.decider.in_force();
    let reserved = match stages.approvals.reserve(&id, &approver, &state.set) {
        Ok(reserved) => reserved,
        Err(why) => {
            let code = match why {
                Undecided::NotFound => Code::NotFound,
                Undecided::OwnCall => Code::Refused,
                Undecided::Decided => Code::Invalid,
            };
            return responder.fail(code, format!("`{id}`: {why}")).await;
        }
    };
    if let Err(error) = record(stages, &reserved, verdict, reason.as_deref()).await {
        let text = format!("`{id}` stays undecided, since nothing can be recorded: {error}");
        return responder.fail(Code::Unavailable, text).await;
    }
    let told = Decided {
        id: id.clone(),
        decision: verdict,
        server: reserved.approval().server.clone(),
        tool: reserved.approval().tool.clone(),
    };
    let done = match verdict {
        Verdict::Approve => reserved.grant().await,
        Verdict::Deny => reserved.deny(reason),
    };
    if let Err(why) = done {
        let text = format!("`{id}` came to nothing: {}", chain(&why));
        return responder.fail(Code::Unavailable, text).await;
    }
    responder.reply(Reply::Decided(told)).await?;
    responder.done().await
}

async fn record(
    stages: &Stages,
    reserved: &Reserved,
    verdict: Verdict,
    reason: Option<&str>,
) -> Result<(), AuditUnavailable> {
    let approval = reserved.approval();
    let by: &Granted = reserved.by();
    let word = match verdict {
        Verdict::Approve => "approved",
        Verdict::Deny => "denied",
    };
    let mut record = stages.log.record(Kind::Approval, clock::now());
    let identity = Identity {
        verified_by: Text::fixed("kernel"),
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
