//! What many servers leave behind when they have ended: nothing.
//!
//! `EXEAT_SOAK=SECONDS` has them come and go for that long.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use exeat_tests::Lab;
use exeat_tests::daemon::Daemon;
use exeat_tests::lab::WORLD;
use exeat_tests::process::anonymous;
use exeat_tests::stdio::Session;
use exeat_tests::wait::wait_for;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::stdio::{ALL, policy};
use crate::stdio_faults::ask;
use crate::stdio_floods::processes;
use crate::world::LIMIT;

/// How long as many starts as there are servers may take, beside other tests on two slow cores.
const STARTS: Duration = Duration::from_mins(4);

/// Servers at once, and how often at least.
const SERVERS: usize = 200;
const GENERATIONS: usize = 3;
/// What the gate and the supervisor may hold more for each session that there was, in bytes.
const EACH: u64 = 4096;
/// What they may hold more however few those are: their allocators give back what is free when they like.
const ANYWAY: [u64; 2] = [8 << 20, 32 << 20];

/// What may grow: descriptors of the supervisor and of the gate, entries of the kernel's tables, and cgroups.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    supervisor: usize,
    gate: usize,
    tables: BTreeMap<&'static str, usize>,
    cgroups: usize,
}

impl Held {
    fn now(lab: &Lab, daemon: &Daemon<'_>, gate: u32) -> Self {
        let descriptors = |pid: u32| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        let tables = exeat_ebpf::fill(daemon.pins()).unwrap();
        Self {
            tables: tables
                .iter()
                .map(|fill| (fill.what, fill.entries))
                .collect(),
            supervisor: descriptors(daemon.pid()),
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
    let (what, mut last) = (format!("{count} workloads"), None);
    let all = wait_for(&what, STARTS, async || {
        let status = daemon.status().await.ok()?;
        last = Some(status["workloads"].as_array()?.len());
        (last == Some(count)).then_some(())
    });
    if let Err(error) = all.await {
        panic!("{error:#}, but {last:?}");
    }
}

/// A call, and a notification of either side.
async fn talks(mut session: Session) -> Session {
    let told = json!({ "jsonrpc": "2.0", "method": "notifications/roots/list_changed" });
    session.send(&told).await.unwrap();
    let notification = session.receive().await.unwrap();
    assert_eq!(notification["method"], "notifications/tools/list_changed");
    ask(&mut session, 1).await;
    let answer = session.receive().await.unwrap();
    assert_eq!(answer["result"]["heard"], "dialled", "{answer}");
    session
}

async fn ends(mut session: Session) {
    let status = session.close().await.unwrap();
    assert!(status.success(), "{status}");
}

async fn generation(daemon: &Daemon<'_>, count: usize) {
    let mut sessions = Vec::new();
    for _ in 0..count {
        sessions.push(daemon.run("quiet-leaks").unwrap());
    }
    workloads(daemon, count).await;
    let talking: JoinSet<Session> = sessions.into_iter().map(talks).collect();
    let talked = talking.join_all().await;
    // What is to be gone afterwards is there.
    for fill in exeat_ebpf::fill(daemon.pins()).unwrap() {
        if ["open addresses", "open ranges"].contains(&fill.what) {
            assert!(fill.entries >= count, "{fill:?} for {count} servers");
        }
    }
    let ending: JoinSet<()> = talked.into_iter().map(ends).collect();
    ending.join_all().await;
    workloads(daemon, 0).await;
}

/// What the gate and the supervisor hold, in bytes.
async fn memory(daemon: &Daemon<'_>) -> [u64; 2] {
    processes(daemon).await.map(|pid| anonymous(pid).unwrap())
}

/// Where each server looks up a name and dials, and what it may reach.
const NAME: &str = "echo.lab.example";
const EGRESS: &str = "[{ host: echo.lab.example, ports: [9000], protocol: tcp }, \
    { cidr: 10.78.0.0/16, ports: [5000], protocol: udp }]";

/// Answers one call by what a dialled server says back, and a notification by one of its own.
const ANSWERS: &str = concat!(
    r#"while read -r line; do case "$line" in "#,
    r#"*'"id":1'*) exec 3<>/dev/tcp/echo.lab.example/9000; echo dialled >&3; read -r heard <&3; exec 3>&-; "#,
    r#"echo '{"jsonrpc":"2.0","id":1,"result":{"heard":"'$heard'"}}';; "#,
    r#"*) echo '{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}';; "#,
    "esac; done"
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_leave_no_memory_descriptor_cgroup_table_entry_or_open_record() {
    let lab = Lab::new().unwrap();
    let _echo = lab.echo(SocketAddr::new(WORLD, 9000)).unwrap();
    lab.dns.points(NAME, &[WORLD]);
    let server = format!(
        "  quiet-leaks:
    purpose: answers whatever it is asked
    owner: tests@lab.example
    launch: {{ command: /bin/bash, args: [-c, '{}'], user: nobody }}
    egress: {EGRESS}
{ALL}",
        ANSWERS.replace('\'', "''")
    );
    let daemon = lab.daemon(&policy(&lab, &server)).await.unwrap();
    let [gate, _] = processes(&daemon).await;
    // What is opened once and kept is open then.
    generation(&daemon, 1).await;
    let before = Held::now(&lab, &daemon, gate);
    assert_eq!(
        before.cgroups, 2,
        "the gate's and the workloads' parent: {before:?}"
    );
    let soak = env::var("EXEAT_SOAK").ok();
    let soak = soak.map(|seconds| Duration::from_secs(seconds.parse().unwrap()));
    let began = Instant::now();
    generation(&daemon, SERVERS).await;
    // What as many at once take is taken, and kept for the next.
    let early = memory(&daemon).await;
    let mut started = SERVERS;
    while started < SERVERS * GENERATIONS || soak.is_some_and(|soak| began.elapsed() < soak) {
        generation(&daemon, SERVERS).await;
        started += SERVERS;
        println!("{:?}: {:?}", began.elapsed(), memory(&daemon).await);
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
    let each = EACH * u64::try_from(started - SERVERS).unwrap();
    let late = wait_for("as much memory as before", LIMIT, async || {
        let late = memory(&daemon).await;
        let grown = [0, 1].map(|process| late[process].saturating_sub(early[process]));
        let mut each = ANYWAY.map(|anyway| anyway + each).into_iter().zip(grown);
        each.all(|(most, grown)| grown < most).then_some(late)
    });
    let late = match late.await {
        Ok(late) => late,
        Err(error) => panic!("{error:#}: {early:?}, then {:?}", memory(&daemon).await),
    };
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
    let took = began.elapsed();
    println!("{started} servers in {took:?}: {before:?}, {early:?}, then {late:?}");
}
