//! The lab against itself: what its world answers, and how it misbehaves.

use std::process::Command;
use std::time::Duration;

use super::*;
use crate::process::{Finished, run};

const LIMIT: Duration = Duration::from_secs(20);

async fn curl(lab: &Lab, arguments: &[&str]) -> Finished {
    let mut command: Command = lab.inside.command("curl");
    command
        .args(["--silent", "--show-error", "--max-time", "10", "--cacert"])
        .arg(lab.directory().join("world-ca.pem"))
        .args(arguments);
    run(&mut command, LIMIT).await.unwrap()
}

/// `name:port:address` for curl, which must not ask the machine's own resolver here.
fn at(name: &str, address: SocketAddr) -> String {
    format!("{name}:{}:{}", address.port(), address.ip())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serves_both_versions_of_http_and_remembers_requests() {
    let lab = Lab::new().unwrap();
    let address = SocketAddr::new(WORLD, 443);
    let server = lab.https(&["api.lab.example"], address).unwrap();
    let resolve = at("api.lab.example", address);
    for (flag, version) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2.0")] {
        let done = curl(
            &lab,
            &[
                flag,
                "--resolve",
                &resolve,
                "--data",
                "hi",
                "https://api.lab.example/echo?q=1",
            ],
        )
        .await;
        assert!(done.status.success(), "{}", done.stderr);
        assert_eq!(done.json().unwrap()["body"], "hi");
        let seen = server.seen().pop().unwrap();
        assert_eq!(
            (seen.version.as_str(), seen.method.as_str()),
            (version, "POST")
        );
        assert_eq!(seen.path, "/echo?q=1");
        assert_eq!(seen.server_name.as_deref(), Some("api.lab.example"));
        assert_eq!(seen.authority.as_deref(), Some("api.lab.example"));
        assert_eq!(seen.peer.ip(), MACHINE);
        assert!(seen.complete);
    }
    assert_eq!(server.connections(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_and_serves_both_families() {
    let lab = Lab::new().unwrap();
    let address = SocketAddr::new(WORLD, 443);
    let _server = lab.https(&["api.lab.example"], address).unwrap();
    let resolve = at("api.lab.example", address);
    let big = curl(
        &lab,
        &[
            "--resolve",
            &resolve,
            "https://api.lab.example/big?bytes=300000",
        ],
    )
    .await;
    assert_eq!(big.stdout.len(), 300_000);
    let events = curl(
        &lab,
        &[
            "--resolve",
            &resolve,
            "https://api.lab.example/sse?events=4",
        ],
    )
    .await;
    assert_eq!(events.stdout.matches("data: ").count(), 4);
    let v6 = lab
        .https(&["six.lab.example"], SocketAddr::new(WORLD_V6, 443))
        .unwrap();
    let done = curl(
        &lab,
        &[
            "--resolve",
            "six.lab.example:443:[2606:2800:21f:cb07::14]",
            "https://six.lab.example/status?code=418",
        ],
    )
    .await;
    assert_eq!(done.json().unwrap()["status"], 418);
    assert_eq!(v6.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misbehaves_when_told_to() {
    let lab = Lab::new().unwrap();
    let faults = [
        (Fault::Expired, 1443),
        (Fault::OtherName, 2443),
        (Fault::SelfSigned, 3443),
    ];
    for (fault, port) in faults {
        let address = SocketAddr::new(WORLD, port);
        let server = lab
            .tls(&["bad.lab.example"], address, &[], fault, Manner::Http)
            .unwrap();
        let url = format!("https://bad.lab.example:{port}/echo");
        let done = curl(&lab, &["--resolve", &at("bad.lab.example", address), &url]).await;
        assert_eq!(done.status.code(), Some(60), "{fault:?}: {}", done.stderr);
        assert!(server.seen().is_empty());
    }
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let manner = Manner::Script(hints.into());
    let address = SocketAddr::new(WORLD, 80);
    let scripted = lab.http(&["hints.lab.example"], address, manner).unwrap();
    let done = curl(
        &lab,
        &[
            "--resolve",
            &at("hints.lab.example", address),
            "http://hints.lab.example/x",
        ],
    )
    .await;
    assert_eq!(done.stdout, "ok");
    assert_eq!(scripted.seen().len(), 1);
    assert_eq!(scripted.seen()[0].path, "/x");

    let _reset = lab
        .http(&[], SocketAddr::new(WORLD, 81), Manner::Reset)
        .unwrap();
    assert_eq!(
        curl(&lab, &[&format!("http://{WORLD}:81/")])
            .await
            .status
            .code(),
        Some(56)
    );
    let _silent = lab
        .http(&[], SocketAddr::new(WORLD, 82), Manner::Silent)
        .unwrap();
    let done = curl(&lab, &["--max-time", "1", &format!("http://{WORLD}:82/")]).await;
    assert_eq!(done.status.code(), Some(28));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_resolve_inside_and_questions_are_remembered() {
    let lab = Lab::new().unwrap();
    lab.dns.points("api.lab.example", &[WORLD, WORLD_V6]);
    lab.dns.set(
        "www.lab.example",
        crate::dns::Answer::Alias("api.lab.example".into()),
    );
    let ask = r#"import socket,struct,sys
name,kind=sys.argv[1],int(sys.argv[2])
q=b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"+b"".join(bytes([len(l)])+l.encode() for l in name.split("."))+b"\0"+struct.pack(">HH",kind,1)
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(5); s.sendto(q,("93.184.215.53",53)); a=s.recv(4096)
t=socket.create_connection(("93.184.215.53",53),5); t.sendall(struct.pack(">H",len(q))+q); n=struct.unpack(">H",t.recv(2))[0]; b=t.recv(n)
assert a==b; print(a[3]&15, struct.unpack(">H",a[6:8])[0])"#;
    let asked = async |name: &str, kind: &str| {
        let mut command = lab.inside.command("python3");
        command.args(["-c", ask, name, kind]);
        let done = run(&mut command, LIMIT).await.unwrap();
        assert!(done.status.success(), "{}", done.stderr);
        done.stdout.trim().to_owned()
    };
    assert_eq!(asked("api.lab.example", "1").await, "0 1");
    assert_eq!(asked("API.lab.example", "28").await, "0 1");
    assert_eq!(asked("www.lab.example", "1").await, "0 2");
    assert_eq!(asked("api.lab.example", "16").await, "0 0");
    assert_eq!(asked("none.lab.example", "1").await, "3 0");
    let questions = lab.dns.asked();
    assert_eq!(questions.len(), 10);
    assert_eq!(
        (questions[2].name.as_str(), questions[2].kind.as_str()),
        ("api.lab.example", "AAAA")
    );
    assert!(questions[3].tcp);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opaque_bytes_come_back_and_are_remembered() {
    let lab = Lab::new().unwrap();
    let echo = lab.echo(SocketAddr::new(LAN, 5432)).unwrap();
    let mut command = lab.inside.command("python3");
    command.args(["-c", "import socket; s=socket.create_connection(('10.78.0.5',5432),5); s.sendall(b'psql'); print(s.recv(9).decode())"]);
    let done = run(&mut command, LIMIT).await.unwrap();
    assert_eq!(done.stdout.trim(), "psql", "{}", done.stderr);
    assert_eq!(echo.got(), [b"psql".to_vec()]);
}
