//! Who waits for an answer to a line that is too long to be held: the `id` at the top of the object, wherever
//! it stands, found without keeping the line.

use crate::decode::json::{self, Limits};
use crate::decode::rpc::{Id, Message};

/// Bytes of an id or a key that are kept.
const KEPT: usize = 300;

/// What was seen of a long line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skimmed {
    /// The id, where one stands there, once, and it is one that a message may have.
    pub id: Option<Id>,
    /// A `method`: it is a call, not an answer.
    pub calls: bool,
    /// A `result` or an `error`: it is an answer.
    pub answers: bool,
}

impl Skimmed {
    /// The same of a message that was read.
    pub fn of(message: &Message) -> Self {
        let calls = message.method().is_some();
        Self {
            id: message.id().cloned(),
            calls,
            answers: !calls,
        }
    }

    /// Whose answer it is, where it is one.
    pub fn answered(&self) -> Option<&Id> {
        self.id.as_ref().filter(|_| self.answers && !self.calls)
    }
}

/// Follows the text's structure only: strings, brackets, and the keys of the outermost object.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a thing of its own that was or was not seen"
)]
#[derive(Debug, Default)]
pub(super) struct Skim {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// The next string of the outermost object is a key.
    at_key: bool,
    /// What is being kept: a key, or the id.
    kept: Vec<u8>,
    keeps: Keeps,
    key: Key,
    id: Option<Vec<u8>>,
    ids: usize,
    calls: bool,
    answers: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Keeps {
    #[default]
    Nothing,
    Key,
    Id,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Key {
    #[default]
    Other,
    Id,
}

impl Skim {
    pub(super) fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.byte(*byte);
        }
    }

    fn byte(&mut self, byte: u8) {
        if self.in_string {
            self.keep(byte);
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    self.in_string = false;
                    if self.keeps == Keeps::Key {
                        self.end_key();
                    }
                }
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => {
                self.in_string = true;
                if self.depth == 1 && self.at_key {
                    self.kept.clear();
                    self.keeps = Keeps::Key;
                }
                self.keep(byte);
            }
            b'{' | b'[' => {
                self.keep(byte);
                self.depth = self.depth.saturating_add(1);
                self.at_key = self.depth == 1 && byte == b'{';
            }
            b'}' | b']' => {
                if self.depth == 1 {
                    self.end_value();
                } else {
                    self.keep(byte);
                }
                self.depth = self.depth.saturating_sub(1);
            }
            b':' if self.depth == 1 && self.at_key => {
                self.at_key = false;
                if self.key == Key::Id {
                    self.kept.clear();
                    self.keeps = Keeps::Id;
                }
            }
            b',' if self.depth == 1 => {
                self.end_value();
                self.at_key = true;
            }
            _ => self.keep(byte),
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.keeps != Keeps::Nothing && self.kept.len() <= KEPT {
            self.kept.push(byte);
        }
    }

    fn end_key(&mut self) {
        self.keeps = Keeps::Nothing;
        // A key that is spelled with escapes is not looked through: nobody honest writes one.
        self.key = Key::Other;
        match self.kept.as_slice() {
            b"\"id\"" => self.key = Key::Id,
            b"\"method\"" => self.calls = true,
            b"\"result\"" | b"\"error\"" => self.answers = true,
            _ => {}
        }
    }

    fn end_value(&mut self) {
        if self.keeps == Keeps::Id {
            self.ids = self.ids.saturating_add(1);
            self.id = Some(std::mem::take(&mut self.kept));
        }
        self.keeps = Keeps::Nothing;
        self.key = Key::Other;
    }

    pub(super) fn end(self) -> Skimmed {
        let read = |text: Vec<u8>| {
            let value = json::parse(&text, &Limits::REQUEST).ok()?;
            Id::read(&value)
        };
        Skimmed {
            id: self.id.filter(|_| self.ids == 1).and_then(read),
            calls: self.calls,
            answers: self.answers,
        }
    }
}
