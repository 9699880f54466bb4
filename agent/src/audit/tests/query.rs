//! Asking a log, and following it.

use tokio::time::timeout;

use super::record::{Cause, Decision, Effect, Identity, Mcp, Mode, Workload, WorkloadKind};
use super::*;
use crate::telemetry::clock;

async fn call(
    log: &Log,
    server: &str,
    tool: &str,
    effect: Effect,
    cause: Option<RecordId>,
) -> RecordId {
    let workload = Workload {
        name: Text::from("claude-code"),
        kind: WorkloadKind::Host,
        ..Workload::default()
    };
    let identity = Identity {
        name: Text::from("dave"),
        ..Identity::default()
    };
    let start = Start {
        workload: Some(workload.into()),
        identity: Some(identity.into()),
        cause: cause.map(Cause::Id),
        ..Start::default()
    };
    let mut open = log.open(Kind::Mcp, start).await.unwrap();
    let mut record = open.record_mut();
    record.mcp = Some(Mcp {
        server: Some(Text::from(server)),
        method: Text::fixed("tools/call"),
        name: Some(Text::from(tool)),
        ..Mcp::default()
    });
    record.decision = Some(Decision {
        effect,
        rule: Some(Text::fixed("a-rule")),
        reason: None,
        mode: Mode::Enforce,
        would: None,
        would_rule: None,
        would_reason: None,
        policy: None,
        generation: Some(1),
        counters: Vec::new(),
    });
    drop(record);
    let id = open.id();
    drop(open.close(Outcome::done()));
    id
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "many questions to one log")]
async fn a_question_is_answered_from_all_segments() {
    let directory = tempfile::tempdir().unwrap();
    let (log, writer) = start(
        directory.path(),
        Options {
            segment_bytes: 1_000,
            ..options()
        },
    );
    let first = call(&log, "github", "get_issue", Effect::Allow, None).await;
    log.flush().await.unwrap();
    let second = call(&log, "github", "delete_repo", Effect::Deny, Some(first)).await;
    log.flush().await.unwrap();
    let third = call(&log, "linear", "search", Effect::Allow, None).await;
    writer.finish(LIMIT).await;
    let segments = Segments::open(directory.path()).unwrap();
    let times: Vec<_> = entries(directory.path())
        .iter()
        .map(|entry| entry.record.time)
        .collect();
    let ask = |filter: Filter| -> Vec<_> {
        segments
            .query(&filter)
            .unwrap()
            .iter()
            .map(|entry| entry.record.id)
            .collect()
    };
    let calls = Filter {
        kind: Some(Kind::Mcp),
        ..Filter::default()
    };
    assert_eq!(ask(calls.clone()), [first, second, third]);
    assert_eq!(
        ask(Filter {
            limit: Some(2),
            ..calls.clone()
        }),
        [second, third]
    );
    assert_eq!(
        ask(Filter {
            limit: Some(0),
            ..calls.clone()
        }),
        []
    );
    assert_eq!(
        ask(Filter {
            server: Some("git*".to_owned()),
            ..Filter::default()
        }),
        [first, second]
    );
    assert_eq!(
        ask(Filter {
            tool: Some("search".to_owned()),
            ..Filter::default()
        }),
        [third]
    );
    assert_eq!(
        ask(Filter {
            effect: Some(Effect::Deny),
            ..Filter::default()
        }),
        [second]
    );
    assert_eq!(
        ask(Filter {
            cause: Some(first),
            ..Filter::default()
        }),
        [first, second]
    );
    assert_eq!(
        ask(Filter {
            text: Some("DELETE_REPO".to_owned()),
            ..Filter::default()
        }),
        [second]
    );
    assert_eq!(
        ask(Filter {
            identity: Some("eve".to_owned()),
            ..Filter::default()
        }),
        []
    );
    assert_eq!(
        ask(Filter {
            workload: Some("claude-*".to_owned()),
            ..calls
        })
        .len(),
        3
    );
    assert_eq!(
        ask(Filter {
            status: Some(Status::Abandoned),
            ..Filter::default()
        }),
        []
    );
    let (since, until) = (Some(times[1]), Some(times[3]));
    assert_eq!(
        ask(Filter {
            since,
            until,
            ..Filter::default()
        }),
        [first, second]
    );
    let later = Some(clock::Timestamp::from_microseconds(
        times[3].microseconds() + 3_600_000_000,
    ));
    assert_eq!(
        ask(Filter {
            since: later,
            ..Filter::default()
        }),
        []
    );
}

#[tokio::test]
async fn following_sees_each_record_once_across_segments_and_restarts() {
    let directory = tempfile::tempdir().unwrap();
    append(directory.path(), 3, options()).await;
    let open = || Segments::open(directory.path()).unwrap();
    let mut new = Tail::new(open(), TailFrom::Now).unwrap();
    let mut all = Tail::new(open(), TailFrom::Beginning).unwrap();
    let writing = tokio::spawn({
        let path = directory.path().to_owned();
        async move {
            for _ in 0..3 {
                append(
                    &path,
                    10,
                    Options {
                        segment_bytes: 1_200,
                        ..options()
                    },
                )
                .await;
            }
        }
    });
    for expected in 1..=41 {
        let entry = timeout(LIMIT, all.next()).await.unwrap().unwrap();
        assert_eq!(entry.seq, expected);
    }
    for expected in 6..=41 {
        let entry = timeout(LIMIT, new.next()).await.unwrap().unwrap();
        assert_eq!(entry.seq, expected);
    }
    writing.await.unwrap();
}

#[tokio::test]
async fn a_line_that_is_no_record_does_not_end_the_reading() {
    let log = written(2, options()).await;
    let copy = changed(log.path(), |files| {
        let bytes = files.values_mut().next().unwrap();
        let at = bytes.iter().position(|byte| *byte == b'\n').unwrap();
        bytes.splice(at..=at, *b"\nnot a record\n");
    });
    let segments = Segments::open(copy.path()).unwrap();
    let (good, bad): (Vec<_>, Vec<_>) = segments.records().partition(Result::is_ok);
    assert_eq!((good.len(), bad.len()), (4, 1));
    assert!(matches!(
        bad[0],
        Err(ReadError::Line {
            segment: 1,
            line: 2,
            ..
        })
    ));
    Segments::open(Path::new("/nonexistent")).unwrap_err();
}
