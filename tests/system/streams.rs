//! Bodies stream both ways as they come, of any size, within bounded memory.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use exeat_tests::Lab;
use exeat_tests::daemon::Daemon;
use exeat_tests::fixtures::Fixtures;
use exeat_tests::lab::WORLD;
use exeat_tests::wait::wait_until;
use serde_json::{Value, json};

use crate::hand::Hand;
use crate::place::{curl, exchange, managed, policy, raw, start};

const NAME: &str = "api.lab.example";
const ENTRY: &str = "{ host: api.lab.example }";
const LIMIT: Duration = Duration::from_secs(30);

fn address() -> SocketAddr {
    SocketAddr::new(WORLD, 443)
}

/// The most memory that the gate has had, in KiB.
pub(crate) fn peak(daemon: &Daemon<'_>) -> u64 {
    let path = format!("/proc/{}/status", gate(daemon));
    let status = fs::read_to_string(path).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The gate's pid: the supervisor's child.
pub(crate) fn gate(daemon: &Daemon<'_>) -> u32 {
    let pid = daemon.pid();
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(path).unwrap();
    let gate = children.split_whitespace().find(|child| {
        fs::read(format!("/proc/{child}/cmdline")).is_ok_and(|line| line.ends_with(b"gate\0"))
    });
    gate.unwrap_or_else(|| panic!("no gate among `{children}`"))
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_arrives_before_the_next_is_sent() {
    let lab = Lab::new().unwrap();
    let hand = Hand::new(&lab, NAME, address());
    let daemon = lab.daemon(&policy(&[ENTRY])).await.unwrap();
    let client = start(
        &lab,
        "sse",
        &[
            "curl",
            "--no-buffer",
            "--silent",
            "https://api.lab.example/sse",
        ],
    );
    let mut held = hand.accept().await;
    held.head().await;
    held.say("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        .await;
    for event in ["first", "second", "third"] {
        held.say(&format!("data: {event}\n\n")).await;
        wait_until(event, LIMIT, || client.stdout().contains(event))
            .await
            .unwrap();
    }
    assert!(
        daemon
            .audit()
            .unwrap()
            .iter()
            .all(|record| record["http"]["path"] != "/sse")
    );
    held.close().await;
    let record = exchange(&daemon, "/sse").await;
    assert_eq!(record["outcome"]["status"], "done", "{record}");
    assert_eq!(record["http"]["response_bytes"], 13 + 14 + 13);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_pass_within_bounded_memory() {
    const SIZE: u64 = 100_000_000;
    let lab = Lab::new().unwrap();
    let server = lab.https(&[NAME], address()).unwrap();
    let daemon = lab.daemon(&policy(&[ENTRY])).await.unwrap();
    let file = lab.directory().join("large");
    fs::File::create(&file).unwrap().set_len(SIZE).unwrap();
    let upload = format!("@{}", file.display());
    curl(&lab, &["https://api.lab.example/echo"]).await;
    let before = peak(&daemon);
    for version in ["--http1.1", "--http2"] {
        let url = format!("https://api.lab.example/big?bytes={SIZE}&{version}");
        let told = curl(
            &lab,
            &[
                version,
                "--output",
                "/dev/null",
                "--write-out",
                "\n%{size_download} %{http_code}",
                &url,
            ],
        )
        .await;
        assert_eq!(told.body.trim(), "", "{told:?}");
        assert_eq!(told.exit, 0, "{told:?}");
        let record = exchange(&daemon, url.split_once("example").unwrap().1).await;
        assert_eq!(record["http"]["response_bytes"], SIZE, "{record}");

        let url = format!("https://api.lab.example/upload?{version}");
        let told = curl(
            &lab,
            &[
                version,
                "--request",
                "PUT",
                "--data-binary",
                &upload,
                "--header",
                "content-type: application/octet-stream",
                &url,
            ],
        )
        .await;
        assert_eq!((told.exit, told.status), (0, 200), "{told:?}");
        assert_eq!(told.body, format!("{{\"bytes\":{SIZE}}}"));
        let record = exchange(&daemon, url.split_once("example").unwrap().1).await;
        assert_eq!(record["http"]["request_bytes"], SIZE, "{record}");
    }
    let grown = peak(&daemon) - before;
    assert!(grown < 32 * 1024, "the gate grew by {grown} KiB");
    assert_eq!(server.failed(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gibibyte_goes_up_within_flat_memory() {
    const SIZE: u64 = 1 << 30;
    let lab = Lab::new().unwrap();
    let _server = lab.https(&[NAME], address()).unwrap();
    let daemon = lab.daemon(&policy(&[ENTRY])).await.unwrap();
    let file = lab.directory().join("large");
    fs::File::create(&file).unwrap().set_len(SIZE).unwrap();
    curl(&lab, &["https://api.lab.example/echo"]).await;
    let before = peak(&daemon);
    for version in ["--http1.1", "--http2"] {
        let url = format!("https://api.lab.example/upload?{version}");
        let upload = ["curl", "--silent", version, "--upload-file"];
        let program = [&upload[..], &[file.to_str().unwrap(), &url]].concat();
        let mut done = start(&lab, "upload", &program);
        done.wait(Duration::from_mins(4)).await.unwrap();
        assert_eq!(done.stdout(), format!("{{\"bytes\":{SIZE}}}"));
        let record = exchange(&daemon, url.split_once("example").unwrap().1).await;
        assert_eq!(record["http"]["request_bytes"], SIZE, "{record}");
    }
    let grown = peak(&daemon) - before;
    assert!(grown < 32 * 1024, "the gate grew by {grown} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_heads_and_reused_connections() {
    let lab = Lab::new().unwrap();
    let server = lab.https(&[NAME], address()).unwrap();
    let daemon = lab.daemon(&policy(&[ENTRY])).await.unwrap();

    let head = "host: api.lab.example\r\n";
    let jobs = json!([
        { "host": NAME, "port": 443, "send": [format!("GET /trailers HTTP/1.1\r\n{head}te: trailers\r\nconnection: te, close\r\n\r\n")] },
        { "host": NAME, "port": 443, "send": [
            format!("HEAD /echo?head HTTP/1.1\r\n{head}\r\nGET /echo?after HTTP/1.1\r\n{head}connection: close\r\n\r\n"),
        ] },
        { "host": NAME, "port": 443, "send": [
            format!("POST /echo?chunks HTTP/1.1\r\n{head}transfer-encoding: chunked\r\ntrailer: x-sum\r\nconnection: close\r\n\r\n3\r\nabc\r\n"),
            "2;ext=1\r\nde\r\n0\r\nx-sum: 5\r\n\r\n",
        ] },
        { "host": NAME, "port": 443, "send": [
            format!("GET /echo?body HTTP/1.1\r\n{head}transfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        ] },
        { "host": NAME, "port": 443, "send": [
            format!("GET /echo?both HTTP/1.1\r\n{head}content-length: 44\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
            format!("GET /echo?smuggled HTTP/1.1\r\n{head}connection: close\r\n\r\n"),
        ] },
    ]);
    let answers = raw(&lab, jobs).await;
    let got: Vec<&str> = answers
        .as_array()
        .unwrap()
        .iter()
        .map(|answer| answer["got"].as_str().unwrap())
        .collect();
    assert!(got[0].contains("x-checksum: abc123"), "{}", got[0]);
    let (first, second) = got[1].split_once("\r\n\r\n").unwrap();
    assert!(
        first.contains("content-length: ") && second.starts_with("HTTP/1.1 200"),
        "{}",
        got[1]
    );
    let seen = |mark: &str| {
        let all = server.seen();
        all.into_iter()
            .find(|seen| seen.path.ends_with(mark))
            .unwrap_or_else(|| panic!("{mark}"))
    };
    assert_eq!(seen("?head").method, "HEAD");
    assert_eq!(seen("?head").connection, seen("?after").connection);
    assert_eq!(&seen("?chunks").body[..], b"abcde");
    assert_eq!(
        seen("?chunks").trailers,
        [("x-sum".to_owned(), "5".to_owned())]
    );
    assert_eq!(
        &seen("?body").body[..],
        b"abc",
        "a GET with a body keeps it"
    );
    assert_eq!(seen("?both").header("content-length"), None);
    assert_eq!(seen("?both").body_bytes, 0);
    // RFC 9112 section 6.1: such a connection ends with its answer.
    assert!(
        server
            .seen()
            .iter()
            .all(|seen| !seen.path.ends_with("?smuggled"))
    );
    server.forget();

    let told = curl(
        &lab,
        &["--http2", "--include", "https://api.lab.example/trailers"],
    )
    .await;
    assert!(told.body.contains("x-checksum: abc123"), "{told:?}");
    let before = server.connections();
    for version in ["--http1.1", "--http2"] {
        curl(
            &lab,
            &[
                version,
                "https://api.lab.example/echo?one",
                "https://api.lab.example/echo?two",
                "https://api.lab.example/echo?three",
            ],
        )
        .await;
    }
    assert_eq!(
        server.connections() - before,
        2,
        "one upstream connection for each client's"
    );
    let exchanges = |record: &Value| record["kind"] == "http";
    let records = daemon.records("each of them", 6 + 1 + 6, exchanges).await;
    let records = records.unwrap();
    assert_eq!(records.len(), 6 + 1 + 6, "{records:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expectations_hints_and_slow_bodies() {
    let lab = Lab::new().unwrap();
    let hand = Hand::new(&lab, NAME, address());
    let entry = "{ host: api.lab.example, methods: [POST, GET] }";
    let daemon = lab.daemon(&policy(&[entry])).await.unwrap();
    let body = "x".repeat(2000);
    let expect = [
        "curl",
        "--silent",
        "--no-buffer",
        "--http1.1",
        "--expect100-timeout",
        "20",
        "--header",
        "expect: 100-continue",
    ];
    let post = [
        &expect[..],
        &["--verbose", "--data", &body],
        &["https://api.lab.example/expect"],
    ]
    .concat();
    let client = start(&lab, "expect", &post);
    let mut held = hand.accept().await;
    let head = held.head().await;
    assert!(head.starts_with("POST /expect"), "{head}");
    if !head.ends_with('x') {
        held.read_until("xxx").await;
    }
    // Hints come before the answer, and are no answer.
    held.say("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\n")
        .await;
    let hinted = || client.stderr().contains("< HTTP/1.1 103 Early Hints");
    wait_until("the hint", LIMIT, hinted).await.unwrap();
    assert!(client.stderr().contains("< link: </a>"));
    assert!(!client.stderr().contains("x-hop"));
    held.say("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsl")
        .await;
    wait_until("the first half", LIMIT, || client.stdout() == "sl")
        .await
        .unwrap();
    held.say("owly").await;
    wait_until("the second half", LIMIT, || client.stdout() == "slowly")
        .await
        .unwrap();
    exchange(&daemon, "/expect").await;

    // The upstream does not want the body: what it says instead is what the client is told.
    let post = [
        &expect[..],
        &["--write-out", " %{http_code}", "--data", &body],
        &["https://api.lab.example/unwanted"],
    ]
    .concat();
    let client = start(&lab, "unwanted", &post);
    let mut held = hand.accept().await;
    held.head().await;
    held.say("HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno")
        .await;
    wait_until("the upstream's refusal", LIMIT, || {
        client.stdout() == "no 413"
    })
    .await
    .unwrap();
    let record = exchange(&daemon, "/unwanted").await;
    assert_eq!(record["http"]["status"], 413, "{record}");
    assert_eq!(record["decision"]["effect"], "allow", "{record}");

    // A refusal of policy comes instead of the invitation.
    let put = [
        &expect[1..],
        &[
            "--request",
            "PUT",
            "--data",
            &body,
            "https://api.lab.example/refused",
        ],
    ]
    .concat();
    let told = curl(&lab, &put).await;
    assert_eq!((told.exit, told.status), (0, 403), "{told:?}");
}

/// Sends a body with trailers over HTTP/2, then asks for a head alone; prints what came back.
const TWO: &str = "const c=require('node:http2').connect(process.argv[1]); const out={};
function ask(head,body,then){const s=c.request(head,{waitForTrailers:!!body,endStream:!body}); let n=0;
s.on('wantTrailers',()=>s.sendTrailers({'x-sum':'5'})); s.on('data',d=>n+=d.length);
s.on('response',h=>out[head[':method']]={status:h[':status'],length:h['content-length']});
s.on('trailers',h=>(out[head[':method']]??={}).trailers=h['x-checksum']);
s.on('error',e=>{out.error=[head,String(e)]}); s.on('close',()=>{(out[head[':method']]??={}).bytes=n; then()}); if(body) s.end(body);}
ask({':method':'POST',':path':'/trailers',te:'trailers',trailer:'x-sum'},'abcde',()=>
ask({':method':'HEAD',':path':'/echo?head'},null,()=>{
out.allowed=out.HEAD; ask({':method':'HEAD',':path':'/secret'},null,()=>{console.log(JSON.stringify(out)); c.close()})}));";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_and_heads_over_the_second_version() {
    let lab = Lab::new().unwrap();
    let server = lab.https(&[NAME], address()).unwrap();
    let entry = "{ host: api.lab.example, paths: [/echo, /trailers] }";
    let daemon = lab.daemon(&policy(&[entry])).await.unwrap();
    let node = Fixtures::find().unwrap().node(22);
    let program = [
        node.to_str().unwrap(),
        "-e",
        TWO,
        "--",
        "https://api.lab.example",
    ];
    let done = managed(&lab, &program).await;
    let told = done.json().unwrap();
    assert_eq!(told["POST"]["status"], 200, "{told}");
    assert_eq!(told["POST"]["trailers"], "abc123", "{told}");
    for (which, status) in [("allowed", 200), ("HEAD", 403)] {
        assert_eq!(told[which]["status"], status, "{told}");
        assert_eq!(told[which]["bytes"], 0, "{told}");
        assert!(told[which]["length"].is_string(), "{told}");
    }
    assert!(told["error"].is_null(), "{told}");
    let seen = server.seen();
    assert!(seen.iter().all(|seen| seen.version == "HTTP/2.0"));
    assert_eq!(&seen[0].body[..], b"abcde");
    assert_eq!(seen[0].trailers, [("x-sum".to_owned(), "5".to_owned())]);
    assert_eq!(seen[1].method, "HEAD");
    assert_eq!(seen.len(), 2);
    for (path, status) in [
        ("/trailers", "done"),
        ("/echo?head", "done"),
        ("/secret", "refused"),
    ] {
        let record = exchange(&daemon, path).await;
        assert_eq!(record["outcome"]["status"], status, "{record}");
    }
}
