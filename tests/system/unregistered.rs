//! MCP servers that a host starts without Exeat: recognised at their execution, and by policy left, isolated or ended.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt as _, chown};
use std::path::PathBuf;
use std::time::Duration;

use exeat_tests::Lab;
use exeat_tests::cgroup::Cgroup;
use exeat_tests::daemon::{Daemon, binary};
use exeat_tests::lab::WORLD;
use exeat_tests::stdio::Session;
use exeat_tests::upstream::{Manner, Upstream};
use exeat_tests::wait::wait_for;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const HOST: &str = include_str!("clients/host.py");
const REACHING: &str = include_str!("clients/reaching.py");
const PYTHON: &str = "/usr/bin/python3";
const API: &str = "api.lab.example";
/// What the world answers: what is refused on the way has another status.
const OUT: u16 = 404;
const LIMIT: Duration = Duration::from_secs(30);

/// A host in a cgroup of its own, its project, and what may be reached.
struct Place<'lab> {
    lab: &'lab Lab,
    cgroup: Cgroup,
    project: PathBuf,
    api: Upstream,
}

/// A host that does what it is told.
struct Host(Session);

impl<'lab> Place<'lab> {
    fn new(lab: &'lab Lab) -> Self {
        let project = lab.directory().join("project");
        fs::create_dir(&project).unwrap();
        for name in ["weather", "listed", "bare", "ordinary"] {
            fs::write(project.join(format!("{name}.py")), REACHING).unwrap();
        }
        let tides = project.join("tides");
        let mut executable = OpenOptions::new();
        executable.write(true).create_new(true).mode(0o755);
        let mut script = executable.open(&tides).unwrap();
        write!(script, "#!{PYTHON}\n{REACHING}").unwrap();
        drop(script);
        let moon = project.join("moon");
        let place = Self {
            lab,
            cgroup: Cgroup::create(&format!("{}-host", lab.name())).unwrap(),
            api: lab
                .http(&[API], SocketAddr::new(WORLD, 80), Manner::Http)
                .unwrap(),
            project,
        };
        fs::write(&moon, format!("exec {}\n", place.run("listed").join(" "))).unwrap();
        place.configure(&json!({
            "weather": { "command": "python3", "args": [place.script("weather")] },
            "tides": { "command": tides },
            "moon": { "command": "sh", "args": [moon] },
        }));
        place
    }

    /// What the host's configuration for its project starts.
    fn configure(&self, servers: &Value) {
        let text = json!({ "mcpServers": servers }).to_string();
        let draft = self.project.join("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(&draft, self.project.join(".mcp.json")).unwrap();
    }

    fn script(&self, name: &str) -> String {
        self.project
            .join(format!("{name}.py"))
            .display()
            .to_string()
    }

    fn policy(&self, unregistered: &str) -> String {
        let cgroup = self.cgroup.path().file_name().unwrap().to_str().unwrap();
        let server = |name: &str| {
            format!(
                "  {name}:
    purpose: whatever a test runs
    owner: tests@lab.example
    launch: {{ command: {PYTHON}, args: [{}], user: nobody }}
    egress: [{{ host: {API}, ports: [80], tls: off }}]
",
                self.script(name)
            )
        };
        format!(
            "version: 1
servers:
{}{}hosts:
  agent:
    match: {{ cgroup: /{cgroup} }}
    servers: [listed]
    egress: [{{ host: {API}, ports: [80], tls: off }}]
    {unregistered}
",
            server("listed"),
            server("bare"),
        )
    }

    fn host(&self) -> Host {
        let mut command = self.cgroup.launcher(self.lab.inside.command("env"));
        command
            .args([PYTHON, "-c", HOST])
            .current_dir(&self.project);
        Host(Session::start(command, &self.lab.directory().join("host.err")).unwrap())
    }

    /// Whether a request with this word arrived.
    fn arrived(&self, word: &str) -> bool {
        let path = format!("/{word}");
        self.api
            .seen()
            .iter()
            .any(|seen| seen.path.starts_with(&path))
    }

    /// A line for what tries to get out.
    fn say(word: &str) -> String {
        format!("{word} {WORLD}")
    }

    /// `exeat run NAME`, as the host calls it.
    fn run(&self, server: &str) -> Vec<String> {
        let config = self
            .lab
            .directory()
            .join("exeat.yaml")
            .display()
            .to_string();
        let binary = binary().unwrap().display().to_string();
        [&binary, "run", server, "--config", &config]
            .map(str::to_owned)
            .to_vec()
    }
}

impl Host {
    async fn order(&mut self, order: &Value) -> Value {
        self.0.send(order).await.unwrap();
        self.0.receive().await.unwrap()
    }

    /// What a process says of its attempts; `None`: it ended before.
    async fn start(&mut self, argv: &[&str], word: &str) -> (Value, Option<Value>) {
        let order = json!({ "start": argv, "say": Place::say(word) });
        let told = self.order(&order).await;
        let said = told["said"].as_str().unwrap();
        let said = serde_json::from_str(said).ok();
        (told, said)
    }
}

/// The record of an unregistered server with this number.
async fn record(daemon: &Daemon<'_>, pid: &Value) -> Value {
    let wanted = |record: &Value| {
        record["finding"]["what"] == "unregistered_server" && record["exec"]["pid"] == *pid
    };
    daemon
        .record("the server is recorded", wanted)
        .await
        .unwrap()
}

fn unregistered(daemon: &Daemon<'_>) -> usize {
    let all = daemon.audit().unwrap();
    all.iter()
        .filter(|record| record["finding"]["what"] == "unregistered_server")
        .count()
}

/// Waits for a reloaded policy.
async fn in_force(daemon: &Daemon<'_>, generation: u64) {
    let reloaded = |record: &Value| record["policy"]["generation"] == generation;
    daemon
        .record("the policy is in force", reloaded)
        .await
        .unwrap();
}

/// Both outcomes of `exeat run`, whatever becomes of others.
async fn run_is_as_listed(place: &Place<'_>, daemon: &Daemon<'_>, host: &mut Host) {
    let initialize = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "h", "version": "1" } } });
    let initialize = initialize.to_string();
    let order = json!({ "start": place.run("listed"), "say": initialize });
    let told = host.order(&order).await;
    assert!(
        told["said"].as_str().unwrap().contains("serverInfo"),
        "{told}"
    );
    let order = json!({ "start": place.run("bare"), "say": initialize });
    let told = host.order(&order).await;
    assert_eq!(told["status"], 1, "{told}");
    let refused = |record: &Value| {
        record["lifecycle"]["event"] == "run" && record["lifecycle"]["detail"] == "bare"
    };
    let record = daemon.record("the refusal", refused).await.unwrap();
    assert_eq!(
        record["decision"]["reason"], "the host does not list the server",
        "{record}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_stays_its_hosts_where_policy_allows_it() {
    let lab = Lab::new().unwrap();
    let place = Place::new(&lab);
    let daemon = lab
        .daemon(&place.policy("unregistered: allow"))
        .await
        .unwrap();
    let mut host = place.host();
    let (told, said) = host
        .start(&[PYTHON, &place.script("weather")], "weather")
        .await;
    assert_eq!(said.unwrap()["name"], OUT, "{told}");
    assert!(place.arrived("weather-name"));
    let record = record(&daemon, &told["pid"]).await;
    assert_eq!(record["kind"], "exec");
    assert_eq!(record["decision"]["effect"], "allow");
    assert_eq!(record["workload"]["name"], "agent");
    let (told, said) = host
        .start(&[PYTHON, &place.script("ordinary")], "ordinary")
        .await;
    assert_eq!(said.unwrap()["name"], OUT, "{told}");
    run_is_as_listed(&place, &daemon, &mut host).await;
    assert_eq!(unregistered(&daemon), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_ended_where_policy_says_so() {
    let lab = Lab::new().unwrap();
    let place = Place::new(&lab);
    let daemon = lab
        .daemon(&place.policy("unregistered: stop"))
        .await
        .unwrap();
    let mut host = place.host();
    let (told, said) = host
        .start(&[PYTHON, &place.script("weather")], "weather")
        .await;
    assert_eq!((said, &told["status"]), (None, &json!(-9)), "{told}");
    let found = record(&daemon, &told["pid"]).await;
    assert_eq!(found["decision"]["effect"], "deny");
    assert!(
        found["finding"]["detail"]
            .as_str()
            .unwrap()
            .contains("it was ended"),
        "{found}"
    );
    let (told, said) = host
        .start(&[PYTHON, &place.script("ordinary")], "ordinary")
        .await;
    assert_eq!(said.unwrap()["name"], OUT, "{told}");
    run_is_as_listed(&place, &daemon, &mut host).await;
    assert!(!place.arrived("weather"));
    assert_eq!(unregistered(&daemon), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_reaches_nothing_however_its_host_starts_it() {
    let lab = Lab::new().unwrap();
    let place = Place::new(&lab);
    // What holds where nothing is said.
    let daemon = lab.daemon(&place.policy("")).await.unwrap();
    let mut host = place.host();
    let (weather, tides) = (
        place.script("weather"),
        place.project.join("tides").display().to_string(),
    );
    let again = format!("import os; os.execv('/proc/self/exe', ['python3', {weather:?}])");
    let twice = format!(
        "import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: os.execv({PYTHON:?}, ['python3', {weather:?}])
    os._exit(0)
os.wait()"
    );
    let shell = format!("{PYTHON} {weather}; true");
    for (word, argv, why) in [
        ("plain", vec![PYTHON, &weather], "configuration"),
        (
            "env",
            vec!["/usr/bin/env", "A=1", PYTHON, &weather],
            "configuration",
        ),
        ("shell", vec!["/bin/sh", "-c", &shell], "configuration"),
        ("script", vec![&tides], "configuration"),
        ("self", vec![PYTHON, "-c", &again], "configuration"),
        ("twice", vec![PYTHON, "-c", &twice], "configuration"),
        (
            "register",
            vec![PYTHON, &place.script("listed")],
            "`listed`",
        ),
    ] {
        let (told, said) = host.start(&argv, word).await;
        let said = said.unwrap_or_else(|| panic!("{word}: {told}"));
        assert!(
            said["name"].is_string() && said["address"].is_string(),
            "{word}: {said}"
        );
        let found = record(&daemon, &said["pid"]).await;
        assert!(
            found["finding"]["detail"].as_str().unwrap().contains(why),
            "{word}: {found}"
        );
        assert!(!place.arrived(word), "{word}");
    }
    // Under another name, and with a connection of the host's in its hands.
    let order = json!({ "start": ["git", weather], "executable": PYTHON, "hand": API, "say": Place::say("handed"), "keep": true });
    let told = host.order(&order).await;
    let said: Value = serde_json::from_str(told["said"].as_str().unwrap()).unwrap();
    assert!(said["name"].is_string() && said["handed"] != true, "{said}");
    let found = record(&daemon, &said["pid"]).await;
    assert_eq!(found["decision"]["effect"], "deny");
    assert!(!place.arrived("handed"));
    // Nor once the configuration is gone, which its host has read.
    place.configure(&json!({}));
    let (told, after) = host.start(&[PYTHON, &weather], "gone").await;
    assert!(after.unwrap()["name"].is_string(), "{told}");
    assert!(!place.arrived("gone"));
    // It does not have others started in its host's name.
    let order =
        json!({ "start": ["/bin/sh", place.project.join("moon")], "say": Place::say("moon") });
    let told = host.order(&order).await;
    assert_eq!(told["status"], 1, "{told}");
    let run = |record: &Value| record["lifecycle"]["event"] == "run";
    let run = daemon.record("the start is refused", run).await.unwrap();
    assert_eq!(run["workload"]["kind"], "unregistered", "{run}");
    // Nor runs anything in Exeat's own.
    let mut preloaded: Vec<String> = vec!["/usr/bin/env".into(), "LD_PRELOAD=libc.so.6".into()];
    preloaded.extend(place.run("listed"));
    let order = json!({ "start": preloaded, "say": Place::say("preloaded") });
    let told = host.order(&order).await;
    assert_eq!(told["status"], 1, "{told}");
    let found = record(&daemon, &told["pid"]).await;
    let detail = found["finding"]["detail"].as_str().unwrap();
    assert!(detail.contains("LD_PRELOAD"), "{found}");
    assert_eq!(run["outcome"]["status"], "refused", "{run}");
    // A container would be made by somebody outside, so what has one made is ended.
    let docker = place.project.join("docker");
    fs::copy("/bin/cat", &docker).unwrap();
    let (told, _) = host
        .start(
            &[docker.to_str().unwrap(), "run", "-i", "mcp/fetch"],
            "docker",
        )
        .await;
    assert_eq!(told["status"], -9, "{told}");
    let found = record(&daemon, &told["pid"]).await;
    assert!(
        found["finding"]["detail"]
            .as_str()
            .unwrap()
            .contains("its name"),
        "{found}"
    );
    // What it asks for is refused under a reason of its own.
    let asked =
        |record: &Value| record["workload"]["kind"] == "unregistered" && record["kind"] == "dns";
    let asked = daemon.record("its query is refused", asked).await.unwrap();
    assert_eq!(
        asked["decision"]["reason"],
        "an mcp server that its host started without exeat"
    );
    let (told, other) = host
        .start(&[PYTHON, &place.script("ordinary")], "ordinary")
        .await;
    assert_eq!(other.unwrap()["name"], OUT, "{told}");
    run_is_as_listed(&place, &daemon, &mut host).await;
    assert_eq!(unregistered(&daemon), 12);
    // People see it as well.
    let done = daemon.cli(&["discover"]).await.unwrap();
    let inventory: Value = serde_json::from_str(&done.stdout).unwrap();
    let isolated = |found: &&Value| found["pids"].as_array().unwrap().contains(&said["pid"]);
    let isolated = inventory["found"]
        .as_array()
        .unwrap()
        .iter()
        .find(isolated)
        .unwrap();
    assert_ne!(isolated["standing"], "managed", "{isolated}");
    assert!(
        isolated["seen"].to_string().contains("reach nothing"),
        "{isolated}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_says_what_is_a_server_in_it_and_nowhere_else() {
    let lab = Lab::new().unwrap();
    let place = Place::new(&lab);
    let daemon = lab.daemon(&place.policy("")).await.unwrap();
    let mut host = place.host();
    // Somebody else's, as a checkout that people share: its host may read it.
    let other = lab.directory().join("other");
    fs::create_dir(&other).unwrap();
    chown(&other, Some(4711), None).unwrap();
    let ordinary = place.script("ordinary");
    let servers = json!({ "mcpServers": { "x": { "command": "python3", "args": [ordinary] } } });
    let configuration = other.join(".mcp.json");
    fs::write(&configuration, servers.to_string()).unwrap();
    chown(&configuration, Some(4711), None).unwrap();
    let there = format!("cd {} && exec {PYTHON} {ordinary}", other.display());
    let (told, said) = host.start(&["/bin/sh", "-c", &there], "there").await;
    let said = said.unwrap_or_else(|| panic!("{told}"));
    assert!(said["name"].is_string(), "{said}");
    record(&daemon, &said["pid"]).await;
    assert!(!place.arrived("there"));
    let (told, said) = host.start(&[PYTHON, &ordinary], "here").await;
    assert_eq!(said.unwrap()["name"], OUT, "{told}");
    assert_eq!(unregistered(&daemon), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_matched_by_executable_is_judged_as_well() {
    let lab = Lab::new().unwrap();
    let place = Place::new(&lab);
    let agent = place.project.join("agent");
    fs::copy(PYTHON, &agent).unwrap();
    let policy = place.policy("");
    let line = policy.lines().find(|line| line.contains("match:")).unwrap();
    let policy = policy.replace(line, &format!("    match: {{ exe: {} }}", agent.display()));
    let daemon = lab.daemon(&policy).await.unwrap();
    let mut command = lab.inside.command(&agent);
    command
        .args(["-c", HOST])
        .current_dir(&place.project)
        .env("PYTHONHOME", "/usr");
    let mut host = Host(Session::start(command, &lab.directory().join("host.err")).unwrap());
    let (told, said) = host
        .start(&[PYTHON, &place.script("weather")], "weather")
        .await;
    assert!(said.unwrap()["name"].is_string(), "{told}");
    record(&daemon, &told["pid"]).await;
    assert!(!place.arrived("weather"));
    // Itself again, as helpers are started, and what is no server.
    let helper = [agent.to_str().unwrap(), &place.script("ordinary")];
    for argv in [helper, [PYTHON, &place.script("ordinary")]] {
        let (told, said) = host.start(&argv, "ordinary").await;
        assert_eq!(said.unwrap()["name"], OUT, "{told}");
    }
    assert_eq!(unregistered(&daemon), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_already_is_found() {
    let lab = Lab::new().unwrap();
    let place = Place::new(&lab);
    let weather = place.script("weather");
    let mut host = place.host();
    // Before there is a daemon: both connect as they like, and keep their connections.
    let mut pids = Vec::new();
    for name in ["weather", "ordinary"] {
        let order = json!({ "start": [PYTHON, place.script(name)], "hand": WORLD, "say": Place::say(name), "keep": true });
        let told = host.order(&order).await;
        assert!(place.arrived(&format!("{name}-address")), "{told}");
        assert!(place.arrived(&format!("{name}-handed")), "{told}");
        pids.push(told["pid"].clone());
    }
    let again = |pid: &Value, word: &str| json!({ "again": pid, "say": Place::say(word) });
    // A policy that leaves it, and then one that does not.
    let mut daemon = lab
        .daemon(&place.policy("unregistered: allow"))
        .await
        .unwrap();
    let found = record(&daemon, &pids[0]).await;
    assert_eq!(found["decision"]["effect"], "allow");
    let out = wait_for("the server is its host's", LIMIT, async || {
        host.order(&again(&pids[0], "left")).await;
        place.arrived("left-name").then_some(())
    });
    out.await.unwrap();
    daemon
        .replace_policy(&place.policy("unregistered: isolate"))
        .unwrap();
    daemon
        .record("the server is isolated", |record| {
            record["exec"]["pid"] == pids[0] && record["decision"]["effect"] == "deny"
        })
        .await
        .unwrap();
    host.order(&again(&pids[0], "isolated")).await;
    assert!(!place.arrived("isolated"));
    host.order(&again(&pids[1], "other")).await;
    assert!(place.arrived("other-name"));

    // In order or not: with the daemon gone nobody waits for ever, and nothing leaves.
    daemon.stop().await.unwrap();
    let (told, said) = host
        .start(&[PYTHON, &place.script("ordinary")], "stopped")
        .await;
    assert!(said.is_some(), "{told}");
    assert!(!place.arrived("stopped"));
    daemon.restart().await.unwrap();

    // It stays so with the daemon dead and with the next one; what is started meanwhile is found.
    daemon.kill().await.unwrap();
    let order = json!({ "start": [PYTHON, weather], "say": Place::say("dead"), "keep": true });
    host.0.send(&order).await.unwrap();
    daemon.restart().await.unwrap();
    let told = host.0.receive().await.unwrap();
    record(&daemon, &told["pid"]).await;
    for (pid, word) in [(&pids[0], "first"), (&told["pid"], "second")] {
        host.order(&again(pid, word)).await;
        assert!(!place.arrived(word), "{word}");
    }
    assert!(!place.arrived("dead"));
    let out = wait_for("the host goes on", LIMIT, async || {
        host.order(&again(&pids[1], "last")).await;
        place.arrived("last-name").then_some(())
    });
    out.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_loses_events_and_no_process() {
    // More than the ring holds.
    const MANY: u64 = 3000;
    let lab = Lab::new().unwrap();
    let place = Place::new(&lab);
    let daemon = lab
        .daemon(&place.policy("unregistered: isolate"))
        .await
        .unwrap();
    let mut host = place.host();
    let mut seconds = vec![host.order(&json!({ "sequence": 200 })).await];
    for (unregistered, generation) in [("allow", 2), ("isolate", 3)] {
        let policy = place.policy(&format!("unregistered: {unregistered}"));
        daemon.replace_policy(&policy).unwrap();
        in_force(&daemon, generation).await;
        seconds.push(host.order(&json!({ "sequence": 200 })).await);
    }
    println!("seconds for 200 processes, held, not held, held: {seconds:?}");
    // Nobody reads the ring while they start.
    let supervisor = Pid::from_raw(daemon.pid().cast_signed()).unwrap();
    kill_process(supervisor, Signal::STOP).unwrap();
    host.0.send(&json!({ "storm": MANY })).await.unwrap();
    host.0.receive().await.unwrap();
    kill_process(supervisor, Signal::CONT).unwrap();
    let storm = host.0.receive().await.unwrap();
    println!("{MANY} processes, of which events were lost: {storm}");
    assert_eq!(storm["ended"], MANY, "{storm}");
    let status = daemon.status().await.unwrap();
    assert!(
        status["kernel"]["lost_events"].as_u64().unwrap() > 0,
        "{status}"
    );
    let (told, said) = host
        .start(&[PYTHON, &place.script("weather")], "after")
        .await;
    assert!(said.unwrap()["name"].is_string(), "{told}");
    record(&daemon, &told["pid"]).await;
    assert!(!place.arrived("after"));
}
