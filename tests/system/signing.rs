//! Requests that are signed for AWS with keys that no server holds: verified by who knows nothing of the gate.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use exeat_tests::Lab;
use exeat_tests::cgroup::Cgroup;
use exeat_tests::daemon::Daemon;
use exeat_tests::files::chmod;
use exeat_tests::fixtures::Fixtures;
use exeat_tests::lab::{WORLD, WORLD_OTHER};
use exeat_tests::process::{holds, run};
use exeat_tests::upstream::{Seen, Upstream};
use exeat_tests::wait::wait_for;
use serde_json::{Value, json};

use crate::place::{LIMIT, told};
use crate::serving::curl;

const QUEUE: &str = "sqs.lab.example";
const BUCKET: &str = "bucket.lab.example";
const OTHER: &str = "other.lab.example";
const FAR: &str = "mcp.lab.example";

/// Keys: name, key, session's token.
type Keys = (&'static str, &'static str, Option<&'static str>);
const READ: Keys = ("AKIDREAD0000000LAB01", "r3ad+4nd/Only.Read", None);
const WRITE: Keys = (
    "ASIAWRITE000000LAB02",
    "wr1te/M0st.Wanted",
    Some("s3ss10n//T0ken+of.All=="),
);
const STORE: Keys = ("AKIDSTORE000000LAB03", "st0re+K3y/of.All", None);

/// The server and the verifier.
const SCRIPT: &str = include_str!("clients/signing.mjs");

fn keep(lab: &Lab, name: &str, (id, secret, session): Keys, ends: &str) {
    let printed = json!({
        "Version": 1,
        "AccessKeyId": id,
        "SecretAccessKey": secret,
        "SessionToken": session,
        "Expiration": ends,
    });
    let printed = serde_json::to_string_pretty(&printed).unwrap();
    lab.put(name, &printed, 0o600).unwrap();
}

const LASTS: &str = "2999-01-01T00:00:00Z";

fn policy(lab: &Lab, host: &str) -> String {
    for (name, keys) in [("read", READ), ("write", WRITE), ("store", STORE)] {
        keep(lab, name, keys, LASTS);
    }
    lab.put("signing.mjs", SCRIPT, 0o644).unwrap();
    let queue = "aws_sigv4: { region: eu-central-1, service: sqs }";
    format!(
        "version: 1
identities: {{ tester: {{ user: root }} }}
rules: [{{ id: all, who: [tester], servers: [signing, far], effect: allow }}]
credentials:
  read: {{ command: [/bin/cat, {0}/read], {queue} }}
  write: {{ file: {0}/write, hosts: [{QUEUE}], {queue} }}
  store: {{ file: {0}/store, aws_sigv4: {{ region: eu-central-1, service: s3 }} }}
servers:
  signing:
    purpose: asks with signatures
    owner: tests@lab.example
    launch:
      command: {1}
      args: [{0}/signing.mjs]
      user: nobody
      env: {{ AWS_ACCESS_KEY_ID: {{ secret: read }}, AWS_SECRET_ACCESS_KEY: {{ secret: read }} }}
    egress:
      - {{ host: {QUEUE}, credential: read }}
      - {{ host: {BUCKET}, credential: store }}
      - {{ host: {OTHER} }}
    tools: {{ get: read, set: {{ class: write, credential: write }} }}
  far: {{ url: \"https://{FAR}/mcp\", authorization: {{ credential: write }} }}
hosts: {{ claude: {{ match: {{ cgroup: /{host} }}, servers: [far] }} }}
",
        lab.directory().display(),
        Fixtures::find().unwrap().node(22).display(),
    )
    .replace(
        &format!("hosts: [{QUEUE}]"),
        &format!("hosts: [{QUEUE}, {FAR}]"),
    )
}

/// What is wrong with these requests, as the service of their signatures sees them.
async fn faults(lab: &Lab, requests: &[Seen]) -> Vec<Option<String>> {
    let keys: serde_json::Map<String, Value> = [READ, WRITE, STORE]
        .into_iter()
        .map(|(id, secret, token)| (id.to_owned(), json!({ "secret": secret, "token": token })))
        .collect();
    let seen = lab.directory().join("seen.json");
    fs::write(
        &seen,
        json!({ "keys": keys, "requests": requests }).to_string(),
    )
    .unwrap();
    let mut command = Command::new(Fixtures::find().unwrap().node(22));
    command
        .arg(lab.directory().join("signing.mjs"))
        .arg("verify")
        .arg(seen);
    let done = run(&mut command, LIMIT).await.unwrap();
    assert!(done.status.success(), "{done:?}");
    serde_json::from_str(&done.stdout).unwrap()
}

async fn record(daemon: &Daemon<'_>, path: &str) -> Value {
    let what = format!("the record of {path}");
    let is = |record: &Value| {
        let told = record["http"]["path"].as_str();
        told.is_some_and(|told| told.starts_with(path))
    };
    daemon.record(&what, is).await.unwrap()
}

/// Whose keys a request is signed with.
fn signed_by(seen: &Seen) -> &str {
    let shown = seen.header("authorization").unwrap();
    let (_, id) = shown.split_once("Credential=").unwrap();
    id.split('/').next().unwrap()
}

fn world(lab: &Lab) -> Upstream {
    let names = [QUEUE, BUCKET, OTHER];
    lab.https(&names, SocketAddr::new(WORLD, 443)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_signs_for_nothing_is_signed_for_aws() {
    let lab = Lab::new().unwrap();
    let world = world(&lab);
    // At the finest level: whatever any library says.
    let daemon = lab.daemon_at(&policy(&lab, "none"), "trace").await.unwrap();
    let mut session = daemon.run("signing").unwrap();
    session.initialize().await.unwrap();
    let long = "y".repeat(200_000);
    let asked = [
        (
            "get",
            json!({ "url": format!("https://{QUEUE}/status?n=1&b=%2F&a=&a=0") }),
        ),
        (
            "get",
            json!({
                "url": format!("https://{QUEUE}/upload//a%20b/../c%3Ad"), "method": "POST", "body": "{\"a\":1}",
                "headers": { "content-type": "application/x-amz-json-1.0", "x-amz-target": "AmazonSQS.SendMessage",
                    "x_amz_date": "own", "x-amz-meta": " a   b " },
            }),
        ),
        (
            "set",
            json!({ "url": format!("https://{QUEUE}/upload"), "method": "POST", "body": long }),
        ),
        // Without a length: what is read whole says one.
        (
            "set",
            json!({ "url": format!("https://{QUEUE}/upload"), "method": "PUT", "body": long, "streamed": true }),
        ),
        (
            "get",
            json!({ "url": format!("https://{BUCKET}/upload/a%20b//c/%E2%82%AC?uploads"), "method": "POST", "service": "s3" }),
        ),
        // Larger than what is held: not to be signed.
        (
            "get",
            json!({
                "url": format!("https://{BUCKET}/upload"), "method": "PUT", "bytes": 6 << 20, "streamed": true, "service": "s3",
            }),
        ),
        // By another client, over HTTP/2.
        (
            "get",
            json!({ "url": format!("https://{QUEUE}/upload?z=1&a=2"), "curl": ["--http2", "--data", "a=b"] }),
        ),
        (
            "set",
            json!({ "url": format!("https://{QUEUE}/status"), "curl": ["--http1.1"] }),
        ),
    ];
    let count = asked.len();
    for (tool, arguments) in asked {
        let url = arguments["url"].to_string();
        let answer = told(&mut session, tool, arguments).await;
        assert!(
            answer.starts_with("200 ") || answer.starts_with("404 "),
            "{url}: {answer}"
        );
    }
    let seen = world.seen();
    assert_eq!(faults(&lab, &seen).await, vec![None; count], "{seen:?}");
    let by: Vec<&str> = seen.iter().map(signed_by).collect();
    let (read, write, store) = (READ.0, WRITE.0, STORE.0);
    assert_eq!(by, [read, read, write, write, store, store, read, write]);
    assert_eq!(seen[3].header("content-length"), Some("200000"));
    assert_eq!(seen[3].body_bytes, 200_000);
    assert_eq!(seen[5].body_bytes, 6 << 20);
    assert_eq!(seen[6].version, "HTTP/2.0");
    // Where no credential is, the server's own is sent, and is worth nothing.
    told(
        &mut session,
        "get",
        json!({ "url": format!("https://{OTHER}/status?n=2") }),
    )
    .await;
    let own = world.seen().pop().unwrap();
    let placeholder = signed_by(&own);
    // The verifier tells them apart, and finds what is not what was signed.
    let mut other = seen[0].clone();
    other.path = other.path.replace("n=1", "n=2");
    let found = faults(&lab, &[own.clone(), other]).await;
    let found: Vec<String> = found.into_iter().flatten().collect();
    assert_eq!(
        found,
        [
            format!("signed by {placeholder}"),
            "another signature".to_owned()
        ]
    );
    assert!(placeholder.starts_with("exeat-"), "{own:?}");
    for seen in &seen {
        let text = json!(seen).to_string();
        assert!(
            !text.contains(placeholder) && !text.contains("own"),
            "{text}"
        );
    }
    let first = record(&daemon, "/status").await;
    assert_eq!(first["http"]["credential"], "read", "{first}");
    nothing_tells(&daemon, &first, placeholder).await;
    assert!(session.close().await.unwrap().success());
}

/// Neither the server, nor records, nor the log, nor the status.
async fn nothing_tells(daemon: &Daemon<'_>, record: &Value, placeholder: &str) {
    let pid = record["workload"]["pid"].as_u64().unwrap();
    let pid = u32::try_from(pid).unwrap();
    assert!(holds(pid, placeholder).unwrap(), "the search finds nothing");
    let lines = daemon.audit_lines().unwrap();
    let records: String = lines.iter().map(Value::to_string).collect();
    let status = daemon.status().await.unwrap().to_string();
    let log = daemon.log();
    assert!(log.contains("TRACE"), "nothing is traced");
    for (_, secret, session) in [READ, WRITE, STORE] {
        for secret in [Some(secret), session].into_iter().flatten() {
            assert!(!holds(pid, secret).unwrap(), "{secret} is in the process");
            for text in [&records, &status, &log] {
                assert!(!text.contains(secret), "{secret} is told");
            }
        }
    }
    assert!(!log.contains("Signature="), "a signature is told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_signed_goes_nowhere_and_is_recorded() {
    let lab = Lab::new().unwrap();
    let world = world(&lab);
    let daemon = lab.daemon(&policy(&lab, "none")).await.unwrap();
    let mut session = daemon.run("signing").unwrap();
    session.initialize().await.unwrap();
    let chunks = json!({ "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "content-type": "image/png" });
    let copied = json!({ "x-amz-copy-source": "/other/key" });
    let signed = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=own";
    for (number, (host, rest, more, code, holds)) in [
        (QUEUE, "", json!({ "method": "PUT", "bytes": 6 << 20 }), "413 too_large", "bytes"),
        (QUEUE, "", json!({ "method": "PUT", "bytes": 6 << 20, "streamed": true }), "413 too_large", "bytes"),
        (QUEUE, signed, json!({}), "400 malformed_request", "signed already"),
        (BUCKET, signed, json!({}), "400 malformed_request", "signed already"),
        (BUCKET, "prefix=a+b", json!({}), "400 malformed_request", "`+`"),
        (BUCKET, "", json!({ "method": "PUT", "body": "x", "headers": chunks }), "400 malformed_request", "chunks"),
        (BUCKET, "", json!({ "method": "PUT", "headers": copied }), "400 malformed_request", "copy-source"),
        (
            QUEUE,
            "",
            json!({ "method": "POST", "body": r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"# }),
            "403 unregistered_server",
            "MCP",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut arguments = more;
        arguments["url"] = json!(format!("https://{host}/refused-{number}?{rest}"));
        let answer = told(&mut session, "get", arguments).await;
        let (status, told) = code.split_once(' ').unwrap();
        assert!(answer.starts_with(status) && answer.contains(told), "{number}: {answer}");
        let refused = record(&daemon, &format!("/refused-{number}")).await;
        assert_eq!(refused["outcome"]["status"], "refused", "{refused}");
        let reason = refused["decision"]["reason"].as_str().unwrap();
        assert!(reason.contains(holds), "{refused}");
        let credential = if host == QUEUE { "read" } else { "store" };
        assert_eq!(refused["http"]["credential"], credential, "{refused}");
    }
    assert_eq!(world.seen().len(), 0, "{:?}", world.seen());

    // Keys that have ended, and what is none.
    let stands = async |holds: &str| {
        wait_for("the new keys are read", LIMIT, async || {
            let status = daemon.cli(&["status", "--no-canary"]).await.ok()?;
            status.stdout.contains(holds).then_some(())
        })
        .await
        .unwrap();
    };
    let text = format!("https://{BUCKET}/ended");
    let asked = || json!({ "url": text, "service": "s3" });
    keep(&lab, "store", STORE, "2020-01-02T03:04:05Z");
    daemon.reload().unwrap();
    stands("2020-01-02T03:04:05").await;
    let answer = told(&mut session, "get", asked()).await;
    assert!(
        answer.starts_with("503") && answer.contains("credential_unavailable"),
        "{answer}"
    );
    let refused = record(&daemon, "/ended").await;
    let reason = refused["decision"]["reason"].as_str().unwrap();
    assert!(reason.contains("ended at 2020-01-02T03:04:05"), "{refused}");
    assert_eq!(refused["outcome"]["status"], "refused", "{refused}");

    fs::write(lab.directory().join("store"), STORE.1).unwrap();
    daemon.reload().unwrap();
    let is = |record: &Value| record["finding"]["what"] == "credential_unavailable";
    let found = daemon.record("the finding", is).await.unwrap();
    let detail = found["finding"]["detail"].as_str().unwrap();
    assert!(
        detail.contains("keys of AWS") && !detail.contains(STORE.1),
        "{detail}"
    );
    let answer = told(&mut session, "get", asked()).await;
    assert!(answer.starts_with("503"), "{answer}");
    let place = lab.directory().join("policy.d");
    let arguments = ["policy", "check", place.to_str().unwrap()];
    let done = daemon.cli(&arguments).await.unwrap();
    assert!(
        done.stdout.contains("does not hold keys of AWS"),
        "{done:?}"
    );

    keep(&lab, "store", STORE, LASTS);
    daemon.reload().unwrap();
    wait_for("the keys are good again", LIMIT, async || {
        let answer = told(&mut session, "get", asked()).await;
        answer.starts_with("404").then_some(())
    })
    .await
    .unwrap();
    assert_eq!(faults(&lab, &world.seen()).await, [None]);
    assert!(session.close().await.unwrap().success());
}

/// A body may take long to come: what let its request pass must still be so when it is signed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_policy_changes_while_a_body_comes_is_not_signed() {
    let lab = Lab::new().unwrap();
    let world = world(&lab);
    let policy = policy(&lab, "none");
    let daemon = lab.daemon(&policy).await.unwrap();
    let mut session = daemon.run("signing").unwrap();
    session.initialize().await.unwrap();
    let place = lab.directory().join("held");
    fs::create_dir(&place).unwrap();
    chmod(&place, 0o777).unwrap();
    let asked = |path: &str| json!({ "url": format!("https://{QUEUE}/{path}"), "place": place });
    let changing = async {
        let begun = async || place.join("begun").exists().then_some(());
        wait_for("the body is asked for", LIMIT, begun)
            .await
            .unwrap();
        assert_eq!(world.seen().len(), 0);
        let changed = policy.replace("purpose: asks", "purpose: still asks");
        daemon.put_in_force(&changed).await.unwrap();
        fs::write(place.join("end"), "").unwrap();
    };
    let (answer, ()) = tokio::join!(told(&mut session, "get", asked("changed")), changing);
    assert!(
        answer.starts_with("503") && answer.contains("credential_unavailable"),
        "{answer}"
    );
    let refused = record(&daemon, "/changed").await;
    let reason = refused["decision"]["reason"].as_str().unwrap();
    assert!(reason.contains("the policy changed"), "{refused}");
    assert_eq!(world.seen().len(), 0);
    // Without a change the same goes out, whole.
    let answer = told(&mut session, "get", asked("upload")).await;
    assert!(answer.starts_with("200"), "{answer}");
    let seen = world.seen();
    assert_eq!(seen[0].body_bytes, 1);
    assert_eq!(faults(&lab, &seen).await, [None]);
    assert!(session.close().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_to_a_registered_server_are_signed() {
    let lab = Lab::new().unwrap();
    let there = lab
        .https(&[FAR], SocketAddr::new(WORLD_OTHER, 443))
        .unwrap();
    let host = format!("{}host", lab.name());
    let policy = policy(&lab, &host);
    let host = Cgroup::create(&host).unwrap();
    let daemon = lab.daemon(&policy).await.unwrap();
    let message = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": { "name": "a", "arguments": {} } });
    let url = format!("https://{FAR}/mcp");
    for version in ["--http1.1", "--http2"] {
        let told = curl(
            host.launcher(lab.direct()),
            &[
                version,
                "--header",
                "content-type: application/json",
                "--header",
                "accept: application/json, text/event-stream",
                "--header",
                "authorization: Bearer own",
                "--data",
                &message.to_string(),
                &url,
            ],
        )
        .await;
        assert_eq!(told.status, "200", "{told:?}");
        let ended = curl(
            host.launcher(lab.direct()),
            &[
                version,
                "--request",
                "DELETE",
                "--header",
                "mcp-session-id: x",
                &url,
            ],
        )
        .await;
        assert_eq!(ended.status, "202", "{ended:?}");
    }
    let seen = there.seen();
    assert_eq!(faults(&lab, &seen).await, vec![None; 4], "{seen:?}");
    assert!(seen.iter().all(|seen| signed_by(seen) == WRITE.0));
    let is = |record: &Value| record["mcp"]["name"] == "a";
    let called = daemon.record("the call", is).await.unwrap();
    assert_eq!(called["http"]["credential"], "write", "{called}");
}
