//! From serialised records to confirmed bytes on a disk that may fail at any time.

#[cfg(test)]
mod tests;

use std::io;
use std::mem;

use super::directory::{Segment, Store};
use crate::audit::chain::Head;
use crate::audit::record::Cut;
use crate::audit::text::Text;

/// The chain being written.
///
/// INVARIANT: a body that was given to `add` is either confirmed by the disk or still in
/// `bodies`; it is in the chain once.
pub(super) struct Journal {
    store: Box<dyn Store>,
    segment_bytes: u64,
    /// The newest record, written or not.
    head: Head,
    /// The newest record that the disk confirmed.
    confirmed: Head,
    /// The newest segment.
    number: u64,
    open: Option<Open>,
    /// Makes the body of the `log_cut` record of a segment that failed.
    cut_body: Box<dyn Fn(Cut) -> Vec<u8> + Send>,
    /// Since the last confirmation: the records' bodies, their lines, and how many bytes of the
    /// lines are written.
    bodies: Vec<Vec<u8>>,
    lines: Vec<u8>,
    written: usize,
}

struct Open {
    file: Box<dyn Segment>,
    number: u64,
    /// Bytes that the disk confirmed.
    confirmed: u64,
    /// The disk failed in a way that leaves unknown what it holds.
    suspect: bool,
}

impl Journal {
    /// Continues after the record `head` and the segment `number`, in a segment of its own.
    pub(super) fn new(
        store: Box<dyn Store>,
        segment_bytes: u64,
        head: Head,
        number: u64,
        cut_body: Box<dyn Fn(Cut) -> Vec<u8> + Send>,
    ) -> Self {
        Self {
            store,
            segment_bytes,
            head,
            confirmed: head,
            number,
            open: None,
            cut_body,
            bodies: Vec::new(),
            lines: Vec::new(),
            written: 0,
        }
    }

    /// Takes a record into the chain.
    pub(super) fn add(&mut self, body: Vec<u8>) {
        self.head.append(&body, &mut self.lines);
        self.bodies.push(body);
    }

    /// Writes what was added. After an error everything is as it was, and can be tried again.
    pub(super) fn write(&mut self) -> io::Result<()> {
        let mut open = match self.open.take() {
            Some(open) if open.suspect => self.replace(open)?,
            Some(open) => open,
            None => self.create()?,
        };
        let result = self.write_to(&mut open);
        self.open = Some(open);
        result
    }

    /// Writes, and forces to the disk; then everything that was added is safe.
    pub(super) fn confirm(&mut self) -> io::Result<()> {
        self.write()?;
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        if let Err(error) = open.file.sync() {
            // The kernel may have thrown the pages away and call the next attempt a success, so
            // what is not confirmed is written anew elsewhere.
            open.suspect = true;
            return Err(error);
        }
        open.confirmed = open
            .confirmed
            .saturating_add(u64::try_from(self.written).unwrap_or(u64::MAX));
        if open.confirmed >= self.segment_bytes {
            self.open = None;
        }
        self.confirmed = self.head;
        self.bodies.clear();
        self.lines.clear();
        self.written = 0;
        Ok(())
    }

    /// The newest record that is safe.
    pub(super) fn confirmed(&self) -> Head {
        self.confirmed
    }

    fn write_to(&mut self, open: &mut Open) -> io::Result<()> {
        while let Some(rest) = self
            .lines
            .get(self.written..)
            .filter(|rest| !rest.is_empty())
        {
            match open.file.append(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded]
                        .contains(&error.kind());
                    // A full disk refuses bytes; it does not lose those it took.
                    open.suspect |= !full;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn create(&mut self) -> io::Result<Open> {
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
        Ok(Open {
            file,
            number,
            confirmed: 0,
            suspect: false,
        })
    }

    /// Gives up a segment after its confirmed bytes, and puts what follows into the next one.
    fn replace(&mut self, failed: Open) -> io::Result<Open> {
        let cut = Cut {
            segment: failed.number,
            offset: failed.confirmed,
            bytes: u64::try_from(self.written).unwrap_or(u64::MAX),
            // Nobody can say what the disk kept of them.
            sha256: Text::default(),
        };
        let open = match self.create() {
            Ok(open) => open,
            Err(error) => {
                self.open = Some(failed);
                return Err(error);
            }
        };
        self.head = self.confirmed;
        self.lines.clear();
        self.written = 0;
        let bodies = mem::take(&mut self.bodies);
        self.add((self.cut_body)(cut));
        for body in bodies {
            self.add(body);
        }
        Ok(open)
    }
}
