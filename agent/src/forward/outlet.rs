//! Messages on their way to one end of a stdio session: bounded, in order, each on a line of its own.

use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

use super::stream::Sink;
use crate::audit::Intended;
use crate::decide::{Message as AboutMessage, Permit};
use crate::decode::lines::MAX_LINE;
use crate::decode::rpc::Message;
use crate::identify::room::Taken;

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
    /// The room of long messages among it.
    rooms: Vec<Taken>,
    end: End,
    /// Of the task that writes, while it waits for something to write.
    writer: Option<Waker>,
    /// That task looks here before it waits again, so that nobody has to wake it.
    expected: bool,
}

impl State {
    /// Whom to wake for what is waiting now.
    fn wakes(&mut self) -> Option<Waker> {
        if self.expected {
            None
        } else {
            self.writer.take()
        }
    }
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
        room: Option<Taken>,
    ) -> Result<(), NotTaken> {
        drop(permit);
        self.say(message, room).await
    }

    /// Sends on a notification that was permitted: not each has a record of its own. Waits for room.
    ///
    /// # Errors
    /// As [`Outlet::pass`].
    pub async fn tell(
        &self,
        permit: Permit<AboutMessage>,
        message: &Message,
        room: Option<Taken>,
    ) -> Result<(), NotTaken> {
        drop(permit);
        self.say(message, room).await
    }

    /// Sends an answer: one that was judged, or a refusal. Waits for room.
    ///
    /// # Errors
    /// As [`Outlet::pass`].
    pub async fn say(&self, message: &Message, mut room: Option<Taken>) -> Result<(), NotTaken> {
        loop {
            let drained = self.drained.notified();
            match self.take(message, &mut room) {
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
        self.take(message, &mut None)
    }

    fn take(&self, message: &Message, room: &mut Option<Taken>) -> Result<(), NotTaken> {
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
        state.rooms.extend(room.take());
        let writer = state.wakes();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
        Ok(())
    }

    /// Says that the task that polls this polls [`Outlet::run`] before it waits again: until then, what is said wakes
    /// nobody. A task that wakes itself is run twice for each message, and has another thread woken to take it over.
    pub fn expect(&self) {
        self.lock().expected = true;
    }

    /// Takes nothing more; what waits is still written.
    pub fn finish(&self) {
        let mut state = self.lock();
        if state.end == End::Open {
            state.end = End::Ending;
        }
        let writer = state.wakes();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
        self.drained.notify_waiters();
    }

    /// Whether the other end was found to read no more.
    pub fn is_closed(&self) -> bool {
        self.lock().end == End::Closed
    }

    /// Writes what is sent to `sink`, until [`Outlet::finish`] or until the other end reads no more; `sink` is
    /// closed then.
    pub async fn run(&self, sink: Sink) {
        let mut writing = String::new();
        let mut rooms = Vec::new();
        loop {
            poll_fn(|context| self.poll_taken(context, &mut writing, &mut rooms)).await;
            if writing.is_empty() {
                break;
            }
            self.drained.notify_waiters();
            if let Err(error) = sink.write_all(writing.as_bytes()).await {
                tracing::debug!(%error, "an end of a session reads no more");
                break;
            }
            writing.clear();
            rooms.clear();
            if writing.capacity() > KEPT {
                writing.shrink_to(KEPT);
            }
        }
        let mut state = self.lock();
        state.end = End::Closed;
        state.waiting = String::new();
        state.rooms = Vec::new();
        drop(state);
        self.drained.notify_waiters();
    }

    /// Takes what waits; nothing, when nothing will come.
    fn poll_taken(
        &self,
        context: &Context<'_>,
        writing: &mut String,
        rooms: &mut Vec<Taken>,
    ) -> Poll<()> {
        let mut state = self.lock();
        state.expected = false;
        if state.waiting.is_empty() && state.end == End::Open {
            state.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        std::mem::swap(&mut state.waiting, writing);
        std::mem::swap(&mut state.rooms, rooms);
        Poll::Ready(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::task::Poll;

    use tokio::io::AsyncReadExt as _;

    use super::{NotTaken, Outlet, WAITING};
    use crate::decode::json::{Limits, Object};
    use crate::decode::rpc::{Message, Notification, parse_single};
    use crate::forward::stream::Sink;
    use crate::identify::room::{Left, Room};

    fn ping() -> Message {
        let text = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        parse_single(text, &Limits::REQUEST).unwrap()
    }

    /// A sink, and what reads from it.
    fn pair() -> (Sink, tokio::net::UnixStream) {
        let (writes, reads) = UnixStream::pair().unwrap();
        reads.set_nonblocking(true).unwrap();
        let reads = tokio::net::UnixStream::from_std(reads).unwrap();
        (Sink::new(writes.into()).unwrap(), reads)
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
        let (sink, mut source) = pair();
        let said = async {
            // Waits until somebody reads.
            outlet.say(&ping(), None).await.unwrap();
            outlet.finish();
            outlet.say(&ping(), None).await
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
    async fn the_room_of_what_waits_is_given_back_when_it_is_written() {
        let left = || Arc::new(Left::new(100));
        let room = Room::new(100, left());
        let all_of_it = || room.take(100);
        let outlet = Outlet::default();
        outlet.say(&ping(), all_of_it().ok()).await.unwrap();
        assert!(all_of_it().is_err(), "it waits");
        let (sink, mut source) = pair();
        outlet.finish();
        let mut text = String::new();
        let ((), read) = tokio::join!(outlet.run(sink), source.read_to_string(&mut text));
        read.unwrap();
        let refused = outlet.say(&ping(), all_of_it().ok()).await;
        assert_eq!(refused, Err(NotTaken::Closed));
        all_of_it().unwrap();
    }

    /// Polled in turns with whoever says something, it is not woken; later it is.
    #[tokio::test]
    async fn a_writer_that_is_expected_is_not_woken() {
        let outlet = Outlet::default();
        let (sink, mut source) = pair();
        let mut run = std::pin::pin!(outlet.run(sink));
        let mut polls = 0;
        let (mut read, mut text) = (0, [0; 4096]);
        poll_fn(|context| {
            polls += 1;
            outlet.expect();
            outlet.try_say(&ping()).unwrap();
            assert!(run.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        read += source.read(&mut text).await.unwrap();
        assert_eq!((polls, read), (1, ping().encode().len() + 1));
        let later = async {
            tokio::task::yield_now().await;
            outlet.try_say(&ping()).unwrap();
            source.read(&mut text).await.unwrap()
        };
        tokio::select! {
            () = run => panic!("it is not ended"),
            more = later => assert_eq!(more, read),
        }
    }

    #[tokio::test]
    async fn a_message_that_no_reader_takes_is_not_sent() {
        let outlet = Outlet::default();
        assert_eq!(
            outlet.say(&large(10 << 20), None).await,
            Err(NotTaken::TooLong)
        );
        outlet.say(&ping(), None).await.unwrap();
        outlet.finish();
        let (sink, mut source) = pair();
        outlet.run(sink).await;
        let mut text = String::new();
        source.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, format!("{}\n", ping().encode()));
    }

    #[tokio::test]
    async fn who_waits_for_an_end_that_is_gone_is_told() {
        let outlet = Outlet::default();
        while outlet.try_say(&ping()).is_ok() {}
        let (sink, source) = pair();
        drop(source);
        let message = large(WAITING * 2);
        let waits = outlet.say(&message, None);
        let ((), first) = tokio::join!(outlet.run(sink), waits);
        // It may have been taken before the end was noticed.
        assert!(matches!(first, Ok(()) | Err(NotTaken::Closed)));
        assert!(outlet.is_closed());
        assert_eq!(outlet.say(&ping(), None).await, Err(NotTaken::Closed));
    }
}
