//! Lines in any portions, and the ids of lines that are too long.

use proptest::prelude::*;

use super::{Frame, Lines, Skimmed};
use crate::decode::rpc::Id;

/// What `bytes` hold, given in portions of `portion` bytes: lines as text, other frames by their name.
fn read(bytes: &[u8], limit: usize, portion: usize) -> (Vec<String>, bool) {
    let mut lines = Lines::new(limit);
    let mut found = Vec::new();
    for part in bytes.chunks(portion) {
        lines.space().extend_from_slice(part);
        while let Some(frame) = lines.next() {
            found.push(match frame {
                Frame::Line(line) => String::from_utf8_lossy(line).into_owned(),
                Frame::CarriageReturn => "CR".to_owned(),
                Frame::TooLong(skimmed) | Frame::PassedOver(skimmed) => format!("{:?}", skimmed.id),
            });
        }
    }
    let unfinished = lines.is_unfinished();
    (found, unfinished)
}

#[test]
fn only_lf_ends_a_line() {
    let text = "a\nb\r\n\n\r\nc\rd\ne\u{85}f\u{2028}g\u{b}h\u{c}i\0\nrest";
    for portion in 1..9 {
        let (found, unfinished) = read(text.as_bytes(), 100, portion);
        let wanted = ["a", "b", "CR", "e\u{85}f\u{2028}g\u{b}h\u{c}i\0"];
        assert_eq!(found, wanted, "{portion}");
        assert!(unfinished);
    }
    assert!(!read(b"a\n", 100, 1).1);
    assert_eq!(
        read(b"a\r\r\n", 100, 1).0,
        ["CR"],
        "one CR alone belongs to the end"
    );
}

#[test]
fn a_long_line_costs_nothing_and_the_next_one_is_read() {
    let long = "x".repeat(100_000);
    let text = format!("{{\"id\":7,\"x\":\"{long}\"}}\nafter\n");
    for portion in [1, 7, 4096, 200_000] {
        let (found, unfinished) = read(text.as_bytes(), 100, portion);
        assert_eq!(found, ["Some(7)", "after"], "{portion}");
        assert!(!unfinished);
    }
    let mut lines = Lines::new(100);
    for _ in 0..10_000 {
        lines.space().extend_from_slice(&[b'x'; 1024]);
        assert_eq!(lines.next(), None);
    }
    assert!(lines.space().capacity() < 200_000);
    assert!(lines.is_unfinished());
}

#[test]
fn a_long_line_is_not_paid_for_by_what_follows_it() {
    let mut lines = Lines::new(1 << 20);
    let long = "x".repeat(1 << 20);
    lines
        .space()
        .extend_from_slice(format!("{long}\n{{").as_bytes());
    assert_eq!(lines.next(), Some(Frame::Line(long.as_bytes())));
    assert_eq!(lines.next(), None);
    assert!(lines.is_unfinished());
    let kept = lines.space();
    assert!(kept.capacity() <= 64 << 10, "{}", kept.capacity());
    kept.extend_from_slice(b"}\n");
    assert_eq!(lines.next(), Some(Frame::Line(b"{}")));
}

#[test]
fn a_line_that_is_passed_over_is_read_to_its_end_and_the_next_one_is_kept() {
    let mut lines = Lines::new(1000);
    let begins = br#"{"id":7,"x":"aaaa"#;
    lines.space().extend_from_slice(begins);
    assert_eq!(lines.next(), None);
    assert_eq!(lines.held(), begins.len());
    lines.pass_over();
    assert_eq!(lines.held(), 0);
    assert!(lines.is_unfinished());
    lines.space().extend_from_slice(b"aaaa");
    assert_eq!(lines.next(), None);
    assert_eq!(lines.held(), 0, "nothing more of it is kept");
    let rest = b"\",\"method\":\"m\"}\nafter\n";
    lines.space().extend_from_slice(rest);
    let Some(Frame::PassedOver(skimmed)) = lines.next() else {
        panic!("it was passed over")
    };
    assert_eq!(skimmed.id, Some(Id::Number(7.into())));
    assert!(skimmed.calls && !skimmed.answers);
    assert_eq!(lines.next(), Some(Frame::Line(b"after")));
    lines.space().extend_from_slice(&[b'x'; 1001]);
    lines.space().extend_from_slice(b"\n");
    assert!(matches!(lines.next(), Some(Frame::TooLong(_))), "as before");
}

#[test]
fn exactly_the_limit_passes() {
    assert_eq!(read(b"abc\nabcd\nab\n", 3, 2).0, ["abc", "None", "ab"]);
    assert_eq!(read(b"abc\r\n", 3, 2).0, ["None"], "its end is no excuse");
}

#[test]
fn the_id_is_found_wherever_it_stands() {
    let skim = |text: &str| {
        let mut lines = Lines::new(1);
        lines.space().extend_from_slice(text.as_bytes());
        lines.space().push(b'\n');
        match lines.next() {
            Some(Frame::TooLong(skimmed)) => skimmed,
            other => panic!("{other:?}"),
        }
    };
    let call = |id| Skimmed {
        id,
        calls: true,
        answers: false,
    };
    let seven = Some(Id::Number(7));
    let nested = r#"{"params":{"id":1,"a":[{"id":2}],"s":"\"id\":3,{"},"method":"m","id":7}"#;
    assert_eq!(skim(nested), call(seven.clone()));
    assert_eq!(skim(r#"{ "id" : 7 , "method" : "m" }"#), call(seven));
    let text = Some(Id::Text("a,\"}".to_owned()));
    assert_eq!(skim(r#"{"method":"m","id":"a,\"}"}"#), call(text));
    for none in [
        r#"{"method":"m"}"#,
        r#"{"method":"m","id":7,"id":8}"#,
        r#"{"method":"m","id":1.5}"#,
        r#"{"method":"m","id":[7]}"#,
        r#"{"method":"m","id":null}"#,
        r#"{"method":"m","i\u0064":7}"#,
    ] {
        assert_eq!(skim(none), call(None), "{none}");
    }
    let answer = skim(r#"{"jsonrpc":"2.0","id":7,"result":{"method":1}}"#);
    assert!(answer.answers && !answer.calls);
    assert_eq!(skim("[[{\"id\":1}]]").id, None);
}

proptest! {
    /// However the bytes arrive, the lines are those between the LFs.
    #[test]
    fn portions_do_not_matter(
        bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..200),
        portion in 1_usize..50,
    ) {
        let whole = read(&bytes, 20, bytes.len().max(1));
        prop_assert_eq!(&read(&bytes, 20, portion), &whole);
        let mut parts: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        let rest = parts.pop().unwrap_or_default();
        prop_assert_eq!(whole.1, !rest.is_empty());
        let lines = parts.iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let full = parts.iter().zip(lines).filter(|(raw, line)| raw.len() > 20 || !line.is_empty());
        prop_assert_eq!(whole.0.len(), full.count());
    }

    /// An id that a parser finds is found, or none is: never another.
    #[test]
    fn an_id_is_never_another(id in any::<i32>(), text in ".{0,40}", last in any::<bool>()) {
        let rest = serde_json::json!({ "id": 1, "s": text, "t": [text] });
        let text = if last {
            format!(r#"{{"method":"m","params":{rest},"id":{id}}}"#)
        } else {
            format!(r#"{{"id":{id},"method":"m","params":{rest}}}"#)
        };
        let mut lines = Lines::new(1);
        lines.space().extend_from_slice(text.as_bytes());
        lines.space().push(b'\n');
        let Some(Frame::TooLong(skimmed)) = lines.next() else {
            return Err(TestCaseError::fail("not too long"));
        };
        prop_assert_eq!(skimmed.id, Some(Id::Number(id.into())));
    }
}
