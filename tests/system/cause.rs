//! The two halves joined: an outbound request of a server names the tool call that caused it.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use exeat_tests::Lab;
use exeat_tests::cgroup::Cgroup;
use exeat_tests::fixtures::{Client, Fixtures, Server};
use exeat_tests::lab::WORLD;
use exeat_tests::process::{Process, run};
use exeat_tests::wait::wait_until;
use serde_json::{Value, json};

use crate::hand::Hand;
use crate::place::LIMIT;
use crate::serving::{self, Serving, curl, user};

const NAME: &str = "api.lab.example";
/// The upstream's answer, on a connection that it does not keep.
const ANSWER: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";

pub(crate) fn policy(server: &str, host: &str) -> String {
    format!(
        "version: 1
servers:
  notes:
    purpose: fetches what it is told to
    owner: tests@lab.example
    listen: 127.0.0.1:3001
    match: {{ cgroup: /{server} }}
    egress: [{{ host: {NAME} }}]
hosts: {{ agent: {{ match: {{ cgroup: /{host} }}, servers: [notes] }} }}
rules: [{{ id: all, servers: [notes], tools: [\"*\"], effect: allow }}]
"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outbound_request_names_its_tool_call() {
    let lab = Lab::new().unwrap();
    let api = Hand::new(&lab, NAME, SocketAddr::new(WORLD, 443));
    let (server, host) = (
        format!("{}-server", lab.name()),
        format!("{}-host", lab.name()),
    );
    let (serving, hosting) = (
        Cgroup::create(&server).unwrap(),
        Cgroup::create(&host).unwrap(),
    );
    let daemon = lab.daemon(&policy(&server, &host)).await.unwrap();
    let ca = daemon.cli(&["ca", "export"]).await.unwrap();
    let trust = lab.directory().join("exeat-ca.pem");
    std::fs::write(&trust, pem(&ca.stdout)).unwrap();

    let fixtures = Fixtures::find().unwrap();
    let invocation = fixtures
        .server(Server::Ts2)
        .args(["--port", "3001"])
        .variable("NODE_EXTRA_CA_CERTS", &trust);
    let launcher: Command = serving.launcher(lab.inside.command("env"));
    let mut process =
        Process::start("notes", lab.directory(), &mut invocation.under(launcher)).unwrap();
    process.ready(Duration::from_secs(20)).await.unwrap();

    let call = |path: &str| {
        let url = format!("https://{NAME}{path}");
        let arguments = json!({ "url": url }).to_string();
        let client = fixtures.client(
            Client::Httpx,
            "http://127.0.0.1:3001/mcp",
            "fetch",
            &arguments,
        );
        client.under(hosting.launcher(lab.inside.command("env")))
    };
    let mut once = call("/once");
    let answered = async {
        let mut held = api.accept().await;
        held.head().await;
        held.say(ANSWER).await;
    };
    let (done, ()) = tokio::join!(run(&mut once, LIMIT), answered);
    let done = done.unwrap();
    let answer = done.json().unwrap();
    assert_eq!(answer["isError"], false, "{answer} {}", process.stderr());
    let outbound = daemon
        .record("the outbound request", |record| {
            record["http"]["path"] == "/once"
        })
        .await
        .unwrap();
    let called = daemon
        .record("the tool call", |record| {
            record["mcp"]["method"] == "tools/call"
        })
        .await
        .unwrap();
    assert_eq!(
        outbound["cause"],
        json!({ "id": called["id"] }),
        "{outbound} {called}"
    );
    assert_eq!(called["mcp"]["name"], "fetch", "{called}");
    assert_eq!(called["mcp"]["server"], "notes", "{called}");

    // Two at once: either may have caused either.
    let (mut first, mut second) = (call("/both?1"), call("/both?2"));
    let answered = async {
        // Neither is answered before both have asked.
        let mut held = [api.accept().await, api.accept().await];
        for each in &mut held {
            each.head().await;
        }
        for each in &mut held {
            each.say(ANSWER).await;
        }
    };
    let (first, second, ()) =
        tokio::join!(run(&mut first, LIMIT), run(&mut second, LIMIT), answered);
    assert!(first.unwrap().status.success() && second.unwrap().status.success());
    let calls = |records: &[Value]| -> Vec<Value> {
        let both = |record: &&Value| {
            record["mcp"]["method"] == "tools/call"
                && record["mcp"]["arguments"].to_string().contains("both")
        };
        records
            .iter()
            .filter(both)
            .map(|record| record["id"].clone())
            .collect()
    };
    wait_until("both calls are recorded", LIMIT, || {
        calls(&daemon.audit().unwrap()).len() == 2
    })
    .await
    .unwrap();
    let records = daemon.audit().unwrap();
    let wanted = calls(&records);
    let outbound: Vec<&Value> = records
        .iter()
        .filter(|record| {
            record["http"]["path"]
                .as_str()
                .is_some_and(|path| path.starts_with("/both"))
        })
        .collect();
    assert_eq!(outbound.len(), 2);
    let later = outbound
        .iter()
        .find(|record| record["cause"]["candidates"].is_array())
        .unwrap_or_else(|| panic!("{outbound:#?}"));
    let named = later["cause"]["candidates"].as_array().unwrap();
    assert!(
        named.len() == 2 && wanted.iter().all(|id| named.contains(id)),
        "{later} {wanted:?}"
    );
    // A refused dial of the server outside any call has no cause.
    assert!(
        records
            .iter()
            .filter(|record| record["kind"] == "lifecycle")
            .all(|record| record["cause"].is_null())
    );
}

/// Over HTTP, too: what a server still does for a caller who hung up is not put down to another's call alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_caller_hung_up_stays_among_the_causes() {
    const URL: &str = "http://127.0.0.1:3001/mcp";
    let lab = Lab::new().unwrap();
    let mut serving = Serving::new(&lab);
    let rules = "{ id: all, who: [staff], servers: [notes], tools: [\"*\"], effect: allow }";
    let policy = serving.policy("127.0.0.1:3001", rules, "");
    let daemon = lab.daemon(&policy).await.unwrap();
    serving.start(&lab, "127.0.0.1", 3001).await;
    let arguments = json!({ "seconds": 4, "dial": ["203.0.113.9", 81] });
    let params = json!({ "name": "work", "arguments": arguments });
    let left = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let left = left.to_string();
    let kind = "content-type: application/json";
    let arguments = ["--max-time", "1", "--header", kind, "--data", &left, URL];
    let told = curl(user(&lab, "root"), &arguments).await;
    assert_eq!(told.exit, 28, "it gave up: {told:?}");
    let waited = serving::call(user(&lab, "root"), URL, json!({ "seconds": 8 })).await;
    assert!(waited.body.contains("result"), "{waited:?}");
    let dialled = daemon
        .record("the dial", |record| record["tcp"]["port"] == 81)
        .await
        .unwrap();
    let candidates = dialled["cause"]["candidates"].as_array();
    assert_eq!(candidates.map(Vec::len), Some(2), "{dialled}");
}

/// `ca export --json` wraps the certificate; without it the text is the certificate.
pub(crate) fn pem(text: &str) -> String {
    let wrapped: Option<Value> = serde_json::from_str(text).ok();
    wrapped
        .and_then(|value| {
            let value = value
                .as_object()?
                .values()
                .find(|value| value.as_str().is_some_and(|text| text.contains("BEGIN")))?
                .clone();
            value.as_str().map(str::to_owned)
        })
        .unwrap_or_else(|| text.to_owned())
}
