//! Bytes to characters, in the encodings that a server may guess from a JSON text's first bytes.

/// How wide a unit is and which end comes first (RFC 4627 section 3; Python's `json.detect_encoding`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Utf8,
    Utf16Le,
    Utf16Be,
    Utf32Le,
    Utf32Be,
}

impl Encoding {
    /// By byte order mark, else by where the zero bytes of an ASCII character stand.
    pub(super) fn of(start: &[u8]) -> Encoding {
        let byte = |place: usize| start.get(place).copied();
        match (byte(0), byte(1), byte(2), byte(3)) {
            (Some(0xFF), Some(0xFE), Some(0), Some(0)) | (Some(1..), Some(0), Some(0), Some(0)) => {
                Encoding::Utf32Le
            }
            (Some(0), Some(0), Some(0xFE), Some(0xFF)) | (Some(0), Some(0), Some(0), Some(_)) => {
                Encoding::Utf32Be
            }
            (Some(0xFF), Some(0xFE), ..) | (Some(1..), Some(0), ..) => Encoding::Utf16Le,
            (Some(0xFE), Some(0xFF), ..) | (Some(0), Some(_), ..) => Encoding::Utf16Be,
            _ => Encoding::Utf8,
        }
    }
}

/// Gathers units.
#[derive(Debug)]
pub(super) struct Units {
    encoding: Encoding,
    held: u32,
    count: u8,
}

impl Units {
    pub(super) fn new(encoding: Encoding) -> Units {
        Units {
            encoding,
            held: 0,
            count: 0,
        }
    }

    /// The character that `byte` completes. What is not ASCII need not be told apart, except the two letters
    /// that fold to ASCII; in UTF-8 these are found later, so each byte above ASCII stands for itself there.
    pub(super) fn push(&mut self, byte: u8) -> Option<char> {
        let width = match self.encoding {
            Encoding::Utf8 => return Some(char::from(byte)),
            Encoding::Utf16Le | Encoding::Utf16Be => 2,
            Encoding::Utf32Le | Encoding::Utf32Be => 4,
        };
        self.held = match self.encoding {
            Encoding::Utf16Be | Encoding::Utf32Be => self.held.wrapping_shl(8) | u32::from(byte),
            _ => {
                let shift = u32::from(self.count).wrapping_mul(8);
                self.held | u32::from(byte).wrapping_shl(shift)
            }
        };
        self.count = self.count.saturating_add(1);
        if self.count < width {
            return None;
        }
        self.count = 0;
        let unit = std::mem::take(&mut self.held);
        Some(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER))
    }
}
