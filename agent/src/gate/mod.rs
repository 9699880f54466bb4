//! The unprivileged process: builds every stage from what the supervisor hands over, then serves.

mod approvals;
mod breakers;
mod build;
mod catching;
mod commands;
mod console;
mod kernel;
mod limits;
mod supervisor;
mod theirs;
mod unregistered;
mod workloads;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::Shutdown;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::build::Built;
use crate::audit::{AuditUnavailable, Finished, StartError};
use crate::channel::{ChannelError, GateEnd, ToGate, ToSupervisor};
use crate::flow::{Stages, serve_connection, serve_datagrams, serve_keys, serve_webhook};
use crate::identify::certificate::AuthorityFault;
use crate::identify::token::KeysFault;
use crate::resolve::SettingsFault;
use crate::tls::leaf::LeafFault;
use crate::tls::upstream::UpstreamTlsFault;

/// How long to wait after a failed accept: its usual cause, too many open files, needs time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long the supervisor may take to say what to serve.
const SETUP: Duration = Duration::from_secs(30);
/// How long the kernel's last refusals may take to be recorded.
const COUNTED: Duration = Duration::from_secs(1);

/// Why the gate ended, or did not begin.
#[derive(Debug, Error)]
pub enum GateError {
    /// The executor did not start.
    #[error("starting the gate's threads")]
    Runtime(#[source] io::Error),
    /// The channel failed.
    #[error("talking to the supervisor")]
    Channel(#[from] ChannelError),
    /// The first message was late, missing or another.
    #[error("no setup from the supervisor: the gate is started by `exeat daemon`, not by hand")]
    Setup,
    /// A descriptor is missing.
    #[error("the setup brings no {0}")]
    Missing(&'static str),
    /// A descriptor is not what it is said to be.
    #[error("taking over {what}")]
    Descriptor {
        /// What it is said to be.
        what: &'static str,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel's maps.
    #[error("taking over the kernel's maps")]
    Kernel(#[from] exeat_ebpf::KernelError),
    /// The policy, which the supervisor compiled as well.
    #[error("compiling the policy: {0}")]
    Policy(String),
    /// The log.
    #[error("opening the audit log")]
    Log(#[from] StartError),
    /// The log cannot be written.
    #[error("writing the audit log")]
    Unwritable(#[from] AuditUnavailable),
    /// The resolver.
    #[error("setting up name resolution")]
    Resolver(#[from] SettingsFault),
    /// TLS towards workloads.
    #[error("setting up leaf certificates")]
    Leaves(#[from] LeafFault),
    /// The keys of an issuer.
    #[error(
        "reading the key set of the issuer `{issuer}`, which `issuers` names in the configuration"
    )]
    KeySet {
        /// Whose.
        issuer: String,
        /// What is wrong with it.
        #[source]
        source: KeysFault,
    },
    /// The certificates of a client authority.
    #[error(transparent)]
    ClientAuthority(#[from] AuthorityFault),
    /// TLS towards upstreams.
    #[error("setting up TLS towards upstream servers")]
    Upstream(#[from] UpstreamTlsFault),
    /// How approvals reach people.
    #[error("setting up `approvals`: {0}")]
    Approvals(String),
    /// The site's proxy.
    #[error("`upstream_proxy.url`: {0}")]
    Proxy(String),
}

/// Tasks that a thread runs before it takes one from the queue that all share. A thread's own queue holds 256, and
/// each connection has two tasks: with tokio's own interval of about 60, what overflows under load waits for long.
const GLOBAL_QUEUE: u32 = 3;

/// Runs the gate until the supervisor stops it or is gone.
///
/// # Errors
/// A [`GateError`] that made it impossible to go on.
pub fn main() -> Result<(), GateError> {
    let runtime = Builder::new_multi_thread()
        .global_queue_interval(GLOBAL_QUEUE)
        .enable_all()
        .build()
        .map_err(GateError::Runtime)?;
    runtime.block_on(run())
}

async fn run() -> Result<(), GateError> {
    let channel = Arc::new(GateEnd::from_stdin()?);
    let first = timeout(SETUP, channel.receive())
        .await
        .map_err(|_late| GateError::Setup)??;
    let Some((ToGate::Setup(setup), descriptors)) =
        first.map(|received| (received.message, received.descriptors))
    else {
        return Err(GateError::Setup);
    };
    let config = setup.config.clone();
    let Built {
        stages,
        listeners,
        datagrams,
        console,
        mut supervisor,
        writer,
        limits,
    } = build::build(*setup, descriptors, Arc::clone(&channel))?;
    stages.log.available()?;
    for listener in listeners {
        stages.tasks.spawn(accept(Arc::clone(&stages), listener));
    }
    let over = CancellationToken::new();
    for socket in datagrams {
        // To the end: what is under way may need names, and whoever asks in vain waits for long.
        let serving = serve_datagrams(Arc::clone(&stages), Arc::new(socket));
        tokio::spawn(over.clone().run_until_cancelled_owned(serving));
    }
    for supply in stages.tokens.supplies() {
        stages
            .tasks
            .spawn(serve_keys(Arc::clone(&stages), Arc::clone(supply)));
    }
    people(&stages, console);
    let pulse = kernel::pulse(Arc::clone(&stages), Arc::clone(&channel), config);
    let pulse = tokio::spawn(pulse);
    let limits = tokio::spawn(limits::keep(Arc::clone(&stages), limits, over.clone()));
    let turns = tokio::spawn(breakers::record(Arc::clone(&stages)));
    let refusals = tokio::spawn(kernel::events(Arc::clone(&stages), over.clone())?);
    channel.send(&ToSupervisor::Ready, &[]).await?;
    let deadline = supervisor.serve().await?;
    supervisor.see_out(drain(&stages, deadline)).await;
    turns.abort();
    pulse.abort();
    over.cancel();
    counted(refusals).await;
    if let Err(error) = limits.await {
        tracing::error!(%error, "what limits count may not be written");
    }
    stages.log.flush().await?;
    if let Finished::Incomplete(records) = writer.finish(deadline).await {
        tracing::error!(records, "records were open when the log ended");
    }
    channel.send(&ToSupervisor::Stopped, &[]).await?;
    Ok(())
}

/// Waits until the kernel's last refusals are recorded.
async fn counted(refusals: JoinHandle<()>) {
    match timeout(COUNTED, refusals).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "the kernel's refusals are not all recorded"),
        Err(_late) => tracing::error!("the kernel's last refusals were not recorded in time"),
    }
}

/// Begins to tell approvers what waits, and to answer their links.
fn people(stages: &Arc<Stages>, console: Option<TcpListener>) {
    let Some(approving) = &stages.approving else {
        return;
    };
    for place in 0..approving.webhooks.len() {
        let serving = serve_webhook(Arc::clone(stages), Arc::clone(approving), place);
        stages.tasks.spawn(serving);
    }
    if let Some(listener) = console {
        let serving = console::serve(Arc::clone(stages), Arc::clone(approving), listener);
        stages.tasks.spawn(serving);
    }
}

/// Refuses who connects from now on. The supervisor holds the socket, too, so that closing it here would leave them
/// waiting for nobody.
fn stop_listening(listener: &TcpListener) {
    if let Err(error) = rustix::net::shutdown(listener, Shutdown::Both) {
        tracing::warn!(%error, "a listener does not stop");
    }
}

/// Accepts until the gate stops.
async fn accept(stages: Arc<Stages>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            () = stages.stopping.cancelled() => return stop_listening(&listener),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection that was gone before it was served");
                    continue;
                }
                stages
                    .tasks
                    .spawn(serve_connection(Arc::clone(&stages), stream));
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Lets what is under way come to its end, for as long as it may; then every open record is closed by being
/// dropped with its task.
async fn drain(stages: &Stages, deadline: Duration) {
    stages.stopping.cancel();
    stages.tasks.close();
    if timeout(deadline, stages.tasks.wait()).await.is_ok() {
        return;
    }
    let cut = stages.intake.live.recheck(|_| false);
    let sessions = stages.sessions.cut_all();
    tracing::warn!(cut, sessions, "cutting what outlives the deadline");
    if timeout(ACCEPT_PAUSE * 10, stages.tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!("some connections did not end when they were cut");
    }
}
