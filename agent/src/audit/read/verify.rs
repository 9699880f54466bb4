//! The proof that a log is whole: order, completeness, integrity.

use std::collections::HashSet;
use std::io::{self, Read as _};

use aws_lc_rs::digest::{Context, SHA256};

use super::lines::Lines;
use super::standing::Standing;
use super::{Layout, ReadError, Segments};
use crate::audit::chain::{Digest, Head, LineFault, Link};
use crate::audit::id::RecordId;
use crate::audit::record::Cut;
use crate::audit::writer::segment_name;

/// What was proved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// How many records the chain holds, those that say that an exchange is open included.
    pub records: u64,
    /// Exchanges that are open at its end: under way, or cut short by the end of the gate if none runs.
    pub open: u64,
    /// How many segments.
    pub segments: u64,
    /// The newest record. Compare it with one kept elsewhere: a log that was cut off at its end
    /// is whole in itself.
    pub head: Head,
    /// Ends of segments that hold no records, as the log itself says of them.
    pub cuts: Vec<Cut>,
    /// Bytes after the last complete line: being written, or torn and not sealed yet.
    pub unfinished: u64,
}

/// Where the proof fails first.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file} line {line}: {kind}")]
pub struct Fault {
    /// The segment's file.
    pub file: String,
    /// Counted from 1; 0 for the segment as a whole.
    pub line: u64,
    /// What is wrong there.
    pub kind: FaultKind,
}

/// How a proof fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// The line is no record.
    #[error("the line is not a whole record")]
    Form,
    /// The line was changed.
    #[error("the line's hash is not that of its bytes")]
    Hash,
    /// Records are missing, doubled or out of order.
    #[error("record {found} stands where record {expected} should")]
    Sequence {
        /// The number after the record before.
        expected: u64,
        /// The line's number.
        found: u64,
    },
    /// The record before is not the one that this one was written after.
    #[error("the record before is not the one that this one was written after")]
    Chain,
    /// A segment is missing before this one.
    #[error("segment {0} is missing")]
    Segment(u64),
    /// The bytes after the segment's last record are not those that the log says it cut off.
    #[error("what follows the last record is not what the log says was cut off")]
    Cut,
    /// An exchange ends twice.
    #[error("exchange {0} has ended before")]
    Ended(RecordId),
    /// An exchange is said to be open after its end.
    #[error("exchange {0} is open after its end")]
    Reopened(RecordId),
    /// A writer began without ending what was open.
    #[error("exchange {0} was open before the log was started, and has no end")]
    Endless(RecordId),
    /// A record that is known from elsewhere is another one here.
    #[error("record {0} is not the one that is known from elsewhere")]
    Anchor(u64),
    /// A record that is known from elsewhere is missing at the end.
    #[error("the log ends before record {0}, which is known from elsewhere")]
    End(u64),
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The log is not whole.
    #[error(transparent)]
    Fault(Fault),
    /// The log cannot be read.
    #[error(transparent)]
    Read(ReadError),
}

impl Segments {
    /// Proves the log from its first record, or says where that fails first. `known` are records
    /// from elsewhere ([`crate::audit::Log::head`], kept out of reach) that must be in it.
    pub fn verify(&self, known: &[Head]) -> Result<Verification, VerifyError> {
        let layout = self.layout().map_err(VerifyError::Read)?;
        let mut proof = Proof {
            known,
            ..Proof::default()
        };
        let newest = layout.numbers.last().copied();
        for (number, expected) in layout.numbers.iter().zip(1..) {
            if *number != expected {
                return Err(fault(*number, 0, FaultKind::Segment(expected)));
            }
            proof.segment(self, &layout, *number, newest == Some(*number))?;
        }
        let mut done = proof.done;
        done.open = u64::try_from(proof.open.len()).unwrap_or(u64::MAX);
        match known.iter().find(|head| head.seq > done.head.seq) {
            Some(head) => Err(fault(newest.unwrap_or(0), 0, FaultKind::End(head.seq))),
            None => Ok(done),
        }
    }
}

#[derive(Default)]
struct Proof<'k> {
    known: &'k [Head],
    done: Verification,
    open: HashSet<RecordId>,
    /// All that have ended: 16 bytes for each record of the log.
    ended: HashSet<RecordId>,
}

impl Proof<'_> {
    fn segment(
        &mut self,
        segments: &Segments,
        layout: &Layout,
        number: u64,
        is_newest: bool,
    ) -> Result<(), VerifyError> {
        let unreadable = |source| {
            VerifyError::Read(ReadError::Segment {
                segment: number,
                source,
            })
        };
        let cut = layout.cuts.get(&number);
        let mut lines = segments
            .lines(number, cut.map(|cut| cut.offset))
            .map_err(VerifyError::Read)?;
        let mut end = 0;
        let mut last = 0;
        for line in &mut lines {
            let line = line.map_err(unreadable)?;
            let at = |kind| fault(number, line.number, kind);
            let next = Link::read(&line.bytes).map_err(|fault| at(fault.into()))?;
            self.link(&next).map_err(at)?;
            let standing = Standing::read(&line.bytes);
            self.stand(&standing.map_err(|_json| at(FaultKind::Form))?)
                .map_err(at)?;
            (end, last) = (line.end, line.number);
        }
        let rest = rest(segments, number, end).map_err(unreadable)?;
        self.done.segments += 1;
        match cut {
            Some(cut) if cut.offset != end || !rest.is(cut) => {
                Err(fault(number, last + 1, FaultKind::Cut))
            }
            Some(cut) => {
                self.done.cuts.push(cut.clone());
                Ok(())
            }
            None if rest.bytes > 0 && !is_newest => Err(fault(number, last + 1, FaultKind::Form)),
            None => {
                self.done.unfinished = rest.bytes;
                Ok(())
            }
        }
    }

    /// Each exchange ends once, after whatever says that it is open.
    fn stand(&mut self, standing: &Standing) -> Result<(), FaultKind> {
        let id = standing.id;
        if standing.is_open() {
            if self.ended.contains(&id) {
                return Err(FaultKind::Reopened(id));
            }
            self.open.insert(id);
            return Ok(());
        }
        self.open.remove(&id);
        if !self.ended.insert(id) {
            return Err(FaultKind::Ended(id));
        }
        match self.open.iter().next() {
            Some(open) if standing.is_start() => Err(FaultKind::Endless(*open)),
            _ => Ok(()),
        }
    }

    fn link(&mut self, link: &Link) -> Result<(), FaultKind> {
        let head = &mut self.done.head;
        if !head.precedes(link) {
            let expected = head.seq.saturating_add(1);
            return Err(if link.seq == expected {
                FaultKind::Chain
            } else {
                FaultKind::Sequence {
                    expected,
                    found: link.seq,
                }
            });
        }
        *head = link.head();
        self.done.records += 1;
        let differs = |known: &&Head| known.seq == link.seq && known.hash != link.hash;
        match self.known.iter().find(differs) {
            Some(known) => Err(FaultKind::Anchor(known.seq)),
            None => Ok(()),
        }
    }
}

/// What follows the last record of a segment.
struct Rest {
    bytes: u64,
    sha256: String,
}

impl Rest {
    fn is(&self, cut: &Cut) -> bool {
        // Without a hash nobody could say what the disk kept.
        cut.sha256.is_empty() || (self.bytes == cut.bytes && cut.sha256 == *self.sha256)
    }
}

fn rest(segments: &Segments, number: u64, from: u64) -> io::Result<Rest> {
    use std::io::{Seek as _, SeekFrom};
    let lines = segments.lines(number, None).map_err(io::Error::other)?;
    let mut reader = Lines::into_rest(lines);
    reader.seek(SeekFrom::Start(from))?;
    let mut hashed = Context::new(&SHA256);
    let mut bytes = 0;
    let mut piece = Vec::new();
    loop {
        piece.clear();
        let read = (&mut reader).take(1 << 16).read_to_end(&mut piece)?;
        if read == 0 {
            return Ok(Rest {
                bytes,
                sha256: Digest::finish(hashed).to_string(),
            });
        }
        bytes += u64::try_from(read).unwrap_or(u64::MAX);
        hashed.update(&piece);
    }
}

fn fault(segment: u64, line: u64, kind: FaultKind) -> VerifyError {
    VerifyError::Fault(Fault {
        file: segment_name(segment),
        line,
        kind,
    })
}

impl From<LineFault> for FaultKind {
    fn from(fault: LineFault) -> Self {
        match fault {
            LineFault::Form => Self::Form,
            LineFault::Hash => Self::Hash,
        }
    }
}
