//! What the supervisor did or saw, written to the log.

use super::Supervisor;
use crate::audit::Text;
use crate::audit::record::{Finding, Kind, Lifecycle};
use crate::channel::Lifecycle as Told;
use crate::telemetry::clock;

impl Supervisor {
    pub(super) async fn record(&self, told: Told) {
        let Told {
            finding,
            event,
            workload,
            details,
        } = told;
        let kind = if finding {
            Kind::Finding
        } else {
            Kind::Lifecycle
        };
        let mut record = self.stages.log.record(kind, clock::now());
        record.workload = workload
            .and_then(|number| self.stages.intake.workloads.get(number))
            .map(|known| self.stages.intake.workloads.recorded(&known, 0));
        let detail = (!details.is_empty()).then(|| Text::new(&details.join("; ")));
        if finding {
            record.finding = Some(Finding {
                what: Text::new(&event),
                detail,
                count: None,
            });
        } else {
            let event = Text::new(&event);
            record.lifecycle = Some(Lifecycle {
                event,
                detail,
                ..Lifecycle::default()
            });
        }
        if let Err(error) = self.stages.log.event(record).await {
            tracing::error!(%error, "an event of the supervisor could not be recorded");
        }
    }
}
