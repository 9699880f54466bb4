//! From serialised records to confirmed bytes on a disk that may fail at any time.

#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeMap;
use std::io;

use super::directory::{Segment, Store};
use crate::audit::RecordId;
use crate::audit::chain::Head;
use crate::audit::record::Cut;
use crate::audit::text::Text;

/// The chain being written.
///
/// INVARIANT: an entry that was given to `add` is either confirmed by the disk or still in
/// `entries`; it is in the chain once. A segment begins with what is open there, so that the newest
/// segment alone says what was open when the writer died.
pub(super) struct Journal {
    store: Box<dyn Store>,
    segment_bytes: u64,
    /// The newest record, written or not.
    head: Head,
    /// The newest record that the disk confirmed.
    confirmed: Head,
    /// The newest segment.
    number: u64,
    segment: Option<Written>,
    /// Makes the body of the `log_cut` record of a segment that failed.
    cut_body: Box<dyn Fn(Cut) -> Vec<u8> + Send>,
    /// Exchanges that confirmed lines say are open, and those lines' bodies.
    open: BTreeMap<RecordId, Vec<u8>>,
    /// Since the last confirmation: the bodies of `log_cut` records, the entries, the lines of both and of what
    /// is open where the segment begins, and how many bytes of the lines are written.
    cuts: Vec<Vec<u8>>,
    entries: Vec<Entry>,
    lines: Vec<u8>,
    written: usize,
    /// The next line is not a segment's first.
    begun: bool,
}

/// A record for the chain, serialised.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) body: Vec<u8>,
    pub(super) about: About,
}

/// What an entry says of its exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// All there is to say.
    Whole,
    /// That it is open.
    Begins(RecordId),
    /// How it ended, of one that was said to be open.
    Ends(RecordId),
}

struct Written {
    file: Box<dyn Segment>,
    number: u64,
    /// Bytes that the disk confirmed.
    confirmed: u64,
    /// The disk failed in a way that leaves unknown what it holds.
    suspect: bool,
}

/// Where a chain is taken up.
pub(super) struct Start {
    /// The newest record.
    pub(super) head: Head,
    /// The newest segment.
    pub(super) newest: u64,
    /// Bodies of `log_cut` records that the first segment begins with.
    pub(super) cuts: Vec<Vec<u8>>,
    /// Exchanges that are said to be open.
    pub(super) open: BTreeMap<RecordId, Vec<u8>>,
}

impl Journal {
    /// Continues a chain in a segment of its own.
    pub(super) fn new(
        store: Box<dyn Store>,
        segment_bytes: u64,
        start: Start,
        cut_body: Box<dyn Fn(Cut) -> Vec<u8> + Send>,
    ) -> Self {
        let Start {
            head,
            newest,
            cuts,
            open,
        } = start;
        Self {
            store,
            segment_bytes,
            head,
            confirmed: head,
            number: newest,
            segment: None,
            cut_body,
            open,
            cuts,
            entries: Vec::new(),
            lines: Vec::new(),
            written: 0,
            begun: false,
        }
    }

    /// Takes a record into the chain.
    pub(super) fn add(&mut self, entry: Entry) {
        self.begin();
        self.head.append(&entry.body, &mut self.lines);
        self.entries.push(entry);
    }

    /// Writes what was added. After an error everything is as it was, and can be tried again.
    pub(super) fn write(&mut self) -> io::Result<()> {
        if self.is_confirmed() {
            return Ok(());
        }
        let mut segment = match self.segment.take() {
            Some(segment) if segment.suspect => self.replace(segment)?,
            Some(segment) => segment,
            None => self.create()?,
        };
        let result = self.write_to(&mut segment);
        self.segment = Some(segment);
        result
    }

    /// Writes, and forces to the disk; then everything that was added is safe.
    pub(super) fn confirm(&mut self) -> io::Result<()> {
        if self.is_confirmed() {
            return Ok(());
        }
        self.write()?;
        let Some(segment) = &mut self.segment else {
            return Ok(());
        };
        if let Err(error) = segment.file.sync() {
            // The kernel may have thrown the pages away and call the next attempt a success, so
            // what is not confirmed is written anew elsewhere.
            segment.suspect = true;
            return Err(error);
        }
        segment.confirmed = segment
            .confirmed
            .saturating_add(u64::try_from(self.written).unwrap_or(u64::MAX));
        if segment.confirmed >= self.segment_bytes {
            self.segment = None;
            self.begun = false;
        }
        self.confirmed = self.head;
        self.cuts.clear();
        self.lines.clear();
        self.written = 0;
        for Entry { body, about } in self.entries.drain(..) {
            match about {
                About::Whole => {}
                About::Begins(id) => drop(self.open.insert(id, body)),
                About::Ends(id) => drop(self.open.remove(&id)),
            }
        }
        Ok(())
    }

    /// The newest record that is safe.
    pub(super) fn confirmed(&self) -> Head {
        self.confirmed
    }

    /// Whether there is nothing that the disk did not confirm.
    fn is_confirmed(&self) -> bool {
        self.lines.is_empty()
    }

    /// The lines that a segment begins with, if the next line is its first: the ends of others that do not
    /// count, then what is open.
    fn begin(&mut self) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        for cut in &self.cuts {
            self.head.append(cut, &mut self.lines);
        }
        for (body, left) in self.open.values().zip((0..self.open.len()).rev()) {
            self.head.append_carried(left, body, &mut self.lines);
        }
    }

    fn write_to(&mut self, segment: &mut Written) -> io::Result<()> {
        while let Some(rest) = self
            .lines
            .get(self.written..)
            .filter(|rest| !rest.is_empty())
        {
            match segment.file.append(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded]
                        .contains(&error.kind());
                    // A full disk refuses bytes; it does not lose those it took.
                    segment.suspect |= !full;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn create(&mut self) -> io::Result<Written> {
        let number = self.number.saturating_add(1);
        let file = match self.store.create(number) {
            Ok(file) => file,
            Err(error) => {
                // The file may exist although its making failed; an empty segment harms nobody.
                if error.kind() == io::ErrorKind::AlreadyExists {
                    self.number = number;
                }
                return Err(error);
            }
        };
        self.number = number;
        Ok(Written {
            file,
            number,
            confirmed: 0,
            suspect: false,
        })
    }

    /// Gives up a segment after its confirmed bytes, and puts what follows into the next one.
    fn replace(&mut self, failed: Written) -> io::Result<Written> {
        let cut = Cut {
            segment: failed.number,
            offset: failed.confirmed,
            bytes: u64::try_from(self.written).unwrap_or(u64::MAX),
            // Nobody can say what the disk kept of them.
            sha256: Text::default(),
        };
        let segment = match self.create() {
            Ok(segment) => segment,
            Err(error) => {
                self.segment = Some(failed);
                return Err(error);
            }
        };
        self.head = self.confirmed;
        self.lines.clear();
        self.written = 0;
        // First, so that a reader who finds any line of the new segment knows where the old one ends.
        self.cuts.insert(0, (self.cut_body)(cut));
        self.begun = false;
        self.begin();
        for entry in &self.entries {
            self.head.append(&entry.body, &mut self.lines);
        }
        Ok(segment)
    }
}
