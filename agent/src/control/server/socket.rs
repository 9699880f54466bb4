//! The socket's place in the file system: one daemon at a time, no window without a listener.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use exeat_ebpf::refuse_descriptors;
use rustix::fs::{FlockOperation, Mode, chmod, flock};
use tokio::net::{UnixListener, UnixStream};

use super::super::error::ControlError;
use super::super::peer;

/// Holds the path: a lock against a second daemon, and the inode to unlink at the end.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    inode: (u64, u64),
    // Released with the file.
    _lock: File,
}

/// Makes a socket at `path` that everybody may connect to; who may ask what is decided by who asks.
pub(super) async fn make(path: &Path) -> Result<(UnixListener, Place), ControlError> {
    let error = |source| ControlError::Listen {
        path: path.to_owned(),
        source,
    };
    if let Some(directory) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .map_err(error)?;
    }
    let lock = File::create(beside(path, ".lock")).map_err(error)?;
    if let Err(errno) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        return Err(if errno == rustix::io::Errno::WOULDBLOCK {
            ControlError::Taken {
                path: path.to_owned(),
                pid: listener(path).await,
            }
        } else {
            error(errno.into())
        });
    }
    vacate(path).await?;
    // Under another name until its mode is right, then in one step.
    let fresh = beside(path, ".new");
    remove(&fresh).map_err(error)?;
    let socket = UnixListener::bind(&fresh).map_err(error)?;
    // Before anybody can connect: no command brings descriptors.
    refuse_descriptors(&socket).map_err(error)?;
    chmod(&fresh, Mode::from_raw_mode(0o666)).map_err(|errno| error(errno.into()))?;
    let made = fs::symlink_metadata(&fresh).map_err(error)?;
    fs::rename(&fresh, path).map_err(error)?;
    let inode = (made.dev(), made.ino());
    Ok((
        socket,
        Place {
            path: path.to_owned(),
            inode,
            _lock: lock,
        },
    ))
}

/// Makes sure that whatever stands at `path` is a socket that nobody answers on, or nothing.
async fn vacate(path: &Path) -> Result<(), ControlError> {
    let error = |source| ControlError::Listen {
        path: path.to_owned(),
        source,
    };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(error(source)),
    };
    if !found.file_type().is_socket() {
        return Err(ControlError::NotASocket {
            path: path.to_owned(),
        });
    }
    match UnixStream::connect(path).await {
        Ok(stream) => Err(ControlError::Taken {
            path: path.to_owned(),
            pid: peer::credentials(&stream).ok().map(|listener| listener.pid),
        }),
        Err(source) if source.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(source) => Err(error(source)),
    }
}

/// Who listens at `path`, where somebody does.
async fn listener(path: &Path) -> Option<u32> {
    let stream = UnixStream::connect(path).await.ok()?;
    peer::credentials(&stream).ok().map(|listener| listener.pid)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.inode);
        if ours && let Err(error) = remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the control socket stays behind");
        }
    }
}
