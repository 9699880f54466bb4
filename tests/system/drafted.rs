//! A policy drafted from what was recorded: it passes, decides the same of it, and in force allows no more.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use exeat_tests::Lab;
use exeat_tests::cgroup::Cgroup;
use exeat_tests::fixtures::{Client, Fixtures, Server};
use exeat_tests::lab::WORLD;
use exeat_tests::process::{Process, run};
use serde_json::json;

use crate::cause::{pem, policy};
use crate::place::LIMIT;
use crate::tokens::Issuer;
use crate::working;

const NAME: &str = "api.lab.example";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_seen_passes_and_nothing_else() {
    let lab = Lab::new().unwrap();
    let api = lab.https(&[NAME], SocketAddr::new(WORLD, 443)).unwrap();
    let (server, host) = (
        format!("{}-server", lab.name()),
        format!("{}-host", lab.name()),
    );
    let serving = Cgroup::create(&server).unwrap();
    let hosting = Cgroup::create(&host).unwrap();
    let daemon = lab.daemon(&policy(&server, &host)).await.unwrap();
    let ca = daemon.cli(&["ca", "export"]).await.unwrap();
    let trust = lab.directory().join("exeat-ca.pem");
    fs::write(&trust, pem(&ca.stdout)).unwrap();
    let fixtures = Fixtures::find().unwrap();
    let invocation = fixtures
        .server(Server::Ts2)
        .args(["--port", "3001"])
        .variable("NODE_EXTRA_CA_CERTS", &trust);
    let launcher: Command = serving.launcher(lab.inside.command("env"));
    let mut process =
        Process::start("notes", lab.directory(), &mut invocation.under(launcher)).unwrap();
    process.ready(Duration::from_secs(20)).await.unwrap();
    let call = |tool: &str, path: &str| {
        let arguments = json!({ "url": format!("https://{NAME}{path}") }).to_string();
        let client = fixtures.client(Client::Httpx, "http://127.0.0.1:3001/mcp", tool, &arguments);
        client.under(hosting.launcher(lab.inside.command("env")))
    };
    let done = run(&mut call("fetch", "/echo?one"), LIMIT).await.unwrap();
    assert_eq!(done.json().unwrap()["isError"], false, "{}", done.stdout);
    daemon
        .record("the outbound request", |record| {
            record["http"]["path"] == "/echo?one"
        })
        .await
        .unwrap();

    let base = lab.directory().join("policy.d");
    let draft = lab.directory().join("drafted.yaml");
    let (base, draft) = (base.to_str().unwrap(), draft.to_str().unwrap());
    let arguments = [
        "policy", "draft", "--policy", base, "--since", "1h", "--output", draft,
    ];
    let done = daemon.cli(&arguments).await.unwrap();
    let text = fs::read_to_string(draft).unwrap_or_else(|error| panic!("{error}: {}", done.stderr));
    assert!(
        text.contains("methods: [\"GET\"], paths: [\"/echo\"]"),
        "{text}"
    );
    assert!(
        text.contains("tools: [\"fetch\"]") && text.contains("field: \"/url\", type: string"),
        "{text}"
    );
    let again = daemon.cli(&arguments).await.unwrap();
    assert!(
        again.stderr.contains("exists"),
        "a draft replaces nothing: {}",
        again.stderr
    );
    let checked = daemon.cli(&["policy", "check", draft]).await.unwrap();
    assert!(checked.status.success(), "{}\n{text}", checked.stdout);
    let compared = daemon.cli(&["policy", "diff", base, draft]).await.unwrap();
    let compared = compared.json().unwrap();
    assert_eq!(compared["changed"], 0, "{compared}\n{text}");
    assert!(compared["replayed"].as_u64() > Some(3), "{compared}");

    daemon.put_in_force(&text).await.unwrap();
    let done = run(&mut call("fetch", "/echo?two"), LIMIT).await.unwrap();
    assert_eq!(
        done.json().unwrap()["isError"],
        false,
        "{}\n{text}",
        done.stdout
    );
    let seen = api.seen().len();
    let done = run(&mut call("fetch", "/other"), LIMIT).await.unwrap();
    daemon
        .record("another path is refused", |record| {
            record["http"]["path"] == "/other" && record["decision"]["effect"] == "deny"
        })
        .await
        .unwrap_or_else(|error| panic!("{error}: {}", done.stdout));
    assert_eq!(api.seen().len(), seen);
    let done = run(&mut call("add", "/echo"), LIMIT).await.unwrap();
    daemon
        .record("another tool is refused", |record| {
            record["mcp"]["name"] == "add" && record["decision"]["effect"] == "deny"
        })
        .await
        .unwrap_or_else(|error| panic!("{error}: {}{}", done.stdout, done.stderr));
    process.stop().await.unwrap();
}

/// What most sites have: servers that users start, some of them for nothing, and keys that the gate fetches by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_are_seen_and_the_gates_own_is_passed_over() {
    const ISSUER: &str = "https://a.lab.example";
    let lab = Lab::new().unwrap();
    let publisher = lab
        .https(&["a.lab.example"], SocketAddr::new(WORLD, 443))
        .unwrap();
    publisher.put("/k", "application/json", Issuer::new(ISSUER).keys("1"));
    let settings = format!(
        "issuers: [{{ issuer: \"{ISSUER}\", audience: mcp, jwks: {{ url: \"{ISSUER}/k\" }} }}]\n"
    );
    let daemon = lab
        .daemon_with(&working::policy(), &settings)
        .await
        .unwrap();
    daemon
        .record("the keys are fetched", |record| {
            record["http"]["path"] == "/k" && record["outcome"]["status"] == "done"
        })
        .await
        .unwrap();
    let mut idle = daemon.run("notes").unwrap();
    idle.initialize().await.unwrap();
    assert!(idle.close().await.unwrap().success());
    daemon
        .record("the start", |record| record["lifecycle"]["event"] == "run")
        .await
        .unwrap();

    let base = lab.directory().join("policy.d");
    let draft = lab.directory().join("drafted.yaml");
    let (base, draft) = (base.to_str().unwrap(), draft.to_str().unwrap());
    let arguments = [
        "policy", "draft", "--policy", base, "--since", "1h", "--output", draft,
    ];
    let done = daemon.cli(&arguments).await.unwrap();
    assert!(done.status.success(), "{}{}", done.stdout, done.stderr);
    let report = done.json().unwrap();
    assert_eq!(report["left_out"], json!([]), "{report}");
    let text = fs::read_to_string(draft).unwrap();
    let compared = daemon.cli(&["policy", "diff", base, draft]).await.unwrap();
    let compared = compared.json().unwrap();
    assert_eq!(compared["changed"], 0, "{compared}\n{text}");

    daemon.put_in_force(&text).await.unwrap();
    let mut idle = daemon.run("notes").unwrap();
    idle.initialize().await.unwrap();
    assert!(idle.close().await.unwrap().success());
}
