//! Launchers that fetch before they speak: what they reach until then, what they reach after, what is said of it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use exeat_tests::Lab;
use exeat_tests::daemon::Daemon;
use exeat_tests::files::chmod;
use exeat_tests::fixtures::Fixtures;
use exeat_tests::lab::WORLD;
use exeat_tests::process::must;
use exeat_tests::stdio::Session;
use exeat_tests::upstream::Upstream;
use exeat_tests::wait::wait_until;
use serde_json::{Value, json};

use crate::place::{LIMIT, registering, told};

const HOST: &str = "packages.lab.example";
const FIRST: &str = "/demo/-/demo-1.0.0.tgz";
const SECOND: &str = "/demo/-/demo-2.0.0.tgz";
const SCRIPT: &str = "/install.sh";
const BYTES: &str = "application/octet-stream";
const HUGE: &str = "/big";
/// Of `first`, and of `other`: by `sha256sum`.
const DIGEST_FIRST: &str = "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e";
const DIGEST_OTHER: &str = "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa";

/// A lab with a registry, and the launcher's program.
struct Place {
    lab: Lab,
    registry: Upstream,
}

impl Place {
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        let names = [HOST, "elsewhere.lab.example"];
        let registry = lab.https(&names, SocketAddr::new(WORLD, 443)).unwrap();
        registry.put(FIRST, BYTES, "first");
        registry.put(SECOND, BYTES, "second");
        registry.put(SCRIPT, BYTES, "echo hello");
        let program = include_str!("clients/launcher.py");
        fs::write(lab.directory().join("launcher.py"), program).unwrap();
        Self { lab, registry }
    }

    fn go(&self, server: &str) -> PathBuf {
        self.lab.directory().join(format!("{server}.go"))
    }

    /// Lets a server speak.
    fn release(&self, server: &str) {
        fs::write(self.go(server), "").unwrap();
    }

    /// A directory where a server keeps what it fetched.
    fn home(&self, server: &str) -> PathBuf {
        let home = self.lab.directory().join(format!("home-{server}"));
        fs::create_dir(&home).unwrap();
        chmod(&home, 0o777).unwrap();
        home
    }

    /// A server that fetches these paths; `fetch` is what it may.
    fn server(&self, name: &str, fetch: &str, paths: &[&str]) -> String {
        let python = Fixtures::find().unwrap().python(2);
        let program = self.lab.directory().join("launcher.py");
        let go = self.go(name);
        let mut arguments = vec![program.to_str().unwrap(), HOST, go.to_str().unwrap()];
        arguments.extend(paths);
        format!(
            "  {name}:
    purpose: fetches itself
    owner: tests@lab.example
    launch: {{ command: {}, args: {arguments:?}, user: nobody, fetch: {fetch} }}
",
            python.display()
        )
    }
}

async fn asked(session: &mut Session, tool: &str) -> Value {
    let told = told(session, tool, json!({})).await;
    serde_json::from_str(&told).unwrap()
}

/// The record of what a session of `server` fetched.
async fn fetched(daemon: &Daemon<'_>, server: &str) -> Value {
    daemon
        .record(&format!("what {server} fetched"), |record| {
            record["lifecycle"]["event"] == "session_fetched"
                && record["workload"]["name"] == server
        })
        .await
        .unwrap()
}

fn findings(daemon: &Daemon<'_>, what: &str) -> Vec<String> {
    let records = daemon.audit().unwrap();
    let of = records
        .iter()
        .filter(|record| record["finding"]["what"] == what);
    of.map(|record| record["finding"]["detail"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_launcher_fetches_until_it_speaks_and_then_no_more() {
    let place = Place::new();
    let huge = format!("~{HUGE}?bytes=80000000");
    let allowed = format!("[{HOST}]");
    let text = registering(&[
        place.server("launcher", &allowed, &[FIRST, SCRIPT, &huge]),
        place.server("other", "[]", &[FIRST]),
        place.server("elsewhere", "[elsewhere.lab.example]", &[FIRST]),
    ]);
    let daemon = place.lab.daemon(&text).await.unwrap();
    for other in ["other", "elsewhere"] {
        place.release(other);
    }
    let mut session = daemon.run("launcher").unwrap();
    let line_said = |record: &Value| {
        record["finding"]["what"] == "stdio_violation" && record["workload"]["name"] == "launcher"
    };
    // By then it has fetched, and what it said was no message.
    daemon.record("the line", line_said).await.unwrap();

    // While it may fetch, no other may: not one without the word, and not one with another.
    for other in ["other", "elsewhere"] {
        let mut session = daemon.run(other).unwrap();
        session.initialize().await.unwrap();
        let before = asked(&mut session, "before").await;
        assert_eq!(before["error"], "gaierror", "{other}: {before}");
        session.close().await.unwrap();
    }

    place.release("launcher");
    session.initialize().await.unwrap();
    let before = asked(&mut session, "before").await;
    for path in [FIRST, SCRIPT, "HEAD"] {
        assert_eq!(before[path]["status"], 200, "{path}: {before}");
    }
    assert_eq!(before["POST"]["status"], 403, "{before}");
    assert_eq!(before["MCP"]["status"], 403, "{before}");
    assert!(
        before["MCP"]["text"]
            .as_str()
            .unwrap()
            .contains("unregistered"),
        "{before}"
    );
    assert_eq!(before["clear"]["error"], "ConnectionRefusedError");

    // Neither on what was open, nor by its name, nor by its address.
    place.registry.forget();
    let wire = place.lab.wire().unwrap();
    for (tool, expected) in [
        ("kept", None),
        ("half", None),
        ("name", Some("gaierror")),
        ("address", Some("ConnectionRefusedError")),
    ] {
        let said = asked(&mut session, tool).await;
        assert!(said["status"].is_null(), "{tool}: {said}");
        let error = said["error"].as_str().unwrap();
        assert_ne!(error, "TimeoutError", "{tool}: it is told");
        if let Some(expected) = expected {
            assert_eq!(said["error"], expected, "{tool}: {said}");
        }
    }
    assert_eq!(place.registry.seen().len(), 0);
    let mut left = wire.packets();
    left.retain(|packet| {
        packet.destination == WORLD && packet.flags.is_some_and(|flags| flags & 2 != 0)
    });
    assert_eq!(left, [], "nothing new leaves");
    daemon
        .record("the look-up is refused", |record| {
            record["workload"]["name"] == "launcher"
                && record["dns"]["name"] == HOST
                && record["decision"]["effect"] == "deny"
        })
        .await
        .unwrap();
    daemon
        .record("the dial is refused", |record| {
            record["workload"]["name"] == "launcher"
                && record["tcp"]["address"] == WORLD.to_string()
                && record["tcp"]["port"] == 443
                && record["decision"]["effect"] == "deny"
        })
        .await
        .unwrap();

    let record = fetched(&daemon, "launcher").await;
    assert_eq!(
        record["lifecycle"]["detail"], "the server's first message",
        "{record}"
    );
    assert!(record["session"]["id"].is_string(), "{record}");
    let things = record["lifecycle"]["fetched"].as_array().unwrap();
    let shown: Vec<_> = things
        .iter()
        .map(|thing| {
            (
                thing["path"].as_str().unwrap(),
                &thing["package"],
                &thing["version"],
            )
        })
        .collect();
    let null = Value::Null;
    assert_eq!(
        shown,
        [
            (FIRST, &json!("npm:demo"), &json!("1.0.0")),
            (SCRIPT, &null, &null),
            (HUGE, &null, &null)
        ],
        "{record}"
    );
    assert_eq!(things[0]["host"], HOST);
    assert_eq!(things[0]["bytes"], 5);
    assert_eq!(things[0]["sha256"], DIGEST_FIRST);
    assert!(things[2]["sha256"].is_null(), "it did not come by whole");
    assert!(session.close().await.unwrap().success());
    let all = daemon.audit().unwrap();
    let of = |name: &str| {
        let records = all.iter().filter(|record| {
            record["lifecycle"]["event"] == "session_fetched" && record["workload"]["name"] == name
        });
        records.count()
    };
    assert_eq!((of("launcher"), of("other")), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_fetched_otherwise_than_last_time_is_a_finding() {
    let place = Place::new();
    let allowed = format!("[{HOST}]");
    // As one asks for a registry's token: what comes is none, and is compared.
    let asked = format!("{FIRST}?scope=repository:x:pull");
    let first = registering(&[place.server("launcher", &allowed, &[&asked, SCRIPT])]);
    place.release("launcher");
    let mut daemon = place.lab.daemon(&first).await.unwrap();
    let start = async |daemon: &Daemon<'_>| {
        let mut session = daemon.run("launcher").unwrap();
        session.initialize().await.unwrap();
        assert!(session.close().await.unwrap().success());
    };
    let ended = async |daemon: &Daemon<'_>, starts: usize| {
        let what = format!("{starts} sessions are over");
        wait_until(&what, LIMIT, || {
            let records = daemon.audit().unwrap();
            let over = records
                .iter()
                .filter(|record| record["lifecycle"]["event"] == "session_ended");
            over.count() == starts
        })
        .await
        .unwrap();
    };
    start(&daemon).await;
    start(&daemon).await;
    ended(&daemon, 2).await;
    assert!(findings(&daemon, "fetched_changed").is_empty());

    // The same version has other bytes, also after the daemon's restart.
    daemon.restart().await.unwrap();
    place.registry.put(FIRST, BYTES, "other");
    start(&daemon).await;
    let changed = daemon
        .record("a change", |record| {
            record["finding"]["what"] == "fetched_changed"
        })
        .await
        .unwrap();
    assert_eq!(changed["kind"], "finding");
    assert_eq!(changed["workload"]["name"], "launcher", "{changed}");
    assert_eq!(
        changed["finding"]["detail"],
        format!(
            "`launcher`: `npm:demo 1.0.0 demo-1.0.0.tgz` has other bytes: sha256 {DIGEST_OTHER}, before {DIGEST_FIRST}"
        )
    );
    start(&daemon).await;
    ended(&daemon, 4).await;
    assert_eq!(findings(&daemon, "fetched_changed").len(), 1, "said once");

    // Another version.
    let second = registering(&[place.server("launcher", &allowed, &[SECOND, SCRIPT])]);
    daemon.put_in_force(&second).await.unwrap();
    start(&daemon).await;
    daemon
        .record("another version", |record| {
            record["finding"]["what"] == "fetched_changed"
                && record["finding"]["detail"]
                    == "`launcher`: `npm:demo 2.0.0 demo-2.0.0.tgz` was not fetched before; before it was 1.0.0"
        })
        .await
        .unwrap();

    // What was kept cannot be read: said, and left as it is.
    let kept = place.lab.directory().join("state/fetched/launcher.json");
    fs::write(&kept, "{").unwrap();
    start(&daemon).await;
    let unknown = daemon
        .record("it cannot be compared", |record| {
            record["finding"]["what"] == "fetched_unknown"
        })
        .await
        .unwrap();
    let detail = unknown["finding"]["detail"].as_str().unwrap();
    assert!(detail.contains(kept.to_str().unwrap()), "{detail}");
    assert_eq!(fs::read_to_string(&kept).unwrap(), "{");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_fetched_that_ends_at_once_is_recorded_and_compared() {
    let place = Place::new();
    let allowed = format!("[{HOST}]");
    let text = registering(&[
        place.server("brief", &allowed, &[FIRST, "!"]),
        place.server("silent", &allowed, &[FIRST]),
    ]);
    let mut daemon = place.lab.daemon(&text).await.unwrap();
    let changed = async |daemon: &Daemon<'_>, server: &str, to: &str, from: &str| {
        let expected = format!(
            "`{server}`: `npm:demo 1.0.0 demo-1.0.0.tgz` has other bytes: sha256 {to}, before {from}"
        );
        daemon
            .record(&expected, |record| record["finding"]["detail"] == expected)
            .await
            .unwrap();
    };
    place.release("brief");
    for (body, digest) in [("first", DIGEST_FIRST), ("other", DIGEST_OTHER)] {
        place.registry.put(FIRST, BYTES, body);
        let mut session = daemon.run("brief").unwrap();
        session.initialize().await.unwrap();
        daemon
            .record("what it fetched", |record| {
                record["lifecycle"]["event"] == "session_fetched"
                    && record["lifecycle"]["fetched"][0]["sha256"] == digest
            })
            .await
            .unwrap();
    }
    changed(&daemon, "brief", DIGEST_OTHER, DIGEST_FIRST).await;

    // The daemon ends while one has said nothing yet: what it fetched is compared before that.
    let line_said = |record: &Value| {
        record["finding"]["what"] == "stdio_violation" && record["workload"]["name"] == "silent"
    };
    for body in ["other", "first"] {
        place.registry.put(FIRST, BYTES, body);
        let before = daemon
            .audit()
            .unwrap()
            .into_iter()
            .filter(line_said)
            .count();
        let _session = daemon.run("silent").unwrap();
        wait_until("it has fetched", LIMIT, || {
            let said = daemon.audit().unwrap().into_iter().filter(line_said);
            said.count() > before
        })
        .await
        .unwrap();
        daemon.stop().await.unwrap();
        daemon.restart().await.unwrap();
    }
    changed(&daemon, "silent", DIGEST_FIRST, DIGEST_OTHER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_more_than_is_compared_one_by_one_is_said_and_compared_together() {
    let place = Place::new();
    let allowed = format!("[{HOST}]");
    let text = registering(&[place.server("launcher", &allowed, &[FIRST, "*4100"])]);
    place.release("launcher");
    let daemon = place.lab.daemon(&text).await.unwrap();
    let start = async |how: &str| {
        let lines = || findings(&daemon, "stdio_violation").len();
        let before = lines();
        let mut session = daemon.run("launcher").unwrap();
        let limit = 4 * LIMIT;
        wait_until("it has fetched", limit, || lines() > before)
            .await
            .unwrap();
        session.initialize().await.unwrap();
        let said = daemon
            .record(how, |record| {
                let detail = record["finding"]["detail"].as_str().unwrap_or_default();
                record["finding"]["what"] == "fetched_beyond" && detail.contains(how)
            })
            .await
            .unwrap();
        assert!(session.close().await.unwrap().success());
        let detail = said["finding"]["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with("`launcher`: 5 things more"), "{detail}");
    };
    start("with which the next start").await;
    start("as before").await;
    assert!(findings(&daemon, "fetched_changed").is_empty());
    // One of those that are not listed.
    place.registry.put("/many/4098", BYTES, "other");
    start("before ").await;
    let changed = findings(&daemon, "fetched_changed");
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert!(
        changed[0].starts_with("`launcher`: all that was fetched has together sha256 "),
        "{changed:?}"
    );
    let records = daemon.audit().unwrap();
    let listed = records
        .iter()
        .filter_map(|record| record["lifecycle"]["fetched"].as_array())
        .map(Vec::len)
        .sum::<usize>();
    assert_eq!(listed, 3 * 4096);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_launcher_that_does_not_speak_has_its_time() {
    let place = Place::new();
    let allowed = format!("[{HOST}]");
    let text = registering(&[place.server("launcher", &allowed, &[FIRST])]);
    let settings = "limits: { fetch_deadline: 8s }";
    let daemon = place.lab.daemon_with(&text, settings).await.unwrap();
    let mut session = daemon.run("launcher").unwrap();
    let record = fetched(&daemon, "launcher").await;
    assert_eq!(record["lifecycle"]["detail"], "its time was up", "{record}");
    let things = record["lifecycle"]["fetched"].as_array().unwrap();
    assert_eq!(things.len(), 1, "{record}");
    place.release("launcher");
    session.initialize().await.unwrap();
    for tool in ["kept", "name", "address"] {
        let said = asked(&mut session, tool).await;
        assert!(said["error"].is_string(), "{tool}: {said}");
    }
    assert!(session.close().await.unwrap().success());
}

/// A server in a package, for npx: its one tool says what became of fetching again.
const PACKAGED: &str = r#"#!/usr/bin/env node
const lines = require("readline").createInterface({ input: process.stdin });
lines.on("line", async (line) => {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) return;
  let result = { protocolVersion: params.protocolVersion, capabilities: { tools: {} }, serverInfo: { name: "demo", version: "1.0.0" } };
  if (method !== "initialize") {
    const again = await fetch("https://packages.lab.example/demo").then((answer) => `status ${answer.status}`, (error) => `${error.cause?.code}`);
    result = { content: [{ type: "text", text: JSON.stringify(again) }] };
  }
  console.log(JSON.stringify({ jsonrpc: "2.0", id, result }));
});
"#;

/// The package of [`PACKAGED`] as npm's registry has it.
fn publish(place: &Place) -> Vec<u8> {
    let directory = place.lab.directory().join("npm");
    let package = directory.join("package");
    fs::create_dir_all(&package).unwrap();
    let manifest = json!({ "name": "demo", "version": "1.0.0", "bin": { "demo": "demo.js" } });
    fs::write(package.join("package.json"), manifest.to_string()).unwrap();
    fs::write(package.join("demo.js"), PACKAGED).unwrap();
    let tarball = directory.join("demo.tgz");
    let of = [
        Path::new("-czf"),
        &tarball,
        Path::new("-C"),
        &directory,
        Path::new("package"),
    ];
    must("tar", &of).unwrap();
    let bytes = fs::read(&tarball).unwrap();
    let mut version = manifest;
    version["dist"] = json!({ "tarball": format!("https://{HOST}{FIRST}") });
    let list = json!({
        "name": "demo",
        "dist-tags": { "latest": "1.0.0" },
        "versions": { "1.0.0": version },
    });
    let kind = "application/vnd.npm.install-v1+json";
    place.registry.put("/demo", kind, list.to_string());
    place.registry.put(FIRST, BYTES, bytes.clone());
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn npx_starts_a_server_from_its_registry() {
    let place = Place::new();
    let bytes = publish(&place);
    let home = place.home("npx");
    let server = format!(
        "  npx:
    purpose: a package
    owner: tests@lab.example
    launch:
      command: npx
      args: [--yes, --registry, \"https://{HOST}\", demo@1.0.0]
      user: nobody
      env: {{ HOME: {} }}
      fetch: [{HOST}]
",
        home.display()
    );
    let daemon = place.lab.daemon(&registering(&[server])).await.unwrap();
    let mut session = daemon.run("npx").unwrap();
    session.initialize().await.unwrap();
    let record = fetched(&daemon, "npx").await;
    let things = record["lifecycle"]["fetched"].as_array().unwrap();
    let of = |path: &str| {
        let found = things.iter().find(|thing| thing["path"] == path);
        found.unwrap_or_else(|| panic!("{path}: {record}"))
    };
    let list = of("/demo");
    assert_eq!(list["package"], "npm:demo", "{record}");
    assert!(list["version"].is_null(), "{record}");
    let tarball = of(FIRST);
    assert_eq!(tarball["version"], "1.0.0", "{record}");
    assert_eq!(tarball["bytes"], bytes.len(), "{record}");
    let sum = must("sha256sum", &[place.lab.directory().join("npm/demo.tgz")]).unwrap();
    let sha256 = tarball["sha256"].as_str().unwrap();
    assert!(sum.starts_with(sha256), "{sum}: {record}");
    place.registry.forget();
    assert_eq!(asked(&mut session, "again").await, "ENOTFOUND");
    assert_eq!(place.registry.seen().len(), 0);
}

const WHEEL: &str = "/packages/demo-1.0.0-py3-none-any.whl";
const LISTING: &str = "/simple/demo/";

/// A Python package as an index has it; its file.
fn index(place: &Place) -> PathBuf {
    let directory = place.lab.directory();
    let maker = directory.join("wheel.py");
    fs::write(&maker, include_str!("clients/wheel.py")).unwrap();
    must("/usr/bin/python3", &[maker.as_path(), directory]).unwrap();
    let wheel = directory.join("demo-1.0.0-py3-none-any.whl");
    let file = "demo-1.0.0-py3-none-any.whl";
    let page = format!(
        "<!DOCTYPE html><html><body><a href=\"https://{HOST}{WHEEL}\">{file}</a></body></html>"
    );
    place.registry.put(LISTING, "text/html", page);
    place.registry.put(WHEEL, BYTES, fs::read(&wheel).unwrap());
    wheel
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uvx_and_pipx_start_a_server_from_their_index() {
    let place = Place::new();
    let wheel = index(&place);
    let sum = must("sha256sum", &[&wheel]).unwrap();
    let digest = sum.split_whitespace().next().unwrap();
    let simple = format!("https://{HOST}/simple");
    let uvx = format!(
        "[--default-index, \"{simple}\", --python, /usr/bin/python3, --no-python-downloads, demo@1.0.0]"
    );
    let pipx = format!("[run, --index-url, \"{simple}\", demo==1.0.0]");
    let fixtures = Fixtures::find().unwrap();
    let server = |name: &str, arguments: &str| {
        let home = place.home(name);
        format!(
            "  {name}:
    purpose: a package
    owner: tests@lab.example
    launch:
      command: {}
      args: {arguments}
      user: nobody
      env: {{ HOME: {} }}
      fetch: [{HOST}]
",
            fixtures.launcher(name).display(),
            home.display()
        )
    };
    let servers = [server("uvx", &uvx), server("pipx", &pipx)];
    let daemon = place.lab.daemon(&registering(&servers)).await.unwrap();
    for name in ["uvx", "pipx"] {
        place.registry.forget();
        let mut session = daemon.run(name).unwrap();
        if let Err(error) = session.initialize().await {
            let log = place.lab.directory().join(format!("run-{name}.err"));
            panic!("{error:#}: {}", fs::read_to_string(log).unwrap());
        }
        let record = fetched(&daemon, name).await;
        let things = record["lifecycle"]["fetched"].as_array().unwrap();
        let of = |path: &str| {
            let found = things.iter().find(|thing| thing["path"] == path);
            found.unwrap_or_else(|| panic!("{path}: {record}"))
        };
        let list = of(LISTING);
        assert_eq!(list["package"], "pypi:demo", "{record}");
        assert!(list["version"].is_null(), "{record}");
        let file = of(WHEEL);
        assert_eq!(file["package"], "pypi:demo", "{record}");
        assert_eq!(file["version"], "1.0.0", "{record}");
        assert_eq!(file["sha256"], digest, "{record}");
        place.registry.forget();
        assert_eq!(asked(&mut session, "again").await, "gaierror", "{name}");
        assert_eq!(place.registry.seen().len(), 0, "{name}");
        assert!(session.close().await.unwrap().success(), "{name}");
    }
}
