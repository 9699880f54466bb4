//! The daemon's life: killed, restarted, reloaded, stopped, refused. What is managed reaches nothing meanwhile.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use exeat_tests::Lab;
use exeat_tests::cgroup::Cgroup;
use exeat_tests::fixtures::Fixtures;
use exeat_tests::lab::{LAN, WORLD, WORLD_OTHER};
use exeat_tests::process::{Process, run};
use exeat_tests::wait::{wait_for, wait_until};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::hand::Hand;
use crate::place::{curl, exchange, foreign, foreign_policy, policy, start};
use crate::streams::gate;

const NAME: &str = "api.lab.example";
const ENTRY: &str = "{ host: api.lab.example }";
const OTHER: &str = "{ host: other.lab.example }";
const LIMIT: Duration = Duration::from_secs(30);

/// A workload that asks again and again, a line for each answer: its status, or 0.
const LOOP: &str = "while :; do curl --silent --max-time 5 --output /dev/null --write-out '%{http_code}\\n' \
    https://api.lab.example/echo; sleep 0.05; done";

/// A workload that asks until its connection is refused.
const LATE: &str = "while :; do curl --silent --max-time 2 --output /dev/null https://api.lab.example/late; \
    code=$?; echo $code; [ $code = 7 ] && exec echo refused; done";

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
pub(crate) async fn answers(process: &Process, status: &str) {
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
    // What `exeat run` starts ends with the gate that read its streams, so this one is somebody else's.
    let name = format!("{}-loop", lab.name());
    let cgroup = Cgroup::create(&name).unwrap();
    let policy = foreign_policy(&name, &[ENTRY]);
    let mut daemon = lab.daemon(&policy).await.unwrap();
    let workload = foreign(&lab, &cgroup, "loop", &["sh", "-c", LOOP]);
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
pub(crate) async fn verified(lab: &Lab) {
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
    let mut daemon = lab
        .daemon_with(&policy(&[ENTRY]), "shutdown: 1m")
        .await
        .unwrap();
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
    let late = start(&lab, "late", &["sh", "-c", LATE]);
    wait_until("it is served by now", LIMIT, || {
        late.stdout().contains("28")
    })
    .await
    .unwrap();
    let supervisor = pid(daemon.pid());
    kill_process(supervisor, Signal::TERM).unwrap();
    // Names resolve and new connections are refused (7) without a wait (28), while this exchange goes on.
    wait_until("a new connection is refused", LIMIT, || {
        late.stdout().contains("refused")
    })
    .await
    .unwrap_or_else(|error| panic!("{error}: {}", late.stdout()));
    held.say("later").await;
    client.wait(LIMIT).await.unwrap();
    // Whether the client came to its own end or was ended after its exchange is a matter of microseconds.
    assert_eq!(client.stdout(), "firstlater", "{}", daemon.log());
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
        let policy = status["policy"].to_string();
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

    // The destination goes: the live connection is cut, the other stays. How soon is measured (`reload` of the bench).
    daemon.replace_policy(&policy(&[OTHER])).unwrap();
    assert!(
        held.ended().await,
        "the connection of a removed destination lives on"
    );
    let told = curl(&lab, &["https://api.lab.example/after"]).await;
    assert_eq!(told.exit, 6, "{told:?}");
    let told = curl(&lab, &["https://other.lab.example/echo"]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let record = exchange(&daemon, "/live").await;
    assert_ne!(record["outcome"]["status"], "done", "{record}");

    // SIGHUP reads the files anew, even where no change was seen: the file has another name, in a directory that
    // nobody watches.
    let elsewhere = lab.directory().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let place = lab.directory().join("policy.d/10-test.yaml");
    let unseen = elsewhere.join("policy.yaml");
    fs::hard_link(&place, &unseen).unwrap();
    fs::write(&unseen, policy(&[ENTRY, OTHER])).unwrap();
    assert_eq!(fs::read_to_string(&place).unwrap(), policy(&[ENTRY, OTHER]));
    // By each exchange after it, the policy is the old one: what is refused is, and what is allowed is by it.
    let told = curl(&lab, &["https://api.lab.example/unseen"]).await;
    assert_eq!(told.exit, 6, "a change that no watch sees: {told:?}");
    let told = curl(&lab, &["https://other.lab.example/echo?unseen"]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let generation = async || {
        daemon.status().await.unwrap()["policy"]["generation"]
            .as_u64()
            .unwrap()
    };
    let before = generation().await;
    let record = exchange(&daemon, "/echo?unseen").await;
    assert_eq!(record["decision"]["generation"], before, "{record}");
    daemon.reload().unwrap();
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
    let record = exchange(&daemon, "/again").await;
    assert_eq!(record["decision"]["generation"], before + 1, "{record}");
    assert_eq!(generation().await, before + 1);
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

/// Equal refusals share a record within a second, and the last second is the daemon's last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_counted_to_the_end() {
    let lab = Lab::new().unwrap();
    let mut daemon = lab.daemon(&policy(&[ENTRY])).await.unwrap();
    let python = Fixtures::find().unwrap().python(2);
    let lan = LAN.to_string();
    let client = start(
        &lab,
        "refused",
        &[python.to_str().unwrap(), "-c", REFUSED, &lan],
    );
    wait_until("it was refused", LIMIT, || client.stdout().contains("done"))
        .await
        .unwrap();
    daemon.stop().await.unwrap();
    let records = daemon.audit().unwrap();
    let refusals = records
        .iter()
        .filter(|record| record["tcp"]["port"] == 5555);
    // The first is a record of its own.
    let counts = refusals.map(|record| record["finding"]["count"].as_u64().unwrap_or(1));
    assert_eq!(counts.sum::<u64>(), 9);
}

/// Connects nine times to where it may not.
const REFUSED: &str = "import socket,sys,time
for _ in range(9):
  try: socket.create_connection((sys.argv[1],5555)); print('connected',flush=True)
  except ConnectionRefusedError: pass
print('done',flush=True)
time.sleep(60)";

/// What goes by without the gate, and to a cgroup whose number the next daemon finds in the kernel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_daemon_opened_is_shut_by_the_next() {
    let lab = Lab::new().unwrap();
    let _there = lab.outside.bind_udp(SocketAddr::new(LAN, 5000)).unwrap();
    let name = format!("{}-sends", lab.name());
    let cgroup = Cgroup::create(&name).unwrap();
    let range = "{ cidr: 10.78.0.0/16, ports: [5000], protocol: udp }";
    let mut daemon = lab.daemon(&foreign_policy(&name, &[range])).await.unwrap();
    let python = Fixtures::find().unwrap().python(2);
    let lan = LAN.to_string();
    let sender = foreign(
        &lab,
        &cgroup,
        "sends",
        &[python.to_str().unwrap(), "-c", SEND, &lan],
    );
    wait_until("it sends", LIMIT, || lines(&sender).contains(&"OK".into()))
        .await
        .unwrap();

    // Another policy: that server's range is gone, or the cgroup is nobody's.
    let without = foreign_policy(&name, &[ENTRY]);
    let elsewhere = foreign_policy("elsewhere", &[range]);
    for policy in [without, elsewhere] {
        daemon.stop().await.unwrap();
        fs::write(lab.directory().join("policy.d/10-test.yaml"), policy).unwrap();
        daemon.restart().await.unwrap();
        let from = lines(&sender).len();
        wait_until("it tried again", LIMIT, || lines(&sender).len() > from + 3)
            .await
            .unwrap();
        let tried = lines(&sender).split_off(from + 1);
        assert!(tried.iter().all(|said| said == "111"), "{tried:?}");
    }
}

/// Sends a packet now and then, and says how that went.
const SEND: &str = "import socket,sys,time
while True:
  try:
    socket.socket(socket.AF_INET,socket.SOCK_DGRAM).sendto(b'x',(sys.argv[1],5000)); print('OK',flush=True)
  except OSError as e: print(e.errno,flush=True)
  time.sleep(0.05)";

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

/// Asks by one connection, again and again, until that is closed; by another until it is answered at all.
const ASKS: &str = r#"import socket,struct,sys,time
name=b"".join(bytes([len(l)])+l.encode() for l in sys.argv[1].split("."))+b"\0"
query=struct.pack(">HHHHHH",1,0x100,1,0,0,0)+name+struct.pack(">HH",1,1)
answered=False
while not answered:
  try:
    s=socket.create_connection((sys.argv[2],53),5)
    while True:
      s.sendall(struct.pack(">H",len(query))+query)
      if not s.recv(4096): break
      answered=True; print("answered",flush=True); time.sleep(1)
  except OSError as e: print(e,flush=True)
  time.sleep(.1)
print("closed",flush=True)"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_waits_for_no_further_query() {
    let lab = Lab::new().unwrap();
    lab.dns.points(NAME, &[WORLD]);
    let name = format!("{}-asks", lab.name());
    let cgroup = Cgroup::create(&name).unwrap();
    let policy = foreign_policy(&name, &[ENTRY]);
    let mut daemon = lab.daemon_with(&policy, "shutdown: 10m").await.unwrap();
    let server = WORLD.to_string();
    let program = ["/usr/bin/python3", "-c", ASKS, NAME, &server];
    let client = foreign(&lab, &cgroup, "asks", &program);
    wait_until("it is answered", LIMIT, || {
        client.stdout().contains("answered")
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}: {}", client.report()));
    kill_process(pid(daemon.pid()), Signal::TERM).unwrap();
    let status = daemon.ended().await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", daemon.log());
    wait_until("it is closed", LIMIT, || {
        client.stdout().ends_with("closed\n")
    })
    .await
    .unwrap();
}
