//! The policy's files: read, compiled, watched.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use exeat_policy::{Fault, PolicySet, Source, compile};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{Mode as FsMode, OFlags, openat};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

use crate::channel::watch;
use crate::config::{ConfigError, read_opened};
use crate::launch::stage::chain;
use crate::secrets::is_alone;

/// Files of one policy.
const MAX_FILES: usize = 1024;
/// Bytes of one policy, within what the channel carries.
const MAX_BYTES: usize = 16 << 20;

/// Why a policy was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A file or the directory could not be read.
    #[error(transparent)]
    Read(#[from] ConfigError),
    /// Too many files, or too much in them.
    #[error("the policy in `{}` is larger than {MAX_FILES} files or {MAX_BYTES} bytes", .0.display())]
    TooLarge(PathBuf),
    /// Everything that is wrong, one a line.
    #[error("{}", .0.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n"))]
    Faults(Vec<Fault>),
    /// The compiler panicked, which it must not do. The panic's own words are in the log.
    #[error("the policy in `{}` brought its compiler down, which is a defect of Exeat; undo what changed in it last", .0.display())]
    Broken(PathBuf),
    /// The path cannot be watched for changes.
    #[error("watching `{}` for changes", path.display())]
    Watch {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

impl PolicyError {
    /// One sentence for each fault.
    pub(super) fn sentences(&self) -> Vec<String> {
        match self {
            Self::Faults(faults) => faults.iter().map(Fault::to_string).collect(),
            other => vec![chain(other)],
        }
    }
}

/// A policy as it was read.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) sources: Vec<Source>,
    /// As in [`Policy`].
    pub(super) foreign: Option<String>,
}

/// A policy that compiled.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) sources: Vec<Source>,
    pub(super) set: Arc<PolicySet>,
    /// The first of its files and their directories that others than root could change when it was read: whoever writes
    /// one of them says where a secret goes that another defines.
    pub(super) foreign: Option<String>,
}

/// Reads and compiles the policy at `path`.
pub(super) fn load(path: &Path) -> Result<Policy, PolicyError> {
    read_all(path)?.compile()
}

/// Reads the policy at `path`: a file, or a directory's `*.yaml` in name order. An absent directory is an empty
/// policy, which allows nothing.
pub(super) fn read_all(path: &Path) -> Result<Files, PolicyError> {
    let Files {
        mut sources,
        mut foreign,
    } = Files::default();
    let mut bytes = 0_usize;
    for file in files(path)? {
        let (text, not_alone) = read(&file)?;
        foreign = foreign.or(not_alone);
        bytes = bytes.saturating_add(text.len());
        if sources.len() == MAX_FILES || bytes > MAX_BYTES {
            return Err(PolicyError::TooLarge(path.to_owned()));
        }
        sources.push(Source {
            name: file.display().to_string(),
            text,
        });
    }
    Ok(Files { sources, foreign })
}

impl Files {
    /// Compiles what was read.
    pub(super) fn compile(self) -> Result<Policy, PolicyError> {
        let Self { sources, foreign } = self;
        let set = compile(&sources).map_err(PolicyError::Faults)?;
        Ok(Policy {
            sources,
            set: Arc::new(set),
            foreign,
        })
    }
}

/// The text of a policy's file; and which of it and its directories others than root can change, judged on what is open.
fn read(path: &Path) -> Result<(String, Option<String>), ConfigError> {
    let failed = |cause| ConfigError::Read {
        path: path.to_owned(),
        cause,
    };
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    let parent = parent.unwrap_or_else(|| Path::new("."));
    let directory = File::open(parent).map_err(failed)?;
    let name = path.file_name().unwrap_or_default();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = openat(&directory, name, flags, FsMode::empty());
    let file = File::from(file.map_err(|errno| failed(errno.into()))?);
    let alone = |opened: &File| opened.metadata().is_ok_and(|found| is_alone(&found));
    let foreign = if !alone(&file) {
        Some(path)
    } else if !alone(&directory) || !led_by_root(&file) {
        Some(parent)
    } else {
        None
    };
    let foreign = foreign.map(|path| path.display().to_string());
    Ok((read_opened(&file, path)?, foreign))
}

/// Whether root alone can change the directory in which an open file stands, wherever a link led to it.
fn led_by_root(file: &File) -> bool {
    let stands = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let directory = stands.and_then(|path| File::open(path.parent().unwrap_or(&path)));
    let found = directory.and_then(|directory| directory.metadata());
    found.is_ok_and(|found| is_alone(&found))
}

fn files(path: &Path) -> Result<Vec<PathBuf>, PolicyError> {
    let failed = |cause| ConfigError::Read {
        path: path.to_owned(),
        cause,
    };
    let metadata = match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        // Not editors' drafts, and not the cases of `exeat policy test`.
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".yaml") && !name.ends_with(".test.yaml") && !name.starts_with('.') {
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}

/// How long further changes are waited for: an edit of several files is one change.
const SETTLE: Duration = Duration::from_millis(15);

/// Notices that the policy's files changed.
#[derive(Debug)]
pub(super) struct Watch {
    descriptor: AsyncFd<OwnedFd>,
    /// What of the watched directory above is of interest, and the watch's number.
    above: Option<(i32, OsString)>,
    /// The policy's directory, where it is one.
    directory: PathBuf,
    /// When changes that were seen are to be told.
    due: Mutex<Option<Instant>>,
}

impl Watch {
    /// Watches `path` if it is a directory, and in any case the nearest directory above that
    /// exists, since both are replaced by renaming others over them, and may yet have to be made.
    pub(super) fn new(path: &Path) -> Result<Self, PolicyError> {
        let failed = |cause: io::Error| PolicyError::Watch {
            path: path.to_owned(),
            cause,
        };
        let flags = CreateFlags::CLOEXEC | CreateFlags::NONBLOCK;
        let descriptor = inotify::init(flags).map_err(|e| failed(e.into()))?;
        let events = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::ONLYDIR;
        let add = |directory: &Path| {
            inotify::add_watch(&descriptor, directory, events).map_err(|e| failed(e.into()))
        };
        if path.is_dir() {
            add(path)?;
        }
        let mut above = None;
        let mut below = path;
        while let (Some(parent), Some(name)) = (below.parent(), below.file_name()) {
            if parent.is_dir() {
                above = Some((add(parent)?, name.to_owned()));
                break;
            }
            below = parent;
        }
        Ok(Self {
            descriptor: watch(descriptor, Interest::READABLE).map_err(failed)?,
            above,
            directory: path.to_owned(),
            due: Mutex::default(),
        })
    }

    /// Waits for changes, and a moment longer for those that belong to them. Safe to cancel.
    pub(super) async fn changed(&self) -> io::Result<()> {
        loop {
            let due = *self.due.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(due) = due {
                sleep_until(due).await;
                self.seen()?;
                *self.due.lock().unwrap_or_else(PoisonError::into_inner) = None;
                return Ok(());
            }
            let mut ready = self.descriptor.readable().await?;
            let seen = self.seen()?;
            ready.clear_ready();
            if seen {
                let due = Instant::now() + SETTLE;
                *self.due.lock().unwrap_or_else(PoisonError::into_inner) = Some(due);
            }
        }
    }

    /// Takes note of all events that have come; whether one is of interest.
    fn seen(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(self.descriptor.get_ref().as_fd(), &mut buffer);
        let mut seen = false;
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event
                        .file_name()
                        .map(|name| OsStr::from_bytes(name.to_bytes()));
                    seen |= self.is_of_interest(event.wd(), event.events(), name);
                }
                Err(Errno::AGAIN) => return Ok(seen),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn is_of_interest(&self, watch: i32, events: ReadFlags, name: Option<&OsStr>) -> bool {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            return true;
        }
        if events.contains(ReadFlags::IGNORED) {
            return false;
        }
        let above = self.above.as_ref().filter(|(number, _)| *number == watch);
        if let Some((_, wanted)) = above {
            return name == Some(wanted);
        }
        // A file that was just created is empty; its writer closes it later. Links are whole.
        let fresh = events.contains(ReadFlags::CREATE) && !events.contains(ReadFlags::ISDIR);
        !fresh || name.is_none_or(|name| is_link(&self.directory.join(name)))
    }
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink() || m.nlink() > 1)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn a_directory_is_read_in_name_order_without_drafts_and_cases() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in [
            "b.yaml",
            "a.yaml",
            "a.test.yaml",
            ".#a.yaml",
            "a.yaml~",
            "c.yml",
            "d.yaml.new",
        ] {
            fs::write(at(name), "version: 1\n").unwrap();
        }
        assert_eq!(
            files(directory.path()).unwrap(),
            [at("a.yaml"), at("b.yaml")]
        );
        assert_eq!(files(&at("a.yaml")).unwrap(), [at("a.yaml")]);
        assert!(files(&at("absent")).unwrap().is_empty());
    }

    /// What counts is who could change what was read, not who can change what stands there later.
    #[test]
    fn whose_a_policy_is_is_judged_on_what_was_read() {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy.d");
        let elsewhere = directory.path().join("elsewhere");
        fs::create_dir(&policy).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        let chmod = |path: &Path, mode: u32| {
            rustix::fs::chmod(path, FsMode::from_raw_mode(mode)).unwrap();
        };
        let (one, other) = (policy.join("a.yaml"), policy.join("b.yaml"));
        let linked = elsewhere.join("c.yaml");
        for path in [&one, &other, &linked] {
            fs::write(path, "version: 1\n").unwrap();
            chmod(path, 0o644);
        }
        symlink(&linked, policy.join("c.yaml")).unwrap();
        chmod(&policy, 0o755);
        chmod(&elsewhere, 0o755);
        assert_eq!(load(&policy).unwrap().foreign, None);
        for (path, writable, before) in [
            (&other, 0o664, 0o644),
            (&linked, 0o646, 0o644),
            (&policy, 0o777, 0o755),
            (&elsewhere, 0o775, 0o755),
        ] {
            chmod(path, writable);
            let loaded = load(&policy).unwrap();
            chmod(path, before);
            // It is mended now, and what was read may be anybody's all the same.
            assert!(loaded.foreign.is_some(), "{}", path.display());
            assert_eq!(load(&policy).unwrap().foreign, None);
        }
        chmod(&one, 0o664);
        let named = load(&one).unwrap().foreign;
        assert_eq!(named, Some(one.display().to_string()));
    }

    #[tokio::test]
    async fn every_way_to_change_a_policy_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy.d");
        fs::create_dir(&policy).unwrap();
        let watch = Watch::new(&policy).unwrap();
        let file = policy.join("a.yaml");
        fs::write(&file, "version: 1\n").unwrap();
        timeout(PATIENCE, watch.changed()).await.unwrap().unwrap();
        let draft = directory.path().join("draft");
        fs::write(&draft, "version: 1\n").unwrap();
        timeout(Duration::from_millis(20), watch.changed())
            .await
            .unwrap_err();
        fs::rename(&draft, &file).unwrap();
        timeout(PATIENCE, watch.changed()).await.unwrap().unwrap();
        fs::remove_file(&file).unwrap();
        timeout(PATIENCE, watch.changed()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_file_is_watched_through_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("policy.yaml");
        fs::write(&file, "version: 1\n").unwrap();
        let watch = Watch::new(&file).unwrap();
        let draft = directory.path().join("draft");
        fs::write(&draft, "version: 1\n").unwrap();
        fs::rename(&draft, &file).unwrap();
        timeout(PATIENCE, watch.changed()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_directory_is_noticed_when_it_is_made_or_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("etc/policy.d");
        let watch = Watch::new(&policy).unwrap();
        fs::create_dir(directory.path().join("etc")).unwrap();
        timeout(PATIENCE, watch.changed()).await.unwrap().unwrap();
        let watch = Watch::new(&policy).unwrap();
        fs::create_dir(&policy).unwrap();
        timeout(PATIENCE, watch.changed()).await.unwrap().unwrap();
        let watch = Watch::new(&policy).unwrap();
        let other = directory.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::rename(&other, &policy).unwrap();
        timeout(PATIENCE, watch.changed()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_change_is_not_lost_when_the_wait_for_it_is_cancelled() {
        let directory = tempfile::tempdir().unwrap();
        let watch = Watch::new(directory.path()).unwrap();
        fs::write(directory.path().join("a.yaml"), "version: 1\n").unwrap();
        // Given up at its first wait, which is before the change has settled.
        let mut context = Context::from_waker(Waker::noop());
        let given_up = pin!(watch.changed()).poll(&mut context);
        assert!(given_up.is_pending());
        timeout(PATIENCE, watch.changed()).await.unwrap().unwrap();
    }
}
