//! The structure of a JSON text, followed character by character with bounded memory.

use super::Verdict;
use crate::decode::mcp::METHODS;

/// Longer than any word that matters, escapes decoded.
const WORD: usize = 64;

/// Follows one text. Depth 0 is outside; the interesting objects are the root, or the elements of a root array.
#[derive(Debug, Default)]
pub(super) struct Machine {
    depth: u64,
    /// The root is an array, so that messages stand one level deeper.
    batch: bool,
    begun: bool,
    /// Inside a string.
    string: Option<Text>,
    /// The last finished string at the level of a message, until it is known to be key or value.
    word: Option<Word>,
    /// The key whose value is being read.
    key: Option<Key>,
    /// Whether the text is inside `params` or `result`.
    outer: Outer,
    evidence: Evidence,
}

/// What was seen of the present message: bits, because any of them may come first.
#[derive(Debug, Clone, Copy, Default)]
struct Evidence(u8);

impl Evidence {
    /// `jsonrpc` was `2.0`; every known server demands it.
    const VERSION: u8 = 1;
    /// `method` was one of the protocol's.
    const METHOD: u8 = 1 << 1;
    /// A key of `_meta` of the modern era, below `params` or `result`.
    const ENVELOPE: u8 = 1 << 2;
    /// `protocolVersion`, and a party's own words: an initialize request or result.
    const REVISION: u8 = 1 << 3;
    const PARTY: u8 = 1 << 4;
    /// `tools`, and an `inputSchema`: a list of tools.
    const TOOLS: u8 = 1 << 5;
    const SCHEMA: u8 = 1 << 6;

    fn add(&mut self, bit: u8) {
        self.0 |= bit;
    }

    fn is_enough(self) -> bool {
        let all = |bits: u8| self.0 & bits == bits;
        all(Self::VERSION)
            && (all(Self::METHOD)
                || all(Self::ENVELOPE)
                || all(Self::REVISION | Self::PARTY)
                || all(Self::TOOLS | Self::SCHEMA))
    }
}

/// Members of a message that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Version,
    Method,
    Params,
    Other,
}

/// Where below `params` the text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Outer {
    #[default]
    Elsewhere,
    Params,
}

/// A string being read.
#[derive(Debug, Default)]
struct Text {
    word: Word,
    escape: Escape,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    Backslash,
    Hex(u8, u32),
}

/// A decoded string, cut: longer ones equal nothing that matters.
#[derive(Debug, Default)]
struct Word {
    text: String,
    overlong: bool,
}

impl Word {
    fn push(&mut self, character: char) {
        if self.text.len() < WORD {
            self.text.push(character);
        } else {
            self.overlong = true;
        }
    }

    fn is(&self, text: &str) -> bool {
        !self.overlong && self.text == text
    }

    /// The word in lower case, with the two letters that Go folds to ASCII (raw UTF-8 arrives byte by byte).
    fn folded(&self) -> String {
        self.text
            .replace(['\u{17f}'], "s")
            .replace("\u{c5}\u{bf}", "s")
            .replace(['\u{212a}'], "k")
            .replace("\u{e2}\u{84}\u{aa}", "k")
            .to_ascii_lowercase()
    }
}

impl Machine {
    /// Whether nothing but whitespace came.
    pub(super) fn is_blank(&self) -> bool {
        !self.begun
    }

    pub(super) fn push(&mut self, character: char) -> Verdict {
        if let Some(text) = &mut self.string {
            if text.push(character) {
                let word = self.string.take().map(|text| text.word);
                self.end_string(word.unwrap_or_default());
                return self.verdict();
            }
            return Verdict::Undecided;
        }
        match character {
            // A mark is tolerated in front by half of the servers; its bytes arrive one by one in UTF-8.
            '\u{feff}' | '\u{ef}' | '\u{bb}' | '\u{bf}' if !self.begun => {}
            ' ' | '\t' | '\n' | '\r' => {}
            _ if !self.begun => return self.begin(character),
            '"' => self.string = Some(Text::default()),
            '{' | '[' => self.open(character),
            '}' | ']' => return self.close(),
            ':' => {
                self.colon();
                return self.verdict();
            }
            ',' => self.comma(),
            _ => {}
        }
        Verdict::Undecided
    }

    fn begin(&mut self, character: char) -> Verdict {
        self.begun = true;
        match character {
            '{' => {}
            '[' => self.batch = true,
            _ => return Verdict::NotMcp,
        }
        self.open(character);
        Verdict::Undecided
    }

    /// The depth at which members of a message stand.
    fn level(&self) -> u64 {
        if self.batch { 2 } else { 1 }
    }

    fn open(&mut self, character: char) {
        self.word = None;
        if self.depth == self.level() && self.key == Some(Key::Params) && character == '{' {
            self.outer = Outer::Params;
        }
        self.depth = self.depth.saturating_add(1);
        if self.depth == self.level() {
            self.evidence = Evidence::default();
            self.key = None;
        }
    }

    fn close(&mut self) -> Verdict {
        self.word = None;
        self.depth = self.depth.saturating_sub(1);
        if self.depth <= self.level() {
            self.outer = Outer::Elsewhere;
        }
        if self.depth == 0 {
            Verdict::NotMcp
        } else {
            Verdict::Undecided
        }
    }

    fn colon(&mut self) {
        let Some(word) = self.word.take() else { return };
        if word.overlong {
            self.key = Some(Key::Other);
            return;
        }
        let word = word.folded();
        if self.depth == self.level() {
            self.key = Some(match word.as_str() {
                "jsonrpc" => Key::Version,
                "method" => Key::Method,
                "params" | "result" => Key::Params,
                _ => Key::Other,
            });
        } else if self.outer == Outer::Params {
            // `_meta` of every modern message, whatever its method.
            if word.starts_with("io.modelcontextprotocol/") {
                self.evidence.add(Evidence::ENVELOPE);
            }
            let member = self.depth == self.level().saturating_add(1);
            match word.as_str() {
                "protocolversion" if member => self.evidence.add(Evidence::REVISION),
                "clientinfo" | "serverinfo" if member => self.evidence.add(Evidence::PARTY),
                "tools" if member => self.evidence.add(Evidence::TOOLS),
                "inputschema" => self.evidence.add(Evidence::SCHEMA),
                _ => {}
            }
        }
    }

    fn comma(&mut self) {
        self.word = None;
        if self.depth == self.level() {
            self.key = None;
        }
    }

    fn end_string(&mut self, word: Word) {
        if self.depth == self.level() {
            match self.key {
                Some(Key::Version) if word.is("2.0") => self.evidence.add(Evidence::VERSION),
                Some(Key::Method) if METHODS.iter().any(|method| word.is(method.name)) => {
                    self.evidence.add(Evidence::METHOD);
                }
                _ => {}
            }
        }
        self.word = Some(word);
    }

    fn verdict(&self) -> Verdict {
        if self.evidence.is_enough() {
            Verdict::Mcp
        } else {
            Verdict::Undecided
        }
    }
}

impl Text {
    /// Takes a character; true when the string ends with it.
    fn push(&mut self, character: char) -> bool {
        match self.escape {
            Escape::None => match character {
                '"' => return true,
                '\\' => self.escape = Escape::Backslash,
                other => self.word.push(other),
            },
            Escape::Backslash => {
                self.escape = Escape::None;
                match character {
                    'u' => self.escape = Escape::Hex(0, 0),
                    'b' => self.word.push('\u{8}'),
                    'f' => self.word.push('\u{c}'),
                    'n' => self.word.push('\n'),
                    'r' => self.word.push('\r'),
                    't' => self.word.push('\t'),
                    other => self.word.push(other),
                }
            }
            Escape::Hex(count, code) => {
                let Some(digit) = character.to_digit(16) else {
                    // Not JSON; no server executes it. Read on as if it were text.
                    self.escape = Escape::None;
                    return self.push(character);
                };
                let code = code.wrapping_shl(4) | digit;
                self.escape = if count >= 3 {
                    self.word
                        .push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                    Escape::None
                } else {
                    Escape::Hex(count.saturating_add(1), code)
                };
            }
        }
        false
    }
}
