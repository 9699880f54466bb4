//! The end of what a token authorised: waited for by a timer, and asked of the clock before anything passes.

use std::future::pending;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::telemetry::clock;

/// When what a request began is over. Without a token that is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry(Option<Duration>);

impl Expiry {
    /// Where no token authorised it.
    pub const NEVER: Self = Self(None);

    /// At this time, counted from 1970.
    pub const fn at(until: Duration) -> Self {
        Self(Some(until))
    }

    /// Whether it is over. A timer stands still while the machine sleeps; this does not.
    pub fn is_over(self) -> bool {
        self.0.is_some_and(|until| left(until).is_zero())
    }

    /// Waits until it is, and no longer than `limit`.
    pub async fn within(self, limit: Duration) {
        // Late by `limit` at most, as nothing is lost by it.
        drop(timeout(limit, self.over()).await);
    }

    /// Waits until it is.
    pub async fn over(self) {
        let Some(until) = self.0 else {
            return pending().await;
        };
        loop {
            let left = left(until);
            if left.is_zero() {
                return;
            }
            sleep(left).await;
        }
    }
}

fn left(until: Duration) -> Duration {
    let now = u64::try_from(clock::wall().microseconds()).map(Duration::from_micros);
    until.saturating_sub(now.unwrap_or(Duration::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::{Expiry, left};

    #[tokio::test]
    async fn what_a_token_began_ends_with_its_time() {
        let soon = Duration::from_millis(30);
        let now = Duration::MAX.saturating_sub(left(Duration::MAX));
        for never in [Expiry::NEVER, Expiry::at(now + Duration::from_hours(1))] {
            assert!(!never.is_over());
            timeout(soon, never.over()).await.unwrap_err();
        }
        let ends = Expiry::at(now + soon);
        ends.over().await;
        assert!(ends.is_over() && Expiry::at(Duration::ZERO).is_over());
    }
}
