//! The log's directory through its descriptor: the gate has no other way to it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::process;

use rustix::fs::{Dir, FlockOperation, Mode, OFlags, flock, fsync, openat};
use rustix::io::Errno;

/// What the writer does to a segment; tests put a failing disk behind it.
pub(super) trait Segment: Send {
    /// Appends some of the bytes, and says how many.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Forces what was appended to the disk.
    fn sync(&mut self) -> io::Result<()>;
}

/// Where segments are made.
pub(super) trait Store: Send {
    /// Makes a segment that must not exist, and forces its name to the disk.
    fn create(&mut self, number: u64) -> io::Result<Box<dyn Segment>>;
}

/// The lock on a directory, held as long as this lives.
pub(super) struct Lock {
    _file: File,
}

/// Who holds the lock, if that is known.
pub(super) enum LockError {
    Held(Option<u32>),
    Io(io::Error),
}

/// A directory of segments on a disk.
pub(super) struct Directory(OwnedFd);

/// The name of a segment's file.
pub(in crate::audit) fn segment_name(number: u64) -> String {
    format!("{number:010}.jsonl")
}

/// The number of a segment from its file's name.
pub(in crate::audit) fn segment_number(name: &[u8]) -> Option<u64> {
    let digits = str::from_utf8(name.strip_suffix(b".jsonl")?).ok()?;
    let number = digits.parse().ok()?;
    (segment_name(number).as_bytes() == name).then_some(number)
}

/// The numbers of all segments, ascending.
pub(in crate::audit) fn segments(directory: impl AsFd) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in Dir::read_from(directory)? {
        numbers.extend(segment_number(entry?.file_name().to_bytes()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

impl Directory {
    pub(super) fn new(directory: OwnedFd) -> Self {
        Self(directory)
    }

    /// Keeps every other writer out; the lock ends with the process, however that ends.
    pub(super) fn lock(&self) -> Result<Lock, LockError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(&self.0, "lock", flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| LockError::Io(errno.into()))?;
        let mut file = File::from(file);
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let read = (&file).take(16).read_to_string(&mut holder);
                return Err(LockError::Held(
                    read.ok().and_then(|_| holder.trim_end().parse().ok()),
                ));
            }
            Err(errno) => return Err(LockError::Io(errno.into())),
        }
        // Only a help for people: a full disk must not stop a start that could repair it.
        let named = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", process::id()));
        if let Err(error) = named {
            tracing::debug!(%error, "name this process in the audit log's lock");
        }
        Ok(Lock { _file: file })
    }

    pub(super) fn segments(&self) -> io::Result<Vec<u64>> {
        segments(self.0.as_fd())
    }

    pub(super) fn read(&self, number: u64) -> io::Result<File> {
        open_segment(self.0.as_fd(), number)
    }
}

/// Opens a segment to read it.
pub(in crate::audit) fn open_segment(directory: impl AsFd, number: u64) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(openat(directory, segment_name(number), flags, Mode::empty()).map(File::from)?)
}

impl Store for Directory {
    fn create(&mut self, number: u64) -> io::Result<Box<dyn Segment>> {
        let flags = OFlags::WRONLY
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::EXCL
            | OFlags::CLOEXEC
            | OFlags::NOFOLLOW;
        let file = openat(
            &self.0,
            segment_name(number),
            flags,
            Mode::RUSR | Mode::WUSR,
        )?;
        fsync(&self.0)?;
        Ok(Box::new(File::from(file)))
    }
}

impl Segment for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}
