//! Approvers who are told of calls by webhooks, and decide by the links in them; and who else may not.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use exeat_tests::Lab;
use exeat_tests::daemon::binary;
use exeat_tests::lab::{WORLD, WORLD_OTHER};
use exeat_tests::process::run;
use exeat_tests::upstream::Upstream;
use exeat_tests::wait::wait_for;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::approvals::{RULES, approvals, approve, call, only, posted, until};
use crate::scripted::{Scripted, plain};
use crate::talk::{FAR, LEGACY};
use crate::world::{LIMIT, NAME, URL, World};

/// Where links are answered.
const LISTEN: &str = "127.0.0.1:8377";
const CONSOLE: &str = "https://console.lab.example";
const HOOKS: &str = "hooks.lab.example";
const SECRET: &str = "T0SECRET";
const FORM: &str = "content-type: application/x-www-form-urlencoded\r\n";

/// What the host may reach, as an operator who means well would allow it: loopback, and the console's host.
const EGRESS: &str = "[{ cidr: 127.0.0.0/8, ports: [8377], protocol: tcp }, { host: console.lab.example, methods: [GET, POST] }]";

async fn world<'lab>(lab: &'lab Lab, egress: &str) -> World<'lab> {
    let write = |name: &str, text: String| {
        let path = lab.directory().join(name);
        let mut made = OpenOptions::new();
        let mut made = made
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .unwrap();
        made.write_all(text.as_bytes()).unwrap();
        path.display().to_string()
    };
    let key = write("links.key", format!("{}\n", "5a".repeat(32)));
    let url = write("hook.url", format!("https://{HOOKS}/services/{SECRET}\n"));
    let settings = format!(
        "limits: {{ connect_deadline: 2s }}
approvals:
  listen: {LISTEN}
  console_url: {CONSOLE}
  secret_file: {key}
  webhooks:
    - {{ approver: bin, url_file: {url} }}
    - {{ approver: games, url: \"https://{HOOKS}/games\" }}
"
    );
    World::settled(lab, &[("far", URL)], egress, RULES, &settings)
        .await
        .unwrap()
}

/// Where approvers read.
fn hooks(lab: &Lab, works: bool) -> Upstream {
    let hooks = lab
        .https(&[HOOKS], SocketAddr::new(WORLD_OTHER, 443))
        .unwrap();
    if works {
        hooks.put(&format!("/services/{SECRET}"), "text/plain", "ok");
    }
    hooks
}

/// The newest message, and the paths of its links: to approve, and to deny.
async fn told(hooks: &Upstream, count: usize) -> (Value, String, String) {
    let body = wait_for("the approver is told", LIMIT, async || {
        let seen = hooks.seen();
        let whole = seen.len() == count && seen.iter().all(|seen| seen.complete);
        whole.then(|| seen.last().unwrap().body.clone())
    })
    .await
    .unwrap();
    let message: Value = serde_json::from_slice(&body).unwrap();
    let blocks = message["blocks"].as_array().unwrap();
    let actions = blocks.iter().find(|block| block["type"] == "actions");
    let link = |place: usize| {
        let url = actions.unwrap()["elements"][place]["url"].as_str().unwrap();
        url.strip_prefix(CONSOLE).unwrap().to_owned()
    };
    let (approve, deny) = (link(0), link(1));
    (message, approve, deny)
}

/// What the listener answers to these bytes: its status line's code (none: it closes), and everything.
async fn raw(lab: &Lab, request: &[u8]) -> (Option<u16>, String) {
    let mut stream = lab.inside.connect(LISTEN.parse().unwrap()).unwrap();
    // It may close before it has read everything.
    let _sent = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _end = timeout(LIMIT, stream.read_to_end(&mut answer))
        .await
        .unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    (code, answer)
}

async fn ask(
    lab: &Lab,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> (Option<u16>, String) {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: console.lab.example\r\n{headers}content-length: {length}\r\n\r\n{body}"
    );
    raw(lab, request.as_bytes()).await
}

/// Confirms a link, as its page does.
async fn confirm(lab: &Lab, path: &str) -> (Option<u16>, String) {
    ask(lab, "POST", path, FORM, "confirm=yes").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_link_of_a_message_decides_once_as_whom_it_was_made_for() {
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), plain).unwrap();
    let hooks = hooks(&lab, true);
    let world = world(&lab, EGRESS).await;
    let talker = world.talker().await.unwrap();
    let (mut events, _) = posted(&talker, &call("a", "pay", 7)).await;
    let id = only(&lab).await;
    let (message, yes, no) = told(&hooks, 1).await;
    let text = message.to_string();
    for part in ["pay", "far", "agent", "ask", &id] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
    assert_eq!(hooks.seen()[0].path, format!("/services/{SECRET}"));

    // Opened, as people and scanners do: nothing changes.
    for method in ["GET", "HEAD"] {
        for link in [&yes, &no] {
            let (code, page) = ask(&lab, method, link, "", "").await;
            assert_eq!(code, Some(200), "{page}");
            let shows = page.contains("as bin</button>") && page.contains(&id);
            assert_eq!(shows, method == "GET", "{page}");
            assert!(page.contains("referrer-policy: no-referrer"), "{page}");
            assert!(!page.contains("hunter2"), "{page}");
        }
    }
    // What the form does not send.
    for (headers, body, status) in [
        ("", "confirm=yes", 415),
        ("content-type: application/json\r\n", "confirm=yes", 415),
        (FORM, "", 400),
        (FORM, "confirm=no", 400),
        (FORM, "confirm=yes&confirm=yes", 400),
        (FORM, &"x".repeat(1 << 20), 400),
    ] {
        let (code, page) = ask(&lab, "POST", &yes, headers, body).await;
        // One that is too large may be cut off before its sender has read why.
        assert!(
            code == Some(status) || code.is_none() && body.len() > 1000,
            "{page}"
        );
    }
    for method in ["PUT", "DELETE", "OPTIONS"] {
        let (code, page) = ask(&lab, method, &yes, FORM, "confirm=yes").await;
        assert_eq!(code, Some(405), "{page}");
    }
    // Forged: another verdict, approver, approval or time under this signature, and this statement under another's.
    let (said, mac) = yes.rsplit_once('/').unwrap();
    let (_, other) = no.rsplit_once('/').unwrap();
    let expiry = said.rsplit_once('/').unwrap().1.to_owned();
    let later = expiry.replacen(&expiry, &format!("{expiry}0"), 1);
    for link in [
        format!("{said}/{other}"),
        format!("{}/{mac}", said.replace("approve/", "deny/")),
        format!("{}/{mac}", said.replace("/bin/", "/games/")),
        format!("{}/{mac}", said.replace(&id, "000000000000")),
        format!("{}/{mac}", said.replace(&expiry, &later)),
        format!("{said}/{}", "0".repeat(64)),
        format!("{said}/{}", mac.to_uppercase()),
        said.to_owned(),
        format!("{yes}/"),
        format!("/approvals/{}", "x".repeat(2000)),
        "/approvals/".to_owned(),
    ] {
        let (code, page) = confirm(&lab, &link).await;
        assert_eq!(code, Some(403), "{link}: {page}");
    }
    for link in [
        "/",
        "/x",
        &format!("{yes}?a"),
        &format!("/x{yes}"),
        &format!("http://a.example{yes}"),
    ] {
        let (code, page) = confirm(&lab, link).await;
        assert_eq!(code, Some(404), "{link}: {page}");
    }
    // No HTTP, and no end of it: while somebody is slow, others are served.
    let mut slow = lab.inside.connect(LISTEN.parse().unwrap()).unwrap();
    slow.write_all(b"POST / HTTP/1.1\r\n").await.unwrap();
    let (code, _) = raw(&lab, b"\x16\x03\x01\x00\x05hello\r\n\r\n").await;
    assert_eq!(code, Some(400));
    let head = format!(
        "GET {yes} HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
        "y".repeat(64 << 10)
    );
    let (code, page) = raw(&lab, head.as_bytes()).await;
    assert!(code.is_none() || code == Some(431), "{page}");
    let mut rest = Vec::new();
    let end = timeout(Duration::from_secs(30), slow.read_to_end(&mut rest)).await;
    assert!(end.is_ok(), "a slow request is ended");

    // A process under policy has the link, and may reach loopback and the console's host by the policy's letter.
    let console = lab
        .https(&["console.lab.example"], SocketAddr::new(WORLD_OTHER, 8443))
        .unwrap();
    for (url, args) in [
        (format!("http://{LISTEN}{yes}"), vec![]),
        (format!("http://localhost:8377{yes}"), vec![]),
        (
            format!("{CONSOLE}{yes}"),
            vec!["--cacert".to_owned(), world.trust().display().to_string()],
        ),
    ] {
        let mut curl = world.managed();
        curl.args([
            "curl",
            "-sS",
            "-m",
            "20",
            "--noproxy",
            "*",
            "-w",
            "%{http_code}",
        ])
        .args(&args)
        .args(["-d", "confirm=yes", &url]);
        let done = run(&mut curl, LIMIT).await.unwrap();
        let refused = !done.status.success() || done.stdout.ends_with("403");
        assert!(refused, "{url}: {}{}", done.stdout, done.stderr);
        assert_eq!(only(&lab).await, id, "{url}");
    }
    assert!(console.seen().is_empty());
    assert!(server.seen().is_empty());
    let why = "no workload is connected to where approvers decide";
    wait_for("each attempt has its record", LIMIT, async || {
        let records = world.daemon.audit().ok()?;
        let kept = records.iter().filter(|record| {
            let error = record["outcome"]["error"].as_str();
            error.is_some_and(|error| error.contains(why))
        });
        (kept.count() == 3).then_some(())
    })
    .await
    .unwrap();
    // Nor by the control socket, where the caller's own user does not decide either.
    let mut decide = world.managed();
    decide
        .arg(binary().unwrap())
        .args(["approvals", "decide", "--token", &yes, "--config"])
        .arg(lab.directory().join("exeat.yaml"));
    let managed = run(&mut decide, LIMIT).await.unwrap();
    assert_eq!(managed.status.code(), Some(1), "{}", managed.stderr);
    let own = approvals(&lab, "root", &["decide", "--token", &yes]).await;
    assert!(
        own.stderr.contains("who calls cannot approve"),
        "{}",
        own.stderr
    );
    let forged = format!("{said}/{other}");
    let forged = approvals(&lab, "daemon", &["decide", "--token", &forged]).await;
    assert!(
        forged.stderr.contains("not made by this daemon"),
        "{}",
        forged.stderr
    );
    assert_eq!(only(&lab).await, id);

    let (code, page) = confirm(&lab, &yes).await;
    assert_eq!(code, Some(200), "{page}");
    assert!(page.contains("pay of far is approved"), "{page}");
    let answer = events.message().await.unwrap().unwrap();
    assert_eq!(answer["result"]["content"][0]["text"], "ok", "{answer}");
    assert_eq!(server.take().len(), 1);
    // Used up, and so is its other half; the same call made again has links of its own.
    let (events, _) = posted(&talker, &call("b", "pay", 7)).await;
    let (_, anew, never) = told(&hooks, 2).await;
    assert_ne!(anew, yes);
    for link in [&yes, &no] {
        for answered in [
            confirm(&lab, link).await,
            ask(&lab, "GET", link, "", "").await,
        ] {
            assert_eq!(answered.0, Some(410), "{}", answered.1);
        }
    }
    until(&lab, 1).await;
    drop(events);
    until(&lab, 0).await;
    for link in [&anew, &never] {
        assert_eq!(confirm(&lab, link).await.0, Some(410));
    }
    // Denied, over a link; and one whose time is over.
    let (mut events, _) = posted(&talker, &call("d", "pay", 8)).await;
    let (_, _, no) = told(&hooks, 3).await;
    // Whoever shows it, with the daemon's own command too.
    let url = format!("{CONSOLE}{no}");
    let done = approvals(&lab, "daemon", &["decide", "--token", &url]).await;
    assert!(
        done.stdout.contains("\"deny\""),
        "{}{}",
        done.stdout,
        done.stderr
    );
    let answer = events.message().await.unwrap().unwrap();
    let denied = &answer["result"]["structuredContent"]["approval"];
    assert_eq!(denied["decision"], "denied", "{answer}");
    // The page's form may say why, to the model as well.
    let (mut events, _) = posted(&talker, &call("e", "pay", 9)).await;
    let (_, _, no) = told(&hooks, 4).await;
    let because = "confirm=yes&reason=not+before+%3Cb%3E%0A+the+audit";
    let (code, page) = ask(&lab, "POST", &no, FORM, because).await;
    assert_eq!(code, Some(200), "{page}");
    let answer = events.message().await.unwrap().unwrap();
    let denied = &answer["result"]["structuredContent"]["approval"];
    assert_eq!(denied["reason"], "not before <b> the audit", "{answer}");
    let (mut events, _) = posted(&talker, &call("t", "rush", 1)).await;
    let (_, late, _) = told(&hooks, 5).await;
    let answer = events.message().await.unwrap().unwrap();
    assert_eq!(answer["error"]["data"]["reason"], "approval_timed_out");
    let (code, page) = confirm(&lab, &late).await;
    assert_eq!(code, Some(410), "{page}");
    assert!(server.take().is_empty());
    // `games` approves nothing, and was told of nothing.
    assert!(hooks.seen().iter().all(|seen| seen.path != "/games"));
    recorded(&world, &id).await;
}

/// The decision, and the message, each with a record that says nothing secret.
async fn recorded(world: &World<'_>, id: &str) {
    let own = |record: &Value| record["mcp"]["id"] == "\"a\"";
    let own = world.daemon.record("the call", own).await.unwrap();
    let decided = |record: &Value| record["kind"] == "approval" && record["approval"]["id"] == id;
    let decided = world.daemon.record("the approval", decided).await.unwrap();
    assert_eq!(decided["identity"]["verified_by"], "link", "{decided}");
    assert_eq!(decided["identity"]["user"], "bin", "{decided}");
    assert_eq!(decided["approval"]["decision"], "approved", "{decided}");
    assert_eq!(decided["approval"], own["approval"], "{decided}");
    assert_eq!(decided["cause"]["id"], own["id"], "{decided}");
    let sent = |record: &Value| record["http"]["name"] == HOOKS && record["approval"]["id"] == id;
    let sent = world.daemon.record("the message", sent).await.unwrap();
    assert_eq!(sent["cause"]["id"], own["id"], "{sent}");
    assert_eq!(
        sent["decision"]["reason"], "the configuration names the webhook",
        "{sent}"
    );
    assert_eq!(sent["outcome"]["status"], "done", "{sent}");
    let everything = format!(
        "{}{}",
        json!(world.daemon.audit().unwrap()),
        world.daemon.log()
    );
    for secret in [SECRET, "5a5a5a5a", "hunter2"] {
        assert!(!everything.contains(secret), "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_delivered_is_said_and_its_call_waits_on() {
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), plain).unwrap();
    let hooks = hooks(&lab, false);
    let world = world(&lab, "[]").await;
    let talker = world.talker().await.unwrap();
    let (mut events, _) = posted(&talker, &call("a", "pay", 7)).await;
    let id = only(&lab).await;
    let found = |record: &Value| record["finding"]["what"] == "webhook_failed";
    let found = world.daemon.record("a finding", found).await.unwrap();
    let detail = found["finding"]["detail"].as_str().unwrap();
    assert!(detail.contains("404") && detail.contains(HOOKS), "{detail}");
    assert_eq!(hooks.seen().len(), 3);
    let status = world.daemon.status().await.unwrap();
    let problem = status["webhooks"][0]["problem"].as_str().unwrap();
    assert!(
        problem.contains("404") && !problem.contains(SECRET),
        "{problem}"
    );
    assert_eq!(status["webhooks"][1]["problem"], Value::Null, "{status}");
    let doctor = world
        .daemon
        .cli(&["doctor", "--no-runtimes"])
        .await
        .unwrap();
    assert!(doctor.stdout.contains("NOT TOLD"), "{}", doctor.stdout);
    // Out of reach altogether; one attempt, since it is known not to work.
    drop(hooks);
    let (second, _) = posted(&talker, &call("b", "pay", 8)).await;
    let failed =
        |record: &Value| record["http"]["name"] == HOOKS && record["outcome"]["status"] == "failed";
    wait_for("a fourth attempt", LIMIT, async || {
        let records = world.daemon.audit().ok()?;
        (records.iter().filter(|record| failed(record)).count() == 4).then_some(())
    })
    .await
    .unwrap();
    drop(second);
    until(&lab, 1).await;
    // Nor does policy open the listener here: the kernel refuses.
    let mut curl = world.managed();
    curl.args(["curl", "-sS", "-m", "20", "--noproxy", "*"])
        .arg(format!("http://{LISTEN}/approvals/x"));
    let done = run(&mut curl, LIMIT).await.unwrap();
    assert_eq!(done.status.code(), Some(7), "{}", done.stderr);
    assert_eq!(
        raw(&lab, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.0,
        Some(404)
    );
    approve(&lab, &id).await;
    let answer = loop {
        let heard = events.message().await.unwrap().unwrap();
        if heard["method"] != "notifications/progress" {
            break heard;
        }
    };
    assert_eq!(answer["result"]["content"][0]["text"], "ok", "{answer}");
    assert_eq!(server.take().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_is_not_taken_up_by_a_call_beside_another_session() {
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), plain).unwrap();
    let hooks = hooks(&lab, true);
    let mut world = world(&lab, "[]").await;
    let talker = world.talker().await.unwrap();
    let (mut events, _) = posted(&talker, &call("a", "pay", 7)).await;
    let id = only(&lab).await;
    let (_, yes, _) = told(&hooks, 1).await;
    world.daemon.stop().await.unwrap();
    events.message().await.unwrap().unwrap();
    world.daemon.restart().await.unwrap();
    // The link outlives the daemon, and decides while nobody waits.
    assert_eq!(confirm(&lab, &yes).await.0, Some(200));
    let sent = call("r", "pay", 7).to_string();
    let headers = [LEGACY, ("mcp-session-id", "another")];
    let other = crate::talk::request("POST", FAR.path, &headers, sent).unwrap();
    let response = talker.send(FAR, other).await.unwrap();
    let mut other = crate::talk::EventReader::new(response);
    other.message().await.unwrap().unwrap();
    let waiting = until(&lab, 2).await;
    assert!(
        waiting.iter().any(|one| one["id"] == id.as_str()),
        "{waiting:?}"
    );
    assert!(server.seen().is_empty());
    drop(other);
    let answer = talker
        .post(FAR, &[LEGACY], call("r", "pay", 7).to_string())
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(text.contains(r#""text":"ok""#), "{text}");
    assert_eq!(server.take().len(), 1);
}
