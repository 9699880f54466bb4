//! Messages on their way to one end of a stdio session: bounded, in order, each on a line of its own.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;

use crate::audit::Intended;
use crate::decide::{Message as AboutMessage, Permit};
use crate::decode::lines::MAX_LINE;
use crate::decode::rpc::Message;

/// Bytes that may wait before whoever sends must wait: with the message that goes beyond it, and as much on
/// its way to the kernel, this is what a peer that does not read can make the gate hold.
const WAITING: usize = 256 << 10;

/// What is kept of an idle buffer.
const KEPT: usize = 64 << 10;

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// The other end reads no more.
    #[error("the other end reads no more")]
    Closed,
    /// It is longer than readers take.
    #[error("a message of more than 10 MiB")]
    TooLong,
    /// The other end does not read, and whoever sends must not wait.
    #[error("the other end does not read")]
    Full,
}

#[derive(Debug, Default)]
struct State {
    waiting: String,
    end: End,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    /// What waits is still written.
    Ending,
    /// Nothing is.
    Closed,
}

/// The way to one end.
#[derive(Debug, Default)]
pub struct Outlet {
    state: Mutex<State>,
    filled: Notify,
    drained: Notify,
}

impl Outlet {
    /// Sends on what was permitted and the log knows of; waits for room.
    ///
    /// # Errors
    /// [`NotTaken::Closed`] or [`NotTaken::TooLong`].
    pub async fn pass(
        &self,
        permit: Permit<AboutMessage>,
        _intended: &Intended<'_>,
        message: &Message,
    ) -> Result<(), NotTaken> {
        drop(permit);
        self.say(message).await
    }

    /// Sends on a notification that was permitted: these have no record of their own. Waits for room.
    ///
    /// # Errors
    /// As [`Outlet::pass`].
    pub async fn tell(
        &self,
        permit: Permit<AboutMessage>,
        message: &Message,
    ) -> Result<(), NotTaken> {
        drop(permit);
        self.say(message).await
    }

    /// Sends an answer: one that was judged, or a refusal. Waits for room.
    ///
    /// # Errors
    /// As [`Outlet::pass`].
    pub async fn say(&self, message: &Message) -> Result<(), NotTaken> {
        loop {
            let drained = self.drained.notified();
            match self.try_say(message) {
                Err(NotTaken::Full) => drained.await,
                done => return done,
            }
        }
    }

    /// The same without waiting.
    ///
    /// # Errors
    /// [`NotTaken::Full`] as well.
    pub fn try_say(&self, message: &Message) -> Result<(), NotTaken> {
        let mut state = self.lock();
        if state.end != End::Open {
            return Err(NotTaken::Closed);
        }
        let before = state.waiting.len();
        if before >= WAITING {
            return Err(NotTaken::Full);
        }
        message.write(&mut state.waiting);
        if state.waiting.len().saturating_sub(before) > MAX_LINE {
            state.waiting.truncate(before);
            return Err(NotTaken::TooLong);
        }
        state.waiting.push('\n');
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Takes nothing more; what waits is still written.
    pub fn finish(&self) {
        let mut state = self.lock();
        if state.end == End::Open {
            state.end = End::Ending;
        }
        drop(state);
        self.filled.notify_one();
        self.drained.notify_waiters();
    }

    /// Whether the other end was found to read no more.
    pub fn is_closed(&self) -> bool {
        self.lock().end == End::Closed
    }

    /// Writes what is sent to `sink`, until [`Outlet::finish`] or until the other end reads no more; `sink` is
    /// closed then.
    pub async fn run(&self, mut sink: impl AsyncWrite + Unpin) {
        let mut writing = String::new();
        loop {
            let filled = self.filled.notified();
            let end = {
                let mut state = self.lock();
                std::mem::swap(&mut state.waiting, &mut writing);
                state.end
            };
            if writing.is_empty() {
                if end == End::Open {
                    filled.await;
                    continue;
                }
                break;
            }
            self.drained.notify_waiters();
            if let Err(error) = sink.write_all(writing.as_bytes()).await {
                tracing::debug!(%error, "an end of a session reads no more");
                break;
            }
            writing.clear();
            if writing.capacity() > KEPT {
                writing.shrink_to(KEPT);
            }
        }
        let mut state = self.lock();
        state.end = End::Closed;
        state.waiting = String::new();
        drop(state);
        self.drained.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::{NotTaken, Outlet, WAITING};
    use crate::decode::json::{Limits, Object};
    use crate::decode::rpc::{Message, Notification, parse_single};

    fn ping() -> Message {
        let text = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        parse_single(text, &Limits::REQUEST).unwrap()
    }

    fn large(bytes: usize) -> Message {
        let mut params = Object::new();
        params.insert("x", "x".repeat(bytes).as_str());
        Message::Notification(Notification {
            method: "m".into(),
            params: Some(params),
        })
    }

    #[tokio::test]
    async fn what_waits_is_bounded_and_nothing_is_lost() {
        let outlet = Outlet::default();
        let mut taken = 0;
        while outlet.try_say(&ping()).is_ok() {
            taken += 1;
        }
        assert_eq!(outlet.try_say(&ping()), Err(NotTaken::Full));
        assert!(taken * 41 >= WAITING && taken * 40 <= WAITING);
        let (sink, mut source) = tokio::io::duplex(64);
        let said = async {
            // Waits until somebody reads.
            outlet.say(&ping()).await.unwrap();
            outlet.finish();
            outlet.say(&ping()).await
        };
        let mut text = String::new();
        let ((), said, read) =
            tokio::join!(outlet.run(sink), said, source.read_to_string(&mut text));
        read.unwrap();
        assert_eq!(said, Err(NotTaken::Closed));
        assert_eq!(text.lines().count(), taken + 1);
        assert!(text.ends_with('\n'));
    }

    #[tokio::test]
    async fn a_message_that_no_reader_takes_is_not_sent() {
        let outlet = Outlet::default();
        assert_eq!(outlet.say(&large(10 << 20)).await, Err(NotTaken::TooLong));
        outlet.say(&ping()).await.unwrap();
        outlet.finish();
        let (sink, mut source) = tokio::io::duplex(1024);
        outlet.run(sink).await;
        let mut text = String::new();
        source.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, format!("{}\n", ping().encode()));
    }

    #[tokio::test]
    async fn who_waits_for_an_end_that_is_gone_is_told() {
        let outlet = Outlet::default();
        while outlet.try_say(&ping()).is_ok() {}
        let (sink, source) = tokio::io::duplex(64);
        drop(source);
        let message = large(WAITING * 2);
        let waits = outlet.say(&message);
        let ((), first) = tokio::join!(outlet.run(sink), waits);
        // It may have been taken before the end was noticed.
        assert!(matches!(first, Ok(()) | Err(NotTaken::Closed)));
        assert!(outlet.is_closed());
        assert_eq!(outlet.say(&ping()).await, Err(NotTaken::Closed));
    }
}
