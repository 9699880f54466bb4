//! Exchanges that are under way: told before their effect, written if they last, ended by the next start if theirs
//! never came.

use super::*;
use crate::audit::chain::Head;
use crate::audit::record::Open;
use crate::telemetry::clock;

/// A log that writes nothing by itself before the test asks for it.
fn patient() -> Options {
    Options {
        sync: SyncPolicy::Within(Duration::from_mins(10)),
        ..Options::default()
    }
}

/// What a killed process leaves.
fn killed(path: &Path) -> TempDir {
    changed(path, |_| {})
}

/// Lines of all segments that hold `what`.
fn lines_with(path: &Path, what: &str) -> Vec<String> {
    let bytes = files(path).into_values().collect::<Vec<_>>().concat();
    let text = String::from_utf8(bytes).unwrap();
    text.lines()
        .filter(|line| line.contains(what))
        .map(str::to_owned)
        .collect()
}

async fn under_way(log: &Log) -> OpenRecord {
    let mut open = log.open(Kind::Http, Start::default()).await.unwrap();
    open.record_mut().http = Some(record::Http {
        name: Some(Text::from("slow.example.com")),
        ..record::Http::default()
    });
    open.stage(Stage::Forward);
    drop(open.intend().await.unwrap());
    open
}

#[tokio::test]
async fn a_short_exchange_is_written_once() {
    let directory = tempfile::tempdir().unwrap();
    let (log, writer) = start(directory.path(), patient());
    let open = under_way(&log).await;
    let id = open.id().to_string();
    drop(open.close(Outcome::done()));
    log.flush().await.unwrap();
    let lines = lines_with(directory.path(), &id);
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains(r#""status":"done""#), "{}", lines[0]);
    assert_eq!(writer.finish(LIMIT).await, Finished::Complete);
}

#[tokio::test]
async fn a_long_one_is_written_as_open_and_shown_once_as_what_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let (log, writer) = start(directory.path(), patient());
    let open = under_way(&log).await;
    let id = open.id();
    log.flush().await.unwrap();
    let lines = lines_with(directory.path(), &id.to_string());
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].contains(r#""open":{"stage":"forward"}"#) && !lines[0].contains("outcome"),
        "{}",
        lines[0]
    );
    // One that ends in between stands before it: it is the newest until it ends itself.
    drop(log.open(Kind::Tcp, Start::default()).await.unwrap());
    log.flush().await.unwrap();
    let segments = Segments::open(directory.path()).unwrap();
    let newest = |limit| {
        let filter = Filter {
            limit,
            ..Filter::default()
        };
        segments.query(&filter).unwrap()
    };
    for shown in [entries(directory.path()), newest(None)] {
        assert_eq!(shown.len(), 3);
        assert_eq!(shown[2].record.id, id);
        assert!(shown[2].record.open.is_some());
    }
    assert_eq!(newest(Some(1))[0].record.id, id);
    assert_eq!(verify(directory.path()).unwrap().open, 1);

    let mut tail = Tail::new(
        Segments::open(directory.path()).unwrap(),
        TailFrom::Beginning,
    )
    .unwrap();
    drop(open.close(Outcome::done()));
    log.flush().await.unwrap();
    for shown in [entries(directory.path()), newest(None)] {
        assert_eq!(shown.len(), 3);
        assert_eq!(shown[2].record.id, id);
        assert!(shown[2].record.open.is_none());
    }
    for _ in 0..3 {
        assert!(tail.next().await.unwrap().record.open.is_none());
    }
    let verification = verify(directory.path()).unwrap();
    assert_eq!((verification.records, verification.open), (4, 0));
    assert_eq!(writer.finish(LIMIT).await, Finished::Complete);
}

#[tokio::test]
async fn with_each_record_the_intent_is_on_the_disk_before_the_effect() {
    let directory = tempfile::tempdir().unwrap();
    let sync = SyncPolicy::EachRecord;
    let (log, writer) = start(directory.path(), Options { sync, ..options() });
    let mut open = under_way(&log).await;
    let id = open.id().to_string();
    assert_eq!(lines_with(directory.path(), &id).len(), 1);
    // What it has become is told before the next effect.
    open.record_mut().kind = Kind::Mcp;
    drop(open.intend().await.unwrap());
    let lines = lines_with(directory.path(), &id);
    assert!(lines[1].contains(r#""kind":"mcp""#), "{lines:?}");
    open.close(Outcome::done()).recorded().await.unwrap();
    assert_eq!(entries(directory.path()).len(), 2);
    assert_eq!(writer.finish(LIMIT).await, Finished::Complete);
    verify(directory.path()).unwrap();
}

#[tokio::test]
async fn what_the_gate_did_not_outlive_is_ended_by_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let (log, writer) = start(directory.path(), patient());
    let (one, other) = (under_way(&log).await, under_way(&log).await);
    // Nothing was let through: there is nothing to say.
    let undecided = log.open(Kind::Http, Start::default()).await.unwrap();
    log.flush().await.unwrap();
    let copy = killed(directory.path());
    append(copy.path(), 1, options()).await;
    let shown = entries(copy.path());
    for id in [one.id(), other.id()] {
        let ends: Vec<_> = shown.iter().filter(|entry| entry.record.id == id).collect();
        assert_eq!(ends.len(), 1);
        let record = &ends[0].record;
        let outcome = record.outcome.as_ref().unwrap();
        assert_eq!(
            (outcome.status, outcome.stage, outcome.latency_us),
            (Status::Abandoned, Some(Stage::Forward), 0)
        );
        let error = outcome.error.as_ref().unwrap();
        assert!(error.starts_with("the gate ended before"), "{error}");
        let http = record.http.as_ref().unwrap();
        assert_eq!(http.name.as_deref(), Some("slow.example.com"));
    }
    let started = lines_with(copy.path(), "closed as abandoned: 2");
    assert_eq!(started.len(), 1);
    assert_eq!(verify(copy.path()).unwrap().open, 0);
    // Another start has nothing left to end.
    append(copy.path(), 1, options()).await;
    assert_eq!(verify(copy.path()).unwrap().open, 0);
    drop((one, other, undecided));
    log.flush().await.unwrap();
    assert_eq!(writer.finish(LIMIT).await, Finished::Complete);
}

#[tokio::test]
async fn a_second_crash_at_any_byte_of_the_recovery_ends_nothing_twice() {
    let directory = tempfile::tempdir().unwrap();
    let (log, writer) = start(directory.path(), patient());
    let open = [under_way(&log).await, under_way(&log).await];
    log.flush().await.unwrap();
    let first = changed(directory.path(), |files| {
        let bytes = files.values_mut().next().unwrap();
        bytes.extend_from_slice(b"{\"v\":1,\"torn");
    });
    append(first.path(), 0, options()).await;
    let second = files(first.path()).remove("0000000002.jsonl").unwrap();
    for kept in (0..=second.len()).step_by(5) {
        let crashed = changed(first.path(), |files| {
            files.get_mut("0000000002.jsonl").unwrap().truncate(kept);
        });
        append(crashed.path(), 1, options()).await;
        let verification = verify(crashed.path()).unwrap_or_else(|fault| panic!("{kept}: {fault}"));
        assert_eq!(verification.open, 0, "{kept} bytes kept");
        let shown = entries(crashed.path());
        for open in &open {
            let id = open.id();
            let ends = shown.iter().filter(|entry| entry.record.id == id);
            assert_eq!(ends.count(), 1, "{kept} bytes kept");
        }
    }
    drop(open);
    log.flush().await.unwrap();
    assert_eq!(writer.finish(LIMIT).await, Finished::Complete);
}

#[tokio::test]
async fn each_segment_begins_with_what_is_open() {
    let directory = tempfile::tempdir().unwrap();
    let (log, writer) = start(
        directory.path(),
        Options {
            segment_bytes: 2_000,
            places: 8,
            ..options()
        },
    );
    let open = [under_way(&log).await, under_way(&log).await];
    log.flush().await.unwrap();
    for _ in 0..20 {
        drop(under_way(&log).await.close(Outcome::done()));
        log.flush().await.unwrap();
    }
    let copy = killed(directory.path());
    let segments = files(copy.path());
    assert!(segments.len() > 2);
    for (name, bytes) in segments.iter().skip(1) {
        let text = String::from_utf8(bytes.clone()).unwrap();
        for (line, (open, left)) in text.lines().zip(open.iter().zip([1, 0])) {
            assert!(line.contains(&format!("\"carried\":{left},")), "{name}");
            assert!(line.contains(&open.id().to_string()), "{name}");
        }
    }
    append(copy.path(), 0, options()).await;
    assert_eq!(verify(copy.path()).unwrap().open, 0);
    drop(open);
    assert_eq!(writer.finish(LIMIT).await, Finished::Complete);
    assert_eq!(verify(directory.path()).unwrap().open, 0);
}

#[tokio::test]
async fn an_ending_that_cannot_wait_leaves_what_is_open_to_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let (log, writer) = start(directory.path(), patient());
    let open = under_way(&log).await;
    assert_eq!(writer.finish(Duration::ZERO).await, Finished::Incomplete(1));
    assert_eq!(lines_with(directory.path(), "log_stopped").len(), 0);
    append(directory.path(), 0, options()).await;
    let id = open.id();
    let shown = entries(directory.path());
    let end = shown.iter().find(|entry| entry.record.id == id).unwrap();
    assert!(end.record.outcome.is_some());
    verify(directory.path()).unwrap();
}

/// A log of records that no writer would write.
fn made_up(records: &[Record]) -> TempDir {
    let mut head = Head::default();
    let mut lines = Vec::new();
    for record in records {
        head.append(&record.body(), &mut lines);
    }
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("0000000001.jsonl"), lines).unwrap();
    directory
}

#[tokio::test]
async fn verify_finds_exchanges_that_end_twice_late_or_never() {
    let id: RecordId = "00000000-0000-7000-8000-000000000001".parse().unwrap();
    let other: RecordId = "00000000-0000-7000-8000-000000000002".parse().unwrap();
    let end = Record::new(id, clock::now(), Kind::Http);
    let open = Record {
        open: Some(Open::default()),
        ..end.clone()
    };
    let mut started = Record::new(other, clock::now(), Kind::Lifecycle);
    started.lifecycle = Some(record::Lifecycle {
        event: Text::fixed("log_started"),
        ..record::Lifecycle::default()
    });
    let fault = |records: &[&Record]| {
        let records: Vec<_> = records.iter().copied().cloned().collect();
        verify(made_up(&records).path()).map_err(|fault| (fault.line, fault.kind))
    };
    assert_eq!(fault(&[&end, &end]), Err((2, FaultKind::Ended(id))));
    assert_eq!(fault(&[&open, &end, &end]), Err((3, FaultKind::Ended(id))));
    assert_eq!(fault(&[&end, &open]), Err((2, FaultKind::Reopened(id))));
    assert_eq!(fault(&[&open, &started]), Err((2, FaultKind::Endless(id))));
    assert_eq!(fault(&[&open, &open, &end, &started]).unwrap().open, 0);
    assert_eq!(fault(&[&started, &open, &open]).unwrap().open, 1);
}
