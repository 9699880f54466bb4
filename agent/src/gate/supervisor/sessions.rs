//! Sessions over standard streams: taken from the supervisor, which is told what they say.

use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::time::timeout;

use super::{Supervisor, UNRECORDED};
use crate::channel::{Artefact, NotStarted, Session, ToSupervisor};
use crate::flow::{Offered, Word, serve_stdio, turn_away};
use crate::gate::GateError;
use crate::refuse::Refusal;

/// Time for a session's beginning to be recorded.
const ACCEPTED: Duration = Duration::from_secs(5);

impl Supervisor {
    /// A stdio server is about to be started: its session is served from before its first instruction.
    pub(super) async fn session(
        &self,
        told: Session,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), String> {
        let offered = Offered { told, descriptors };
        // Everything else waits meanwhile.
        let words = self.words.0.clone();
        let served = timeout(ACCEPTED, serve_stdio(&self.stages, offered, words)).await;
        served.map_err(|_late| UNRECORDED.to_owned())?
    }

    /// A stdio server is not started: whoever speaks to it is told. Who has more such starts than may be is left
    /// with their streams' end.
    pub(super) fn not_started(&self, uid: u32, why: NotStarted, descriptors: Vec<OwnedFd>) {
        let Some(slot) = self.turned_away.take(uid) else {
            return tracing::debug!(uid, "a start that was refused is not answered");
        };
        let refusal = match why {
            NotStarted::Denied => Refusal::Denied,
            NotStarted::Disconnected => Refusal::Disconnected,
            NotStarted::Unregistered => Refusal::Unregistered,
            NotStarted::Unrecorded => Refusal::AuditUnavailable,
            NotStarted::Failed => Refusal::NotStarted,
        };
        let stopping = self.stages.stopping.clone();
        self.stages.tasks.spawn(async move {
            let _slot = slot;
            tokio::select! {
                () = turn_away(descriptors, refusal) => {}
                () = stopping.cancelled() => {}
            }
        });
    }

    pub(super) async fn settled(
        &self,
        number: u32,
        fault: Option<String>,
    ) -> Result<(), GateError> {
        let settled = ToSupervisor::Settled { number, fault };
        Ok(self.channel.send(&settled, &[]).await?)
    }

    /// Tells the supervisor what a session says.
    pub(super) async fn pass_on(&self, word: Word) -> Result<(), GateError> {
        let (number, fetched) = match word {
            Word::Over(number) => {
                let over = ToSupervisor::SessionOver { number };
                return Ok(self.channel.send(&over, &[]).await?);
            }
            Word::Fetched(number, fetched) => (number, fetched),
        };
        let mut pieces = Artefact::pieces(&fetched.artefacts).peekable();
        while let Some(piece) = pieces.next() {
            let last = pieces.peek().is_none();
            let fetched = ToSupervisor::Fetched {
                number,
                artefacts: piece.to_vec(),
                last,
                rest: fetched.rest.clone().filter(|_| last),
            };
            self.channel.send(&fetched, &[]).await?;
        }
        Ok(())
    }
}
