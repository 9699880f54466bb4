//! Whether a user may start a server with `exeat run`: decided and recorded before it is said.

use exeat_policy::{Caller, Reason};
use tokio::time::timeout;

use super::{Supervisor, UNRECORDED};
use crate::audit::record::{Decision, Identity, Kind, Lifecycle};
use crate::audit::{Outcome, Start, Text, mask};
use crate::channel::{NotStarted, RunVerdict};
use crate::flow::PLACE;
use crate::identify::workloads::Known;

impl Supervisor {
    /// May this user start this server? The answer is recorded before it is given.
    pub(super) async fn may_run(
        &self,
        uid: u32,
        user: Option<&str>,
        workload: Option<u32>,
        (server, extra_args): (&str, &[String]),
    ) -> RunVerdict {
        let refused = |why, reason: &str| RunVerdict::Refused {
            why,
            reason: reason.to_owned(),
        };
        let unavailable = || refused(NotStarted::Unrecorded, UNRECORDED);
        // A host starts the servers of its list and no others, whatever its user may start elsewhere.
        let workloads = &self.stages.intake.workloads;
        let known = workload.map(|number| workloads.get(number));
        let gone = matches!(known, Some(None));
        let known = known.flatten();
        let identity = Identity {
            verified_by: Text::fixed("kernel"),
            user: user.map(Text::new),
            uid: Some(uid),
            ..Identity::default()
        };
        let start = Start {
            workload: known.as_ref().map(|known| workloads.recorded(known, 0)),
            identity: Some(identity.into()),
            ..Start::default()
        };
        // The supervisor's next word waits for this one.
        let opened = timeout(PLACE, self.stages.log.open(Kind::Lifecycle, start)).await;
        let Ok(Ok(mut record)) = opened else {
            return unavailable();
        };
        record.record_mut().lifecycle = Some(Lifecycle {
            event: Text::fixed("run"),
            detail: Some(Text::new(server)),
            extra_args: mask::command(extra_args.iter().map(String::as_str)),
            ..Lifecycle::default()
        });
        if gone {
            let why = "the workload that asks is gone";
            drop(record.close(Outcome {
                error: Some(Text::fixed(why)),
                ..Outcome::refused()
            }));
            return refused(NotStarted::Failed, why);
        }
        let caller = Caller {
            workload: known.as_deref().and_then(Known::judged),
            user,
            fetching: false,
            token: None,
            certificate: None,
            known_as: &[],
        };
        let (decision, verdict) = self.decide_run(caller, server, extra_args);
        record.record_mut().decision = Some(decision);
        let outcome = match verdict {
            RunVerdict::Permitted => Outcome::done(),
            RunVerdict::Refused { .. } => Outcome::refused(),
        };
        match record.close(outcome).recorded().await {
            Ok(()) => verdict,
            Err(_) => unavailable(),
        }
    }

    fn decide_run(
        &self,
        caller: Caller<'_>,
        server: &str,
        extra_args: &[String],
    ) -> (Decision, RunVerdict) {
        match self.stages.decider.run(caller, server, extra_args) {
            Ok(permit) => (permit.decision().clone(), RunVerdict::Permitted),
            Err(by) => {
                let (why, reason) = match by.reason() {
                    Reason::Disconnected => (
                        NotStarted::Disconnected,
                        format!("`{server}` was disconnected by an administrator"),
                    ),
                    Reason::NotRegistered | Reason::NotLaunchable => (
                        NotStarted::Unregistered,
                        format!("no server `{server}` that can be started is in the register"),
                    ),
                    Reason::ExtraArgument => (
                        NotStarted::Denied,
                        format!(
                            "`launch.extra_args` of `{server}` in the policy does not cover what follows `--`"
                        ),
                    ),
                    _ => (
                        NotStarted::Denied,
                        format!("`{server}` may not be started by this user"),
                    ),
                };
                (by.decision().clone(), RunVerdict::Refused { why, reason })
            }
        }
    }
}
