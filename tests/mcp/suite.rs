//! The conformance suite: the checks and their results are those of a direct run.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use exeat_tests::Lab;
use exeat_tests::conformance::{Requirements, conformance, conformance_of_client};
use exeat_tests::fixtures::{Fixtures, Server};
use exeat_tests::process::Process;
use exeat_tests::wait::wait_for;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixListener;
use tokio::time::timeout;

use crate::world::{ALL, LIMIT, World, far, near, reference};

/// What differs from a direct run, each with its reason, as tests/README.md tells. One that does not occur any more fails as one
/// that is not listed does.
const DIFFERENCES: [(Server, &str, &str); 24] = [
    (Server::Reference, REBINDING_DIRECT, REBINDING_REASON),
    (
        Server::Reference,
        "- server-stateless sep-2575-http-server-error-jsonrpc-id FAILURE x5",
        LEGACY_REASON,
    ),
    (
        Server::Reference,
        "- server-stateless sep-2575-http-server-header-mismatch-400 FAILURE x1",
        LEGACY_REASON,
    ),
    (
        Server::Reference,
        "- server-stateless sep-2575-request-meta-invalid-missing-meta FAILURE x1",
        LEGACY_REASON,
    ),
    (
        Server::Reference,
        "- server-stateless sep-2575-request-meta-invalid-missing-protocol-version FAILURE x1",
        LEGACY_REASON,
    ),
    (Server::Reference, TASK_DIRECT, TASK_REASON),
    (Server::Reference, RESULT_DIRECT, TASK_REASON),
    (
        Server::Reference,
        "- tasks-request-headers tasks-headers-reject-mismatched-method FAILURE x1",
        LEGACY_REASON,
    ),
    (Server::Reference, REBINDING_THROUGH, REBINDING_REASON),
    (
        Server::Reference,
        "+ server-stateless sep-2575-http-server-error-jsonrpc-id FAILURE x3",
        LEGACY_REASON,
    ),
    (
        Server::Reference,
        "+ server-stateless sep-2575-http-server-header-mismatch-400 SUCCESS x1",
        LEGACY_REASON,
    ),
    (
        Server::Reference,
        "+ server-stateless sep-2575-request-meta-invalid-missing-meta SUCCESS x1",
        LEGACY_REASON,
    ),
    (
        Server::Reference,
        "+ server-stateless sep-2575-request-meta-invalid-missing-protocol-version SUCCESS x1",
        LEGACY_REASON,
    ),
    (Server::Reference, TASK_THROUGH, TASK_REASON),
    (Server::Reference, RESULT_THROUGH, TASK_REASON),
    (
        Server::Reference,
        "+ tasks-request-headers tasks-headers-reject-mismatched-method SUCCESS x1",
        LEGACY_REASON,
    ),
    (Server::Ts2, REBINDING_DIRECT, REBINDING_REASON),
    (Server::Ts2, TASK_DIRECT, TASK_REASON),
    (Server::Ts2, REBINDING_THROUGH, REBINDING_REASON),
    (Server::Ts2, TASK_THROUGH, TASK_REASON),
    (Server::Everything, TASK_DIRECT, TASK_REASON),
    (Server::Everything, TASK_THROUGH, TASK_REASON),
    (Server::Py2, TASK_DIRECT, TASK_REASON),
    (Server::Py2, TASK_THROUGH, TASK_REASON),
];

pub(crate) const TASK_DIRECT: &str =
    "- tasks-dispatch-and-envelope sep-2663-tasks-get-invalid-task-id-32602 FAILURE x1";
pub(crate) const TASK_THROUGH: &str =
    "+ tasks-dispatch-and-envelope sep-2663-tasks-get-invalid-task-id-32602 SUCCESS x1";
pub(crate) const RESULT_DIRECT: &str =
    "- tasks-dispatch-and-envelope sep-2663-tasks-result-removed-method-not-found FAILURE x1";
pub(crate) const RESULT_THROUGH: &str =
    "+ tasks-dispatch-and-envelope sep-2663-tasks-result-removed-method-not-found SUCCESS x1";
pub(crate) const TASK_REASON: &str = "the server answers otherwise; Exeat refuses a task, or a method, that it does not know, as servers say it";

const LEGACY_REASON: &str = "the server knows no revision with headers that repeat the body and takes any; \
    Exeat refuses modern messages that lack them or whose headers disagree, before the server could";

const REBINDING_DIRECT: &str =
    "- dns-rebinding-protection localhost-host-rebinding-rejected FAILURE x1";
const REBINDING_THROUGH: &str =
    "+ dns-rebinding-protection localhost-host-rebinding-rejected SUCCESS x1";
const REBINDING_REASON: &str = "the server takes any Host; Exeat refuses (421) one that disagrees with the \
    name that was dialled, before the server could";

/// What is listed of `server`.
fn listed(server: Server) -> Vec<&'static str> {
    let own = DIFFERENCES.iter().filter(|(of, _, _)| *of == server);
    own.map(|(_, line, _)| *line).collect()
}

/// tests/README.md tells these differences of runs over `way`, and no others.
pub(crate) fn the_page_tells(way: &str, differences: &[(Server, &str, &str)]) {
    let (_, section) = include_str!("../README.md")
        .split_once("### Where the set through Exeat is another")
        .unwrap();
    let mut told = BTreeSet::new();
    for row in section.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [over, servers, check, directly, through, _] = cells[..] else {
            panic!("{row}");
        };
        if over.split(", ").all(|over| over != way) {
            continue;
        }
        let check = check.replace('`', "");
        for server in servers.split(", ") {
            told.insert((server, format!("- {check} {directly}")));
            told.insert((server, format!("+ {check} {through}")));
        }
    }
    let name = |server| match server {
        Server::Everything => "everything",
        Server::Reference => "server-everything",
        Server::Ts2 => "ts2",
        Server::Py2 => "py2",
        _ => panic!("the page has no name of {server:?}"),
    };
    let listed = differences
        .iter()
        .map(|(server, line, _)| (name(*server), (*line).to_owned()));
    assert_eq!(told, listed.collect(), "told by the page, and listed");
}

#[test]
fn the_page_tells_the_differences_over_http() {
    the_page_tells("HTTP", &DIFFERENCES);
}

/// How many messages of MCP the daemon has records of.
fn messages(world: &World<'_>) -> usize {
    let records = world.daemon.audit().unwrap();
    let of_mcp = |record: &&Value| record["mcp"]["method"].is_string();
    records.iter().filter(of_mcp).count()
}

/// The suite against `server` finds `least` checks passed or more, for the revision with sessions and the one without,
/// and through Exeat the same as without it.
async fn same(server: Server, is_far: bool, port: u16, least: [usize; 2]) {
    let fixtures = Fixtures::find().unwrap();
    let lab = Lab::new().unwrap();
    let local = format!("http://localhost:{port}/mcp");
    let url = if is_far {
        "https://mcp.lab.example/mcp"
    } else {
        &local
    };
    let invocation = fixtures.server(server);
    let _server: Process = match server {
        Server::Reference => reference(&lab, invocation, "streamableHttp", port).await,
        Server::Everything if is_far => {
            far(&lab, invocation.args(["--name", "mcp.lab.example"])).await
        }
        _ => near(&lab, invocation, port).await,
    }
    .unwrap();
    let world = World::new(&lab, &[("suite", url)], ALL).await.unwrap();
    let mut stale = listed(server);
    let mut seen = 0;
    let revisions = [Requirements::Legacy, Requirements::Modern];
    for (requirements, least) in revisions.into_iter().zip(least) {
        let suite = fixtures.conformance();
        let world_ca = lab.directory().join("world-ca.pem");
        let direct = suite.clone().variable("NODE_EXTRA_CA_CERTS", world_ca);
        let direct = conformance(&direct, || lab.direct(), url, requirements)
            .await
            .unwrap();
        assert!(direct.passed() >= least, "{requirements:?}: {direct}");
        assert_eq!(
            messages(&world),
            seen,
            "{requirements:?}: the direct run went through Exeat"
        );
        let through = suite.variable("NODE_EXTRA_CA_CERTS", world.trust());
        let through = conformance(&through, || world.managed(), url, requirements)
            .await
            .unwrap();
        let found = direct.difference(&through);
        let known = listed(server)
            .into_iter()
            .filter(|line| found.contains(line))
            .fold(String::new(), |all, line| all + line + "\n");
        assert_eq!(found, known, "{server:?} {requirements:?}");
        stale.retain(|line| !found.contains(line));
        // It did go through Exeat.
        let now = messages(&world);
        assert!(
            now - seen > 60,
            "{requirements:?}: {} messages were seen",
            now - seen
        );
        seen = now;
    }
    assert!(stale.is_empty(), "these do not differ any more: {stale:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_over_https() {
    same(Server::Everything, true, 443, [75, 130]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_on_loopback() {
    same(Server::Everything, false, 3911, [80, 150]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_everything() {
    same(Server::Reference, false, 3912, [45, 10]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_typescript_server() {
    same(Server::Ts2, false, 3913, [30, 90]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_server() {
    same(Server::Py2, false, 3914, [40, 100]).await;
}

/// What the suite has asked to be let in.
#[derive(Default)]
struct Admitted {
    urls: BTreeSet<String>,
    ports: BTreeSet<u16>,
}

impl Admitted {
    /// Everything that was asked for, in force.
    async fn apply(&self, world: &World<'_>) -> Result<()> {
        // By port: a server must not change its name while it is talked to.
        let port = |url: &String| url.rsplit(':').next().unwrap_or_default().replace('/', "-");
        let names: Vec<String> = self
            .urls
            .iter()
            .map(|url| format!("at-{}", port(url)))
            .collect();
        let servers: Vec<(&str, &str)> = names
            .iter()
            .zip(&self.urls)
            .map(|(name, url)| (name.as_str(), url.as_str()))
            .collect();
        let ports: Vec<String> = self.ports.iter().map(ToString::to_string).collect();
        let entries: Vec<String> = ports
            .chunks(64)
            .map(|ports| {
                format!(
                    "{{ host: localhost, ports: [{}], tls: off, private: true }}",
                    ports.join(", ")
                )
            })
            .collect();
        let generation =
            async || world.daemon.status().await.ok()?["policy"]["generation"].as_u64();
        let before = generation()
            .await
            .context("ask for the policy's generation")?;
        world.replace(&servers, &format!("[{}]", entries.join(", ")), ALL)?;
        wait_for("the policy is in force", LIMIT, async || {
            generation().await.filter(|now| *now > before)
        })
        .await
        .map(drop)
    }
}

/// Answers `admit.py` for as long as it is polled.
async fn admit(world: &World<'_>, listener: UnixListener) -> Result<Infallible> {
    let mut admitted = Admitted::default();
    loop {
        // Scenarios start together: one reload serves those that ask within a moment of each other.
        let mut waiting = vec![listener.accept().await?.0];
        while let Ok(accepted) = timeout(Duration::from_millis(300), listener.accept()).await {
            waiting.push(accepted?.0);
        }
        let known = admitted.urls.len() + admitted.ports.len();
        for stream in &mut waiting {
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).await?;
            let asked: Value = serde_json::from_str(&line)?;
            let url = asked["url"].as_str().context("read a url")?.to_owned();
            let listening = asked["ports"].as_array().context("read ports")?;
            let ports = listening
                .iter()
                .filter_map(|port| u16::try_from(port.as_u64()?).ok());
            admitted.urls.insert(url);
            admitted.ports.extend(ports);
        }
        if admitted.urls.len() + admitted.ports.len() > known {
            admitted.apply(world).await?;
        }
        for mut stream in waiting {
            stream.write_all(b"ok").await?;
        }
    }
}

async fn same_client(requirements: Requirements) {
    let fixtures = Fixtures::find().unwrap();
    let lab = Lab::new().unwrap();
    let client = fixtures.conformance_client();
    let line = format!(
        "{} {}",
        client.program.display(),
        client.arguments[0].display()
    );
    let suite = fixtures.conformance();
    let direct = conformance_of_client(&suite, lab.direct(), &line, requirements)
        .await
        .unwrap();

    let world = World::new(&lab, &[("none", "http://localhost:1/mcp")], ALL)
        .await
        .unwrap();
    let socket = lab.directory().join("admit.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let script = lab.directory().join("client.sh");
    let admit_script = lab.directory().join("admit.py");
    fs::write(&admit_script, include_str!("admit.py")).unwrap();
    let text = format!(
        "#!/bin/sh\n/usr/bin/python3 {} {} \"$1\" || exit 9\necho $$ > {}/cgroup.procs\nexec {line} \"$1\"\n",
        admit_script.display(),
        socket.display(),
        world.cgroup.path().display(),
    );
    fs::write(&script, text).unwrap();
    let managed = format!("/bin/sh {}", script.display());
    let through = tokio::select! {
        through = conformance_of_client(&suite, lab.direct(), &managed, requirements) => through.unwrap(),
        failed = admit(&world, listener) => panic!("{:?}", failed.err()),
    };
    assert_eq!(direct.difference(&through), "", "{requirements:?}");
    assert!(direct.passed() > 300, "{direct}");
    // It did go through Exeat.
    let asked = messages(&world);
    assert!(asked > 30, "{asked} messages were seen");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_the_legacy_revision() {
    same_client(Requirements::Legacy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_the_modern_revision() {
    same_client(Requirements::Modern).await;
}
