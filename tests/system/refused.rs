//! What policy does not allow, and what is said in more than one way, does not leave; the client is told at once.

use std::net::SocketAddr;

use exeat_tests::Lab;
use exeat_tests::lab::{WORLD, WORLD_OTHER};
use exeat_tests::wait::wait_until;
use serde_json::{Value, json};

use crate::place::{LIMIT, curl, exchange, policy, raw};

const NAME: &str = "api.lab.example";
const OTHER: &str = "other.lab.example";

fn egress() -> String {
    policy(&[
        "{ host: api.lab.example, methods: [GET, TRACE], paths: [/echo, \"/open/**\"] }",
        "{ host: other.lab.example, methods: [GET] }",
    ])
}

fn get(path: &str, host: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")
}

fn job(text: &str) -> Value {
    json!({ "host": NAME, "port": 443, "send": [text] })
}

/// The status line's code, and the refusal's.
fn refusal(answer: &Value) -> (u16, String) {
    let text = answer["got"].as_str().unwrap();
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let code = body["error"]["code"].as_str().unwrap_or_default();
    (status.unwrap_or(0), code.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn methods_and_paths_outside_the_policy() {
    let lab = Lab::new().unwrap();
    let server = lab.https(&[NAME], SocketAddr::new(WORLD, 443)).unwrap();
    let daemon = lab.daemon(&egress()).await.unwrap();
    for version in ["--http1.1", "--http2"] {
        for (arguments, path) in [
            (vec!["--request", "POST", "--data", "x"], "/echo"),
            (vec!["--request", "DELETE"], "/echo"),
            (vec!["--request", "get"], "/echo"),
            (vec![], "/secret"),
            (vec![], "/echo/deeper"),
        ] {
            let url = format!("https://{NAME}{path}?{version}{}", arguments.concat());
            let told = curl(&lab, &[&arguments[..], &[version, &url]].concat()).await;
            assert_eq!((told.exit, told.status), (0, 403), "{url}: {told:?}");
            assert_eq!(told.code(), "denied");
            assert!(
                !told.body.contains("egress"),
                "it says what the policy says: {told:?}"
            );
            let asked = url.split_once(NAME).unwrap().1;
            let record = exchange(&daemon, asked).await;
            assert_eq!(record["decision"]["effect"], "deny", "{record}");
            assert_eq!(record["outcome"]["status"], "refused");
            assert_eq!(record["http"]["status"], 403, "{record}");
        }
    }
    assert_eq!(server.seen().len(), 0, "{:?}", server.seen());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_judged_of_a_path_is_what_is_sent() {
    let lab = Lab::new().unwrap();
    let server = lab.https(&[NAME], SocketAddr::new(WORLD, 443)).unwrap();
    let daemon = lab.daemon(&egress()).await.unwrap();
    let refused = [
        "/open/../secret",
        "/open/%2e%2e/secret",
        "/open/.%2E/secret",
        "/open/..%2fsecret",
        "/open/..%5csecret",
        "/open/..\\secret",
        "//open/x",
        "/%2e/secret",
        "/open/..;/secret",
        "/open/%2e%2e%2fsecret",
        "/open/%252e%252e/secret",
        "/open/x%00",
        "/open/%c0%ae%c0%ae/secret",
        "/OPEN/x",
        "/echo%2f..%2fsecret",
        "/open/x%",
        "/open/%zz",
        "open/x",
        "*",
        "/open%2fx",
        "/open/./../secret",
    ];
    let jobs: Vec<Value> = refused.iter().map(|path| job(&get(path, NAME))).collect();
    let answers = raw(&lab, json!(jobs)).await;
    for (path, answer) in refused.iter().zip(answers.as_array().unwrap()) {
        let (status, _) = refusal(answer);
        let got = server.seen();
        // Either it is refused, or what is sent cannot be read as anything that is not under /open.
        if !matches!(status, 400 | 403) {
            assert!(
                got.iter().any(|seen| seen.path == *path),
                "{path}: {answer} {got:?}"
            );
        }
    }
    for seen in server.seen() {
        assert!(
            seen.path.starts_with("/open/") && !seen.path.contains(".."),
            "{seen:?}"
        );
    }
    server.forget();
    let allowed = [
        "/open/x",
        "/open/a.b/..c?x=/../y",
        "/open/%41",
        "/open/a%20b",
        "/open/",
    ];
    let jobs: Vec<Value> = allowed.iter().map(|path| job(&get(path, NAME))).collect();
    raw(&lab, json!(jobs)).await;
    let paths: Vec<String> = server.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths, allowed);
    // What no HTTP library would read (`open/x`) is the connection's refusal, the rest an exchange's.
    let ours = |record: &Value| record["kind"] == "http" || record["kind"] == "tcp";
    let all = refused.len() + allowed.len();
    let records = daemon.records("all of them", all, ours).await.unwrap();
    assert_eq!(records.len(), all, "{records:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_means_one_host() {
    let lab = Lab::new().unwrap();
    let server = lab
        .https(&[NAME, OTHER], SocketAddr::new(WORLD, 443))
        .unwrap();
    let daemon = lab.daemon(&egress()).await.unwrap();
    // Both names are this workload's own, so that only their mixing is wrong.
    let warm = json!([
        { "host": OTHER, "port": 443, "send": [get("/echo", OTHER)] },
        job(&get("/echo", NAME)),
    ]);
    raw(&lab, warm).await;
    assert_eq!(server.seen().len(), 2);
    server.forget();
    let line = |first: &str, rest: &str| format!("{first}\r\n{rest}connection: close\r\n\r\n");
    let cases = [
        (get("/echo", OTHER), 421, "name_disagreement"),
        (
            get("/echo", "api.lab.example:8443"),
            421,
            "name_disagreement",
        ),
        (
            get("/echo", "api.lab.example@other.lab.example"),
            421,
            "name_disagreement",
        ),
        (
            get("/echo", "nowhere.lab.example"),
            421,
            "name_disagreement",
        ),
        (line("GET /echo HTTP/1.1", ""), 421, "name_disagreement"),
        (
            line(
                "GET /echo HTTP/1.1",
                "host: api.lab.example\r\nhost: api.lab.example\r\n",
            ),
            421,
            "name_disagreement",
        ),
        (
            line(
                "GET /echo HTTP/1.1",
                "host: api.lab.example\r\nhost: other.lab.example\r\n",
            ),
            421,
            "name_disagreement",
        ),
        (
            line(
                "GET https://api.lab.example/secret HTTP/1.1",
                "host: api.lab.example\r\n",
            ),
            403,
            "denied",
        ),
        (
            line(
                "GET http://api.lab.example/echo HTTP/1.1",
                "host: api.lab.example\r\n",
            ),
            400,
            "malformed_request",
        ),
        (
            line(
                "GET https://other.lab.example/echo HTTP/1.1",
                "host: api.lab.example\r\n",
            ),
            421,
            "name_disagreement",
        ),
        (
            line(
                "GET https://other.lab.example/echo HTTP/1.1",
                "host: other.lab.example\r\n",
            ),
            421,
            "name_disagreement",
        ),
        (
            line(
                "CONNECT api.lab.example:443 HTTP/1.1",
                "host: api.lab.example:443\r\n",
            ),
            400,
            "malformed_request",
        ),
        (
            line(
                "CONNECT other.lab.example:443 HTTP/1.1",
                "host: other.lab.example\r\n",
            ),
            400,
            "malformed_request",
        ),
        (
            line(
                "TRACE /echo HTTP/1.1",
                "host: api.lab.example\r\ncontent-length: 1\r\n",
            ) + "x",
            400,
            "malformed_request",
        ),
        (
            line("TRACE /secret HTTP/1.1", "host: api.lab.example\r\n"),
            403,
            "denied",
        ),
        (
            line(
                "GET /echo HTTP/1.1",
                "host: api.lab.example\r\nx-http-method-override: TRACE\r\n",
            ),
            400,
            "malformed_request",
        ),
        (
            line(
                "GET /echo HTTP/1.1",
                "host: api.lab.example\r\nupgrade: websocket\r\n",
            ),
            403,
            "denied",
        ),
        (
            line(
                "GET /echo HTTP/1.1",
                "host: api.lab.example\r\ncontent-length: 4\r\ncontent-length: 5\r\n",
            ),
            400,
            "",
        ),
        (
            line("GET /echo HTTP/1.1", "host : api.lab.example\r\n"),
            400,
            "",
        ),
        (
            line("GET  /echo HTTP/1.1", "host: api.lab.example\r\n"),
            400,
            "",
        ),
        (line("GET /echo", "host: api.lab.example\r\n"), 400, ""),
    ];
    let jobs: Vec<Value> = cases.iter().map(|(text, _, _)| job(text)).collect();
    let ours = |record: &Value| record["kind"] == "http" || record["kind"] == "tcp";
    let before = daemon.audit().unwrap();
    let before = before.iter().filter(|record| ours(record)).count();
    let answers = raw(&lab, json!(jobs)).await;
    for ((text, status, code), answer) in cases.iter().zip(answers.as_array().unwrap()) {
        assert_eq!(
            refusal(answer),
            (*status, (*code).to_owned()),
            "{text}: {answer}"
        );
    }
    assert_eq!(server.seen().len(), 0, "{:?}", server.seen());
    let all = before + cases.len();
    let records = daemon.records("all of them", all, ours).await.unwrap();
    assert_eq!(records.len(), all, "{records:#?}");
    let records = &records[before..];
    assert!(
        records
            .iter()
            .all(|record| record["outcome"]["status"] == "refused"),
        "{records:#?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_policy_allows_passes_in_each_form() {
    let lab = Lab::new().unwrap();
    let server = lab.https(&[NAME], SocketAddr::new(WORLD, 443)).unwrap();
    let daemon = lab.daemon(&egress()).await.unwrap();
    let host = "host: api.lab.example\r\nconnection: close\r\n\r\n";
    let jobs = [
        job(&format!("TRACE /echo HTTP/1.1\r\n{host}")),
        job(&format!(
            "GET https://api.lab.example/echo?y HTTP/1.1\r\n{host}"
        )),
    ];
    let answers = raw(&lab, json!(jobs)).await;
    for answer in answers.as_array().unwrap() {
        assert_eq!(refusal(answer).0, 200, "{answer}");
    }
    let seen: Vec<_> = server.seen();
    let asked: Vec<_> = seen
        .iter()
        .map(|seen| (seen.method.as_str(), seen.path.as_str()))
        .collect();
    assert_eq!(asked, [("TRACE", "/echo"), ("GET", "/echo?y")]);
    let record = exchange(&daemon, "/echo?y").await;
    assert_eq!(record["decision"]["effect"], "allow", "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_addresses_and_bytes_that_nobody_allowed() {
    let lab = Lab::new().unwrap();
    let server = lab.https(&[NAME], SocketAddr::new(WORLD, 443)).unwrap();
    let elsewhere = lab
        .https(&["evil.lab.example"], SocketAddr::new(WORLD_OTHER, 443))
        .unwrap();
    let daemon = lab.daemon(&egress()).await.unwrap();
    let wire = lab.wire().unwrap();

    let told = curl(&lab, &["https://evil.lab.example/"]).await;
    assert_eq!(told.exit, 6, "{told:?}");
    assert!(
        lab.dns
            .asked()
            .iter()
            .all(|question| question.name != "evil.lab.example")
    );
    daemon
        .record("a refused name", |record| {
            record["dns"]["name"] == "evil.lab.example" && record["decision"]["effect"] == "deny"
        })
        .await
        .unwrap();

    let address = WORLD_OTHER.to_string();
    let plain = get("/echo", NAME);
    let answers = raw(&lab, json!([
        // An address that was not obtained by name; with an allowed name in the handshake too.
        { "host": address, "port": 443, "tls": false, "send": ["x"] },
        { "host": address, "port": 443, "sni": NAME, "send": [plain] },
        { "host": WORLD.to_string(), "port": 443, "sni": NAME, "send": [plain] },
        // A port that no rule names.
        { "host": NAME, "port": 8443, "tls": false, "send": ["x"] },
        // The right address by name, and something else in the handshake or none.
        { "host": NAME, "port": 443, "sni": "evil.lab.example", "insecure": true, "send": [get("/", "evil.lab.example")] },
        { "host": NAME, "port": 443, "sni": OTHER, "insecure": true, "send": [get("/", OTHER)] },
        { "host": NAME, "port": 443, "sni": "", "insecure": true, "send": [plain] },
        // Not TLS at all.
        { "host": NAME, "port": 443, "tls": false, "send": [plain] },
        { "host": NAME, "port": 443, "tls": false, "send": ["SSH-2.0-OpenSSH_9.2\r\n"] },
        { "host": NAME, "port": 443, "tls": false, "send": ["\u{16}\u{3}\u{1}\u{0}\u{5}hello"] },
    ])).await;
    let answers = answers.as_array().unwrap();
    for refused in [0, 1, 2, 3] {
        let error = answers[refused]["error"].as_str().unwrap();
        assert!(
            error.starts_with("ConnectionRefusedError"),
            "{}",
            answers[refused]
        );
        assert!(answers[refused]["seconds"].as_f64().unwrap() < 2.0);
    }
    for refused in [4, 5, 6] {
        let error = answers[refused]["error"].as_str().unwrap();
        assert!(
            error.contains("ALERT_ACCESS_DENIED"),
            "{}",
            answers[refused]
        );
    }
    assert_eq!(refusal(&answers[7]), (421, "name_disagreement".to_owned()));
    for refused in [8, 9] {
        let got = answers[refused]["got"].as_str().unwrap();
        assert!(!got.contains("200 OK"), "{got}");
    }
    assert_eq!(server.seen().len() + elsewhere.seen().len(), 0);
    assert_eq!(wire.to(WORLD_OTHER), []);
    let refused = |records: &[Value]| {
        let refused = |record: &&Value| {
            let status = &record["outcome"]["status"];
            ["tcp", "http"].contains(&record["kind"].as_str().unwrap()) && status == "refused"
        };
        records.iter().filter(refused).count()
    };
    // Equal refusals of one process within a second share a record of the kernel's.
    wait_until("each is recorded", LIMIT, || {
        refused(&daemon.audit().unwrap()) >= 9
    })
    .await
    .unwrap();
}
