//! The reference servers under `exeat run`, by real clients: what they answer is what they answer without it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use exeat_tests::Lab;
use exeat_tests::daemon::binary;
use exeat_tests::fixtures::{Client, Fixtures, Invocation, Server};
use exeat_tests::process::{Finished, must, run};
use serde_json::{Value, json};

use crate::stdio::ALL;
use crate::world::LIMIT;

/// The account of the servers.
const NOBODY: u32 = 65534;

/// A server, and a call whose answer does not change from run to run.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) server: Invocation,
    tool: &'static str,
    arguments: Value,
    /// What stands in the answer, so that it is not two failures that are alike.
    says: &'static str,
    /// The lists that it has something in.
    lists: &'static [&'static str],
    /// What else it is asked for, and what stands in each answer.
    asks: Vec<(Value, &'static str)>,
}

/// What is not asked for, of a server whose every other tool is.
const UNLIKE: [(&str, &str, &str); 1] = [(
    "everything",
    "get-env",
    "its answer is the server's environment, which is the policy's under `exeat run`",
)];

pub(crate) fn row(
    name: &'static str,
    server: Invocation,
    tool: &'static str,
    arguments: Value,
    says: &'static str,
) -> Row {
    Row {
        name,
        server,
        tool,
        arguments,
        says,
        lists: &["tools"],
        asks: Vec::new(),
    }
}

/// The ways to ask.
fn tool(name: &str, arguments: Value) -> Value {
    json!({ "method": "tools/call", "params": { "name": name, "arguments": arguments } })
}

fn resource(uri: &str) -> Value {
    json!({ "method": "resources/read", "params": { "uri": uri } })
}

fn prompt(name: &str, arguments: Value) -> Value {
    json!({ "method": "prompts/get", "params": { "name": name, "arguments": arguments } })
}

fn completion(of: Value, name: &str, begins: &str) -> Value {
    let argument = json!({ "name": name, "value": begins });
    json!({ "method": "completion/complete", "params": { "ref": of, "argument": argument } })
}

impl Row {
    /// The same of a server that has something in these lists.
    fn lists(self, lists: &'static [&'static str]) -> Self {
        Self { lists, ..self }
    }

    /// The same, asked for more.
    fn asks<const N: usize>(self, asks: [(Value, &'static str); N]) -> Self {
        Self {
            asks: asks.into(),
            ..self
        }
    }

    /// The tools that it is asked for.
    fn tools(&self) -> BTreeSet<&str> {
        let more = self.asks.iter();
        let more = more.filter(|(ask, _)| ask["method"] == "tools/call");
        let more = more.filter_map(|(ask, _)| ask["params"]["name"].as_str());
        more.chain([self.tool]).collect()
    }
}

pub(crate) fn policy(rows: &[Row]) -> String {
    let server = |row: &Row| {
        let texts = |values: Vec<String>| serde_json::to_string(&values).unwrap();
        let arguments = row.server.arguments.iter();
        let arguments = arguments.map(|text| text.to_string_lossy().into_owned());
        let variables = row.server.variables.iter();
        let variables: serde_json::Map<String, Value> = variables
            .map(|(name, value)| (name.clone(), json!(value.to_string_lossy())))
            .collect();
        format!(
            "  {}:
    purpose: a reference server
    owner: tests@lab.example
    launch: {{ command: {}, args: {}, user: nobody, env: {} }}
",
            row.name,
            row.server.program.display(),
            texts(arguments.collect()),
            Value::Object(variables)
        )
    };
    let servers: String = rows.iter().map(server).collect();
    format!("version: 1\nservers:\n{servers}{ALL}\n")
}

/// The command that starts a server without Exeat, as the user that it has with it.
pub(crate) fn bare(server: &Invocation) -> Vec<String> {
    let mut command: Vec<String> = [
        "/usr/bin/setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "/usr/bin/env",
    ]
    .map(str::to_owned)
    .into();
    for (name, value) in &server.variables {
        command.push(format!("{name}={}", value.to_string_lossy()));
    }
    command.push(server.program.display().to_string());
    let arguments = server.arguments.iter();
    command.extend(arguments.map(|text| text.to_string_lossy().into_owned()));
    command
}

pub(crate) fn through(lab: &Lab, name: &str) -> Vec<String> {
    let config = lab.directory().join("exeat.yaml");
    vec![
        binary().unwrap().display().to_string(),
        "run".into(),
        name.into(),
        "--config".into(),
        config.display().to_string(),
    ]
}

/// What the inspector says to `ask`. It takes a command's options for its own, so that it is given a script.
async fn inspected(
    lab: &Lab,
    name: &str,
    ask: &[String],
    way: &str,
    command: Vec<String>,
) -> Finished {
    let script = lab.directory().join(format!("{name}-{way}.sh"));
    let words: Vec<String> = command.iter().map(|word| format!("'{word}'")).collect();
    fs::write(&script, format!("#!/bin/sh\nexec {}\n", words.join(" "))).unwrap();
    must("chmod", &[Path::new("755"), script.as_path()]).unwrap();
    let inspector = Fixtures::find().unwrap().inspector();
    let inspector = inspector.arg(&script).arg("--method");
    let inspect = ask.iter().fold(inspector, Invocation::arg);
    let inspect = inspect.variable("HOME", lab.directory().as_os_str());
    run(&mut inspect.under(lab.inside.command("env")), LIMIT)
        .await
        .unwrap()
}

/// What the inspector is asked for a call of the row's tool.
fn calls(row: &Row) -> Vec<String> {
    let mut ask = vec!["tools/call".into(), format!("--tool-name={}", row.tool)];
    for (name, value) in row.arguments.as_object().unwrap() {
        let text = value.as_str().map(str::to_owned);
        let value = text.unwrap_or_else(|| value.to_string());
        ask.extend(["--tool-arg".into(), format!("{name}={value}")]);
    }
    ask
}

/// Asks the inspector both ways, and compares; its answer.
async fn inspect(lab: &Lab, row: &Row, ask: &[String]) -> Value {
    let (direct, under) = tokio::join!(
        inspected(lab, row.name, ask, "bare", bare(&row.server)),
        inspected(lab, row.name, ask, "under", through(lab, row.name))
    );
    let shown = format!("the inspector at {}: {ask:?}", row.name);
    // It says by its status whether the tool failed, as one without network does, both ways alike.
    assert_eq!(direct.status, under.status, "{shown}: {under:?}");
    let answer = under.json().unwrap();
    assert_eq!(direct.json().unwrap(), answer, "{shown}");
    answer
}

/// The lists of a server, and how clients are asked for them.
const LISTS: [(&str, &str); 4] = [
    ("tools", "tools/list"),
    ("resources", "resources/list"),
    ("resourceTemplates", "resources/templates/list"),
    ("prompts", "prompts/list"),
];

/// Which of the lists of `answer` have something in them. Its tools say what they are and what they take.
fn filled(answer: &Value, shown: &str) -> Vec<&'static str> {
    let list = |name: &str| answer["lists"][name].as_array();
    let tools = list("tools").unwrap_or_else(|| panic!("{shown}: {answer}"));
    for tool in tools {
        assert!(tool["description"].is_string(), "{shown}: {tool}");
        assert_eq!(tool["inputSchema"]["type"], "object", "{shown}: {tool}");
    }
    let names = LISTS.iter().map(|(name, _)| *name);
    names
        .filter(|name| list(name).is_some_and(|list| !list.is_empty()))
        .collect()
}

const CLIENTS: [Client; 4] = [Client::Ts1, Client::Ts2, Client::Py1, Client::Py2];

/// server-everything writes into its dynamic resources at what time it made them, which is the one thing in its answers that is
/// another in each run.
const MADE: &str = " resource created at ";

/// `value` without such times.
fn timeless(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(at) = text.find(MADE) {
                let time = text.split_off(at + MADE.len());
                let parts = time.split([':', ' ', '\u{202f}']);
                assert_eq!(parts.count(), 4, "{time}");
            }
        }
        Value::Array(values) => values.iter_mut().for_each(timeless),
        Value::Object(values) => values.values_mut().for_each(timeless),
        _ => {}
    }
}

/// All that `client` is told by a server: lists, and the answers to everything that the row asks for; and the client's status.
async fn told(lab: &Lab, row: &Row, client: Client, command: Vec<String>) -> (Value, Option<i32>) {
    let server = serde_json::to_string(&command).unwrap();
    let arguments = row.arguments.to_string();
    let first = tool(row.tool, row.arguments.clone());
    let more = row.asks.iter().map(|(ask, _)| ask.clone());
    let asks: Vec<Value> = [first].into_iter().chain(more).collect();
    let call = Fixtures::find()
        .unwrap()
        .client(client, &server, row.tool, &arguments)
        .variable("WHOLE", Value::from(asks).to_string());
    let done = run(&mut call.under(lab.inside.command("env")), LIMIT)
        .await
        .unwrap();
    let mut answer = done
        .json()
        .unwrap_or_else(|error| panic!("{client:?} at {}: {error:#}", row.name));
    timeless(&mut answer);
    (answer, done.status.code())
}

/// What `client` is told both ways.
async fn both(lab: &Lab, row: &Row, client: Client) -> [(Value, Option<i32>); 2] {
    tokio::join!(
        told(lab, row, client, bare(&row.server)),
        told(lab, row, client, through(lab, row.name))
    )
    .into()
}

/// Each answer is one to what was asked, so that it is not two failures that are alike.
fn answered(answer: &Value, row: &Row, shown: &str) {
    let text = answer["text"].as_str().unwrap_or_default();
    assert!(text.contains(row.says), "{shown}: {answer}");
    let answers = answer["answers"].as_array().unwrap();
    assert_eq!(answers.len(), row.asks.len() + 1, "{shown}: {answer}");
    assert!(answers[0]["content"].is_array(), "{shown}: {answer}");
    for (answer, (ask, says)) in answers.iter().skip(1).zip(&row.asks) {
        let answer = answer.to_string();
        assert!(answer.contains(says), "{shown}: {ask}: {answer}");
    }
    let unlike = UNLIKE.iter().filter(|(name, ..)| *name == row.name);
    let unlike: BTreeSet<&str> = unlike.map(|(_, tool, _)| *tool).collect();
    if !unlike.is_empty() {
        let has = answer["tools"].as_array().unwrap().iter();
        let has: BTreeSet<&str> = has.filter_map(Value::as_str).collect();
        let asked = row.tools().union(&unlike).copied().collect();
        assert_eq!(has, asked, "{shown}: every tool is asked for");
    }
}

/// Calls each server with each client, both ways, and compares.
async fn compare(lab: &Lab, rows: &[Row]) {
    let daemon = lab.daemon(&policy(rows)).await.unwrap();
    for row in rows {
        for client in CLIENTS {
            let shown = format!("{client:?} at {}", row.name);
            let [(direct, direct_status), (under, status)] = both(lab, row, client).await;
            assert_eq!(direct, under, "{shown}");
            assert_eq!(direct_status, status, "{shown}");
            // Every entry of every list, as the client has got it.
            assert_eq!(filled(&under, &shown), row.lists, "{shown}");
            answered(&under, row, &shown);
        }
        let answer = inspect(lab, row, &calls(row)).await;
        assert!(answer["content"].is_array(), "{}: {answer}", row.name);
        for (list, method) in LISTS {
            if row.lists.contains(&list) {
                let ask = [method.into(), "--format=json".into()];
                let answer = inspect(lab, row, &ask).await;
                let listed = answer["result"][list].as_array();
                assert!(
                    listed.is_some_and(|listed| !listed.is_empty()),
                    "{method} of {}: {answer}",
                    row.name
                );
            }
        }
        let name = row.name;
        daemon
            .record(&format!("a call of {name}"), |record| {
                record["mcp"]["server"] == name && record["mcp"]["name"] == row.tool
            })
            .await
            .unwrap();
    }
    let violations = daemon.audit().unwrap();
    let violations: Vec<_> = violations
        .iter()
        .filter(|record| record["finding"]["what"] == "stdio_violation")
        .collect();
    assert!(violations.is_empty(), "{violations:#?}");
}

/// server-everything, asked for all that it answers alike in each run.
fn everything(fixtures: &Fixtures) -> Row {
    let none = || json!({});
    let message = |kind: &str, image: bool| {
        let arguments = json!({ "messageType": kind, "includeImage": image });
        tool("get-annotated-message", arguments)
    };
    let zip = |output: &str| {
        let arguments =
            json!({ "name": "a.gz", "data": "data:text/plain,abc", "outputType": output });
        tool("gzip-file-as-resource", arguments)
    };
    let of_prompt = json!({ "type": "ref/prompt", "name": "completable-prompt" });
    let template = "demo://resource/dynamic/text/{resourceId}";
    let of_template = json!({ "type": "ref/resource", "uri": template });
    let asked_about = json!({ "resourceType": "Text", "resourceId": 7 });
    let with_resource = json!({ "resourceType": "Text", "resourceId": "7" });
    let long = json!({ "duration": 0.1, "steps": 2 });
    row(
        "everything",
        fixtures.server(Server::Reference),
        "get-sum",
        json!({ "a": 20, "b": 22 }),
        "42",
    )
    .lists(&["tools", "resources", "resourceTemplates", "prompts"])
    .asks([
        (
            tool("echo", json!({ "message": "Größe \u{2028}\r\n" })),
            "Größe",
        ),
        (tool("echo", none()), "isError"),
        (message("error", false), "priority"),
        (message("debug", true), "image/png"),
        (
            tool("get-resource-links", json!({ "count": 10 })),
            "resource_link",
        ),
        (tool("get-resource-reference", asked_about), "Resource 7"),
        (
            tool("get-structured-content", json!({ "location": "Chicago" })),
            "structuredContent",
        ),
        (tool("get-tiny-image", none()), "image/png"),
        (zip("resource"), "blob"),
        (zip("resourceLink"), "resource_link"),
        (resource("demo://resource/session/a.gz"), "blob"),
        (tool("toggle-simulated-logging", none()), "Started"),
        (tool("toggle-simulated-logging", none()), "Stopped"),
        (tool("toggle-subscriber-updates", none()), "Started"),
        (tool("toggle-subscriber-updates", none()), "Stopped"),
        (tool("trigger-long-running-operation", long), "completed"),
        // Without a task it is refused, by the client or by the server.
        (
            tool("simulate-research-query", json!({ "topic": "x" })),
            "simulate-research-query",
        ),
        (
            resource("demo://resource/static/document/features.md"),
            "text/markdown",
        ),
        (resource("demo://resource/dynamic/text/7"), "Resource 7"),
        (resource("demo://resource/none"), "demo://resource/none"),
        (prompt("simple-prompt", none()), "simple prompt"),
        (prompt("args-prompt", json!({ "city": "Köln" })), "Köln"),
        (prompt("resource-prompt", with_resource), "Resource 7"),
        (completion(of_prompt, "department", "S"), "Support"),
        (completion(of_template, "resourceId", "7"), "7"),
    ])
}

fn thought(number: u32) -> Value {
    json!({ "thought": "t", "nextThoughtNeeded": number < 2, "thoughtNumber": number, "totalThoughts": 2 })
}

/// A directory of the servers' own.
fn own(path: &Path) {
    fs::create_dir_all(path).unwrap();
    chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reference_servers_of_npm_answer_alike() {
    let fixtures = Fixtures::find().unwrap();
    let lab = Lab::new().unwrap();
    let files = lab.directory().join("files");
    own(&files);
    fs::write(files.join("one.txt"), "one").unwrap();
    let directory = files.display().to_string();
    let memory = files.join("memory.json");
    let entity =
        r#"{"type":"entity","name":"exeat","entityType":"daemon","observations":["Größe: 1"]}"#;
    fs::write(&memory, entity).unwrap();
    chown(&memory, Some(NOBODY), Some(NOBODY)).unwrap();
    let rows = [
        everything(&fixtures),
        row(
            "filesystem",
            fixtures.server(Server::Filesystem).arg(&directory),
            "list_directory",
            json!({ "path": directory }),
            "one.txt",
        )
        .asks([
            (
                tool("read_text_file", json!({ "path": files.join("one.txt") })),
                "one",
            ),
            (
                tool("directory_tree", json!({ "path": directory })),
                "one.txt",
            ),
            (
                tool("read_text_file", json!({ "path": "/etc/passwd" })),
                "Access denied",
            ),
        ]),
        row(
            "memory",
            fixtures
                .server(Server::Memory)
                .variable("MEMORY_FILE_PATH", &memory),
            "read_graph",
            json!({}),
            "Größe: 1",
        )
        .lists(&["tools", "resources"])
        .asks([
            (
                tool("search_nodes", json!({ "query": "daemon" })),
                "Größe: 1",
            ),
            (
                tool("open_nodes", json!({ "names": ["exeat"] })),
                "Größe: 1",
            ),
            (resource("memory://knowledge-graph"), "Größe: 1"),
        ]),
        row(
            "thinking",
            fixtures.server(Server::SequentialThinking),
            "sequentialthinking",
            thought(1),
            "thoughtHistoryLength",
        )
        .asks([(
            tool("sequentialthinking", thought(2)),
            "thoughtHistoryLength",
        )]),
    ];
    compare(&lab, &rows).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reference_servers_of_pypi_answer_alike() {
    let fixtures = Fixtures::find().unwrap();
    let lab = Lab::new().unwrap();
    let repository = lab.directory().join("repository");
    own(&repository);
    let shown = repository.display().to_string();
    must("git", &["init", "--quiet", "--initial-branch=main", &shown]).unwrap();
    fs::write(repository.join("untracked.txt"), "one").unwrap();
    let database = repository.join("test.db").display().to_string();
    let make = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('create table kept as select 7 as n')";
    must("python3", &["-c", make, &database]).unwrap();
    let author = [
        "-c",
        "user.name=lab",
        "-c",
        "user.email=tests@lab.example",
        // The directory is the servers' own.
        "-c",
        "safe.directory=*",
    ];
    let commit = ["commit", "--quiet", "--allow-empty", "--message=first"];
    must("git", &[&["-C", &shown], &author[..], &commit].concat()).unwrap();
    must("chown", &["-R", "65534:65534", &shown]).unwrap();
    let rows = [
        row(
            "fetch",
            fixtures.server(Server::Fetch),
            "fetch",
            json!({ "url": "http://127.0.0.1:1/" }),
            "127.0.0.1:1",
        )
        .lists(&["tools", "prompts"])
        .asks([
            (tool("fetch", json!({ "url": "nowhere" })), "nowhere"),
            (prompt("fetch", json!({ "url": "http://127.0.0.1:1/" })), "127.0.0.1:1"),
        ]),
        row(
            "git",
            fixtures.server(Server::Git).args(["-r", &shown]),
            "git_status",
            json!({ "repo_path": shown }),
            "untracked.txt",
        )
        .asks([
            (tool("git_log", json!({ "repo_path": shown })), "first"),
            (tool("git_show", json!({ "repo_path": shown, "revision": "HEAD" })), "first"),
            (tool("git_branch", json!({ "repo_path": shown, "branch_type": "local" })), "main"),
        ]),
        row(
            "time",
            fixtures
                .server(Server::Time)
                .args(["--local-timezone", "UTC"]),
            "convert_time",
            json!({ "source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo" }),
            "21:00",
        )
        .asks([
            (
                tool("convert_time", json!({ "source_timezone": "Asia/Tokyo", "time": "12:00", "target_timezone": "UTC" })),
                "03:00",
            ),
            (
                tool("convert_time", json!({ "source_timezone": "Lab/Nowhere", "time": "12:00", "target_timezone": "UTC" })),
                "Lab/Nowhere",
            ),
        ]),
        row(
            "sqlite",
            fixtures
                .server(Server::Sqlite)
                .args(["--db-path", &database]),
            "list_tables",
            json!({}),
            "kept",
        )
        .lists(&["tools", "resources", "prompts"])
        .asks([
            (tool("read_query", json!({ "query": "select * from kept" })), "7"),
            (tool("describe_table", json!({ "table_name": "kept" })), "'name': 'n'"),
            // Kept in the server's memory, and read from there.
            (tool("append_insight", json!({ "insight": "Größe" })), "added"),
            (resource("memo://insights"), "Größe"),
            (prompt("mcp-demo", json!({ "topic": "weather" })), "weather"),
        ]),
    ];
    compare(&lab, &rows).await;
}

/// What policy takes away is the tool and its call; all else is as it is without Exeat.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denied_tool_is_all_that_differs() {
    let lab = Lab::new().unwrap();
    let row = everything(&Fixtures::find().unwrap());
    let denied = "get-structured-content";
    let rules = format!(
        "rules:
  - {{ id: all, methods: [\"*\"], effect: allow }}
  - {{ id: none, tools: [{denied}], effect: deny }}"
    );
    let policy = policy(std::slice::from_ref(&row)).replace(ALL, &rules);
    let daemon = lab.daemon(&policy).await.unwrap();
    let is_denied = |(ask, _): &(Value, &str)| ask["params"]["name"] == denied;
    let at = 1 + row.asks.iter().position(is_denied).unwrap();
    for client in CLIENTS {
        let [(mut expected, direct_status), (under, status)] = both(&lab, &row, client).await;
        answered(&expected, &row, &format!("{client:?}"));
        assert_eq!(direct_status, status, "{client:?}");
        let names = expected["tools"].as_array_mut().unwrap();
        names.retain(|name| name != denied);
        let tools = expected["lists"]["tools"].as_array_mut().unwrap();
        tools.retain(|tool| tool["name"] != denied);
        // As servers say that there is no such tool; one SDK's client sets a prefix before messages.
        let message = format!("Unknown tool: {denied}");
        let message = match client {
            Client::Ts1 => format!("MCP error -32602: {message}"),
            _ => message,
        };
        expected["answers"][at] = json!({ "error": { "code": -32602, "message": message } });
        assert_eq!(expected, under, "{client:?}");
    }
    let is_refused = |record: &Value| record["mcp"]["name"] == denied;
    let refused = daemon.records("the refusals", CLIENTS.len(), is_refused);
    let refused = refused.await.unwrap();
    let refused: Vec<_> = refused
        .iter()
        .map(|record| &record["decision"]["effect"])
        .collect();
    assert_eq!(refused, ["deny"; CLIENTS.len()]);
}
