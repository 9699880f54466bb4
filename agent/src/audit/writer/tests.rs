//! The writer's death.

use std::fs::File;

use tokio::time::timeout;

use super::directory::{Segment, Store};
use super::*;
use crate::audit::chain::Head;
use crate::audit::log::{Options, Start};
use crate::audit::record::Outcome;

const LIMIT: Duration = Duration::from_secs(20);

/// Works for the log's first record, then has a fault of its own.
struct Faulty(u32);

impl Store for Faulty {
    fn create(&mut self, _: u64) -> io::Result<Box<dyn Segment>> {
        Ok(Box::new(Self(0)))
    }
}

impl Segment for Faulty {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += 1;
        assert!(self.0 == 1, "a fault in the writer");
        Ok(bytes.len())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_dead_writer_refuses_at_once_and_fails_those_who_wait() {
    let directory = tempfile::tempdir().unwrap();
    let lock = Directory::new(File::open(directory.path()).unwrap().into()).lock();
    let Ok(lock) = lock else {
        panic!("lock a new directory")
    };
    let log = Log::new(Options {
        places: 1,
        ..Options::default()
    })
    .unwrap();
    let cut_body = Box::new(|_| Vec::new());
    let mut journal = Journal::new(Box::new(Faulty(0)), 1_000, Head::default(), 0, cut_body);
    journal.add(lifecycle(&log, "log_started", Text::default()).body());
    let writer = spawn(&log, journal, lock).unwrap();
    let open = log.open(Kind::Tcp, Start::default()).await.unwrap();
    let waiting = tokio::spawn({
        let log = log.clone();
        async move { log.open(Kind::Tcp, Start::default()).await.err() }
    });
    let receipt = open.close(Outcome::done());
    let dead = Some(AuditUnavailable::Dead);
    assert_eq!(timeout(LIMIT, receipt.durable()).await.unwrap().err(), dead);
    assert_eq!(timeout(LIMIT, waiting).await.unwrap().unwrap(), dead);
    assert_eq!(log.open(Kind::Tcp, Start::default()).await.err(), dead);
    assert_eq!(writer.finish(LIMIT).await, Finished::Incomplete(1));
}
