//! A server's standard error: no protocol, but text that hosts show and log. Forwarded line by line with secrets
//! masked, never faster than a bound, and not at all to a host that does not read it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::audit::mask;
use crate::forward::stream::{Sink, Source};

/// Bytes after which a line is cut in two, so that none has to be held longer.
const LINE: usize = 16 << 10;
/// Bytes that may come at once.
const BURST: u64 = 4 << 20;
/// Bytes a second after that: a flood must not occupy the gate.
const RATE: u64 = 1 << 20;

/// Forwards `from` to `to` until either ends. A server whose host reads no more writes on, to nobody.
pub(super) async fn forward(from: Source, to: Sink) {
    let mut to = Some(to);
    let mut buffer = Vec::new();
    let mut allowance = Allowance::new(Instant::now());
    loop {
        buffer.reserve(LINE);
        let read = match from.read(&mut buffer).await {
            Ok(read) => read,
            Err(error) => {
                tracing::debug!(%error, "a server's standard error failed");
                0
            }
        };
        let whole = if read == 0 {
            buffer.len()
        } else {
            ends(&buffer)
        };
        let bytes: Vec<u8> = buffer.drain(..whole).collect();
        if let Some(sink) = &mut to
            && !bytes.is_empty()
        {
            let text = masked(&bytes);
            if sink.write_all(text.as_bytes()).await.is_err() {
                to = None;
            }
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

/// How much of `bytes` can be forwarded: whole lines, or all of a line that is too long.
fn ends(bytes: &[u8]) -> usize {
    let last = bytes.iter().rposition(|byte| *byte == b'\n');
    match last {
        Some(last) => last.saturating_add(1),
        None if bytes.len() >= LINE => bytes.len(),
        None => 0,
    }
}

fn masked(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        out.push_str(&mask::text(line));
    }
    out
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
    use super::*;

    #[test]
    fn whole_lines_leave_masked_and_long_ones_in_parts() {
        assert_eq!(ends(b"one\ntwo\nthr"), 8);
        assert_eq!(ends(b"thr"), 0);
        assert_eq!(ends(&[b'x'; LINE]), LINE);
        let secret = format!("token ghp_{}\nplain\n", "a".repeat(36));
        let text = masked(secret.as_bytes());
        assert!(!text.contains("ghp_a") && text.contains("plain"), "{text}");
        assert_eq!(masked(b"a\xffb\n"), "a\u{fffd}b\n");
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
