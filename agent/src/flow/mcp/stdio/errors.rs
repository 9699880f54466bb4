//! A server's standard error: no protocol, but text that hosts show and log. Forwarded line by line with secrets
//! masked, never faster than a bound, and not at all to a host that does not read it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::audit::mask;
use crate::forward::stream::{Sink, Source};

/// The longest line that is forwarded whole, in bytes with its end: none has to be held longer.
const LINE: usize = 64 << 10;
/// What stands for the rest of a longer one. What is secret there depends on what stood before it.
const REST: &str = "[masked: the rest of a line of more than 64 KiB]";
/// The longest private key that is taken for one, in bytes: where none ends, what follows is forwarded again.
const KEY: usize = 64 << 10;
/// More than where a key begins or ends takes, in bytes.
const MARK: usize = 128;
/// Bytes that are read at once.
const READ: usize = 16 << 10;
/// Bytes that may come at once.
const BURST: u64 = 4 << 20;
/// Bytes a second after that: a flood must not occupy the gate.
const RATE: u64 = 1 << 20;

/// Forwards `from` to `to` until either ends. A server whose host reads no more writes on, to nobody.
pub(super) async fn forward(from: Source, to: Sink) {
    let mut to = Some(to);
    let mut buffer = Vec::new();
    let mut masking = Masking::default();
    let mut allowance = Allowance::new(Instant::now());
    loop {
        buffer.clear();
        buffer.reserve(READ);
        let read = match from.read(&mut buffer).await {
            Ok(read) => read,
            Err(error) => {
                tracing::debug!(%error, "a server's standard error failed");
                0
            }
        };
        let text = if read == 0 {
            masking.end()
        } else {
            masking.push(&buffer)
        };
        if let Some(sink) = &mut to
            && !text.is_empty()
            && sink.write_all(text.as_bytes()).await.is_err()
        {
            to = None;
        }
        if read == 0 {
            return;
        }
        let wait = allowance.take(u64::try_from(read).unwrap_or(u64::MAX), Instant::now());
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }
}

/// Masks line by line. What comes of a text does not depend on the pieces in which it is read.
#[derive(Default)]
struct Masking {
    /// The beginning of a line, of at most [`LINE`] bytes.
    line: Vec<u8>,
    /// The line was longer, and nothing more of it is forwarded.
    cut: bool,
    /// A private key began in what is over: how long it may still be.
    key: usize,
    /// The last bytes of what is not forwarded of a longer line: a key may begin or end there, too.
    beyond: Vec<u8>,
}

impl Masking {
    /// What can be forwarded now that `bytes` were read.
    fn push(&mut self, bytes: &[u8]) -> String {
        let mut out = String::new();
        // What redraws its line begins it anew by a carriage return.
        for piece in bytes.split_inclusive(|byte| b"\n\r".contains(byte)) {
            let room = if self.cut {
                0
            } else {
                LINE.saturating_sub(self.line.len())
            };
            let (kept, beyond) = piece.split_at(room.min(piece.len()));
            self.line.extend_from_slice(kept);
            if !beyond.is_empty() {
                if !self.cut {
                    self.cut(&mut out);
                }
                self.pass_over(beyond);
            }
            if let Some(end @ (b'\n' | b'\r')) = piece.last() {
                out.push_str(&self.masked());
                self.beyond.clear();
                if std::mem::take(&mut self.cut) {
                    out.push(char::from(*end));
                }
            }
        }
        out
    }

    /// What is left when nothing more is read.
    fn end(&mut self) -> String {
        self.masked()
    }

    /// Forwards the words that end within the bound, since half a secret is not known for one.
    fn cut(&mut self, out: &mut String) {
        let blank = self.line.iter().rposition(u8::is_ascii_whitespace);
        let kept = blank.map_or(0, |at| at.saturating_add(1));
        let rest = self.line.split_off(kept);
        // What begins a key has blanks in it.
        let mark = self.line.get(kept.saturating_sub(MARK)..);
        self.beyond.extend_from_slice(mark.unwrap_or_default());
        out.push_str(&self.masked());
        out.push_str(REST);
        self.cut = true;
        self.pass_over(&rest);
    }

    /// Sees in what is not forwarded where keys begin and end.
    fn pass_over(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(READ) {
            self.beyond.extend_from_slice(piece);
            let text = String::from_utf8_lossy(&self.beyond).into_owned();
            self.key = key_after(self.key, &text);
            let old = self.beyond.len().saturating_sub(MARK);
            self.beyond.drain(..old);
        }
    }

    /// What is forwarded of the line, which is over: of a private key in several lines, what stands before and after it.
    fn masked(&mut self) -> String {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        let before = self.key;
        self.key = key_after(before, &text);
        let own = if before == 0 {
            0
        } else {
            mask::key_ends(&text).unwrap_or(text.len())
        };
        mask::text(text.get(own..).unwrap_or_default()).into_owned()
    }
}

/// How long a private key may still be after `text`, in which it was still so long at the beginning.
fn key_after(key: usize, text: &str) -> usize {
    let after = match mask::key_ends(text) {
        _ if key == 0 => text,
        None => return key.saturating_sub(text.len()),
        Some(end) => text.get(end..).unwrap_or_default(),
    };
    if mask::leaves_key_open(after) { KEY } else { 0 }
}

/// A bucket of bytes.
struct Allowance {
    left: u64,
    at: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            at: now,
        }
    }

    /// Takes `bytes`; how long to wait before the next.
    fn take(&mut self, bytes: u64, now: Instant) -> Duration {
        let millis = now.saturating_duration_since(self.at).as_millis();
        let grown = u64::try_from(millis)
            .unwrap_or(u64::MAX)
            .saturating_mul(RATE)
            / 1000;
        if grown > 0 {
            self.at = now;
        }
        self.left = self.left.saturating_add(grown).min(BURST);
        let missing = bytes.saturating_sub(self.left);
        self.left = self.left.saturating_sub(bytes);
        Duration::from_millis(missing.saturating_mul(1000) / RATE)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "ghp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    /// What comes of `bytes` that are read in pieces of these lengths, and then to the end.
    fn forwarded(bytes: &[u8], lengths: &[usize]) -> String {
        let mut masking = Masking::default();
        let mut out = String::new();
        let mut left = bytes;
        for length in lengths {
            let (piece, rest) = left.split_at(left.len().min(*length));
            out.push_str(&masking.push(piece));
            left = rest;
        }
        out.push_str(&masking.push(left));
        out.push_str(&masking.end());
        out
    }

    #[test]
    fn whole_lines_leave_masked_and_of_long_ones_what_can_be_judged() {
        let mut masking = Masking::default();
        assert_eq!(masking.push(b"one\ntwo\nthr"), "one\ntwo\n");
        assert_eq!(masking.push(b"ee"), "");
        assert_eq!(masking.end(), "three");
        let text = forwarded(format!("token {SECRET}\nplain\n").as_bytes(), &[]);
        assert_eq!(text, "token [masked]\nplain\n");
        assert_eq!(forwarded(b"a\xffb\n", &[]), "a\u{fffd}b\n");
        let longest = format!("{}\n", "x".repeat(LINE - 1));
        assert_eq!(forwarded(longest.as_bytes(), &[]), longest);
        // No word ends within the bound: nothing of the line can be judged.
        let longer = format!("x{longest}next\n");
        assert_eq!(forwarded(longer.as_bytes(), &[]), format!("{REST}\nnext\n"));
    }

    #[test]
    fn of_a_private_key_nothing_is_forwarded_in_however_many_lines() {
        let body = "aaaa/aaaa+aaaa=\n".repeat(50);
        for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "OPENSSH PRIVATE KEY"] {
            let key = format!("-----BEGIN {label}-----\n{body}-----END {label}-----");
            let said = format!("before\nkey: {key}\nafter {key} x\n");
            let masked = "[masked]";
            for lengths in [&[][..], &[9, 17, 100], &[40]] {
                assert_eq!(
                    forwarded(said.as_bytes(), lengths),
                    format!("before\nkey: {masked}\nafter {masked} x\n")
                );
            }
        }
        // It begins, or ends, where a line is too long to be forwarded.
        // A certificate is nobody's secret, and what only speaks of a key silences nothing for good.
        let public = format!("-----BEGIN CERTIFICATE-----\n{body}");
        assert_eq!(forwarded(public.as_bytes(), &[]), public);
        let said = format!(
            "no -----BEGIN PRIVATE KEY-----\n{}end\n",
            "x\n".repeat(KEY / 2)
        );
        assert_eq!(forwarded(said.as_bytes(), &[]), "no [masked]end\n");
    }

    #[test]
    fn a_private_key_in_one_line_or_after_a_letter_is_none_that_is_forwarded() {
        let body = "aaaa/aaaa+aaaa";
        for (first, label) in [
            ("CERTIFICATE", "PRIVATE KEY"),
            ("EC PARAMETERS", "EC PRIVATE KEY"),
        ] {
            for end in [r"\n", r"\r\n", "\n", "x"] {
                let public = format!("-----BEGIN {first}-----{end}MIIC{end}-----END {first}-----");
                let private =
                    format!("-----BEGIN {label}-----{end}{body}{end}-----END {label}-----");
                let said = format!("{{\"pem\":\"{public}{end}{private}{end}\"}}\nnext\n");
                for lengths in [&[][..], &[9, 17, 100], &[70]] {
                    assert_eq!(
                        forwarded(said.as_bytes(), lengths),
                        format!("{{\"pem\":\"{public}{end}[masked]{end}\"}}\nnext\n")
                    );
                }
            }
        }
        assert_eq!(
            forwarded(b"x-----BEGIN PRIVATE KEY-----\naaaa\n", &[]),
            "x[masked]"
        );
    }

    /// It begins, or ends, where a line is too long to be forwarded.
    #[test]
    fn private_keys_are_seen_beyond_what_is_forwarded() {
        const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
        const END: &str = "-----END PRIVATE KEY-----";
        let body = "aaaa/aaaa+aaaa=\n".repeat(50);
        for before in (LINE - 40..LINE + 2).chain([LINE + READ]) {
            let padding = "x".repeat(before);
            for lengths in [&[][..], &[READ; 8][..], &[before + 1, 20][..]] {
                let begins = format!("{padding} {BEGIN}\n{body}{END}\nz\n");
                let text = forwarded(begins.as_bytes(), lengths);
                assert!(!text.contains("aaaa") && text.ends_with("z\n"), "{before}");
                let ends = format!("{BEGIN}\n{body}{padding} {END}\nz\n");
                let text = forwarded(ends.as_bytes(), lengths);
                assert!(!text.contains("aaaa") && text.ends_with("z\n"), "{before}");
            }
        }
    }

    #[test]
    fn a_secret_anywhere_about_the_bound_is_masked() {
        for before in (LINE - 64..LINE + 2).step_by(5).chain([READ - 8, READ]) {
            let padding = "x".repeat(before - 2);
            for said in [
                format!("{padding}  {SECRET} y\nz\n"),
                format!("{padding}  {SECRET}"),
                format!("{padding}  password= \"{SECRET} aaaa\" y\nz\n"),
                format!("password={padding}aaaa\nz\n"),
            ] {
                for lengths in [&[][..], &[READ][..], &[before, 4][..], &[LINE - 4, 8][..]] {
                    let text = forwarded(said.as_bytes(), lengths);
                    assert!(!text.contains("aaaa"), "{before}: {}", text.len());
                    assert_eq!(text.ends_with("z\n"), said.ends_with("z\n"), "{before}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn where_reads_end_does_not_count(
            parts in prop::collection::vec(
                (prop::sample::select(vec!["x", " ", "\n", "\u{20ac}", " ghp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "password: "]), 0..LINE / 2),
                0..8,
            ),
            lengths in prop::collection::vec(0..LINE, 0..8),
        ) {
            let said: String = parts
                .iter()
                .map(|(part, length)| part.repeat(length / part.len()))
                .collect();
            let text = forwarded(said.as_bytes(), &lengths);
            prop_assert_eq!(&text, &forwarded(said.as_bytes(), &[]));
            prop_assert!(!text.contains("aaaa"));
        }
    }

    #[test]
    fn a_flood_is_slowed_and_a_little_is_not() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        assert_eq!(allowance.take(BURST, start), Duration::ZERO);
        assert_eq!(allowance.take(RATE, start), Duration::from_secs(1));
        let later = start + Duration::from_secs(3);
        assert_eq!(allowance.take(RATE, later), Duration::ZERO);
    }
}
