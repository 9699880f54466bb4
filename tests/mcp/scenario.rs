//! A whole site under one policy: two callers, three servers, everything that a policy can ask for, and the policy
//! edited meanwhile. The servers are others' programs, and so are the SDKs that call them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use exeat_tests::Lab;
use exeat_tests::cgroup::Cgroup;
use exeat_tests::fixtures::{Client, Fixtures, Invocation, Server};
use exeat_tests::lab::{WORLD, WORLD_OTHER};
use exeat_tests::process::{Process, holds, run};
use exeat_tests::wait::wait_for;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::approvals::{approvals, approve, only};
use crate::scripted::{Asked, Body, Scripted, Writer, plain, result, stream};
use crate::stdio_real::through;
use crate::talk::{FAR, LEGACY, Place, Talker};
use crate::world::{LIMIT, NAME, URL, World, reference};

/// npm's server-everything, on loopback.
const EVERYTHING: Place = Place {
    host: "localhost",
    port: 3921,
    tls: false,
    ..FAR
};
const EVERYTHING_URL: &str = "http://localhost:3921/mcp";
const API: &str = "cluster.lab.example";
const SECRET: &str = "s3cret-0fTheSite.K3y";
/// Of each kind, `bank` has so many tools.
const TOOLS: usize = 150;
/// How often the policy is edited.
const EDITS: u64 = 24;

/// How long two outcomes of SDKs' calls may take at most, under policies that alternate.
const ALTERNATION: Duration = Duration::from_mins(3);

/// Which of two kinds of tools the policy denies: one generation the one, the next the other.
fn rules(generation: u64) -> String {
    let (left, right) = if generation.is_multiple_of(2) {
        ("deny", "allow")
    } else {
        ("allow", "deny")
    };
    format!(
        "rules:
  - {{ id: guest, who: [guest], servers: [elastic], tools: [get_shards], effect: allow }}
  - {{ id: ask, servers: [memory], tools: [create_entities], effect: approve, approvers: [boss] }}
  - {{ id: left, who: [tester], servers: [bank, everything], tools: [\"left_*\", echo], effect: {left} }}
  - {{ id: right, who: [tester], servers: [bank, everything], tools: [\"right_*\", get-sum], effect: {right} }}
  - {{ id: tester, who: [tester], methods: [\"*\"], effect: allow }}
"
    )
}

/// How a server over stdio is started.
fn launched(server: &Invocation) -> String {
    let arguments = server.arguments.iter().map(|text| text.to_string_lossy());
    let arguments = arguments.map(|text| format!("\"{text}\""));
    let arguments: Vec<String> = arguments.collect();
    format!(
        "command: {}, args: [{}], user: nobody",
        server.program.display(),
        arguments.join(", ")
    )
}

fn policy(lab: &Lab, cgroup: &str, generation: u64) -> String {
    let fixtures = Fixtures::find().unwrap();
    format!(
        "version: 1
identities: {{ tester: {{ user: root }}, guest: {{ user: games }}, boss: {{ user: bin }} }}
credentials: {{ site: {{ file: {0}/site.key, header: Authorization, prefix: \"ApiKey \", hosts: [{API}] }} }}
servers:
  elastic:
    launch: {{ {1}, env: {{ ES_URL: \"https://{API}\", ES_API_KEY: {{ secret: site }}, OTEL_SDK_DISABLED: \"true\" }} }}
    egress: [{{ host: {API}, credential: site }}]
  memory: {{ launch: {{ {2}, env: {{ MEMORY_FILE_PATH: {3} }} }} }}
  everything: {{ url: \"{EVERYTHING_URL}\" }}
  bank: {{ url: \"{URL}\" }}
hosts: {{ agent: {{ match: {{ cgroup: /{cgroup} }}, servers: [bank, everything] }} }}
limits: [{{ per: [identity], servers: [everything], tools: [get-tiny-image], rate: 2/h }}]
breaker: {{ error_rate: 50%, window: 60s, min_calls: 4, open_for: 2s }}
{4}",
        lab.directory().display(),
        launched(&fixtures.server(Server::Elasticsearch)),
        launched(&fixtures.server(Server::Memory)),
        graph(lab).display(),
        rules(generation),
    )
}

/// What `memory` keeps.
fn graph(lab: &Lab) -> PathBuf {
    lab.directory().join("graph/memory.json")
}

async fn world(lab: &Lab) -> World<'_> {
    let graph = graph(lab);
    let place = graph.parent().unwrap();
    fs::create_dir(place).unwrap();
    chown(place, Some(65534), Some(65534)).unwrap();
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

pub(crate) fn asks(id: u64, method: &str, params: Value) -> Value {
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

/// What `client`, which `user` runs, prints of a call over stdio.
async fn over_stdio(
    lab: &Lab,
    (client, user): (Client, &str),
    server: &str,
    tool: &str,
    arguments: Value,
) -> Value {
    let command = serde_json::to_string(&through(lab, server)).unwrap();
    let fixtures = Fixtures::find().unwrap();
    let call = fixtures.client(client, &command, tool, &arguments.to_string());
    let mut launcher = lab.inside.command("setpriv");
    launcher.args(["--reuid", user, "--clear-groups", "--"]);
    let done = run(&mut call.under(launcher), LIMIT).await.unwrap();
    done.json().unwrap()
}

/// What `client` prints of a call of server-everything, from the managed host.
async fn over_http(world: &World<'_>, client: Client, tool: &str, arguments: Value) -> Value {
    let fixtures = Fixtures::find().unwrap();
    let call = fixtures.client(client, EVERYTHING_URL, tool, &arguments.to_string());
    world.run(&call).await.unwrap().json().unwrap()
}

async fn everything(lab: &Lab) -> Process {
    let server = Fixtures::find().unwrap().server(Server::Reference);
    let started = reference(lab, server, "streamableHttp", EVERYTHING.port);
    started.await.unwrap()
}

type Held = Arc<Mutex<Vec<Writer>>>;

/// A cluster whose answers wait for the test.
fn cluster(lab: &Lab, held: &Held) -> Scripted {
    let held = Arc::clone(held);
    let script = move |_asked: &Asked| {
        let (writer, mut response) = stream();
        held.lock().unwrap().push(writer);
        let json = HeaderValue::from_static("application/json");
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, json);
        // Its clients talk to nothing else.
        let product = HeaderValue::from_static("Elasticsearch");
        headers.insert("x-elastic-product", product);
        response
    };
    Scripted::far(lab, API, SocketAddr::new(WORLD_OTHER, 443), script).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_under_one_policy() {
    let lab = Lab::new().unwrap();
    let held = Held::default();
    let api = cluster(&lab, &held);
    // The one server of our own: no other lists so much that an edit falls into its list, and tells what arrived.
    let served = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), bank).unwrap();
    let mut running = everything(&lab).await;
    let world = world(&lab).await;
    let talker = world.talker().await.unwrap();

    secret(&world, &api, &held).await;
    tokio::join!(persons(&world), hidden(&lab, &api), limit(&world));
    running = breaker(&world, &talker, running).await;
    served.take();
    edited(&world, &talker, &served).await;
    running.stop().await.unwrap();
}

/// Two callers of one server, which never holds the secret that its requests carry.
async fn secret(world: &World<'_>, api: &Scripted, held: &Held) {
    let lab = world.lab;
    let (tester, guest) = ((Client::Ts1, "root"), (Client::Py1, "games"));
    let indices = json!({ "indexPattern": "*" });
    let searched = async {
        let writers = wait_for("both requests arrive", LIMIT, async || {
            let mut held = held.lock().unwrap();
            (held.len() == 2).then(|| std::mem::take(&mut *held))
        });
        let writers = writers.await.unwrap();
        let servers = of_server();
        assert_eq!(servers.len(), 2, "a process for each session: {servers:?}");
        thread::scope(|scope| {
            for pid in servers {
                scope.spawn(move || keeps_no_secret(pid));
            }
        });
        for writer in writers {
            let answer = json!([{ "index": "accounts", "shard": "0" }]);
            writer.send_data(answer.to_string().into()).await.unwrap();
        }
    };
    let (list, shards, ()) = tokio::join!(
        over_stdio(lab, tester, "elastic", "list_indices", indices),
        over_stdio(lab, guest, "elastic", "get_shards", json!({})),
        searched
    );
    assert_eq!(list["text"], "Found 1 indices", "{list}");
    assert_eq!(shards["text"], "Found 1 shards", "{shards}");
    assert_eq!(shards["tools"], json!(["get_shards"]), "{shards}");
    let sent = format!("ApiKey {SECRET}");
    let seen = api.seen();
    assert_eq!(seen.len(), 2);
    for seen in seen {
        assert_eq!(seen.header("authorization"), Some(&*sent));
    }
    for (user, tool) in [("root", "list_indices"), ("games", "get_shards")] {
        let called = world
            .daemon
            .record(tool, |record| {
                record["mcp"]["name"] == tool && record["identity"]["user"] == user
            })
            .await
            .unwrap();
        assert_eq!(called["decision"]["effect"], "allow", "{called}");
    }
}

/// What one caller may call the other is not shown.
async fn hidden(lab: &Lab, api: &Scripted) {
    let indices = json!({ "indexPattern": "*" });
    let guest = (Client::Py2, "games");
    let hidden = over_stdio(lab, guest, "elastic", "list_indices", indices).await;
    assert_eq!(hidden["error"]["code"], -32602, "{hidden}");
    assert_eq!(api.seen().len(), 2, "nothing more arrives");
}

fn environment(pid: u32) -> String {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    String::from_utf8_lossy(&environment).into_owned()
}

/// Nowhere in its memory and environment.
fn keeps_no_secret(pid: u32) {
    let environment = environment(pid);
    let placeholder = environment
        .split('\0')
        .find_map(|variable| variable.strip_prefix("ES_API_KEY="))
        .unwrap();
    assert!(placeholder.starts_with("exeat-"), "{placeholder}");
    for there in [placeholder, "Found ${indicesInfo.length} indices"] {
        assert!(holds(pid, there).unwrap(), "the search finds nothing");
    }
    assert!(!holds(pid, SECRET).unwrap(), "the secret is in {pid}");
}

/// The processes that were told of [`API`], and whatever lives in their cgroups.
fn of_server() -> Vec<u32> {
    let group = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cgroup")).ok();
    let pids = || {
        let all = fs::read_dir("/proc").unwrap();
        all.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok())
    };
    let told = format!("ES_URL=https://{API}\0");
    let own: Vec<String> = pids()
        .filter(|pid| environment(*pid).contains(&told))
        .filter_map(|pid| group(&pid))
        .collect();
    pids()
        .filter(|pid| group(pid).is_some_and(|group| own.contains(&group)))
        .collect()
}

/// A call that a person approves, and one that is rejected.
async fn persons(world: &World<'_>) {
    let lab = world.lab;
    let entity = |name: &str| json!({ "entities": [{ "name": name, "entityType": "bill", "observations": ["due"] }] });
    let calls = async |client, name| {
        over_stdio(
            lab,
            (client, "root"),
            "memory",
            "create_entities",
            entity(name),
        )
        .await
    };
    let says = async { approve(lab, &only(lab).await).await };
    let (answer, ()) = tokio::join!(calls(Client::Ts2, "bill-paid"), says);
    assert_eq!(answer["error"], Value::Null, "{answer}");
    assert_eq!(answer["isError"], false, "{answer}");
    let says = async {
        let id = only(lab).await;
        let denied = ["deny", &id, "--reason", "more than we have"];
        let done = approvals(lab, "bin", &denied).await;
        assert!(done.status.success(), "{}", done.stderr);
    };
    let (answer, ()) = tokio::join!(calls(Client::Py2, "bill-rejected"), says);
    assert_eq!(answer["isError"], true, "{answer}");
    let text = answer["text"].as_str().unwrap();
    assert!(text.contains("more than we have"), "{answer}");
    let kept = fs::read_to_string(graph(lab)).unwrap();
    assert!(kept.contains("bill-paid"), "{kept}");
    assert!(!kept.contains("bill-rejected"), "it arrived: {kept}");
    let own = world
        .daemon
        .record("the rejected call", |record| {
            record["mcp"]["name"] == "create_entities"
                && record["approval"]["decision"] == "denied"
                && record["kind"] == "mcp"
        })
        .await
        .unwrap();
    assert_eq!(own["outcome"]["status"], "refused", "{own}");
}

/// Three clients of one identity: what one of them has used the others have not.
async fn limit(world: &World<'_>) {
    for client in [Client::Ts1, Client::Py2] {
        let answer = over_http(world, client, "get-tiny-image", json!({})).await;
        assert!(answer["text"].is_string(), "{answer}");
    }
    let answer = over_http(world, Client::Py1, "get-tiny-image", json!({})).await;
    let data = &answer["error"]["data"];
    assert_eq!(data["reason"], "limit_reached", "{answer}");
    let wait = data["retry_after_ms"].as_u64().unwrap();
    assert!((3_000_000..=3_600_000).contains(&wait), "{answer}");
}

/// Opened while the server is stopped, closed by the one call that is let through when it runs again.
async fn breaker(world: &World<'_>, talker: &Talker, mut server: Process) -> Process {
    server.stop().await.unwrap();
    // The SDKs' clients shake hands first, and call nothing that does not answer.
    for id in 11..=14 {
        let answer = calls(talker, EVERYTHING, id, "get-structured-content").await;
        assert!(answer["result"].is_null(), "{answer}");
    }
    let answer = calls(talker, EVERYTHING, 15, "get-structured-content").await;
    assert_eq!(
        answer["error"]["data"]["reason"], "breaker_open",
        "{answer}"
    );
    // The others are not concerned.
    let answer = calls(talker, FAR, 16, "left_1").await;
    assert!(answer["result"].is_object(), "{answer}");
    let server = everything(world.lab).await;
    let arguments = json!({ "location": "Chicago" });
    wait_for("the trial is let through", LIMIT, async || {
        let tool = "get-structured-content";
        let answer = over_http(world, Client::Ts2, tool, arguments.clone()).await;
        let reason = &answer["error"]["data"]["reason"];
        assert!(
            answer["error"].is_null() || reason == "breaker_open",
            "{answer}"
        );
        answer["text"].as_str().map(drop)
    })
    .await
    .unwrap();
    let status = world.daemon.status().await.unwrap();
    let stands = status["breakers"].as_array().unwrap();
    let closed = |stand: &Value| stand["position"] == "closed";
    assert!(stands.iter().all(closed), "{status}");
    for event in ["breaker_opened", "breaker_closed"] {
        world
            .daemon
            .record(event, |record| {
                record["finding"]["what"] == event || record["lifecycle"]["event"] == event
            })
            .await
            .unwrap();
    }
    server
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

/// Calls of server-everything by two SDKs' clients, one after the other: each is shown one of the two tools. `passed`
/// gets whether they did.
async fn sdk(world: &World<'_>, over: &AtomicBool, passed: &Mutex<BTreeSet<bool>>) {
    let arguments = json!({ "message": "hello", "a": 20, "b": 22 });
    let clients = [(Client::Ts1, "echo"), (Client::Py2, "get-sum")];
    for (client, tool) in clients.into_iter().cycle() {
        if over.load(Ordering::SeqCst) {
            break;
        }
        let answer = over_http(world, client, tool, arguments.clone()).await;
        passed.lock().unwrap().insert(answer["error"].is_null());
        if answer["error"].is_null() {
            let shown = answer["tools"].as_array().unwrap();
            let shown = ["echo", "get-sum"].map(|tool| shown.contains(&json!(tool)));
            assert_ne!(shown[0], shown[1], "{answer}");
            assert!(answer["text"].is_string(), "{answer}");
        } else {
            assert_eq!(answer["error"]["code"], -32602, "{answer}");
        }
    }
}

/// Each of those calls is decided as the policy does that its record names.
async fn by_generation(world: &World<'_>) {
    let effects = wait_for("both come to the log", LIMIT, async || {
        let effects = effects_of(&world.daemon.audit().ok()?);
        (effects.len() == 2).then_some(())
    });
    effects.await.unwrap();
}

fn effects_of(records: &[Value]) -> BTreeSet<bool> {
    let mut effects = BTreeSet::new();
    for record in records {
        let side = match record["mcp"]["name"].as_str() {
            Some("echo") => "left",
            Some("get-sum") => "right",
            _ => continue,
        };
        let decision = &record["decision"];
        let due = due(decision["generation"].as_u64().unwrap(), side);
        let allowed = decision["effect"] == "allow";
        assert_eq!(allowed, due == Came::Passed, "{record}");
        effects.insert(allowed);
    }
    effects
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
    let sdks = Mutex::new(BTreeSet::new());
    let edits = async {
        let mut generation = 1;
        // A call by an SDK's client may take longer than several edits.
        while generation < 1 + EDITS || sdks.lock().unwrap().len() < 2 {
            generation += 1;
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
        sdk(world, &over, &sdks),
        async {
            let done = timeout(ALTERNATION, edits).await;
            done.unwrap_or_else(|_elapsed| panic!("of SDKs' calls came {sdks:?}"));
        }
    );
    by_generation(world).await;

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
