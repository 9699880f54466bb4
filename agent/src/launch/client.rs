//! The caller's side of `exeat run`: its streams are copied to and from those that the daemon gives, signals are
//! passed on, and the server's end becomes its own.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGCONT, SIGTSTP};
use signal_hook::flag;
use signal_hook::low_level::emulate_default_handler;
use tokio::signal::unix::{Signal as Incoming, SignalKind, signal};
use tokio::time::{Instant, sleep_until, timeout};

use super::streams::Words;
use crate::control::client::Answer;
use crate::control::reply::ExitStatus;
use crate::control::{Command, Connection, ControlError, Failure, Reply, Run, Signal};

/// Time for a server's last words, after its end.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Time for a server's start to be told once a signal came that ends either.
const LEAVING: Duration = Duration::from_secs(1);

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
    /// The daemon gave no streams.
    #[error(
        "the daemon gave no streams for the server; client and daemon have to be of the same version: restart the \
         daemon after an upgrade"
    )]
    NoStreams,
    /// The caller is gone.
    #[error("nobody is at the other end of the standard streams")]
    Deserted,
    /// Signals could not be passed on.
    #[error("handling signals")]
    Signals(#[source] io::Error),
    /// The daemon went away while the server ran.
    #[error("the daemon ended, and the session with it: start the server anew")]
    Over(#[source] ControlError),
    /// The answer ended without the server's end.
    #[error("the daemon did not say how `{0}` ended")]
    Unknown(String),
}

/// Signals that a caller's terminal or parent sends, and that mean the server.
struct Signals {
    incoming: Vec<(Incoming, Signal)>,
    /// Whether SIGCONT came that [`Signals::next`] has not told.
    continued: Arc<AtomicBool>,
}

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
            (SignalKind::from_raw(SIGCONT), Signal::Continue),
            (SignalKind::from_raw(SIGTSTP), Signal::Stop),
        ];
        let open = |(kind, meaning)| signal(kind).map(|incoming| (incoming, meaning));
        let incoming = pairs.into_iter().map(open).collect::<io::Result<_>>()?;
        let continued = Arc::new(AtomicBool::new(false));
        flag::register(SIGCONT, Arc::clone(&continued))?;
        Ok(Self {
            incoming,
            continued,
        })
    }

    /// The next one. Safe to cancel.
    async fn next(&mut self) -> Signal {
        loop {
            let next = std::future::poll_fn(|context| {
                for (incoming, meaning) in &mut self.incoming {
                    if incoming.poll_recv(context).is_ready() {
                        return std::task::Poll::Ready(*meaning);
                    }
                }
                std::task::Poll::Pending
            });
            let next = next.await;
            match next {
                Signal::Stop if is_orphaned() => continue,
                Signal::Continue => {
                    self.continued.store(false, Ordering::SeqCst);
                    self.forget_stop();
                }
                _ => {}
            }
            return next;
        }
    }

    /// As the kernel does with stops that are pending: what was continued is not stopped by an earlier one.
    fn forget_stop(&mut self) {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        for (incoming, meaning) in &mut self.incoming {
            if *meaning == Signal::Stop {
                let _forgotten = incoming.poll_recv(&mut context);
            }
        }
    }

    /// Does with this process what SIGTSTP does where it is not handled, unless it was continued since. It returns when
    /// that is continued. Of what comes between the look and the stop nobody can know who handles SIGTSTP.
    fn stop(&self) {
        if self.continued.load(Ordering::SeqCst) {
            return;
        }
        if let Err(error) = emulate_default_handler(SIGTSTP) {
            tracing::debug!(%error, "this process is not stopped");
        }
    }

    /// The next one that ends a start: the others mean this process while nothing is known of a server. Safe to cancel.
    async fn ending(&mut self) {
        loop {
            match self.next().await {
                Signal::Stop => self.stop(),
                signal if ends_start(signal) => return,
                _ => {}
            }
        }
    }
}

const fn ends_start(signal: Signal) -> bool {
    !matches!(
        signal,
        Signal::Stop | Signal::Continue | Signal::WindowChange
    )
}

/// Whether nobody is there to continue this process group, so that SIGTSTP does not stop it: none of its processes that
/// this one comes from has a parent in the session but outside the group.
///
/// Read from `/proc`, where 0 stands for a group or a session whose leader this PID namespace does not show, as in a
/// container whose first process leads no session; `rustix` has no value for that.
fn is_orphaned() -> bool {
    let Some(own) = Place::of("self") else {
        return true;
    };
    let mut parent = own.parent;
    while let Some(place) = Place::of(&parent.to_string()) {
        if place.session != own.session {
            return true;
        }
        if place.group != own.group {
            return false;
        }
        parent = place.parent;
    }
    true
}

/// Where a process stands among others; `proc_pid_stat(5)`.
struct Place {
    parent: u32,
    group: u32,
    session: u32,
}

impl Place {
    /// `None` where there is no such process.
    fn of(process: &str) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // A name may hold anything.
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut numbers = rest.split(' ').skip(1).map(|field| field.parse().ok());
        Some(Self {
            parent: numbers.next()??,
            group: numbers.next()??,
            session: numbers.next()??,
        })
    }
}

/// Runs a registered server on this process's standard streams, by the daemon at `socket`.
/// Returns how it ended.
pub async fn run(socket: &Path, run: Run) -> Result<ExitStatus, RunError> {
    let mut signals = Signals::new().map_err(RunError::Signals)?;
    let server = run.server.clone();
    let mut connection = Connection::open(socket, &Command::Run(run)).await?;
    let first = tokio::select! {
        first = connection.first() => first?,
        // The signal means this process: going away ends the start.
        () = signals.ending() => return Err(RunError::Unknown(server)),
    };
    let ends = match first {
        (Answer::Reply(Reply::Streams), ends) => <[OwnedFd; 3]>::try_from(ends).ok(),
        (Answer::Failed(failure), _none) => return Err(RunError::Failed(failure)),
        (Answer::Reply(_) | Answer::Done, _none) => None,
    };
    let ends = ends.ok_or(RunError::NoStreams)?;
    let words = Words::begin(ends).map_err(RunError::Streams)?;
    let ended = tokio::select! {
        ended = converse(&mut connection, &mut signals, server) => ended,
        () = words.deserted() => return Err(RunError::Deserted),
    };
    tokio::select! {
        said = timeout(LAST_WORDS, words.said()) => if said.is_err() {
            tracing::debug!("a server's last words were not taken in time");
        },
        // Nobody is left whom it could be passed on to.
        () = signals.ending() => {}
    }
    ended
}

async fn converse(
    connection: &mut Connection,
    signals: &mut Signals,
    server: String,
) -> Result<ExitStatus, RunError> {
    let mut status = None;
    let mut started = false;
    let mut leaving = None;
    loop {
        let answer = tokio::select! {
            answer = connection.next() => answer.map_err(|error| {
                if started { RunError::Over(error) } else { error.into() }
            })?,
            signal = signals.next() => {
                // Before the server exists it waits for it; the server may have spoken before its start is told.
                connection.signal(signal).await?;
                if signal == Signal::Stop {
                    signals.stop();
                } else if !started && ends_start(signal) {
                    leaving.get_or_insert_with(|| Instant::now() + LEAVING);
                }
                continue;
            }
            // Going away ends the start.
            () = until(leaving), if !started => return Err(RunError::Unknown(server)),
        };
        match answer {
            Answer::Reply(Reply::Started(_)) => started = true,
            Answer::Reply(Reply::Exited(exited)) => status = Some(exited.status),
            Answer::Reply(_) => {}
            Answer::Failed(failure) => return Err(RunError::Failed(failure)),
            Answer::Done => return status.ok_or(RunError::Unknown(server)),
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use signal_hook::low_level::raise;

    use super::*;

    #[tokio::test]
    async fn a_stop_that_is_taken_back_stops_nothing() {
        let signals = Signals::new().unwrap();
        raise(SIGCONT).unwrap();
        // So that a process which was stopped all the same says so.
        let mut late = Command::new("sh")
            .args(["-c", "sleep 20; kill -CONT $PPID"])
            .spawn()
            .unwrap();
        signals.stop();
        assert_eq!(late.try_wait().unwrap(), None, "it was stopped");
        late.kill().unwrap();
        late.wait().unwrap();
    }
}
