//! The conformance suite: the checks and their results are those of a direct run.

use exeat_tests::Lab;
use exeat_tests::conformance::{Requirements, conformance};
use exeat_tests::fixtures::{Fixtures, Server};
use exeat_tests::process::Process;

use crate::world::{ALL, World, far, near, reference};

/// What differs from a direct run, each with its reason. The list may only shrink.
const DIFFERENCES: [(Server, &str, &str); 4] = [
    (Server::Reference, REBINDING_DIRECT, REBINDING_REASON),
    (Server::Reference, REBINDING_THROUGH, REBINDING_REASON),
    (Server::Ts2, REBINDING_DIRECT, REBINDING_REASON),
    (Server::Ts2, REBINDING_THROUGH, REBINDING_REASON),
];

const REBINDING_DIRECT: &str =
    "- dns-rebinding-protection localhost-host-rebinding-rejected FAILURE x1";
const REBINDING_THROUGH: &str =
    "+ dns-rebinding-protection localhost-host-rebinding-rejected SUCCESS x1";
const REBINDING_REASON: &str = "the server takes any Host; Exeat refuses (421) one that disagrees with the \
    name that was dialled, before the server could";

async fn same(server: Server, is_far: bool, port: u16) {
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
    for requirements in [Requirements::Legacy, Requirements::Modern] {
        let suite = fixtures.conformance();
        let world_ca = lab.directory().join("world-ca.pem");
        let direct = suite.clone().variable("NODE_EXTRA_CA_CERTS", world_ca);
        let direct = conformance(&direct, || lab.direct(), url, requirements)
            .await
            .unwrap();
        let through = suite.variable("NODE_EXTRA_CA_CERTS", world.trust());
        let through = conformance(&through, || world.managed(), url, requirements)
            .await
            .unwrap();
        let found = direct.difference(&through);
        let listed: String = DIFFERENCES
            .iter()
            .filter(|(of, line, _)| *of == server && found.contains(line))
            .map(|(_, line, _)| format!("{line}\n"))
            .collect();
        assert_eq!(found, listed, "{server:?} {requirements:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_over_https() {
    same(Server::Everything, true, 443).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_on_loopback() {
    same(Server::Everything, false, 3911).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_everything() {
    same(Server::Reference, false, 3912).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_typescript_server() {
    same(Server::Ts2, false, 3913).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_server() {
    same(Server::Py2, false, 3914).await;
}
