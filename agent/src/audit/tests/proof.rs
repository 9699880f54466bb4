//! What `verify` finds, and how a log is taken up after a crash.

use super::*;

fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect()
}

const FIRST: &str = "0000000001.jsonl";

fn edit_lines(path: &Path, edit: impl FnOnce(&mut Vec<Vec<u8>>)) -> TempDir {
    changed(path, |files| {
        let bytes = files.get_mut(FIRST).unwrap();
        let mut lines = lines(bytes);
        edit(&mut lines);
        *bytes = lines.concat();
    })
}

#[tokio::test]
async fn a_log_over_many_segments_is_whole() {
    let log = written(
        40,
        Options {
            segment_bytes: 1_500,
            ..options()
        },
    )
    .await;
    let verification = verify(log.path()).unwrap();
    assert_eq!(verification.records, 42);
    assert_eq!(verification.segments, files(log.path()).len() as u64);
    assert!(verification.segments > 1);
    assert_eq!((verification.cuts.len(), verification.unfinished), (0, 0));
}

#[tokio::test]
async fn every_changed_byte_is_found() {
    let log = written(2, options()).await;
    let original = files(log.path()).remove(FIRST).unwrap();
    let copy = changed(log.path(), |_| {});
    let file = copy.path().join(FIRST);
    for at in 0..original.len() - 1 {
        let mut bytes = original.clone();
        bytes[at] ^= 1;
        fs::write(&file, bytes).unwrap();
        let fault = verify(copy.path()).unwrap_err();
        let line = original[..at].split(|byte| *byte == b'\n').count() as u64;
        // A line feed that became another letter joins its line with the next.
        assert_eq!(
            (fault.file.as_str(), fault.line),
            (FIRST, line),
            "byte {at}: {fault}"
        );
    }
}

#[tokio::test]
async fn removed_swapped_and_doubled_lines_are_found() {
    let log = written(4, options()).await;
    let fault = |edit: fn(&mut Vec<Vec<u8>>)| {
        let fault = verify(edit_lines(log.path(), edit).path()).unwrap_err();
        (fault.line, fault.kind)
    };
    let sequence = |expected, found| FaultKind::Sequence { expected, found };
    assert_eq!(fault(|lines| drop(lines.remove(2))), (3, sequence(3, 4)));
    assert_eq!(fault(|lines| drop(lines.remove(0))), (1, sequence(1, 2)));
    assert_eq!(fault(|lines| lines.swap(1, 2)), (2, sequence(2, 3)));
    assert_eq!(
        fault(|lines| lines.insert(2, lines[1].clone())),
        (3, sequence(3, 2))
    );
    assert_eq!(
        fault(|lines| lines.insert(2, b"\n".to_vec())),
        (3, FaultKind::Form)
    );
    assert_eq!(
        fault(|lines| lines.insert(2, vec![b' '; 200_000])),
        (3, FaultKind::Form)
    );
}

#[tokio::test]
async fn a_line_of_another_log_is_found() {
    let (log, other) = (written(3, options()).await, written(3, options()).await);
    let foreign = lines(&files(other.path())[FIRST])[2].clone();
    let fault = verify(edit_lines(log.path(), |lines| lines[2] = foreign).path()).unwrap_err();
    assert_eq!((fault.line, fault.kind), (3, FaultKind::Chain));
}

#[tokio::test]
async fn removed_segments_are_found() {
    let log = written(
        20,
        Options {
            segment_bytes: 1_500,
            ..options()
        },
    )
    .await;
    let names: Vec<_> = files(log.path()).into_keys().collect();
    let head = verify(log.path()).unwrap().head;
    for (removed, name) in names.iter().enumerate() {
        let copy = changed(log.path(), |files| drop(files.remove(name)));
        let result = Segments::open(copy.path()).unwrap().verify(&[head]);
        let Err(VerifyError::Fault(fault)) = result else {
            panic!("{name}: {result:?}")
        };
        let expected = if removed + 1 == names.len() {
            FaultKind::End(head.seq)
        } else {
            FaultKind::Segment(removed as u64 + 1)
        };
        assert_eq!(fault.kind, expected, "{name}");
    }
}

#[tokio::test]
async fn a_rewritten_log_is_not_the_one_that_is_known_from_elsewhere() {
    let (log, rewritten) = (written(3, options()).await, written(3, options()).await);
    let known = verify(log.path()).unwrap().head;
    let result = Segments::open(rewritten.path()).unwrap().verify(&[known]);
    let Err(VerifyError::Fault(fault)) = result else {
        panic!("{result:?}")
    };
    assert_eq!(fault.kind, FaultKind::Anchor(known.seq));
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_is_sealed_and_the_chain_goes_on() {
    let log = written(2, options()).await;
    let original = files(log.path()).remove(FIRST).unwrap();
    let last = lines(&original).pop().unwrap();
    for torn in 1..=last.len() {
        let kept = original.len() - torn;
        let copy = changed(log.path(), |files| {
            files.get_mut(FIRST).unwrap().truncate(kept);
        });
        append(copy.path(), 1, options()).await;
        let verification = verify(copy.path()).unwrap();
        // Three good records, what is new, and the seal if there is something to seal.
        let sealed = u64::from(torn < last.len());
        assert_eq!(verification.records, 3 + 3 + sealed, "{torn} bytes torn");
        assert_eq!(verification.cuts.len() as u64, sealed);
        for cut in &verification.cuts {
            assert_eq!(cut.bytes, (last.len() - torn) as u64);
        }
        assert_eq!(
            files(copy.path())[FIRST].len(),
            kept,
            "nothing is rewritten"
        );
        let seen = entries(copy.path());
        assert!(
            seen.iter()
                .map(|entry| entry.seq)
                .eq(1..=verification.records)
        );
        let start = seen
            .iter()
            .rfind(|entry| entry.line.contains("log_started"))
            .unwrap();
        assert!(
            start.line.contains("was not ended in order"),
            "{}",
            start.line
        );
    }
}

#[tokio::test]
async fn a_sealed_tail_cannot_be_changed_later() {
    let log = written(2, options()).await;
    let torn = changed(log.path(), |files| {
        files.get_mut(FIRST).unwrap().pop();
    });
    append(torn.path(), 1, options()).await;
    verify(torn.path()).unwrap();
    for change in [
        (|bytes: &mut Vec<u8>| bytes.push(b'x')) as fn(&mut Vec<u8>),
        |bytes| bytes.truncate(bytes.len() - 1),
        |bytes| *bytes.last_mut().unwrap() ^= 1,
    ] {
        let copy = changed(torn.path(), |files| change(files.get_mut(FIRST).unwrap()));
        assert_eq!(verify(copy.path()).unwrap_err().kind, FaultKind::Cut);
    }
}

#[tokio::test]
async fn whatever_a_crash_leaves_at_the_end_is_sealed() {
    let log = written(2, options()).await;
    let good = files(log.path()).remove(FIRST).unwrap();
    let some_line = lines(&good)[1].clone();
    for rubbish in [
        vec![0; 5_000],
        b"\n".to_vec(),
        b"{}\n{}\n".to_vec(),
        some_line,
        vec![b'x'; 200_000],
    ] {
        let crashed = changed(log.path(), |files| {
            files.get_mut(FIRST).unwrap().extend_from_slice(&rubbish);
        });
        append(crashed.path(), 1, options()).await;
        let verification = verify(crashed.path()).unwrap();
        assert_eq!(verification.records, 4 + 1 + 3);
        assert_eq!(verification.cuts[0].bytes, rubbish.len() as u64);
        assert_eq!(verification.cuts[0].offset, good.len() as u64);
    }
}

#[tokio::test]
async fn segments_without_any_good_record_are_passed_over() {
    let log = written(2, options()).await;
    let crashed = changed(log.path(), |files| {
        files.get_mut(FIRST).unwrap().pop();
        files.insert("0000000002.jsonl".to_owned(), b"torn".to_vec());
        files.insert("0000000003.jsonl".to_owned(), Vec::new());
    });
    append(crashed.path(), 1, options()).await;
    let verification = verify(crashed.path()).unwrap();
    let cut: Vec<_> = verification.cuts.iter().map(|cut| cut.segment).collect();
    assert_eq!((cut, verification.segments), (vec![1, 2], 4));
    append(crashed.path(), 1, options()).await;
    assert_eq!(verify(crashed.path()).unwrap().segments, 5);
}
