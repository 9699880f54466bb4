//! A disk that is full: nothing acknowledged is lost, and the log comes back by itself.

use std::process::Command;

use tokio::time::timeout;

use super::*;
use crate::telemetry::clock;

/// A small file system in memory, for as long as this lives.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(options: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "exeat-audit-test"])
            .arg(directory.path())
            .status()
            .unwrap();
        assert!(mounted.success(), "mounting needs root");
        Self(directory)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount")
            .arg("-l")
            .arg(self.0.path())
            .status()
            .unwrap();
        assert!(unmounted.success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(
    clippy::too_many_lines,
    reason = "one story: full, refused, kept, back"
)]
async fn a_full_disk_refuses_new_records_and_loses_none() {
    let disk = SmallDisk::mount("size=256k");
    let (log, writer) = start(
        disk.0.path(),
        Options {
            places: 512,
            ..options()
        },
    );
    let filler = disk.0.path().join("filler");
    fs::write(&filler, vec![0; 192 * 1_024]).unwrap();
    let mut state = log.watch();

    let mut opened = Vec::new();
    let mut waiting: Vec<OpenRecord> = Vec::new();
    let refusal = loop {
        match timeout(LIMIT, log.open(Kind::Http, Start::default()))
            .await
            .unwrap()
        {
            Ok(open) => {
                opened.push(open.id());
                waiting.push(open);
            }
            Err(refusal) => break refusal,
        }
        // Told as open on a disk that is full before they are written.
        let told = waiting.last_mut().unwrap().intend().await;
        drop(told);
        if waiting.len() > 8 {
            drop(waiting.remove(0).close(Outcome::done()));
        }
    };
    let AuditUnavailable::Failing(reason) = &refusal else {
        panic!("{refusal}")
    };
    assert!(reason.contains("No space left"), "{reason}");
    log.event(log.record(Kind::Finding, clock::now()))
        .await
        .unwrap_err();
    log.flush().await.unwrap_err();
    // What is open lets nothing through; it can be closed, and waits in memory.
    let told = waiting.last_mut().unwrap().intend().await.err();
    assert!(
        matches!(told, Some(AuditUnavailable::Failing(_))),
        "{told:?}"
    );
    waiting.clear();

    fs::remove_file(&filler).unwrap();
    timeout(LIMIT, state.wait_for(Option::is_none))
        .await
        .unwrap()
        .unwrap();
    log.flush().await.unwrap();
    let after = log.open(Kind::Http, Start::default()).await.unwrap();
    opened.push(after.id());
    drop(after);
    assert_eq!(writer.finish(LIMIT).await, Finished::Complete);

    verify(disk.0.path()).unwrap();
    let entries = entries(disk.0.path());
    let mut recorded: Vec<_> = entries
        .iter()
        .filter(|entry| entry.record.kind == Kind::Http)
        .map(|entry| entry.record.id)
        .collect();
    recorded.sort();
    assert_eq!(recorded, opened);
    let findings: Vec<_> = entries
        .iter()
        .filter_map(|entry| entry.record.finding.as_ref())
        .collect();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].what, "audit_unavailable");
    assert!(findings[0].count >= Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_on_a_full_disk_waits_for_room() {
    let disk = SmallDisk::mount("size=64k");
    let filler = disk.0.path().join("filler");
    fs::write(disk.0.path().join("lock"), "").unwrap();
    fs::write(&filler, vec![0; 40 * 1_024]).unwrap();
    // Takes what is left, whatever the file system's own needs are.
    drop(fs::write(disk.0.path().join("rest"), vec![0; 64 * 1_024]).unwrap_err());
    let (log, writer) = start(disk.0.path(), options());
    assert!(matches!(log.available(), Err(AuditUnavailable::Failing(_))));
    let mut state = log.watch();
    fs::remove_file(&filler).unwrap();
    timeout(LIMIT, state.wait_for(Option::is_none))
        .await
        .unwrap()
        .unwrap();
    drop(log.open(Kind::Http, Start::default()).await.unwrap());
    assert_eq!(writer.finish(LIMIT).await, Finished::Complete);
    verify(disk.0.path()).unwrap();
}
