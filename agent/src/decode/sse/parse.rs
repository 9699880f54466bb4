//! The reader: bytes in any portions, whole blocks out.

use thiserror::Error;

use super::{Event, Item};
use crate::decode::bytes::before;

/// Bounds on one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all lines of a block, comments and unknown fields included.
    pub bytes: usize,
    /// Lines of a block.
    pub lines: usize,
}

impl Default for Limits {
    /// 10 MiB as the TypeScript clients take, and lines for a pretty-printed message of that size.
    fn default() -> Limits {
        Limits {
            bytes: 10 << 20,
            lines: 1 << 18,
        }
    }
}

/// Why a stream was cut. Nothing of the block in question was given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SseFault {
    /// A block of more bytes than the limit.
    #[error("event of more than {limit} bytes")]
    TooLarge {
        /// [`Limits::bytes`].
        limit: usize,
    },
    /// A block of more lines than the limit.
    #[error("event of more than {limit} lines")]
    TooManyLines {
        /// [`Limits::lines`].
        limit: usize,
    },
    /// Bytes that are not UTF-8, which clients replace or refuse, each its way.
    #[error("event stream that is not UTF-8")]
    NotUtf8,
}

/// An incremental reader of one stream.
#[derive(Debug)]
pub struct Parser {
    limits: Limits,
    /// The unfinished line.
    line: Vec<u8>,
    /// The unfinished block.
    block: Event,
    bytes: usize,
    lines: usize,
    /// The last byte was a CR: an LF that follows belongs to it.
    after_cr: bool,
    /// No line has ended yet, so that a byte order mark may stand before it.
    at_start: bool,
    /// Said again by every later call.
    fault: Option<SseFault>,
}

impl Parser {
    /// A reader at the start of a stream.
    pub fn new(limits: Limits) -> Parser {
        Parser {
            limits,
            line: Vec::new(),
            block: Event::default(),
            bytes: 0,
            lines: 0,
            after_cr: false,
            at_start: true,
            fault: None,
        }
    }

    /// Reads `bytes` and appends what they complete to `out`.
    ///
    /// # Errors
    /// A [`SseFault`]; the stream is then over, and every later call says the same.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<Item>) -> Result<(), SseFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        self.read(bytes, out).inspect_err(|fault| {
            self.fault = Some(*fault);
            self.line = Vec::new();
            self.block = Event::default();
        })
    }

    /// What is kept of a block that has not ended, in bytes.
    pub fn held(&self) -> usize {
        self.bytes
    }

    /// Whether the stream ended inside a block. Such a block is no event (section 9.2.6): it is not given out.
    pub fn is_between_events(&self) -> bool {
        self.line.is_empty() && self.lines == 0
    }

    fn read(&mut self, bytes: &[u8], out: &mut Vec<Item>) -> Result<(), SseFault> {
        let mut rest = bytes;
        while let Some(first) = rest.first() {
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            let end = before(rest, 0, [b'\r', b'\n']);
            let (part, tail) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            self.bytes = self.bytes.saturating_add(part.len());
            if self.bytes > self.limits.bytes {
                return Err(SseFault::TooLarge {
                    limit: self.limits.bytes,
                });
            }
            if tail.is_empty() {
                self.line.extend_from_slice(part);
                return Ok(());
            }
            self.after_cr = tail.first() == Some(&b'\r');
            if self.line.is_empty() {
                self.end_line(part, out)?;
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(part);
                self.end_line(&line, out)?;
                line.clear();
                // Kept for its capacity, unless one large event should not be paid for by the whole stream.
                if line.capacity() <= 64 << 10 {
                    self.line = line;
                }
            }
            rest = tail.get(1..).unwrap_or_default();
        }
        Ok(())
    }

    fn end_line(&mut self, line: &[u8], out: &mut Vec<Item>) -> Result<(), SseFault> {
        let mut line = std::str::from_utf8(line).map_err(|_unreadable| SseFault::NotUtf8)?;
        if std::mem::take(&mut self.at_start) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            self.end_block(out);
            return Ok(());
        }
        self.lines = self.lines.saturating_add(1);
        if self.lines > self.limits.lines {
            return Err(SseFault::TooManyLines {
                limit: self.limits.lines,
            });
        }
        self.field(line, out);
        Ok(())
    }

    fn field(&mut self, line: &str, out: &mut Vec<Item>) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            // A comment. Inside a block it is dropped: the block's own end will do as a sign of life.
            "" if self.block == Event::default() => out.push(Item::KeepAlive),
            "data" => match &mut self.block.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                none => *none = Some(value.to_owned()),
            },
            "event" => self.block.name = Some(value.to_owned()),
            "id" if !value.contains('\0') => self.block.id = Some(value.to_owned()),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.block.retry = value.parse().ok();
            }
            _ => {}
        }
    }

    fn end_block(&mut self, out: &mut Vec<Item>) {
        self.bytes = 0;
        self.lines = 0;
        let block = std::mem::take(&mut self.block);
        if block != Event::default() {
            out.push(Item::Event(block));
        }
    }
}
