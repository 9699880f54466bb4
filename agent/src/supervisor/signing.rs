//! What the gate may have signed, and how often.

use std::time::Duration;

use tokio::time::Instant;

use super::ca::Authority;
use crate::channel::Hex;
use crate::launch::stage::chain;
use crate::telemetry::clock;

/// Certificates at once.
const BURST: u32 = 256;
/// Time for one more.
const INTERVAL: Duration = Duration::from_millis(20);

/// Signs for the gate, within a rate: a gate that was taken over must not turn the supervisor into
/// a machine that does nothing else.
#[derive(Debug)]
pub(super) struct Signing {
    authority: Authority,
    left: u32,
    counted: Instant,
}

impl Signing {
    pub(super) fn new(authority: Authority, now: Instant) -> Self {
        Self {
            authority,
            left: BURST,
            counted: now,
        }
    }

    pub(super) fn certificate(&self) -> &str {
        self.authority.certificate()
    }

    /// The chain for `Sign`, or the words for its refusal.
    pub(super) fn sign(
        &mut self,
        names: &[String],
        key: &Hex,
        now: Instant,
    ) -> Result<Vec<Hex>, String> {
        if !self.take(now) {
            return Err("certificates are asked for too fast".to_owned());
        }
        let leaf = self
            .authority
            .sign(names, &key.0, today())
            .map_err(|e| chain(&e))?;
        Ok(vec![Hex(leaf)])
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.counted);
        let more = passed.as_millis() / INTERVAL.as_millis();
        let more = u32::try_from(more).unwrap_or(BURST).min(BURST);
        if more > 0 {
            self.left = self.left.saturating_add(more).min(BURST);
            self.counted = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// The date in UTC.
pub(super) fn today() -> jiff::civil::Date {
    let now = jiff::Timestamp::from_microsecond(clock::wall().microseconds()).unwrap_or_default();
    jiff::tz::TimeZone::UTC.to_datetime(now).date()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flood_is_cut_and_comes_back_slowly() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open(directory.path(), today()).unwrap();
        let start = Instant::now();
        let mut signing = Signing::new(authority, start);
        for _ in 0..BURST {
            assert!(signing.take(start));
        }
        assert!(!signing.take(start));
        assert!(!signing.take(start + INTERVAL / 2));
        assert!(signing.take(start + INTERVAL));
        assert!(!signing.take(start + INTERVAL));
        let names = ["a.example".to_owned()];
        let refused = signing
            .sign(&names, &Hex(Vec::new()), start + INTERVAL)
            .unwrap_err();
        assert_eq!(refused, "certificates are asked for too fast");
        let refused = signing
            .sign(&names, &Hex(vec![0]), start + 3 * INTERVAL)
            .unwrap_err();
        assert_eq!(refused, "refusing to sign: not a P-256 public key");
    }
}
