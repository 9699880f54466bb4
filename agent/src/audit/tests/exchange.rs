//! One record per exchange, whatever happens to it.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{spawn, yield_now};
use tokio::time::timeout;

use super::*;
use crate::telemetry::clock;

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Open,
    Intend(usize),
    Event,
    Close(usize),
    Drop(usize),
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Open),
        3 => any::<usize>().prop_map(Step::Intend),
        1 => Just(Step::Event),
        2 => any::<usize>().prop_map(Step::Close),
        2 => any::<usize>().prop_map(Step::Drop),
        1 => Just(Step::Flush),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_interleaving_yields_each_record_once_and_a_gapless_chain(
        steps in prop::collection::vec(step(), 0..60),
        each_record: bool,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let expected = runtime().block_on(play(directory.path(), steps, each_record));
        let entries = entries(directory.path());
        prop_assert!(entries.iter().all(|entry| entry.record.open.is_none()));
        let recorded: Vec<_> = entries
            .iter()
            .filter(|entry| entry.record.kind != Kind::Lifecycle)
            .map(|entry| entry.record.id)
            .collect();
        prop_assert_eq!(recorded.len(), expected.len());
        prop_assert_eq!(recorded.into_iter().collect::<BTreeSet<_>>(), expected);
        let verification = verify(directory.path()).unwrap();
        prop_assert_eq!(verification.open, 0);
        prop_assert!(verification.records >= entries.len() as u64);
    }
}

/// Plays the steps against a small queue and small segments; returns the ids of what was opened.
async fn play(path: &Path, steps: Vec<Step>, each_record: bool) -> BTreeSet<RecordId> {
    let sync = if each_record {
        SyncPolicy::EachRecord
    } else {
        options().sync
    };
    let (log, writer) = start(
        path,
        Options {
            sync,
            segment_bytes: 2_000,
            places: 8,
            ..options()
        },
    );
    let mut open = Vec::new();
    let mut ids = BTreeSet::new();
    for step in steps {
        match step {
            Step::Open if open.len() < 8 => {
                let record = log.open(Kind::Tcp, Start::default()).await.unwrap();
                ids.insert(record.id());
                open.push(record);
            }
            Step::Event if open.len() < 8 => {
                let record = log.record(Kind::Finding, clock::now());
                ids.insert(record.id);
                log.event(record).await.unwrap().recorded().await.unwrap();
            }
            Step::Intend(which) if !open.is_empty() => {
                let which = which % open.len();
                let record: &mut OpenRecord = &mut open[which];
                drop(record.intend().await.unwrap());
            }
            Step::Close(which) if !open.is_empty() => {
                let record = open.swap_remove(which % open.len());
                record.close(Outcome::done()).recorded().await.unwrap();
            }
            Step::Drop(which) if !open.is_empty() => {
                drop(open.swap_remove(which % open.len()));
            }
            Step::Flush => log.flush().await.unwrap(),
            _ => {}
        }
    }
    // The rest end in tasks of their own, while the log is being ended.
    for record in open {
        spawn(async move { drop(record) });
    }
    assert_eq!(writer.finish(LIMIT).await, Finished::Complete);
    assert_eq!(
        log.open(Kind::Tcp, Start::default()).await.err(),
        Some(AuditUnavailable::Ended)
    );
    ids
}

#[tokio::test]
async fn a_dropped_record_says_where_it_was_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let (log, writer) = start(directory.path(), options());
    let mut open = log.open(Kind::Http, Start::default()).await.unwrap();
    open.stage(Stage::Tls);
    drop(open);
    let panicking = log.open(Kind::Http, Start::default()).await.unwrap();
    let task = spawn(async move {
        let mut panicking = panicking;
        panicking.stage(Stage::Decode);
        panic!("a fault in a stage");
    });
    assert!(task.await.unwrap_err().is_panic());
    drop(
        log.open(Kind::Http, Start::default())
            .await
            .unwrap()
            .close(Outcome::failed("reset")),
    );
    writer.finish(LIMIT).await;
    let outcomes: Vec<_> = entries(directory.path())
        .into_iter()
        .filter_map(|entry| entry.record.outcome)
        .map(|outcome| (outcome.status, outcome.stage))
        .collect();
    assert_eq!(
        outcomes,
        [
            (Status::Abandoned, Some(Stage::Tls)),
            (Status::Abandoned, Some(Stage::Decode)),
            (Status::Failed, Some(Stage::Intake)),
        ]
    );
}

#[tokio::test]
async fn a_full_queue_holds_back_until_a_place_is_free() {
    let directory = tempfile::tempdir().unwrap();
    let (log, writer) = start(
        directory.path(),
        Options {
            places: 2,
            ..options()
        },
    );
    let first = log.open(Kind::Tcp, Start::default()).await.unwrap();
    let second = log.open(Kind::Tcp, Start::default()).await.unwrap();
    let third = spawn({
        let log = log.clone();
        async move { log.open(Kind::Tcp, Start::default()).await }
    });
    for _ in 0..100 {
        yield_now().await;
    }
    assert!(!third.is_finished());
    drop(first.close(Outcome::done()));
    let third = timeout(LIMIT, third).await.unwrap().unwrap().unwrap();
    drop((second, third));
    assert_eq!(writer.finish(LIMIT).await, Finished::Complete);
    assert_eq!(verify(directory.path()).unwrap().records, 5);
}

#[tokio::test]
async fn an_ending_refuses_those_who_wait_and_counts_those_that_stay_open() {
    let directory = tempfile::tempdir().unwrap();
    let (log, writer) = start(
        directory.path(),
        Options {
            places: 1,
            ..options()
        },
    );
    let open = log.open(Kind::Tcp, Start::default()).await.unwrap();
    let waiting = spawn({
        let log = log.clone();
        async move { log.open(Kind::Tcp, Start::default()).await.err() }
    });
    yield_now().await;
    assert_eq!(writer.finish(Duration::ZERO).await, Finished::Incomplete(1));
    assert_eq!(
        timeout(LIMIT, waiting).await.unwrap().unwrap(),
        Some(AuditUnavailable::Ending)
    );
    drop(open);
    // What the log holds is whole, and its successor says what is missing.
    append(directory.path(), 1, options()).await;
    verify(directory.path()).unwrap();
}

#[tokio::test]
async fn what_is_open_when_the_log_is_ended_is_recorded_as_promised() {
    let directory = tempfile::tempdir().unwrap();
    let sync = SyncPolicy::EachRecord;
    let (log, writer) = start(directory.path(), Options { sync, ..options() });
    let open = log.open(Kind::Tcp, Start::default()).await.unwrap();
    let mut state = log.watch();
    let ending = spawn(async move { writer.finish(LIMIT).await });
    timeout(LIMIT, state.wait_for(Option::is_some))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(log.available(), Err(AuditUnavailable::Ending));
    let receipt = open.close(Outcome::done());
    timeout(LIMIT, receipt.recorded()).await.unwrap().unwrap();
    assert_eq!(
        timeout(LIMIT, ending).await.unwrap().unwrap(),
        Finished::Complete
    );
    assert_eq!(log.flush().await, Ok(()));
    assert_eq!(verify(directory.path()).unwrap().records, 3);
}

#[tokio::test]
async fn a_second_writer_is_told_who_holds_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let (_log, writer) = start(directory.path(), options());
    let second = Log::start(File::open(directory.path()).unwrap().into(), options());
    let error = second.err().unwrap().to_string();
    assert_eq!(
        error,
        format!(
            "lock the audit log: process {} holds it",
            std::process::id()
        )
    );
    assert_eq!(writer.finish(LIMIT).await, Finished::Complete);
    append(directory.path(), 1, options()).await;
}

#[tokio::test]
async fn the_head_is_the_newest_record_that_is_safe() {
    let directory = tempfile::tempdir().unwrap();
    let (log, writer) = start(directory.path(), options());
    drop(log.open(Kind::Tcp, Start::default()).await.unwrap());
    log.flush().await.unwrap();
    let head = log.head();
    assert_eq!(head.seq, 2);
    writer.finish(LIMIT).await;
    let segments = Segments::open(directory.path()).unwrap();
    assert_eq!(segments.verify(&[head]).unwrap().head.seq, 3);
}

#[tokio::test]
async fn every_record_names_the_policy_that_was_in_force_as_it_began() {
    let directory = tempfile::tempdir().unwrap();
    let began = Options {
        generation: 7,
        ..options()
    };
    let (log, writer) = start(directory.path(), began);
    let before = log.open(Kind::Http, Start::default()).await.unwrap();
    log.in_force(8);
    let after = log.open(Kind::Http, Start::default()).await.unwrap();
    let mut large = log.record(Kind::Finding, clock::now());
    large.mcp = Some(record::Mcp {
        arguments: Some("x".repeat(100_000).into()),
        ..record::Mcp::default()
    });
    let (first, second, third) = (before.id(), after.id(), large.id);
    drop(log.event(large).await.unwrap());
    drop((before, after));
    writer.finish(LIMIT).await;
    let entries = entries(directory.path());
    let of = |id: RecordId| {
        let entry = entries.iter().find(|entry| entry.record.id == id);
        entry.unwrap().record.generation
    };
    assert_eq!((of(first), of(second), of(third)), (7, 8, 8));
    let life = entries
        .iter()
        .filter(|entry| entry.record.kind == Kind::Lifecycle);
    let life: Vec<u64> = life.map(|entry| entry.record.generation).collect();
    assert_eq!(life, [7, 8], "the log's own beginning and end");
}
