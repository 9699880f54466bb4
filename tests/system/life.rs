//! The daemon's life: killed, restarted, reloaded, stopped, refused. What is managed reaches nothing meanwhile.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use exeat_tests::Lab;
use exeat_tests::daemon::binary;
use exeat_tests::fixtures::Fixtures;
use exeat_tests::lab::{LAN, WORLD, WORLD_OTHER};
use exeat_tests::process::{Process, must, run};
use exeat_tests::wait::{wait_for, wait_until};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::hand::Hand;
use crate::place::{curl, exchange, managed, policy, start};
use crate::streams::gate;

const NAME: &str = "api.lab.example";
const ENTRY: &str = "{ host: api.lab.example }";
const OTHER: &str = "{ host: other.lab.example }";
const LIMIT: Duration = Duration::from_secs(30);

/// A workload that asks again and again, a line for each answer: its status, or 0.
const LOOP: &str = "while :; do curl --silent --max-time 5 --output /dev/null --write-out '%{http_code}\\n' \
    https://api.lab.example/echo; sleep 0.05; done";

/// The same on one connection for as long as it lasts.
const KEPT: &str = "import requests,sys,time
session=requests.Session()
while True:
  try: print(session.get(sys.argv[1],timeout=5).status_code,flush=True)
  except Exception: print('000',flush=True)
  time.sleep(0.05)";

fn address() -> SocketAddr {
    SocketAddr::new(WORLD, 443)
}

fn pid(raw: u32) -> Pid {
    Pid::from_raw(i32::try_from(raw).unwrap()).unwrap()
}

fn lines(process: &Process) -> Vec<String> {
    process.stdout().lines().map(str::to_owned).collect()
}

/// Waits until the workload's last three answers are all `status`.
async fn answers(process: &Process, status: &str) {
    let from = lines(process).len();
    wait_until(&format!("the workload is answered {status}"), LIMIT, || {
        let lines = lines(process);
        lines.len() >= from + 3 && lines[lines.len() - 3..].iter().all(|line| line == status)
    })
    .await
    .unwrap_or_else(|error| panic!("{error}: {:?}", lines(process)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_leaves_while_either_half_is_dead() {
    let lab = Lab::new().unwrap();
    let _server = lab.https(&[NAME], address()).unwrap();
    let mut daemon = lab.daemon(&policy(&[ENTRY])).await.unwrap();
    let workload = start(&lab, "loop", &["sh", "-c", LOOP]);
    answers(&workload, "200").await;

    // The gate alone: the supervisor starts another, and the workload works on.
    let first = gate(&daemon);
    kill_process(pid(first), Signal::KILL).unwrap();
    wait_until("another gate", LIMIT, || {
        test_kill_process(pid(first)).is_err()
    })
    .await
    .unwrap();
    answers(&workload, "200").await;
    assert_ne!(gate(&daemon), first);

    // The supervisor alone: its gate ends with it.
    let second = gate(&daemon);
    daemon.kill().await.unwrap();
    wait_until("the gate ends", LIMIT, || {
        test_kill_process(pid(second)).is_err()
    })
    .await
    .unwrap();
    let wire = lab.wire().unwrap();
    answers(&workload, "000").await;
    assert_eq!(wire.packets(), [], "nothing reaches the world");
    drop(wire);

    daemon.restart().await.unwrap();
    answers(&workload, "200").await;

    // Both at once.
    let third = gate(&daemon);
    kill_process(pid(third), Signal::STOP).unwrap();
    daemon.kill().await.unwrap();
    kill_process(pid(third), Signal::KILL).unwrap();
    wait_until("the gate ends", LIMIT, || {
        test_kill_process(pid(third)).is_err()
    })
    .await
    .unwrap();
    let wire = lab.wire().unwrap();
    answers(&workload, "000").await;
    assert_eq!(wire.packets(), [], "nothing reaches the world");
    daemon.restart().await.unwrap();
    answers(&workload, "200").await;
    daemon.stop().await.unwrap();
    verified(&lab).await;
}

/// `exeat audit verify` says that the log is whole.
async fn verified(lab: &Lab) {
    let directory = lab.directory().join("state/audit");
    let directory = directory.to_str().unwrap();
    let mut command = lab.exeat(&["audit", "verify", "--dir", directory]).unwrap();
    let done = run(&mut command, LIMIT).await.unwrap();
    assert!(done.status.success(), "{} {}", done.stdout, done.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_an_exchange_finish() {
    let lab = Lab::new().unwrap();
    let hand = Hand::new(&lab, NAME, address());
    let mut daemon = lab.daemon(&policy(&[ENTRY])).await.unwrap();
    let mut client = start(
        &lab,
        "client",
        &[
            "curl",
            "--silent",
            "--no-buffer",
            "https://api.lab.example/draining",
        ],
    );
    let mut held = hand.accept().await;
    held.head().await;
    held.say("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst")
        .await;
    wait_until("the first half", LIMIT, || client.stdout() == "first")
        .await
        .unwrap();
    let supervisor = pid(daemon.pid());
    kill_process(supervisor, Signal::TERM).unwrap();
    // New connections are over, this exchange is not.
    held.say("later").await;
    let ended = client.wait(LIMIT).await.unwrap();
    assert!(ended.success(), "{ended} {}", daemon.log());
    assert_eq!(client.stdout(), "firstlater");
    let status = daemon.ended().await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", daemon.log());
    let record = exchange(&daemon, "/draining").await;
    assert_eq!(record["outcome"]["status"], "done", "{record}");
    verified(&lab).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_closes_every_record_in_time() {
    let lab = Lab::new().unwrap();
    let hand = Hand::new(&lab, NAME, address());
    let mut daemon = lab
        .daemon_with(&policy(&[ENTRY]), "shutdown: 1s")
        .await
        .unwrap();
    let _client = start(
        &lab,
        "client",
        &["curl", "--silent", "https://api.lab.example/endless"],
    );
    let mut held = hand.accept().await;
    held.head().await;
    held.say("HTTP/1.1 200 OK\r\n\r\nfirst").await;
    kill_process(pid(daemon.pid()), Signal::TERM).unwrap();
    let status = daemon.ended().await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", daemon.log());
    let record = exchange(&daemon, "/endless").await;
    assert_ne!(record["outcome"]["status"], "done", "{record}");
    assert!(held.ended().await);
    verified(&lab).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_policy_takes_effect_at_once() {
    let lab = Lab::new().unwrap();
    let hand = Hand::new(&lab, NAME, address());
    let _other = lab
        .https(&["other.lab.example"], SocketAddr::new(WORLD_OTHER, 443))
        .unwrap();
    let daemon = lab.daemon(&policy(&[ENTRY, OTHER])).await.unwrap();
    let client = start(
        &lab,
        "client",
        &[
            "curl",
            "--silent",
            "--no-buffer",
            "https://api.lab.example/live",
        ],
    );
    let mut held = hand.accept().await;
    held.head().await;
    held.say("HTTP/1.1 200 OK\r\n\r\nfirst").await;
    wait_until("the first bytes", LIMIT, || client.stdout() == "first")
        .await
        .unwrap();

    // A bad policy changes nothing and is said.
    daemon
        .replace_policy("version: 1\nservers: { demo: { nonsense: true } }\n")
        .unwrap();
    wait_for("status tells of the bad policy", LIMIT, async || {
        let status = daemon.status().await.ok()?;
        let policy = status["status"]["policy"].to_string();
        policy
            .contains("nonsense")
            .then(|| assert!(policy.contains("\"generation\":1"), "{policy}"))
    })
    .await
    .unwrap_or_else(|error| panic!("{error}"));
    held.say("second").await;
    wait_until("the connection lives on", LIMIT, || {
        client.stdout() == "firstsecond"
    })
    .await
    .unwrap();

    // The destination goes: the live connection is cut within 100 ms of the rename, the other stays.
    let began = Instant::now();
    daemon.replace_policy(&policy(&[OTHER])).unwrap();
    assert!(
        held.ended().await,
        "the connection of a removed destination lives on"
    );
    let took = began.elapsed();
    let told = curl(&lab, &["https://api.lab.example/after"]).await;
    assert_eq!(told.exit, 6, "{told:?}");
    let told = curl(&lab, &["https://other.lab.example/echo"]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let record = exchange(&daemon, "/live").await;
    assert_ne!(record["outcome"]["status"], "done", "{record}");
    assert!(took < Duration::from_millis(500), "{took:?}");
    println!("cut after {took:?}");

    // SIGHUP reads the files anew, even where no change was seen.
    let place = lab.directory().join("policy.d/10-test.yaml");
    fs::write(&place, policy(&[ENTRY, OTHER])).unwrap();
    kill_process(pid(daemon.pid()), Signal::HUP).unwrap();
    let client = start(
        &lab,
        "again",
        &[
            "sh",
            "-c",
            "until curl --silent https://api.lab.example/again; do sleep 0.1; done",
        ],
    );
    let mut held = hand.accept().await;
    held.head().await;
    held.say("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nback")
        .await;
    wait_until("allowed again", LIMIT, || client.stdout() == "back")
        .await
        .unwrap();
}

/// Runs a daemon that cannot start and returns its one sentence.
async fn fails(mut command: Command) -> String {
    let done = run(&mut command, LIMIT).await.unwrap();
    assert_eq!(
        done.status.code(),
        Some(2),
        "{} {}",
        done.stdout,
        done.stderr
    );
    let said = done.stderr.trim();
    assert!(said.starts_with("exeat: "), "{said}");
    said.to_owned()
}

fn with_config(lab: &Lab, name: &str, change: impl Fn(&str) -> String) -> Command {
    let text = fs::read_to_string(lab.directory().join("exeat.yaml")).unwrap();
    let path = lab.directory().join(name);
    fs::write(&path, change(&text)).unwrap();
    let mut command = lab.inside.command(binary().unwrap());
    command.arg("daemon").arg("--config").arg(path);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_start_says_why_in_a_sentence() {
    let lab = Lab::new().unwrap();
    let daemon = lab.daemon(&policy(&[ENTRY])).await.unwrap();
    let holder = daemon.pid().to_string();

    let said = fails(with_config(&lab, "same.yaml", str::to_owned)).await;
    assert!(said.contains(&holder), "{said}");
    let elsewhere = |key: &str, value: &str| {
        let (key, value) = (key.to_owned(), value.to_owned());
        move |text: &str| {
            let line = text
                .lines()
                .find(|line| line.starts_with(&key))
                .unwrap()
                .to_owned();
            text.replace(&line, &format!("{key} {value}"))
        }
    };
    let run_dir = format!("{}/run2", lab.directory().display());
    let said = fails(with_config(
        &lab,
        "pins.yaml",
        elsewhere("run_dir:", &run_dir),
    ))
    .await;
    assert!(said.contains(&holder), "the pins' holder: {said}");
    println!("{said}");
    let said = fails(with_config(&lab, "user.yaml", |text| {
        elsewhere("gate:", "{ user: no-such-user }")(text)
            .replace("/run\n", "/run3\n")
            .replace("bpffs: /sys/fs/bpf/", "bpffs: /sys/fs/bpf/x")
    }))
    .await;
    assert!(said.contains("no-such-user"), "{said}");
    println!("{said}");
    let said = fails(with_config(&lab, "bad.yaml", |text| {
        format!("{text}\nlimitz: 1\nlimits: {{ body_bytes: x }}\n")
    }))
    .await;
    assert!(
        said.contains("limitz") && said.contains("a size"),
        "every fault at once: {said}"
    );
    println!("{said}");
    let bad = lab.directory().join("bad-policy.yaml");
    fs::write(&bad, "version: 1\nservers: { demo: { nonsense: true } }\n").unwrap();
    let mut command = with_config(&lab, "policy.yaml", |text| {
        text.replace("/run\n", "/run4\n")
    });
    command.arg("--policy").arg(&bad);
    let said = fails(command).await;
    assert!(said.contains("bad-policy.yaml:2:"), "{said}");
    println!("{said}");
    let mut nobody = lab.inside.command("setpriv");
    let own = lab.directory().join("exeat-copy");
    fs::copy(binary().unwrap(), &own).unwrap();
    nobody
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(own)
        .arg("daemon");
    nobody
        .arg("--config")
        .arg(lab.directory().join("exeat.yaml"));
    let said = fails(nobody).await;
    assert!(said.contains("root"), "{said}");
    println!("{said}");
    assert_eq!(
        daemon.status().await.unwrap()["status"]["supervisor"]["pid"],
        daemon.pid(),
        "the first daemon is unharmed"
    );
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
    let asking = start(&lab, "asking", &["sh", "-c", LOOP]);
    answers(&asking, "200").await;
    let filler = state.join("filler");
    fill(&filler);
    // The kept connection is told why; who would begin another is refused.
    answers(&kept, "503").await;
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
    drop((kept, asking));
    let told = curl(&lab, &["https://api.lab.example/echo?again"]).await;
    assert_eq!(told.status, 200, "{told:?}");
    exchange(&daemon, "/echo?again").await;
    verified(&lab).await;
    wait_until("the workloads are gone", LIMIT, || {
        let records = daemon.audit().unwrap();
        let done = records
            .iter()
            .filter(|record| record["http"]["status"] == 200)
            .count();
        done == server.seen().len()
    })
    .await
    .unwrap();
    let sent = server.seen().len();
    let records = daemon.audit().unwrap();
    let done = records
        .iter()
        .filter(|record| record["http"]["status"] == 200)
        .count();
    assert_eq!(done, sent, "what was sent was recorded");
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
async fn what_goes_by_unread_is_cut_too() {
    let lab = Lab::new().unwrap();
    let echo = lab.echo(SocketAddr::new(LAN, 5432)).unwrap();
    lab.dns.points("db.lab.example", &[WORLD]);
    let named = lab.echo(SocketAddr::new(WORLD, 5432)).unwrap();
    let range = "{ cidr: 10.78.0.0/16, ports: [5432], protocol: tcp }";
    let name = "{ host: db.lab.example, ports: [5432], protocol: tcp }";
    let daemon = lab.daemon(&policy(&[range, name])).await.unwrap();
    let python = Fixtures::find().unwrap().python(2);
    let python = python.to_str().unwrap();
    let lan = LAN.to_string();
    let by_range = start(&lab, "range", &[python, "-c", TALK, &lan]);
    let by_name = start(&lab, "name", &[python, "-c", TALK, "db.lab.example"]);
    let talks = |process: &Process| process.stdout().contains("x5");
    for process in [&by_range, &by_name] {
        wait_until("it talks", LIMIT, || talks(process))
            .await
            .unwrap();
    }
    daemon.replace_policy(&policy(&[name])).unwrap();
    wait_until("the range is cut", LIMIT, || {
        by_range.stdout().contains("end")
    })
    .await
    .unwrap();
    wait_until("the range is refused", LIMIT, || {
        by_range.stdout().contains("ConnectionRefused")
    })
    .await
    .unwrap();
    assert!(
        !by_name.stdout().contains("end"),
        "the name was not touched"
    );
    daemon.replace_policy(&policy(&[])).unwrap();
    wait_until("the name is cut", LIMIT, || {
        by_name.stdout().contains("end")
    })
    .await
    .unwrap();
    assert_eq!((echo.got().len(), named.got().len()), (1, 1));
    daemon
        .record("the cut", |record| {
            record["tcp"]["address"] == lan
                && record["outcome"]["error"]
                    .as_str()
                    .is_some_and(|why| why.contains("cut"))
        })
        .await
        .unwrap();
}

/// Talks to an echo until it ends, then tries once more.
const TALK: &str = "import socket,sys,time
where=(socket.getaddrinfo(sys.argv[1],5432,socket.AF_INET)[0][4])
s=socket.create_connection(where)
n=0
try:
  while True:
    s.sendall(b'x%d'%n); got=s.recv(64)
    if not got: break
    print(got.decode(),flush=True); n+=1; time.sleep(0.05)
except OSError: pass
print('end',flush=True)
try: socket.create_connection(where); print('again',flush=True)
except OSError as e: print(type(e).__name__,flush=True)
time.sleep(60)";

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
    let numbers: Vec<u64> = records
        .iter()
        .map(|record| record["seq"].as_u64().unwrap())
        .collect();
    assert!(
        numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "gapless"
    );
    verified(&lab).await;
}
