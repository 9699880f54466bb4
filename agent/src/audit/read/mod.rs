//! Reading the log back: all of it, what a filter asks for, or what is being written.

mod filter;
mod lines;
mod standing;
mod tail;
mod verify;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};

pub use filter::Filter;
use lines::Lines;
pub(super) use standing::{AtEnd, Exchanges, Standing};
pub use tail::{From, Tail};
pub use verify::{Fault, FaultKind, Verification, VerifyError};

use super::chain::{Link, seq};
use super::id::RecordId;
use super::record::{Cut, Record};
use super::writer::{open_segment, segments};
use crate::telemetry::clock::Timestamp;

/// No line of the log is longer, its line feed included.
pub(super) const MAX_LINE: u64 = 128 * 1_024;

/// Microseconds by which a file's time may be behind the clock: the kernel sets it by its tick,
/// and some file systems by the second.
const SLACK: i64 = 2_000_000;

/// The directory of a log, to be read while it is written or later.
#[derive(Debug)]
pub struct Segments(OwnedFd);

/// A record as it stands in the log. One that says that its exchange is open is shown only if none follows that
/// says how it ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its number.
    pub seq: u64,
    /// The number of its segment.
    pub segment: u64,
    /// Its line, without the line feed: what to print as JSON.
    pub line: String,
    /// What it holds.
    pub record: Record,
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The directory does not open.
    #[error("open the audit log `{path}`")]
    Open {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The names in the directory, or a file's bytes, cannot be read.
    #[error("read segment {segment} of the audit log")]
    Segment {
        /// Which; 0 for the directory itself.
        segment: u64,
        /// Why.
        source: io::Error,
    },
    /// A line is no record of a version that is understood.
    #[error("read line {line} of segment {segment} of the audit log as a record")]
    Line {
        /// Where.
        segment: u64,
        /// Counted from 1.
        line: u64,
        /// Why, where it is JSON's fault.
        source: Option<serde_json::Error>,
    },
    /// The kernel does not tell of changes.
    #[error("watch the audit log's directory")]
    Watch(#[source] io::Error),
}

impl Segments {
    /// Opens the log in a directory.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, path, flags, Mode::empty())
            .map(Self)
            .map_err(|errno| ReadError::Open {
                path: path.display().to_string(),
                source: errno.into(),
            })
    }

    /// The log in a directory that is open already.
    pub fn from_descriptor(directory: OwnedFd) -> Self {
        Self(directory)
    }

    /// All records in their order, one for each exchange; those that are open come last. A line that cannot be
    /// understood is an error of its own, after which reading goes on; [`Segments::verify`] says what it means.
    pub fn records(&self) -> impl Iterator<Item = Result<Entry, ReadError>> + use<'_> {
        // The error, if the directory cannot be read, and then nothing.
        let (layout, error) = match self.layout() {
            Ok(layout) => (layout, None),
            Err(error) => (Layout::default(), Some(Err(error))),
        };
        let Layout { numbers, cuts } = layout;
        let lines = numbers.into_iter().flat_map(move |number| {
            let limit = cuts.get(&number).map(|cut| cut.offset);
            self.segment(number, limit)
        });
        error.into_iter().chain(Settled {
            lines,
            open: BTreeMap::new(),
        })
    }

    /// The newest records that the filter asks for, at most [`Filter::limit`], in their order.
    pub fn query(&self, filter: &Filter) -> Result<Vec<Entry>, ReadError> {
        let Layout { numbers, cuts } = self.layout()?;
        let wanted = filter.prepare();
        let most = filter.limit.unwrap_or(usize::MAX);
        let mut newest = VecDeque::new();
        let mut at_end = AtEnd::default();
        for number in numbers.into_iter().rev() {
            let room = most.saturating_sub(newest.len());
            if room == 0 || self.ended_before(number, filter.since)? {
                break;
            }
            let mut found = VecDeque::new();
            let mut exchanges = Exchanges::default();
            let limit = cuts.get(&number).map(|cut| cut.offset);
            for line in self.lines(number, limit)? {
                let line = line.map_err(|source| ReadError::Segment {
                    segment: number,
                    source,
                })?;
                let standing = Entry::standing(number, &line)?;
                if !standing.is_open() {
                    found.extend(wanted.select(number, &line)?);
                }
                exchanges.take(&standing, || (number, line));
                if found.len() > room {
                    found.pop_front();
                }
            }
            found.append(&mut newest);
            newest = found;
            at_end.take(exchanges);
        }
        for (number, line) in at_end.open.values() {
            newest.extend(wanted.select(*number, line)?);
        }
        newest.drain(..newest.len().saturating_sub(most));
        Ok(newest.into())
    }

    /// Whether nothing can have been written to a segment since. Its records were closed while it
    /// was written, so none of them began later.
    fn ended_before(&self, segment: u64, since: Option<Timestamp>) -> Result<bool, ReadError> {
        let Some(since) = since else { return Ok(false) };
        let at = |source| ReadError::Segment { segment, source };
        let file = open_segment(self.0.as_fd(), segment).map_err(at)?;
        let written = file
            .metadata()
            .and_then(|metadata| metadata.modified())
            .map_err(at)?;
        let written = written
            .duration_since(std::time::UNIX_EPOCH)
            .ok()
            .and_then(|written| i64::try_from(written.as_micros()).ok());
        let surely = written.map(|written| written.saturating_add(SLACK));
        Ok(surely.is_some_and(|written| written < since.microseconds()))
    }

    fn segment(
        &self,
        segment: u64,
        limit: Option<u64>,
    ) -> Box<dyn Iterator<Item = Result<Entry, ReadError>>> {
        match self.lines(segment, limit) {
            Ok(lines) => Box::new(lines.map(move |line| match line {
                Ok(line) => Entry::read(segment, &line),
                Err(source) => Err(ReadError::Segment { segment, source }),
            })),
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }

    fn lines(&self, segment: u64, limit: Option<u64>) -> Result<Lines, ReadError> {
        open_segment(self.0.as_fd(), segment)
            .map(|file| Lines::new(file, limit))
            .map_err(|source| ReadError::Segment { segment, source })
    }

    fn numbers(&self) -> Result<Vec<u64>, ReadError> {
        segments(self.0.as_fd()).map_err(|source| ReadError::Segment { segment: 0, source })
    }

    /// The segments, and where those end that do not count to their end.
    fn layout(&self) -> Result<Layout, ReadError> {
        let mut layout = Layout {
            numbers: self.numbers()?,
            cuts: BTreeMap::new(),
        };
        for number in &layout.numbers {
            for line in self.lines(*number, None)? {
                let line = line.map_err(|source| ReadError::Segment {
                    segment: *number,
                    source,
                })?;
                let Some(cut) = leading_cut(&line.bytes).filter(|cut| cut.segment < *number) else {
                    break;
                };
                layout.cuts.insert(cut.segment, cut);
            }
        }
        Ok(layout)
    }
}

/// The segments of a log.
#[derive(Default)]
struct Layout {
    /// Their numbers, ascending.
    numbers: Vec<u64>,
    /// Ends that do not count, by segment. They are named at the beginning of a later one.
    cuts: BTreeMap<u64, Cut>,
}

fn leading_cut(line: &[u8]) -> Option<Cut> {
    Link::read(line).ok()?;
    Standing::read(line).ok()?.cut().cloned()
}

/// Records without those that say that an exchange is open, which are held until it is known how it ended.
struct Settled<I> {
    lines: I,
    open: BTreeMap<RecordId, Entry>,
}

impl<I: Iterator<Item = Result<Entry, ReadError>>> Iterator for Settled<I> {
    type Item = Result<Entry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        for entry in self.lines.by_ref() {
            match entry {
                Ok(entry) if entry.record.open.is_some() => {
                    self.open.insert(entry.record.id, entry);
                }
                Ok(entry) => {
                    self.open.remove(&entry.record.id);
                    return Some(Ok(entry));
                }
                Err(error) => return Some(Err(error)),
            }
        }
        self.open.pop_first().map(|(_, entry)| Ok(entry))
    }
}

impl Entry {
    fn standing(segment: u64, line: &lines::Line) -> Result<Standing, ReadError> {
        Standing::read(&line.bytes).map_err(|error| ReadError::Line {
            segment,
            line: line.number,
            source: Some(error),
        })
    }

    fn read(segment: u64, line: &lines::Line) -> Result<Self, ReadError> {
        let fault = |source| ReadError::Line {
            segment,
            line: line.number,
            source,
        };
        let seq = seq(&line.bytes).ok_or_else(|| fault(None))?;
        let record = serde_json::from_slice(&line.bytes).map_err(|error| fault(Some(error)))?;
        // It was JSON, so it is UTF-8.
        let line = String::from_utf8_lossy(&line.bytes).into_owned();
        Ok(Self {
            seq,
            segment,
            line,
            record,
        })
    }
}
