//! Streams as hostile and as ordinary servers send them.

use proptest::prelude::*;

use super::{Event, Item, Limits, Parser, SseFault};
use crate::decode::oracle;

fn read(bytes: &[u8]) -> Vec<Item> {
    let mut items = Vec::new();
    let mut parser = Parser::new(Limits::default());
    parser.push(bytes, &mut items).expect("readable");
    items
}

/// What is sent on for `bytes`.
fn framed(bytes: impl AsRef<[u8]>) -> String {
    let mut out = String::new();
    for item in read(bytes.as_ref()) {
        item.write(&mut out);
    }
    out
}

#[test]
fn every_spelling_becomes_one_framing() {
    let rows: &[(&str, &str)] = &[
        ("data: a\n\n", "data: a\n\n"),
        ("data:a\n\n", "data: a\n\n"),
        ("data:  a \n\n", "data:  a \n\n"),
        ("data: a\r\n\r\n", "data: a\n\n"),
        ("data: a\r\r", "data: a\n\n"),
        ("data: a\r\n\n", "data: a\n\n"),
        ("data: a\n\r\n", "data: a\n\n"),
        (": comment\rdata: {}\r\r", ":\n\ndata: {}\n\n"),
        ("data: a\ndata: b\n\n", "data: a\ndata: b\n\n"),
        ("data\n\n", "data: \n\n"),
        ("data:\n\n", "data: \n\n"),
        ("id: 7\ndata:\n\n", "id: 7\ndata: \n\n"),
        (
            "data: a\nid: 7\nevent: e\nretry: 5\n\n",
            "event: e\nid: 7\nretry: 5\ndata: a\n\n",
        ),
        ("event: a\nevent: b\ndata: x\n\n", "event: b\ndata: x\n\n"),
        ("id: 1\n\n", "id: 1\n\n"),
        ("id\ndata: x\n\n", "id: \ndata: x\n\n"),
        ("id: a\0b\ndata: x\n\n", "data: x\n\n"),
        ("retry: 3000\n\n", "retry: 3000\n\n"),
        ("retry: 3s\n\n", ""),
        ("retry: +3\n\n", ""),
        ("retry:\n\n", ""),
        (":\n\n", ":\n\n"),
        (": secret words\n\n", ":\n\n"),
        ("data: a\n: in between\ndata: b\n\n", "data: a\ndata: b\n\n"),
        ("Data: a\n\n", ""),
        ("DATA: a\n\n", ""),
        (" data: a\n\n", ""),
        ("data : a\n\n", ""),
        ("unknown: a\n\n", ""),
        ("\n\n\r\n\r", ""),
        ("\u{feff}data: a\n\n", "data: a\n\n"),
        ("\u{feff}\u{feff}data: a\n\n", ""),
        ("data: a\n\n\u{feff}data: b\n\n", "data: a\n\n"),
        ("data: unfinished\n", ""),
        ("data: a\n\ndata: b", "data: a\n\n"),
        // Line ends of naive readers, not of this format.
        (
            "data: a\u{2028}data: b\u{85}c\u{b}d\u{c}e\u{1c}f\n\n",
            "data: a\u{2028}data: b\u{85}c\u{b}d\u{c}e\u{1c}f\n\n",
        ),
    ];
    for (received, sent) in rows {
        assert_eq!(framed(received), *sent, "{received:?}");
        assert_eq!(framed(sent), *sent, "{sent:?}");
    }
}

#[test]
fn messages_are_told_from_other_events() {
    let is_message = |text: &str| match read(text.as_bytes()).as_slice() {
        [Item::Event(event)] => event.is_message(),
        _ => panic!("one event"),
    };
    assert!(is_message("data: {}\n\n"));
    assert!(is_message("event: message\ndata: {}\n\n"));
    assert!(is_message("event:\ndata: {}\n\n"));
    assert!(!is_message("event: foo\ndata: {}\n\n"));
    assert!(!is_message("event: Message\ndata: {}\n\n"));
    assert!(!is_message("event: endpoint\ndata: /message\n\n"));
    assert!(!is_message("id: 1\ndata:\n\n"));
    assert!(!is_message("retry: 1\n\n"));
}

#[test]
fn data_cannot_break_out_of_its_event() {
    let mut out = String::new();
    Event::message("a\n\ndata: b\r\revent: c\r\nd".into()).write(&mut out);
    assert_eq!(
        out,
        "data: a\ndata: \ndata: data: b\ndata: \ndata: event: c\ndata: d\n\n"
    );
    assert_eq!(read(out.as_bytes()).len(), 1);
}

#[test]
fn limits_cut_the_stream_for_good() {
    let limits = Limits {
        bytes: 16,
        lines: 3,
    };
    let run = |pieces: &[&[u8]]| {
        let mut items = Vec::new();
        let mut parser = Parser::new(limits);
        let faults: Vec<_> = pieces
            .iter()
            .map(|piece| parser.push(piece, &mut items).err())
            .collect();
        (items.len(), faults)
    };
    let large = SseFault::TooLarge { limit: 16 };
    let many = SseFault::TooManyLines { limit: 3 };
    assert_eq!(run(&[b"data: 0123456789\n\n"]), (1, vec![None]));
    assert_eq!(run(&[b"data: 0123456789x\n\n"]), (0, vec![Some(large)]));
    assert_eq!(
        run(&[b"data: 01234567", b"89x"]),
        (0, vec![None, Some(large)])
    );
    assert_eq!(
        run(&[b"data: 01234567", b"89x", b"\n\n"]),
        (0, vec![None, Some(large), Some(large)])
    );
    assert_eq!(
        run(&[b"a\nb\nc\n\n", b"a\nb\nc\n\n"]),
        (0, vec![None, None])
    );
    assert_eq!(run(&[b"a\nb\nc\nd\n"]), (0, vec![Some(many)]));
    assert_eq!(run(&[b":\n:\n:\n:\n"]), (3, vec![Some(many)]));
    // The bound is on one event, not on the stream.
    assert_eq!(
        run(&[b"data: 0123456789\n\ndata: 0123456789\n\n"]),
        (2, vec![None])
    );
    assert_eq!(run(&[b"data: \xff\n"]), (0, vec![Some(SseFault::NotUtf8)]));
}

#[test]
fn a_stream_may_end_only_between_events() {
    let ended = |bytes: &[u8]| {
        let mut parser = Parser::new(Limits::default());
        parser.push(bytes, &mut Vec::new()).unwrap();
        parser.is_between_events()
    };
    assert!(ended(b""));
    assert!(ended(b"data: a\n\n"));
    assert!(ended(b"data: a\r\r"));
    assert!(!ended(b"data: a\n"));
    assert!(!ended(b"dat"));
}

#[test]
fn judged_data_takes_the_old_place() {
    let items = read(b"id: 3\nevent: message\ndata: {\ndata: }\n\n");
    let [Item::Event(event)] = items.as_slice() else {
        panic!("one event")
    };
    assert_eq!(event.data(), Some("{\n}"));
    let mut out = String::new();
    event.clone().with_data("{}".into()).write(&mut out);
    assert_eq!(out, "event: message\nid: 3\ndata: {}\n\n");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn division_never_shows(
        text in "((data|id|event|retry|x)?:? ?[a1\u{e9}\u{2028}]{0,3}(\r|\n|\r\n){0,3}){0,12}",
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        oracle::sse(text.as_bytes());
        let bytes = text.as_bytes();
        let mut places: Vec<usize> =
            cuts.iter().map(|cut| if bytes.is_empty() { 0 } else { cut.index(bytes.len()) }).collect();
        places.sort_unstable();
        let mut items = Vec::new();
        let mut parser = Parser::new(Limits::default());
        let mut from = 0;
        for place in places.into_iter().chain([bytes.len()]) {
            parser.push(&bytes[from..place], &mut items).unwrap();
            from = place;
        }
        prop_assert_eq!(items, read(bytes));
    }

    #[test]
    fn any_data_arrives_as_lines(data in any::<String>()) {
        let mut out = String::new();
        Event::message(data.clone()).write(&mut out);
        let items = read(out.as_bytes());
        let expected = data.replace("\r\n", "\n").replace('\r', "\n");
        prop_assert_eq!(items, vec![Item::Event(Event::message(expected))]);
        let around = Event::around(data.clone().into());
        prop_assert_eq!(around.is_none(), data.contains(['\r', '\n']));
        if let Some(parts) = around {
            prop_assert_eq!(parts.concat(), out.into_bytes());
        }
    }
}
