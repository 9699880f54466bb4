//! Notifications that pass, in either direction: counted, and recorded whenever their number has doubled, so that the log
//! tells of them also where nobody is left to record how a session ended.

use super::super::super::open_briefly;
use super::super::bounded::Observed;
use super::super::judge::{NotPassed, Talking};
use super::Session;
use crate::audit::record::{Effect, Kind, Side};
use crate::audit::{AuditUnavailable, Outcome};
use crate::decide::{Message as AboutMessage, Permit};
use crate::decode::rpc::Message;
use crate::flow::describe::Story as _;

type Judged = Result<Permit<AboutMessage>, NotPassed>;

impl Session {
    /// Counts what was let through of `from`, and records it where that is due. `false`: it cannot be recorded, and does
    /// not pass.
    #[must_use]
    pub(super) async fn count(
        &self,
        from: Side,
        message: &Message,
        judged: &Judged,
        observed: Option<&Observed>,
    ) -> bool {
        let Ok(permit) = judged else { return true };
        let would = permit.decision().would;
        let watched = observed.is_some() || would.is_some_and(|would| would != Effect::Allow);
        let method = message.method().unwrap_or("");
        let Some(count) = self.ledger.notification(from, method, watched) else {
            return true;
        };
        let recorded = self.record_told(from, message, judged, observed, count);
        if let Err(error) = recorded.await {
            tracing::debug!(%error, "a notification could not be recorded");
            self.ledger.unrecorded(from, method, watched);
            return false;
        }
        true
    }

    async fn record_told(
        &self,
        from: Side,
        message: &Message,
        judged: &Judged,
        observed: Option<&Observed>,
        count: u64,
    ) -> Result<(), AuditUnavailable> {
        let Talking { stages, actor, .. } = &self.talking;
        let mut record = open_briefly(stages, actor, Kind::Mcp).await?;
        record.record_mut().session = Some(self.ledger.section());
        self.talking
            .tell_considered(&mut record, from, message, judged);
        if let Some(observed) = observed {
            observed.tell(&mut record);
        }
        if let Some(mcp) = &mut record.record_mut().mcp {
            mcp.count = Some(count);
        }
        if let Err(unavailable) = record.intend().await.map(drop) {
            record.refuse_with(&unavailable);
            return Err(unavailable);
        }
        // In the writer's queue before it is passed on.
        drop(record.close(Outcome::done()));
        Ok(())
    }
}
