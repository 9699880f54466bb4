//! The processes of this machine, and what each of them runs behind interpreters, shims and links.

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::channel::Process;
use crate::hosts::{FORMATS, Format, Package};
use crate::supervisor::{accounts, matching, processes};

/// Most processes that are looked at.
const MAX_PROCESSES: usize = 65_536;
/// Most descriptors of one process that are looked at.
const MAX_DESCRIPTORS: usize = 65_536;

/// A process that runs.
#[derive(Debug)]
pub struct Running {
    /// As the kernel describes it.
    pub process: Process,
    /// Its cgroup's path below the cgroup2 mount.
    pub cgroup: Option<String>,
    /// The name of its user, digits where it has none.
    pub user: String,
    /// What it runs.
    pub package: Package,
    /// Whether its standard input and output are pipes or sockets, as a stdio server's are.
    pub piped: bool,
    /// Where it works, where this user may know.
    pub works_in: Option<PathBuf>,
    /// The inodes of its sockets.
    pub sockets: Vec<u64>,
}

/// Every process whose executable this user may see, parents before children.
pub fn running() -> Vec<Running> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut names = HashMap::new();
    let mut all: Vec<Running> = pids
        .take(MAX_PROCESSES)
        .filter_map(|pid| processes::read(pid, 0))
        .map(|process| {
            let name = names.entry(process.uid).or_insert_with(|| {
                accounts::name_of(process.uid).unwrap_or_else(|| process.uid.to_string())
            });
            describe(process, name.clone())
        })
        .collect();
    all.sort_unstable_by_key(|running| (running.process.started, running.process.pid));
    all
}

fn describe(process: Process, user: String) -> Running {
    let directory = PathBuf::from(format!("/proc/{}", process.pid));
    let stream = |number: &str| {
        let target = fs::read_link(directory.join("fd").join(number));
        target.is_ok_and(|target| {
            let target = target.as_os_str().as_bytes();
            target.starts_with(b"pipe:") || target.starts_with(b"socket:")
        })
    };
    let descriptors = fs::read_dir(directory.join("fd"))
        .into_iter()
        .flatten()
        .flatten();
    let sockets = descriptors
        .take(MAX_DESCRIPTORS)
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            let inode = target
                .to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')?;
            inode.parse().ok()
        })
        .collect();
    Running {
        cgroup: matching::cgroup_of(process.pid),
        package: Package::running(&process.exe, &process.args, &directory.join("cwd")),
        piped: stream("0") && stream("1"),
        works_in: fs::read_link(directory.join("cwd")).ok(),
        user,
        sockets,
        process,
    }
}

impl Running {
    /// The known host that this process is.
    pub fn host(&self) -> Option<&'static Format> {
        let name = Path::new(&self.process.exe).file_name()?.to_str()?;
        FORMATS.iter().find(|format| {
            let packaged = match &self.package {
                Package::Npm(package) => format.packages.contains(&package.as_str()),
                Package::Python(_) | Package::Image(_) | Package::Program(_) => false,
            };
            packaged || format.executables.contains(&name)
        })
    }
}
