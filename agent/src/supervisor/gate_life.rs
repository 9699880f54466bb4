//! The gate's process: started, listened to, ended, started anew.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use tokio::process::Child;
use tokio::time::Instant;

use crate::channel::{
    ChannelError, Health, Received, Role, Setup, SupervisorEnd, ToGate, ToSupervisor, pair,
};
use crate::launch::stage::{Account, EnterGate, Program, SpawnError, Stage, spawn};

/// Silence after which a gate counts as dead; it is due to speak every second.
const SILENCE: Duration = Duration::from_secs(15);
/// First pause before a restart; doubled up to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A gate that served for so long starts the pauses over.
const STEADY: Duration = Duration::from_mins(1);

/// Why there is no gate.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// No channel, or it broke at once.
    #[error("setting up the gate")]
    Channel(#[from] ChannelError),
    /// No process.
    #[error("starting the gate")]
    Spawn(#[from] SpawnError),
}

/// How a gate is started.
#[derive(Debug, Clone)]
pub(super) struct GatePlan {
    /// What runs the stage.
    pub(super) stage: Program,
    /// What it becomes.
    pub(super) program: Program,
    pub(super) cgroup: PathBuf,
    pub(super) account: Account,
}

/// A gate that has been given its setup.
#[derive(Debug)]
pub(super) struct GateLife {
    pub(super) child: Child,
    pub(super) pid: u32,
    pub(super) started: Instant,
    pub(super) ready: bool,
    pub(super) health: Health,
    channel: SupervisorEnd,
    heard: Instant,
}

impl GateLife {
    /// Starts a gate and hands it `setup` with its descriptors, in the order of their roles.
    pub(super) async fn start(
        plan: &GatePlan,
        mut setup: Setup,
        descriptors: Vec<(Role, BorrowedFd<'_>)>,
        now: Instant,
    ) -> Result<Self, GateError> {
        let (ours, theirs) = pair()?;
        let stage = Stage::Gate(EnterGate {
            cgroup: plan.cgroup.clone(),
            account: plan.account.clone(),
            program: plan.program.clone(),
        });
        let spawned = spawn(&plan.stage, &stage, &[theirs.as_fd()]).await?;
        drop::<OwnedFd>(theirs);
        let channel = SupervisorEnd::new(ours)?;
        let (roles, descriptors): (Vec<_>, Vec<_>) = descriptors.into_iter().unzip();
        setup.descriptors = roles;
        channel
            .send(&ToGate::Setup(Box::new(setup)), &descriptors)
            .await?;
        Ok(Self {
            child: spawned.child,
            pid: spawned.pid,
            started: now,
            ready: false,
            health: Health::default(),
            channel,
            heard: now,
        })
    }

    /// Sends a message. After an error the gate is of no use any more.
    pub(super) async fn send(
        &self,
        message: &ToGate,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        self.channel.send(message, descriptors).await
    }

    /// The next message; `None` once the gate has closed its end. Safe to cancel.
    pub(super) async fn receive(&self) -> Result<Option<ToSupervisor>, ChannelError> {
        let received = self.channel.receive().await?;
        Ok(received.map(
            |Received {
                 message,
                 descriptors: _never,
             }| message,
        ))
    }

    /// Notes that the gate spoke.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Whether it was silent for too long.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard) > SILENCE
    }
}

/// When the next gate is to be started.
#[derive(Debug)]
pub(super) struct Backoff {
    pause: Duration,
    /// How often a gate was started anew.
    pub(super) restarts: u32,
}

impl Backoff {
    pub(super) const fn new() -> Self {
        Self {
            pause: SHORTEST_PAUSE,
            restarts: 0,
        }
    }

    /// The moment of the next start, after a gate that began at `started` ended at `now`.
    pub(super) fn next(&mut self, started: Option<Instant>, now: Instant) -> Instant {
        if started.is_some_and(|at| now.saturating_duration_since(at) > STEADY) {
            self.pause = SHORTEST_PAUSE;
        }
        let at = now + self.pause;
        self.pause = self.pause.saturating_mul(2).min(LONGEST_PAUSE);
        self.restarts = self.restarts.saturating_add(1);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pauses_grow_to_a_limit_and_start_over_after_steady_service() {
        let now = Instant::now();
        let mut backoff = Backoff::new();
        let pauses: Vec<_> = (0..9).map(|_| backoff.next(Some(now), now) - now).collect();
        assert_eq!(pauses[0], SHORTEST_PAUSE);
        assert!(pauses.is_sorted());
        assert_eq!(pauses[8], LONGEST_PAUSE);
        let later = now + STEADY + Duration::from_secs(1);
        assert_eq!(backoff.next(Some(now), later) - later, SHORTEST_PAUSE);
        assert_eq!(backoff.restarts, 10);
    }
}
