//! A server that something else started, as a test sees it: in its cgroup, with whoever calls it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use exeat_tests::Lab;
use exeat_tests::cgroup::Cgroup;
use exeat_tests::process::{Finished, Process, run};
use serde_json::{Value, json};

use crate::place::LIMIT;

const SERVER: &str = include_str!("clients/plain.py");

/// A fake server in a cgroup of its own, and a cgroup for a host.
pub(crate) struct Serving {
    pub(crate) server: Cgroup,
    pub(crate) host: Cgroup,
    process: Option<Process>,
    log: PathBuf,
}

/// What a caller was told: curl's exit status, the HTTP status and the body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) exit: i32,
    pub(crate) status: String,
    pub(crate) body: String,
}

impl Told {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    fn of(done: &Finished) -> Self {
        let (body, status) = done.stdout.rsplit_once('\n').unwrap_or(("", "000"));
        Self {
            exit: done.status.code().unwrap_or(-1),
            status: status.to_owned(),
            body: body.to_owned(),
        }
    }
}

impl Serving {
    pub(crate) fn new(lab: &Lab) -> Self {
        Self {
            server: Cgroup::create(&format!("{}-server", lab.name())).unwrap(),
            host: Cgroup::create(&format!("{}-host", lab.name())).unwrap(),
            process: None,
            log: lab.directory().join("requests"),
        }
    }

    /// A policy that knows the server, a host, and whom `rules` name; root is `staff`, bin is `guest`.
    pub(crate) fn policy(&self, listen: &str, rules: &str, egress: &str) -> String {
        let name = |cgroup: &Cgroup| {
            let name = cgroup.path().file_name().unwrap();
            name.to_str().unwrap().to_owned()
        };
        format!(
            "version: 1
servers:
  notes:
    purpose: whatever a test runs
    owner: tests@lab.example
    listen: {listen}
    match: {{ cgroup: /{} }}
    egress: [{egress}]
hosts: {{ agent: {{ match: {{ cgroup: /{} }}, servers: [notes] }} }}
identities: {{ staff: {{ user: root }}, guest: {{ user: bin }} }}
rules: [{rules}]
",
            name(&self.server),
            name(&self.host)
        )
    }

    /// Starts the fake server.
    pub(crate) async fn start(&mut self, lab: &Lab, address: &str, port: u16) {
        let mut command = self.server.launcher(lab.inside.command("env"));
        command
            .args(["/usr/bin/python3", "-c", SERVER, address])
            .arg(port.to_string())
            .arg(&self.log);
        let mut process = Process::start("plain", lab.directory(), &mut command).unwrap();
        process.ready(Duration::from_secs(20)).await.unwrap();
        self.process = Some(process);
    }

    /// The requests that reached the server, one a line.
    pub(crate) fn requests(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// A process of the host.
    pub(crate) fn hosted(&self, lab: &Lab) -> Command {
        self.host.launcher(lab.inside.command("env"))
    }
}

/// A process in no workload, of this user.
pub(crate) fn user(lab: &Lab, user: &str) -> Command {
    let mut command = lab.inside.command("setpriv");
    command.args(["--reuid", user, "--clear-groups", "--", "env"]);
    command
}

/// curl with these arguments.
pub(crate) async fn curl(mut launcher: Command, arguments: &[&str]) -> Told {
    launcher.args([
        "curl",
        "--silent",
        "--insecure",
        "--max-time",
        "20",
        "--write-out",
        "\n%{http_code}",
    ]);
    Told::of(&run(launcher.args(arguments), LIMIT).await.unwrap())
}

/// A call of the tool `work` with these arguments.
pub(crate) async fn call(launcher: Command, url: &str, arguments: Value) -> Told {
    let params = json!({ "name": "work", "arguments": arguments });
    let message = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params });
    let text = message.to_string();
    let headers = [
        "--header",
        "content-type: application/json",
        "--header",
        "accept: application/json, text/event-stream",
        "--data",
    ];
    curl(launcher, &[&headers[..], &[&text, url]].concat()).await
}
