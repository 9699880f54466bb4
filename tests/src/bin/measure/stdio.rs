//! A conversation over standard streams: with a server directly, and through `exeat run`.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use exeat_tests::process::Process;
use serde_json::{Map, Value, json};

use crate::cases::medians;
use crate::ways::{Site, Way};
use crate::{Arguments, say};

/// Calls that are under way together: half a million are a million messages.
const CALLS: u32 = 500_000;

pub(crate) async fn measure(arguments: &Arguments, site: &Site) -> Result<Value> {
    let calls = if arguments.quick() { CALLS / 20 } else { CALLS };
    let mut result = Map::new();
    for way in [Way::Direct, Way::Exeat] {
        if !arguments.ways().contains(&way) {
            continue;
        }
        let mut rounds = Vec::new();
        for round in 1..=arguments.rounds() {
            say(&format!("round {round}: stdio: {}", way.name()));
            rounds.push(one(site, way, calls).await?);
        }
        result.insert(way.name().to_owned(), medians(rounds.iter()));
    }
    Ok(Value::Object(result))
}

/// One session with a server of its own. Who runs where is the scheduler's to say: what is measured crosses five
/// processes, which on one core would wait for each other.
async fn one(site: &Site, way: Way, calls: u32) -> Result<Value> {
    let load = site.program();
    let policy = format!(
        "version: 1
servers:
  speaker:
    purpose: answers at once
    owner: tests@lab.example
    launch: {{ command: {}, args: [speak], user: nobody }}
rules: [{{ id: all, servers: [speaker], effect: allow }}]
",
        load.display()
    );
    let daemon = match way {
        Way::Exeat => Some(site.lab.daemon(&policy).await?),
        _ => None,
    };
    let mut command = site.load(None);
    command.args(["converse", "--together", &calls.to_string()]);
    if daemon.is_some() {
        command.args(["--watch", &site.lab.gate()?.to_string(), "--"]);
        let run = site.lab.exeat(&["run", "speaker"])?;
        command.arg(run.get_program()).args(run.get_args());
    } else {
        command.arg("--").arg(load).arg("speak");
    }
    let mut process = Process::start("converse", site.lab.directory(), &mut command)?;
    let status = process.wait(Duration::from_mins(10)).await?;
    ensure!(status.success(), "{}", process.report());
    let report: Value = serde_json::from_str(process.stdout().trim()).context("read a report")?;
    let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64);
    let grown = number("/bytes_after").zip(number("/bytes_before"));
    Ok(json!({
        "p50_us": number("/latency_us/p50"),
        "p99_us": number("/latency_us/p99"),
        "messages_per_second": number("/messages_per_second"),
        "grown_kib": grown.map(|(after, before)| (after - before) / 1024.0),
    }))
}
