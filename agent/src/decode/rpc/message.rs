//! The three kinds of message, and their one spelling on the wire.

use std::fmt;

use crate::decode::json::{Object, Value, write_text};

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Expects exactly one response with its id.
    Request(Request),
    /// Expects none.
    Notification(Notification),
    /// Answers a request of the other side.
    Response(Response),
}

/// A call.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// What the response will carry.
    pub id: Id,
    /// Decoded; at most [`MAX_NAME`](super::MAX_NAME) bytes.
    pub method: String,
    /// Absent is not the same as empty, and both are sent on as they came.
    pub params: Option<Object>,
}

/// A call without an answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Notification {
    /// Decoded; at most [`MAX_NAME`](super::MAX_NAME) bytes.
    pub method: String,
    /// Absent is not the same as empty.
    pub params: Option<Object>,
}

/// An answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// `None` (null on the wire) only for an error about a message whose id could not be read.
    pub id: Option<Id>,
    /// Result or error, never both.
    pub outcome: Outcome,
}

/// What a response carries.
#[derive(Clone, PartialEq, Eq)]
pub enum Outcome {
    /// `result`; an object in MCP.
    Result(Object),
    /// `error`.
    Error(ErrorObject),
}

/// The error member of a response.
#[derive(Clone, PartialEq, Eq)]
pub struct ErrorObject {
    /// -32768 to -32000 are reserved by JSON-RPC 2.0 section 5.1.
    pub code: i64,
    /// Text by whoever answered; untrusted when it comes from a server.
    pub message: String,
    /// Any value.
    pub data: Option<Value>,
}

/// A request's id. A string and a number are different ids although many clients take one for the other:
/// see [`Id::same_slot`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Id {
    /// Within +-(2^53 - 1).
    Number(i64),
    /// At most 256 bytes.
    Text(String),
}

impl Id {
    /// Whether a client may take one for the other: the known clients accept a response with id `"1"` for
    /// their request 1, so both name the same slot when responses are matched to requests.
    pub fn same_slot(&self, other: &Id) -> bool {
        match (self, other) {
            (Id::Number(number), Id::Text(text)) | (Id::Text(text), Id::Number(number)) => {
                *text == number.to_string()
            }
            (one, two) => one == two,
        }
    }

    /// Appends the id as JSON.
    pub fn write(&self, out: &mut String) {
        match self {
            Id::Number(number) => out.push_str(&number.to_string()),
            Id::Text(text) => write_text(text, out),
        }
    }

    /// The id as JSON, for records.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }
}

impl Message {
    /// Roughly the memory that it takes, in bytes.
    pub fn weight(&self) -> usize {
        let below = match self {
            Message::Request(Request { params, .. })
            | Message::Notification(Notification { params, .. }) => {
                params.as_ref().map_or(0, Object::weight)
            }
            Message::Response(Response { outcome, .. }) => match outcome {
                Outcome::Result(result) => result.weight(),
                Outcome::Error(error) => {
                    let data = error.data.as_ref().map_or(0, Value::weight);
                    error.message.len().saturating_add(data)
                }
            },
        };
        size_of::<Message>().saturating_add(below)
    }

    /// The method, of requests and notifications.
    pub fn method(&self) -> Option<&str> {
        match self {
            Message::Request(request) => Some(&request.method),
            Message::Notification(notification) => Some(&notification.method),
            Message::Response(_) => None,
        }
    }

    /// The parameters, of requests and notifications that have some.
    pub fn params(&self) -> Option<&Object> {
        match self {
            Message::Request(request) => request.params.as_ref(),
            Message::Notification(notification) => notification.params.as_ref(),
            Message::Response(_) => None,
        }
    }

    /// The parameters, for masking and rewriting.
    pub fn params_mut(&mut self) -> Option<&mut Object> {
        match self {
            Message::Request(request) => request.params.as_mut(),
            Message::Notification(notification) => notification.params.as_mut(),
            Message::Response(_) => None,
        }
    }

    /// The id, of requests and of responses that have one.
    pub fn id(&self) -> Option<&Id> {
        match self {
            Message::Request(request) => Some(&request.id),
            Message::Notification(_) => None,
            Message::Response(response) => response.id.as_ref(),
        }
    }

    /// Appends the canonical text: compact, one line, members in a fixed order.
    pub fn write(&self, out: &mut String) {
        out.push_str("{\"jsonrpc\":\"2.0\"");
        match self {
            Message::Request(request) => {
                out.push_str(",\"id\":");
                request.id.write(out);
                write_call(&request.method, request.params.as_ref(), out);
            }
            Message::Notification(notification) => {
                write_call(&notification.method, notification.params.as_ref(), out);
            }
            Message::Response(response) => write_response(response, out),
        }
        out.push('}');
    }

    /// The canonical text, without a line end.
    pub fn encode(&self) -> String {
        let mut out = String::with_capacity(256);
        self.write(&mut out);
        out
    }
}

fn write_call(method: &str, params: Option<&Object>, out: &mut String) {
    out.push_str(",\"method\":");
    write_text(method, out);
    if let Some(params) = params {
        out.push_str(",\"params\":");
        params.write(out);
    }
}

fn write_response(response: &Response, out: &mut String) {
    out.push_str(",\"id\":");
    match &response.id {
        Some(id) => id.write(out),
        None => out.push_str("null"),
    }
    match &response.outcome {
        Outcome::Result(result) => {
            out.push_str(",\"result\":");
            result.write(out);
        }
        Outcome::Error(error) => {
            out.push_str(",\"error\":{\"code\":");
            out.push_str(&error.code.to_string());
            out.push_str(",\"message\":");
            write_text(&error.message, out);
            if let Some(data) = &error.data {
                out.push_str(",\"data\":");
                data.write(out);
            }
            out.push('}');
        }
    }
}

// Shapes only: methods, names and texts are the caller's and the server's.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notification")
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("outcome", &self.outcome)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Result(result) => f.debug_tuple("Result").field(result).finish(),
            Outcome::Error(error) => f.debug_tuple("Error").field(error).finish(),
        }
    }
}

impl fmt::Debug for ErrorObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorObject")
            .field("code", &self.code)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Id::Number(number) => write!(f, "{number}"),
            Id::Text(text) => write!(f, "id of {} bytes", text.len()),
        }
    }
}
