//! When the supervisor is asked to catch up with what the kernel tells of processes: once for all that wait, and
//! not again before it has answered.

use std::time::Duration;

use tokio::time::Instant;

/// How often the supervisor is asked at most, whatever workloads do: far from what it takes for a flood.
const APART: Duration = Duration::from_millis(1);

/// What is asked of the supervisor and what is still to be.
#[derive(Debug)]
pub(super) struct Catching {
    wanted: bool,
    asked: Option<Instant>,
    earliest: Instant,
}

impl Catching {
    pub(super) fn new() -> Self {
        Self {
            wanted: false,
            asked: None,
            earliest: Instant::now(),
        }
    }

    /// Somebody waits to hear of processes.
    pub(super) const fn want(&mut self) {
        self.wanted = true;
    }

    pub(super) const fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// When the supervisor is to be asked, if it is.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.wanted && self.asked.is_none()).then_some(self.earliest)
    }

    /// It is being asked, for everybody who waits.
    pub(super) fn ask(&mut self, now: Instant) {
        *self = Self {
            wanted: false,
            asked: Some(now),
            earliest: now + APART,
        };
    }

    /// It has answered; after how long. An answer that nobody asked for took no time.
    pub(super) fn answered(&mut self, now: Instant) -> Duration {
        let asked = self.asked.take();
        asked.map_or(Duration::ZERO, |asked| now - asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_once_for_all_and_not_faster_than_the_bound() {
        let mut catching = Catching::new();
        assert_eq!(catching.due(), None);
        catching.want();
        let now = Instant::now();
        assert!(catching.due().is_some_and(|due| due <= now));
        catching.ask(now);
        catching.want();
        assert!(catching.is_wanted());
        assert_eq!(catching.due(), None, "it has not answered");
        let later = now + APART / 2;
        assert_eq!(catching.answered(later), APART / 2);
        assert_eq!(catching.answered(later), Duration::ZERO);
        assert_eq!(catching.due(), Some(now + APART));
        catching.ask(later);
        catching.answered(later);
        assert_eq!(catching.due(), None, "nobody waits");
    }
}
