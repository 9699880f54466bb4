//! Ways out other than intercepted HTTPS: clear text, passed through, opaque, upgraded; and none for datagrams.

use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;

use exeat_tests::Lab;
use exeat_tests::fixtures::Fixtures;
use exeat_tests::lab::{LAN, WORLD, WORLD_OTHER};
use exeat_tests::process::run;
use exeat_tests::upstream::Manner;
use serde_json::{Value, json};

use crate::place::{LIMIT, curl, exchange, managed, policy, raw};

/// Prints what sending a datagram and waiting for its echo came to.
const DATAGRAM: &str = "import socket,sys,time
t=time.monotonic()
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(1)
try:
  s.sendto(b'leak',(sys.argv[1],int(sys.argv[2]))); print('sent')
except OSError as e: print(type(e).__name__, time.monotonic()-t<0.5)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clear_text_only_where_the_rule_says_so() {
    let lab = Lab::new().unwrap();
    let server = lab
        .http(
            &["plain.lab.example"],
            SocketAddr::new(WORLD, 80),
            Manner::Http,
        )
        .unwrap();
    let both = lab
        .http(
            &["tls.lab.example"],
            SocketAddr::new(WORLD_OTHER, 80),
            Manner::Http,
        )
        .unwrap();
    let _tls = lab
        .https(&["plain.lab.example"], SocketAddr::new(WORLD, 8443))
        .unwrap();
    let daemon = lab
        .daemon(&policy(&[
            "{ host: plain.lab.example, tls: off, ports: [80, 8443], methods: [GET], paths: [/echo] }",
            "{ host: tls.lab.example, ports: [80, 443] }",
        ]))
        .await
        .unwrap();
    let told = curl(&lab, &["http://plain.lab.example/echo"]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let record = exchange(&daemon, "/echo").await;
    assert_eq!(record["http"]["name"], "plain.lab.example", "{record}");
    assert_eq!(record["http"]["sni"], Value::Null, "{record}");
    let told = curl(&lab, &["http://plain.lab.example/secret"]).await;
    assert_eq!(told.status, 403, "{told:?}");
    assert_eq!(server.seen().len(), 1);
    // Clear text where the rule wants TLS, and the reverse.
    let told = curl(&lab, &["http://tls.lab.example/echo"]).await;
    assert_eq!(told.status, 403, "{told:?}");
    let told = curl(&lab, &["https://plain.lab.example:8443/echo"]).await;
    assert_eq!((told.exit, told.status), (35, 0), "{told:?}");
    assert_eq!(both.connections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passed_through_by_name_and_recorded_as_unread() {
    let lab = Lab::new().unwrap();
    let name = "pinned.lab.example";
    let server = lab.https(&[name], SocketAddr::new(WORLD, 443)).unwrap();
    let daemon = lab
        .daemon(&policy(&["{ host: pinned.lab.example, tls: passthrough }"]))
        .await
        .unwrap();
    let own = lab.directory().join("world-ca.pem");
    let own = own.to_str().unwrap();
    let told = curl(&lab, &["--cacert", own, "https://pinned.lab.example/echo"]).await;
    assert_eq!(
        told.status, 200,
        "the client sees the server's own certificate: {told:?}"
    );
    let seen: Value = serde_json::from_str(&told.body).unwrap();
    assert_eq!(seen["server_name"], name);
    let record = daemon
        .record("the passed connection", |record| {
            record["kind"] == "tcp" && record["tcp"]["name"] == name
        })
        .await
        .unwrap();
    assert_eq!(record["inspected"]["request"]["extent"], "none", "{record}");
    assert_eq!(record["inspected"]["response"]["extent"], "none");
    assert_eq!(record["tcp"]["sni"], name);
    assert!(
        record["tcp"]["sent_bytes"].as_u64().unwrap() > 200,
        "{record}"
    );
    assert!(
        record["tcp"]["received_bytes"].as_u64().unwrap() > 500,
        "{record}"
    );
    assert_eq!(record["outcome"]["status"], "done", "{record}");
    // Another name in the handshake does not pass by the same address.
    let other = json!({ "host": name, "port": 443, "sni": "evil.lab.example", "insecure": true, "send": ["x"] });
    let answer = raw(&lab, other).await;
    assert!(answer["error"].is_string(), "{answer}");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_read_although_its_network_is_passed_on() {
    let lab = Lab::new().unwrap();
    let name = "api.lab.example";
    let server = lab.https(&[name], SocketAddr::new(WORLD, 443)).unwrap();
    let other = lab.echo(SocketAddr::new(WORLD_OTHER, 443)).unwrap();
    let daemon = lab
        .daemon(&policy(&[
            "{ cidr: 93.184.215.0/24, ports: [443], protocol: tcp }",
            "{ host: api.lab.example, methods: [GET] }",
        ]))
        .await
        .unwrap();
    let request = |method: &str| {
        format!("{method} /echo HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n")
    };
    let answers = json!([
        { "host": name, "port": 443, "send": [request("DELETE")] },
        { "host": name, "port": 443, "sni": "", "insecure": true, "send": [request("DELETE")] },
        { "host": name, "port": 443, "tls": false, "send": ["opaque"] },
        { "host": WORLD_OTHER.to_string(), "port": 443, "tls": false, "send": ["opaque"], "until": "opaque" },
        { "host": name, "port": 443, "send": [request("GET")] },
    ]);
    let answers = raw(&lab, answers).await;
    let said = |number: usize| answers[number]["got"].as_str().unwrap_or_default();
    assert!(said(0).starts_with("HTTP/1.1 403"), "{answers}");
    let error = answers[1]["error"].as_str().unwrap();
    assert!(error.contains("ALERT_ACCESS_DENIED"), "{answers}");
    assert_eq!(said(2), "", "{answers}");
    assert_eq!(said(3), "opaque", "{answers}");
    assert!(said(4).starts_with("HTTP/1.1 200"), "{answers}");
    assert_eq!(server.seen().len(), 1, "{:?}", server.seen());
    assert_eq!(other.got(), vec![b"opaque".to_vec()]);
    let record = exchange(&daemon, "/echo").await;
    assert_eq!(record["http"]["name"], name, "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opaque_bytes_by_name_and_by_range() {
    let lab = Lab::new().unwrap();
    let world = lab.echo(SocketAddr::new(WORLD, 5432)).unwrap();
    let lan = lab.echo(SocketAddr::new(LAN, 5432)).unwrap();
    lab.dns.points("db.lab.example", &[WORLD]);
    let daemon = lab
        .daemon(&policy(&[
            "{ host: db.lab.example, ports: [5432], protocol: tcp }",
            "{ cidr: 10.78.0.0/16, ports: [5432], protocol: tcp }",
        ]))
        .await
        .unwrap();
    let psql = |host: &str| json!({ "host": host, "port": 5432, "tls": false, "send": ["psql hello"], "until": "hello" });
    let answers = raw(
        &lab,
        json!([psql("db.lab.example"), psql(&LAN.to_string())]),
    )
    .await;
    for answer in answers.as_array().unwrap() {
        assert_eq!(
            answer["got"],
            "psql hello",
            "{answer} {:#?}",
            daemon.audit()
        );
    }
    assert_eq!(
        (world.got(), lan.got()),
        (vec![b"psql hello".to_vec()], vec![b"psql hello".to_vec()])
    );
    let done = managed(&lab, &["getent", "ahostsv4", "db.lab.example"]).await;
    let address: IpAddr = done
        .stdout
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let IpAddr::V4(v4) = address else {
        panic!("{address}")
    };
    assert_eq!(
        (v4.octets()[0], v4.octets()[1] & 0xfe),
        (198, 18),
        "a synthetic address: {v4}"
    );
    for (key, wanted) in [
        ("name", "db.lab.example".to_owned()),
        ("address", LAN.to_string()),
    ] {
        let record = daemon
            .record("an opaque connection", |record| {
                record["tcp"][key] == wanted
            })
            .await
            .unwrap();
        assert_eq!(record["tcp"]["sent_bytes"], 10, "{record}");
        assert_eq!(record["tcp"]["received_bytes"], 10);
        assert_eq!(record["inspected"]["request"]["extent"], "none");
        assert_eq!(record["decision"]["effect"], "allow");
    }
    // Another port, another range, another protocol.
    let refused = json!([
        { "host": LAN.to_string(), "port": 5433, "tls": false },
        { "host": "10.79.0.5", "port": 5432, "tls": false },
    ]);
    for answer in raw(&lab, refused).await.as_array().unwrap() {
        assert!(
            answer["error"]
                .as_str()
                .unwrap()
                .starts_with("ConnectionRefused"),
            "{answer}"
        );
    }
    let wire = lab.wire().unwrap();
    let python = Fixtures::find().unwrap().python(2);
    for (host, port) in [(LAN, "5432"), (WORLD, "443"), (WORLD, "123")] {
        let program = [
            python.as_os_str(),
            "-c".as_ref(),
            DATAGRAM.as_ref(),
            host.to_string().as_ref(),
            port.as_ref(),
        ]
        .map(ToOwned::to_owned);
        let done = managed(&lab, &program).await;
        assert!(
            done.stdout.contains("Error True"),
            "{} {}",
            done.stdout,
            done.stderr
        );
    }
    assert_eq!(wire.packets(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_only_where_the_rule_says_so() {
    let lab = Lab::new().unwrap();
    let name = "ws.lab.example";
    let server = lab
        .https(&[name, "no.lab.example"], SocketAddr::new(WORLD, 443))
        .unwrap();
    let daemon = lab
        .daemon(&policy(&[
            "{ host: ws.lab.example, upgrade: true }",
            "{ host: no.lab.example }",
        ]))
        .await
        .unwrap();
    let ask = |name: &str| {
        format!(
            "GET /upgrade HTTP/1.1\r\nhost: {name}\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n"
        )
    };
    let jobs = json!([
        { "host": name, "port": 443, "send": [ask(name), "ping-pong"], "pause": 0.3, "until": "ping-pong" },
        { "host": "no.lab.example", "port": 443, "send": [ask("no.lab.example")], "until": "denied" },
    ]);
    let answers = raw(&lab, jobs).await;
    let got = answers[0]["got"].as_str().unwrap();
    assert!(
        got.starts_with("HTTP/1.1 101") && got.ends_with("ping-pong"),
        "{answers}"
    );
    assert!(
        answers[1]["got"]
            .as_str()
            .unwrap()
            .starts_with("HTTP/1.1 403"),
        "{answers}"
    );
    assert_eq!(server.seen().len(), 1);
    let record = daemon
        .record("the upgraded exchange", |record| {
            record["http"]["status"] == 101
        })
        .await
        .unwrap();
    assert_eq!(
        record["inspected"]["request"]["extent"], "partial",
        "{record}"
    );
    assert_eq!(record["outcome"]["status"], "done", "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_http2_connection_means_one_host() {
    let lab = Lab::new().unwrap();
    let (name, other) = ("api.lab.example", "other.lab.example");
    // One certificate for both at one address: what browsers take as leave to coalesce.
    let server = lab
        .https(&[name, other], SocketAddr::new(WORLD, 443))
        .unwrap();
    let daemon = lab
        .daemon(&policy(&[
            "{ host: api.lab.example }",
            "{ host: other.lab.example }",
        ]))
        .await
        .unwrap();
    curl(&lab, &["https://other.lab.example/echo?warm"]).await;
    let told = curl(
        &lab,
        &[
            "--http2",
            "--header",
            "host: other.lab.example",
            "https://api.lab.example/echo?coalesced",
        ],
    )
    .await;
    assert_eq!(
        (told.status, told.code().as_str()),
        (421, "name_disagreement"),
        "{told:?}"
    );
    let record = exchange(&daemon, "/echo?coalesced").await;
    assert_eq!(record["outcome"]["status"], "refused", "{record}");
    assert_eq!(server.seen().len(), 1);
    let mut without = lab.inside.command("curl");
    let done = run(without.args(["--version"]).stdin(Stdio::null()), LIMIT)
        .await
        .unwrap();
    assert!(
        done.stdout.contains("HTTP2"),
        "this curl has no HTTP/2, so nothing above was proved"
    );
}
