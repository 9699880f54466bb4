//! What `exeat discover` finds on a machine with real servers: on pipes, listening, behind links,
//! under Exeat, and refused.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{chown, symlink};
use std::time::Duration;

use exeat_tests::Lab;
use exeat_tests::daemon::Daemon;
use exeat_tests::fixtures::{Fixtures, Invocation, Server};
use exeat_tests::lab::WORLD;
use exeat_tests::process::{Process, must, run};
use exeat_tests::stdio::Session;
use exeat_tests::wait::wait_for;
use serde_json::{Value, json};

use crate::place::{managed, policy};

const LIMIT: Duration = Duration::from_secs(40);

/// What `exeat discover` says.
async fn discover(daemon: &Daemon<'_>, more: &[&str]) -> Value {
    let done = daemon.cli(&[&["discover"], more].concat()).await.unwrap();
    let inventory: Value = serde_json::from_str(&done.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", done.stdout, done.stderr));
    let mut found = inventory["found"].as_array().unwrap().iter();
    let loose = found.any(|found| found["standing"] != "managed");
    assert_eq!(done.status.code(), Some(i32::from(loose)), "{inventory}");
    inventory
}

/// The one thing with this process.
fn of_process(inventory: &Value, pid: u32) -> Option<Value> {
    let found = inventory["found"].as_array().unwrap().iter();
    let has = |found: &&Value| {
        let mut pids = found["pids"].as_array().unwrap().iter();
        pids.any(|other| *other == json!(pid))
    };
    let found: Vec<&Value> = found.filter(has).collect();
    assert!(found.len() <= 1, "{pid} is several things: {found:?}");
    found.first().map(|&found| found.clone())
}

fn listening(lab: &Lab, name: &str, server: &Invocation, port: u16) -> Process {
    let server = server.clone().variable("PORT", port.to_string());
    let mut command = server.under(lab.inside.command("/usr/bin/env"));
    Process::start(name, lab.directory(), &mut command).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_are_found_wherever_they_are() {
    let lab = Lab::new().unwrap();
    let fixtures = Fixtures::find().unwrap();
    let daemon = lab.daemon(&policy(&[])).await.unwrap();

    // On pipes and through a link with another name, as a host starts what npx has fetched.
    let reference = fixtures.server(Server::Reference);
    let bin = lab.directory().join("node_modules/.bin");
    fs::create_dir_all(&bin).unwrap();
    let link = bin.join("something");
    symlink(&reference.arguments[0], &link).unwrap();
    let shim = Invocation {
        arguments: vec![link.into()],
        ..reference.clone()
    };
    let command = shim.under(lab.inside.command("/usr/bin/env"));
    let mut stdio = Session::start(command, &lab.directory().join("stdio.err")).unwrap();
    stdio.initialize().await.unwrap();
    let pid = stdio.pid().unwrap();
    let inventory = discover(&daemon, &[]).await;
    let found = of_process(&inventory, pid).unwrap_or_else(|| panic!("{inventory}"));
    assert_eq!(found["name"], "server-everything", "{found}");
    assert_eq!(found["standing"], "unregistered");
    assert_eq!(found["owner"], "root");
    assert_eq!(found["reaches"], json!(["anything: nothing holds it"]));
    assert!(
        found["entry"].as_str().unwrap().contains("launch:"),
        "{found}"
    );

    // The same under Exeat is held.
    let mut command = lab.exeat(&["run", "demo"]).unwrap();
    command
        .arg("--")
        .arg(&reference.program)
        .arg(&reference.arguments[0]);
    let mut held = Session::start(command, &lab.directory().join("held.err")).unwrap();
    held.initialize().await.unwrap();
    let inventory = discover(&daemon, &[]).await;
    let rows = inventory["found"].as_array().unwrap();
    let demo: Vec<&Value> = rows
        .iter()
        .filter(|found| found["name"] == "demo")
        .collect();
    assert!(
        demo.iter()
            .any(|found| found["standing"] == "managed" && found["reaches"] == json!([])),
        "{inventory}"
    );
    // What is proposed is a policy.
    let entries = lab.directory().join("entries.yaml");
    fs::write(&entries, inventory["entries"].as_str().unwrap()).unwrap();
    let done = daemon
        .cli(&["policy", "check", entries.to_str().unwrap()])
        .await
        .unwrap();
    assert!(
        done.status.success(),
        "{}{}",
        done.stdout,
        inventory["entries"]
    );
    stdio.close().await.unwrap();
    held.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_are_asked_only_when_told_to() {
    let lab = Lab::new().unwrap();
    let fixtures = Fixtures::find().unwrap();
    let daemon = lab.daemon(&policy(&[])).await.unwrap();
    let reference = fixtures.server(Server::Reference);
    let http = listening(
        &lab,
        "http",
        &reference.clone().args(["streamableHttp"]),
        4101,
    );
    let sse = listening(&lab, "sse", &reference.args(["sse"]), 4102);
    let ts2 = fixtures.server(Server::Ts2);
    let ts2 = ts2.args(["--host", "127.0.0.1", "--port", "4103"]);
    let modern = listening(&lab, "ts2", &ts2, 4103);
    let python = Invocation {
        program: fixtures.python(2),
        arguments: Vec::new(),
        variables: Vec::new(),
    };
    let web = python.args(["-m", "http.server", "--bind", "127.0.0.1", "4104"]);
    let web = listening(&lab, "web", &web, 4104);
    let at = |inventory: &Value, port: u16| -> Option<Value> {
        let ending = format!(":{port}");
        let mut found = inventory["found"].as_array().unwrap().iter();
        let listens = |found: &&Value| {
            let mut listens = found["listens"].as_array().unwrap().iter();
            listens.any(|address| address.as_str().unwrap().ends_with(&ending))
        };
        found.find(listens).cloned()
    };
    let inventory = wait_for("every server answers", LIMIT, async || {
        let inventory = discover(&daemon, &["--probe"]).await;
        let answers =
            |port: &u16| at(&inventory, *port).is_some_and(|found| found["url"].is_string());
        let all = [4101, 4102, 4103].iter().all(answers);
        all.then_some(inventory)
    })
    .await
    .unwrap_or_else(|error| {
        panic!(
            "{error}: {}{}{}",
            http.report(),
            sse.report(),
            modern.report()
        )
    });
    for (port, process, url) in [
        (4101, &http, "/mcp"),
        (4102, &sse, "/sse"),
        (4103, &modern, "/mcp"),
    ] {
        let found = at(&inventory, port).unwrap();
        assert_eq!(found["standing"], "unregistered", "{found}");
        assert!(found["url"].as_str().unwrap().ends_with(url), "{found}");
        assert!(found["seen"].to_string().contains("answers MCP"), "{found}");
        assert_eq!(of_process(&inventory, process.pid()), Some(found), "{port}");
    }
    // An ordinary web server was asked as well, and is none.
    wait_for("the web server was asked", LIMIT, async || {
        web.stderr().contains("POST /mcp").then_some(())
    })
    .await
    .unwrap();
    assert_eq!(at(&inventory, 4104), None);
    // Unasked, nothing is sent: a server that is known by its name is found all the same.
    let asked = web.stderr().matches("POST ").count();
    let inventory = discover(&daemon, &[]).await;
    let found = at(&inventory, 4101).unwrap();
    assert!(
        !found["seen"].to_string().contains("answers MCP"),
        "{found}"
    );
    assert_eq!(at(&inventory, 4103), None, "{inventory}");
    assert_eq!(web.stderr().matches("POST ").count(), asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_refused_is_proposed() {
    let lab = Lab::new().unwrap();
    let daemon = lab
        .daemon(&policy(&["{ host: rogue.lab.example }"]))
        .await
        .unwrap();
    let _rogue = lab
        .https(&["rogue.lab.example"], SocketAddr::new(WORLD, 443))
        .unwrap();
    let call =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","arguments":{}}}"#;
    let done = managed(
        &lab,
        &[
            "curl",
            "-sS",
            "-H",
            "Content-Type: application/json",
            "-d",
            call,
            "https://rogue.lab.example/mcp",
        ],
    )
    .await;
    assert!(
        done.stdout.contains("unregistered_server"),
        "{}{}",
        done.stdout,
        done.stderr
    );
    let inventory = wait_for("the refusal is found", LIMIT, async || {
        let inventory = discover(&daemon, &[]).await;
        let mut found = inventory["found"].as_array().unwrap().iter();
        found
            .find(|found| found["url"] == "https://rogue.lab.example/mcp")
            .cloned()
    })
    .await
    .unwrap();
    assert_eq!(inventory["standing"], "unregistered");
    assert!(
        inventory["seen"].to_string().contains("refused to `demo`"),
        "{inventory}"
    );
    assert!(
        inventory["entry"].as_str().unwrap().contains("url:"),
        "{inventory}"
    );
}

/// Projects that a host remembers, and that a host works in; nobody is waited for there, and nothing of others is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn projects_of_hosts_are_looked_into() {
    let lab = Lab::new().unwrap();
    let daemon = lab.daemon(&policy(&[])).await.unwrap();
    let home = lab.directory().join("home");
    let project = |name: &str, file: &str, server: &str| {
        let path = home.join(name).join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = json!({ "mcpServers": { server: { "command": server } }, "servers": { server: { "command": server } } });
        fs::write(&path, text.to_string()).unwrap();
        path
    };
    let remembered = ["named", "another", "gone"].map(|name| home.join(name));
    let remembered = remembered.map(|path| (path.display().to_string(), json!({})));
    let mut named: serde_json::Map<String, Value> = remembered.into_iter().collect();
    named.insert("elsewhere".to_owned(), json!({}));
    project("named", ".mcp.json", "of-named");
    project("elsewhere", ".mcp.json", "of-no-path");
    let foreign = project("another", ".cursor/mcp.json", "of-a-stranger");
    chown(foreign, Some(1), Some(1)).unwrap();
    let pipe = home.join("another/.mcp.json");
    must("mkfifo", &[pipe.to_str().unwrap()]).unwrap();
    let file = json!({ "projects": named }).to_string();
    fs::write(home.join(".claude.json"), file).unwrap();

    project("open", ".vscode/mcp.json", "of-open");
    let host = lab.directory().join("claude");
    fs::copy("/usr/bin/sleep", &host).unwrap();
    let mut command = lab.inside.command("/usr/bin/env");
    command
        .arg("-C")
        .arg(home.join("open"))
        .arg(&host)
        .arg("60");
    let mut host = Process::start("claude", lab.directory(), &mut command).unwrap();

    let said = wait_for("the project of the host is found", LIMIT, async || {
        let mut command = lab.exeat(&["discover", "--json"]).ok()?;
        let done = run(command.env("HOME", &home), LIMIT).await.ok()?;
        done.stdout.contains("of-open").then_some(done)
    })
    .await
    .unwrap();
    let inventory = said.json().unwrap();
    let found = inventory["found"].as_array().unwrap();
    let has = |name: &str| found.iter().any(|found| found["name"] == name);
    assert!(has("of-named") && has("of-open"), "{inventory}");
    assert!(!has("of-no-path") && !has("of-a-stranger"), "{inventory}");
    let notes = inventory["notes"].to_string();
    assert!(
        notes.contains("another/.mcp.json` is no regular file"),
        "{notes}"
    );
    assert!(
        notes.contains("another/.cursor/mcp.json` belongs to user 1"),
        "{notes}"
    );
    assert!(!notes.contains("gone"), "{notes}");
    host.stop().await.unwrap();
    drop(daemon);
}
