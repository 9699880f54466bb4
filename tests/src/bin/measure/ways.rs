//! The ways to the upstream, and the client that goes them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use exeat_tests::Lab;
use exeat_tests::authority::Fault;
use exeat_tests::cgroup::{self, Cgroup};
use exeat_tests::daemon::Daemon;
use exeat_tests::lab::WORLD;
use exeat_tests::process::Process;
use exeat_tests::rivals;
use exeat_tests::wait::wait_until;

use crate::Arguments;
use crate::decision::rules;
use crate::machine::{Core, Cores};

/// The upstream's name.
pub(crate) const NAME: &str = "mcp.lab.example";
/// Time for a proxy to come up.
const START: Duration = Duration::from_secs(30);
/// Rules of the policy.
const RULES: usize = 100;

/// A way to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// Nothing between.
    Direct,
    /// HAProxy, which decrypts, looks at nothing and encrypts again.
    Haproxy,
    /// mitmproxy without add-ons.
    Mitmproxy,
    /// Exeat: redirected by the kernel, decoded, decided, recorded on the disk.
    Exeat,
}

impl Way {
    pub(crate) const ALL: [Self; 4] = [Self::Direct, Self::Haproxy, Self::Mitmproxy, Self::Exeat];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Haproxy => "haproxy",
            Self::Mitmproxy => "mitmproxy",
            Self::Exeat => "exeat",
        }
    }
}

/// Where it all takes place: a lab, and the upstream in its world.
pub(crate) struct Site {
    pub(crate) lab: Lab,
    pub(crate) cores: Cores,
    load: PathBuf,
}

/// A way that is open.
pub(crate) struct Open<'site> {
    site: &'site Site,
    way: Way,
    /// Beside the certificate of the upstream, what the client trusts.
    roots: PathBuf,
    connect: Option<SocketAddr>,
    processes: Vec<u32>,
    // In this order: the client's cgroup goes first.
    cgroup: Option<Cgroup>,
    proxy: Option<Process>,
    daemon: Option<Daemon<'site>>,
    _upstream: Process,
}

impl Site {
    pub(crate) fn new(cores: Cores) -> Result<Self> {
        let lab = Lab::new()?;
        let own = std::env::current_exe().context("find this program")?;
        let load = own.with_file_name("load");
        lab.authority
            .leaf(&[NAME], Fault::Sound)?
            .write(lab.directory(), "upstream")?;
        lab.dns.points(NAME, &[WORLD]);
        Ok(Self { lab, cores, load })
    }

    /// Opens `way`, with an upstream of its own.
    pub(crate) async fn open(&self, arguments: &Arguments, way: Way) -> Result<Open<'_>> {
        let directory = self.lab.directory();
        let upstream = self.upstream().await?;
        let mut open = Open {
            site: self,
            way,
            roots: directory.join("world-ca.pem"),
            connect: Some(SocketAddr::new(WORLD, 443)),
            processes: Vec::new(),
            cgroup: None,
            proxy: None,
            daemon: None,
            _upstream: upstream,
        };
        match way {
            Way::Direct => {}
            Way::Haproxy | Way::Mitmproxy => self.rival(arguments, &mut open).await?,
            Way::Exeat => {
                let cgroup = Cgroup::create(&format!("{}-client", self.lab.name()))?;
                let policy = policy(cgroup.path())?;
                let daemon = self
                    .cores
                    .on(Core::Middle, self.lab.daemon_with(&policy, LIMITS));
                let daemon = daemon.await?;
                open.processes = vec![daemon.pid(), self.lab.gate()?];
                open.cgroup = Some(cgroup);
                open.connect = None;
                open.roots = directory.join("state/ca/ca.pem");
                if !open.roots.exists() {
                    open.roots = find(&directory.join("state"), "ca.pem")
                        .context("find Exeat's authority")?;
                }
                open.daemon = Some(daemon);
            }
        }
        Ok(open)
    }

    async fn upstream(&self) -> Result<Process> {
        let directory = self.lab.directory();
        let mut command = self.lab.outside.command(&self.load);
        command
            .args([
                "upstream",
                "--listen",
                &SocketAddr::new(WORLD, 443).to_string(),
            ])
            .arg("--cert")
            .arg(directory.join("upstream.pem"))
            .arg("--key")
            .arg(directory.join("upstream.key"));
        let start = async {
            let mut process = Process::start("upstream", directory, &mut command)?;
            process.ready(START).await?;
            Ok(process)
        };
        self.cores.on(Core::Load, start).await
    }

    async fn rival(&self, arguments: &Arguments, open: &mut Open<'_>) -> Result<()> {
        let listen = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8443);
        let directory = self.lab.directory();
        let told = rivals::Way {
            name: NAME,
            listen,
            upstream: SocketAddr::new(WORLD, 443),
            threads: 1,
            directory,
        };
        let launcher = self.lab.inside.command("env");
        let authority = &self.lab.authority;
        let mut command = if open.way == Way::Haproxy {
            told.haproxy(authority, &arguments.haproxy, launcher)?
        } else {
            let program = arguments.mitmdump.as_deref();
            told.mitmproxy(authority, program.context("find mitmdump")?, launcher)?
        };
        let start = async { Process::start(open.way.name(), directory, &mut command) };
        let mut process = self.cores.on(Core::Middle, start).await?;
        let what = format!("{} listens", open.way.name());
        wait_until(&what, START, || {
            self.lab
                .inside
                .within(|| Ok(std::net::TcpStream::connect(listen)?))
                .is_ok()
        })
        .await
        .with_context(|| process.report())?;
        anyhow::ensure!(process.ended()?.is_none(), "{}", process.report());
        open.processes = vec![process.pid()];
        open.connect = Some(listen);
        open.proxy = Some(process);
        Ok(())
    }

    /// Where `load` is.
    pub(crate) fn program(&self) -> &Path {
        &self.load
    }

    /// `load ARGUMENTS` inside, where `cgroup` says.
    pub(crate) fn load(&self, cgroup: Option<&Cgroup>) -> Command {
        let mut command = self.lab.inside.command("env");
        if let Some(cgroup) = cgroup {
            command = cgroup.launcher(command);
        }
        command.arg(&self.load);
        command
    }
}

impl Open<'_> {
    /// The client with `arguments`, on its core.
    pub(crate) async fn client(&self, kind: &str, arguments: &[&str]) -> Result<Process> {
        let mut command = self.site.load(self.cgroup.as_ref());
        command.arg(kind);
        command.args(["--url", &format!("https://{NAME}/mcp")]);
        command.arg("--ca").arg(&self.roots);
        if let Some(address) = self.connect {
            command.args(["--connect", &address.to_string()]);
        }
        for process in &self.processes {
            command.args(["--watch", &process.to_string()]);
        }
        command.args(arguments);
        let start = async { Process::start("load", self.site.lab.directory(), &mut command) };
        self.site.cores.on(Core::Load, start).await
    }

    /// The processes in the middle.
    pub(crate) fn processes(&self) -> &[u32] {
        &self.processes
    }
}

/// One workload is all the load there is.
pub(crate) const LIMITS: &str = "limits: { connections_per_workload: 8192 }\n";

fn policy(cgroup: &Path) -> Result<String> {
    Ok(format!(
        "version: 1
servers:
  mcp: {{ url: \"https://{NAME}/mcp\" }}
hosts:
  load: {{ match: {{ cgroup: {} }}, servers: [mcp] }}
{}",
        below(cgroup)?,
        rules(RULES, |_| ("load".to_owned(), "mcp".to_owned()))
    ))
}

/// The path of a cgroup as a policy writes it.
pub(crate) fn below(cgroup: &Path) -> Result<String> {
    let mount = cgroup::mount()?;
    let path = cgroup
        .strip_prefix(&mount)
        .context("find a cgroup below its mount")?;
    Ok(format!("/{}", path.display()))
}

fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    fs::read_dir(directory)
        .ok()?
        .filter_map(Result::ok)
        .find_map(|entry| {
            let path = entry.path();
            if path.is_dir() {
                return find(&path, name);
            }
            (path.file_name()? == name).then_some(path)
        })
}
