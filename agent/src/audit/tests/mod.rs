//! Tests of the log as a whole: written by its writer to real files, read back by its reader.

mod disk;
mod exchange;
mod intent;
mod proof;
mod query;
mod secrets;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::*;

/// Long enough for anything that happens at all.
pub(super) const LIMIT: Duration = Duration::from_secs(20);

pub(super) fn options() -> Options {
    Options {
        sync: SyncPolicy::Within(Duration::from_millis(1)),
        ..Options::default()
    }
}

pub(super) fn start(path: &Path, options: Options) -> (Log, Writer) {
    Log::start(File::open(path).unwrap().into(), options).unwrap()
}

/// A log with so many exchanges, ended in order.
pub(super) async fn written(exchanges: usize, options: Options) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    append(directory.path(), exchanges, options).await;
    directory
}

pub(super) async fn append(path: &Path, exchanges: usize, options: Options) {
    let (log, writer) = start(path, options);
    for number in 0..exchanges {
        let mut open = log.open(Kind::Http, Start::default()).await.unwrap();
        open.record_mut().http = Some(record::Http {
            name: Some(Text::from("api.example.com")),
            path: Some(Text::path(&format!("/items/{number}"))),
            ..record::Http::default()
        });
        drop(open.close(Outcome::done()));
    }
    assert_eq!(writer.finish(LIMIT).await, Finished::Complete);
}

pub(super) fn verify(path: &Path) -> Result<Verification, Fault> {
    match Segments::open(path).unwrap().verify(&[]) {
        Ok(verification) => Ok(verification),
        Err(VerifyError::Fault(fault)) => Err(fault),
        Err(VerifyError::Read(error)) => panic!("{error:?}"),
    }
}

pub(super) fn entries(path: &Path) -> Vec<Entry> {
    Segments::open(path)
        .unwrap()
        .records()
        .collect::<Result<_, _>>()
        .unwrap()
}

/// The files of a log by their names, the lock aside.
pub(super) fn files(path: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "lock")
        .map(|name| (name.clone(), fs::read(path.join(name)).unwrap()))
        .collect()
}

/// A copy of a log, with its files changed.
pub(super) fn changed(path: &Path, change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> TempDir {
    let mut files = files(path);
    change(&mut files);
    let copy = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(copy.path().join(name), bytes).unwrap();
    }
    copy
}
