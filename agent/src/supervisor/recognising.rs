//! Which processes of a host are MCP servers that it started without Exeat.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use exeat_policy::PolicySet;

use crate::channel::{Process, Workload};
use crate::hosts::{Extent, Package, Ran, Started};

/// By what a process is known for an MCP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// It is what the register starts under this name.
    Registered(String),
    /// A host's configuration file starts it.
    Configured,
    /// Its name says so.
    Named,
    /// It is called as Exeat and is not.
    Posing,
    /// Whether it is one could not be found out in time.
    Unjudged,
}

impl Why {
    /// For people.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Registered(server) => {
                format!(
                    "it is what the register starts as `{server}`, and was started without `exeat run`"
                )
            }
            Self::Configured => "a host's configuration file starts it".into(),
            Self::Named => "its name says that it is an MCP server".into(),
            Self::Posing => "it is called `exeat` and is another program".into(),
            Self::Unjudged => "whether it is an MCP server could not be found out in time".into(),
        }
    }
}

/// What processes of one host are compared with.
#[derive(Debug)]
pub(super) struct Known {
    registered: Vec<(String, Started)>,
    /// What the host itself runs: its executable and its arguments.
    host: (String, Vec<String>),
    /// Device and inode of this executable, and of what took its place.
    own: Vec<(u64, u64)>,
}

impl Known {
    /// As the policy is now.
    pub(super) fn new(set: &PolicySet, host: &Workload) -> Self {
        let registered = set.servers().filter_map(|server| {
            let launch = server.launch()?;
            let started = Started {
                command: launch.command.clone(),
                args: launch.args.clone(),
            };
            Some((server.name.to_string(), started))
        });
        Self {
            registered: registered.collect(),
            host: (host.exe.to_string_lossy().into_owned(), host.args.clone()),
            own: own(),
        }
    }

    /// What a process is by itself, without any configuration. Blocks on the disk.
    pub(super) fn look(&self, process: &Process, package: &Package) -> Option<Why> {
        let ran = ran(process, package);
        let mut registered = self.registered.iter();
        if let Some((name, _)) = registered.find(|(_, what)| what.is(ran, Extent::Beginning)) {
            return Some(Why::Registered(name.clone()));
        }
        if is_called_exeat(&process.args) {
            return Some(Why::Posing);
        }
        // A host may be called as its servers are, and run helpers of its own.
        (package.is_mcp() && !self.is_host(package)).then_some(Why::Named)
    }

    fn is_host(&self, package: &Package) -> bool {
        let (exe, args) = &self.host;
        !exe.is_empty() && Package::running(exe, args, Path::new("/")) == *package
    }

    /// Whether a process is Exeat itself: the same file, whatever path leads there.
    pub(super) fn is_own(&self, pid: u32) -> bool {
        identity(Path::new(&format!("/proc/{pid}/exe"))).is_some_and(|it| self.own.contains(&it))
    }
}

/// Whether a configuration file starts it.
pub(super) fn is_configured(process: &Process, package: &Package, entries: &[Started]) -> bool {
    let ran = ran(process, package);
    entries.iter().any(|entry| entry.is(ran, Extent::Whole))
}

fn ran<'a>(process: &'a Process, package: &'a Package) -> Ran<'a> {
    Ran {
        exe: &process.exe,
        args: &process.args,
        package,
    }
}

/// `exeat run NAME`, which a configuration may say of any file of this name.
fn is_called_exeat(args: &[String]) -> bool {
    let called = |arg: &String| {
        Path::new(arg)
            .file_name()
            .is_some_and(|name| name == "exeat")
    };
    let at = args.iter().take(3).position(called);
    at.is_some_and(|at| args.iter().skip(at).any(|arg| arg == "run"))
}

fn own() -> Vec<(u64, u64)> {
    let link = Path::new("/proc/self/exe");
    let path = fs::read_link(link).unwrap_or_default();
    let path = path.to_string_lossy();
    let replaced = path.strip_suffix(" (deleted)").unwrap_or(&path);
    let files = [link, Path::new(replaced)];
    files.into_iter().filter_map(identity).collect()
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Whether standard input and output are pipes or sockets, as a stdio server's are.
pub(super) fn is_piped(pid: u32) -> bool {
    ["0", "1"].iter().all(|number| {
        let target = fs::read_link(format!("/proc/{pid}/fd/{number}"));
        target.is_ok_and(|target| {
            let target = target.as_os_str().as_bytes();
            target.starts_with(b"pipe:") || target.starts_with(b"socket:") || is_fifo(pid, number)
        })
    })
}

/// A pipe may have a name.
fn is_fifo(pid: u32, number: &str) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    fs::metadata(format!("/proc/{pid}/fd/{number}")).is_ok_and(|of| of.file_type().is_fifo())
}

/// Whether a process is stopped (state T of `proc_pid_stat(5)`).
pub(super) fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| rest.starts_with(" T"))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::channel::Kind;

    fn known(exe: &str, args: &[&str]) -> Known {
        let policy = "version: 1
servers:
  notes: { launch: { command: notes, args: [--db, x] } }
  shell: { launch: { command: /usr/bin/env } }
";
        let source = exeat_policy::Source {
            name: "p.yaml".into(),
            text: policy.into(),
        };
        let set = exeat_policy::compile(&[source]).unwrap();
        let host = Workload {
            number: 1,
            name: "agent".into(),
            kind: Kind::Host,
            cgroup: "/w/agent-1".into(),
            cgroup_id: 1,
            pid: None,
            uid: 1000,
            exe: exe.into(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            started_by: None,
            placeholders: Vec::new(),
        };
        Known::new(&set, &host)
    }

    fn look(known: &Known, exe: &str, args: &[&str]) -> Option<Why> {
        let process = Process {
            workload: 1,
            pid: 1,
            parent: 1,
            started: 1,
            uid: 1000,
            exe: exe.into(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            sha256: None,
        };
        let package = Package::running(exe, &process.args, Path::new("/"));
        known.look(&process, &package)
    }

    #[test]
    fn servers_are_told_from_what_hosts_start_beside_them() {
        let known = known("/opt/mcp-desk/mcp-desk", &["mcp-desk"]);
        let notes = || Some(Why::Registered("notes".into()));
        for (exe, args, why) in [
            ("/opt/notes", &["notes", "--db", "x"][..], notes()),
            ("/opt/notes", &["git", "--db", "x", "--more"], notes()),
            ("/opt/notes", &["notes", "--db", "y"], None),
            ("/opt/weather-mcp", &["x"], Some(Why::Named)),
            (
                "/usr/bin/node",
                &["node", "/x/node_modules/@a/mcp/i.js"],
                Some(Why::Named),
            ),
            (
                "/usr/bin/python3.11",
                &["python3", "-m", "mcp_server_git"],
                Some(Why::Named),
            ),
            ("/tmp/exeat", &["exeat", "run", "notes"], Some(Why::Posing)),
            (
                "/usr/bin/dash",
                &["/bin/sh", "/tmp/exeat", "run", "x"],
                Some(Why::Posing),
            ),
            ("/opt/exeat", &["exeat", "status"], None),
            ("/usr/bin/git", &["git", "status"], None),
            ("/usr/bin/rg", &["rg", "mcp"], None),
            ("/usr/bin/env", &["env", "ls"], None),
            ("/usr/bin/dash", &["sh", "-c", "ls | wc"], None),
            // The host's own helper.
            ("/opt/mcp-desk/mcp-desk", &["mcp-desk", "--type=gpu"], None),
        ] {
            assert_eq!(look(&known, exe, args), why, "{exe} {args:?}");
        }
    }

    #[test]
    fn exeat_is_known_by_its_file() {
        let known = known("", &[]);
        assert!(known.is_own(std::process::id()));
        let mut other = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(!known.is_own(other.id()));
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(!known.is_own(u32::MAX));
    }

    #[test]
    fn only_what_has_pipes_on_both_sides_may_be_a_stdio_server() {
        for (input, output, piped) in [
            (Stdio::piped(), Stdio::piped(), true),
            (Stdio::piped(), Stdio::null(), false),
            (Stdio::null(), Stdio::piped(), false),
        ] {
            let mut child = Command::new("sleep");
            let mut child = child.arg("60").stdin(input).stdout(output).spawn().unwrap();
            assert_eq!(is_piped(child.id()), piped);
            assert!(!is_stopped(child.id()));
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
