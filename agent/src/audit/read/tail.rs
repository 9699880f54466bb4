//! Following a log that is being written.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::io::{Errno, read};
use tokio::io::unix::AsyncFd;

use super::lines::Line;
use super::{Entry, ReadError, Segments};
use crate::audit::writer::open_segment;

/// Where following begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// With the first record that is written from now on.
    Now,
    /// With the oldest.
    Beginning,
}

/// New records as they come, across segments: one for each exchange, when it has ended.
///
/// A record that the disk did not confirm and that was therefore written anew comes twice, with
/// the same id.
#[derive(Debug)]
pub struct Tail {
    segments: Segments,
    changes: AsyncFd<OwnedFd>,
    current: Option<Current>,
    lines: VecDeque<(u64, Line)>,
}

#[derive(Debug)]
struct Current {
    segment: u64,
    file: File,
    number: u64,
    /// The beginning of a line whose end is not written yet.
    begun: Vec<u8>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Tail {
    /// Begins to follow. Needs tokio's runtime.
    pub fn new(segments: Segments, from: From) -> Result<Self, ReadError> {
        let watch = |errno: Errno| ReadError::Watch(errno.into());
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(watch)?;
        // The watch takes a path only; this one leads to the descriptor wherever the directory is.
        let directory = format!("/proc/self/fd/{}", segments.0.as_fd().as_raw_fd());
        let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
        add_watch(&inotify, directory, flags).map_err(watch)?;
        #[expect(
            deprecated,
            reason = "sound for a descriptor that nothing else owns; its successor is unsafe to call"
        )]
        let changes = AsyncFd::new(inotify).map_err(ReadError::Watch)?;
        let mut tail = Self {
            segments,
            changes,
            current: None,
            lines: VecDeque::new(),
        };
        if from == From::Now {
            tail.skip_to_end()?;
        }
        Ok(tail)
    }

    /// The next record; waits for it.
    pub async fn next(&mut self) -> Result<Entry, ReadError> {
        loop {
            if let Some((segment, line)) = self.lines.pop_front() {
                let entry = Entry::read(segment, &line)?;
                if entry.record.open.is_some() {
                    continue;
                }
                return Ok(entry);
            }
            // Changes after this are in the watch's queue.
            let next = self.next_segment()?;
            if self.read_on()? {
                continue;
            }
            match next {
                Some(next) => self.begin(next)?,
                None => self.changed().await.map_err(ReadError::Watch)?,
            }
        }
    }

    fn next_segment(&self) -> Result<Option<u64>, ReadError> {
        let current = self.current.as_ref().map_or(0, |current| current.segment);
        Ok(self
            .segments
            .numbers()?
            .into_iter()
            .find(|number| *number > current))
    }

    fn begin(&mut self, segment: u64) -> Result<(), ReadError> {
        let file = open_segment(self.segments.0.as_fd(), segment)
            .map_err(|source| ReadError::Segment { segment, source })?;
        self.current = Some(Current {
            segment,
            file,
            number: 0,
            begun: Vec::new(),
        });
        Ok(())
    }

    fn skip_to_end(&mut self) -> Result<(), ReadError> {
        let Some(newest) = self.segments.numbers()?.pop() else {
            return Ok(());
        };
        self.begin(newest)?;
        while self.read_on()? {
            self.lines.clear();
        }
        Ok(())
    }

    /// Takes what was written to the current segment. Says whether there was anything.
    fn read_on(&mut self) -> Result<bool, ReadError> {
        let Some(current) = &mut self.current else {
            return Ok(false);
        };
        let at = |source| ReadError::Segment {
            segment: current.segment,
            source,
        };
        let position = current.file.stream_position().map_err(at)?;
        let mut bytes = Vec::with_capacity(1 << 16);
        let read = (&mut current.file).take(1 << 18).read_to_end(&mut bytes);
        if let Err(source) = read {
            // Nothing is lost for the next attempt.
            current.file.seek(SeekFrom::Start(position)).map_err(at)?;
            return Err(at(source));
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            current.begun.extend_from_slice(piece);
            if current.begun.pop_if(|last| *last == b'\n').is_some() {
                current.number += 1;
                let bytes = std::mem::take(&mut current.begun);
                let line = Line {
                    bytes,
                    number: current.number,
                    end: 0,
                };
                self.lines.push_back((current.segment, line));
            }
        }
        Ok(!bytes.is_empty())
    }

    async fn changed(&self) -> io::Result<()> {
        let mut events = [0_u8; 4_096];
        loop {
            let mut ready = self.changes.readable().await?;
            match read(self.changes.get_ref(), &mut events) {
                Ok(_) => return Ok(()),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
