//! Processes of the daemon's own, without privileges and in cgroups from which nothing is reachable: the canary, which
//! tries what it was told to, and the parser of what strangers wrote. In a server's workload: what becomes Docker's
//! client.

use std::io;
use std::io::Read as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use tokio::runtime::{Builder, Runtime};

use super::error::{CliError, Kind};
use super::output;
use crate::control::reply::Attempt;
use crate::hosts;
use crate::launch::container;
use crate::telemetry::clock;

/// Loopback answers at once; this is for the case that packets are dropped in silence.
const PATIENCE: Duration = Duration::from_secs(2);

/// For Exeat's own use.
#[derive(Debug, Subcommand)]
pub enum InternalCommand {
    /// Do one privileged step of the daemon's, as told on standard input
    Stage,
    /// Print what the configuration files on standard input start
    Started,
    /// Have a container's image here, then become Docker's client
    Container {
        /// The workload's cgroup, below the root of cgroups
        cgroup: String,
        /// The container's name
        name: String,
        /// Seconds in which its image has to be fetched
        deadline: u64,
        /// Docker's client, and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Have Docker remove a container
    Uncontain {
        /// The container's name
        name: String,
        /// Look for some time whether it is made yet
        #[arg(long)]
        wait: bool,
    },
    /// Try what is forbidden, and print what came of it
    Canary {
        /// An attempt: tcp/ADDRESS:PORT or udp/ADDRESS:PORT
        #[arg(required = true)]
        targets: Vec<String>,
    },
}

/// Tries all `targets`; prints one JSON array.
pub(super) fn canary(targets: &[String]) -> Result<(), CliError> {
    let attempts = targets
        .iter()
        .map(|target| attempt(target))
        .collect::<Result<Vec<_>, _>>()?;
    let text = serde_json::to_string(&attempts).map_err(io::Error::from)?;
    output::raw(&text)
}

/// Becomes Docker's client, once the image is here; returns only with an error.
pub(super) fn container(
    cgroup: &str,
    name: &str,
    deadline: u64,
    command: &[String],
) -> Result<u8, CliError> {
    let (program, arguments) = command.split_first().ok_or_else(|| {
        let text = format_args!("become Docker's client: none is named");
        CliError::new(Kind::Usage, text)
    })?;
    let kept = container::Kept { cgroup, name };
    let deadline = Duration::from_secs(deadline);
    match runtime()?.block_on(container::run(&kept, deadline, program, arguments)) {
        Ok(never) => match never {},
        Err(error) => Err(CliError::from_error(Kind::Refused, &error)),
    }
}

/// Has Docker remove a container.
pub(super) fn uncontain(name: &str, wait: bool) -> Result<(), CliError> {
    runtime()?
        .block_on(container::remove(name, wait))
        .map_err(|error| CliError::from_error(Kind::Refused, &error))
}

fn runtime() -> Result<Runtime, CliError> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::io("start the event loop", &error))
}

/// Reads configuration files, each a path and a text, and prints for each what it starts, or why it cannot be read.
pub(super) fn started() -> Result<(), CliError> {
    let mut input = Vec::new();
    io::stdin()
        .read_to_end(&mut input)
        .map_err(|e| CliError::io("read the files", &e))?;
    let files: Vec<(PathBuf, String)> = serde_json::from_slice(&input).map_err(io::Error::from)?;
    let parsed: Vec<Result<_, String>> = files
        .iter()
        .map(|(path, text)| hosts::started(path, text).map_err(|fault| fault.to_string()))
        .collect();
    let text = serde_json::to_string(&parsed).map_err(io::Error::from)?;
    output::raw(&text)
}

fn attempt(target: &str) -> Result<Attempt, CliError> {
    let wrong = || CliError::new(Kind::Usage, format_args!("read `{target}` as a target"));
    let (protocol, address) = target.split_once('/').ok_or_else(wrong)?;
    let address: SocketAddr = address.parse().ok().ok_or_else(wrong)?;
    let began = clock::monotonic();
    let outcome = match protocol {
        "tcp" => TcpStream::connect_timeout(&address, PATIENCE).map(drop),
        "udp" => send(address),
        _ => return Err(wrong()),
    };
    let took = clock::monotonic().since(began);
    Ok(Attempt {
        tried: format!("{protocol} to {address}"),
        refused: outcome.as_ref().is_err_and(is_refusal),
        saw: outcome.map_or_else(|error| error.to_string(), |()| "it went through".to_owned()),
        micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
    })
}

fn send(address: SocketAddr) -> io::Result<()> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    UdpSocket::bind(any)?.send_to(b"canary", address).map(drop)
}

/// A refusal is said at once; an unreachable network or a time-out proves nothing.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::PermissionDenied
    )
}
