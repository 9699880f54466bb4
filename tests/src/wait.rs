//! Waiting for a condition, with a limit and never for a fixed time.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(10);

/// Waits until `look` gives a value; an error that names `what` once `limit` has passed.
pub async fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = look().await {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("{what}: not within {limit:?}");
        }
        sleep(STEP).await;
    }
}

/// Waits until `condition` holds; an error that names `what` once `limit` has passed.
pub async fn wait_until(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<()> {
    wait_for(what, limit, async || condition().then_some(())).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn says_what_did_not_happen() {
        let error = wait_until("pigs fly", Duration::from_millis(30), || false)
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "pigs fly: not within 30ms");
        let mut looked = 0;
        wait_until("the third look", Duration::from_secs(5), || {
            looked += 1;
            looked == 3
        })
        .await
        .unwrap();
    }
}
