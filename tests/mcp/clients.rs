//! Every client at every kind of server: the answers are those of a direct run.

use exeat_tests::Lab;
use exeat_tests::fixtures::{Client, Fixtures, Server};
use exeat_tests::process::{Process, run};
use serde_json::Value;

use crate::world::{ALL, LIMIT, World, far, near, reference};

const FAR: &str = "https://mcp.lab.example/mcp";

/// Calls `tool` with every one of `clients`, directly and as the managed host.
async fn compare(
    world: &World<'_>,
    url: &str,
    clients: &[Client],
    tool: &str,
    arguments: &str,
) -> Vec<(Client, Value)> {
    let fixtures = Fixtures::find().unwrap();
    let mut answers = Vec::new();
    for client in clients {
        let call = fixtures.client(*client, url, tool, arguments);
        let world_ca = world.lab.directory().join("world-ca.pem");
        let direct = call.clone().variable(client.trust(), world_ca);
        let through = call.variable(client.trust(), world.trust());
        let direct = async { run(&mut direct.under(world.lab.direct()), LIMIT).await };
        let (direct, through) = tokio::join!(direct, world.run(&through));
        let (direct, through) = (direct.unwrap().json(), through.unwrap().json());
        let (direct, through) = (direct.unwrap(), through.unwrap());
        assert_eq!(direct, through, "{client:?} at {url}");
        answers.push((*client, through));
    }
    answers
}

async fn modern_server(server: Server) {
    let fixtures = Fixtures::find().unwrap();
    let lab = Lab::new().unwrap();
    let near_url = "http://localhost:3901/mcp";
    let _far: Process = far(&lab, fixtures.server(server)).await.unwrap();
    let _near: Process = near(&lab, fixtures.server(server), 3901).await.unwrap();
    let world = World::new(&lab, &[("far", FAR), ("near", near_url)], ALL)
        .await
        .unwrap();
    for url in [FAR, near_url] {
        let arguments = r#"{"a":20,"b":22}"#;
        for (client, answer) in compare(&world, url, &Client::ALL, "add", arguments).await {
            assert_eq!(answer["text"], "42", "{client:?} at {url}: {answer}");
            assert_eq!(answer["tools"].as_array().map(Vec::len), Some(8));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_gets_what_it_gets_directly_from_the_typescript_server() {
    modern_server(Server::Ts2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_gets_what_it_gets_directly_from_the_python_server() {
    modern_server(Server::Py2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_the_legacy_era_reach_server_everything() {
    let fixtures = Fixtures::find().unwrap();
    let lab = Lab::new().unwrap();
    let url = "http://localhost:3903/mcp";
    let server = fixtures.server(Server::Reference);
    let _server = reference(&lab, server, "streamableHttp", 3903)
        .await
        .unwrap();
    let world = World::new(&lab, &[("near", url)], ALL).await.unwrap();
    let clients = [Client::Ts1, Client::Ts2, Client::Py1, Client::Py2];
    for (client, answer) in compare(&world, url, &clients, "get-sum", r#"{"a":20,"b":22}"#).await {
        let text = answer["text"].as_str().unwrap_or_default();
        assert!(text.contains("42"), "{client:?}: {answer}");
    }
}
