//! What a connection to this machine itself costs its caller: connect(2) and close(2), one after the other.

use std::io::{Write as _, stdout};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::park_timeout;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use rustix::net::sockopt::set_socket_linger;
use serde_json::{Value, json};
use tokio::time::Instant;

/// After so many connections the dialler pauses, so that nobody's queue fills.
const BATCH: u32 = 50;
/// How long.
const PAUSE: Duration = Duration::from_millis(10);

/// Measure connect and close.
#[derive(Debug, Args)]
pub(crate) struct Dial {
    /// The address to connect to
    #[arg(long)]
    connect: SocketAddr,
    /// How many batches of connections
    #[arg(long, default_value_t = 100)]
    batches: u32,
}

/// Accept connections and close them.
#[derive(Debug, Args)]
pub(crate) struct Accept {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
}

pub(crate) fn dial(dial: &Dial) -> Result<Value> {
    let mut batches = Vec::new();
    for _ in 0..dial.batches {
        park_timeout(PAUSE);
        let mut nanoseconds = Vec::new();
        for _ in 0..BATCH {
            nanoseconds.push(once(dial.connect)?.as_nanos());
        }
        batches.extend(at(&mut nanoseconds, 50));
    }
    let batch = json!({ "p10": at(&mut batches, 10), "p50": at(&mut batches, 50) });
    Ok(json!({ "batches": dial.batches, "median_of_batch_ns": batch }))
}

fn once(address: SocketAddr) -> Result<Duration> {
    let began = Instant::now();
    let stream = TcpStream::connect(address).with_context(|| format!("connect {address}"))?;
    // Without the wait after closing, ports would run out.
    set_socket_linger(&stream, Some(Duration::ZERO)).context("set SO_LINGER")?;
    drop(stream);
    Ok(began.elapsed())
}

fn at(values: &mut [u128], per_cent: usize) -> Option<u128> {
    values.sort_unstable();
    values.get(values.len() * per_cent / 100).copied()
}

pub(crate) fn accept(accept: &Accept) -> Result<()> {
    let listener =
        TcpListener::bind(accept.listen).with_context(|| format!("listen on {}", accept.listen))?;
    writeln!(stdout(), "{}", json!({ "ready": true })).context("say that it is ready")?;
    for accepted in listener.incoming() {
        // One that is gone already was meant to be.
        drop(accepted);
    }
    Ok(())
}
