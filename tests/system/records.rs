//! The log: one record for each exchange, and no exchange without one, whatever the disk does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use exeat_tests::Lab;
use exeat_tests::fixtures::Fixtures;
use exeat_tests::lab::WORLD;
use exeat_tests::process::must;
use exeat_tests::wait::wait_until;
use serde_json::Value;

use crate::life::{answers, verified};
use crate::place::{curl, exchange, managed, policy, start};

const NAME: &str = "api.lab.example";
const ENTRY: &str = "{ host: api.lab.example }";
const LIMIT: Duration = Duration::from_secs(30);

/// Asks on one connection for as long as it lasts, never twice for the same.
const KEPT: &str = "import requests,sys,time
session=requests.Session()
count=0
while True:
  count+=1
  try: print(session.get(f'{sys.argv[1]}{count}',timeout=5).status_code,flush=True)
  except Exception: print('000',flush=True)
  time.sleep(0.05)";

/// Asks on a connection each, never twice for the same; what else is given goes to curl.
fn asks(what: &str, first: &str, more: &str) -> String {
    let curl = "curl --silent --max-time 5 --output /dev/null --write-out '%{http_code}\\n'";
    format!(
        "{first} n=0; while :; do n=$((n + 1)); {curl} {more} https://{NAME}/echo?{what}$n; sleep 0.05; done"
    )
}

fn address() -> SocketAddr {
    SocketAddr::new(WORLD, 443)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_until_there_is_room() {
    let lab = Lab::new().unwrap();
    let server = lab.https(&[NAME], address()).unwrap();
    let state = lab.directory().join("state");
    fs::create_dir_all(&state).unwrap();
    let shown = state.display().to_string();
    must(
        "mount",
        &["-t", "tmpfs", "-o", "size=2m,mode=755", "tmpfs", &shown],
    )
    .unwrap();
    let _mounted = Unmount(shown);
    let daemon = lab.daemon(&policy(&[ENTRY])).await.unwrap();
    assert_eq!(
        curl(&lab, &["https://api.lab.example/echo"]).await.status,
        200
    );
    let python = Fixtures::find().unwrap().python(2);
    let program = [
        python.to_str().unwrap(),
        "-c",
        KEPT,
        "https://api.lab.example/echo?kept",
    ];
    let kept = start(&lab, "kept", &program);
    answers(&kept, "200").await;
    let asking = start(&lab, "asking", &["sh", "-c", &asks("asking", "", "")]);
    answers(&asking, "200").await;
    // Begins connections anew, to an address that it has asked for before.
    let known = asks(
        "known",
        &format!("curl --silent --output /dev/null https://{NAME}/echo?first;"),
        &format!("--resolve {NAME}:443:{WORLD}"),
    );
    let known = start(&lab, "known", &["sh", "-c", &known]);
    answers(&known, "200").await;
    let filler = state.join("filler");
    fill(&filler);
    // Whoever has a connection or can begin one is told why; names are not resolved.
    answers(&kept, "503").await;
    answers(&known, "503").await;
    answers(&asking, "000").await;
    let told = curl(&lab, &["https://api.lab.example/echo"]).await;
    assert!(told.error.contains("nothing can be recorded"), "{told:?}");
    let before = server.seen().len();
    answers(&kept, "503").await;
    answers(&asking, "000").await;
    assert_eq!(server.seen().len(), before, "refused, and yet sent");
    fs::remove_file(&filler).unwrap();
    answers(&kept, "200").await;
    answers(&asking, "200").await;
    answers(&known, "200").await;
    drop((kept, known, asking));
    let told = curl(&lab, &["https://api.lab.example/echo?again"]).await;
    assert_eq!(told.status, 200, "{told:?}");
    exchange(&daemon, "/echo?again").await;
    verified(&lab).await;
    // A client that is killed in the middle leaves a record without a status, but a record.
    let sent: BTreeSet<String> = server.seen().into_iter().map(|seen| seen.path).collect();
    assert!(sent.len() > 3, "{sent:?}");
    wait_until("what was sent is recorded", LIMIT, || {
        let recorded = recorded(&daemon.audit().unwrap());
        sent.iter().all(|path| recorded.contains_key(path))
    })
    .await
    .unwrap();
    let recorded = recorded(&daemon.audit().unwrap());
    let more: Vec<_> = recorded.iter().filter(|(_, count)| **count != 1).collect();
    assert!(more.is_empty(), "more than one record for each: {more:?}");
}

/// How many records of something that was let go there are for each path.
fn recorded(records: &[Value]) -> BTreeMap<String, usize> {
    let mut paths = BTreeMap::new();
    for record in records {
        if let Some(path) = record["http"]["path"].as_str()
            && record["outcome"]["status"] != "refused"
        {
            *paths.entry(path.to_owned()).or_default() += 1;
        }
    }
    paths
}

/// Unmounts on drop.
struct Unmount(String);

impl Drop for Unmount {
    fn drop(&mut self) {
        // Lazily: the daemon may still hold its files.
        let _gone = must("umount", &["--lazy", &self.0]);
    }
}

/// Writes zeros until there is no more room.
fn fill(path: &std::path::Path) {
    use std::io::Write as _;
    let mut file = fs::File::create(path).unwrap();
    for size in [65536, 4096, 512, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_exchange_has_one_record() {
    const EACH: usize = 300;
    let lab = Lab::new().unwrap();
    let server = lab.https(&[NAME], address()).unwrap();
    let entry = "{ host: api.lab.example, paths: [/echo] }";
    let mut daemon = lab.daemon(&policy(&[entry])).await.unwrap();
    for (version, path, status) in [
        ("--http2", "echo", "200"),
        ("--http1.1", "echo", "200"),
        ("--http2", "no", "403"),
    ] {
        let url = format!("https://{NAME}/{path}?{version}[1-{EACH}]");
        let done = managed(
            &lab,
            &[
                "curl",
                "--silent",
                "--parallel",
                "--parallel-max",
                "30",
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_code}\n",
                version,
                &url,
            ],
        )
        .await;
        let right = done.stdout.lines().filter(|line| *line == status).count();
        assert_eq!(
            right, EACH,
            "{version} {path}: {} {}",
            done.stdout, done.stderr
        );
    }
    assert_eq!(server.seen().len(), 2 * EACH);
    daemon.stop().await.unwrap();
    let records = daemon.audit().unwrap();
    let mut paths: Vec<&str> = records
        .iter()
        .filter(|record| record["kind"] == "http")
        .map(|record| record["http"]["path"].as_str().unwrap())
        .collect();
    assert_eq!(paths.len(), 3 * EACH);
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), 3 * EACH, "each path once");
    let lines = daemon.audit_lines().unwrap();
    let numbers: Vec<u64> = lines
        .iter()
        .map(|record| record["seq"].as_u64().unwrap())
        .collect();
    assert!(
        numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "gapless"
    );
    verified(&lab).await;
}
