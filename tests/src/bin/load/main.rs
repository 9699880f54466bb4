//! Load for measurements: a client that counts and a server that costs next to nothing.
//!
//! ```text
//! load upstream --listen 127.0.0.1:9443 --cert mcp.pem --key mcp.key
//! load run --url https://mcp.lab.example/mcp --ca world-ca.pem --connect 127.0.0.1:9443 \
//!     --connections 16 --seconds 10 --watch $(pidof haproxy)
//! ```
//! The client prints one JSON document.

#![forbid(unsafe_code)]

mod client;
mod converse;
mod dial;
mod report;
mod upstream;

use std::io::{Write as _, stdout};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "load")]
struct Arguments {
    /// Threads of the runtime.
    #[arg(long, default_value_t = 1, global = true)]
    threads: usize,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send requests and say how it went
    Run(client::Run),
    /// Open connections, make one request on each, and keep them
    Hold(client::Run),
    /// Answer requests
    Upstream(upstream::Serve),
    /// Measure connect and close
    Dial(dial::Dial),
    /// Accept connections and close them
    Accept(dial::Accept),
    /// Start an MCP server, make calls over its standard streams, and say how it went
    Converse(converse::Converse),
    /// Be that server
    Speak,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(arguments.threads)
        .enable_all()
        .build()
        .context("start a runtime")?;
    match arguments.command {
        Command::Run(run) => {
            let report = runtime.block_on(client::run(run))?;
            writeln!(stdout(), "{report}").context("print the report")
        }
        Command::Hold(run) => runtime.block_on(client::hold(run)),
        Command::Dial(dial) => {
            let report = dial::dial(&dial)?;
            writeln!(stdout(), "{report}").context("print the report")
        }
        Command::Accept(accept) => dial::accept(&accept),
        Command::Converse(converse) => {
            let report = converse::converse(&converse)?;
            writeln!(stdout(), "{report}").context("print the report")
        }
        Command::Speak => converse::speak(),
        Command::Upstream(serve) => runtime.block_on(upstream::serve(serve)),
    }
}
