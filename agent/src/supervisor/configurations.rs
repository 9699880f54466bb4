//! What hosts' configuration files start. Root opens them and parses nothing of them: a process without privileges
//! does, where nothing is reachable.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::MemfdFlags;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::turns::Turn;
use crate::hosts::{Readable, Stamp, Started, in_home, in_project, numbered};
use crate::launch::stage::{Account, Program, Stage, Start, chain, spawn};

/// Files that are remembered.
const MAX_FILES: usize = 4096;
/// Servers that are remembered of one user's home, and of each project; with more of them nothing of its can be judged.
const MAX_STARTED: usize = 1024;
/// Projects of a user with servers that are remembered; with more of them nothing in the others can be judged.
const MAX_PROJECTS: usize = 256;
/// Bytes of changed files that are read together; with more of them nothing can be judged.
const MAX_TEXT: usize = 16 << 20;
/// Bytes of commands and arguments that are remembered of a home or project; likewise.
const MAX_BYTES: usize = 512 << 10;
/// Most bytes that the parser may say.
const MAX_OUTPUT: u64 = 4 << 20;
/// Time for the parser.
const LIMIT: Duration = Duration::from_secs(5);

/// Where configuration files stand: in a user's home, or in a project where one works. What a project starts says
/// nothing of what is started elsewhere: it may come from anybody.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Scope {
    uid: u32,
    project: Option<PathBuf>,
}

/// What was read so far.
#[derive(Debug, Default)]
struct Seen {
    files: HashMap<(Scope, PathBuf), Stamp>,
    /// All that any of its files ever started, for a host may have read it before it was changed.
    started: HashMap<Scope, Commands>,
    /// By user: one reads at a time, and who waits finds nothing changed.
    reading: HashMap<u32, Arc<tokio::sync::Mutex<()>>>,
}

/// What the files of one scope started.
#[derive(Debug, Default)]
struct Commands {
    all: Arc<Vec<Started>>,
    bytes: usize,
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
    scope: Scope,
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
    /// In words: the parser could not be run, or there is a file that root does not see. One that its host could not
    /// read either is passed over.
    pub(super) async fn started(
        self: &Arc<Self>,
        uid: u32,
        directories: Vec<PathBuf>,
        turn: Arc<Turn>,
    ) -> Result<Vec<Arc<Vec<Started>>>, String> {
        let reading = Arc::clone(self.seen().reading.entry(uid).or_default());
        // Held by the thread as well, which outlives whoever waits for it.
        let reading = Arc::new(reading.lock_owned().await);
        let projects = directories.into_iter().map(Some);
        let scopes = std::iter::once(None).chain(projects);
        let scopes: Vec<Scope> = scopes.map(|project| Scope { uid, project }).collect();
        let (this, own, all) = (Arc::clone(self), Arc::clone(&reading), scopes.clone());
        let looked = spawn_blocking(move || {
            let _held = (turn, own);
            this.look(&all)
        })
        .await;
        let changed = looked.map_err(|e| chain(&e))??;
        if !changed.is_empty() {
            self.read(changed).await?;
        }
        let seen = self.seen();
        let started = scopes.iter().filter_map(|scope| seen.started.get(scope));
        started
            .map(|commands| {
                // To forget some would let them pass: whoever writes such a file might want just that.
                if commands.is_full() {
                    return Err(format!(
                        "more than {MAX_STARTED} servers, or {MAX_BYTES} bytes of them, are configured in one place by uid {uid}"
                    ));
                }
                Ok(Arc::clone(&commands.all))
            })
            .collect()
    }

    /// The files that changed since they were read.
    fn look(&self, scopes: &[Scope]) -> Result<Vec<Changed>, String> {
        let mut changed = Vec::new();
        let mut room = MAX_TEXT;
        for scope in scopes {
            for path in scope.files()? {
                self.look_at(scope, path, &mut room, &mut changed)?;
            }
        }
        Ok(changed)
    }

    fn look_at(
        &self,
        scope: &Scope,
        path: PathBuf,
        room: &mut usize,
        changed: &mut Vec<Changed>,
    ) -> Result<(), String> {
        let uid = scope.uid;
        let unseen = |error: io::Error| {
            format!(
                "the configuration `{}` of uid {uid} cannot be read: {error}",
                path.display()
            )
        };
        let too_much = || format!("more than {MAX_TEXT} bytes of configuration of uid {uid}");
        let Some(file) = Readable::find(&path, uid).map_err(unseen)? else {
            return Ok(());
        };
        let key = (scope.clone(), path.clone());
        if self.seen().files.get(&key) == Some(&file.stamp) {
            return Ok(());
        }
        let (_, _, size, ..) = file.stamp;
        // Before it is read; and after, since it may have grown meanwhile.
        if usize::try_from(size).map_or(true, |size| size > *room) {
            return Err(too_much());
        }
        let text = file.read().map_err(unseen)?;
        *room = room.checked_sub(text.len()).ok_or_else(too_much)?;
        changed.push(Changed {
            scope: scope.clone(),
            path,
            stamp: file.stamp,
            text,
        });
        Ok(())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self, changed: Vec<Changed>) -> Result<(), String> {
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
            self.seen()
                .keep(file.scope, file.path, file.stamp, started)?;
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

impl Scope {
    fn files(&self) -> Result<Vec<PathBuf>, String> {
        if let Some(project) = &self.project {
            return Ok(in_project(project));
        }
        let account = numbered(self.uid).map_err(|e| chain(&e))?;
        let has_home = account.home != Path::new("/");
        Ok(if has_home {
            in_home(&account.home)
        } else {
            Vec::new()
        })
    }
}

impl Commands {
    fn is_full(&self) -> bool {
        self.all.len() > MAX_STARTED || self.bytes > MAX_BYTES
    }
}

impl Seen {
    /// Notes what a file starts, up to one more than may be.
    fn keep(
        &mut self,
        scope: Scope,
        path: PathBuf,
        stamp: Stamp,
        started: Vec<Started>,
    ) -> Result<(), String> {
        let projects = self
            .started
            .keys()
            .filter(|other| other.uid == scope.uid && other.project.is_some())
            .count();
        let is_new = !self.started.contains_key(&scope) && !started.is_empty();
        if is_new && scope.project.is_some() && projects >= MAX_PROJECTS {
            return Err(format!(
                "more than {MAX_PROJECTS} projects of uid {} have servers configured",
                scope.uid
            ));
        }
        if self.files.len() >= MAX_FILES {
            self.files.clear();
        }
        self.files.insert((scope.clone(), path), stamp);
        if started.is_empty() {
            return Ok(());
        }
        let commands = self.started.entry(scope).or_default();
        for new in started {
            if !commands.is_full() && !commands.all.contains(&new) {
                let arguments: usize = new.args.iter().map(String::len).sum();
                commands.bytes += new.command.len() + arguments;
                Arc::make_mut(&mut commands.all).push(new);
            }
        }
        Ok(())
    }
}

fn memory(name: &str) -> io::Result<File> {
    let descriptor: OwnedFd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?;
    Ok(File::from(descriptor))
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

    fn scope(uid: u32, project: Option<&str>) -> Scope {
        Scope {
            uid,
            project: project.map(PathBuf::from),
        }
    }

    fn keep(seen: &mut Seen, scope: Scope, changed: i64, started: Vec<Started>) {
        let path = PathBuf::from("/home/d/.mcp.json");
        let kept = seen.keep(scope, path, (1, 1, 1, changed, 1), started);
        kept.unwrap();
    }

    #[test]
    fn what_a_file_started_once_is_not_forgotten() {
        let mut seen = Seen::default();
        let home = || scope(7, None);
        keep(&mut seen, home(), 1, vec![notes(1), notes(1)]);
        keep(&mut seen, home(), 2, vec![notes(2)]);
        keep(&mut seen, scope(8, None), 2, Vec::new());
        assert_eq!(*seen.started[&home()].all, [notes(1), notes(2)]);
        assert!(!seen.started.contains_key(&scope(8, None)));
        // Nor is anything pushed out by what somebody adds.
        let many = (0..3 * MAX_STARTED).map(notes).collect();
        keep(&mut seen, home(), 3, many);
        assert_eq!(seen.started[&home()].all.len(), MAX_STARTED + 1);
        assert!(seen.started[&home()].all.contains(&notes(1)));
        assert!(seen.started[&home()].is_full());
        // A few that are large are as many.
        let large = |letter: &str| Started {
            command: letter.repeat(MAX_BYTES),
            args: Vec::new(),
        };
        keep(
            &mut seen,
            scope(9, None),
            3,
            ["a", "b", "c"].map(large).into(),
        );
        assert_eq!(seen.started[&scope(9, None)].all.len(), 2);
        assert!(seen.started[&scope(9, None)].is_full());
    }

    #[test]
    fn a_project_speaks_for_itself_alone() {
        let mut seen = Seen::default();
        keep(&mut seen, scope(7, Some("/evil")), 1, vec![notes(1)]);
        assert!(!seen.started.contains_key(&scope(7, None)));
        assert!(!seen.started.contains_key(&scope(7, Some("/good"))));
        // So many that no more are taken: those that are known stay known.
        for number in 1..MAX_PROJECTS {
            let project = format!("/p{number}");
            keep(&mut seen, scope(7, Some(&project)), 1, vec![notes(1)]);
        }
        let path = PathBuf::from("/more/.mcp.json");
        let mut more = |started| {
            let stamp = (1, 1, 1, 1, 1);
            seen.keep(scope(7, Some("/more")), path.clone(), stamp, started)
        };
        assert!(more(vec![notes(1)]).is_err());
        // Without servers there is nothing to remember.
        more(Vec::new()).unwrap();
        keep(&mut seen, scope(7, Some("/evil")), 2, vec![notes(2)]);
        keep(&mut seen, scope(8, Some("/more")), 1, vec![notes(1)]);
        assert_eq!(seen.started[&scope(7, Some("/evil"))].all.len(), 2);
    }
}
