//! What each source adds, and that one thing is found once.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::parent_id;

use serde_json::{Value, json};

use super::probe::{self, Spoken};
use super::{Found, Inventory, Kind, Listening, Running, Standing, Survey};
use crate::channel::Process;
use crate::hosts::{self, Account, Package};
use crate::supervisor::unregistered::SUFFIX;

const POLICY: &str = r#"
version: 1
servers:
  git: { purpose: git, owner: me, launch: { command: uvx, args: [mcp-server-git], fetch: [pypi.org] }, egress: [{ host: git.example.com }] }
  tracker: { purpose: x, owner: me, url: "https://mcp.example.com/mcp" }
  local: { purpose: x, owner: me, listen: "127.0.0.1:3001" }
hosts:
  agent: { match: { exe: EXE }, servers: [tracker], egress: [{ host: api.example.com }] }
"#;

fn policy() -> exeat_policy::PolicySet {
    let exe = fs::read_link(format!("/proc/{}/exe", parent_id())).unwrap();
    let source = exeat_policy::Source {
        name: "policy.yaml".into(),
        // Of a process that runs, since it is the file that counts.
        text: POLICY.replace("EXE", exe.to_str().unwrap()),
    };
    exeat_policy::compile(&[source]).unwrap()
}

fn names() -> BTreeSet<String> {
    ["git", "tracker", "local"].map(str::to_owned).into()
}

/// A process of dave's on pipes: `parent exe arguments...`.
fn running(pid: u32, parent: u32, exe: &str, args: &[&str]) -> Running {
    let args: Vec<String> = [exe]
        .iter()
        .chain(args)
        .map(|&arg| arg.to_owned())
        .collect();
    Running {
        package: Package::of(exe, &args[1..]),
        process: Process {
            workload: 0,
            pid,
            parent,
            started: u64::from(pid),
            uid: 4_000_000,
            exe: exe.into(),
            args,
            sha256: None,
        },
        cgroup: Some("/user.slice".into()),
        user: "dave".into(),
        piped: true,
        works_in: None,
        sockets: Vec::new(),
    }
}

fn survey(all: &[Running]) -> Inventory {
    let (set, names) = (policy(), names());
    let mut survey = Survey::new(Some(&set), &names);
    survey.processes(all, "exeat");
    survey.finish()
}

fn one<'i>(inventory: &'i Inventory, name: &str) -> &'i Found {
    let mut found = inventory.found.iter().filter(|found| found.name == name);
    let one = found
        .next()
        .unwrap_or_else(|| panic!("{name} in {inventory:#?}"));
    assert!(found.next().is_none(), "{name} twice in {inventory:#?}");
    one
}

fn reaches(found: &Found) -> &[String] {
    found.reaches.as_deref().unwrap()
}

fn compiles(text: &str) {
    let source = exeat_policy::Source {
        name: "entries.yaml".into(),
        text: text.into(),
    };
    exeat_policy::compile(&[source]).unwrap_or_else(|faults| panic!("{faults:?}\n{text}"));
}

#[test]
fn a_shim_and_its_children_are_one_server() {
    let module = "/home/dave/.npm/_npx/1f/node_modules/@x/weather-mcp/dist/index.js";
    let mut title = running(10, 1, "/usr/bin/node", &[]);
    title.process.args = vec!["npm exec @x/weather-mcp".into()];
    title.package = Package::Npm("@x/weather-mcp".into());
    let inventory = survey(&[
        title,
        running(11, 10, "/usr/bin/dash", &["-c", "weather-mcp"]),
        running(12, 11, "/usr/bin/node", &[module, "--token", "hunter2"]),
        running(20, 1, "/usr/bin/cat", &["x"]),
        running(21, 1, "/usr/bin/node", &["/srv/web/index.js"]),
    ]);
    assert_eq!(inventory.found.len(), 1, "{inventory:#?}");
    let found = one(&inventory, "weather-mcp");
    assert_eq!(
        (found.kind, found.standing),
        (Kind::Server, Standing::Unregistered)
    );
    assert_eq!(found.pids, [10, 11, 12]);
    assert_eq!(found.owner.as_deref(), Some("dave"));
    assert_eq!(reaches(found), ["anything: nothing holds it"]);
    assert!(found.entry.as_ref().unwrap().contains("command: npx"));
    assert!(!format!("{inventory:?}").contains("hunter2"));
    compiles(&inventory.entries);
}

#[test]
fn registered_is_around_until_exeat_starts_it() {
    let mut held = running(31, 1, "/usr/bin/python3", &["/opt/bin/mcp-server-git"]);
    held.cgroup = Some("/exeat/w/git-7".into());
    let mut free = running(32, 1, "/usr/bin/python3", &["/opt/bin/mcp-server-git"]);
    free.process.uid = 4_000_001;
    free.user = "eve".into();
    let inventory = survey(&[held, free]);
    let of = |user: &str| {
        let found = inventory
            .found
            .iter()
            .find(|found| found.owner.as_deref() == Some(user));
        found.unwrap()
    };
    assert_eq!(of("dave").standing, Standing::Managed);
    assert!(reaches(of("dave"))[0].contains("git.example.com"));
    assert_eq!(of("dave").fetches, ["pypi.org"]);
    assert_eq!(of("eve").standing, Standing::Around);
    assert_eq!(of("eve").registered.as_deref(), Some("git"));
    // What is started around Exeat is not held to that.
    assert_eq!(reaches(of("eve")), ["anything: nothing holds it"]);
    assert!(of("eve").fetches.is_empty());
    assert!(inventory.entries.is_empty());
}

#[test]
fn a_server_that_exeat_isolated_reaches_nothing() {
    let mut held = running(31, 1, "/usr/bin/python3", &["/opt/bin/mcp-server-git"]);
    held.cgroup = Some(format!("/exeat/w/agent{SUFFIX}-7"));
    let inventory = survey(&[held]);
    let found = &inventory.found[0];
    assert!(
        reaches(found).is_empty() && found.fetches.is_empty(),
        "{found:?}"
    );
    let json = serde_json::to_value(found).unwrap();
    assert_eq!(
        (&json["reaches"], &json["fetches"]),
        (&json!([]), &json!([]))
    );
}

#[test]
fn without_a_policy_it_is_not_known_what_is_reached() {
    let mut held = running(31, 1, "/usr/bin/python3", &["/opt/bin/mcp-server-git"]);
    held.cgroup = Some("/exeat/w/git-7".into());
    let names = names();
    let mut survey = Survey::new(None, &names);
    survey.processes(&[held], "exeat");
    let inventory = survey.finish();
    let json = serde_json::to_value(one(&inventory, "git")).unwrap();
    assert_eq!(json["standing"], "managed", "{json}");
    assert_eq!(json["reaches"], Value::Null, "{json}");
}

#[test]
fn hosts_are_known_by_executable_package_and_policy() {
    let code = "/usr/lib/node_modules/@anthropic-ai/claude-code/cli.js";
    let inventory = survey(&[
        running(40, 1, "/usr/lib/claude-desktop/claude-desktop", &[]),
        running(
            41,
            40,
            "/usr/lib/claude-desktop/claude-desktop",
            &["--type=renderer"],
        ),
        running(42, 40, "/opt/tools/thing", &["--stdio"]),
        running(43, 1, "/usr/bin/node", &[code]),
        running(44, 43, "/usr/bin/git", &["status"]),
        running(parent_id(), 1, "/opt/agent/agent", &[]),
    ]);
    let desktop = one(&inventory, "claude-desktop");
    assert_eq!(
        (desktop.kind, desktop.standing),
        (Kind::Host, Standing::Unregistered)
    );
    assert_eq!(desktop.pids, [40]);
    // All that a host of that kind has on pipes is a server.
    assert_eq!(one(&inventory, "thing").pids, [42]);
    assert_eq!(one(&inventory, "claude-code").pids, [43]);
    let agent = one(&inventory, "agent");
    assert_eq!(
        (agent.kind, agent.standing),
        (Kind::Host, Standing::Managed)
    );
    assert!(reaches(agent).contains(&"server tracker".to_owned()));
    assert_eq!(inventory.found.len(), 4, "{inventory:#?}");
    assert!(
        inventory.entries.contains("hosts:"),
        "{}",
        inventory.entries
    );
    compiles(&inventory.entries);
}

#[test]
fn configurations_are_compared_with_the_register() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().canonicalize().unwrap().join(".cursor/mcp.json");
    fs::create_dir(file.parent().unwrap()).unwrap();
    fs::write(
        &file,
        r#"{"mcpServers": {
          "repository": {"command": "uvx", "args": ["mcp-server-git"]},
          "local": {"command": "exeat", "args": ["run", "local"]},
          "gone": {"command": "exeat", "args": ["run", "gone"]},
          "ticket": {"url": "https://mcp.example.com/mcp"},
          "keyed": {"url": "https://other.example.com/mcp?key=hunter2"},
          "new": {"command": "/opt/new-mcp", "args": ["--password", "hunter3"]}
        }}"#,
    )
    .unwrap();
    let uid = nix::unistd::geteuid().as_raw();
    let account = Account {
        name: "dave".into(),
        uid,
        home: home.path().to_owned(),
    };
    let (set, names) = (policy(), names());
    let mut survey = Survey::new(Some(&set), &names);
    survey.file(&account, &hosts::open(&file, uid).unwrap());
    // The same server, running.
    survey.processes(&[running(50, 1, "/opt/new-mcp", &[])], "exeat");
    let inventory = survey.finish();
    for (name, standing) in [
        ("git", Standing::Around),
        ("local", Standing::Managed),
        ("gone", Standing::Unregistered),
        ("tracker", Standing::Managed),
        ("keyed", Standing::Unregistered),
        ("new", Standing::Unregistered),
        ("cursor", Standing::Unregistered),
    ] {
        assert_eq!(one(&inventory, name).standing, standing, "{name}");
    }
    assert_eq!(one(&inventory, "new").pids, [50]);
    // Nothing is known of what runs elsewhere; what has no way out has none.
    assert_eq!(one(&inventory, "tracker").reaches, None);
    assert_eq!(one(&inventory, "keyed").reaches, None);
    assert!(reaches(one(&inventory, "local")).is_empty());
    assert!(
        !serde_json::to_string(&inventory)
            .unwrap()
            .contains("hunter")
    );
    compiles(&inventory.entries);
}

#[test]
fn listeners_belong_to_what_was_found() {
    let address: SocketAddr = "127.0.0.1:3001".parse().unwrap();
    let other: SocketAddr = "127.0.0.1:4001".parse().unwrap();
    let listening = |address, inode| Listening {
        address,
        uid: 4_000_000,
        inode,
    };
    let mut node = running(60, 1, "/usr/bin/node", &["/srv/weather-mcp/index.js"]);
    node.piped = false;
    node.sockets = vec![7];
    let (set, names) = (policy(), names());
    let mut survey = Survey::new(Some(&set), &names);
    let all = [node];
    survey.processes(&all, "exeat");
    let sockets = [listening(address, 8), listening(other, 7)];
    survey.listeners(&all, &sockets);
    let spoken = Spoken {
        path: "/mcp",
        name: Some("weather".into()),
    };
    survey.spoken(&all, &sockets[1], &spoken);
    let inventory = survey.finish();
    assert_eq!(one(&inventory, "local").standing, Standing::Managed);
    let weather = one(&inventory, "weather-mcp");
    assert_eq!(weather.listens, [other].into());
    assert_eq!(weather.url.as_deref(), Some("http://127.0.0.1:4001/mcp"));
    assert!(
        weather
            .entry
            .as_ref()
            .unwrap()
            .contains("listen: \"127.0.0.1:4001\"")
    );
    compiles(&inventory.entries);
}

#[test]
fn refused_traffic_is_counted_and_forgotten_once_registered() {
    let line = |name: &str, path: &str| {
        format!(
            r#"{{"time":"2026-11-20T10:00:00.000000Z","workload":{{"name":"agent"}},"http":{{"name":"{name}","port":443,"path":"{path}"}}}}"#
        )
    };
    let (set, names) = (policy(), names());
    let mut survey = Survey::new(Some(&set), &names);
    survey.record(&line("new.example.com", "/mcp?key=hunter2"));
    survey.record(&line("new.example.com", "/mcp"));
    survey.record(&line("mcp.example.com", "/mcp"));
    survey.record("not json");
    let inventory = survey.finish();
    assert_eq!(inventory.found.len(), 1, "{inventory:#?}");
    let found = one(&inventory, "new.example.com");
    assert_eq!(found.url.as_deref(), Some("https://new.example.com/mcp"));
    assert!(
        found.seen[0].contains("refused to `agent` 2 times"),
        "{:?}",
        found.seen
    );
    compiles(&inventory.entries);
}

/// Answers each connection with the next of these texts, and tells what it was asked.
async fn answering(
    answers: &'static [&'static str],
) -> (SocketAddr, tokio::task::JoinHandle<Vec<String>>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = vec![0; 4096];
            let length = stream.read(&mut buffer).await.unwrap();
            asked.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        asked
    });
    (address, task)
}

#[tokio::test]
async fn a_listener_that_speaks_mcp_says_so_and_its_session_is_closed() {
    const INITIALIZED: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nmcp-session-id: s1\r\n\r\nid: 1\ndata: \n\nevent: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"protocolVersion\":\"2025-11-25\",\"serverInfo\":{\"name\":\"weather\"}}}\n\n";
    const DONE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let (address, task) = answering(&[INITIALIZED, DONE]).await;
    let spoken = probe::ask(address).await.unwrap();
    assert_eq!(
        (spoken.path, spoken.name.as_deref()),
        ("/mcp", Some("weather"))
    );
    let asked = task.await.unwrap();
    assert!(asked[0].starts_with("POST /mcp HTTP/1.1"), "{asked:?}");
    assert!(
        asked[1].starts_with("DELETE /mcp HTTP/1.1") && asked[1].contains("s1"),
        "{asked:?}"
    );
}

#[tokio::test]
async fn the_revision_without_initialize_is_known_too() {
    const UNKNOWN: &str = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32022,\"message\":\"x\"}}";
    const DISCOVERED: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"supportedVersions\":[\"2026-07-28\"]}}";
    let (address, task) = answering(&[UNKNOWN, DISCOVERED]).await;
    assert_eq!(probe::ask(address).await.unwrap().path, "/mcp");
    assert!(task.await.unwrap()[1].contains("server/discover"));
}

#[tokio::test]
async fn what_is_no_mcp_is_asked_little() {
    const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno";
    // Three paths, and a stream at `/sse`.
    let (address, task) = answering(&[NOT_FOUND; 4]).await;
    assert_eq!(probe::ask(address).await, None);
    assert!(task.await.unwrap()[3].starts_with("POST / "));
    // Whoever speaks something else is asked once.
    let (address, task) = answering(&["220 mail.example.com ESMTP\r\n"]).await;
    assert_eq!(probe::ask(address).await, None);
    assert_eq!(task.await.unwrap().len(), 1);
}
