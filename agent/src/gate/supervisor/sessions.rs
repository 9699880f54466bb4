//! Sessions over standard streams: taken from the supervisor, which is told what they say.

use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::time::timeout;

use super::{Supervisor, UNRECORDED};
use crate::channel::{Artefact, Session, ToSupervisor};
use crate::flow::{Offered, Word, serve_stdio};
use crate::gate::GateError;

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
