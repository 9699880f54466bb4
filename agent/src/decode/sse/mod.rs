//! Server-sent events (WHATWG HTML, section 9.2): read incrementally, judged as text, framed anew.
//!
//! Lines end at CR, LF or CRLF and nowhere else. Received framing is never sent on: a comment, an odd line end
//! or a field that nobody knows may be read differently by the next parser.

mod emit;
mod parse;

#[cfg(test)]
mod tests;

pub use parse::{Limits, Parser, SseFault};

/// What a stream yields.
#[derive(Clone, PartialEq, Eq)]
pub enum Item {
    /// A block that had fields.
    Event(Event),
    /// A comment between events. Its text is dropped; that it came keeps connections alive.
    KeepAlive,
}

/// One block of fields. Without `data` it is no event for a client, but it may set the reconnection time or
/// the last event id, so it is sent on.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Event {
    name: Option<String>,
    id: Option<String>,
    retry: Option<u64>,
    data: Option<String>,
}

impl Event {
    /// An event of the default type with `data`.
    pub fn message(data: String) -> Event {
        Event {
            data: Some(data),
            ..Event::default()
        }
    }

    /// `event`: the type; `None` means `message`.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// `id`: what a client sends as `Last-Event-ID`. An empty one resets it.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// `retry`: milliseconds before reconnecting.
    pub fn retry(&self) -> Option<u64> {
        self.retry
    }

    /// The data lines joined by LF; `Some("")` primes a client's last event id (2025-11-25) and is not JSON.
    pub fn data(&self) -> Option<&str> {
        self.data.as_deref()
    }

    /// Whether a client takes this event for an MCP message: those with data, of no type or of type `message`.
    /// Every known client drops other types, except `endpoint` of 2024-11-05.
    pub fn is_message(&self) -> bool {
        self.data.as_deref().is_some_and(|data| !data.is_empty())
            && matches!(self.name(), None | Some("" | "message"))
    }

    /// The same event with other data, for what was judged and written anew.
    #[must_use]
    pub fn with_data(self, data: String) -> Event {
        Event {
            data: Some(data),
            ..self
        }
    }
}

// Data is what servers say: not for logs.
impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Event")
            .field("data_bytes", &self.data.as_ref().map(String::len))
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Item::Event(event) => event.fmt(f),
            Item::KeepAlive => f.write_str("KeepAlive"),
        }
    }
}
