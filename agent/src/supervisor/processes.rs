//! The table of processes in workloads, for the records.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use exeat_ebpf::Event;
use sha2::{Digest as _, Sha256};

use crate::channel::{Process, encode_hex};

/// Processes that are remembered; beyond it the records name the workload alone.
const MAX_PROCESSES: usize = 16_384;
/// Bytes of arguments that are kept.
const MAX_ARGUMENTS: u64 = 64 << 10;
/// Nanoseconds in a clock tick (`USER_HZ` is 100 on every architecture that is supported).
const TICK: u64 = 10_000_000;
/// Executables whose hash is remembered.
const MAX_HASHES: usize = 1024;

/// What runs in workloads.
#[derive(Debug, Default)]
pub(super) struct Processes {
    known: HashMap<u32, Process>,
}

impl Processes {
    /// Notes an exec, or a process found running; `None`: the table is full.
    pub(super) fn put(&mut self, process: Process) -> Option<&Process> {
        if self.known.len() >= MAX_PROCESSES && !self.known.contains_key(&process.pid) {
            return None;
        }
        let pid = process.pid;
        self.known.insert(pid, process);
        self.known.get(&pid)
    }

    /// Notes a fork: the child is its parent until it executes something.
    pub(super) fn fork(&mut self, parent: u32, child: u32) -> Option<&Process> {
        let process = Process {
            pid: child,
            parent,
            ..self.known.get(&parent)?.clone()
        };
        self.put(process)
    }

    /// Notes that a process is another workload's now, with what was known of it.
    pub(super) fn moved(&mut self, process: Process, workload: u32) -> Option<&Process> {
        let known = self.known.get(&process.pid);
        let known = known
            .filter(|known| known.started == process.started)
            .cloned();
        self.put(Process {
            workload,
            ..known.unwrap_or(process)
        })
    }

    /// Notes an end; whether the process was known.
    pub(super) fn gone(&mut self, pid: u32) -> bool {
        self.known.remove(&pid).is_some()
    }

    /// Forgets a workload's processes.
    pub(super) fn forget(&mut self, workload: u32) {
        self.known.retain(|_, process| process.workload != workload);
    }

    /// Everything that is known.
    pub(super) fn all(&self) -> Vec<Process> {
        self.known.values().cloned().collect()
    }

    /// Notes a hash, which took its time.
    pub(super) fn hashed(&mut self, pid: u32, started: u64, sha256: &str) -> Option<&Process> {
        let process = self
            .known
            .get_mut(&pid)
            .filter(|process| process.started == started)?;
        process.sha256 = Some(sha256.to_owned());
        Some(process)
    }
}

/// The process of an exec event: what the kernel said, made fuller from `/proc` as long as that
/// is the same process still.
pub(super) fn from_event(event: &Event) -> Process {
    let found = read(event.tgid, event.workload);
    let started = event.started_ns / TICK;
    // Field 22 is cut to ticks from the same clock.
    if let Some(found) = found.filter(|found| found.started.abs_diff(started) <= 1) {
        return found;
    }
    let execution = event.execution.as_deref();
    Process {
        workload: event.workload,
        pid: event.tgid,
        parent: event.ppid,
        started,
        uid: event.uid,
        exe: execution
            .map(|e| e.path.display().to_string())
            .unwrap_or_default(),
        args: execution
            .map(|e| {
                e.argv
                    .iter()
                    .map(|arg| String::from_utf8_lossy(arg).into_owned())
                    .collect()
            })
            .unwrap_or_default(),
        sha256: None,
    }
}

/// What tells a process from another with its number: its parent and its start. Reads nothing of the process's own
/// memory, which may never come.
pub(super) fn origin(pid: u32) -> Option<(u32, u64)> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// As much as is known of a process without reading its memory.
pub(super) fn outline(pid: u32, workload: u32) -> Option<Process> {
    use std::os::unix::fs::MetadataExt as _;
    let directory = PathBuf::from(format!("/proc/{pid}"));
    let (parent, started) = origin(pid)?;
    let exe = fs::read_link(directory.join("exe")).unwrap_or_default();
    Some(Process {
        workload,
        pid,
        parent,
        started,
        uid: fs::metadata(&directory).ok()?.uid(),
        exe: exe.to_string_lossy().into_owned(),
        args: Vec::new(),
        sha256: None,
    })
}

/// A process that runs, as `/proc` describes it.
pub(crate) fn read(pid: u32, workload: u32) -> Option<Process> {
    let directory = PathBuf::from(format!("/proc/{pid}"));
    let (parent, started) = parse_stat(&fs::read_to_string(directory.join("stat")).ok()?)?;
    let status = fs::read_to_string(directory.join("status")).ok()?;
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let uid = uid.split_whitespace().next()?.parse().ok()?;
    let exe = fs::read_link(directory.join("exe"))
        .ok()?
        .to_string_lossy()
        .into_owned();
    Some(Process {
        workload,
        pid,
        parent,
        started,
        uid,
        exe,
        args: arguments(pid)?,
        sha256: None,
    })
}

/// Fields 4 and 22 of `proc_pid_stat(5)`; the name between may hold spaces and brackets.
fn parse_stat(text: &str) -> Option<(u32, u64)> {
    let mut fields = text.get(text.rfind(')')?..)?.split(' ');
    let parent = fields.nth(2)?.parse().ok()?;
    Some((parent, fields.nth(17)?.parse().ok()?))
}

fn arguments(pid: u32) -> Option<Vec<String>> {
    let mut bytes = Vec::new();
    let file = File::open(format!("/proc/{pid}/cmdline")).ok()?;
    file.take(MAX_ARGUMENTS).read_to_end(&mut bytes).ok()?;
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    Some(
        bytes
            .split(|b| *b == 0)
            .map(|arg| String::from_utf8_lossy(arg).into_owned())
            .collect(),
    )
}

/// Hashes of executables, each read once as long as the file does not change.
#[derive(Debug, Default)]
pub(super) struct Hashes {
    known: HashMap<Version, [u8; 32]>,
}

/// What changes when a file does.
type Version = (u64, u64, u64, i64, i64);

impl Hashes {
    /// The hash of the file that a process executes, following no name: the file itself, even if
    /// it was replaced. May read hundreds of megabytes.
    pub(super) fn of_process(&mut self, pid: u32) -> Option<[u8; 32]> {
        self.of_file(Path::new(&format!("/proc/{pid}/exe")))
    }

    fn of_file(&mut self, path: &Path) -> Option<[u8; 32]> {
        use std::os::unix::fs::MetadataExt as _;
        let mut file = File::open(path).ok()?;
        let m = file.metadata().ok()?;
        let version = (m.dev(), m.ino(), m.size(), m.ctime(), m.ctime_nsec());
        if let Some(hash) = self.known.get(&version) {
            return Some(*hash);
        }
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            let length = file.read(&mut buffer).ok()?;
            match buffer.get(..length) {
                Some([]) | None => break,
                Some(part) => hasher.update(part),
            }
        }
        let hash = hasher.finalize().into();
        if self.known.len() >= MAX_HASHES {
            self.known.clear();
        }
        self.known.insert(version, hash);
        Some(hash)
    }
}

/// As records show it.
pub(super) fn shown(hash: &[u8; 32]) -> String {
    encode_hex(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) R 1 (b)) S 3 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1 1";
        assert_eq!(parse_stat(stat), Some((3, 4242)));
        assert_eq!(parse_stat(""), None);
        assert_eq!(parse_stat("1 (x"), None);
    }

    #[test]
    fn this_process_is_described() {
        let pid = std::process::id();
        let process = read(pid, 5).unwrap();
        assert_eq!((process.pid, process.workload), (pid, 5));
        assert_eq!(Path::new(&process.exe), std::env::current_exe().unwrap());
        assert_eq!(process.args.len(), std::env::args().count());
        assert!(process.started > 0);
    }

    #[test]
    fn the_table_is_bounded_and_follows_forks() {
        let mut table = Processes::default();
        let mut process = read(std::process::id(), 1).unwrap();
        for pid in 1..=u32::try_from(MAX_PROCESSES).unwrap() {
            process.pid = pid;
            assert!(table.put(process.clone()).is_some());
        }
        assert!(table.fork(1, 1_000_000).is_none());
        assert!(table.gone(2));
        assert_eq!(table.fork(1, 1_000_000).unwrap().parent, 1);
        table.forget(1);
        assert!(table.all().is_empty());
    }

    #[test]
    fn a_changed_file_is_hashed_anew() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut hashes = Hashes::default();
        fs::write(file.path(), "abc").unwrap();
        let first = hashes.of_file(file.path()).unwrap();
        assert!(shown(&first).starts_with("ba7816bf"));
        fs::write(file.path(), "abcd").unwrap();
        assert_ne!(hashes.of_file(file.path()).unwrap(), first);
    }
}
