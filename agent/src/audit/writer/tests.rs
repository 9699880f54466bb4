//! The writer's death, and what the next one makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use tokio::time::timeout;

use super::directory::{Segment, Store};
use super::journal::tests::{Tricks, Tricky, id, trick};
use super::*;
use crate::audit::Segments;
use crate::audit::chain::Head;
use crate::audit::log::{Options, Start};
use crate::audit::record::{Open, Outcome};

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
    let start = journal::Start {
        head: Head::default(),
        newest: 0,
        cuts: Vec::new(),
        open: BTreeMap::new(),
    };
    let mut journal = Journal::new(Box::new(Faulty(0)), 1_000, start, cut_body);
    journal.add(whole(&lifecycle(&log, "log_started", Text::default())));
    let writer = spawn(&log, journal, lock).unwrap();
    let mut open = log.open(Kind::Tcp, Start::default()).await.unwrap();
    let waiting = tokio::spawn({
        let log = log.clone();
        async move { log.open(Kind::Tcp, Start::default()).await.err() }
    });
    let dead = Some(AuditUnavailable::Dead);
    drop(open.intend().await.unwrap());
    assert_eq!(timeout(LIMIT, log.flush()).await.unwrap().err(), dead);
    assert_eq!(open.intend().await.err(), dead, "nothing is let through");
    let receipt = open.close(Outcome::done());
    assert_eq!(timeout(LIMIT, receipt.durable()).await.unwrap().err(), dead);
    assert_eq!(timeout(LIMIT, waiting).await.unwrap().unwrap(), dead);
    assert_eq!(log.open(Kind::Tcp, Start::default()).await.err(), dead);
    assert_eq!(writer.finish(LIMIT).await, Finished::Incomplete(1));
}

/// What happens to a log, its writer's death included.
#[derive(Clone, Debug)]
enum Step {
    Whole,
    Begin,
    /// One of those that are open.
    End(usize),
    Write,
    Confirm,
    /// Dies, and of what the disk did not confirm so many bytes are lost.
    Die(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Whole),
        4 => Just(Step::Begin),
        3 => any::<usize>().prop_map(Step::End),
        2 => Just(Step::Write),
        2 => Just(Step::Confirm),
        1 => (0..4_000_usize).prop_map(Step::Die),
    ]
}

/// A log, what is to be found in it, and what may be.
struct Played {
    log: Log,
    tricks: Tricks,
    journal: Journal,
    sizes: BTreeMap<u64, u64>,
    open: Vec<u16>,
    added: BTreeSet<u16>,
    confirmed: BTreeSet<u16>,
    next: u16,
}

fn sizes(path: &Path) -> BTreeMap<u64, u64> {
    let directory = Directory::new(File::open(path).unwrap().into());
    let size = |number| directory.read(number).unwrap().metadata().unwrap().len();
    let numbers = directory.segments().unwrap();
    numbers
        .into_iter()
        .map(|number| (number, size(number)))
        .collect()
}

fn taken_up(path: &Path, log: &Log, tricks: &Tricks) -> Journal {
    let directory = || Directory::new(File::open(path).unwrap().into());
    let found = recover::recover(&directory()).unwrap();
    let store = Tricky {
        directory: directory(),
        tricks: Arc::clone(tricks),
    };
    take_up(log, Box::new(store), found)
}

impl Played {
    fn new(path: &Path, tricks: Tricks, segment_bytes: u64) -> Self {
        let options = Options {
            segment_bytes,
            ..Options::default()
        };
        let log = Log::new(options).unwrap();
        let journal = taken_up(path, &log, &tricks);
        Self {
            log,
            tricks,
            journal,
            sizes: BTreeMap::new(),
            open: Vec::new(),
            added: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            next: 1,
        }
    }

    fn add(&mut self, number: u16, about: About) {
        let mut record = Record::new(id(number), clock::now(), Kind::Tcp);
        match about {
            About::Begins(_) => record.open = Some(Open::default()),
            About::Ends(_) | About::Whole => record.outcome = Some(Outcome::done()),
        }
        let body = record.body();
        self.journal.add(Entry { body, about });
        self.added.insert(number);
    }

    fn new_number(&mut self) -> u16 {
        self.next += 1;
        self.next
    }

    fn play(&mut self, path: &Path, step: &Step) {
        match step {
            Step::Whole => {
                let number = self.new_number();
                self.add(number, About::Whole);
            }
            Step::Begin => {
                let number = self.new_number();
                self.open.push(number);
                self.add(number, About::Begins(id(number)));
            }
            Step::End(which) if !self.open.is_empty() => {
                let number = self.open.swap_remove(which % self.open.len());
                self.add(number, About::Ends(id(number)));
            }
            Step::End(_) => {}
            Step::Write => drop(self.journal.write()),
            Step::Confirm => {
                if self.journal.confirm().is_ok() {
                    self.confirmed.append(&mut self.added);
                    self.sizes = sizes(path);
                }
            }
            Step::Die(lost) => {
                let kept = self.sizes.clone();
                for (number, size) in sizes(path) {
                    let confirmed = kept.get(&number).copied().unwrap_or(0);
                    let left = size.saturating_sub(*lost as u64).max(confirmed);
                    let name = path.join(segment_name(number));
                    let file = File::options().write(true).open(name).unwrap();
                    file.set_len(left).unwrap();
                }
                self.open.clear();
                self.added.clear();
                self.journal = taken_up(path, &self.log, &self.tricks);
                // What it found it forced to the disk, so that the next crash cannot change it.
                self.sizes = sizes(path);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn each_exchange_ends_once_however_disk_and_writer_fail(
        steps in prop::collection::vec(step(), 1..60),
        tricks in prop::collection::vec(trick(), 0..30),
        segment_bytes in 200..6_000_u64,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let mut played = Played::new(path, Arc::new(Mutex::new(tricks.into())), segment_bytes);
        for step in &steps {
            played.play(path, step);
        }
        while played.journal.confirm().is_err() {}
        played.confirmed.append(&mut played.added);

        let segments = Segments::open(path).unwrap();
        let verification = segments.verify(&[]).unwrap();
        let shown: Vec<_> = segments.records().map(|entry| entry.unwrap().record).collect();
        let ids: BTreeSet<_> = shown.iter().map(|record| record.id).collect();
        prop_assert_eq!(ids.len(), shown.len(), "one for each");
        for number in &played.confirmed {
            prop_assert!(ids.contains(&id(*number)), "{} is lost", number);
        }
        let open: BTreeSet<_> = shown
            .iter()
            .filter(|record| record.open.is_some())
            .map(|record| record.id)
            .collect();
        prop_assert_eq!(verification.open, open.len() as u64);
        prop_assert_eq!(&open, &played.open.iter().map(|number| id(*number)).collect());

        // The next start ends what is open, and nothing twice.
        drop(played);
        let log = Log::new(Options::default()).unwrap();
        let mut journal = taken_up(path, &log, &Tricks::default());
        journal.confirm().unwrap();
        prop_assert_eq!(segments.verify(&[]).unwrap().open, 0);
        let ended = segments.records().map(|entry| entry.unwrap().record);
        let abandoned: BTreeSet<_> = ended
            .filter(|record| open.contains(&record.id))
            .filter(|record| record.outcome.as_ref().is_some_and(|it| it.error.is_some()))
            .map(|record| record.id)
            .collect();
        prop_assert_eq!(abandoned, open);
    }
}
