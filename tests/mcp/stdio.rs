//! Servers under `exeat run`: a server whose every byte the test reads and writes, and what policy, records and
//! causes say of what passes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use exeat_tests::Lab;
use exeat_tests::daemon::Daemon;
use exeat_tests::fixtures::{Fixtures, Server};
use exeat_tests::lab::WORLD;
use exeat_tests::process::must;
use exeat_tests::stdio::Session;
use exeat_tests::wait::wait_for;
use serde_json::{Value, json};

use crate::world::LIMIT;

/// Everything is allowed.
pub(crate) const ALL: &str = "rules: [{ id: all, methods: [\"*\"], effect: allow }]";

/// A server that is moved by hand: what it hears is in a file, what it says comes from a pipe.
pub(crate) struct Wire {
    heard: PathBuf,
    say: File,
}

/// `$1`, or else `$0`, is where its files are.
const WIRE: &str = r#"at=${1:-$0}; exec 3<>"$at.say"; cat <&3 & exec cat >>"$at.heard""#;

/// A policy with the server `wire`, and `rest`.
pub(crate) fn policy(lab: &Lab, rest: &str) -> String {
    let at = lab.directory().join("wire");
    format!(
        "version: 1
servers:
  wire:
    purpose: whatever a test says
    owner: tests@lab.example
    launch: {{ command: /bin/sh, args: [-c, '{}', {}], extra_args: ['/*'], user: nobody }}
{rest}
",
        WIRE.replace('\'', "''"),
        at.display()
    )
}

impl Wire {
    /// The files of the instance `name`.
    pub(crate) fn new(lab: &Lab, name: &str) -> Self {
        let at = |end: &str| lab.directory().join(format!("{name}.{end}"));
        let (say, heard) = (at("say"), at("heard"));
        must("mkfifo", &[&say]).unwrap();
        fs::write(&heard, "").unwrap();
        for path in [&say, &heard] {
            // Whatever the umask is: servers run as nobody.
            must("chmod", &[Path::new("666"), path]).unwrap();
        }
        let say = File::options().read(true).write(true).open(say).unwrap();
        Self { heard, say }
    }

    /// Says these bytes.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.say.write_all(bytes).unwrap();
    }

    /// Says one message.
    pub(crate) fn say(&mut self, message: &Value) {
        self.raw(format!("{message}\n").as_bytes());
    }

    /// Everything it has heard.
    pub(crate) fn heard(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.heard).unwrap()).into_owned()
    }

    /// How many bytes that is.
    pub(crate) fn heard_bytes(&self) -> u64 {
        fs::metadata(&self.heard).unwrap().len()
    }

    /// Waits until it has heard a line in which `text` stands; that line.
    pub(crate) async fn hears(&self, text: &str) -> String {
        wait_for(&format!("the server hears {text}"), LIMIT, async || {
            let heard = self.heard();
            let mut lines = heard
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'));
            lines.find(|line| line.contains(text)).map(str::to_owned)
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}: {}", self.heard()))
    }

    /// Answers the request with `id` by an empty result.
    pub(crate) fn answers(&mut self, id: &Value) {
        self.say(&json!({ "jsonrpc": "2.0", "id": id, "result": {} }));
    }
}

/// Has a call of the tool `slow` become the task `id`.
pub(crate) async fn becomes(session: &mut Session, wire: &mut Wire, id: &str) {
    let params = json!({ "name": "slow", "arguments": {}, "task": {} });
    let call = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
    session.send(&call).await.unwrap();
    wire.hears(&format!("\"id\":\"{id}\"")).await;
    let task = json!({ "task": { "taskId": id, "status": "working" } });
    wire.say(&json!({ "jsonrpc": "2.0", "id": id, "result": task }));
    assert_eq!(session.receive().await.unwrap()["result"], task);
}

/// A session with the wire server, past its handshake-free beginning: it has answered a ping.
pub(crate) async fn wired(daemon: &Daemon<'_>, wire: &mut Wire) -> Session {
    let mut session = daemon.run("wire").unwrap();
    alive(&mut session, wire, "begin").await;
    session
}

/// A session with the instance `name` of the server `wire`.
pub(crate) fn instance(lab: &Lab, name: &str) -> Session {
    let mut command = lab.exeat(&["run", "wire"]).unwrap();
    command.arg("--").arg(lab.directory().join(name));
    Session::start(command, &lab.directory().join(format!("{name}.err"))).unwrap()
}

/// Sends a ping with `id` and waits for its answer, passing over everything else; what was passed over.
pub(crate) async fn alive(session: &mut Session, wire: &mut Wire, id: &str) -> Vec<Value> {
    let ping = json!({ "jsonrpc": "2.0", "id": id, "method": "ping" });
    session.send(&ping).await.unwrap();
    wire.hears(&format!("\"{id}\"")).await;
    wire.answers(&json!(id));
    let mut others = Vec::new();
    loop {
        let message = session.receive().await.unwrap();
        if message["id"] == id {
            assert!(message["result"].is_object(), "{message}");
            return others;
        }
        others.push(message);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_decided_lists_filtered_and_everything_recorded() {
    let fixtures = Fixtures::find().unwrap();
    let lab = Lab::new().unwrap();
    let server = fixtures.server(Server::Ts2).arg("--stdio");
    let policy = format!(
        "version: 1
servers:
  notes:
    purpose: the fixture
    owner: tests@lab.example
    launch: {{ command: {}, args: [{}], user: nobody }}
rules: [{{ id: some, servers: [notes], tools: [echo, add, slow], effect: allow }}]
limits: [{{ per: [session, tool], tools: [add], calls: 2 }}]
",
        server.program.display(),
        server
            .arguments
            .iter()
            .map(|argument| argument.to_string_lossy())
            .collect::<Vec<_>>()
            .join(", ")
    );
    let daemon = lab.daemon(&policy).await.unwrap();
    let mut session = daemon.run("notes").unwrap();
    let answer = session.initialize().await.unwrap();
    assert_eq!(
        answer["result"]["serverInfo"]["name"], "fixture-ts2",
        "{answer}"
    );
    let list = session.request("tools/list", json!({})).await.unwrap();
    let names: Vec<&str> = list["result"]["tools"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|tool| tool["name"].as_str())
        .collect();
    assert_eq!(names, ["echo", "add", "slow"], "{list}");
    let called = session.call("echo", json!({ "message": "hi" })).await;
    assert_eq!(called.unwrap()["result"]["content"][0]["text"], "hi");
    let hidden = session
        .call("destroy", json!({ "name": "x" }))
        .await
        .unwrap();
    assert_eq!(hidden["error"]["code"], -32602, "{hidden}");
    assert_eq!(
        hidden["error"]["message"], "Unknown tool: destroy",
        "{hidden}"
    );
    for turn in 0..3 {
        let answer = session
            .call("add", json!({ "a": 1, "b": turn }))
            .await
            .unwrap();
        let code = answer["error"]["code"].as_i64();
        assert_eq!(code, (turn == 2).then_some(-31429), "{answer}");
    }
    // Limits are each session's own.
    let mut second = daemon.run("notes").unwrap();
    second.initialize().await.unwrap();
    let answer = second
        .call("add", json!({ "a": 20, "b": 22 }))
        .await
        .unwrap();
    assert_eq!(answer["result"]["content"][0]["text"], "42", "{answer}");
    second.close().await.unwrap();
    // Progress comes before its answer, and is counted, as what the host tells is.
    let params = json!({ "name": "slow", "arguments": { "seconds": 0.1 }, "_meta": { "progressToken": "p" } });
    session
        .send(&json!({ "jsonrpc": "2.0", "id": "slow", "method": "tools/call", "params": params }))
        .await
        .unwrap();
    let mut progress = 0;
    loop {
        let message = session.receive().await.unwrap();
        if message["id"] == "slow" {
            break;
        }
        assert_eq!(message["method"], "notifications/progress", "{message}");
        progress += 1;
    }
    assert_eq!(progress, 10);
    let status = session.close().await.unwrap();
    assert_eq!(status.code(), Some(0), "{status}");

    let ended = daemon
        .record("the session's end", |record| {
            record["lifecycle"]["event"] == "session_ended"
                && record["lifecycle"]["counts"]
                    .to_string()
                    .contains("notifications/progress")
        })
        .await
        .unwrap();
    let counted = |what: &str| {
        let counts = ended["lifecycle"]["counts"].as_array().unwrap();
        let found = counts.iter().find(|counted| counted["what"] == what);
        found.map(|counted| counted["count"].clone())
    };
    assert_eq!(
        counted("notifications/progress"),
        Some(json!(10)),
        "{ended}"
    );
    assert_eq!(counted("refused"), Some(json!(2)), "{ended}");
    assert_eq!(counted("violations"), None, "{ended}");
    let id = &ended["session"]["id"];
    let records = daemon.audit().unwrap();
    let own: Vec<&Value> = records
        .iter()
        .filter(|record| record["session"]["id"] == *id && record["kind"] == "mcp")
        .collect();
    let methods: Vec<&str> = own
        .iter()
        .filter_map(|record| record["mcp"]["method"].as_str())
        .collect();
    assert_eq!(
        methods,
        [
            "initialize",
            "notifications/initialized",
            "tools/list",
            "tools/call",
            "tools/call",
            "tools/call",
            "tools/call",
            "tools/call",
            "notifications/progress",
            "notifications/progress",
            "notifications/progress",
            "notifications/progress",
            "tools/call"
        ]
    );
    let call = own[3];
    assert_eq!(call["mcp"]["server"], "notes", "{call}");
    assert_eq!(call["mcp"]["name"], "echo", "{call}");
    assert_eq!(call["mcp"]["response"], "result", "{call}");
    assert_eq!(call["identity"]["user"], "root", "{call}");
    assert_eq!(call["session"]["client"], "lab", "{call}");
    assert_eq!(call["session"]["revision"], "2025-11-25", "{call}");
    assert_eq!(call["session"]["host"]["pid"], std::process::id(), "{call}");
    assert_eq!(call["decision"]["rule"], "some", "{call}");
    assert_eq!(call["inspected"]["response"]["extent"], "full", "{call}");
    assert_eq!(own[4]["decision"]["effect"], "deny", "{}", own[4]);
    let started = records
        .iter()
        .find(|record| record["id"] == *id)
        .expect("the session is named by the record of its beginning");
    let host = &started["session"]["host"];
    let exe = std::env::current_exe().unwrap();
    assert_eq!(host["exe"], exe.to_str().unwrap(), "{started}");
    assert!(
        host["ancestors"]
            .as_array()
            .is_some_and(|line| !line.is_empty()),
        "{started}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outbound_request_names_its_tool_call_and_not_another_instances() {
    const NAME: &str = "api.lab.example";
    let fixtures = Fixtures::find().unwrap();
    let lab = Lab::new().unwrap();
    let _api = lab.https(&[NAME], SocketAddr::new(WORLD, 443)).unwrap();
    let server = fixtures.server(Server::Ts2).arg("--stdio");
    let arguments: Vec<_> = server
        .arguments
        .iter()
        .map(|a| a.to_string_lossy())
        .collect();
    let policy = format!(
        "version: 1
servers:
  notes:
    purpose: the fixture
    owner: tests@lab.example
    launch: {{ command: {}, args: [{}], user: nobody }}
    egress: [{{ host: {NAME} }}]
{ALL}
",
        server.program.display(),
        arguments.join(", ")
    );
    let daemon = lab.daemon(&policy).await.unwrap();
    let (mut one, mut two) = (daemon.run("notes").unwrap(), daemon.run("notes").unwrap());
    one.initialize().await.unwrap();
    two.initialize().await.unwrap();
    let fetch = |path: &str| json!({ "url": format!("https://{NAME}{path}") });
    let (first, second) = tokio::join!(
        one.call("fetch", fetch("/slow?ms=1200")),
        two.call("fetch", fetch("/slow?ms=1201"))
    );
    for answer in [first.unwrap(), second.unwrap()] {
        assert_ne!(answer["result"]["isError"], true, "{answer}");
    }
    for path in ["/slow?ms=1200", "/slow?ms=1201"] {
        let outbound = daemon
            .record("the outbound request", |record| {
                record["http"]["path"] == path
            })
            .await
            .unwrap();
        let call = daemon
            .record("its call", |record| {
                record["mcp"]["arguments"]["url"]
                    .as_str()
                    .is_some_and(|url| url.ends_with(path))
            })
            .await
            .unwrap();
        assert_eq!(
            outbound["cause"],
            json!({ "id": call["id"] }),
            "{outbound} {call}"
        );
        assert_eq!(call["cause"], Value::Null, "{call}");
    }
    one.close().await.unwrap();
    two.close().await.unwrap();
}

/// What the server asks of the host is decided as well: answered to whoever asked, and unseen by the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_asks_is_decided() {
    let lab = Lab::new().unwrap();
    let rules = "rules:
  - { id: safe, tools: [safe], effect: allow }
  - { id: roots, methods: [roots/list], effect: allow }";
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, rules)).await.unwrap();
    let mut session = wired(&daemon, &mut wire).await;
    wire.say(
        &json!({ "jsonrpc": "2.0", "id": 1, "method": "sampling/createMessage", "params": {} }),
    );
    let told: Value = serde_json::from_str(&wire.hears("\"error\"").await).unwrap();
    assert_eq!(told["id"], 1, "{told}");
    assert_eq!(told["error"]["code"], -31403, "{told}");
    // Ids of the two sides are not each other's.
    wire.say(&json!({ "jsonrpc": "2.0", "id": 1, "method": "roots/list" }));
    session
        .send(&json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }))
        .await
        .unwrap();
    let asked = session.receive().await.unwrap();
    assert_eq!(asked["method"], "roots/list", "{asked}");
    // The same id again while it is in use.
    wire.say(&json!({ "jsonrpc": "2.0", "id": "1", "method": "roots/list" }));
    wire.hears("-32600").await;
    session
        .send(&json!({ "jsonrpc": "2.0", "id": "1", "result": { "roots": [] } }))
        .await
        .unwrap();
    let answer = wire.hears("\"roots\":[]").await;
    assert_eq!(
        answer,
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"roots\":[]}}\n"
    );
    wire.answers(&json!(1));
    assert_eq!(session.receive().await.unwrap()["id"], 1);
    // What is embedded in a result is decided as the method that it is.
    let call =
        json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": { "name": "safe" } });
    session.send(&call).await.unwrap();
    wire.hears("\"tools/call\"").await;
    wire.say(&json!({ "jsonrpc": "2.0", "id": 2, "result": { "resultType": "input_required",
        "inputRequests": { "a": { "method": "sampling/createMessage", "params": {} } }, "requestState": "s" } }));
    let answer = session.receive().await.unwrap();
    assert_eq!(answer["error"]["code"], -31403, "{answer}");
    // An answer to nothing is nothing, in either direction; and a cancelled request is answered to nobody.
    session
        .send(&json!({ "jsonrpc": "2.0", "id": 77, "result": {} }))
        .await
        .unwrap();
    wire.say(&json!({ "jsonrpc": "2.0", "id": 78, "result": {} }));
    session.send(&json!({ "jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": { "name": "safe" } })).await.unwrap();
    wire.hears("\"id\":3").await;
    let cancelled = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 3 } });
    session.send(&cancelled).await.unwrap();
    wire.hears("notifications/cancelled").await;
    wire.answers(&json!(3));
    assert_eq!(
        alive(&mut session, &mut wire, "end").await,
        Vec::<Value>::new()
    );
    assert!(!wire.heard().contains("77"), "{}", wire.heard());
    drop(session);
    let refused = |method: &str, from: &str, why: &str| {
        let (method, from, why) = (method.to_owned(), from.to_owned(), why.to_owned());
        move |record: &Value| {
            record["mcp"]["method"] == method
                && record["mcp"]["from"].as_str().unwrap_or("client") == from
                && record["outcome"].to_string().contains(&why)
        }
    };
    for (method, from, why) in [
        ("sampling/createMessage", "server", "refused"),
        ("roots/list", "server", "\"status\":\"done\""),
        ("roots/list", "server", "an id that is in use"),
        ("tools/call", "client", "not acceptable"),
        ("tools/call", "client", "cancelled"),
        ("", "client", "an answer to nothing"),
        ("", "server", "an answer to a request that was cancelled"),
    ] {
        let what = format!("{method} of the {from}: {why}");
        daemon
            .record(&what, refused(method, from, why))
            .await
            .unwrap();
    }
    daemon
        .record("the server's answer to nothing", |record| {
            record["finding"]["detail"] == "an answer to nothing"
        })
        .await
        .unwrap();
}

/// The sockets that a process holds, as `/proc` names them.
fn sockets(process: &Path) -> BTreeSet<String> {
    // Processes end at any time.
    let open = fs::read_dir(process.join("fd"));
    open.into_iter()
        .flatten()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|target| target.into_os_string().into_string().ok())
        .filter(|target| target.starts_with("socket:"))
        .collect()
}

/// Who holds a socket as well can make every reader of it wait, by reading it into memory that never comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_gate_reads_is_held_by_nobody_else() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, ALL)).await.unwrap();
    let gate = daemon.status().await.unwrap()["gate"]["pid"].to_string();
    let gate = PathBuf::from(format!("/proc/{gate}"));
    let before = sockets(&gate);
    let mut session = wired(&daemon, &mut wire).await;
    let gained: Vec<String> = sockets(&gate).difference(&before).cloned().collect();
    // Three of the caller, three of the server.
    assert!(gained.len() >= 6, "{gained:?}");
    for entry in fs::read_dir("/proc").unwrap() {
        let process = entry.unwrap().path();
        let name = process.file_name().unwrap().to_string_lossy().into_owned();
        if process == gate || !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let held = sockets(&process);
        let shared: Vec<&String> = gained.iter().filter(|one| held.contains(*one)).collect();
        assert!(shared.is_empty(), "{process:?} has {shared:?} of the gate");
    }
    session.close().await.unwrap();
}
