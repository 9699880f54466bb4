//! The demonstration: a daemon, two MCP servers and an agent, in a network of their own.
//!
//! The same program plays all the parts that the daemon watches: `demo library` is an MCP server over
//! HTTP, `demo courier` one over stdio, `demo agent` an MCP host. `demo show` puts them on the stage.

#![forbid(unsafe_code)]

mod agent;
mod dns;
mod http;
mod rpc;
mod scenes;
mod show;
mod stage;
mod tools;
mod web;

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "demo", about = "Shows what Exeat does, with real processes")]
struct Arguments {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Run the demonstration; as root
    Show,
    /// An MCP server over HTTP whose tools use the network
    Library {
        /// Where it listens
        #[arg(long)]
        listen: SocketAddr,
    },
    /// An MCP server over stdio that sends requests for others
    Courier,
    /// Call a tool of the server at a URL, and print what came back
    Agent(agent::Call),
    /// Connect to an address, and print what came of it
    Dial {
        /// Where to
        address: SocketAddr,
    },
}

fn main() -> ExitCode {
    match play(Arguments::parse().part) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            show::complain(&format!("demo: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn play(part: Part) -> Result<bool> {
    match part {
        Part::Show => show::run().await,
        Part::Library { listen } => http::serve(listen).await.map(|()| true),
        Part::Courier => rpc::stdio().await.map(|()| true),
        Part::Agent(call) => agent::run(call).await.map(|()| true),
        Part::Dial { address } => web::dial(address)
            .await
            .map(|said| show::tell(&said))
            .map(|()| true),
    }
}
