//! The daemon's side: listens, learns who asks and what, and hands over what the table allows.

use std::fmt;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access::{self, Scope};
use super::command::{Command, Signal};
use super::descriptors;
use super::error::ControlError;
use super::frame::{self, Incoming, MAX_REPLY, MAX_REQUEST};
use super::peer::{self, Cgroups, Credentials, Peer};
use super::reply::{Code, Failure, KernelState, Message, Process, Reply};
use super::slots::{Limits, Slot, Slots};

mod socket;

/// How long a client may take to read a frame of its answer.
const REPLY_DEADLINE: Duration = Duration::from_secs(10);
/// How long to wait after a failed accept: its usual cause, too many open files, needs time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How to listen.
pub struct Settings {
    /// Where.
    pub path: PathBuf,
    /// How many are served at once.
    pub limits: Limits,
    /// How long a client may take to send its command.
    pub request_deadline: Duration,
    /// What cgroups are.
    pub cgroups: Arc<dyn Cgroups>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Settings")
            .field("path", &self.path)
            .field("limits", &self.limits)
            .field("request_deadline", &self.request_deadline)
            .finish_non_exhaustive()
    }
}

/// The daemon's socket.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    // Unlinks the path and lets go of its lock.
    place: socket::Place,
    settings: Settings,
}

/// A client whose command is well-formed and allowed to it in the `scope`.
#[derive(Debug)]
pub struct Client {
    /// Who asks.
    pub peer: Peer,
    /// How much they get.
    pub scope: Scope,
    /// What they ask.
    pub command: Command,
    /// Where the answer goes.
    pub responder: Responder,
}

/// A client on its way to the gate; its socket goes along as a descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handover {
    /// Who asks.
    pub peer: Peer,
    /// How much they get.
    pub scope: Scope,
    /// What they ask.
    pub command: Command,
    /// What only the supervisor knows.
    pub facts: Facts,
}

/// What only the supervisor knows of the answer to `status` and `doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// The supervisor.
    pub supervisor: Process,
    /// The gate.
    pub gate: Option<Process>,
    /// How often the gate was started anew.
    pub gate_restarts: u32,
    /// The programs in the kernel.
    pub kernel: KernelState,
    /// Why the newest policy was not taken, if it was not: the gate never sees such a one.
    pub rejected: Option<String>,
}

/// Where an answer goes. Dropped without an end, it leaves the client with an incomplete answer,
/// which the client reports as such.
#[derive(Debug)]
pub struct Responder {
    stream: UnixStream,
    incoming: Incoming,
    // Held for the answer's time; absent where somebody else counts.
    _slot: Option<Slot>,
}

impl Listener {
    /// Makes the socket, with its directory. Replaces one that nobody answers on.
    pub async fn bind(settings: Settings) -> Result<Self, ControlError> {
        let (socket, place) = socket::make(&settings.path).await?;
        Ok(Self {
            socket,
            place,
            settings,
        })
    }

    /// Serves until `stop`, then ends those whose command has not arrived and unlinks the socket.
    pub async fn serve(self, clients: mpsc::Sender<Client>, stop: CancellationToken) {
        let Self {
            socket,
            place,
            settings,
        } = self;
        let slots = Slots::new(settings.limits);
        let settings = Arc::new(settings);
        let tasks = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, _address)) => {
                    let greeting = greet(
                        stream,
                        slots.clone(),
                        Arc::clone(&settings),
                        clients.clone(),
                    );
                    let stop = stop.clone();
                    tasks.spawn(async move {
                        // Cancelled or done: in both cases nothing is left to do here.
                        tokio::select! { () = stop.cancelled() => {}, () = greeting => {} }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a control client could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        tasks.close();
        tasks.wait().await;
        drop(place);
    }
}

/// From an accepted connection to a client handed over, or an answer that says why not.
async fn greet(
    stream: UnixStream,
    slots: Slots,
    settings: Arc<Settings>,
    clients: mpsc::Sender<Client>,
) {
    let credentials = match peer::credentials(&stream) {
        Ok(credentials) => credentials,
        Err(error) => return tell(&stream, &error, None).await,
    };
    let Some(slot) = slots.take(credentials.uid) else {
        let busy = Failure::new(Code::Busy, "the daemon serves as many clients as it may");
        return refuse(&stream, busy, credentials.uid).await;
    };
    let uid = credentials.uid;
    let deadline = settings.request_deadline;
    let request = match timeout(deadline, request(&stream, credentials, &settings)).await {
        Ok(request) => request,
        Err(_elapsed) => {
            let seconds = deadline.as_secs();
            Err(ControlError::TooSlow {
                attempt: "read a command",
                seconds,
            })
        }
    };
    let (peer, command) = match request {
        Ok(request) => request,
        Err(error) => return tell(&stream, &error, Some(uid)).await,
    };
    let scope = access::scope(peer.standing, &command);
    if scope == Scope::Refused {
        let message = format!(
            "`{}` is not for {}",
            command.name(),
            peer.standing.described()
        );
        return refuse(&stream, Failure::new(Code::Refused, message), uid).await;
    }
    let responder = Responder {
        stream,
        incoming: Incoming::new(MAX_REQUEST),
        _slot: Some(slot),
    };
    let client = Client {
        peer,
        scope,
        command,
        responder,
    };
    if let Err(
        mpsc::error::SendTimeoutError::Timeout(client)
        | mpsc::error::SendTimeoutError::Closed(client),
    ) = clients.send_timeout(client, deadline).await
    {
        let busy = Failure::new(Code::Busy, "the daemon has no time for another command");
        refuse(&client.responder.stream, busy, uid).await;
    }
}

async fn request(
    stream: &UnixStream,
    credentials: Credentials,
    settings: &Arc<Settings>,
) -> Result<(Peer, Command), ControlError> {
    // At once, while the process that connected most surely lives.
    let cgroups = Arc::clone(&settings.cgroups);
    let looked = tokio::task::spawn_blocking(move || peer::look(&credentials, &*cgroups)).await;
    let peer = looked.map_err(|source| ControlError::Peer {
        attempt: "complete the look-up",
        source: source.into(),
    })??;
    let (body, _none) = descriptors::receive(stream, MAX_REQUEST, 0).await?;
    let command: Command = frame::decode(&body)?;
    command
        .check()
        .map_err(|source| ControlError::Invalid { source })?;
    Ok((peer, command))
}

/// Tells the client what was wrong with its request, where that is its own doing.
async fn tell(stream: &UnixStream, error: &ControlError, uid: Option<u32>) {
    let message = crate::control::chain(error);
    tracing::warn!(uid, %message, "a control client was turned away");
    answer(stream, Failure::new(Code::Invalid, message)).await;
}

async fn refuse(stream: &UnixStream, failure: Failure, uid: u32) {
    tracing::warn!(uid, message = %failure.message, "a control client was refused");
    answer(stream, failure).await;
}

async fn answer(stream: &UnixStream, failure: Failure) {
    let message = Message::Failed(failure);
    if let Err(error) = frame::write(stream, &message, MAX_REPLY, REPLY_DEADLINE).await {
        tracing::debug!(%error, "a control client did not wait for its answer");
    }
}

impl Client {
    /// Splits the client for its way to another process: the socket, and what to send beside it.
    ///
    /// The place that it held is free from here on; the other process counts for itself.
    pub fn hand_over(self, facts: Facts) -> Result<(OwnedFd, Handover), ControlError> {
        let Self {
            peer,
            scope,
            command,
            responder,
        } = self;
        let socket = responder
            .stream
            .into_std()
            .map_err(|source| ControlError::Io {
                attempt: "take a client's socket for the gate",
                source,
            })?;
        Ok((
            OwnedFd::from(socket),
            Handover {
                peer,
                scope,
                command,
                facts,
            },
        ))
    }
}

impl Responder {
    /// Takes over a client's socket that another process accepted; within a tokio runtime.
    pub fn adopt(socket: OwnedFd, slot: Option<Slot>) -> Result<Self, ControlError> {
        let error = |source| ControlError::Io {
            attempt: "take over a client's socket",
            source,
        };
        let stream = StdUnixStream::from(socket);
        stream.set_nonblocking(true).map_err(error)?;
        let stream = UnixStream::from_std(stream).map_err(error)?;
        Ok(Self {
            stream,
            incoming: Incoming::new(MAX_REQUEST),
            _slot: slot,
        })
    }

    /// Sends [`Reply::Streams`] with the client's ends of its standard streams.
    pub async fn streams(&mut self, ends: &[BorrowedFd<'_>; 3]) -> Result<(), ControlError> {
        let frame = frame::encode(&Message::Reply(Reply::Streams), MAX_REPLY)?;
        let sent = timeout(
            REPLY_DEADLINE,
            descriptors::send(&self.stream, &frame, ends),
        );
        sent.await.unwrap_or(Err(ControlError::TooSlow {
            attempt: "write the streams",
            seconds: REPLY_DEADLINE.as_secs(),
        }))
    }

    /// Sends a part of the answer.
    pub async fn reply(&mut self, reply: Reply) -> Result<(), ControlError> {
        self.send(&Message::Reply(reply)).await
    }

    /// Ends the answer.
    pub async fn done(self) -> Result<(), ControlError> {
        self.send(&Message::Done).await
    }

    /// Ends the answer with a failure; `message` is for the client's eyes.
    pub async fn fail(self, code: Code, message: impl Into<String>) -> Result<(), ControlError> {
        self.send(&Message::Failed(Failure::new(code, message)))
            .await
    }

    async fn send(&self, message: &Message) -> Result<(), ControlError> {
        frame::write(&self.stream, message, MAX_REPLY, REPLY_DEADLINE).await
    }

    /// During a `run`: the next signal; `None`: the client has gone. Cancel-safe.
    pub async fn signal(&mut self) -> Result<Option<Signal>, ControlError> {
        self.incoming.next(&self.stream).await
    }

    /// Waits until the client has gone, or says something although nothing is expected. Cancel-safe.
    pub async fn gone(&self) {
        // Readable: closed, failed, or data where none belongs. Each ends a stream.
        if let Err(error) = self.stream.readable().await {
            tracing::debug!(%error, "a control client's socket failed");
        }
    }

    /// Whether the process that connected still lives, so that what is read by its number is of it.
    pub fn is_alive(&self) -> bool {
        peer::is_alive(&self.stream)
    }

    /// The socket, for looking at its options.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
