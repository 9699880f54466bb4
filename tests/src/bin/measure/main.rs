//! Measures Exeat beside other ways to the same server: direct, HAProxy, mitmproxy.
//!
//! `cargo xtask bench` builds everything, says where the others are, and starts this as root. All ways lead to one
//! upstream by TLS with ECDSA P-256 certificates, over the same cable, from the same client, in rounds that take turns.

#![forbid(unsafe_code)]

mod cases;
mod decision;
mod dialling;
mod machine;
mod memory;
mod reload;
mod report;
mod stdio;
mod ways;

use std::io::{Write as _, stderr, stdout};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;
use serde_json::{Value, json};

use self::machine::Cores;
use self::ways::{Site, Way};

#[derive(Debug, Parser)]
#[command(name = "measure")]
pub(crate) struct Arguments {
    /// A look in two minutes instead of figures to publish
    #[arg(long)]
    quick: bool,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    /// Rounds of which medians are taken [default: 5, quick 1]
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of each case in each round [default: 3, quick 1]
    #[arg(long)]
    seconds: Option<u64>,
    /// Only these cases
    #[arg(long, value_delimiter = ',')]
    cases: Vec<String>,
    /// Only these ways
    #[arg(long, value_delimiter = ',')]
    ways: Vec<Way>,
    /// HAProxy's program
    #[arg(long, default_value = "/usr/sbin/haproxy")]
    haproxy: PathBuf,
    /// mitmproxy's program
    #[arg(long)]
    mitmdump: Option<PathBuf>,
}

impl Arguments {
    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 5 }).max(1)
    }

    fn seconds(&self) -> u64 {
        self.seconds
            .unwrap_or(if self.quick { 1 } else { 3 })
            .max(1)
    }

    /// The ways to measure; mitmproxy only where it is.
    fn ways(&self) -> Vec<Way> {
        Way::ALL
            .into_iter()
            .filter(|way| self.ways.is_empty() || self.ways.contains(way))
            .filter(|way| *way != Way::Mitmproxy || self.mitmdump.is_some())
            .collect()
    }

    fn quick(&self) -> bool {
        self.quick
    }

    fn wants(&self, case: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|wanted| wanted == case)
    }
}

/// Progress, for who waits.
pub(crate) fn say(text: &str) {
    // A closed terminal is no reason to stop measuring.
    let _closed = writeln!(stderr(), "{text}");
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // One thread: what it starts inherits the cores that it is told to keep to.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")?;
    let figures = runtime.block_on(measure(&arguments))?;
    let text = if arguments.json {
        serde_json::to_string_pretty(&figures).context("print the figures")?
    } else {
        report::table(&figures)
    };
    writeln!(stdout(), "{text}").context("print the figures")
}

async fn measure(arguments: &Arguments) -> Result<Value> {
    let cores = Cores::find();
    let before = machine::describe(&cores);
    let mut figures = json!({
        "rounds": arguments.rounds(),
        "seconds": arguments.seconds(),
        "machine": before,
    });
    let mut add = |name: &str, value: Value| {
        if let Some(figures) = figures.as_object_mut() {
            figures.insert(name.to_owned(), value);
        }
    };
    if arguments.wants("decision") {
        say("decision: in this process, without the daemon");
        add("decision", decision::measure()?);
    }
    if arguments.wants("connect") {
        add("connect", dialling::measure(arguments, &cores).await?);
    }
    let site = Site::new(cores)?;
    add("cases", cases::measure(arguments, &site).await?);
    if arguments.wants("memory") {
        add("memory", memory::measure(arguments, &site).await?);
    }
    if arguments.wants("stdio") {
        add("stdio", stdio::measure(arguments, &site).await?);
    }
    if arguments.wants("reload") {
        add("reload", reload::measure(arguments, &site).await?);
    }
    add("load_after", machine::load());
    Ok(figures)
}
