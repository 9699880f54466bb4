//! What connect(2) costs a process that is not managed, without and with Exeat, and one that is managed.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use exeat_tests::cgroup::Cgroup;
use serde_json::{Value, json};

use crate::cases::medians;
use crate::machine::{Core, Cores};
use crate::ways::{LIMITS, Site, below};
use crate::{Arguments, say};
use exeat_tests::process::Process;

/// The listener that is dialled.
const LISTENER: &str = "127.0.0.1:7077";

pub(crate) async fn measure(arguments: &Arguments, _cores: &Cores) -> Result<Value> {
    let site = Site::new(Cores::find())?;
    let address: SocketAddr = LISTENER.parse().context("read an address")?;
    let mut listening = site.load(None);
    listening.args(["accept", "--listen", LISTENER]);
    let start = async {
        let mut process = Process::start("accept", site.lab.directory(), &mut listening)?;
        process.ready(Duration::from_secs(10)).await?;
        Ok(process)
    };
    let _listener = site.cores.on(Core::Middle, start).await?;
    let mut rounds = Vec::new();
    for round in 1..=arguments.rounds() {
        say(&format!(
            "round {round}: connect and close, unmanaged and managed"
        ));
        let without = dial(&site, None, address).await?;
        let cgroup = Cgroup::create(&format!("{}-dial", site.lab.name()))?;
        let policy = format!(
            "version: 1\nservers: {{ near: {{ url: \"http://{LISTENER}/mcp\" }} }}\n\
             hosts: {{ dialler: {{ match: {{ cgroup: {} }}, servers: [near] }} }}\n\
             rules: [{{ id: all, who: [dialler], servers: [near], effect: allow }}]\n",
            below(cgroup.path())?
        );
        let daemon = site
            .cores
            .on(Core::Middle, site.lab.daemon_with(&policy, LIMITS))
            .await?;
        let with = dial(&site, None, address).await?;
        let managed = dial(&site, Some(&cgroup), address).await?;
        rounds.push(json!({
            "without_us": without, "unmanaged_us": with, "managed_us": managed,
            "unmanaged_more_us": with - without, "managed_more_us": managed - without,
        }));
        drop(daemon);
    }
    Ok(medians(rounds.iter()))
}

/// The median of connect and close, in microseconds: of the tenth of all batches that was disturbed least, since
/// on a virtual machine the others show what else its processor did.
async fn dial(site: &Site, cgroup: Option<&Cgroup>, address: SocketAddr) -> Result<f64> {
    let mut command = site.load(cgroup);
    command.args(["dial", "--connect", &address.to_string()]);
    let start = async { Process::start("dial", site.lab.directory(), &mut command) };
    let mut process = site.cores.on(Core::Load, start).await?;
    let status = process.wait(Duration::from_mins(2)).await?;
    ensure!(status.success(), "{}", process.report());
    let report: Value = serde_json::from_str(process.stdout().trim()).context("read a report")?;
    let median = report.pointer("/median_of_batch_ns/p10");
    let median = median.and_then(Value::as_f64);
    Ok(median.context("find the median")? / 1000.0)
}
