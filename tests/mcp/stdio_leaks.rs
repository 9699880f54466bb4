//! What many servers leave behind when they have ended: nothing.
//!
//! `EXEAT_SOAK=SECONDS` has 200 at once come and go for that long.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;
use std::time::Duration;

use exeat_tests::Lab;
use exeat_tests::daemon::Daemon;
use exeat_tests::wait::wait_for;

use tokio::time::Instant;

use crate::stdio::{ALL, policy};
use crate::world::LIMIT;

/// Servers at once, and how often at least.
const SERVERS: usize = 40;
const GENERATIONS: usize = 3;
/// Servers at once in a soak.
const SOAKED: usize = 200;

/// What may grow: descriptors of the supervisor and of the gate, entries of the kernel's tables, and cgroups.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    supervisor: usize,
    gate: usize,
    tables: BTreeMap<&'static str, usize>,
    cgroups: usize,
}

impl Held {
    fn now(lab: &Lab, daemon: &Daemon<'_>, gate: u64) -> Self {
        let descriptors = |pid: u64| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        let tables = exeat_ebpf::fill(daemon.pins()).unwrap();
        Self {
            tables: tables
                .iter()
                .map(|fill| (fill.what, fill.entries))
                .collect(),
            supervisor: descriptors(daemon.pid().into()),
            gate: descriptors(gate),
            cgroups: cgroups(&lab.cgroup().unwrap()),
        }
    }
}

/// Those below `directory`.
fn cgroups(directory: &Path) -> usize {
    // A workload's may go while it is looked at.
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| 1 + cgroups(&entry.path()))
        .sum()
}

async fn workloads(daemon: &Daemon<'_>, count: usize) {
    wait_for(&format!("{count} workloads"), LIMIT, async || {
        let status = daemon.status().await.ok()?;
        (status["workloads"].as_array()?.len() == count).then_some(())
    })
    .await
    .unwrap();
}

async fn generation(daemon: &Daemon<'_>, count: usize) {
    let mut sessions = Vec::new();
    for _ in 0..count {
        sessions.push(daemon.run("quiet-leaks").unwrap());
    }
    workloads(daemon, count).await;
    for session in &mut sessions {
        let status = session.close().await.unwrap();
        assert!(status.success(), "{status}");
    }
    workloads(daemon, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_leave_no_descriptor_cgroup_table_entry_or_open_record() {
    let lab = Lab::new().unwrap();
    let server = format!(
        "  quiet-leaks:
    purpose: reads to its end and says nothing
    owner: tests@lab.example
    launch: {{ command: /bin/sh, args: [-c, 'while read -r line; do :; done'], user: nobody }}
{ALL}"
    );
    let daemon = lab.daemon(&policy(&lab, &server)).await.unwrap();
    let gate = daemon.status().await.unwrap()["gate"]["pid"]
        .as_u64()
        .unwrap();
    // What is opened once and kept is open then.
    generation(&daemon, 1).await;
    let before = Held::now(&lab, &daemon, gate);
    assert_eq!(
        before.cgroups, 2,
        "the gate's and the workloads' parent: {before:?}"
    );
    let soak = env::var("EXEAT_SOAK").ok();
    let soak = soak.map(|seconds| Duration::from_secs(seconds.parse().unwrap()));
    let (servers, began) = (soak.map_or(SERVERS, |_| SOAKED), Instant::now());
    let mut started = 0;
    while started < servers * GENERATIONS || soak.is_some_and(|soak| began.elapsed() < soak) {
        generation(&daemon, servers).await;
        started += servers;
    }
    // The last connection of `status` may still be being closed.
    let same = wait_for("as much is held as before", LIMIT, async || {
        (Held::now(&lab, &daemon, gate) == before).then_some(())
    });
    if let Err(error) = same.await {
        panic!(
            "{error:#}: {before:?}, then {:?}",
            Held::now(&lab, &daemon, gate)
        );
    }
    // Whatever was told as open has its end.
    let lines = daemon.audit_lines().unwrap();
    let ended: Vec<&str> = lines
        .iter()
        .filter(|line| line.get("open").is_none())
        .filter_map(|line| line["id"].as_str())
        .collect();
    for line in lines.iter().filter(|line| line.get("open").is_some()) {
        let id = line["id"].as_str().unwrap();
        assert!(ended.contains(&id), "{line}");
    }
    assert!(ended.len() >= started, "{}", ended.len());
    println!("{started} servers in {:?}: {before:?}", began.elapsed());
}
