//! The end of the daemon, in order.

use std::time::Duration;

use exeat_policy::Container;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::core::{Happening, Supervisor};
use super::serving::{AFTER, GRACE};
use super::workloads::Origin;
use crate::channel::{ToGate, ToSupervisor};
use crate::launch::stage::chain;

impl Supervisor {
    /// Lets the gate finish what is under way and record the rest, then ends what `exeat run` started: a
    /// server that went first would take its exchanges with it.
    pub(super) async fn shut_down(&mut self, happenings: &mut mpsc::Receiver<Happening>) {
        let deadline = self.parts.config.shutdown;
        self.stopping.cancel();
        self.record("daemon_stopping", None, Vec::new()).await;
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        self.tell(ToGate::Stop { deadline_ms }).await;
        self.hear_out(deadline_ms).await;
        // It has recorded what there was; what ends from here on is nobody's loss, and telling it would only find
        // that it has gone.
        let gate = self.gate.take();
        self.let_go();
        self.stop.cancel();
        self.tasks.close();
        let tasks = self.tasks.clone();
        // Docker's daemon takes its time to remove a container.
        let docker = self.workloads.iter().any(|live| {
            live.origin == Origin::Run
                && Container::is_started_by(&live.record.exe.to_string_lossy())
        });
        let after = if docker { AFTER } else { Duration::ZERO };
        let last = Instant::now() + GRACE + after + Duration::from_secs(1);
        loop {
            tokio::select! {
                biased;
                Some(happening) = happenings.recv() => self.hear_end(happening).await,
                () = tasks.wait() => break,
                () = sleep_until(last) => {
                    tracing::warn!("some servers did not end in time");
                    break;
                }
            }
        }
        // The last of them said it after it was listened for, and before it was over.
        while let Ok(happening) = happenings.try_recv() {
            self.hear_end(happening).await;
        }
        let gate_cgroup = self.parts.tree.gate.clone();
        if let Some(mut gate) = gate
            && tokio::time::timeout(Duration::from_secs(1), gate.child.wait())
                .await
                .is_err()
            && let Err(error) = super::cgroups::empty(&gate_cgroup).await
        {
            tracing::error!(error = chain(&error), "the gate could not be ended");
        }
    }

    async fn hear_end(&mut self, happening: Happening) {
        if let Happening::Ended { number } = happening {
            self.end(number).await;
        }
    }

    /// What the gate still has to say, to its end.
    async fn hear_out(&mut self, deadline_ms: u64) {
        let last = Instant::now() + Duration::from_millis(deadline_ms) + Duration::from_secs(1);
        while let Some(gate) = &self.gate {
            match tokio::time::timeout_at(last, gate.receive()).await {
                Ok(Ok(Some(ToSupervisor::Stopped) | None)) => break,
                Ok(Ok(Some(ToSupervisor::Sign {
                    request,
                    names,
                    key,
                }))) => {
                    let chain = self.parts.signing.sign(&names, &key, Instant::now());
                    self.tell(ToGate::Certificate { request, chain }).await;
                }
                Ok(Ok(Some(ToSupervisor::Fetched {
                    number,
                    artefacts,
                    last,
                    rest,
                }))) => self.fetched(number, artefacts, last, rest).await,
                // What came before it is heard, and what was said of that is on its way.
                Ok(Ok(Some(ToSupervisor::Drained))) => {
                    self.tell(ToGate::Stop { deadline_ms }).await;
                }
                Ok(Ok(Some(_))) => {}
                Ok(Err(error)) => {
                    tracing::warn!(error = chain(&error), "the gate did not say good-bye");
                    break;
                }
                Err(_elapsed) => {
                    tracing::warn!("the gate did not stop in time");
                    break;
                }
            }
        }
    }
}
