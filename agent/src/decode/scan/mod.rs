//! Recognises MCP that is spoken to something that nobody registered, by what is said and not by names.
//!
//! The recogniser is looser than any parser on purpose: whatever one of the known servers would execute must
//! not pass as something else. So it follows the text's structure only, takes any of several duplicate keys,
//! folds case as Go does, and reads UTF-16 and UTF-32 as Python does. It holds a few hundred bytes, whatever
//! is fed.

mod machine;
mod units;

#[cfg(test)]
mod tests;

use hyper::http::HeaderMap;
use hyper::http::header::{CONTENT_TYPE, HeaderValue};

use machine::Machine;
use units::{Encoding, Units};

use crate::decode::mcp::{MCP_METHOD, MCP_NAME, MCP_PROTOCOL_VERSION, MCP_SESSION_ID};

/// What is known so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not known yet; at the end of the body: not knowable (the text is unfinished, or in a charset that is not
    /// read here). A JSON text executes only when its last bracket arrives, so what is undecided may be
    /// streamed on as long as the body can still be cut off.
    Undecided,
    /// No known server would execute this.
    NotMcp,
    /// An MCP message.
    Mcp,
}

/// What the headers of a request or response say: [`Verdict::Mcp`] when one of MCP's own stands there, never
/// [`Verdict::NotMcp`].
pub fn headers(headers: &HeaderMap) -> Verdict {
    let own = [MCP_SESSION_ID, MCP_PROTOCOL_VERSION, MCP_METHOD, MCP_NAME];
    if own.into_iter().any(|name| headers.contains_key(name)) {
        Verdict::Mcp
    } else {
        Verdict::Undecided
    }
}

/// An incremental recogniser for one body. Content codings must have been decoded before.
#[derive(Debug)]
pub struct Scanner {
    /// Some media type names a charset in which ASCII can be spelled otherwise (UTF-7).
    opaque: bool,
    /// The first bytes, until the encoding is known.
    start: Vec<u8>,
    units: Option<Units>,
    machine: Machine,
    verdict: Verdict,
}

impl Scanner {
    /// A recogniser for a body with `headers`.
    pub fn new(headers: &HeaderMap) -> Scanner {
        Scanner {
            opaque: headers.get_all(CONTENT_TYPE).iter().any(is_opaque),
            start: Vec::new(),
            units: None,
            machine: Machine::default(),
            verdict: Verdict::Undecided,
        }
    }

    /// Reads the next bytes. Once other than undecided, the verdict stays.
    pub fn push(&mut self, bytes: &[u8]) -> Verdict {
        if self.verdict != Verdict::Undecided {
            return self.verdict;
        }
        if self.units.is_none() {
            self.start
                .extend_from_slice(bytes.get(..bytes.len().min(8)).unwrap_or(bytes));
            let taken = bytes.len().min(8);
            if self.start.len() < 4 {
                return Verdict::Undecided;
            }
            self.begin();
            self.read(bytes.get(taken..).unwrap_or_default());
        } else {
            self.read(bytes);
        }
        self.verdict
    }

    /// The body ended.
    pub fn finish(&mut self) -> Verdict {
        if self.verdict == Verdict::Undecided && self.units.is_none() {
            self.begin();
        }
        // What is not a text at all cannot be executed; what is unfinished is left to the caller.
        if self.verdict == Verdict::Undecided && !self.opaque && self.machine.is_blank() {
            self.verdict = Verdict::NotMcp;
        }
        self.verdict
    }

    fn begin(&mut self) {
        let start = std::mem::take(&mut self.start);
        self.units = Some(Units::new(Encoding::of(&start)));
        self.read(&start);
    }

    fn read(&mut self, bytes: &[u8]) {
        let Some(units) = &mut self.units else { return };
        for byte in bytes {
            if self.verdict != Verdict::Undecided {
                return;
            }
            if let Some(character) = units.push(*byte) {
                self.verdict = match self.machine.push(character) {
                    Verdict::NotMcp if self.opaque => Verdict::Undecided,
                    verdict => verdict,
                };
            }
        }
    }
}

/// Charsets that are read here, or in which ASCII has no second spelling.
const CHARSETS: [&str; 9] = [
    "utf8", "utf16", "utf16le", "utf16be", "utf32", "utf32le", "utf32be", "usascii", "iso88591",
];

/// Whether a media type names a charset that this module does not read. The known servers decode only names
/// that begin with `utf-`, and of those all but UTF-7 are recognised from the bytes.
fn is_opaque(value: &HeaderValue) -> bool {
    let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
    text.split("charset").skip(1).any(|charset| {
        let name: String = charset
            .chars()
            .take_while(|character| *character != ';')
            .filter(char::is_ascii_alphanumeric)
            .collect();
        !CHARSETS.contains(&name.as_str())
    })
}
