//! The reference servers under `exeat run`, by real clients: what they answer is what they answer without it.

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
}

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
    }
}

impl Row {
    /// The same of a server that has something in these lists.
    fn lists(self, lists: &'static [&'static str]) -> Self {
        Self { lists, ..self }
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

/// Calls each server with each client, both ways, and compares.
async fn compare(lab: &Lab, rows: &[Row]) {
    let fixtures = Fixtures::find().unwrap();
    let daemon = lab.daemon(&policy(rows)).await.unwrap();
    for row in rows {
        for client in [Client::Ts1, Client::Ts2, Client::Py1, Client::Py2] {
            let arguments = row.arguments.to_string();
            let call = async |command: Vec<String>| {
                let server = serde_json::to_string(&command).unwrap();
                let call = fixtures.client(client, &server, row.tool, &arguments);
                let call = call.variable("WHOLE", "1");
                run(&mut call.under(lab.inside.command("env")), LIMIT)
                    .await
                    .unwrap()
            };
            let (direct, under) =
                tokio::join!(call(bare(&row.server)), call(through(lab, row.name)));
            let shown = format!("{client:?} at {}", row.name);
            let answer = under
                .json()
                .unwrap_or_else(|error| panic!("{shown}: {error:#}"));
            assert_eq!(direct.json().unwrap(), answer, "{shown}");
            // Every entry of every list, as the client has got it.
            let has = filled(&answer, &shown);
            assert_eq!(has, row.lists, "{shown}");
            let text = answer["text"].as_str().unwrap_or_default();
            assert!(text.contains(row.says), "{shown}: {answer}");
            assert_eq!(direct.status.code(), under.status.code(), "{shown}");
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
    let everything = row(
        "everything",
        fixtures.server(Server::Reference),
        "get-sum",
        json!({ "a": 20, "b": 22 }),
        "42",
    );
    let rows = [
        everything.lists(&["tools", "resources", "resourceTemplates", "prompts"]),
        row(
            "filesystem",
            fixtures.server(Server::Filesystem).arg(&directory),
            "list_directory",
            json!({ "path": directory }),
            "one.txt",
        ),
        row(
            "memory",
            fixtures
                .server(Server::Memory)
                .variable("MEMORY_FILE_PATH", &memory),
            "read_graph",
            json!({}),
            "Größe: 1",
        )
        .lists(&["tools", "resources"]),
        row(
            "thinking",
            fixtures.server(Server::SequentialThinking),
            "sequentialthinking",
            json!({ "thought": "t", "nextThoughtNeeded": false, "thoughtNumber": 1, "totalThoughts": 1 }),
            "thoughtHistoryLength",
        ),
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
    let make = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('create table kept (n integer)')";
    must("python3", &["-c", make, &database]).unwrap();
    must("chown", &["-R", "65534:65534", &shown]).unwrap();
    let rows = [
        row(
            "fetch",
            fixtures.server(Server::Fetch),
            "fetch",
            json!({ "url": "http://127.0.0.1:1/" }),
            "127.0.0.1:1",
        )
        .lists(&["tools", "prompts"]),
        row(
            "git",
            fixtures.server(Server::Git).args(["-r", &shown]),
            "git_status",
            json!({ "repo_path": shown }),
            "untracked.txt",
        ),
        row(
            "time",
            fixtures
                .server(Server::Time)
                .args(["--local-timezone", "UTC"]),
            "convert_time",
            json!({ "source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo" }),
            "21:00",
        ),
        row(
            "sqlite",
            fixtures
                .server(Server::Sqlite)
                .args(["--db-path", &database]),
            "list_tables",
            json!({}),
            "kept",
        )
        .lists(&["tools", "resources", "prompts"]),
    ];
    compare(&lab, &rows).await;
}
