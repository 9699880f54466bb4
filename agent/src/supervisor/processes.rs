//! The table of processes in workloads, for the records.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use exeat_ebpf::Event;
use sha2::{Digest as _, Sha256};

use crate::channel::{Process, encode_hex};

/// Processes that are remembered; beyond it the records name the workload alone.
const MAX_PROCESSES: usize = 16_384;
/// Bytes of arguments that are kept.
const MAX_ARGUMENTS: u64 = 64 << 10;
/// Time for a process's arguments to be read where others wait for it, and where nobody does.
pub(super) const SOON: Duration = Duration::from_millis(100);
pub(super) const PATIENTLY: Duration = Duration::from_secs(5);
/// Time for a large executable to be hashed where nobody waits for it.
pub(super) const AT_LENGTH: Duration = Duration::from_secs(20);
/// How many of those who read them may be held up.
const MAX_HELD_UP: usize = 64;
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

    /// Notes a fork: the child is its parent until it executes something. `seen`: what was found of it.
    pub(super) fn fork(
        &mut self,
        parent: u32,
        child: u32,
        seen: Option<Process>,
    ) -> Option<&Process> {
        let known = self.known.get(&parent).cloned();
        let process = match (seen, known) {
            (Some(seen), Some(known)) => completed(seen, known),
            (Some(seen), None) => seen,
            (None, known) => Process {
                pid: child,
                parent,
                ..known?
            },
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

/// The process of an exec event, with the arguments that the kernel saw: by now they may be anything. What is left
/// out of them is an ellipsis.
pub(super) fn from_event(event: &Event) -> Process {
    let execution = event.execution.as_deref();
    let mut args: Vec<String> = execution
        .map(|e| e.argv.iter())
        .into_iter()
        .flatten()
        .map(|arg| String::from_utf8_lossy(arg).into_owned())
        .collect();
    if execution.is_some_and(|e| e.argv_cut)
        && let Some(last) = args.last_mut()
    {
        last.push('\u{2026}');
    }
    let started = event.started_ns / TICK;
    let told = Process {
        workload: event.workload,
        pid: event.tgid,
        parent: event.ppid,
        started,
        uid: event.uid,
        exe: execution
            .map(|e| e.path.display().to_string())
            .unwrap_or_default(),
        args,
        sha256: None,
    };
    // Field 22 is cut to ticks from the same clock.
    let found = outline(event.tgid, event.workload);
    match found.filter(|found| found.started.abs_diff(started) <= 1) {
        Some(found) => completed(found, told),
        None => told,
    }
}

/// What `/proc` shows of a process, with what it does not: arguments, which are not read there, and the executable of
/// one that has ended and waits for its parent, as they were `told`.
fn completed(found: Process, told: Process) -> Process {
    let exe = if found.exe.is_empty() {
        told.exe
    } else {
        found.exe
    };
    Process {
        exe,
        args: told.args,
        ..found
    }
}

/// What tells a process from another with its number: its parent and its start. Reads nothing of the process's own
/// memory, which may never come.
pub(super) fn origin(pid: u32) -> Option<(u32, u64)> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// A process that runs, as `/proc` describes it, but for its arguments: nothing of its own memory is read, which may
/// never come (a page of a file system that it serves itself).
pub(super) fn outline(pid: u32, workload: u32) -> Option<Process> {
    let directory = PathBuf::from(format!("/proc/{pid}"));
    let (parent, started) = origin(pid)?;
    let status = fs::read_to_string(directory.join("status")).ok()?;
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let uid = uid.split_whitespace().next()?.parse().ok()?;
    let exe = fs::read_link(directory.join("exe")).unwrap_or_default();
    Some(Process {
        workload,
        pid,
        parent,
        started,
        uid,
        exe: exe.to_string_lossy().into_owned(),
        args: Vec::new(),
        sha256: None,
    })
}

/// The same with its arguments: for threads that nobody waits for without a limit.
pub(crate) fn read(pid: u32, workload: u32) -> Option<Process> {
    Some(Process {
        args: arguments(pid)?,
        ..outline(pid, workload).filter(|process| !process.exe.is_empty())?
    })
}

/// The same in a time that is bounded: without its arguments where they do not come, and where too many threads
/// wait for such.
pub(super) fn read_within(limit: Duration, pid: u32, workload: u32) -> Option<Process> {
    read_known(limit, pid, workload).map(|(process, _)| process)
}

/// As [`read_within`], and whether its arguments are known.
pub(super) fn read_known(limit: Duration, pid: u32, workload: u32) -> Option<(Process, bool)> {
    static HELD_UP: AtomicUsize = AtomicUsize::new(0);
    let process = outline(pid, workload).filter(|process| !process.exe.is_empty())?;
    let args = in_time(limit, &HELD_UP, move || arguments(pid));
    let known = args.is_some();
    let args = args.flatten().unwrap_or_default();
    Some((Process { args, ..process }, known))
}

/// `held_up`: the threads that read.
fn in_time<T: Send + 'static>(
    limit: Duration,
    held_up: &'static AtomicUsize,
    read: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    if held_up.fetch_add(1, Ordering::Relaxed) >= MAX_HELD_UP {
        held_up.fetch_sub(1, Ordering::Relaxed);
        return None;
    }
    let (send, receive) = sync_channel(1);
    let reader = thread::Builder::new().name("arguments".to_owned());
    let started = reader.spawn(move || {
        let read = read();
        held_up.fetch_sub(1, Ordering::Relaxed);
        // Whoever asked may have gone on.
        drop(send.send(read));
    });
    if started.is_err() {
        held_up.fetch_sub(1, Ordering::Relaxed);
        return None;
    }
    receive.recv_timeout(limit).ok()
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

/// Something was not read in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Late;

/// Hashes of executables, each read once as long as the file does not change.
#[derive(Debug, Default)]
pub(super) struct Hashes {
    known: Mutex<HashMap<Version, [u8; 32]>>,
}

/// What changes when a file does.
type Version = (u64, u64, u64, i64, i64);

impl Hashes {
    /// The hash of the file that a process executes, following no name: the file itself, even if
    /// it was replaced. May read hundreds of megabytes, and may be held up by a file system, which holds up no other.
    pub(super) fn of_process(&self, pid: u32) -> Option<[u8; 32]> {
        self.of_file(Path::new(&format!("/proc/{pid}/exe")))
    }

    /// The same in a time that is bounded.
    ///
    /// # Errors
    /// It did not come.
    pub(super) fn of_process_within(
        self: &Arc<Self>,
        limit: Duration,
        pid: u32,
    ) -> Result<Option<[u8; 32]>, Late> {
        static HELD_UP: AtomicUsize = AtomicUsize::new(0);
        let hashes = Arc::clone(self);
        in_time(limit, &HELD_UP, move || hashes.of_process(pid)).ok_or(Late)
    }

    fn of_file(&self, path: &Path) -> Option<[u8; 32]> {
        use std::os::unix::fs::MetadataExt as _;
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = File::open(path).ok()?;
        let m = file.metadata().ok()?;
        let version = (m.dev(), m.ino(), m.size(), m.ctime(), m.ctime_nsec());
        if let Some(hash) = known().get(&version) {
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
        let mut known = known();
        if known.len() >= MAX_HASHES {
            known.clear();
        }
        known.insert(version, hash);
        Some(hash)
    }
}

/// As records show it.
pub(super) fn shown(hash: &[u8; 32]) -> String {
    encode_hex(hash)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

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

    /// A short program may have ended before its execution is heard of: `/proc` knows its number, and not its file.
    #[test]
    fn one_that_has_ended_is_described_as_it_was_told() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let pid = child.id();
        let ended = |pid| outline(pid, 5).filter(|found| found.exe.is_empty());
        let found = loop {
            if let Some(found) = ended(pid) {
                break found;
            }
            thread::yield_now();
        };
        let event = Event {
            kind: exeat_ebpf::EventKind::Exec,
            workload: 5,
            tgid: pid,
            tid: pid,
            ppid: std::process::id(),
            uid: 0,
            port: 0,
            protocol: 0,
            family: 0,
            address: None,
            detail: 0,
            cgroup: 0,
            at_ns: 0,
            started_ns: found.started * TICK,
            comm: "true".to_owned(),
            execution: Some(Box::new(exeat_ebpf::Execution {
                file: exeat_ebpf::identify(Path::new("/bin/true")).unwrap(),
                path: "/bin/true".into(),
                argv: vec![b"true".to_vec()],
                argv_cut: false,
            })),
        };
        let process = from_event(&event);
        assert_eq!((process.exe.as_str(), process.pid), ("/bin/true", pid));
        assert_eq!(process.args, ["true"]);
        let mut table = Processes::default();
        table.put(Process {
            pid: 1_000_001,
            ..process.clone()
        });
        let forked = table.fork(1_000_001, pid, Some(found)).unwrap();
        assert_eq!((&forked.exe, &forked.args), (&process.exe, &process.args));
        child.wait().unwrap();
    }

    #[test]
    fn arguments_that_never_come_hold_nobody_up() {
        static HELD_UP: AtomicUsize = AtomicUsize::new(0);
        let (release, held) = channel::<()>();
        let held = Arc::new(Mutex::new(held));
        for _held_up in 0..MAX_HELD_UP {
            let held = Arc::clone(&held);
            let read = move || held.lock().is_ok_and(|held| held.recv().is_ok());
            assert_eq!(in_time(SOON, &HELD_UP, read), None);
        }
        // There are no more of those who wait.
        assert_eq!(in_time(SOON, &HELD_UP, || 1), None);
        drop(release);
        while in_time(SOON, &HELD_UP, || 1).is_none() {
            thread::yield_now();
        }
    }

    #[test]
    fn the_table_is_bounded_and_follows_forks() {
        let mut table = Processes::default();
        let mut process = read(std::process::id(), 1).unwrap();
        for pid in 1..=u32::try_from(MAX_PROCESSES).unwrap() {
            process.pid = pid;
            assert!(table.put(process.clone()).is_some());
        }
        assert!(table.fork(1, 1_000_000, None).is_none());
        assert!(table.gone(2));
        let child = table.fork(1, 1_000_000, None).unwrap();
        assert_eq!((child.parent, &child.args), (1, &process.args));
        table.forget(1);
        assert!(table.all().is_empty());
    }

    #[test]
    fn a_changed_file_is_hashed_anew() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let hashes = Hashes::default();
        fs::write(file.path(), "abc").unwrap();
        let first = hashes.of_file(file.path()).unwrap();
        assert!(shown(&first).starts_with("ba7816bf"));
        fs::write(file.path(), "abcd").unwrap();
        assert_ne!(hashes.of_file(file.path()).unwrap(), first);
    }
}
