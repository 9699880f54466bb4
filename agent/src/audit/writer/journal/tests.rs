//! The journal on a disk that fails: whatever happens, each body is in the chain once.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::super::directory::Directory;
use super::*;
use crate::audit::record::{Kind, Lifecycle, Record};
use crate::audit::{RecordId, Segments};
use crate::telemetry::clock;

/// What the disk does next; when nothing is left it works.
#[derive(Clone, Copy, Debug)]
pub(in crate::audit::writer) enum Trick {
    Work,
    /// Takes so many bytes, then says that it is full.
    Full(usize),
    /// Fails, without a word on what it kept.
    Fail,
}

pub(in crate::audit::writer) type Tricks = Arc<Mutex<VecDeque<Trick>>>;

pub(in crate::audit::writer) struct Tricky {
    pub(in crate::audit::writer) directory: Directory,
    pub(in crate::audit::writer) tricks: Tricks,
}

struct TrickySegment {
    segment: Box<dyn Segment>,
    tricks: Tricks,
}

fn next(tricks: &Tricks) -> Trick {
    tricks.lock().unwrap().pop_front().unwrap_or(Trick::Work)
}

impl Store for Tricky {
    fn create(&mut self, number: u64) -> io::Result<Box<dyn Segment>> {
        let segment = self.directory.create(number)?;
        match next(&self.tricks) {
            Trick::Work => {
                let tricks = Arc::clone(&self.tricks);
                Ok(Box::new(TrickySegment { segment, tricks }))
            }
            // As when the name could not be forced to the disk: the file is there.
            Trick::Full(_) | Trick::Fail => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}

impl Segment for TrickySegment {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match next(&self.tricks) {
            Trick::Work => self.segment.append(bytes),
            Trick::Full(0) => Err(io::ErrorKind::StorageFull.into()),
            Trick::Full(some) => {
                self.tricks.lock().unwrap().push_front(Trick::Full(0));
                self.segment.append(&bytes[..some.min(bytes.len())])
            }
            Trick::Fail => {
                self.segment.append(&bytes[..bytes.len() / 2])?;
                Err(io::Error::other("input/output error"))
            }
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        match next(&self.tricks) {
            Trick::Work => self.segment.sync(),
            Trick::Full(_) | Trick::Fail => Err(io::Error::other("input/output error")),
        }
    }
}

fn journal(path: &Path, tricks: &Tricks, segment_bytes: u64) -> Journal {
    let directory = Directory::new(File::open(path).unwrap().into());
    let store = Tricky {
        directory,
        tricks: Arc::clone(tricks),
    };
    let cuts = AtomicU16::new(0xf000);
    let cut_body = Box::new(move |cut| {
        let id = id(cuts.fetch_add(1, Ordering::Relaxed));
        let mut record = Record::new(id, clock::now(), Kind::Lifecycle);
        record.lifecycle = Some(Lifecycle {
            cut: Some(cut),
            ..Lifecycle::default()
        });
        record.body()
    });
    let start = Start {
        head: Head::default(),
        newest: 0,
        cuts: Vec::new(),
        open: BTreeMap::new(),
    };
    Journal::new(Box::new(store), segment_bytes, start, cut_body)
}

fn whole(number: u16) -> Entry {
    Entry {
        body: Record::new(id(number), clock::now(), Kind::Tcp).body(),
        about: About::Whole,
    }
}

pub(in crate::audit::writer) fn id(number: u16) -> RecordId {
    format!("00000000-0000-7000-8000-00000000{number:04x}")
        .parse()
        .unwrap()
}

pub(in crate::audit::writer) fn trick() -> impl Strategy<Value = Trick> {
    prop_oneof![
        3 => Just(Trick::Work),
        1 => (0..2_000_usize).prop_map(Trick::Full),
        1 => Just(Trick::Fail),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn each_body_is_in_the_chain_once_however_the_disk_fails(
        tricks in prop::collection::vec(trick(), 0..40),
        confirm in prop::collection::vec(any::<bool>(), 1..30),
        segment_bytes in 200..3_000_u64,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let tricks = Arc::new(Mutex::new(tricks.into()));
        let mut journal = journal(directory.path(), &tricks, segment_bytes);
        let mut acknowledged = 0;
        for (number, confirm) in (1..).zip(&confirm) {
            journal.add(whole(number));
            let done = if *confirm { journal.confirm() } else { journal.write() };
            if *confirm && done.is_ok() {
                acknowledged = number;
            }
            if acknowledged == number {
                prop_assert_eq!(seen(directory.path()), (1..=number).map(id).collect::<Vec<_>>());
            }
        }
        while journal.confirm().is_err() {}
        let expected: Vec<_> = (1..).zip(&confirm).map(|(number, _)| id(number)).collect();
        prop_assert_eq!(seen(directory.path()), expected);
        let verification = Segments::open(directory.path()).unwrap().verify(&[]).unwrap();
        prop_assert_eq!(verification.head, journal.confirmed());
    }
}

fn seen(path: &Path) -> Vec<RecordId> {
    Segments::open(path)
        .unwrap()
        .records()
        .map(|entry| entry.unwrap().record)
        .filter(|record| record.kind == Kind::Tcp)
        .map(|record| record.id)
        .collect()
}

#[test]
fn what_the_disk_would_not_confirm_is_written_anew_in_another_segment() {
    let directory = tempfile::tempdir().unwrap();
    // Create, append and sync work; then append works and sync fails.
    let script = [
        Trick::Work,
        Trick::Work,
        Trick::Work,
        Trick::Work,
        Trick::Fail,
    ];
    let tricks = Arc::new(Mutex::new(script.into()));
    let mut journal = journal(directory.path(), &tricks, 1 << 20);
    journal.add(whole(1));
    journal.confirm().unwrap();
    let first = directory.path().join("0000000001.jsonl");
    let confirmed = fs::metadata(&first).unwrap().len();
    journal.add(whole(2));
    journal.confirm().unwrap_err();
    journal.confirm().unwrap();
    // The disk may have lost it, or not: it does not count.
    for length in [fs::metadata(&first).unwrap().len(), confirmed] {
        File::options()
            .write(true)
            .open(&first)
            .unwrap()
            .set_len(length)
            .unwrap();
        assert_eq!(seen(directory.path()), [id(1), id(2)]);
        let verification = Segments::open(directory.path())
            .unwrap()
            .verify(&[])
            .unwrap();
        assert_eq!((verification.records, verification.cuts.len()), (3, 1));
        assert_eq!(verification.cuts[0].offset, confirmed);
    }
}
