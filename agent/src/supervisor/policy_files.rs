//! The policy's files: read, compiled, watched.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use exeat_policy::{Fault, PolicySet, Source, compile};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

use crate::channel::watch;
use crate::config::{ConfigError, read_text};
use crate::launch::stage::chain;

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

/// A policy that compiled.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) sources: Vec<Source>,
    pub(super) set: PolicySet,
}

/// Reads and compiles the policy at `path`: a file, or a directory's `*.yaml` in name order. An
/// absent directory is an empty policy, which allows nothing.
pub(super) fn load(path: &Path) -> Result<Policy, PolicyError> {
    let mut sources = Vec::new();
    let mut bytes = 0_usize;
    for file in files(path)? {
        let text = read_text(&file)?;
        bytes = bytes.saturating_add(text.len());
        if sources.len() == MAX_FILES || bytes > MAX_BYTES {
            return Err(PolicyError::TooLarge(path.to_owned()));
        }
        sources.push(Source {
            name: file.display().to_string(),
            text,
        });
    }
    let set = compile(&sources).map_err(PolicyError::Faults)?;
    Ok(Policy { sources, set })
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

/// Notices that the policy's files changed.
#[derive(Debug)]
pub(super) struct Watch {
    descriptor: AsyncFd<OwnedFd>,
}

impl Watch {
    /// Watches `path` and the directory that it is in, since a file is replaced by renaming
    /// another over it, and a directory may yet have to be made.
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
        let mut watched = false;
        for directory in [path.parent().filter(|_| !path.is_dir()), Some(path)] {
            if let Some(directory) = directory.filter(|directory| directory.is_dir()) {
                inotify::add_watch(&descriptor, directory, events).map_err(|e| failed(e.into()))?;
                watched = true;
            }
        }
        if !watched {
            return Err(failed(io::ErrorKind::NotFound.into()));
        }
        Ok(Self {
            descriptor: watch(descriptor).map_err(failed)?,
        })
    }

    /// Waits for changes and takes note of all that have come. Safe to cancel.
    pub(super) async fn changed(&self) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        loop {
            let mut ready = self.descriptor.readable().await?;
            let mut reader = inotify::Reader::new(self.descriptor.get_ref().as_fd(), &mut buffer);
            let mut seen = false;
            loop {
                match reader.next() {
                    Ok(event) => seen |= !event.events().contains(ReadFlags::IGNORED),
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            ready.clear_ready();
            if seen {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
}
