//! What breakers do, for the log.

use std::sync::Arc;

use crate::audit::Text;
use crate::audit::record::{Finding, Kind, Lifecycle};
use crate::decide::breakers::{Scope, Turn, Turned};
use crate::flow::Stages;
use crate::telemetry::clock;

/// Records every change of a breaker, as long as the gate lives.
pub(super) async fn record(stages: Arc<Stages>) {
    let Some(mut turns) = stages.decider.turns() else {
        return;
    };
    while let Some(turn) = turns.recv().await {
        let event = match turn.to {
            Turned::Open { .. } => None,
            Turned::HalfOpen => Some("breaker_half_open"),
            Turned::Closed | Turned::Forgotten => Some("breaker_closed"),
        };
        let kind = event.map_or(Kind::Finding, |_| Kind::Lifecycle);
        let mut record = stages.log.record(kind, clock::now());
        let detail = Some(Text::new(&told(&turn)));
        match event {
            None => {
                record.finding = Some(Finding {
                    what: Text::fixed("breaker_opened"),
                    detail,
                    count: None,
                });
            }
            Some(event) => {
                record.lifecycle = Some(Lifecycle {
                    event: Text::fixed(event),
                    detail,
                    ..Lifecycle::default()
                });
            }
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
    match turn.to {
        Turned::Open { after, refuses } => {
            let seconds = refuses.as_secs();
            match after {
                Some((calls, failed)) => format!(
                    "{scope}: {failed} of {calls} calls failed, calls are refused for {seconds} s"
                ),
                None => {
                    format!("{scope}: it still fails, calls are refused for another {seconds} s")
                }
            }
        }
        Turned::HalfOpen => format!("{scope}: one call is let through to see"),
        Turned::Closed => format!("{scope}: a call succeeded, calls pass again"),
        Turned::Forgotten => {
            format!("{scope}: more tools were called since than have breakers, calls pass again")
        }
    }
}
