//! Servers that something else started and that listen on this machine: whoever calls them passes the gate, and
//! nobody gets around it.

use std::net::SocketAddr;
use std::time::Duration;

use exeat_tests::Lab;
use exeat_tests::fixtures::{Client, Fixtures, Server};
use exeat_tests::lab::WORLD;
use exeat_tests::process::{Process, must, run};
use exeat_tests::wait::wait_until;
use serde_json::{Value, json};

use crate::place::LIMIT;
use crate::serving::{Serving, Told, call, curl, user};

const NAME: &str = "api.lab.example";
const URL: &str = "http://127.0.0.1:3001/mcp";
const RULES: &str =
    "{ id: all, who: [staff, agent], servers: [notes], tools: [\"*\"], effect: allow },
  { id: none, servers: [notes], tools: [fail], effect: deny }";

/// curl's statuses: no connection, and no answer in time.
const REFUSED: i32 = 7;
const LATE: i32 = 28;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_clients_in_no_workload_are_decided_and_recorded() {
    let lab = Lab::new().unwrap();
    let _api = lab.https(&[NAME], SocketAddr::new(WORLD, 443)).unwrap();
    let serving = Serving::new(&lab);
    let egress = format!("{{ host: {NAME} }}");
    let policy = serving.policy("127.0.0.1:3001", RULES, &egress);
    let daemon = lab.daemon(&policy).await.unwrap();
    let certificate = daemon.cli(&["ca", "export"]).await.unwrap().json().unwrap();
    let trust = lab.directory().join("exeat-ca.pem");
    std::fs::write(&trust, certificate["pem"].as_str().unwrap()).unwrap();

    let fixtures = Fixtures::find().unwrap();
    let invocation = fixtures
        .server(Server::Ts2)
        .args(["--port", "3001"])
        .variable("NODE_EXTRA_CA_CERTS", &trust);
    let launcher = serving.server.launcher(lab.inside.command("env"));
    let mut process =
        Process::start("notes", lab.directory(), &mut invocation.under(launcher)).unwrap();
    process.ready(Duration::from_secs(20)).await.unwrap();

    for client in [Client::Curl, Client::Httpx, Client::Py1, Client::Py2] {
        let call = fixtures.client(client, URL, "echo", r#"{"message":"through"}"#);
        let done = run(&mut call.under(lab.inside.command("env")), LIMIT)
            .await
            .unwrap();
        let answer = done.json().unwrap();
        assert_eq!(answer["text"], "through", "{client:?}: {answer} {done:?}");
    }
    let called = daemon
        .record("a call of nobody's process", |record| {
            record["mcp"]["method"] == "tools/call" && record["workload"]["kind"] == "unmanaged"
        })
        .await
        .unwrap();
    assert_eq!(called["mcp"]["server"], "notes", "{called}");
    assert_eq!(called["identity"]["user"], "root", "{called}");
    assert_eq!(called["identity"]["verified_by"], "kernel", "{called}");
    assert_eq!(called["decision"]["rule"], "all", "{called}");
    assert!(called["workload"]["pid"].is_number(), "{called}");

    // What the server does then names the call, whoever made it.
    let arguments = json!({ "url": format!("https://{NAME}/echo?by-user") }).to_string();
    let fetch = fixtures.client(Client::Py2, URL, "fetch", &arguments);
    let done = run(&mut fetch.under(lab.inside.command("env")), LIMIT)
        .await
        .unwrap();
    assert_eq!(done.json().unwrap()["isError"], false, "{done:?}");
    let outbound = daemon
        .record("the outbound request", |record| {
            record["http"]["path"] == "/echo?by-user"
        })
        .await
        .unwrap();
    let call = daemon
        .record("its call", |record| {
            record["mcp"]["name"] == "fetch" && record["mcp"]["method"] == "tools/call"
        })
        .await
        .unwrap();
    assert_eq!(outbound["cause"], json!({ "id": call["id"] }), "{outbound}");

    // A rule refuses to it what it refuses to everybody.
    let denied = fixtures.client(Client::Py2, URL, "fail", "{}");
    let done = run(&mut denied.under(lab.inside.command("env")), LIMIT)
        .await
        .unwrap();
    let answer = done.json().unwrap();
    assert!(
        answer["error"]["message"]
            .as_str()
            .is_some_and(|message| message.contains("Unknown tool")),
        "{answer}"
    );
    // And the managed host is served as before.
    let hosted = fixtures.client(Client::Py2, URL, "echo", r#"{"message":"hosted"}"#);
    let done = run(&mut hosted.under(serving.hosted(&lab)), LIMIT)
        .await
        .unwrap();
    assert_eq!(done.json().unwrap()["text"], "hosted", "{done:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_around_the_gate() {
    let lab = Lab::new().unwrap();
    let mut serving = Serving::new(&lab);
    let daemon = lab
        .daemon(&serving.policy("127.0.0.1:3001", RULES, ""))
        .await
        .unwrap();
    // It listens on more than it says.
    serving.start(&lab, "::", 3001).await;
    let staff = || user(&lab, "root");
    let guest = || user(&lab, "bin");

    let answer = call(staff(), URL, json!({})).await;
    assert_eq!(
        (answer.exit, answer.status.as_str()),
        (0, "200"),
        "{answer:?}"
    );
    assert!(answer.json()["result"].is_object(), "{answer:?}");
    let reached = serving.requests().len();
    assert_eq!(reached, 1);

    // A user whom no rule names is answered, with a call and with anything else.
    for answer in [
        call(guest(), URL, json!({})).await,
        curl(guest(), &["http://127.0.0.1:3001/"]).await,
        curl(guest(), &["http://localhost:3001/anything"]).await,
        curl(guest(), &["--ipv6", "http://localhost:3001/anything"]).await,
        curl(guest(), &["http://[::1]:3001/"]).await,
        curl(guest(), &["http://[::ffff:127.0.0.1]:3001/"]).await,
        curl(guest(), &["http://0.0.0.0:3001/"]).await,
        curl(guest(), &["http://127.0.0.2:3001/"]).await,
        curl(guest(), &["http://10.77.0.2:3001/"]).await,
        curl(guest(), &["http://[fd77::2]:3001/"]).await,
        curl(guest(), &["--tcp-fastopen", "http://127.0.0.1:3001/"]).await,
        curl(
            guest(),
            &["--interface", "10.77.0.2", "http://127.0.0.1:3001/"],
        )
        .await,
    ] {
        assert_eq!(answer.exit, 0, "{answer:?}");
        assert!(
            ["403", "421"].contains(&answer.status.as_str()),
            "{answer:?}"
        );
    }
    // Nor does one whom a rule names reach what the register does not say.
    let answer = curl(staff(), &["http://10.77.0.2:3001/"]).await;
    assert!(
        ["403", "421"].contains(&answer.status.as_str()),
        "{answer:?}"
    );
    // From outside the machine there is no server.
    let abroad = lab.outside.command("env");
    let answer = curl(
        abroad,
        &["--connect-timeout", "3", "http://10.77.0.2:3001/"],
    )
    .await;
    assert_eq!(answer.exit, LATE, "{answer:?}");
    assert_eq!(
        serving.requests().len(),
        reached,
        "{:?}",
        serving.requests()
    );
    let refused = daemon
        .record("a refused user", |record| {
            record["workload"]["kind"] == "unmanaged" && record["identity"]["user"] == "bin"
        })
        .await
        .unwrap();
    assert_eq!(refused["decision"]["effect"], "deny", "{refused}");
    daemon
        .record("the dropped packet", |record| {
            record["finding"]["what"] == "ingress_drop"
        })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_gate_or_the_daemon_dead_the_server_is_unreachable() {
    let lab = Lab::new().unwrap();
    let mut serving = Serving::new(&lab);
    let policy = serving.policy("127.0.0.1:3001", RULES, "");
    let mut daemon = lab.daemon(&policy).await.unwrap();
    serving.start(&lab, "127.0.0.1", 3001).await;
    let ask = async |name: &str| call(user(&lab, name), URL, json!({})).await;
    assert_eq!(ask("root").await.status, "200");

    // The guest meets a refusal or nothing, in every moment of a gate's death and its successor's birth.
    let gate = |status: &Value| status["gate"]["pid"].as_u64();
    let first = gate(&daemon.status().await.unwrap()).unwrap();
    must("kill", &["-9", &first.to_string()]).unwrap();
    for _ in 0..10 {
        let answer = ask("bin").await;
        let closed = answer.exit != 0 || answer.status == "403";
        assert!(closed, "{answer:?}");
    }
    wait_until("the next gate serves", LIMIT, || {
        daemon
            .audit()
            .unwrap()
            .iter()
            .any(|record| record["finding"]["what"] == "gate_restarted")
    })
    .await
    .unwrap();
    assert_eq!(ask("root").await.status, "200");
    let reached = serving.requests().len();

    daemon.kill().await.unwrap();
    let mut last = ask("root").await;
    // The gate ends with its supervisor, in order.
    for _ in 0..50 {
        if last.exit == REFUSED {
            break;
        }
        last = ask("root").await;
    }
    assert_eq!(last.exit, REFUSED, "{last:?}");
    let before = serving.requests().len();
    assert_eq!(ask("root").await.exit, REFUSED);
    assert_eq!(ask("bin").await.exit, REFUSED);
    assert_eq!(serving.requests().len(), before);
    assert!(before >= reached);

    daemon.restart().await.unwrap();
    assert_eq!(ask("root").await.status, "200", "the server was not harmed");
    assert_eq!(ask("bin").await.status, "403");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_adds_and_removes_a_server_and_uninstall_leaves_nothing() {
    let lab = Lab::new().unwrap();
    let mut serving = Serving::new(&lab);
    // It runs before it is registered, and anybody reaches it.
    serving.start(&lab, "127.0.0.1", 3001).await;
    let none = "version: 1\nidentities: { staff: { user: root } }\n";
    let mut daemon = lab.daemon(none).await.unwrap();
    let ask = async |name: &str| curl(user(&lab, name), &[URL]).await;
    let open = |told: &Told| told.status == "200" && told.body == "open";
    assert!(open(&ask("bin").await));

    daemon
        .replace_policy(&serving.policy("127.0.0.1:3001", RULES, ""))
        .unwrap();
    until("the guest is refused", async || {
        ask("bin").await.status == "403"
    })
    .await;
    until("staff is served", async || {
        call(user(&lab, "root"), URL, json!({})).await.status == "200"
    })
    .await;

    // What is not in the register is refused, and its processes stay under control.
    daemon.replace_policy(none).unwrap();
    until("nobody is served", async || {
        let told = call(user(&lab, "root"), URL, json!({})).await;
        told.exit == 0 && told.status == "403"
    })
    .await;
    assert!(!open(&ask("bin").await));
    daemon
        .replace_policy(&serving.policy("127.0.0.1:3001", RULES, ""))
        .unwrap();
    until("staff is served again", async || {
        call(user(&lab, "root"), URL, json!({})).await.status == "200"
    })
    .await;

    daemon.stop().await.unwrap();
    let done = daemon.cli(&["uninstall"]).await.unwrap();
    assert!(done.status.success(), "{done:?}");
    let pins = std::path::Path::new("/sys/fs/bpf").join(lab.name());
    let left = std::fs::read_dir(&pins).map_or(0, Iterator::count);
    assert_eq!(left, 0, "{}", pins.display());
    assert!(open(&ask("bin").await), "free again");
}

/// Waits until an answer is as it should be.
async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let mut last = false;
    for _ in 0..60 {
        last = holds().await;
        if last {
            break;
        }
    }
    assert!(last, "{what}");
}
