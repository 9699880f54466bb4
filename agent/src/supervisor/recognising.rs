//! Which processes of a host are MCP servers that it started without Exeat.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use exeat_policy::PolicySet;
use rustix::fs::{AtFlags, CWD, FileType, Statx, StatxFlags, statx};

use crate::channel::{Process, Workload};
use crate::hosts::{Extent, Package, Ran, Started};

/// More than the kernel takes for arguments and environment together (`_STK_LIM / 4 * 3`, fs/exec.c).
const MAX_ENVIRONMENT: u64 = 8 << 20;

/// By what a process is known for an MCP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// It is what the register starts under this name.
    Registered(String),
    /// A host's configuration file starts it.
    Configured,
    /// Its name says so.
    Named,
    /// It is called as Exeat and is not, or something else is loaded into it.
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
            Self::Posing => "it is called `exeat`, and is another program or has others loaded into it (LD_PRELOAD and its like)".into(),
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
        self.is_own_file(Path::new(&format!("/proc/{pid}/exe")))
    }

    fn is_own_file(&self, path: &Path) -> bool {
        identity(path).is_some_and(|it| self.own.contains(&it))
    }

    /// Whether something is loaded into one of Exeat's processes beside Exeat: what its environment names (ld.so(8)), and,
    /// where it has run already and may have rewritten that, what it executes of files that are not root's, or of no
    /// file. Blocks on the process's memory.
    pub(super) fn is_loaded_into(&self, pid: u32, has_run: bool) -> bool {
        let mut environment = Vec::new();
        let read = File::open(format!("/proc/{pid}/environ"))
            .and_then(|file| file.take(MAX_ENVIRONMENT).read_to_end(&mut environment));
        let is_whole = read.is_ok_and(|length| (length as u64) < MAX_ENVIRONMENT);
        !is_whole || names_libraries(&environment) || (has_run && self.executes_others(pid))
    }

    fn executes_others(&self, pid: u32) -> bool {
        let Ok(maps) = fs::read_to_string(format!("/proc/{pid}/maps")) else {
            return true;
        };
        // proc_pid_maps(5): range, permissions, offset, device, inode, path.
        maps.lines().any(|line| {
            let mut fields = line.split_ascii_whitespace();
            let range = fields.next().unwrap_or_default();
            let executable = fields.next().is_some_and(|mode| mode.contains('x'));
            let kernels = ["[vdso]", "[vsyscall]"].contains(&fields.nth(3).unwrap_or_default());
            let file = format!("/proc/{pid}/map_files/{range}");
            let file = Path::new(&file);
            executable && !kernels && !self.is_own_file(file) && !is_roots(file)
        })
    }
}

fn names_libraries(environment: &[u8]) -> bool {
    environment.split(|byte| *byte == 0).any(|variable| {
        let (name, value) = variable.split_at(
            variable
                .iter()
                .position(|byte| *byte == b'=')
                .unwrap_or(variable.len()),
        );
        // Empty, they load nothing: so a configuration can clear what its host was started with.
        name.starts_with(b"LD_") && value.len() > 1
    })
}

fn is_roots(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.uid() == 0 && file.mode() & 0o022 == 0)
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
    let known = known_of(path, StatxFlags::INO)?;
    Some((
        rustix::fs::makedev(known.stx_dev_major, known.stx_dev_minor),
        known.stx_ino,
    ))
}

/// What the kernel knows of a file already: a process's file may be one of a file system that never answers, and
/// nobody waits for that here.
fn known_of(path: &Path, what: StatxFlags) -> Option<Statx> {
    statx(CWD, path, AtFlags::STATX_DONT_SYNC, what).ok()
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
    known_of(
        Path::new(&format!("/proc/{pid}/fd/{number}")),
        StatxFlags::TYPE,
    )
    .is_some_and(|of| FileType::from_raw_mode(of.stx_mode.into()) == FileType::Fifo)
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
    use std::io::Write as _;
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

    #[test]
    fn libraries_that_a_caller_names_are_seen() {
        for (environment, named) in [
            (&b"A=1\0LD_PRELOAD=/tmp/x.so\0"[..], true),
            (b"LD_AUDIT=x", true),
            (b"LD_LIBRARY_PATH=/tmp\0B=LD_PRELOAD=x\0", true),
            (b"LD_PRELOAD=\0LD_LIBRARY_PATH=\0", false),
            (b"A=LD_PRELOAD=x\0XLD_PRELOAD=x\0LD_\0", false),
            (b"", false),
        ] {
            assert_eq!(names_libraries(environment), named, "{environment:?}");
        }
        let known = known("/usr/bin/agent", &[]);
        let mut preloaded = Command::new("/bin/cat")
            .env("LD_PRELOAD", "libc.so.6")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It has begun, so that its environment stands where it belongs.
        preloaded.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        let mut said = [0];
        preloaded
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut said)
            .unwrap();
        assert!(known.is_loaded_into(preloaded.id(), false));
        preloaded.kill().unwrap();
        preloaded.wait().unwrap();
        // Who has ended is nobody.
        assert!(known.is_loaded_into(u32::MAX, false));
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
        assert!(!known.executes_others(std::process::id()));
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
