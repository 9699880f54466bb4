//! The reference servers as real clients start them without Exeat, in a managed host: they work, and reach nothing.

use std::net::SocketAddr;

use exeat_tests::Lab;
use exeat_tests::cgroup::Cgroup;
use exeat_tests::fixtures::{Client, Fixtures, Invocation, Server};
use exeat_tests::lab::WORLD;
use exeat_tests::process::run;
use exeat_tests::upstream::Manner;
use serde_json::{Value, json};

use crate::world::LIMIT;

fn policy(cgroup: &Cgroup, unregistered: &str) -> String {
    let cgroup = cgroup.path().file_name().unwrap().to_str().unwrap();
    format!(
        "version: 1
hosts:
  agent:
    match: {{ cgroup: /{cgroup} }}
    egress: [{{ host: api.lab.example, ports: [80], tls: off }}]
    unregistered: {unregistered}
"
    )
}

/// The command line of a server, as a client takes it.
fn command(server: &Invocation) -> String {
    let mut command = vec!["/usr/bin/env".to_owned()];
    for (name, value) in &server.variables {
        command.push(format!("{name}={}", value.to_string_lossy()));
    }
    command.push(server.program.display().to_string());
    let arguments = server.arguments.iter();
    command.extend(arguments.map(|text| text.to_string_lossy().into_owned()));
    serde_json::to_string(&command).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_clients_start_by_themselves_reach_nothing() {
    let lab = Lab::new().unwrap();
    let fixtures = Fixtures::find().unwrap();
    let api = lab
        .http(
            &["api.lab.example"],
            SocketAddr::new(WORLD, 80),
            Manner::Http,
        )
        .unwrap();
    let cgroup = Cgroup::create(&format!("{}-host", lab.name())).unwrap();
    let daemon = lab.daemon(&policy(&cgroup, "isolate")).await.unwrap();
    let call = async |client: Client, server: Server, tool: &str, arguments: Value| {
        let server = command(&fixtures.server(server));
        let client = fixtures.client(client, &server, tool, &arguments.to_string());
        let hosted = cgroup.launcher(lab.inside.command("env"));
        run(&mut client.under(hosted), LIMIT).await.unwrap()
    };
    let fetch = json!({ "url": "http://api.lab.example/echo" });
    for (number, client) in [Client::Ts1, Client::Ts2, Client::Py1, Client::Py2]
        .into_iter()
        .enumerate()
    {
        let sum = json!({ "a": 20, "b": 22 });
        let done = call(client, Server::Reference, "get-sum", sum).await;
        let answer = done.json().unwrap();
        assert!(answer["text"].as_str().unwrap().contains("42"), "{answer}");
        let done = call(client, Server::Fetch, "fetch", fetch.clone()).await;
        assert_eq!(api.connections(), 0, "{}{}", done.stdout, done.stderr);
        // The servers and nothing else: neither the client nor what a server starts is taken for one. Some clients
        // start a server twice.
        let is_server = |record: &Value| record["finding"]["what"] == "unregistered_server";
        let found = daemon.records("both are seen", 2 * (number + 1), is_server);
        let found = found.await.unwrap();
        for record in found {
            let args = record["exec"]["args"].to_string();
            let server = args.contains("server-everything") || args.contains("mcp-server-fetch");
            assert!(server || args.contains("mcp_server_fetch"), "{record}");
        }
    }
    daemon.replace_policy(&policy(&cgroup, "allow")).unwrap();
    let reloaded = |record: &Value| record["policy"]["generation"] == 2;
    daemon
        .record("the policy is in force", reloaded)
        .await
        .unwrap();
    let done = call(Client::Py2, Server::Fetch, "fetch", fetch).await;
    assert!(api.connections() > 0, "{}{}", done.stdout, done.stderr);
}
