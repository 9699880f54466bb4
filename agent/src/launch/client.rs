//! The caller's side of `exeat run`: its streams go to the daemon, signals after them, and the
//! server's end becomes its own.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{Signal as Incoming, SignalKind, signal};

use super::streams::Streams;
use crate::control::client::Answer;
use crate::control::{Command, Connection, ControlError, Failure, Reply, Run, Signal};

/// Time for a server's last words, after its end.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Why a server did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The daemon could not be asked, or went away.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The daemon did not start it; its words.
    #[error("{}", .0.message)]
    Failed(Failure),
    /// The streams could not be prepared.
    #[error("preparing the standard streams")]
    Streams(#[source] io::Error),
    /// The caller is gone.
    #[error("nobody is at the other end of the standard streams")]
    Deserted,
    /// Signals could not be passed on.
    #[error("handling signals")]
    Signals(#[source] io::Error),
    /// The answer ended without the server's end.
    #[error("the daemon did not say how `{0}` ended")]
    Unknown(String),
}

/// Signals that a caller's terminal or parent sends, and that mean the server.
struct Signals(Vec<(Incoming, Signal)>);

impl Signals {
    fn new() -> io::Result<Self> {
        let pairs = [
            (SignalKind::hangup(), Signal::Hangup),
            (SignalKind::interrupt(), Signal::Interrupt),
            (SignalKind::quit(), Signal::Quit),
            (SignalKind::terminate(), Signal::Terminate),
            (SignalKind::user_defined1(), Signal::User1),
            (SignalKind::user_defined2(), Signal::User2),
            (SignalKind::window_change(), Signal::WindowChange),
        ];
        let open = |(kind, meaning)| signal(kind).map(|incoming| (incoming, meaning));
        pairs
            .into_iter()
            .map(open)
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// The next one. Safe to cancel.
    async fn next(&mut self) -> Signal {
        std::future::poll_fn(|context| {
            for (incoming, meaning) in &mut self.0 {
                if incoming.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*meaning);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

/// Runs a registered server on this process's standard streams, by the daemon at `socket`.
/// Returns what a shell would: its exit status, or 128 and the number of the signal that ended it.
pub async fn run(socket: &Path, run: Run) -> Result<u8, RunError> {
    let mut signals = Signals::new().map_err(RunError::Signals)?;
    let server = run.server.clone();
    let streams = Streams::prepare().map_err(RunError::Streams)?;
    let mut connection = Connection::open(socket, &Command::Run(run), &streams.handed()).await?;
    let words = streams.let_go();
    let ended = tokio::select! {
        ended = converse(&mut connection, &mut signals, server) => ended,
        () = words.deserted() => return Err(RunError::Deserted),
    };
    if tokio::time::timeout(LAST_WORDS, words.said())
        .await
        .is_err()
    {
        tracing::debug!("a server's last words were not taken in time");
    }
    ended
}

async fn converse(
    connection: &mut Connection,
    signals: &mut Signals,
    server: String,
) -> Result<u8, RunError> {
    let mut status = None;
    let mut started = false;
    loop {
        let answer = tokio::select! {
            answer = connection.next() => answer?,
            // Before the server exists the signal means this process: going away ends the start.
            signal = signals.next() => {
                if started {
                    connection.signal(signal).await?;
                    continue;
                }
                return Err(RunError::Unknown(server));
            }
        };
        match answer {
            Answer::Reply(Reply::Started(_)) => started = true,
            Answer::Reply(Reply::Exited(exited)) => status = Some(exited.status.shell()),
            Answer::Reply(_) => {}
            Answer::Failed(failure) => return Err(RunError::Failed(failure)),
            Answer::Done => return status.ok_or(RunError::Unknown(server)),
        }
    }
}
