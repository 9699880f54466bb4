//! Disconnecting a server: cut off in the kernel at once, its callers told, until it is reconnected.

use std::net::SocketAddr;

use exeat_tests::Lab;
use exeat_tests::cgroup::Cgroup;
use exeat_tests::daemon::Daemon;
use exeat_tests::fixtures::Fixtures;
use exeat_tests::lab::WORLD;
use exeat_tests::process::run;
use exeat_tests::wait::wait_until;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::place::{DEMO, LIMIT, foreign, foreign_policy};
use crate::serving::{Serving, Told, call, curl, user};

const URL: &str = "http://127.0.0.1:3001/mcp";
const RULES: &str =
    "{ id: all, who: [staff, agent], servers: [notes], tools: [\"*\"], effect: allow }";

/// What a caller of a disconnected server is told.
fn is_told(told: &Told) -> bool {
    let answer = told.json();
    told.exit == 0
        && told.status == "200"
        && answer["id"] == 7
        && answer["error"]["data"]["reason"] == "server_disconnected"
        && answer["error"]["message"]
            .as_str()
            .is_some_and(|message| message.contains("disconnected"))
}

/// What a call that makes the server dial `WORLD` says of that.
fn dialled(told: &Told) -> Value {
    let answer = told.json();
    let text = answer["result"]["content"][0]["text"].as_str();
    let said: Value = serde_json::from_str(text.unwrap_or("{}")).unwrap();
    said["dialled"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disconnected_server_reaches_nobody_and_nobody_reaches_it() {
    let lab = Lab::new().unwrap();
    let _echo = lab.echo(SocketAddr::new(WORLD, 9000)).unwrap();
    let mut serving = Serving::new(&lab);
    let egress = format!("{{ cidr: {WORLD}/32, ports: [9000], protocol: tcp }}");
    let policy = serving.policy("127.0.0.1:3001", RULES, &egress);
    let mut daemon = lab.daemon(&policy).await.unwrap();
    serving.start(&lab, "127.0.0.1", 3001).await;
    let dial = json!({ "dial": [WORLD.to_string(), 9000] });
    let worked = call(serving.hosted(&lab), URL, dial.clone()).await;
    assert_eq!(dialled(&worked), "OK", "{worked:?}");

    // Not for anybody but root.
    let other = lab.exeat(&["servers", "disconnect", "notes"]).unwrap();
    let mut as_guest = user(&lab, "bin");
    as_guest.arg(exeat_tests::daemon::binary().unwrap());
    as_guest.args(
        other
            .get_args()
            .skip_while(|argument| *argument != "servers"),
    );
    let refused = run(&mut as_guest, LIMIT).await.unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let absent = daemon
        .cli(&["servers", "disconnect", "absent"])
        .await
        .unwrap();
    assert_eq!(absent.status.code(), Some(1), "{absent:?}");

    // A call is in flight, of the host and of a user.
    let hosted = call(serving.hosted(&lab), URL, json!({ "seconds": 15 }));
    let users = call(user(&lab, "root"), URL, json!({ "seconds": 15 }));
    let reached = serving.requests().len();
    let cut = async {
        wait_until("both calls are at the server", LIMIT, || {
            serving.requests().len() == reached + 2
        })
        .await
        .unwrap();
        let begun = Instant::now();
        let done = daemon
            .cli(&["servers", "disconnect", "notes", "--reason", "leaks tokens"])
            .await
            .unwrap();
        (begun, done)
    };
    let (hosted, users, (begun, done)) = tokio::join!(hosted, users, cut);
    assert!(begun.elapsed().as_secs() < 8, "{:?}", begun.elapsed());
    assert!(done.status.success(), "{done:?}");
    assert_eq!(done.json().unwrap()["state"], "disconnected", "{done:?}");
    assert_eq!(done.json().unwrap()["workloads"], 1, "{done:?}");
    assert!(is_told(&hosted), "{hosted:?}");
    assert!(is_told(&users), "{users:?}");

    let gone = async |daemon: &Daemon<'_>| {
        let reached = serving.requests().len();
        let begun = Instant::now();
        let later = [
            call(serving.hosted(&lab), URL, json!({})).await,
            call(user(&lab, "root"), URL, json!({})).await,
        ];
        assert!(later.iter().all(is_told), "{later:?}");
        let stream = curl(serving.hosted(&lab), &[URL]).await;
        assert_eq!(
            (stream.exit, stream.status.as_str()),
            (0, "403"),
            "{stream:?}"
        );
        assert_eq!(
            stream.json()["error"]["code"],
            "server_disconnected",
            "{stream:?}"
        );
        // Its processes are refused at once, by TCP and UDP and for names.
        let script = format!(
            "import json, socket
r = []
for kind, address in ((1, ('{WORLD}', 9000)), (1, ('127.0.0.1', 22)), (2, ('10.77.0.53', 53))):
    s = socket.socket(socket.AF_INET, kind); s.settimeout(5)
    try: s.connect(address); r.append('OK')
    except OSError as e: r.append(type(e).__name__)
print(json.dumps(r))"
        );
        let mut command = serving.server.launcher(lab.inside.command("env"));
        let done = run(command.args(["/usr/bin/python3", "-c", &script]), LIMIT)
            .await
            .unwrap();
        assert_eq!(
            done.json().unwrap(),
            json!([
                "ConnectionRefusedError",
                "ConnectionRefusedError",
                "ConnectionRefusedError"
            ]),
            "{done:?}"
        );
        assert!(begun.elapsed().as_secs() < 15);
        assert_eq!(serving.requests().len(), reached);
        let servers = daemon.cli(&["servers"]).await.unwrap().json().unwrap();
        let word = &servers[0]["disconnected"];
        assert_eq!(word["by"], "root", "{servers}");
        assert_eq!(word["reason"], "leaks tokens", "{servers}");
        let status = daemon.status().await.unwrap();
        assert_eq!(status["disconnected"][0]["server"], "notes", "{status}");
    };
    gone(&daemon).await;
    let event = daemon
        .record("the order", |record| {
            record["lifecycle"]["event"] == "server_disconnected"
        })
        .await
        .unwrap();
    assert_eq!(event["identity"]["user"], "root", "{event}");
    assert_eq!(
        event["lifecycle"]["detail"], "notes: leaks tokens",
        "{event}"
    );
    daemon
        .record("a refused call", |record| {
            record["mcp"]["method"] == "tools/call"
                && record["decision"]["reason"] == "the server is disconnected"
                && record["decision"]["effect"] == "deny"
        })
        .await
        .unwrap();
    let kernel = daemon
        .record("a refused connect", |record| {
            record["kind"] == "tcp"
                && record["tcp"]["port"] == 9000
                && record["outcome"]["status"] == "refused"
        })
        .await
        .unwrap();
    assert!(
        kernel["decision"]["reason"]
            .as_str()
            .unwrap()
            .contains("disconnected"),
        "{kernel}"
    );

    // It holds over the gate's death and the daemon's.
    let gate = daemon.status().await.unwrap()["gate"]["pid"]
        .as_u64()
        .unwrap();
    exeat_tests::process::must("kill", &["-9", &gate.to_string()]).unwrap();
    daemon
        .record("the next gate", |record| {
            record["finding"]["what"] == "gate_restarted"
        })
        .await
        .unwrap();
    gone(&daemon).await;
    daemon.kill().await.unwrap();
    daemon.restart().await.unwrap();
    gone(&daemon).await;

    let done = daemon
        .cli(&["servers", "reconnect", "notes"])
        .await
        .unwrap();
    assert_eq!(done.json().unwrap()["state"], "connected", "{done:?}");
    let worked = call(serving.hosted(&lab), URL, dial).await;
    assert_eq!(dialled(&worked), "OK", "{worked:?}");
    let again = daemon
        .cli(&["servers", "reconnect", "notes"])
        .await
        .unwrap();
    assert_eq!(again.status.code(), Some(1), "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_lets_calls_in_flight_end_and_no_others_begin() {
    let lab = Lab::new().unwrap();
    let _echo = lab.echo(SocketAddr::new(WORLD, 9000)).unwrap();
    let mut serving = Serving::new(&lab);
    let egress = format!("{{ cidr: {WORLD}/32, ports: [9000], protocol: tcp }}");
    let policy = serving.policy("127.0.0.1:3001", RULES, &egress);
    let daemon = lab.daemon(&policy).await.unwrap();
    serving.start(&lab, "127.0.0.1", 3001).await;
    // It still needs its way out when the drain has begun.
    let work = json!({ "seconds": 4, "dial": [WORLD.to_string(), 9000] });
    let long = call(serving.hosted(&lab), URL, work);
    let drain = async {
        wait_until("the call is at the server", LIMIT, || {
            !serving.requests().is_empty()
        })
        .await
        .unwrap();
        let done = daemon
            .cli(&[
                "servers",
                "disconnect",
                "notes",
                "--drain",
                "--within",
                "60",
            ])
            .await
            .unwrap();
        assert_eq!(done.json().unwrap()["state"], "draining", "{done:?}");
        call(user(&lab, "root"), URL, json!({})).await
    };
    let (long, refused) = tokio::join!(long, drain);
    assert_eq!(dialled(&long), "OK", "{long:?}");
    assert!(is_told(&refused), "{refused:?}");
    assert_eq!(serving.requests().len(), 1);
    // Drained, it is cut off long before its minute is over.
    let mut command = serving.server.launcher(lab.inside.command("env"));
    command.args([
        "/usr/bin/python3",
        "-c",
        "import socket, time
for n in range(200):
    u = socket.socket(2, 2)
    try: u.connect(('10.77.0.53', 53))
    except ConnectionRefusedError: print('{\"cut\": true}'); break
    time.sleep(0.1)",
    ]);
    let done = run(&mut command, LIMIT).await.unwrap();
    assert_eq!(done.json().unwrap()["cut"], true, "{done:?}");

    // What takes longer than it may is told so.
    daemon
        .cli(&["servers", "reconnect", "notes"])
        .await
        .unwrap();
    let long = call(serving.hosted(&lab), URL, json!({ "seconds": 18 }));
    let drain = async {
        wait_until("the call is at the server", LIMIT, || {
            serving.requests().len() == 2
        })
        .await
        .unwrap();
        daemon
            .cli(&["servers", "disconnect", "notes", "--drain", "--within", "1"])
            .await
            .unwrap()
    };
    let begun = Instant::now();
    let (long, done) = tokio::join!(long, drain);
    assert!(done.status.success(), "{done:?}");
    assert!(is_told(&long), "{long:?}");
    assert!(begun.elapsed().as_secs() < 15, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_server_is_not_even_dialled() {
    let lab = Lab::new().unwrap();
    let name = "mcp.lab.example";
    let remote = lab.https(&[name], SocketAddr::new(WORLD, 443)).unwrap();
    let serving = Serving::new(&lab);
    let cgroup = serving
        .host
        .path()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let policy = format!(
        "version: 1
servers: {{ tracker: {{ purpose: tickets, owner: tests@lab.example, url: \"https://{name}/\" }} }}
hosts: {{ agent: {{ match: {{ cgroup: /{cgroup} }}, servers: [tracker] }} }}
rules: [{{ id: all, who: [agent], servers: [tracker], tools: [\"*\"], effect: allow }}]
"
    );
    let daemon = lab.daemon(&policy).await.unwrap();
    let url = |path: &str| format!("https://{name}{path}");
    let worked = call(serving.hosted(&lab), &url("/mcp"), json!({})).await;
    assert_eq!(worked.status, "200", "{worked:?}");
    assert!(worked.json()["result"].is_object(), "{worked:?}");

    let slow = url("/slow?ms=15000");
    let reached = remote.seen().len();
    let flying = call(serving.hosted(&lab), &slow, json!({}));
    let cut = async {
        wait_until("the call is there", LIMIT, || {
            remote.seen().len() == reached + 1
        })
        .await
        .unwrap();
        let begun = Instant::now();
        daemon
            .cli(&["servers", "disconnect", "tracker"])
            .await
            .unwrap();
        begun
    };
    let (flying, begun) = tokio::join!(flying, cut);
    assert!(is_told(&flying), "{flying:?}");
    assert!(begun.elapsed().as_secs() < 8);
    let wire = lab.wire().unwrap();
    for version in ["--http1.1", "--http2"] {
        let later = call(serving.hosted(&lab), &url("/mcp"), json!({})).await;
        assert!(is_told(&later), "{later:?}");
        let known = curl(
            serving.hosted(&lab),
            &[version, &url("/.well-known/oauth-protected-resource")],
        )
        .await;
        assert_eq!(known.status, "403", "{known:?}");
        assert_eq!(
            known.json()["error"]["code"],
            "server_disconnected",
            "{known:?}"
        );
    }
    assert_eq!(remote.seen().len(), reached + 1);
    assert!(wire.to(WORLD).is_empty(), "the server was dialled");
    daemon
        .cli(&["servers", "reconnect", "tracker"])
        .await
        .unwrap();
    let worked = call(serving.hosted(&lab), &url("/mcp"), json!({})).await;
    assert!(worked.json()["result"].is_object(), "{worked:?}");
}

/// A daemon, and the cgroup of a server that something else starts and that reaches the world by `terms`, unread.
async fn reaches_world<'a>(lab: &'a Lab, what: &str, terms: &str) -> (Cgroup, Daemon<'a>) {
    let name = format!("{}-{what}", lab.name());
    let cgroup = Cgroup::create(&name).unwrap();
    let egress = format!("{{ cidr: {WORLD}/32, {terms} }}");
    let daemon = lab.daemon(&foreign_policy(&name, &[&egress])).await;
    (cgroup, daemon.unwrap())
}

/// Says when it is connected, and when that is over.
const HOLD: &str = r#"import socket, sys
s = socket.create_connection((sys.argv[1], 9000), 20)
s.settimeout(None)
s.sendall(b"x"); s.recv(1); print("up", flush=True)
try: s.recv(1)
except OSError: pass
print("over", flush=True)"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_had_open_ends_with_its_disconnection() {
    let lab = Lab::new().unwrap();
    let echo = lab.echo(SocketAddr::new(WORLD, 9000)).unwrap();
    let (cgroup, daemon) = reaches_world(&lab, "held", "ports: [9000], protocol: tcp").await;
    let (python, world) = (Fixtures::find().unwrap().python(2), WORLD.to_string());
    let program = [python.to_str().unwrap(), "-c", HOLD, &world];
    let held = foreign(&lab, &cgroup, "held", &program);
    wait_until("it is connected", LIMIT, || held.stdout().contains("up"))
        .await
        .unwrap();
    assert!(!held.stdout().contains("over"), "{}", held.stdout());
    let done = daemon.cli(&["servers", "disconnect", DEMO]).await.unwrap();
    assert!(done.status.success(), "{done:?}");
    wait_until("it is over", LIMIT, || held.stdout().contains("over"))
        .await
        .unwrap();
    // Nothing new begins either.
    let again = foreign(&lab, &cgroup, "again", &program);
    wait_until("it is refused", LIMIT, || {
        again.report().contains("Refused") || again.report().contains("not permitted")
    })
    .await
    .unwrap_or_else(|error| panic!("{error}: {}", again.report()));
    assert_eq!(echo.got().len(), 1);
}

/// Sends and hears by one socket, and says how hearing more ends.
const HEAR: &str = r#"import errno, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect((sys.argv[1], 5000)); s.settimeout(20)
s.send(b"x"); s.recv(9); print("up", flush=True)
s.settimeout(None)
try: s.recv(9); print("heard", flush=True)
except OSError as e: print(errno.errorcode[e.errno], flush=True)"#;

/// No gate ends it: it passes none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_passes_no_gate_is_destroyed_by_the_disconnection() {
    let lab = Lab::new().unwrap();
    let there = lab.outside.bind_udp(SocketAddr::new(WORLD, 5000)).unwrap();
    let (cgroup, daemon) = reaches_world(&lab, "hears", "ports: [5000], protocol: udp").await;
    let (python, world) = (Fixtures::find().unwrap().python(2), WORLD.to_string());
    let program = [python.to_str().unwrap(), "-c", HEAR, &world];
    let hears = foreign(&lab, &cgroup, "hears", &program);
    let (_, from) = timeout(LIMIT, there.recv_from(&mut [0; 9]))
        .await
        .unwrap_or_else(|_| panic!("nothing arrived: {}", hears.report()))
        .unwrap();
    there.send_to(b"y", from).await.unwrap();
    wait_until("it is answered", LIMIT, || hears.stdout() == "up\n")
        .await
        .unwrap();
    let done = daemon.cli(&["servers", "disconnect", DEMO]).await.unwrap();
    let told = done.json().unwrap();
    assert_eq!(told["problems"], json!([]), "{told}");
    assert_eq!(told["workloads"], 1, "{told}");
    wait_until("its socket is destroyed", LIMIT, || {
        hears.stdout() == "up\nECONNABORTED\n"
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}: {}", hears.report()));
}
