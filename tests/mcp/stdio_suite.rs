//! The conformance suite over stdio, at servers and by a client: the checks and their results are those of a run without Exeat.
//!
//! The suite tests HTTP. A bridge makes one of the other, and knows nothing of either side; what it cannot do fails both ways alike.

use std::process::Stdio;

use exeat_tests::Lab;
use exeat_tests::conformance::{Outcome, Requirements, conformance, conformance_of_client};
use exeat_tests::fixtures::{Fixtures, Server};
use exeat_tests::process::Process;

use crate::stdio_real::{bare, policy, row, through};
use crate::suite::{
    RESULT_DIRECT, RESULT_THROUGH, TASK_DIRECT, TASK_REASON, TASK_THROUGH, the_page_tells,
};
use crate::world::{LIMIT, near};

/// What differs from a direct run, each with its reason, as tests/README.md tells. One that does not occur any more fails as one
/// that is not listed does.
const DIFFERENCES: [(Server, &str, &str); 10] = [
    (
        Server::Reference,
        "- caching sep-2549-cache-scope-valid FAILURE x1",
        SCOPE_REASON,
    ),
    (Server::Reference, RESULT_DIRECT, TASK_REASON),
    (
        Server::Reference,
        "+ caching sep-2549-cache-scope-valid SUCCESS x1",
        SCOPE_REASON,
    ),
    (Server::Reference, RESULT_THROUGH, TASK_REASON),
    (Server::Everything, TASK_DIRECT, TASK_REASON),
    (Server::Everything, TASK_THROUGH, TASK_REASON),
    (Server::Ts2, TASK_DIRECT, TASK_REASON),
    (Server::Ts2, TASK_THROUGH, TASK_REASON),
    (Server::Py2, TASK_DIRECT, TASK_REASON),
    (Server::Py2, TASK_THROUGH, TASK_REASON),
];

const SCOPE_REASON: &str = "the server knows no modern revision and states no scope; \
    Exeat says of a list that it filters for each caller that it is private";

/// What is listed of `server`.
fn listed(server: Server) -> Vec<&'static str> {
    let own = DIFFERENCES.iter().filter(|(of, _, _)| *of == server);
    own.map(|(_, line, _)| *line).collect()
}

#[test]
fn the_page_tells_the_differences_over_stdio() {
    the_page_tells("stdio", &DIFFERENCES);
}

async fn same(server: Server, passed: [usize; 2]) {
    let fixtures = Fixtures::find().unwrap();
    let lab = Lab::new().unwrap();
    let command = match server {
        Server::Reference => fixtures.server(server),
        _ => fixtures.server(server).arg("--stdio"),
    };
    let row = row("suite", command, "", serde_json::Value::Null, "");
    let daemon = lab
        .daemon(&policy(std::slice::from_ref(&row)))
        .await
        .unwrap();
    let run = async |command: Vec<String>, port: u16, requirements| -> Outcome {
        let _bridge = near(&lab, fixtures.bridge(&command), port).await.unwrap();
        let url = format!("http://localhost:{port}/mcp");
        conformance(
            &fixtures.conformance(),
            || lab.inside.command("env"),
            &url,
            requirements,
        )
        .await
        .unwrap()
    };
    let mut stale = listed(server);
    for (requirements, passed) in [Requirements::Legacy, Requirements::Modern]
        .into_iter()
        .zip(passed)
    {
        let direct = run(bare(&row.server), 3921, requirements).await;
        let under = run(through(&lab, row.name), 3922, requirements).await;
        let found = direct.difference(&under);
        let known = listed(server)
            .into_iter()
            .filter(|line| found.contains(line))
            .fold(String::new(), |all, line| all + line + "\n");
        assert_eq!(found, known, "{server:?} {requirements:?}");
        stale.retain(|line| !found.contains(line));
        // The bridge does serve the suite.
        assert!(
            under.passed() >= passed,
            "{server:?} {requirements:?}: {under}"
        );
    }
    assert!(stale.is_empty(), "these do not differ any more: {stale:#?}");
    // It did go through Exeat.
    let seen = daemon.audit().unwrap();
    let calls = seen
        .iter()
        .filter(|record| record["mcp"]["method"] == "tools/call");
    assert!(calls.count() > 3, "{seen:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything() {
    same(Server::Everything, [80, 132]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_everything() {
    same(Server::Reference, [47, 1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_typescript_server() {
    same(Server::Ts2, [40, 74]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_server() {
    same(Server::Py2, [43, 90]).await;
}

/// The suite serves over HTTP; a hub brings what a server over stdio is asked to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client() {
    let fixtures = Fixtures::find().unwrap();
    let lab = Lab::new().unwrap();
    let (hub, relay) = fixtures.hub(&lab.directory().join("hub.sock"));
    let mut hub = hub.under(lab.inside.command("env"));
    let mut hub = Process::start("hub", lab.directory(), hub.stdin(Stdio::null())).unwrap();
    hub.ready(LIMIT).await.unwrap();
    let row = row("relay", relay, "", serde_json::Value::Null, "");
    let daemon = lab
        .daemon(&policy(std::slice::from_ref(&row)))
        .await
        .unwrap();
    let client = fixtures.conformance_client();
    let line = format!(
        "{} {}",
        client.program.display(),
        client.arguments[0].display()
    );
    let run = async |relay: Vec<String>, requirements| -> Outcome {
        let relay = serde_json::Value::from(relay).to_string();
        let suite = fixtures
            .conformance()
            .variable("MCP_CONFORMANCE_RELAY", relay);
        conformance_of_client(&suite, lab.inside.command("env"), &line, requirements)
            .await
            .unwrap()
    };
    let mut called = 0;
    for requirements in [Requirements::Legacy, Requirements::Modern] {
        let direct = run(bare(&row.server), requirements).await.judged();
        let under = run(through(&lab, row.name), requirements).await.judged();
        assert_eq!(direct.difference(&under), "", "{requirements:?}");
        assert!(under.passed() > 300, "{requirements:?}: {under}");
        let seen = daemon.audit().unwrap();
        let before = called;
        called = seen
            .iter()
            .filter(|record| record["mcp"]["method"] == "tools/call")
            .count();
        assert!(called > before + 3, "{requirements:?}: {seen:#?}");
    }
}
