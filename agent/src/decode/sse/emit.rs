//! The one framing in which events are sent on: LF line ends, one space after the colon, fields in fixed order.

use bytes::Bytes;

use super::{Event, Item};

impl Event {
    /// A message's block around the very bytes of its data; none where they hold a line end.
    pub fn around(data: Bytes) -> Option<[Bytes; 3]> {
        let before = Bytes::from_static(b"data: ");
        let after = Bytes::from_static(b"\n\n");
        let is_line = !data.iter().any(|byte| matches!(byte, b'\r' | b'\n'));
        is_line.then_some([before, data, after])
    }

    /// Appends the block with its blank line.
    pub fn write(&self, out: &mut String) {
        if let Some(name) = &self.name {
            field("event", name, out);
        }
        if let Some(id) = &self.id {
            field("id", id, out);
        }
        if let Some(retry) = self.retry {
            field("retry", &retry.to_string(), out);
        }
        if let Some(data) = &self.data {
            // A line end inside data becomes another data line, whichever of the three it is.
            for line in lines(data) {
                field("data", line, out);
            }
        }
        out.push('\n');
    }
}

impl Item {
    /// Appends the item as it goes on the wire.
    pub fn write(&self, out: &mut String) {
        match self {
            Item::Event(event) => event.write(out),
            Item::KeepAlive => out.push_str(":\n\n"),
        }
    }
}

/// Names and ids come from the parser alone, so they hold no line end.
fn field(name: &str, value: &str, out: &mut String) {
    out.push_str(name);
    out.push_str(": ");
    out.push_str(value);
    out.push('\n');
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\r', '\n']) else {
            rest = None;
            return Some(text);
        };
        let (line, tail) = text.split_at_checked(end)?;
        rest = tail
            .strip_prefix("\r\n")
            .or_else(|| tail.strip_prefix(['\r', '\n']));
        Some(line)
    })
}
