//! A workload's first instruction waits until the gate has opened its ways.
//!
//! The kernel refuses what the gate has not entered yet. Without this wait a process that connects at once
//! would be refused what its policy allows, now and then.

use std::collections::HashMap;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::cgroups;
use super::core::Supervisor;
use crate::channel::ToGate;

/// A gate that is this late lets the process start all the same: it is refused more than it need be, never less.
const LATE: Duration = Duration::from_secs(2);

/// Who waits for which workload.
pub(super) type Settling = HashMap<u32, oneshot::Sender<Result<(), String>>>;

/// Ends when the gate has settled a workload, is gone, or is late.
#[derive(Debug)]
pub(super) struct Settled(oneshot::Receiver<Result<(), String>>);

impl Settled {
    /// Waits for it.
    pub(super) async fn wait(self) {
        if timeout(LATE, self.0).await.is_err() {
            tracing::warn!("the gate is late: a workload starts before its ways are open");
        }
    }
}

impl Supervisor {
    /// To be called after the gate was told of a workload and its processes.
    pub(super) async fn settle(&mut self, number: u32) -> Settled {
        let (done, settled) = oneshot::channel();
        // Without a gate nobody answers, and nothing is allowed anyway: the sender's end is the answer.
        if self.gate.as_ref().is_some_and(|gate| gate.ready) {
            self.settling.insert(number, done);
            self.tell(ToGate::Settle { number }).await;
        }
        Settled(settled)
    }

    /// The gate has settled a workload, or says why not. One that nobody waits for means nothing.
    pub(super) fn settled(&mut self, number: u32, fault: Option<String>) {
        if let Some(done) = self.settling.remove(&number) {
            // Who waited may have given up.
            let _late = done.send(fault.map_or(Ok(()), Err));
        }
    }

    /// Lets a process that the kernel stopped go on, once its workload is settled.
    pub(super) fn resume(&self, pid: u32, settled: Option<Settled>) {
        let Some(settled) = settled else {
            return cgroups::signal(pid, Signal::CONT);
        };
        self.tasks.spawn(async move {
            settled.wait().await;
            cgroups::signal(pid, Signal::CONT);
        });
    }
}
