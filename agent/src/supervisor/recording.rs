//! What the supervisor did or saw, for the log, which the gate writes.

use super::core::Supervisor;
use crate::channel::{Lifecycle, ToGate};

impl Supervisor {
    /// Has something recorded as the course of things.
    pub(super) async fn record(
        &mut self,
        event: &str,
        workload: Option<u32>,
        details: Vec<String>,
    ) {
        tracing::info!(event, workload, ?details);
        let event = event.to_owned();
        self.tell(ToGate::Record(Box::new(Lifecycle {
            finding: false,
            event,
            workload,
            details,
        })))
        .await;
    }

    /// Has something recorded that somebody should look at.
    pub(super) async fn finding(
        &mut self,
        event: &str,
        workload: Option<u32>,
        details: Vec<String>,
    ) {
        tracing::warn!(event, workload, ?details);
        let event = event.to_owned();
        self.tell(ToGate::Record(Box::new(Lifecycle {
            finding: true,
            event,
            workload,
            details,
        })))
        .await;
    }
}
