//! What hosts' configuration files start. Root opens them and parses nothing of them: a process without privileges
//! does, where nothing is reachable.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::MemfdFlags;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::hosts::{Place, Started, configured, numbered};
use crate::launch::stage::{Account, Program, Stage, Start, chain, spawn};

/// Files that are remembered.
const MAX_FILES: usize = 4096;
/// Servers that are remembered of a user; with more of them nothing can be judged.
const MAX_STARTED: usize = 4096;
/// Bytes of changed files that are read together; with more of them nothing can be judged.
const MAX_TEXT: usize = 16 << 20;
/// Bytes of commands and arguments that are remembered of a user; likewise.
const MAX_BYTES: usize = 4 << 20;
/// Most bytes that the parser may say.
const MAX_OUTPUT: u64 = 4 << 20;
/// Time for the parser.
const LIMIT: Duration = Duration::from_secs(5);

/// What changes when a file does.
type Stamp = (u64, u64, u64, i64, i64);

/// What was read so far.
#[derive(Debug, Default)]
struct Seen {
    files: HashMap<(PathBuf, u32), Stamp>,
    /// By user: all that any of their files ever started, for a host may have read it before it was changed.
    started: HashMap<u32, Commands>,
}

/// What the files of one user started.
#[derive(Debug, Default)]
struct Commands {
    all: Arc<Vec<Started>>,
    bytes: usize,
    /// One reads at a time: who waits finds nothing changed.
    reading: Arc<tokio::sync::Mutex<()>>,
}

/// The configuration files that were read, and what they start.
#[derive(Debug)]
pub(super) struct Configurations {
    stage: Program,
    account: Account,
    cgroup: PathBuf,
    seen: Mutex<Seen>,
}

/// A file that has to be read.
#[derive(Debug)]
struct Changed {
    path: PathBuf,
    stamp: Stamp,
    text: String,
}

impl Configurations {
    /// Files are parsed as `account` in `cgroup`, from which nothing is reachable.
    pub(super) fn new(stage: Program, account: Account, cgroup: PathBuf) -> Self {
        Self {
            stage,
            account,
            cgroup,
            seen: Mutex::default(),
        }
    }

    /// What the files of this user start, and those of projects in these directories. A thread that a disk holds up
    /// keeps `turn`.
    ///
    /// # Errors
    /// In words: the parser could not be run. A file that its host could not read either is passed over.
    pub(super) async fn started(
        self: &Arc<Self>,
        uid: u32,
        directories: Vec<PathBuf>,
        turn: Arc<OwnedSemaphorePermit>,
    ) -> Result<Arc<Vec<Started>>, String> {
        let reading = Arc::clone(&self.seen().started.entry(uid).or_default().reading);
        // Held by the thread as well, which outlives whoever waits for it.
        let reading = Arc::new(reading.lock_owned().await);
        let (this, own) = (Arc::clone(self), Arc::clone(&reading));
        let looked = spawn_blocking(move || {
            let _held = (turn, own);
            this.look(uid, &directories)
        })
        .await;
        let changed = looked.map_err(|e| chain(&e))??;
        if !changed.is_empty() {
            self.read(uid, changed).await?;
        }
        let seen = self.seen();
        let Some(started) = seen.started.get(&uid) else {
            return Ok(Arc::default());
        };
        // To forget some would let them pass: whoever writes such a file might want just that.
        if started.all.len() > MAX_STARTED || started.bytes > MAX_BYTES {
            return Err(format!(
                "more than {MAX_STARTED} servers, or {MAX_BYTES} bytes of them, are configured for uid {uid}"
            ));
        }
        Ok(Arc::clone(&started.all))
    }

    /// The files that changed since they were read.
    fn look(&self, uid: u32, directories: &[PathBuf]) -> Result<Vec<Changed>, String> {
        let mut paths = Vec::new();
        if let Ok(account) = numbered(uid) {
            let homes = (account.home != Path::new("/")).then_some(None);
            let projects = directories
                .iter()
                .map(|directory| Some(directory.as_path()));
            for project in homes.into_iter().chain(projects) {
                paths.extend(configured(&account, project));
            }
        }
        paths.sort_unstable();
        paths.dedup();
        let mut changed = Vec::new();
        let mut room = MAX_TEXT;
        let too_much = || format!("more than {MAX_TEXT} bytes of configuration of uid {uid}");
        for path in paths {
            let Ok(stamp) = stamp(&path) else { continue };
            let key = (path, uid);
            if self.seen().files.get(&key) == Some(&stamp) {
                continue;
            }
            let (path, _) = key;
            let (_, _, size, ..) = stamp;
            // Before it is read; and after, since it may have grown meanwhile.
            if usize::try_from(size).map_or(true, |size| size > room) {
                return Err(too_much());
            }
            match Place::find(&path, uid).and_then(|place| place.read()) {
                Ok(seen) => {
                    room = room.checked_sub(seen.text.len()).ok_or_else(too_much)?;
                    changed.push(Changed {
                        path,
                        stamp,
                        text: seen.text,
                    });
                }
                Err(error) => {
                    tracing::warn!(error = chain(&error), "a host's configuration was not read");
                    self.seen().keep(path, uid, stamp, Vec::new());
                }
            }
        }
        Ok(changed)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self, uid: u32, changed: Vec<Changed>) -> Result<(), String> {
        let texts: Vec<(&Path, &str)> = changed
            .iter()
            .map(|file| (file.path.as_path(), file.text.as_str()))
            .collect();
        let order = serde_json::to_vec(&texts).map_err(|e| chain(&e))?;
        let output = self.parse(&order).await?;
        let parsed: Vec<Result<Vec<Started>, String>> =
            serde_json::from_slice(&output).map_err(|e| chain(&e))?;
        if parsed.len() != changed.len() {
            return Err("the parser left files out".into());
        }
        for (file, parsed) in changed.into_iter().zip(parsed) {
            let started = parsed.unwrap_or_else(|fault| {
                let path = file.path.display();
                tracing::warn!(
                    fault,
                    "the configuration `{path}` starts nothing: it cannot be read"
                );
                Vec::new()
            });
            self.seen().keep(file.path, uid, file.stamp, started);
        }
        Ok(())
    }

    /// Has texts parsed by `exeat internal started`.
    async fn parse(&self, order: &[u8]) -> Result<Vec<u8>, String> {
        let failed = |e: io::Error| format!("preparing the parser: {e}");
        let mut input = memory("configurations").map_err(failed)?;
        input.write_all(order).map_err(failed)?;
        input.rewind().map_err(failed)?;
        let mut output = memory("started").map_err(failed)?;
        let null = File::options()
            .write(true)
            .open("/dev/null")
            .map_err(failed)?;
        let start = Start {
            cgroup: self.cgroup.clone(),
            account: self.account.clone(),
            directory: "/".into(),
            program: "/proc/self/exe".into(),
            arguments: vec!["internal".to_owned(), "started".to_owned()],
            environment: Vec::new(),
            trust: None,
        };
        let streams = [input.as_fd(), output.as_fd(), null.as_fd()];
        let spawned = spawn(&self.stage, &Stage::Start(start), &streams).await;
        let mut spawned = spawned.map_err(|e| chain(&e))?;
        // It is killed where it does not end: by the drop of what was spawned.
        let ended = timeout(LIMIT, spawned.child.wait()).await;
        let ended = ended.map_err(|_late| "the parser did not end in time")?;
        if !ended.map_err(failed)?.success() {
            return Err("the parser failed".into());
        }
        output.rewind().map_err(failed)?;
        let mut bytes = Vec::new();
        output
            .take(MAX_OUTPUT)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        Ok(bytes)
    }
}

impl Seen {
    /// Notes what a file starts, up to one more than may be.
    fn keep(&mut self, path: PathBuf, uid: u32, stamp: Stamp, started: Vec<Started>) {
        if self.files.len() >= MAX_FILES {
            self.files.clear();
        }
        self.files.insert((path, uid), stamp);
        let commands = self.started.entry(uid).or_default();
        let all = Arc::make_mut(&mut commands.all);
        for new in started {
            let full = all.len() > MAX_STARTED || commands.bytes > MAX_BYTES;
            if !full && !all.contains(&new) {
                let arguments: usize = new.args.iter().map(String::len).sum();
                commands.bytes += new.command.len() + arguments;
                all.push(new);
            }
        }
    }
}

fn memory(name: &str) -> io::Result<File> {
    let descriptor: OwnedFd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?;
    Ok(File::from(descriptor))
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let m = fs::metadata(path)?;
    Ok((m.dev(), m.ino(), m.size(), m.ctime(), m.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(number: usize) -> Started {
        Started {
            command: format!("notes-{number}"),
            args: Vec::new(),
        }
    }

    #[test]
    fn what_a_file_started_once_is_not_forgotten() {
        let mut seen = Seen::default();
        let path = || PathBuf::from("/home/d/.mcp.json");
        seen.keep(path(), 7, (1, 1, 1, 1, 1), vec![notes(1), notes(1)]);
        seen.keep(path(), 7, (1, 1, 1, 2, 1), vec![notes(2)]);
        seen.keep(path(), 8, (1, 1, 1, 2, 1), Vec::new());
        assert_eq!(*seen.started[&7].all, [notes(1), notes(2)]);
        assert!(seen.started[&8].all.is_empty());
        // Nor is anything pushed out by what somebody adds.
        let many = (0..3 * MAX_STARTED).map(notes).collect();
        seen.keep(path(), 7, (1, 1, 1, 3, 1), many);
        assert_eq!(seen.started[&7].all.len(), MAX_STARTED + 1);
        assert!(seen.started[&7].all.contains(&notes(1)));
        // A few that are large are as many.
        let large = |letter: &str| Started {
            command: letter.repeat(MAX_BYTES),
            args: Vec::new(),
        };
        seen.keep(
            path(),
            9,
            (1, 1, 1, 3, 1),
            ["a", "b", "c"].map(large).into(),
        );
        assert_eq!(seen.started[&9].all.len(), 2);
        assert!(seen.started[&9].bytes > MAX_BYTES);
    }
}
