//! JSON-RPC over standard streams: one message a line, and nothing but LF ends a line.
//!
//! Python's readers end a line at a lone CR as well, so that one valid message can hide another: a line with a
//! CR inside is no message (MCP, "Transports", stdio; one CR before the LF is what Windows writes). A line that
//! is too long is read to its end within a bound, and who waits for an answer to it is found out on the way.

mod skim;
#[cfg(test)]
mod tests;

pub use skim::Skimmed;

use self::skim::Skim;
use super::bytes::before;

/// Bytes of a line without its end: the TypeScript SDK's readers close at 10 MiB.
pub const MAX_LINE: usize = (10 << 20) - 1;

/// Room that is made for each read.
const ROOM: usize = 16 << 10;

/// What is kept of an idle buffer, so that one long line is not paid for by the whole session.
const KEPT: usize = 64 << 10;

/// What one line is.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The line without its end; not empty.
    Line(&'a [u8]),
    /// A CR stands inside the line.
    CarriageReturn,
    /// The line was longer than the limit.
    TooLong(Skimmed),
    /// The line was not to be kept ([`Lines::pass_over`]).
    PassedOver(Skimmed),
}

/// An incremental reader of one stream. Empty lines are passed over: no reader takes them for anything.
#[derive(Debug)]
pub struct Lines {
    limit: usize,
    buffer: Vec<u8>,
    /// Where the unfinished line begins.
    start: usize,
    /// Up to where no LF was found.
    searched: usize,
    /// Set while a line that is too long is read to its end.
    skim: Option<Skim>,
    /// It would not be too long.
    passed_over: bool,
}

impl Lines {
    /// A reader at the start of a stream, of lines of up to `limit` bytes.
    pub fn new(limit: usize) -> Lines {
        Lines {
            limit,
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            skim: None,
            passed_over: false,
        }
    }

    /// Where the stream's next bytes are to be appended, with room for some. To be called when [`Lines::next`]
    /// has nothing more.
    pub fn space(&mut self) -> &mut Vec<u8> {
        self.buffer.drain(..self.start.min(self.buffer.len()));
        self.searched = self.searched.saturating_sub(self.start);
        self.start = 0;
        if self.buffer.len() <= ROOM && self.buffer.capacity() > KEPT {
            self.buffer.shrink_to(ROOM);
        }
        self.buffer.reserve(ROOM);
        &mut self.buffer
    }

    /// The next whole line among what was appended.
    #[expect(
        clippy::should_implement_trait,
        reason = "lends from itself, which an iterator cannot"
    )]
    pub fn next(&mut self) -> Option<Frame<'_>> {
        loop {
            let new = self.buffer.get(self.searched..).unwrap_or_default();
            let length = before(new, 0, [b'\n']);
            let end = self.searched.saturating_add(length);
            let whole = end < self.buffer.len();
            let begin = self.start;
            self.searched = if whole { end.saturating_add(1) } else { end };
            if self.skim.is_some() || end.saturating_sub(begin) > self.limit {
                let part = self.buffer.get(begin..end).unwrap_or_default();
                let mut skim = self.skim.take().unwrap_or_default();
                skim.read(part);
                self.start = self.searched;
                if whole {
                    let skimmed = skim.end();
                    return Some(if std::mem::take(&mut self.passed_over) {
                        Frame::PassedOver(skimmed)
                    } else {
                        Frame::TooLong(skimmed)
                    });
                }
                self.skim = Some(skim);
                return None;
            }
            if !whole {
                return None;
            }
            self.start = self.searched;
            let line = self.buffer.get(begin..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                continue;
            }
            // Borrowed anew, since a borrow that is returned lasts for the whole loop.
            let (from, to) = (begin, begin.saturating_add(line.len()));
            if before(line, 0, [b'\r']) < line.len() {
                return Some(Frame::CarriageReturn);
            }
            return self.buffer.get(from..to).map(Frame::Line);
        }
    }

    /// What is kept of what was appended, in bytes.
    pub fn held(&self) -> usize {
        self.buffer.len().saturating_sub(self.start)
    }

    /// Keeps nothing more of the unfinished line: it is read to its end like one that is too long. To be called when
    /// [`Lines::next`] has nothing more.
    pub fn pass_over(&mut self) {
        self.passed_over |= self.skim.is_none();
        let mut skim = self.skim.take().unwrap_or_default();
        skim.read(self.buffer.get(self.start..).unwrap_or_default());
        self.skim = Some(skim);
        self.buffer = Vec::new();
        self.start = 0;
        self.searched = 0;
    }

    /// At the stream's end: whether a line was begun and not ended. Readers differ on such a line (TypeScript
    /// drops it, Python takes it), so it is nothing.
    pub fn is_unfinished(&self) -> bool {
        self.skim.is_some() || self.start < self.buffer.len()
    }
}
