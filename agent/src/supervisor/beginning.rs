//! The beginning of service, in order: a gate that is ready, then clients, then what was there before the daemon.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::core::Supervisor;
use super::error::DaemonError;
use super::occurrences::{Occurrence, Sources};
use crate::control::server::Settings;
use crate::control::slots::Limits;
use crate::control::{Client, Listener};
use crate::launch::stage::chain;

/// Time for the first gate to become ready.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// Clients that wait to be looked at.
const CLIENTS: usize = 64;

impl Supervisor {
    pub(super) fn relay_logs(&mut self) {
        match self.parts.kernel.logs() {
            Ok(mut logs) => {
                let stop = self.stop.clone();
                self.tasks.spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        ended = logs.relay() => {
                            if let Err(error) = ended {
                                tracing::warn!(error = chain(&error), "the programs' messages are not read");
                            }
                        }
                    }
                });
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "the programs' messages are not read");
            }
        }
    }

    /// Handles what happens until the first gate is ready.
    pub(super) async fn wait_ready(&mut self, sources: &mut Sources) -> Result<(), DaemonError> {
        let deadline = Instant::now() + READY_LIMIT;
        while !self.gate.as_ref().is_some_and(|gate| gate.ready) {
            let occurrence = tokio::select! {
                occurrence = self.next(sources) => occurrence,
                () = sleep_until(deadline) => {
                    return Err(DaemonError::NotReady("it said nothing in time".into()));
                }
            };
            match occurrence {
                Occurrence::Gate(Ok(None)) => {
                    return Err(DaemonError::NotReady("it ended".into()));
                }
                Occurrence::Gate(Err(error)) => {
                    return Err(DaemonError::NotReady(chain(&error)));
                }
                Occurrence::Terminate => {
                    return Err(DaemonError::NotReady("the daemon was stopped".into()));
                }
                occurrence => self.handle(occurrence).await,
            }
        }
        Ok(())
    }

    pub(super) async fn listen(&self) -> Result<mpsc::Receiver<Client>, DaemonError> {
        let settings = Settings {
            path: self.parts.config.run_dir.join("control.sock"),
            limits: Limits::default(),
            request_deadline: Duration::from_secs(5),
            cgroups: self.workloads.roles(),
        };
        let listener = Listener::bind(settings).await?;
        let (sender, clients) = mpsc::channel(CLIENTS);
        self.tasks.spawn(listener.serve(sender, self.stop.clone()));
        Ok(clients)
    }

    /// The first acts of a daemon that serves.
    pub(super) async fn begin(&mut self) {
        let adopted = self.parts.kernel.adopted();
        let mut details = vec![format!(
            "{} workloads were running",
            self.workloads.iter().count()
        )];
        if adopted {
            details.push("enforcement of an earlier daemon was taken over".into());
        }
        details.extend(self.parts.degraded.iter().cloned());
        self.record("daemon_started", None, details).await;
        if let Some(forgotten) = self.approvals.forgotten.take() {
            self.finding("approvals_forgotten", None, vec![forgotten])
                .await;
        }
        self.end_orphans().await;
        self.rewatch().await;
    }
}
