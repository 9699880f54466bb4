//! What must hold for every sequence of bytes; run by the fuzz targets, and by tests over their corpus.

use hyper::http::HeaderMap;

use super::json::{self, Limits, Value};
use super::lines::{Frame, Lines};
use super::scan::{Scanner, Verdict};
use super::{mcp, rpc, sse};

/// What is accepted is written in one line that reads as the same tree, and a lenient parser reads that line alike.
pub fn json(bytes: &[u8]) {
    let Ok(value) = json::parse(bytes, &Limits::REQUEST) else {
        return;
    };
    let text = value.to_text();
    assert!(
        !text.contains(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']),
        "a line end in the canonical text"
    );
    let again = json::parse(text.as_bytes(), &Limits::REQUEST);
    assert!(
        again.as_ref() == Ok(&value),
        "the canonical text reads differently"
    );
    let lenient: Result<serde_json::Value, _> = serde_json::from_slice(bytes);
    assert!(
        lenient.is_ok_and(|lenient| alike(&lenient, &value)),
        "parsers disagree"
    );
}

/// Whether a lenient parser read `value`. Its doubles may be off in the last place: it does not round exactly.
fn alike(lenient: &serde_json::Value, value: &Value) -> bool {
    match (lenient, value) {
        (serde_json::Value::Null, Value::Null) => true,
        (serde_json::Value::Bool(one), Value::Bool(two)) => one == two,
        (serde_json::Value::String(one), Value::String(two)) => one == two,
        (serde_json::Value::Number(one), Value::Number(two)) => {
            let (Some(one), Some(two)) = (one.as_f64(), two.as_f64()) else {
                return false;
            };
            (one - two).abs() <= two.abs() * 1e-14
        }
        (serde_json::Value::Array(one), Value::Array(two)) => {
            one.len() == two.len() && one.iter().zip(two).all(|(one, two)| alike(one, two))
        }
        (serde_json::Value::Object(one), Value::Object(two)) => {
            one.len() == two.len()
                && one
                    .iter()
                    .all(|(key, one)| two.get(key).is_some_and(|two| alike(one, two)))
        }
        _ => false,
    }
}

/// Any division gives the same frames, a frame holds no line end, and an id that is told is one that stands there.
pub fn lines(bytes: &[u8]) {
    const LIMIT: usize = 64;
    let whole = read_lines(LIMIT, [bytes].into_iter());
    let step = bytes
        .first()
        .map_or(1, |byte| usize::from(byte % 7).saturating_add(1));
    let pieces = read_lines(LIMIT, bytes.chunks(step));
    assert!(whole == pieces, "the division of a stream shows");
    let ends = bytes.split(|byte| *byte == b'\n').count();
    assert!(whole.0.len() < ends, "a frame without an end");
    for line in whole.0.iter().flatten() {
        assert!(line.len() <= LIMIT, "a line beyond the limit");
        assert!(
            !line.contains(&b'\n') && !line.contains(&b'\r'),
            "a line end inside a line"
        );
    }
    // Each line of more than one byte, skimmed: where a strict parser finds an id, none or that one is found.
    for line in bytes.split(|byte| *byte == b'\n') {
        let mut lines = Lines::new(1);
        lines.space().extend_from_slice(line);
        lines.space().push(b'\n');
        let Some(Frame::TooLong(skimmed)) = lines.next() else {
            continue;
        };
        if let Ok(value) = json::parse(line, &Limits::REQUEST) {
            let there = value.get("id").and_then(rpc::Id::read);
            assert!(
                skimmed.id.is_none() || skimmed.id == there,
                "another id than the one that stands there"
            );
        }
    }
}

/// The lines; `None` for what is none. With it whether one was left unfinished.
fn read_lines<'a>(
    limit: usize,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Option<Vec<u8>>>, bool) {
    let mut lines = Lines::new(limit);
    let mut found = Vec::new();
    for piece in pieces {
        lines.space().extend_from_slice(piece);
        while let Some(frame) = lines.next() {
            found.push(match frame {
                Frame::Line(line) => Some(line.to_vec()),
                Frame::CarriageReturn | Frame::TooLong(_) | Frame::PassedOver(_) => None,
            });
        }
    }
    let unfinished = lines.is_unfinished();
    (found, unfinished)
}

/// A message survives being written, and nothing that is a message to a lenient reader changes its kind.
pub fn rpc(bytes: &[u8]) {
    let Ok(message) = rpc::parse_single(bytes, &Limits::REQUEST) else {
        return;
    };
    let text = message.encode();
    let again = rpc::parse_single(text.as_bytes(), &Limits::REQUEST);
    assert!(
        again.as_ref() == Ok(&message),
        "the message reads differently"
    );
    let value = json::parse(text.as_bytes(), &Limits::REQUEST);
    let method = value
        .as_ref()
        .ok()
        .and_then(|value| value.get("method")?.as_str());
    assert!(method == message.method(), "the method reads differently");
    if let Ok(view) = mcp::view(&message) {
        assert!(
            Some(view.method) == message.method(),
            "the view shows another method"
        );
    }
    if let rpc::Message::Response(response) = &message
        && let rpc::Outcome::Result(result) = &response.outcome
    {
        let mut filtered = result.clone();
        if mcp::filter(&mut filtered, mcp::List::Tools, mcp::Era::Modern, |_| false).is_ok() {
            assert!(
                filtered
                    .get("tools")
                    .and_then(Value::as_array)
                    .is_some_and(<[_]>::is_empty),
                "a filtered tool stayed"
            );
        }
    }
}

/// Any division of a stream gives the same items, and what is written reads as the same events.
pub fn sse(bytes: &[u8]) {
    let limits = sse::Limits {
        bytes: 1 << 16,
        lines: 1 << 10,
    };
    let whole = read_events(limits, [bytes].into_iter());
    let step = bytes
        .first()
        .map_or(1, |byte| usize::from(byte % 7).saturating_add(1));
    let pieces = read_events(limits, bytes.chunks(step));
    assert!(whole == pieces, "the division of a stream shows");
    let mut text = String::new();
    for item in &whole.0 {
        item.write(&mut text);
    }
    let wide = sse::Limits {
        bytes: 1 << 20,
        lines: 1 << 20,
    };
    let again = read_events(wide, [text.as_bytes()].into_iter());
    assert!(
        again == (whole.0, None),
        "an event reads differently after framing"
    );
}

fn read_events<'a>(
    limits: sse::Limits,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<sse::Item>, Option<sse::SseFault>) {
    let mut parser = sse::Parser::new(limits);
    let mut items = Vec::new();
    let mut fault = None;
    for piece in pieces {
        fault = parser.push(piece, &mut items).err();
    }
    (items, fault)
}

/// Any division gives the same verdict, and no message that a lenient reader executes passes as something else.
pub fn scan(bytes: &[u8]) {
    let headers = HeaderMap::new();
    let mut whole = Scanner::new(&headers);
    whole.push(bytes);
    let verdict = whole.finish();
    let mut pieces = Scanner::new(&headers);
    for byte in bytes {
        pieces.push(std::slice::from_ref(byte));
    }
    assert!(verdict == pieces.finish(), "the division of a body shows");
    // A reader that takes the last of duplicate keys and any unknown one executes more than the strict one does.
    let is_run = |message: &serde_json::Value| {
        let text = |key: &str| message.get(key).and_then(serde_json::Value::as_str);
        text("jsonrpc") == Some("2.0") && text("method").and_then(mcp::method).is_some()
    };
    let executed = match serde_json::from_slice(bytes) {
        Ok(serde_json::Value::Array(entries)) => entries.iter().any(is_run),
        Ok(message) => is_run(&message),
        Err(_) => false,
    };
    assert!(
        !executed || verdict == Verdict::Mcp,
        "a message was not recognised"
    );
}
