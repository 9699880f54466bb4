//! What breakers do, for the log.

use std::sync::Arc;

use crate::audit::Text;
use crate::audit::record::{Finding, Kind, Lifecycle};
use crate::decide::breakers::{Scope, Turn};
use crate::flow::Stages;
use crate::telemetry::clock;

/// Records every breaker that opens or closes, as long as the gate lives.
pub(super) async fn record(stages: Arc<Stages>) {
    let Some(mut turns) = stages.decider.turns() else {
        return;
    };
    while let Some(turn) = turns.recv().await {
        let mut record = match turn.refuses {
            Some(_) => stages.log.record(Kind::Finding, clock::now()),
            None => stages.log.record(Kind::Lifecycle, clock::now()),
        };
        let detail = Some(Text::new(&told(&turn)));
        if turn.refuses.is_some() {
            record.finding = Some(Finding {
                what: Text::fixed("breaker_opened"),
                detail,
                count: None,
            });
        } else {
            record.lifecycle = Some(Lifecycle {
                event: Text::fixed("breaker_closed"),
                detail,
                ..Lifecycle::default()
            });
        }
        if let Err(error) = stages.log.event(record).await {
            tracing::error!(%error, "a breaker's turn could not be recorded");
        }
    }
}

fn told(turn: &Turn) -> String {
    let Scope { server, tool } = &turn.scope;
    let scope = match tool {
        Some(tool) => format!("tool `{tool}` of server `{server}`"),
        None => format!("server `{server}`"),
    };
    let Some(refuses) = turn.refuses else {
        return format!("{scope}: a call succeeded, calls pass again");
    };
    let seconds = refuses.as_secs();
    match turn.after {
        Some((calls, failed)) => {
            format!("{scope}: {failed} of {calls} calls failed, calls are refused for {seconds} s")
        }
        None => format!("{scope}: it still fails, calls are refused for another {seconds} s"),
    }
}
