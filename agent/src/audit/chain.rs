//! The line of a record and the chain through all of them.
//!
//! A line is one JSON object and a line feed:
//! `{"v":1,"seq":N,"prev":"<64 hex>",` … `,"hash":"<64 hex>"}`. `hash` is the SHA-256 of the line
//! without its member `hash` (and without the line feed), byte for byte: everything before
//! `,"hash":`, and the closing brace. `prev` is the `hash` of the record before, zeros for the
//! first. So any tool can check a line without parsing or re-serialising JSON.

use std::fmt::{self, Debug, Display, Formatter};
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256, digest};

/// The version of the lines' schema.
pub const VERSION: u32 = 1;

/// `,"hash":"` + 64 digits + `"}`.
const TAIL: usize = 75;

/// How each line begins.
const OPENING: &[u8] = b"{\"v\":1,\"seq\":";

/// The SHA-256 that a record's line carries as `hash`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

/// Where a chain stands: its newest record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// That record's number; 0 before the first.
    pub seq: u64,
    /// That record's hash; zeros before the first.
    pub hash: Digest,
}

/// What the chain says of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) seq: u64,
    pub(super) prev: Digest,
    pub(super) hash: Digest,
}

/// What is wrong with a line by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    /// It does not begin and end as a record's line does.
    #[error("the line has not the form of a record")]
    Form,
    /// Its hash is not that of its bytes.
    #[error("the line's hash is not that of its bytes")]
    Hash,
}

impl Head {
    /// Appends the line of the next record, whose members `body` holds as a JSON object.
    pub(super) fn append(&mut self, body: &[u8], lines: &mut Vec<u8>) {
        self.append_with(&[], body, lines);
    }

    /// Appends the line of an exchange that is still open where a segment begins; `left` more of them follow.
    pub(super) fn append_carried(&mut self, left: usize, body: &[u8], lines: &mut Vec<u8>) {
        self.append_with(format!("\"carried\":{left},").as_bytes(), body, lines);
    }

    fn append_with(&mut self, first: &[u8], body: &[u8], lines: &mut Vec<u8>) {
        let members = body.strip_prefix(b"{").unwrap_or(body);
        let start = lines.len();
        self.seq = self.seq.saturating_add(1);
        lines.reserve(members.len() + 192);
        lines.extend_from_slice(OPENING);
        lines.extend_from_slice(self.seq.to_string().as_bytes());
        lines.extend_from_slice(b",\"prev\":\"");
        lines.extend_from_slice(&self.hash.hexadecimal());
        lines.extend_from_slice(b"\",");
        lines.extend_from_slice(first);
        lines.extend_from_slice(members);
        self.hash = Digest::of(lines.get(start..).unwrap_or_default());
        lines.truncate(lines.len().saturating_sub(1));
        lines.extend_from_slice(b",\"hash\":\"");
        lines.extend_from_slice(&self.hash.hexadecimal());
        lines.extend_from_slice(b"\"}\n");
    }

    /// Whether `link` is the record after this one.
    pub(super) fn precedes(&self, link: &Link) -> bool {
        self.seq.checked_add(1) == Some(link.seq) && self.hash == link.prev
    }
}

impl Link {
    /// Reads a line (without its line feed) and checks its hash.
    pub(super) fn read(line: &[u8]) -> Result<Self, LineFault> {
        let (content, tail) = line
            .len()
            .checked_sub(TAIL)
            .and_then(|at| line.split_at_checked(at))
            .ok_or(LineFault::Form)?;
        let hash = tail
            .strip_prefix(b",\"hash\":\"")
            .and_then(|tail| tail.strip_suffix(b"\"}"))
            .and_then(Digest::read)
            .ok_or(LineFault::Form)?;
        let rest = content.strip_prefix(OPENING).ok_or(LineFault::Form)?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (seq, rest) = rest.split_at_checked(digits).ok_or(LineFault::Form)?;
        let seq = str::from_utf8(seq)
            .ok()
            .and_then(|seq| seq.parse().ok())
            .ok_or(LineFault::Form)?;
        let prev = rest
            .strip_prefix(b",\"prev\":\"")
            .and_then(|rest| rest.get(..64))
            .and_then(Digest::read)
            .ok_or(LineFault::Form)?;
        let mut hashed = Context::new(&SHA256);
        hashed.update(content);
        hashed.update(b"}");
        if Digest::finish(hashed) != hash {
            return Err(LineFault::Hash);
        }
        Ok(Self { seq, prev, hash })
    }

    pub(super) const fn head(&self) -> Head {
        Head {
            seq: self.seq,
            hash: self.hash,
        }
    }
}

/// A line's body again, as it was given to [`Head::append`]; the line is not checked.
pub(super) fn body(line: &[u8]) -> Option<Vec<u8>> {
    let members = line.get(..line.len().checked_sub(TAIL)?)?;
    let start = members.windows(6).position(|part| part == b"\"id\":\"")?;
    Some([b"{", members.get(start..)?, b"}"].concat())
}

/// The number of a line's record; the line is not checked.
pub(super) fn seq(line: &[u8]) -> Option<u64> {
    let rest = line.strip_prefix(OPENING)?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()
}

impl Digest {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self::from_slice(digest(&SHA256, bytes).as_ref())
    }

    pub(super) fn finish(context: Context) -> Self {
        Self::from_slice(context.finish().as_ref())
    }

    fn from_slice(bytes: &[u8]) -> Self {
        // SHA-256 has 32 bytes; anything else would be a broken library and matches nothing.
        Self(bytes.try_into().unwrap_or([0xff; 32]))
    }

    fn hexadecimal(self) -> [u8; 64] {
        const DIGITS: [u8; 16] = *b"0123456789abcdef";
        let mut text = [b'0'; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            if let [high, low] = pair {
                *high = DIGITS
                    .get(usize::from(byte >> 4))
                    .copied()
                    .unwrap_or_default();
                *low = DIGITS
                    .get(usize::from(byte & 15))
                    .copied()
                    .unwrap_or_default();
            }
        }
        text
    }

    fn read(text: &[u8]) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut digest = [0; 32];
        if text.len() != 64 {
            return None;
        }
        for (byte, pair) in digest.iter_mut().zip(text.chunks_exact(2)) {
            let [high, low] = pair else { return None };
            *byte = (digit(*high)? << 4) | digit(*low)?;
        }
        Some(Self(digest))
    }
}

impl Display for Digest {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.hexadecimal()))
    }
}

impl Debug for Digest {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = LineFault;

    fn from_str(text: &str) -> Result<Self, LineFault> {
        Self::read(text.as_bytes()).ok_or(LineFault::Form)
    }
}
