//! Upstreams that are down, slow, wrong or rude: the client is told which, and so is the log.

use std::net::SocketAddr;

use exeat_tests::Lab;
use exeat_tests::authority::Fault;
use exeat_tests::dns::Answer;
use exeat_tests::lab::{WORLD, WORLD_OTHER};
use exeat_tests::upstream::Manner;
use exeat_tests::wait::wait_until;
use hickory_proto::op::ResponseCode;

use crate::hand::Hand;
use crate::place::{LIMIT, curl, exchange, policy, raw};

const QUICK: &str = "limits: { connect_deadline: 1s, answer_deadline: 1s }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_went_wrong_is_said() {
    let lab = Lab::new().unwrap();
    let name = "bad.lab.example";
    let script = |text: &str| Manner::Script(text.to_owned().into());
    let huge = format!(
        "HTTP/1.1 200 OK\r\nx-large: {}\r\n\r\n",
        "x".repeat(100_000)
    );
    let one = &["http/1.1"][..];
    let faults = [
        (Fault::Expired, Manner::Http, 502, "upstream_certificate"),
        (Fault::OtherName, Manner::Http, 502, "upstream_certificate"),
        (Fault::SelfSigned, Manner::Http, 502, "upstream_certificate"),
        (Fault::Sound, Manner::Reset, 502, "upstream_tls"),
        (Fault::Sound, Manner::Silent, 504, "timeout_headers"),
        (
            Fault::Sound,
            script("SSH-2.0-OpenSSH_9.2\r\n"),
            502,
            "upstream_protocol",
        ),
        (
            Fault::Sound,
            script("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx"),
            502,
            "upstream_protocol",
        ),
        (Fault::Sound, script(&huge), 502, "upstream_protocol"),
        (Fault::Sound, script(""), 502, "upstream_reset"),
    ];
    let mut servers = Vec::new();
    let mut ports = vec![2441, 2442, 2443];
    for (port, (fault, manner, _, _)) in (1443_u16..).zip(&faults) {
        let address = SocketAddr::new(WORLD, port);
        servers.push(
            lab.tls(&[name], address, one, *fault, manner.clone())
                .unwrap(),
        );
        ports.push(port);
    }
    // Beside those: nobody listens, nobody shakes hands, and no TLS at all.
    let mute = lab
        .http(&[name], SocketAddr::new(WORLD, 2442), Manner::Silent)
        .unwrap();
    let plain = lab
        .http(&[name], SocketAddr::new(WORLD, 2443), Manner::Reset)
        .unwrap();
    let entry = format!("{{ host: {name}, ports: {ports:?} }}");
    let daemon = lab.daemon_with(&policy(&[&entry]), QUICK).await.unwrap();
    let mut cases: Vec<(u16, u16, &str)> = vec![
        (2441, 502, "upstream_connect"),
        (2442, 504, "timeout_connect"),
        (2443, 502, "upstream_tls"),
    ];
    cases.extend(
        (1443_u16..)
            .zip(&faults)
            .map(|(port, (_, _, status, code))| (port, *status, *code)),
    );
    for (version, method) in [("--http1.1", "GET"), ("--http2", "POST")] {
        for (port, status, code) in &cases {
            // What these servers do after the handshake is HTTP/1.1 alone.
            if version == "--http2" && *port >= 1446 && *port < 2000 {
                continue;
            }
            let path = format!("/{port}/{version}");
            let url = format!("https://{name}:{port}{path}");
            let body = if method == "POST" {
                vec!["--data", "x=1"]
            } else {
                vec![]
            };
            let told = curl(&lab, &[&[version][..], &body, &[&url]].concat()).await;
            assert_eq!(
                (told.exit, told.status, told.code().as_str()),
                (0, *status, *code),
                "{path}: {told:?}"
            );
            let record = exchange(&daemon, &path).await;
            assert_eq!(record["outcome"]["status"], "failed", "{record}");
            assert_eq!(record["http"]["status"], *status, "{record}");
            assert!(record["outcome"]["error"].is_string(), "{record}");
            println!("{path}: {} {}", record["outcome"]["error"], told.body);
        }
    }
    drop((mute, plain));
}

/// Policy permits the name; that nobody answers for it is no word of policy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resolver_that_fails_is_recorded_as_failing() {
    let lab = Lab::new().unwrap();
    let name = "broken.lab.example";
    lab.dns.set(name, Answer::Code(ResponseCode::ServFail));
    let entry = format!("{{ host: {name} }}");
    let daemon = lab.daemon(&policy(&[&entry])).await.unwrap();
    let told = curl(&lab, &[&format!("https://{name}/")]).await;
    assert_eq!(told.exit, 6, "{told:?}");
    let asked = |record: &serde_json::Value| record["dns"]["name"] == name;
    let record = daemon.record("the look-up", asked).await.unwrap();
    assert_eq!(record["decision"]["effect"], "allow", "{record}");
    assert_eq!(record["outcome"]["status"], "failed", "{record}");
    assert!(record["outcome"]["error"].is_string(), "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_end_at_odd_moments() {
    let lab = Lab::new().unwrap();
    let (name, other) = ("api.lab.example", "other.lab.example");
    let hand = Hand::new(&lab, name, SocketAddr::new(WORLD, 443));
    let cut = Hand::new(&lab, other, SocketAddr::new(WORLD_OTHER, 443));
    let entries = ["{ host: api.lab.example }", "{ host: other.lab.example }"];
    let daemon = lab.daemon(&policy(&entries)).await.unwrap();

    // The upstream ends a kept connection between two requests of the same client.
    let between = lab.directory().join("between");
    let client = raw(
        &lab,
        serde_json::json!({ "host": name, "port": 443, "until": "two", "send": [
            format!("GET /one HTTP/1.1\r\nhost: {name}\r\n\r\n"),
            { "exists": between },
            format!("POST /two HTTP/1.1\r\nhost: {name}\r\ncontent-length: 4\r\n\r\nbody"),
        ] }),
    );
    let server = async {
        let mut held = hand.accept().await;
        held.head().await;
        held.say("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none")
            .await;
        held.close().await;
        std::fs::write(&between, "").unwrap();
        let mut held = hand.accept().await;
        let head = held.read_until("body").await;
        held.say("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntwo")
            .await;
        held.close().await;
        head
    };
    let (told, head) = tokio::join!(client, server);
    assert!(head.starts_with("POST /two"), "{head}");
    let got = told["got"].as_str().unwrap();
    assert!(got.contains("one") && got.ends_with("two"), "{told}");

    // A response that is cut off is not passed on as whole, and not recorded as done.
    for (path, begin) in [
        (
            "/length",
            "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
        ),
        (
            "/chunks",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        ),
    ] {
        let url = format!("https://{other}{path}");
        let arguments = [url.as_str()];
        let client = curl(&lab, &arguments);
        let server = async {
            let mut held = cut.accept().await;
            held.head().await;
            held.say(begin).await;
            if path == "/length" {
                held.close().await;
            } else {
                held.reset();
            }
        };
        let (told, ()) = tokio::join!(client, server);
        assert_ne!(told.exit, 0, "{told:?}");
        let record = exchange(&daemon, path).await;
        assert_eq!(record["outcome"]["status"], "failed", "{record}");
        assert_eq!(record["http"]["response_bytes"], 4, "{record}");
    }

    // A client that leaves: the upstream is left too, and the record closes.
    let mut client = crate::place::start(
        &lab,
        "leaves",
        &["curl", "--silent", "https://other.lab.example/left"],
    );
    let mut held = cut.accept().await;
    held.head().await;
    held.say("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        .await;
    client.stop().await.unwrap();
    assert!(
        held.ended().await,
        "the upstream connection outlives the client's"
    );
    let record = exchange(&daemon, "/left").await;
    assert_eq!(record["outcome"]["status"], "abandoned", "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_larger_than_the_limit() {
    let lab = Lab::new().unwrap();
    let name = "api.lab.example";
    let server = lab.https(&[name], SocketAddr::new(WORLD, 443)).unwrap();
    let daemon = lab
        .daemon(&policy(&["{ host: api.lab.example }"]))
        .await
        .unwrap();
    let head = format!("GET /large HTTP/1.1\r\nhost: {name}\r\nx-large: LARGE\r\n\r\n");
    let job = serde_json::json!({ "host": name, "port": 443, "send": [head], "large": 70_000 });
    let answer = raw(&lab, job).await;
    assert!(
        answer["got"].as_str().unwrap().starts_with("HTTP/1.1 431"),
        "{answer}"
    );
    let refused = |record: &serde_json::Value| {
        record["outcome"]["status"] == "refused"
            && (record["kind"] == "tcp" || record["kind"] == "http")
    };
    daemon.record("the large head", refused).await.unwrap();
    let header = format!("x-large: {}", "x".repeat(10_000));
    let told = curl(
        &lab,
        &[
            "--http2",
            "--header",
            &header,
            "https://api.lab.example/echo",
        ],
    )
    .await;
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_finish_what_they_began() {
    let lab = Lab::new().unwrap();
    let name = "api.lab.example";
    let server = lab.https(&[name], SocketAddr::new(WORLD, 443)).unwrap();
    let settings = "limits: { header_deadline: 500ms, idle_deadline: 1s }";
    let egress = policy(&["{ host: api.lab.example }"]);
    let daemon = lab.daemon_with(&egress, settings).await.unwrap();
    let answers = raw(
        &lab,
        serde_json::json!([
            // Nothing at all, half a greeting, half a head, and nothing after the handshake.
            { "host": name, "port": 443, "tls": false },
            { "host": name, "port": 443, "tls": false, "send": ["\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}"] },
            { "host": name, "port": 443, "send": ["GET /half HTTP/1.1\r\nhost: api.lab"] },
            { "host": name, "port": 443 },
        ]),
    )
    .await;
    for answer in answers.as_array().unwrap() {
        // Each was ended by the gate, long before the client's own patience of 20 s was at its end.
        assert!(answer["seconds"].as_f64().unwrap() < 10.0, "{answer}");
    }
    assert_eq!(server.seen().len(), 0);
    let ended = |record: &&serde_json::Value| record["kind"] == "tcp";
    wait_until("each is recorded", LIMIT, || {
        daemon.audit().unwrap().iter().filter(ended).count() == 4
    })
    .await
    .unwrap();
}
