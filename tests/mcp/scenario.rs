//! A whole site under one policy: two callers, three servers, everything that a policy can ask for, and the policy
//! edited meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use exeat_tests::Lab;
use exeat_tests::cgroup::Cgroup;
use exeat_tests::daemon::binary;
use exeat_tests::fixtures::Fixtures;
use exeat_tests::lab::{WORLD, WORLD_OTHER};
use exeat_tests::process::holds;
use exeat_tests::stdio::Session;
use exeat_tests::wait::wait_for;
use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::approvals::{approvals, approve, call, only, posted};
use crate::scripted::{Asked, Body, Scripted, event, plain, result, status, stream};
use crate::talk::{FAR, LEGACY, Place, Talker};
use crate::world::{LIMIT, NAME, URL, World};

const SHAKY: Place = Place {
    host: "shaky.lab.example",
    port: 8443,
    ..FAR
};
const API: &str = "api.lab.example";
const SECRET: &str = "s3cret-0fTheSite.K3y";
/// Of each kind, `bank` has so many tools.
const TOOLS: usize = 150;
/// How often the policy is edited.
const EDITS: u64 = 24;

/// Which of two kinds of tools the policy denies: one generation the one, the next the other.
fn rules(generation: u64) -> String {
    let (left, right) = if generation.is_multiple_of(2) {
        ("deny", "allow")
    } else {
        ("allow", "deny")
    };
    format!(
        "rules:
  - {{ id: guest, who: [guest], servers: [keyed], tools: [look], effect: allow }}
  - {{ id: ask, servers: [bank], tools: [pay], effect: approve, approvers: [boss] }}
  - {{ id: left, who: [tester], servers: [bank], tools: [\"left_*\"], effect: {left} }}
  - {{ id: right, who: [tester], servers: [bank], tools: [\"right_*\"], effect: {right} }}
  - {{ id: tester, who: [tester], methods: [\"*\"], effect: allow }}
"
    )
}

fn policy(lab: &Lab, cgroup: &str, generation: u64) -> String {
    format!(
        "version: 1
identities: {{ tester: {{ user: root }}, guest: {{ user: games }}, boss: {{ user: bin }} }}
credentials: {{ site: {{ file: {0}/site.key, hosts: [{API}] }} }}
servers:
  keyed:
    launch: {{ command: {1}, args: [{0}/keyed.mjs], user: nobody, env: {{ TOKEN: {{ secret: site }} }} }}
    egress: [{{ host: {API}, credential: site }}]
  bank: {{ url: \"{URL}\" }}
  shaky: {{ url: \"https://{2}:{4}/mcp\" }}
hosts: {{ agent: {{ match: {{ cgroup: /{cgroup} }}, servers: [bank, shaky] }} }}
limits: [{{ per: [identity], servers: [bank], tools: [hourly], rate: 2/h }}]
breaker: {{ error_rate: 50%, window: 60s, min_calls: 4, open_for: 2s }}
{3}",
        lab.directory().display(),
        Fixtures::find().unwrap().node(22).display(),
        SHAKY.host,
        rules(generation),
        SHAKY.port,
    )
}

async fn world(lab: &Lab) -> World<'_> {
    let script = include_str!("../system/clients/keyed.mjs");
    lab.put("keyed.mjs", script, 0o644).unwrap();
    lab.keep("site.key", SECRET).unwrap();
    let cgroup = Cgroup::create(&format!("{}host", lab.name())).unwrap();
    let daemon = lab.daemon(&policy(lab, &host(lab), 1)).await.unwrap();
    World {
        lab,
        daemon,
        cgroup,
    }
}

/// The host's cgroup.
fn host(lab: &Lab) -> String {
    format!("{}host", lab.name())
}

fn asks(id: u64, method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

async fn calls(talker: &Talker, place: Place, id: u64, tool: &str) -> Value {
    let call = asks(id, "tools/call", json!({ "name": tool, "arguments": {} }));
    let answer = talker.post(place, &[LEGACY], call.to_string()).await;
    let answer = answer.unwrap();
    let mut json = answer.json();
    if json.is_null() {
        json = json!({ "status": answer.status.as_u16() });
    }
    json
}

/// What `bank` answers.
fn bank(asked: &Asked) -> hyper::Response<Body> {
    if asked.json()["method"] != "tools/list" {
        return plain(asked);
    }
    let tool = |name: String| json!({ "name": name, "inputSchema": { "type": "object" } });
    let tools: Vec<Value> = (0..TOOLS)
        .flat_map(|number| ["left", "right"].map(|side| tool(format!("{side}_{number}"))))
        .collect();
    result(asked, json!({ "tools": tools }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_under_one_policy() {
    let lab = Lab::new().unwrap();
    let api = lab
        .https(&[API], SocketAddr::new(WORLD_OTHER, 443))
        .unwrap();
    let served = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), bank).unwrap();
    let fails = Arc::new(AtomicU16::new(500));
    let failing = Arc::clone(&fails);
    let script = move |asked: &Asked| match failing.load(Ordering::SeqCst) {
        200 => plain(asked),
        code => status(StatusCode::from_u16(code).unwrap()),
    };
    let address = SocketAddr::new(WORLD, SHAKY.port);
    let shaky = Scripted::far(&lab, SHAKY.host, address, script).unwrap();
    let world = world(&lab).await;
    let talker = world.talker().await.unwrap();

    secret(&world, &api).await;
    persons(&world, &talker, &served).await;
    limit(&talker).await;
    breaker(&world, &talker, &shaky, &fails).await;
    served.take();
    edited(&world, &talker, &served).await;
}

/// Two callers of one server, which never holds the secret that its requests carry.
async fn secret(world: &World<'_>, api: &exeat_tests::upstream::Upstream) {
    let (lab, daemon) = (world.lab, &world.daemon);
    let mut tester = daemon.run("keyed").unwrap();
    tester.initialize().await.unwrap();
    let mut guest = lab.inside.command("setpriv");
    guest
        .args(["--reuid", "games", "--clear-groups", "--"])
        .arg(binary().unwrap())
        .args(["run", "keyed", "--config"])
        .arg(lab.directory().join("exeat.yaml"));
    let mut guest = Session::start(guest, &lab.directory().join("run-guest.err")).unwrap();
    guest.initialize().await.unwrap();
    let url = json!({ "url": format!("https://{API}/status?code=200") });
    for (session, tool) in [(&mut tester, "get"), (&mut guest, "look")] {
        let answer = session.call(tool, url.clone()).await.unwrap();
        assert_eq!(answer["result"]["isError"], false, "{answer}");
    }
    let hidden = guest.call("get", url).await.unwrap();
    assert_eq!(hidden["error"]["code"], -32602, "{hidden}");
    let sent = format!("Bearer {SECRET}");
    let seen = api.seen();
    assert_eq!(seen.len(), 2);
    for seen in seen {
        assert_eq!(seen.header("authorization"), Some(&*sent));
    }
    for (user, tool) in [("root", "get"), ("games", "look")] {
        let called = daemon
            .record(tool, |record| {
                record["mcp"]["name"] == tool && record["identity"]["user"] == user
            })
            .await
            .unwrap();
        assert_eq!(called["decision"]["effect"], "allow", "{called}");
    }
    let servers = of_server(daemon.audit().unwrap());
    assert_eq!(servers.len(), 2, "a process for each session: {servers:?}");
    for pid in servers {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let placeholder = environment
            .split('\0')
            .find_map(|variable| variable.strip_prefix("TOKEN="))
            .unwrap();
        assert!(placeholder.starts_with("exeat-"), "{placeholder}");
        assert!(holds(pid, placeholder).unwrap(), "the search finds nothing");
        assert!(!holds(pid, SECRET).unwrap(), "the secret is in {pid}");
    }
    assert!(tester.close().await.unwrap().success());
    assert!(guest.close().await.unwrap().success());
}

/// The processes that sent requests to [`API`], and whatever lives in their cgroups.
fn of_server(records: Vec<Value>) -> Vec<u32> {
    let group = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cgroup")).ok();
    let own: Vec<String> = records
        .iter()
        .filter(|record| record["http"]["credential"] == "site")
        .filter_map(|record| group(&record["workload"]["pid"].to_string()))
        .collect();
    assert!(!own.is_empty(), "no request of the server is recorded");
    let all = fs::read_dir("/proc").unwrap();
    all.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| group(&pid.to_string()).is_some_and(|group| own.contains(&group)))
        .collect()
}

/// A call that a person approves, and one that is rejected.
async fn persons(world: &World<'_>, talker: &Talker, served: &Scripted) {
    let lab = world.lab;
    let (mut events, _) = posted(talker, &call("yes", "pay", 7)).await;
    approve(lab, &only(lab).await).await;
    let answer = events.message().await.unwrap().unwrap();
    assert_eq!(answer["result"]["content"][0]["text"], "ok", "{answer}");
    let (mut events, _) = posted(talker, &call("no", "pay", 7_000_000)).await;
    let id = only(lab).await;
    let denied = ["deny", &id, "--reason", "more than we have"];
    let done = approvals(lab, "bin", &denied).await;
    assert!(done.status.success(), "{}", done.stderr);
    let answer = events.message().await.unwrap().unwrap();
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    let told = &answer["result"]["structuredContent"]["approval"];
    assert_eq!(told["decision"], "denied", "{answer}");
    assert_eq!(told["reason"], "more than we have", "{answer}");
    assert_eq!(served.take().len(), 1, "what was rejected does not arrive");
    let own = world
        .daemon
        .record("the rejected call", |record| {
            record["mcp"]["id"] == "\"no\""
        })
        .await
        .unwrap();
    assert_eq!(own["outcome"]["status"], "refused", "{own}");
}

async fn limit(talker: &Talker) {
    for id in 1..=2 {
        let answer = calls(talker, FAR, id, "hourly").await;
        assert!(answer["result"].is_object(), "{answer}");
    }
    let answer = calls(talker, FAR, 3, "hourly").await;
    let data = &answer["error"]["data"];
    assert_eq!(data["reason"], "limit_reached", "{answer}");
    let wait = data["retry_after_ms"].as_u64().unwrap();
    assert!((3_000_000..=3_600_000).contains(&wait), "{answer}");
}

/// Opened by failures, closed by the one call that is let through.
async fn breaker(world: &World<'_>, talker: &Talker, shaky: &Scripted, fails: &AtomicU16) {
    for id in 11..=14 {
        assert_eq!(calls(talker, SHAKY, id, "get").await["status"], 500);
    }
    let answer = calls(talker, SHAKY, 15, "get").await;
    assert_eq!(
        answer["error"]["data"]["reason"], "breaker_open",
        "{answer}"
    );
    assert_eq!(shaky.take().len(), 4);
    // The others are not concerned.
    let answer = calls(talker, FAR, 16, "left_1").await;
    assert!(answer["result"].is_object(), "{answer}");
    fails.store(200, Ordering::SeqCst);
    wait_for("the trial is let through", LIMIT, async || {
        let answer = calls(talker, SHAKY, 17, "get").await;
        answer["result"].is_object().then_some(())
    })
    .await
    .unwrap();
    assert_eq!(shaky.take().len(), 1, "one call tries");
    let answer = calls(talker, SHAKY, 18, "get").await;
    assert!(answer["result"].is_object(), "{answer}");
    let status = world.daemon.status().await.unwrap();
    let stands = status["breakers"].as_array().unwrap();
    let closed = |stand: &Value| stand["position"] == "closed";
    assert!(stands.iter().all(closed), "{status}");
}

/// What came of a request: what a list shows, or whether a call passed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Came {
    Passed,
    Hidden,
    Lists(Vec<String>),
}

fn came(answer: &Value) -> Came {
    if let Some(tools) = answer["result"]["tools"].as_array() {
        let names = tools.iter().map(|tool| tool["name"].as_str().unwrap());
        return Came::Lists(names.map(str::to_owned).collect());
    }
    if answer["result"].is_object() {
        return Came::Passed;
    }
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
    Came::Hidden
}

/// What comes of a request under the policy of `generation`, and of no other.
fn due(generation: u64, asked: &str) -> Came {
    let shown = if generation.is_multiple_of(2) {
        "right"
    } else {
        "left"
    };
    if asked == "list" {
        let names = (0..TOOLS).map(|number| format!("{shown}_{number}"));
        return Came::Lists(names.collect());
    }
    if asked.starts_with(shown) {
        Came::Passed
    } else {
        Came::Hidden
    }
}

/// Requests without a pause while the policy is edited: each is decided by one generation, which its record names.
async fn edited(world: &World<'_>, talker: &Talker, served: &Scripted) {
    let (next, over) = (AtomicU64::new(1000), AtomicBool::new(false));
    let told = Mutex::new(BTreeMap::new());
    let work = async |asked: &'static str| {
        while !over.load(Ordering::SeqCst) {
            let id = next.fetch_add(1, Ordering::SeqCst);
            let answer = if asked == "list" {
                let list = asks(id, "tools/list", json!({}));
                let answer = talker.post(FAR, &[LEGACY], list.to_string()).await;
                answer.unwrap().json()
            } else {
                calls(talker, FAR, id, asked).await
            };
            told.lock().unwrap().insert(id, (asked, came(&answer)));
        }
    };
    let edits = async {
        for generation in 2..2 + EDITS {
            let before = told.lock().unwrap().len();
            let text = policy(world.lab, &host(world.lab), generation);
            world.daemon.replace_policy(&text).unwrap();
            wait_for("the edited policy is in force", LIMIT, async || {
                let status = world.daemon.status().await.ok()?;
                let enough = told.lock().unwrap().len() >= before + 4;
                (enough && status["policy"]["generation"] == generation).then_some(())
            })
            .await
            .unwrap();
        }
        over.store(true, Ordering::SeqCst);
    };
    tokio::join!(
        work("left_1"),
        work("right_1"),
        work("list"),
        work("list"),
        edits
    );

    let told = told.into_inner().unwrap();
    let mut passed = Vec::new();
    let mut generations = BTreeSet::new();
    let records = wait_for("every request's record", LIMIT, async || {
        let records = world.daemon.audit().ok()?.into_iter();
        let by_id = records.filter_map(|record| {
            let id = record["mcp"]["id"].as_str()?.parse::<u64>().ok()?;
            Some((id, record))
        });
        let records: BTreeMap<u64, Value> = by_id.collect();
        told.keys()
            .all(|id| records.contains_key(id))
            .then_some(records)
    })
    .await
    .unwrap();
    for (id, (asked, came)) in &told {
        let record = &records[id];
        let generation = record["decision"]["generation"].as_u64().unwrap();
        assert_eq!(*came, due(generation, asked), "{asked}: {record}");
        let effect = &record["decision"]["effect"];
        let allowed = *came != Came::Hidden;
        assert_eq!(effect == "allow", allowed, "{record}");
        if allowed {
            passed.push(*id);
        }
        generations.insert(generation);
    }
    assert!(generations.len() > 12, "{generations:?} of {}", told.len());
    // What arrived is what passed.
    let mut arrived: Vec<u64> = served
        .take()
        .iter()
        .filter_map(|asked| asked.json()["id"].as_u64())
        .collect();
    arrived.sort_unstable();
    assert_eq!(arrived, passed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_shown_by_the_policy_that_its_record_names() {
    let lab = Lab::new().unwrap();
    let held = Arc::new(Mutex::new(None));
    let holds = Arc::clone(&held);
    let script = move |asked: &Asked| {
        if asked.json()["method"] != "tools/list" {
            return plain(asked);
        }
        let (writer, response) = stream();
        *holds.lock().unwrap() = Some(writer);
        response
    };
    let _server = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), script).unwrap();
    let rest = |list: &str, tool: &str| {
        format!(
            "rules: [{{ id: list, methods: [ping, tools/list], effect: {list} }}, {{ id: call, tools: [{tool}], effect: allow }}, {{ id: open, methods: [resources/list], effect: allow }}]"
        )
    };
    let world = World::new(&lab, &[("bank", URL)], &rest("allow", "one")).await;
    let world = world.unwrap();
    let talker = world.talker().await.unwrap();
    for (id, list, shown) in [(1, "allow", Some("two")), (2, "deny", None)] {
        let first = rest("allow", "one");
        world.replace(&[("bank", URL)], "[]", &first).unwrap();
        in_force(&world, id * 2 - 1).await;
        let asked = asks(id, "tools/list", json!({})).to_string();
        let asked = talker.post(FAR, &[LEGACY], asked);
        let edit = async {
            let writer = wait_for("the list is asked for", LIMIT, async || {
                held.lock().unwrap().take()
            })
            .await
            .unwrap();
            world
                .replace(&[("bank", URL)], "[]", &rest(list, "two"))
                .unwrap();
            in_force(&world, id * 2).await;
            let tool = |name| json!({ "name": name, "inputSchema": { "type": "object" } });
            let tools = [tool("one"), tool("two")];
            let answer = json!({ "jsonrpc": "2.0", "id": id, "result": { "tools": tools } });
            writer.send_data(event(&answer)).await.unwrap();
        };
        let (answer, ()) = tokio::join!(asked, edit);
        let text = String::from_utf8_lossy(&answer.unwrap().body).into_owned();
        assert!(!text.contains("\"one\""), "{text}");
        assert_eq!(text.contains("\"two\""), shown.is_some(), "{text}");
        let named = id.to_string();
        let record = world
            .daemon
            .record("the list's record", |record| {
                record["mcp"]["id"].as_str() == Some(&*named)
            })
            .await
            .unwrap();
        assert_eq!(record["decision"]["generation"], id * 2, "{record}");
        let effect = &record["decision"]["effect"];
        assert_eq!(effect, list, "{record}");
    }
}

async fn in_force(world: &World<'_>, generation: u64) {
    let what = format!("generation {generation} is in force");
    wait_for(&what, LIMIT, async || {
        let status = world.daemon.status().await.ok()?;
        (status["policy"]["generation"] == generation).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_not_sent_where_another_policy_let_its_request_go() {
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), plain).unwrap();
    let rest = |effect: &str| {
        format!(
            "rules: [{{ id: all, methods: [\"*\"], effect: allow }}, {{ id: some, tools: [pay], effect: {effect} }}]"
        )
    };
    let world = World::new(&lab, &[("bank", URL)], &rest("deny")).await;
    let world = world.unwrap();
    let talker = world.talker().await.unwrap();
    let body = call("slow", "pay", 1).to_string();
    let mut stream = talker.dial(FAR, &["http/1.1"]).await.unwrap();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: {NAME}\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream\r\n\
         mcp-protocol-version: 2025-11-25\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut buffer = [0; 4096];
    let length = stream.read(&mut buffer).await.unwrap();
    let interim = String::from_utf8_lossy(&buffer[..length]).into_owned();
    assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
    // The server moved, and its tool is allowed there; where the request goes is no server any more.
    let moved = [("bank", "https://moved.lab.example/mcp")];
    let egress = format!("[{{ host: {NAME} }}]");
    world.replace(&moved, &egress, &rest("allow")).unwrap();
    in_force(&world, 2).await;
    stream.write_all(body.as_bytes()).await.unwrap();
    let length = stream.read(&mut buffer).await.unwrap();
    let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
    assert!(answer.contains("\"error\""), "{answer}");
    let record = world
        .daemon
        .record("the call's record", |record| {
            record["mcp"]["id"] == "\"slow\""
        })
        .await
        .unwrap();
    assert_eq!(record["decision"]["effect"], "deny", "{record}");
    assert_eq!(record["decision"]["generation"], 2, "{record}");
    assert!(server.seen().is_empty(), "neither policy lets it go there");
}
