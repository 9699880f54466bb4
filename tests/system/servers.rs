//! Servers that others wrote, as they come from their registries: what they want of the network, what they get of
//! it, and what is said of it.

use std::net::SocketAddr;
use std::time::Duration;

use exeat_tests::Lab;
use exeat_tests::fixtures::{Fixtures, Invocation, Server};
use exeat_tests::lab::{DNS, MACHINE, METADATA, WORLD};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::place::{self, exchange};

const NAME: &str = "api.lab.example";

/// A policy that registers `server` as `name` with this egress and environment, both in YAML's flow style.
fn policy(name: &str, server: &Invocation, egress: &str, env: &str) -> String {
    let arguments: Vec<_> = server
        .arguments
        .iter()
        .map(|argument| format!("{:?}", argument.to_str().unwrap()))
        .collect();
    format!(
        "version: 1
identities: {{ tester: {{ user: root }} }}
rules: [{{ id: all, who: [tester], servers: [{name}], tools: [\"*\"], effect: allow }}]
servers:
  {name}:
    purpose: somebody else's program
    owner: tests@lab.example
    launch: {{ command: {}, args: [{}], user: nobody, env: {env} }}
    egress: {egress}
",
        server.program.display(),
        arguments.join(", "),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetch_gets_what_is_allowed_and_nothing_else() {
    let lab = Lab::new().unwrap();
    let api = lab
        .https(&[NAME, "evil.lab.example"], SocketAddr::new(WORLD, 443))
        .unwrap();
    let metadata = lab.echo(SocketAddr::new(METADATA, 80)).unwrap();
    let server = Fixtures::find().unwrap().server(Server::Fetch);
    let egress = "[{ host: api.lab.example, methods: [GET], paths: [/echo, /robots.txt] }]";
    let daemon = lab
        .daemon(&policy("fetch", &server, egress, "{}"))
        .await
        .unwrap();
    let mut session = daemon.run("fetch").unwrap();
    session.initialize().await.unwrap();

    // It looks the name up itself and refuses whatever does not look public: a real address passes its guard.
    let answer = fetch(&mut session, "https://api.lab.example/echo?allowed").await;
    assert_eq!(answer["result"]["isError"], false, "{answer}");
    let text = answer["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("/echo?allowed"), "{text}");
    let paths: Vec<_> = api.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths, ["/robots.txt", "/echo?allowed"]);
    let record = exchange(&daemon, "/echo?allowed").await;
    assert_eq!(record["decision"]["effect"], "allow", "{record}");
    assert_eq!(record["http"]["address"], WORLD.to_string());
    assert_eq!(record["workload"]["name"], "fetch");
    api.forget();

    let wire = lab.wire().unwrap();
    for (url, what) in [
        ("https://evil.lab.example/echo", "evil.lab.example"),
        ("http://api.lab.example/echo", "93.184.215.14"),
        ("https://93.184.215.14/echo", "93.184.215.14"),
        (
            "http://169.254.169.254/latest/meta-data/",
            "169.254.169.254",
        ),
    ] {
        let answer = timeout(AT_ONCE, fetch(&mut session, url)).await;
        let answer = answer.unwrap_or_else(|_| panic!("{url}: not at once"));
        assert_eq!(answer["result"]["isError"], true, "{url}: {answer}");
        // The server's own guard refuses the last before it asks anybody.
        if !url.contains(&METADATA.to_string()) {
            denied(&daemon, what).await;
        }
    }
    // The one name that is allowed was looked up again, to be told that its port 80 is not.
    let mut left = wire.packets();
    left.retain(|packet| packet.source == MACHINE && packet.destination != DNS);
    // Connections that were open before may end.
    left.retain(|packet| packet.flags.is_none_or(|flags| flags & SYN != 0));
    assert_eq!(left, [], "nothing of it leaves");
    let asked = lab.dns.asked();
    assert!(asked.iter().all(|asked| asked.name == NAME), "{asked:?}");

    // Elsewhere at the same host: a connection, no request.
    let answer = fetch(&mut session, "https://api.lab.example/secret").await;
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    assert!(answer.to_string().contains("403"), "{answer}");
    let record = exchange(&daemon, "/secret").await;
    assert_eq!(record["decision"]["effect"], "deny", "{record}");
    assert!(api.seen().iter().all(|seen| seen.path == "/robots.txt"));
    assert_eq!(metadata.got().len(), 0);
    assert!(session.close().await.unwrap().success());
}

/// The flag of TCP that begins a connection.
const SYN: u8 = 2;

/// A refusal that takes longer than this was a wait for nobody.
const AT_ONCE: Duration = Duration::from_secs(5);

async fn fetch(session: &mut exeat_tests::stdio::Session, url: &str) -> Value {
    session.call("fetch", json!({ "url": url })).await.unwrap()
}

/// The record that refuses `what`, a name or an address.
async fn denied(daemon: &exeat_tests::daemon::Daemon<'_>, what: &str) -> Value {
    daemon
        .record(&format!("the refusal of {what}"), |record| {
            let meant = record["dns"]["name"] == what || record["tcp"]["address"] == what;
            meant && record["decision"]["effect"] == "deny"
        })
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elasticsearch_asks_for_the_clouds_secrets_and_gets_none() {
    let lab = Lab::new().unwrap();
    let name = "es.lab.example";
    let cluster = lab.https(&[name], SocketAddr::new(WORLD, 443)).unwrap();
    // They would be there to be had.
    let metadata = lab.echo(SocketAddr::new(METADATA, 80)).unwrap();
    let server = Fixtures::find().unwrap().server(Server::Elasticsearch);
    // Its telemetry is sent soon, not in a minute.
    let env = "{ ES_URL: \"https://es.lab.example\", ES_API_KEY: c2VjcmV0OmtleQ==, \
               OTEL_BSP_SCHEDULE_DELAY: \"200\", OTEL_METRIC_EXPORT_INTERVAL: \"500\", \
               OTEL_METRIC_EXPORT_TIMEOUT: \"400\" }";
    let egress = "[{ host: es.lab.example, methods: [GET, POST] }]";
    let daemon = lab
        .daemon(&policy("elastic", &server, egress, env))
        .await
        .unwrap();
    let wire = lab.wire().unwrap();
    let mut session = daemon.run("elastic").unwrap();
    let answer = session.initialize().await.unwrap();
    assert_eq!(
        answer["result"]["protocolVersion"], "2025-06-18",
        "{answer}"
    );

    for what in ["169.254.169.254", "100.100.100.200"] {
        let record = denied(&daemon, what).await;
        assert_eq!(record["kind"], "tcp", "{record}");
        assert_eq!(record["tcp"]["port"], 80);
        assert_eq!(record["outcome"]["status"], "refused");
        assert_eq!(record["workload"]["name"], "elastic");
    }
    assert_eq!(wire.packets(), [], "nothing of it leaves");
    assert_eq!(metadata.got().len(), 0);

    // And works all the same.
    let answer = session
        .call("list_indices", json!({ "indexPattern": "*" }))
        .await
        .unwrap();
    let seen = cluster.seen();
    assert!(
        seen.iter()
            .any(|seen| seen.path.starts_with("/_cat/indices")),
        "{answer} {seen:?}"
    );
    assert_eq!(
        seen[0].header("authorization"),
        Some("ApiKey c2VjcmV0OmtleQ==")
    );
    let record = exchange(&daemon, &seen[0].path).await;
    assert_eq!(record["decision"]["effect"], "allow", "{record}");
    // What it would tell a collector on this machine about that call is told nobody either.
    let record = daemon
        .record("the refused telemetry", |record| {
            record["tcp"]["port"] == 4318 && record["decision"]["effect"] == "deny"
        })
        .await
        .unwrap();
    assert_eq!(record["kind"], "tcp", "{record}");
    let log = daemon
        .audit()
        .unwrap()
        .iter()
        .map(Value::to_string)
        .collect::<String>();
    assert!(!log.contains("c2VjcmV0OmtleQ"), "the key is told");
}

/// Asks for a URL and prints why that failed, and how soon.
const WHY: &str = "const t=Date.now(); fetch(process.argv[1]).then(r=>console.log('got',r.status), \
    e=>console.log(e.cause.code, Date.now()-t));";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clouds_secrets_are_nowhere_to_be_had() {
    let lab = Lab::new().unwrap();
    let metadata = lab.echo(SocketAddr::new(METADATA, 80)).unwrap();
    lab.dns.points("metadata.google.internal", &[METADATA]);
    lab.dns.points("allowed.lab.example", &[METADATA]);
    let egress = "{ host: allowed.lab.example, ports: [80], tls: off, private: true }";
    let daemon = lab.daemon(&place::policy(&[egress])).await.unwrap();
    let node = Fixtures::find().unwrap().node(22);
    let wire = lab.wire().unwrap();
    for (url, code, what) in [
        (
            "http://metadata.google.internal./computeMetadata/v1/instance",
            "ENOTFOUND",
            "metadata.google.internal",
        ),
        (
            "http://169.254.169.254/latest/meta-data/",
            "ECONNREFUSED",
            "169.254.169.254",
        ),
        (
            "http://100.100.100.200/latest/meta-data/",
            "ECONNREFUSED",
            "100.100.100.200",
        ),
    ] {
        let program = [node.to_str().unwrap(), "-e", WHY, "--", url];
        let done = place::managed(&lab, &program).await;
        let (said, after) = done.stdout.trim().split_once(' ').unwrap();
        assert_eq!(said, code, "{url}: {done:?}");
        let after = Duration::from_millis(after.parse().unwrap());
        assert!(after < AT_ONCE, "{url}: {after:?}");
        let record = denied(&daemon, what).await;
        assert_eq!(record["outcome"]["status"], "refused", "{record}");
    }
    assert_eq!(wire.packets(), [], "nothing of it leaves");
    // A name that is allowed does not lead there either, private addresses or not.
    let program = [
        node.to_str().unwrap(),
        "-e",
        WHY,
        "--",
        "http://allowed.lab.example/",
    ];
    let done = place::managed(&lab, &program).await;
    assert!(!done.stdout.contains("got"), "{done:?}");
    denied(&daemon, "allowed.lab.example").await;
    assert_eq!(metadata.got().len(), 0);
}
