//! What policy allows gets through for every client, unchanged, and leaves its record.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use exeat_tests::Lab;
use exeat_tests::fixtures::Fixtures;
use exeat_tests::lab::{MACHINE, WORLD};
use exeat_tests::process::{must, run};
use serde_json::{Value, json};

use crate::place::{DEMO, LIMIT, command, curl, exchange, managed, policy, raw, start};

const NAME: &str = "api.lab.example";
const ENTRY: &str = "{ host: api.lab.example, methods: [GET], paths: [/echo, \"/status/**\"] }";

const FETCH: &str = "const r = await fetch(process.argv[1]); \
    console.log(JSON.stringify({status: r.status, body: await r.text()}));";
const HTTPX: &str = "import httpx,sys,json; r=httpx.get(sys.argv[1]); \
    print(json.dumps({'status': r.status_code, 'body': r.text}))";
const REQUESTS: &str = "import requests,sys,json; r=requests.get(sys.argv[1]); \
    print(json.dumps({'status': r.status_code, 'body': r.text}))";

/// Each client with the command line before the URL and the end of its executable's path.
fn clients(lab: &Lab) -> Vec<(&'static str, Vec<OsString>, String)> {
    let fixtures = Fixtures::find().unwrap();
    let python = fixtures.python(2);
    // Of the release that the machine has.
    let release = fs::canonicalize(&python).unwrap();
    let release = release.file_name().unwrap().to_str().unwrap().to_owned();
    let python = python.into_os_string();
    let node = |major| {
        let evaluate = ["--input-type=module", "--eval", FETCH, "--"].map(OsString::from);
        [
            vec![fixtures.node(major).into_os_string()],
            evaluate.to_vec(),
        ]
        .concat()
    };
    let own = lab.directory().join("get");
    fs::copy(env!("CARGO_BIN_EXE_get"), &own).unwrap();
    vec![
        (
            "httpx",
            vec![python.clone(), "-c".into(), HTTPX.into()],
            release.clone(),
        ),
        (
            "requests",
            vec![python, "-c".into(), REQUESTS.into()],
            release,
        ),
        ("node20", node(20), "node".to_owned()),
        ("node22", node(22), "node".to_owned()),
        ("rust", vec![own.into()], "get".to_owned()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_begins_where_policy_says() {
    let lab = Lab::new().unwrap();
    let begins = |place: &str| {
        let user = format!("user: nobody{place}");
        policy(&[ENTRY]).replace("user: nobody", &user)
    };
    let daemon = lab.daemon(&begins(", directory: caller")).await.unwrap();
    let log = lab.directory().join("pwd");
    fs::write(&log, "").unwrap();
    must("chmod", &[Path::new("666"), log.as_path()]).unwrap();
    // Called from somewhere that its user may be in.
    let begin = async || {
        let mut command = command(&lab, &["sh", "-c", r#"exec pwd >"$0""#]);
        command.arg(&log).current_dir("/usr/share");
        let done = run(&mut command, LIMIT).await.unwrap();
        (
            done.status.success(),
            fs::read_to_string(&log).unwrap(),
            done.stderr,
        )
    };
    assert_eq!(begin().await, (true, "/usr/share\n".into(), String::new()));
    daemon
        .put_in_force(&begins(", directory: /usr/lib"))
        .await
        .unwrap();
    assert_eq!(begin().await, (true, "/usr/lib\n".into(), String::new()));
    // Not even root's, which the daemon could enter.
    let closed = lab.directory().join("closed");
    DirBuilder::new().mode(0o700).create(&closed).unwrap();
    daemon
        .put_in_force(&begins(&format!(", directory: {}", closed.display())))
        .await
        .unwrap();
    let (success, _, said) = begin().await;
    let wanted = format!("entering the directory `{}`", closed.display());
    assert!(!success && said.contains(&wanted), "{said}");
}

/// Who may start a server may not have it do anything else than what the register names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_gets_no_arguments_but_those_that_policy_covers() {
    let lab = Lab::new().unwrap();
    let covering = |patterns: &str| policy(&[ENTRY]).replace("['*']", patterns);
    let daemon = lab.daemon(&covering("[sh, -c, 'exit *']")).await.unwrap();
    let begin = async |words: &[&str]| {
        let done = run(&mut command(&lab, words), LIMIT).await.unwrap();
        (done.status.code(), done.stderr)
    };
    assert_eq!(
        begin(&["sh", "-c", "exit 7"]).await,
        (Some(7), String::new())
    );
    let (code, said) = begin(&["sh", "-c", "exec cat /etc/shadow"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("`launch.extra_args` of `demo`"), "{said}");
    let refused = |record: &Value| {
        record["lifecycle"]["event"] == "run" && record["outcome"]["status"] == "refused"
    };
    let record = daemon.record("the refusal", refused).await.unwrap();
    let reason = "the server's `extra_args` do not cover what is added";
    assert_eq!(record["decision"]["reason"], reason, "{record}");
    let added = json!(["sh", "-c", "exec cat /etc/shadow"]);
    assert_eq!(record["lifecycle"]["extra_args"], added, "{record}");

    // A session that runs ends with the policy that let it begin.
    daemon.put_in_force(&covering("['*']")).await.unwrap();
    let mut running = start(&lab, "sleeps", &["sleep", "infinity"]);
    daemon
        .record("the session", |record| {
            record["lifecycle"]["event"] == "session_started"
        })
        .await
        .unwrap();
    daemon.put_in_force(&covering("[sh]")).await.unwrap();
    running.wait(LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_gets_what_is_allowed() {
    let lab = Lab::new().unwrap();
    let server = lab.https(&[NAME], SocketAddr::new(WORLD, 443)).unwrap();
    let daemon = lab.daemon(&policy(&[ENTRY])).await.unwrap();

    let told = curl(&lab, &["https://api.lab.example/echo?by=curl"]).await;
    assert_eq!((told.exit, told.status), (0, 200), "{told:?}");
    let mut names = vec!["curl"];
    for (name, mut program, exe) in clients(&lab) {
        program.push(format!("https://api.lab.example/echo?by={name}").into());
        let done = managed(&lab, &program).await;
        assert!(done.status.success(), "{name}: {}", done.stderr);
        let answer = done.json().unwrap();
        assert_eq!(answer["status"], 200, "{name}: {answer}");
        let record = exchange(&daemon, &format!("/echo?by={name}")).await;
        let seen = record["workload"]["exe"].as_str().unwrap();
        assert!(seen.ends_with(&*exe), "{name}: {record}");
        assert!(record["workload"]["pid"].is_u64(), "{name}: {record}");
        names.push(name);
    }
    let seen = server.seen();
    assert_eq!(seen.len(), names.len());
    for (name, seen) in names.iter().zip(seen) {
        assert_eq!(seen.path, format!("/echo?by={name}"));
        assert_eq!(seen.method, "GET");
        assert_eq!(seen.authority.as_deref(), Some(NAME));
        assert_eq!(seen.server_name.as_deref(), Some(NAME));
        assert_eq!(seen.peer.ip(), MACHINE);
        for added in ["via", "forwarded", "x-forwarded-for"] {
            assert_eq!(seen.header(added), None, "{name}");
        }
        let record = exchange(&daemon, &seen.path).await;
        assert_eq!(record["http"]["name"], NAME, "{record}");
        assert_eq!(record["http"]["sni"], NAME);
        assert_eq!(record["http"]["method"], "GET");
        assert_eq!(record["http"]["status"], 200);
        assert_eq!(record["http"]["address"], WORLD.to_string());
        assert_eq!(record["http"]["port"], 443);
        assert_eq!(record["decision"]["effect"], "allow");
        assert_eq!(record["decision"]["mode"], "enforce");
        assert_eq!(record["workload"]["name"], DEMO);
        assert_eq!(record["workload"]["uid"], 65534);
        assert_eq!(record["outcome"]["status"], "done");
        let version = if seen.version == "HTTP/2.0" {
            "HTTP/2"
        } else {
            "HTTP/1.1"
        };
        assert_eq!(record["http"]["version"], version, "{name}");
    }
    assert_eq!(server.failed(), Vec::<String>::new());
    let records = daemon.audit().unwrap();
    let exchanges = records.iter().filter(|record| record["kind"] == "http");
    assert_eq!(
        exchanges.count(),
        names.len(),
        "one record each: {records:#?}"
    );
}

/// However soon after its execution it connects: a record names what was executed, not whose child it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_programs_are_recorded_as_themselves() {
    const PROGRAMS: usize = 20;
    let lab = Lab::new().unwrap();
    lab.https(&[NAME], SocketAddr::new(WORLD, 443)).unwrap();
    let daemon = lab.daemon(&policy(&[ENTRY])).await.unwrap();
    let get = lab.directory().join("get");
    fs::copy(env!("CARGO_BIN_EXE_get"), &get).unwrap();
    let url = format!("https://{NAME}/echo?by=");
    let all = r#"for i in $(seq "$0"); do "$1" "$2$i" & done; wait"#;
    let program = [
        "sh",
        "-c",
        all,
        &PROGRAMS.to_string(),
        get.to_str().unwrap(),
        &url,
    ];
    let done = managed(&lab, &program).await;
    assert!(done.status.success(), "{}", done.stderr);
    let mut pids = HashSet::new();
    for name in 1..=PROGRAMS {
        let record = exchange(&daemon, &format!("/echo?by={name}")).await;
        assert_eq!(record["workload"]["exe"], get.to_str().unwrap(), "{record}");
        pids.insert(record["workload"]["pid"].as_u64().unwrap());
    }
    assert_eq!(pids.len(), PROGRAMS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_and_protocols_are_mirrored() {
    let lab = Lab::new().unwrap();
    let both = lab.https(&[NAME], SocketAddr::new(WORLD, 443)).unwrap();
    let _daemon = lab.daemon(&policy(&[ENTRY])).await.unwrap();
    let ask = "GET /echo HTTP/1.1\r\nhost: api.lab.example\r\nconnection: close\r\n\r\n";
    let jobs = json!([
        { "host": NAME, "port": 443, "version": "1.2", "send": [ask] },
        { "host": NAME, "port": 443, "version": "1.3", "send": [ask] },
        { "host": NAME, "port": 443, "alpn": ["http/1.1"], "send": [ask] },
        { "host": NAME, "port": 443, "alpn": ["foo", "http/1.1"], "send": [ask] },
        { "host": NAME, "port": 443, "split": 7, "pause": 0.001, "send": [ask] },
        { "host": NAME, "port": 443, "split": 1, "send": [ask] },
    ]);
    let got = raw(&lab, jobs).await;
    let expected = [
        ("TLSv1.2", Value::Null),
        ("TLSv1.3", Value::Null),
        ("TLSv1.3", json!("http/1.1")),
        ("TLSv1.3", json!("http/1.1")),
        ("TLSv1.3", Value::Null),
        ("TLSv1.3", Value::Null),
    ];
    for (answer, (version, alpn)) in got.as_array().unwrap().iter().zip(expected) {
        let text = answer["got"].as_str().unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(
            (&answer["version"], &answer["alpn"]),
            (&json!(version), &alpn)
        );
    }
    let alpn: Vec<_> = both.seen().into_iter().map(|seen| seen.alpn).collect();
    let one = Some("http/1.1".to_owned());
    assert_eq!(alpn, [None, None, one.clone(), one, None, None]);
    both.forget();

    for (flag, version) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2.0")] {
        let told = curl(&lab, &[flag, "https://api.lab.example/echo"]).await;
        assert_eq!(told.status, 200, "{told:?}");
        assert_eq!(both.seen().pop().unwrap().version, version);
    }
}
