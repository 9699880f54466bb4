//! Every client at every kind of server: the answers are those of a direct run.

use exeat_tests::Lab;
use exeat_tests::fixtures::{Client, Fixtures, Server};
use exeat_tests::process::{Process, run};
use exeat_tests::wait::wait_for;
use serde_json::Value;

use crate::world::{ALL, LIMIT, URL, World, far, near, reference};

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
    let world = World::new(&lab, &[("far", URL), ("near", near_url)], ALL)
        .await
        .unwrap();
    for url in [URL, near_url] {
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

/// The inspector's command line at the old transport, whose messages go to an endpoint that its stream names,
/// and at the present one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_inspector_reaches_both_transports() {
    let fixtures = Fixtures::find().unwrap();
    let lab = Lab::new().unwrap();
    let old = reference(&lab, fixtures.server(Server::Reference), "sse", 3904);
    let _old = old.await.unwrap();
    let new = reference(
        &lab,
        fixtures.server(Server::Reference),
        "streamableHttp",
        3905,
    );
    let _new = new.await.unwrap();
    let servers = [
        ("old", "http://localhost:3904/sse"),
        ("new", "http://localhost:3905/mcp"),
    ];
    let rules =
        "rules: [{ id: reads, servers: [old, new], tools: [echo, get-sum], effect: allow }]";
    let world = World::new(&lab, &servers, rules).await.unwrap();
    for (url, transport) in [(servers[0].1, "sse"), (servers[1].1, "http")] {
        let inspect = |arguments: [&str; 2]| {
            fixtures
                .inspector()
                .arg(url)
                .args(["--transport", transport, "--method"])
                .args(arguments)
                .variable("HOME", lab.directory().as_os_str())
        };
        let list = inspect(["tools/list", "--format=json"]);
        let done = world.run(&list).await.unwrap();
        assert!(
            done.status.success(),
            "{transport}: {}{}",
            done.stdout,
            done.stderr
        );
        assert!(
            done.stdout.contains("get-sum"),
            "{transport}: {}",
            done.stdout
        );
        assert!(
            !done.stdout.contains("get-env"),
            "{transport}: {}",
            done.stdout
        );
        let call = inspect(["tools/call", "--tool-name=echo"])
            .arg("--tool-arg")
            .arg("message=hello there");
        let done = world.run(&call).await.unwrap();
        assert!(
            done.status.success(),
            "{transport}: {}{}",
            done.stdout,
            done.stderr
        );
        assert!(
            done.stdout.contains("hello there"),
            "{transport}: {}",
            done.stdout
        );
        let denied = inspect(["tools/call", "--tool-name=get-env"]);
        let done = world.run(&denied).await.unwrap();
        let said = done.stdout + &done.stderr;
        assert!(
            said.contains("Unknown tool: get-env") || said.contains("not found"),
            "{transport}: {said}"
        );
        assert!(!said.contains("EXEAT_"), "{transport}: {said}");
    }
    for server in ["old", "new"] {
        world
            .daemon
            .record("the inspector's call", |record| {
                record["mcp"]["server"] == server && record["mcp"]["name"] == "echo"
            })
            .await
            .unwrap();
    }
}

/// A host by its executable, started by anybody: it is in its workload before its first instruction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_is_known_by_its_executable() {
    let fixtures = Fixtures::find().unwrap();
    let lab = Lab::new().unwrap();
    let _server = far(&lab, fixtures.server(Server::Ts2)).await.unwrap();
    let agent = lab.directory().join("agent");
    std::fs::copy("/usr/bin/curl", &agent).unwrap();
    let policy = format!(
        "version: 1
servers: {{ far: {{ purpose: test, owner: lab, url: \"{URL}\" }} }}
hosts: {{ agent: {{ match: {{ exe: {} }}, servers: [far] }} }}
rules: [{{ id: echo, tools: [echo], effect: allow }}]
",
        agent.display()
    );
    let daemon = lab.daemon(&policy).await.unwrap();
    for (tool, code) in [("echo", None), ("add", Some(-32602))] {
        let body = serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": { "name": tool, "arguments": { "message": "hi" } } });
        let mut curl = lab.direct();
        curl.arg(&agent)
            .args(["--silent", "--show-error", "--cacert"])
            .arg(lab.directory().join("state/ca.pem"))
            .args(["-H", "content-type: application/json"])
            .args(["-H", "accept: application/json, text/event-stream"])
            .args(["--data", &body.to_string(), URL]);
        let done = run(&mut curl, LIMIT).await.unwrap();
        let text = done.stdout.trim();
        let text = text
            .lines()
            .find_map(|line| line.strip_prefix("data:"))
            .unwrap_or(text);
        let answer: Value = serde_json::from_str(text)
            .unwrap_or_else(|error| panic!("{error}: {}{}", done.stdout, done.stderr));
        assert_eq!(answer["error"]["code"].as_i64(), code, "{tool}: {answer}");
    }
    let record = daemon
        .record("the call", |record| record["mcp"]["name"] == "echo")
        .await
        .unwrap();
    assert_eq!(record["workload"]["name"], "agent", "{record}");
}

/// What the SDKs' programs are told of a refusal: its code, its sentence, its reason, and when to try again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sdk_tells_its_program_why_it_is_refused() {
    let fixtures = Fixtures::find().unwrap();
    let lab = Lab::new().unwrap();
    let _server = far(&lab, fixtures.server(Server::Ts2)).await.unwrap();
    let rules = r#"
rules:
  - { id: all, methods: ["*"], effect: allow }
  - { id: sums, tools: [add], args: [{ field: /a, above: 100 }], effect: deny }
  - { id: no-big, tools: [big], effect: deny }
limits: [{ per: [server], tools: [echo], rate: 1/h }]
breaker: { error_rate: 50%, window: 10m, min_calls: 2, open_for: 10m }
"#;
    let world = World::new(&lab, &[("far", URL)], rules).await.unwrap();
    let call = async |client: Client, tool: &str, arguments: &str| {
        let call = fixtures.client(client, URL, tool, arguments);
        let call = call.variable(client.trust(), world.trust());
        let answer: Value = world.run(&call).await.unwrap().json().unwrap();
        answer
    };
    // The one that the limit lets through, and the two failures that open the tool's breaker.
    let hello = r#"{"message":"hello"}"#;
    let answer = call(Client::Py1, "echo", hello).await;
    assert_eq!(answer["text"], "hello", "{answer}");
    for _ in 0..2 {
        let answer = call(Client::Ts1, "fail", "{}").await;
        assert_eq!(answer["isError"], true, "{answer}");
    }
    let wait = |answer: &Value, most: u64| {
        let wait = answer["error"]["data"]["retry_after_ms"].as_u64();
        let wait = wait.unwrap_or_else(|| panic!("{answer}"));
        assert!((most - 120_000..=most).contains(&wait), "{answer}");
        format!("; try again in {} s", wait.div_ceil(1000))
    };
    for client in SDKS {
        let told = async |tool, arguments, code: i64, reason: Option<&str>| {
            let answer = call(client, tool, arguments).await;
            let error = &answer["error"];
            assert_eq!(error["code"], code, "{client:?}: {answer}");
            assert_eq!(error["data"]["reason"].as_str(), reason, "{answer}");
            answer
        };
        let says = |answer: &Value, said: &str| {
            let message = answer["error"]["message"].as_str().unwrap();
            // The first of them says the code as well.
            let own = message
                .split_once(": ")
                .filter(|(own, _)| own.starts_with("MCP error "));
            let message = own.map_or(message, |(_, message)| message);
            assert_eq!(message, said, "{client:?}: {answer}");
        };
        let answer = told("add", r#"{"a":200,"b":1}"#, -31403, Some("denied")).await;
        says(&answer, "not permitted");
        assert!(
            answer["error"]["data"]["retry_after_ms"].is_null(),
            "{answer}"
        );
        let answer = told("big", r#"{"n":1}"#, -32602, None).await;
        says(&answer, "Unknown tool: big");
        let answer = told("echo", hello, -31429, Some("limit_reached")).await;
        let soon = wait(&answer, 3_600_000);
        says(&answer, &format!("a limit on calls is reached{soon}"));
        let answer = told("fail", "{}", -31503, Some("breaker_open")).await;
        let soon = wait(&answer, 600_000);
        let said = "calls of this server or this tool fail at present, so none is sent";
        says(&answer, &format!("{said}{soon}"));
    }
    for (tool, rule, reason) in [
        ("add", "sums", "a rule denies it"),
        ("big", "no-big", "a rule denies it"),
        (
            "echo",
            "",
            "a limit is reached: 1 call in 3600 s per server",
        ),
        ("fail", "", "breaker is open"),
    ] {
        let refused = refused(&world, tool, SDKS.len()).await;
        for record in refused {
            let decision = &record["decision"];
            assert_eq!(decision["effect"], "deny", "{record}");
            assert_eq!(
                decision["rule"].as_str().unwrap_or_default(),
                rule,
                "{record}"
            );
            let told = decision["reason"].as_str().unwrap();
            assert!(told.contains(reason), "{record}");
        }
    }
}

/// The clients by the SDKs of others.
const SDKS: [Client; 4] = [Client::Ts1, Client::Ts2, Client::Py1, Client::Py2];

/// The records of the refused calls of a tool, of which there are so many.
async fn refused(world: &World<'_>, tool: &str, count: usize) -> Vec<Value> {
    let what = format!("{count} refusals of {tool}");
    let found = wait_for(&what, LIMIT, async || {
        let records = world.daemon.audit().ok()?.into_iter();
        let of_tool = records.filter(|record| {
            record["mcp"]["name"] == tool && record["outcome"]["status"] == "refused"
        });
        let found: Vec<Value> = of_tool.collect();
        (found.len() >= count).then_some(found)
    })
    .await
    .unwrap();
    assert_eq!(found.len(), count, "{tool}: {found:?}");
    found
}
