//! A started server's task: offers its session to the gate, starts it, and stays until nothing of it is left.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal as Kill, kill_process_group};
use tokio::process::Child;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::callers;
use super::cgroups;
use super::clients::fail;
use super::containers::Remover;
use super::core::{Happening, Supervisor};
use super::processes::Hashes;
use super::streams::{Pipes, Streams};
use crate::channel::{Session, ToGate};
use crate::control::reply::{self, Exited, Started};
use crate::control::{Code, Reply, Responder, Signal};
use crate::launch::stage::{Program, Stage, Start, chain, spawn};

/// Time for a server to end after SIGTERM.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// Time for a server to end by itself when its session is over: its input is closed.
const CLOSING: Duration = Duration::from_secs(5);
/// Time for what comes after a server.
pub(super) const AFTER: Duration = Duration::from_secs(30);
/// Time for the gate to take a session over.
const TAKEN: Duration = Duration::from_secs(10);

/// What a task needs to start and watch a server.
pub(super) struct Order {
    /// Without the host, which is looked up here.
    pub(super) session: Session,
    /// The process that asked.
    pub(super) caller: u32,
    pub(super) program: Program,
    pub(super) start: Start,
    /// What removes what others made for the server, or may be making yet.
    pub(super) after: Option<Remover>,
    pub(super) happenings: mpsc::Sender<Happening>,
    pub(super) hashes: Arc<Hashes>,
    pub(super) hashing: Arc<Semaphore>,
    pub(super) stop: CancellationToken,
    /// The daemon ends; what is under way may still come to its end.
    pub(super) stopping: CancellationToken,
    pub(super) over: oneshot::Receiver<Over>,
}

/// Why a server is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// Its session is.
    Session,
    /// The gate is gone, and its session with it.
    Gate,
}

/// A session on its way to the gate.
#[derive(Debug)]
pub(super) struct Offer {
    session: Session,
    streams: Streams,
    pipes: Pipes,
    taken: oneshot::Sender<Result<(), String>>,
}

/// How a server's life was.
enum Life {
    /// It ended, with this status where that is known.
    Ended(Option<ExitStatus>),
    /// What it needs did, and it was ended with that: what its caller is told.
    Lost(&'static str),
}

/// Where the gate is gone.
const GATE_ENDED: &str = "the gate ended, and the session with it: start the server anew";
/// Where the daemon ends in order.
const DAEMON_STOPS: &str = "the daemon stops, and the session with it: start the server anew";

impl Supervisor {
    /// Hands a session to the gate. Without a gate that serves nobody takes it, which the task is told by its
    /// channel's end.
    pub(super) async fn offer(&mut self, offer: Offer) {
        let Offer {
            session,
            streams,
            pipes,
            taken,
        } = offer;
        let Some(gate) = self.gate.as_ref().filter(|gate| gate.ready) else {
            return;
        };
        self.settling.insert(session.number, taken);
        let [input, output, errors] = streams.all();
        let Pipes {
            input: to,
            output: from,
            errors: aside,
        } = &pipes;
        let all = [
            input.as_fd(),
            output.as_fd(),
            errors.as_fd(),
            to.as_fd(),
            from.as_fd(),
            aside.as_fd(),
        ];
        if let Err(error) = gate.send(&ToGate::Session(Box::new(session)), &all).await {
            self.gate_lost(&error).await;
        }
    }
}

/// Starts a server and stays until nothing of it is left.
pub(super) async fn serve(order: Order, mut client: Responder) {
    let Order {
        mut session,
        caller,
        program,
        start,
        after,
        happenings,
        hashes,
        hashing,
        stop,
        stopping,
        over,
    } = order;
    let number = session.number;
    let cgroup = start.cgroup.clone();
    let (host, unknown) = callers::host(caller, &client, hashes, hashing).await;
    session.host = host;
    session.host_unknown = unknown.map(|unknown| unknown.to_string());
    match offered(session, &mut client, &happenings).await {
        Ok(ends) => {
            let stage = Stage::Start(start);
            let own = ends.each_ref().map(AsFd::as_fd);
            let spawned = spawn(&program, &stage, &own).await;
            drop(ends);
            match spawned {
                Ok(mut spawned) => {
                    let pid = spawned.pid;
                    send(&happenings, Happening::Started { number, pid }).await;
                    let mut ends = Ends {
                        stop,
                        stopping,
                        over,
                        heeds: true,
                    };
                    let watched = Watched {
                        child: &mut spawned.child,
                        pid,
                        cgroup: &cgroup,
                        made: false,
                    };
                    let (life, made) = watch(watched, number, &mut client, &mut ends).await;
                    // Whatever it left behind had its life from the client, too.
                    empty(&cgroup).await;
                    let life = ends.explain(life).await;
                    tell_end(client, life).await;
                    if let Some(after) = after {
                        look_after(&program, after.start(!made)).await;
                        empty(&cgroup).await;
                    }
                }
                Err(error) => {
                    empty(&cgroup).await;
                    fail(client, Code::Invalid, chain(&error)).await;
                }
            }
        }
        Err((code, text)) => fail(client, code, text).await,
    }
    send(&happenings, Happening::Ended { number }).await;
}

/// Gives the client its ends, offers the session to the gate and waits until it has taken it over; the server's
/// ends of its pipes.
async fn offered(
    session: Session,
    client: &mut Responder,
    happenings: &mpsc::Sender<Happening>,
) -> Result<[OwnedFd; 3], (Code, String)> {
    let failed = |error: io::Error| (Code::Internal, format!("making its pipes: {error}"));
    let (streams, theirs) = Streams::make().map_err(failed)?;
    let (pipes, ends) = Pipes::make().map_err(failed)?;
    let handed = client.streams(&theirs.each_ref().map(AsFd::as_fd)).await;
    handed.map_err(|error| (Code::Invalid, chain(&error)))?;
    // With them the client's end could never be seen.
    drop(theirs);
    let (taken, answer) = oneshot::channel();
    let offer = Offer {
        session,
        streams,
        pipes,
        taken,
    };
    send(happenings, Happening::Offered(Box::new(offer))).await;
    match timeout(TAKEN, answer).await {
        Ok(Ok(Ok(()))) => Ok(ends),
        Ok(Ok(Err(fault))) => Err((Code::Refused, fault.chars().take(1024).collect())),
        Ok(Err(_)) => Err((Code::Unavailable, "the gate is being started anew".into())),
        Err(_) => Err((
            Code::Unavailable,
            "the gate did not take the session in time".into(),
        )),
    }
}

async fn empty(cgroup: &Path) {
    if let Err(error) = cgroups::empty(cgroup).await {
        tracing::error!(
            error = chain(&error),
            "a server's processes could not be ended"
        );
    }
}

/// Runs what comes after a server, without streams.
async fn look_after(program: &Program, after: Start) {
    let run = async {
        let nothing = File::options().read(true).write(true).open("/dev/null");
        let nothing = nothing.map_err(|error| error.to_string())?;
        let streams = [nothing.as_fd(); 3];
        let spawned = spawn(program, &Stage::Start(after), &streams).await;
        let mut spawned = spawned.map_err(|error| chain(&error))?;
        let status = spawned.child.wait().await;
        let status = status.map_err(|error| error.to_string())?;
        if status.success() {
            return Ok(());
        }
        Err(format!("it ended with {status}"))
    };
    let done = timeout(AFTER, run).await;
    let done = done.unwrap_or_else(|_elapsed| Err("it took too long".into()));
    if let Err(error) = done {
        tracing::error!(error, "what a server left behind may be there still");
    }
}

async fn send(happenings: &mpsc::Sender<Happening>, happening: Happening) {
    if happenings.send(happening).await.is_err() {
        tracing::debug!("the supervisor is gone");
    }
}

/// What may end a server besides itself and its client.
struct Ends {
    stop: CancellationToken,
    stopping: CancellationToken,
    over: oneshot::Receiver<Over>,
    /// Nothing came of `over` yet.
    heeds: bool,
}

impl Ends {
    /// A server that ended because its streams did, with the gate, is not one that ended by itself: each session
    /// has its end told, whichever comes first.
    async fn explain(&mut self, life: Life) -> Life {
        if self.stopping.is_cancelled() {
            return Life::Lost(DAEMON_STOPS);
        }
        if !self.heeds {
            return life;
        }
        tokio::select! {
            why = &mut self.over => match why {
                Ok(Over::Gate) => Life::Lost(GATE_ENDED),
                Ok(Over::Session) | Err(_) => life,
            },
            () = self.stop.cancelled() => life,
            () = sleep(GRACE) => life,
        }
    }
}

/// A server while it runs.
struct Watched<'a> {
    child: &'a mut Child,
    pid: u32,
    cgroup: &'a Path,
    /// What others were to make for it is made, or is not going to be: its processes are below its cgroup, or the
    /// server ended by itself and [for none of the reasons that leave it open](is_settled).
    made: bool,
}

impl Watched<'_> {
    /// To be called before anything is done that ends it.
    fn look(&mut self) {
        self.made |= cgroups::has_below(self.cgroup);
    }

    async fn end(&mut self) -> Option<ExitStatus> {
        self.look();
        end(self.child, self.pid).await
    }
}

/// Passes on signals until the process has ended, by itself, because the client went away, or because its
/// session is over. Returns [`Watched::made`] too.
async fn watch(
    mut server: Watched<'_>,
    number: u32,
    client: &mut Responder,
    ends: &mut Ends,
) -> (Life, bool) {
    let pid = server.pid;
    let started = Reply::Started(Started {
        pid,
        workload: number,
    });
    if client.reply(started).await.is_err() {
        return (Life::Ended(server.end().await), server.made);
    }
    let mut last: Option<Instant> = None;
    let mut signalled = false;
    loop {
        tokio::select! {
            status = server.child.wait() => {
                server.look();
                let status = status.ok();
                let settled = status.is_some_and(is_settled) && !signalled;
                return (Life::Ended(status), server.made || settled);
            }
            () = ends.stop.cancelled() => return (Life::Ended(server.end().await), server.made),
            why = &mut ends.over, if ends.heeds => {
                ends.heeds = false;
                match why {
                    Ok(Over::Gate) => {
                        server.end().await;
                        return (Life::Lost(GATE_ENDED), server.made);
                    }
                    Ok(Over::Session) => last = Some(Instant::now() + CLOSING),
                    Err(_) => {}
                }
            }
            () = until(last) => return (Life::Ended(server.end().await), server.made),
            signal = client.signal() => match signal {
                Ok(Some(signal)) => {
                    server.look();
                    signalled = true;
                    kill(pid, number_of(signal));
                }
                Ok(None) | Err(_) => return (Life::Ended(server.end().await), server.made),
            },
        }
    }
}

/// Whether Docker's client, which ended so, left nothing open: it may have failed, or been ended by a signal that it
/// took, after it asked its daemon for a container.
fn is_settled(status: ExitStatus) -> bool {
    let code = status.code();
    code.is_some_and(|code| !matches!(code, 1 | 125 | 130 | 143))
}

async fn until(last: Option<Instant>) {
    match last {
        Some(last) => sleep_until(last).await,
        None => std::future::pending().await,
    }
}

/// Ends a process, first kindly.
async fn end(child: &mut Child, pid: u32) -> Option<ExitStatus> {
    kill(pid, Kill::TERM);
    // One that is stopped takes it when it goes on.
    kill(pid, Kill::CONT);
    match timeout(GRACE, child.wait()).await {
        Ok(status) => status.ok(),
        Err(_elapsed) => {
            kill(pid, Kill::KILL);
            child.wait().await.ok()
        }
    }
}

/// Signals the session that the server leads, as a terminal would. The child was not waited for,
/// so its number is its own.
fn kill(pid: u32, signal: Kill) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(Err(error)) = pid.map(|pid| kill_process_group(pid, signal)) {
        tracing::debug!(%error, "a server took no signal");
    }
}

const fn number_of(signal: Signal) -> Kill {
    match signal {
        Signal::Hangup => Kill::HUP,
        Signal::Interrupt => Kill::INT,
        Signal::Quit => Kill::QUIT,
        Signal::Terminate => Kill::TERM,
        Signal::User1 => Kill::USR1,
        Signal::User2 => Kill::USR2,
        Signal::Stop => Kill::STOP,
        Signal::Continue => Kill::CONT,
        Signal::WindowChange => Kill::WINCH,
    }
}

async fn tell_end(mut client: Responder, life: Life) {
    let status = match life {
        Life::Ended(Some(status)) => status,
        Life::Ended(None) => return,
        Life::Lost(why) => return fail(client, Code::Unavailable, why).await,
    };
    let byte = |n: i32| u8::try_from(n).unwrap_or(u8::MAX);
    let status = match status.code() {
        Some(code) => reply::ExitStatus::Code(byte(code)),
        None => reply::ExitStatus::Signal(byte(status.signal().unwrap_or_default())),
    };
    let told = match client.reply(Reply::Exited(Exited { status })).await {
        Ok(()) => client.done().await,
        failed => failed,
    };
    if let Err(error) = told {
        tracing::debug!(%error, "a client did not wait for its server's end");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_was_ended_leaves_open_what_its_daemon_does() {
        let exited = |code: i32| ExitStatus::from_raw(code << 8);
        for code in [0, 2, 126, 137] {
            assert!(is_settled(exited(code)), "{code}");
        }
        for code in [1, 125, 130, 143] {
            assert!(!is_settled(exited(code)), "{code}");
        }
        assert!(!is_settled(ExitStatus::from_raw(9)));
    }
}
