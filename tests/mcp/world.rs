//! A managed host in a lab, and the MCP servers that it may reach.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use exeat_tests::Lab;
use exeat_tests::authority::Fault;
use exeat_tests::cgroup::Cgroup;
use exeat_tests::daemon::Daemon;
use exeat_tests::fixtures::Invocation;
use exeat_tests::lab::WORLD;
use exeat_tests::process::{Finished, Process, run};
use exeat_tests::wait::wait_until;
use serde_json::Value;

/// How long anything may take.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

/// The server of the world.
pub(crate) const NAME: &str = "mcp.lab.example";
pub(crate) const URL: &str = "https://mcp.lab.example/mcp";

/// What the host may do where a test is not about rules.
pub(crate) const ALL: &str = r#"rules: [{ id: everything, methods: ["*"], effect: allow }]"#;

/// A daemon and the cgroup of one host.
pub(crate) struct World<'lab> {
    pub(crate) lab: &'lab Lab,
    pub(crate) daemon: Daemon<'lab>,
    pub(crate) cgroup: Cgroup,
}

impl<'lab> World<'lab> {
    /// A daemon whose host `agent` may use `servers` (name and URL) as `rest` of the policy says.
    pub(crate) async fn new(
        lab: &'lab Lab,
        servers: &[(&str, &str)],
        rest: &str,
    ) -> Result<World<'lab>> {
        Self::with(lab, servers, "[]", rest).await
    }

    /// The same with an egress list.
    pub(crate) async fn with(
        lab: &'lab Lab,
        servers: &[(&str, &str)],
        egress: &str,
        rest: &str,
    ) -> Result<World<'lab>> {
        Self::settled(lab, servers, egress, rest, "").await
    }

    /// The same with further settings, as text at the end of `exeat.yaml`.
    pub(crate) async fn settled(
        lab: &'lab Lab,
        servers: &[(&str, &str)],
        egress: &str,
        rest: &str,
        settings: &str,
    ) -> Result<World<'lab>> {
        let name = format!("{}host", lab.name());
        let cgroup = Cgroup::create(&name)?;
        let policy = policy(&name, servers, egress, rest);
        let daemon = lab.daemon_with(&policy, settings).await?;
        Ok(World {
            lab,
            daemon,
            cgroup,
        })
    }

    /// Puts another policy in force.
    pub(crate) fn replace(&self, servers: &[(&str, &str)], egress: &str, rest: &str) -> Result<()> {
        let name = format!("{}host", self.lab.name());
        self.daemon
            .replace_policy(&policy(&name, servers, egress, rest))
    }

    /// A launcher for programs of the host: managed before their first instruction.
    pub(crate) fn managed(&self) -> Command {
        self.cgroup.launcher(self.lab.direct())
    }

    /// The roots that a managed program needs: the daemon's.
    pub(crate) fn trust(&self) -> PathBuf {
        self.lab.directory().join("state/ca.pem")
    }

    /// Runs `program` as the host.
    pub(crate) async fn run(&self, program: &Invocation) -> Result<Finished> {
        run(&mut program.under(self.managed()), LIMIT).await
    }
}

fn policy(cgroup: &str, servers: &[(&str, &str)], egress: &str, rest: &str) -> String {
    let entry = |(name, url): &(&str, &str)| {
        format!("  {name}: {{ purpose: test, owner: lab, url: \"{url}\" }}")
    };
    let register: Vec<String> = servers.iter().map(entry).collect();
    let names: Vec<&str> = servers.iter().map(|(name, _)| *name).collect();
    let names = names.join(", ");
    format!(
        "version: 1
servers:
{}
hosts: {{ agent: {{ match: {{ cgroup: /{cgroup} }}, servers: [{names}], egress: {egress} }} }}
{rest}
",
        register.join("\n")
    )
}

/// Starts `server` (one of the project's) in the world as `https://NAME/mcp`.
pub(crate) async fn far(lab: &Lab, server: Invocation) -> Result<Process> {
    let leaf = lab.authority.leaf(&[NAME], Fault::Sound)?;
    leaf.write(lab.directory(), "mcp")?;
    lab.dns.points(NAME, &[WORLD]);
    let server = server
        .arg("--host")
        .arg(WORLD.to_string())
        .args(["--port", "443", "--cert"])
        .arg(lab.directory().join("mcp.pem"))
        .arg("--key")
        .arg(lab.directory().join("mcp.key"));
    started(lab, &mut server.under(lab.abroad())).await
}

/// Starts `server` (one of the project's) on loopback inside, as `http://localhost:PORT/mcp`.
pub(crate) async fn near(lab: &Lab, server: Invocation, port: u16) -> Result<Process> {
    let server = server.args(["--port"]).arg(port.to_string());
    started(lab, &mut server.under(lab.inside.command("env"))).await
}

async fn started(lab: &Lab, command: &mut Command) -> Result<Process> {
    let mut process = Process::start("server", lab.directory(), command.stdin(Stdio::null()))?;
    process.ready(LIMIT).await?;
    Ok(process)
}

/// Starts npm's server-everything on loopback inside; `way` is its transport.
pub(crate) async fn reference(
    lab: &Lab,
    server: Invocation,
    way: &str,
    port: u16,
) -> Result<Process> {
    let server = server.arg(way).variable("PORT", port.to_string());
    let mut command = server.under(lab.inside.command("env"));
    let process = Process::start("reference", lab.directory(), command.stdin(Stdio::null()))?;
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    wait_until("server-everything listens", LIMIT, || {
        lab.inside.connect(address).is_ok()
    })
    .await
    .with_context(|| process.report())?;
    Ok(process)
}

/// The second of its day that a point in time falls into.
pub(crate) fn second(time: &Value) -> i64 {
    let (_, time) = time.as_str().unwrap().split_once('T').unwrap();
    let parts = time.get(..8).unwrap().split(':');
    parts.fold(0, |sum, part| sum * 60 + part.parse::<i64>().unwrap())
}
