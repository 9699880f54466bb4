//! The lines of one segment.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};

use super::MAX_LINE;

/// A line without its line feed.
pub(super) struct Line {
    pub(super) bytes: Vec<u8>,
    /// Counted from 1.
    pub(super) number: u64,
    /// Where the line after it begins.
    pub(super) end: u64,
}

/// Complete lines up to a limit; what follows the last line feed is being written or torn.
pub(super) struct Lines {
    reader: BufReader<File>,
    limit: u64,
    number: u64,
    offset: u64,
}

impl Lines {
    pub(super) fn new(file: File, limit: Option<u64>) -> Self {
        let reader = BufReader::with_capacity(1 << 16, file);
        Self {
            reader,
            limit: limit.unwrap_or(u64::MAX),
            number: 0,
            offset: 0,
        }
    }

    /// What is left after the last complete line.
    pub(super) fn into_rest(self) -> BufReader<File> {
        self.reader
    }
}

impl Iterator for Lines {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<io::Result<Line>> {
        if self.offset >= self.limit {
            return None;
        }
        let mut bytes = Vec::with_capacity(1_024);
        let read = self
            .reader
            .by_ref()
            .take(MAX_LINE)
            .read_until(b'\n', &mut bytes);
        if let Err(error) = read {
            self.limit = 0;
            return Some(Err(error));
        }
        let complete = bytes.pop_if(|last| *last == b'\n').is_some();
        let length = bytes.len() + usize::from(complete);
        // A piece of an endless line is passed on, and found out as no record.
        if !complete && u64::try_from(length).unwrap_or(u64::MAX) < MAX_LINE {
            return None;
        }
        self.number += 1;
        self.offset = self
            .offset
            .saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        Some(Ok(Line {
            bytes,
            number: self.number,
            end: self.offset,
        }))
    }
}
