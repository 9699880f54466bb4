//! Programs that others start and that are known by what they are when they are executed: the file, its arguments, and
//! whose process it is.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use exeat_tests::Lab;
use exeat_tests::lab::WORLD;
use exeat_tests::process::run;
use exeat_tests::upstream::Manner;
use serde_json::Value;

use crate::place::LIMIT;

/// As curl says that nobody let it connect (`CURLE_COULDNT_CONNECT`).
const REFUSED: Option<i32> = Some(7);

fn entry(kind: &str, program: &Path) -> String {
    let program = program.display();
    let server = "\n    purpose: whatever a test runs\n    owner: tests@lab.example\n    listen: 127.0.0.1:3001";
    let rest = if kind == "servers" { server } else { "" };
    format!(
        "version: 1
{kind}:
  known:{rest}
    match: {{ exe: {program}, args: [--silent, '*/{kind}-*'], user: daemon }}
    egress: []
"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_arguments_and_user_together() {
    let lab = Lab::new().unwrap();
    let world = lab
        .http(
            &["api.lab.example"],
            SocketAddr::new(WORLD, 80),
            Manner::Http,
        )
        .unwrap();
    let copy = |name: &str| {
        let place = lab.directory().join(name);
        fs::copy("/usr/bin/curl", &place).unwrap();
        place
    };
    let (program, other) = (copy("known"), copy("other"));
    let daemon = lab.daemon(&entry("servers", &program)).await.unwrap();
    let fetch = async |program: &Path, user: &str, first: &str, path: &str| {
        let mut command = lab.inside.command("setpriv");
        command
            .args(["--reuid", user, "--regid", user, "--clear-groups"])
            .arg(program)
            .args([first, &format!("http://{WORLD}/{path}"), "--max-time", "20"]);
        run(&mut command, LIMIT).await.unwrap().status.code()
    };
    for kind in ["servers", "hosts"] {
        if kind == "hosts" {
            let policy = entry(kind, &program);
            daemon.put_in_force(&policy).await.unwrap();
        }
        let path = |what: &str| format!("{kind}-{what}");
        let meant = fetch(&program, "daemon", "--silent", &path("meant")).await;
        assert_eq!(meant, REFUSED, "{kind}: it reaches what nobody allowed it");
        // One thing is another each time: the user, an argument, the order of arguments, the file.
        for (program, user, first, path) in [
            (&program, "bin", "--silent", path("user")),
            (&program, "root", "--silent", path("root")),
            (&program, "daemon", "--silent", "elsewhere".to_owned()),
            (&program, "daemon", "--show-error", path("first")),
            (&other, "daemon", "--silent", path("file")),
        ] {
            let free = fetch(program, user, first, &path).await;
            assert_eq!(free, Some(0), "{kind}: {path} is nobody's");
        }
        let of = if kind == "servers" { "server" } else { "host" };
        let record = daemon
            .record("the refused connection", |record| {
                record["tcp"]["address"] == WORLD.to_string() && record["workload"]["kind"] == of
            })
            .await
            .unwrap();
        assert_eq!(record["decision"]["effect"], "deny", "{record}");
        assert_eq!(record["workload"]["name"], "known", "{record}");
    }
    let paths: Vec<String> = world.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths.len(), 10);
    assert!(
        paths.iter().all(|path| !path.contains("meant")),
        "{paths:?}"
    );
    // What is nobody's is nobody's business.
    let known = |record: &Value| record["workload"]["name"] != "known" && record["kind"] == "tcp";
    let records = daemon.audit().unwrap();
    assert!(!records.iter().any(known), "{records:?}");
}
