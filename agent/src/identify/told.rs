//! How far the supervisor's word of processes reaches: what a process executed before it connected is known first.

use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::telemetry::clock::Monotonic;

/// Longest that somebody waits. The supervisor answers within a tenth of a millisecond, unless processes are made
/// faster than it can take note of.
const PATIENCE: Duration = Duration::from_millis(200);

/// Until when the supervisor told of all processes.
#[derive(Debug, Clone, Copy, Default)]
struct Reach {
    until: Monotonic,
    /// It is behind: nobody waits until it has answered in time.
    late: bool,
}

/// Who waits for the supervisor, and how far it has come.
#[derive(Debug)]
pub struct Told {
    asks: mpsc::Sender<()>,
    reach: watch::Sender<Reach>,
}

impl Told {
    /// With what comes in whenever the supervisor is to be asked. Where several wait, one question answers all.
    pub fn new() -> (Self, mpsc::Receiver<()>) {
        let (asks, asked) = mpsc::channel(1);
        let reach = watch::Sender::default();
        (Self { asks, reach }, asked)
    }

    /// Waits until everything is known that processes executed before `moment`, for 0.2 s at most: then records name
    /// what is known.
    pub async fn reach(&self, moment: Monotonic) {
        let mut reach = self.reach.subscribe();
        let reached = |reach: &Reach| reach.late || reach.until >= moment;
        if reach.borrow().until >= moment {
            return;
        }
        // One question is enough; without anybody who asks, nothing more will be known.
        let asked = self.asks.try_send(());
        if reach.borrow().late || matches!(asked, Err(TrySendError::Closed(()))) {
            return;
        }
        if timeout(PATIENCE, reach.wait_for(reached)).await.is_err() {
            tracing::debug!("the supervisor is behind in telling of processes");
            self.reach.send_modify(|reach| reach.late = true);
        }
    }

    /// The supervisor has told of all that happened until then, after so long.
    pub fn told(&self, until: Monotonic, time: Duration) {
        let late = time >= PATIENCE;
        self.reach.send_replace(Reach { until, late });
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::task::{JoinHandle, yield_now};
    use tokio::time::timeout;

    use super::{PATIENCE, Told};
    use crate::telemetry::clock::Monotonic;

    const PROMPT: Duration = Duration::from_micros(100);

    const fn at(nanoseconds: u64) -> Monotonic {
        Monotonic::from_nanoseconds(nanoseconds)
    }

    fn waits(told: &Arc<Told>, moment: u64) -> JoinHandle<()> {
        let told = Arc::clone(told);
        tokio::spawn(async move { told.reach(at(moment)).await })
    }

    /// Whether it is over without having waited.
    async fn at_once(waiting: impl Future<Output = ()>) -> bool {
        timeout(Duration::ZERO, waiting).await.is_ok()
    }

    #[tokio::test]
    async fn who_connects_waits_for_what_was_executed_before() {
        let (told, mut asked) = Told::new();
        let told = Arc::new(told);
        let waiting = waits(&told, 10);
        asked.recv().await.unwrap();
        told.told(at(9), PROMPT);
        yield_now().await;
        assert!(!waiting.is_finished(), "it was told of less");
        told.told(at(10), PROMPT);
        waiting.await.unwrap();
        assert!(at_once(told.reach(at(10))).await);
        assert!(asked.try_recv().is_err(), "it is known already");
    }

    #[tokio::test]
    async fn one_question_answers_all() {
        let (told, mut asked) = Told::new();
        let told = Arc::new(told);
        let waiting: Vec<_> = (1..=100).map(|moment| waits(&told, moment)).collect();
        asked.recv().await.unwrap();
        assert!(asked.try_recv().is_err(), "a hundred wait for one answer");
        told.told(at(100), PROMPT);
        for waiting in waiting {
            waiting.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_supervisor_that_is_behind_is_waited_for_once() {
        let (told, mut asked) = Told::new();
        assert!(!at_once(told.reach(at(1))).await);
        told.reach(at(1)).await;
        asked.try_recv().unwrap();
        assert!(at_once(told.reach(at(2))).await, "nobody waits again");
        told.told(at(1), PATIENCE);
        assert!(at_once(told.reach(at(2))).await, "it is behind still");
        asked.try_recv().expect("it is asked all the same");
        told.told(at(1), PROMPT);
        assert!(!at_once(told.reach(at(2))).await, "it is back");
        drop(asked);
        assert!(
            at_once(told.reach(at(3))).await,
            "nobody is there to be asked"
        );
    }
}
