//! What the tests share: a lab with its daemon, programs under `exeat run`, and bytes that no library would send.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use exeat_tests::Lab;
use exeat_tests::cgroup::Cgroup;
use exeat_tests::daemon::Daemon;
use exeat_tests::fixtures::Fixtures;
use exeat_tests::process::{Finished, Process, must};
use exeat_tests::stdio::Session;
use serde_json::Value;

/// How long a program under `exeat run` may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(40);

/// The name of the server that the tests run as.
pub(crate) const DEMO: &str = "demo";

/// Sends bytes as they are and prints what comes back as one line of JSON.
pub(crate) const RAW: &str = include_str!("clients/raw.py");

/// A policy whose server `demo` is a shell with this egress: one YAML flow entry a line.
pub(crate) fn policy(egress: &[&str]) -> String {
    let mut text = "version: 1
identities: { tester: { user: root } }
rules: [{ id: start, who: [tester], servers: [demo], tools: [\"*\"], effect: allow }]
servers:
  demo:
    purpose: whatever a test runs
    owner: tests@lab.example
    launch: { command: /usr/bin/env, extra_args: ['*'], user: nobody }
    egress:"
        .to_owned();
    if egress.is_empty() {
        text.push_str(" []");
    }
    for entry in egress {
        text.push_str("\n      - ");
        text.push_str(entry);
    }
    text.push('\n');
    text
}

/// A policy with these servers, as YAML's entries of the register: root may start and use them.
pub(crate) fn registering(servers: &[String]) -> String {
    format!(
        "version: 1
identities: {{ tester: {{ user: root }} }}
rules: [{{ id: all, who: [tester], tools: [\"*\"], effect: allow }}]
servers:
{}",
        servers.concat()
    )
}

/// `exeat run demo -- PROGRAM ARGUMENTS`, for a program that speaks MCP.
pub(crate) fn command<S: AsRef<OsStr>>(lab: &Lab, program: &[S]) -> Command {
    let mut command = lab.exeat(&["run", DEMO]).unwrap();
    command.arg("--").args(program);
    command
}

/// Runs a program under `exeat run` to its end.
pub(crate) async fn managed<S: AsRef<OsStr>>(lab: &Lab, program: &[S]) -> Finished {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("managed-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let mut process = start(lab, &name, program);
    let status = process.wait(LIMIT).await.unwrap();
    Finished {
        status,
        stdout: process.stdout(),
        stderr: process.stderr(),
    }
}

/// Starts a program under `exeat run`. What it prints is no MCP, so it goes to the log by itself. Its session
/// lasts as long as its streams do: the first is held by the process here, the second by the program.
pub(crate) fn start<S: AsRef<OsStr>>(lab: &Lab, name: &str, program: &[S]) -> Process {
    let log = lab.directory().join(format!("{name}.out"));
    fs::write(&log, "").unwrap();
    must("chmod", &[Path::new("666"), log.as_path()]).unwrap();
    let mut command = command(lab, &["sh", "-c", r#"exec "$@" 3>&1 >>"$0""#]);
    command.arg(log).args(program).stdin(Stdio::piped());
    Process::start(name, lab.directory(), &mut command).unwrap()
}

/// The policy of [`policy`] for a server that somebody else starts, in this cgroup.
pub(crate) fn foreign_policy(cgroup: &str, egress: &[&str]) -> String {
    let place = format!("listen: 127.0.0.1:3001\n    match: {{ cgroup: /{cgroup} }}");
    policy(egress).replace(
        "launch: { command: /usr/bin/env, extra_args: ['*'], user: nobody }",
        &place,
    )
}

/// Starts a program in `cgroup`, as nobody, with the trust that `exeat run` would have given it.
pub(crate) fn foreign(lab: &Lab, cgroup: &Cgroup, name: &str, program: &[&str]) -> Process {
    let bundle = lab.directory().join("run/trust/ca-bundle.pem");
    let mut command = cgroup.launcher(lab.inside.command("env"));
    command
        .args([
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ])
        .args(program)
        .env("CURL_CA_BUNDLE", bundle)
        .stdin(Stdio::null());
    Process::start(name, lab.directory(), &mut command).unwrap()
}

/// What curl was told.
#[derive(Debug)]
pub(crate) struct Told {
    /// curl's own exit status.
    pub(crate) exit: i32,
    /// The status, 0 without an answer.
    pub(crate) status: u16,
    /// The body.
    pub(crate) body: String,
    /// What it wrote to standard error.
    pub(crate) error: String,
}

impl Told {
    /// The refusal's code in the body.
    pub(crate) fn code(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

/// Runs curl under `exeat run`.
pub(crate) async fn curl(lab: &Lab, arguments: &[&str]) -> Told {
    let mut all = vec![
        "curl",
        "--silent",
        "--show-error",
        "--max-time",
        "25",
        "--write-out",
        "\n%{http_code}",
    ];
    all.extend_from_slice(arguments);
    let done = managed(lab, &all).await;
    let (body, status) = done.stdout.rsplit_once('\n').unwrap_or(("", "0"));
    Told {
        exit: done.status.code().unwrap_or(-1),
        status: status.parse().unwrap_or_default(),
        body: body.to_owned(),
        error: done.stderr,
    }
}

/// One raw exchange, as [`RAW`] takes it.
pub(crate) async fn raw(lab: &Lab, options: Value) -> Value {
    let python = Fixtures::find().unwrap().python(2);
    let program = [
        python.as_os_str(),
        OsStr::new("-c"),
        OsStr::new(RAW),
        OsStr::new(&options.to_string()),
    ]
    .map(OsStr::to_os_string);
    let done = managed(lab, &program).await;
    done.json().unwrap()
}

/// Calls a tool that answers with a text; that text.
pub(crate) async fn told(session: &mut Session, tool: &str, arguments: Value) -> String {
    let answer = session.call(tool, arguments).await.unwrap();
    let text = answer["result"]["content"][0]["text"].as_str();
    text.unwrap_or_else(|| panic!("{tool}: {answer}"))
        .to_owned()
}

/// The one `http` record whose path is `path`.
pub(crate) async fn exchange(daemon: &Daemon<'_>, path: &str) -> Value {
    let what = format!("a record of {path}");
    daemon
        .record(&what, |record| record["http"]["path"] == path)
        .await
        .unwrap()
}
