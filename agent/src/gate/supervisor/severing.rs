//! Servers that an administrator disconnects: cut off now or when their calls are answered, and recorded.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{interval, timeout};

use super::Supervisor;
use crate::audit::Text;
use crate::audit::record::{Identity, Kind, Lifecycle};
use crate::channel::{Disconnection, ToSupervisor};
use crate::flow::Stages;
use crate::telemetry::clock;

/// How often calls in flight are counted while a server is drained.
const DRAIN: Duration = Duration::from_millis(50);

impl Supervisor {
    /// Nothing new begins with the server from here on; what is under way ends now or when it is drained, and
    /// then the supervisor is told.
    pub(super) async fn disconnect(&self, disconnection: Disconnection, drain_ms: Option<u64>) {
        let server = disconnection.server.clone();
        self.stages.decider.disconnect(disconnection.clone());
        if drain_ms.is_none() {
            cut(&self.stages, &server);
        }
        record_word(&self.stages, "server_disconnected", &disconnection).await;
        let (stages, channel) = (Arc::clone(&self.stages), Arc::clone(&self.channel));
        self.stages.tasks.spawn(async move {
            if let Some(limit) = drain_ms.map(Duration::from_millis) {
                let over = timeout(limit, drained(&stages, &server)).await.is_err();
                // Connected again meanwhile, and so nobody's to cut.
                if stages.decider.connected(&server).is_ok() {
                    return;
                }
                tracing::info!(server, over, "the server was given time for its calls");
                cut(&stages, &server);
            }
            let severed = ToSupervisor::Severed { server };
            if let Err(error) = channel.send(&severed, &[]).await {
                tracing::warn!(%error, "telling the supervisor that a server is cut off");
            }
        });
    }
}

/// Ends what is under way with a disconnected server: its clients are answered, its own connections and what
/// goes to it unread are cut.
fn cut(stages: &Stages, server: &str) {
    stages.decider.cut(server);
    let cut = stages.intake.live.recheck(|connected| {
        let workloads = &stages.intake.workloads;
        let Some(known) = workloads.get(connected.workload) else {
            return true;
        };
        if known.server() == Some(server) {
            return false;
        }
        let (Some(peer), Some(_unread)) = (&connected.peer, &connected.unread) else {
            return true;
        };
        let permit = stages
            .decider
            .connect(known.caller(), peer.target(), connected.port);
        permit.is_ok_and(|permit| {
            permit.egress().and_then(|terms| terms.server.as_deref()) != Some(server)
        })
    });
    tracing::info!(server, cut, "the server is cut off");
}

/// Ends when no call of the server is in flight, or it is connected again.
async fn drained(stages: &Stages, server: &str) {
    let mut tick = interval(DRAIN);
    let is_its = |number| stages.intake.workloads.is_of(number, server);
    while stages.calls.in_flight(server, is_its) > 0 && stages.decider.connected(server).is_err() {
        tick.tick().await;
    }
}

/// Records an administrator's word on a server.
pub(super) async fn record_word(stages: &Stages, event: &'static str, word: &Disconnection) {
    let mut record = stages.log.record(Kind::Lifecycle, clock::now());
    let identity = Identity {
        verified_by: Text::fixed("kernel"),
        user: Some(Text::new(&word.user)),
        uid: Some(word.uid),
        ..Identity::default()
    };
    record.identity = Some(identity.into());
    let detail = match &word.reason {
        Some(reason) => format!("{}: {reason}", word.server),
        None => word.server.clone(),
    };
    record.lifecycle = Some(Lifecycle {
        event: Text::fixed(event),
        detail: Some(Text::new(&detail)),
        ..Lifecycle::default()
    });
    if let Err(error) = stages.log.event(record).await {
        tracing::error!(%error, event, "an administrator's word could not be recorded");
    }
}
