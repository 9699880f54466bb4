//! A configuration file as the host reads it that it is written for: whoever owns it, wherever links lead.
//!
//! For judging alone: what is in it is compared with what runs, and never shown.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use super::place::MAX_FILE;

/// What changes when a file does: device, inode, size, and when it last changed.
pub type Stamp = (u64, u64, u64, i64, i64);

/// A file that is there and that its host may read.
#[derive(Debug)]
pub struct Readable {
    /// Of the file as it was found.
    pub stamp: Stamp,
    file: File,
}

impl Readable {
    /// Looks for the file. `None`: there is none, or none that the user `uid` may read.
    ///
    /// # Errors
    /// What keeps root from seeing what is there: a host may see more (a file system that serves its user alone).
    pub fn find(path: &Path, uid: u32) -> io::Result<Option<Self>> {
        // Nothing is opened for reading before it is known for a file: a device might heed that.
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = match open(path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let m = file.metadata()?;
        // A host can be fed through these, and nobody else sees what it got.
        if m.file_type().is_fifo() || m.file_type().is_socket() {
            return Err(io::Error::other("not a file"));
        }
        if !m.is_file() || !is_readable(&m, uid) {
            return Ok(None);
        }
        let stamp = (m.dev(), m.ino(), m.size(), m.ctime(), m.ctime_nsec());
        Ok(Some(Self { stamp, file }))
    }

    /// Its text; what is no UTF-8 in it is replaced, as hosts do.
    ///
    /// # Errors
    /// What the system says, or that it is larger than [`MAX_FILE`].
    pub fn read(&self) -> io::Result<String> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        // Whoever has a lease on it (fcntl(2)) is not waited for.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let mut bytes = Vec::new();
        let length = File::from(open(path, flags, Mode::empty())?)
            .take(MAX_FILE.saturating_add(1))
            .read_to_end(&mut bytes)?;
        if u64::try_from(length).unwrap_or(u64::MAX) > MAX_FILE {
            return Err(io::Error::other("larger than 16 MiB"));
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Whether a process of the user may read it, as far as the file's own mode tells; a group may be the user's.
fn is_readable(file: &Metadata, uid: u32) -> bool {
    uid == 0 || file.uid() == uid || file.mode() & 0o044 != 0
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write as _;
    use std::os::unix::fs::{OpenOptionsExt as _, chown, symlink};

    use super::*;

    const USER: u32 = 4711;

    #[test]
    fn what_a_host_may_read_is_read_whoever_owns_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".mcp.json");
        let find = |path: &Path| Readable::find(path, USER).unwrap();
        assert!(find(&path).is_none());
        assert!(find(&path.join("below")).is_none());
        for (owner, mode, seen) in [
            (USER, 0o600, true),
            (USER + 1, 0o644, true),
            (USER + 1, 0o640, true),
            (USER + 1, 0o600, false),
        ] {
            let mut new = OpenOptions::new();
            let mut file = new
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&path)
                .unwrap();
            file.write_all("{\"a\": \"\u{e9}\"}".as_bytes()).unwrap();
            chown(&path, Some(owner), None).unwrap();
            let text = find(&path).map(|found| found.read().unwrap());
            assert_eq!(text.is_some(), seen, "{owner} {mode:o}");
            fs::remove_file(&path).unwrap();
        }
        fs::write(&path, b"{\"a\": \"\xff\"}").unwrap();
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        let found = find(&link).unwrap();
        assert_eq!(found.read().unwrap(), "{\"a\": \"\u{fffd}\"}");
        // A change is seen by its stamp.
        fs::write(&path, "{}").unwrap();
        assert_ne!(find(&path).unwrap().stamp, found.stamp);
        // What is no file is nobody's configuration, and is not opened.
        assert!(find(directory.path()).is_none());
        assert!(find(Path::new("/dev/null")).is_none());
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o644),
            0,
        )
        .unwrap();
        Readable::find(&pipe, USER).unwrap_err();
    }

    #[test]
    fn what_is_not_read_whole_is_said() {
        let huge = tempfile::NamedTempFile::new().unwrap();
        huge.as_file().set_len(MAX_FILE + 1).unwrap();
        let found = Readable::find(huge.path(), 0).unwrap().unwrap();
        found.read().unwrap_err();
    }
}
