//! Refusals of JSON-RPC messages: an error with the caller's id, silence for what expects no answer.

use hyper::http::StatusCode;

use super::Refusal;
use crate::decode::json::{Object, Value};
use crate::decode::mcp::Era;
use crate::decode::rpc::{self, ErrorObject, Id, Message, Outcome, Response};

/// What kind of answer a message waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Asked {
    /// A request: an answer with this id.
    Request(Id),
    /// A notification or a response: none.
    Nothing,
    /// A message that could not be read so far: an answer with id null.
    Unreadable,
}

/// A refusal of one body, over HTTP. On stdio the status is dropped and an empty body is not written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// One JSON text of type `application/json`, or empty.
    pub body: String,
}

/// What `message` waits for.
pub fn asked(message: &Message) -> Asked {
    match message {
        Message::Request(request) => Asked::Request(request.id.clone()),
        Message::Notification(_) | Message::Response(_) => Asked::Nothing,
    }
}

impl From<&rpc::Fault> for Asked {
    fn from(fault: &rpc::Fault) -> Asked {
        fault.id.clone().map_or(Asked::Unreadable, Asked::Request)
    }
}

/// The refusal of a body with one message. A JSON-RPC error has the same shape in both eras.
pub fn answer(refusal: Refusal<'_>, asked: &Asked) -> Answer {
    match response(refusal, asked) {
        Some(response) => Answer {
            status: refusal.entry().rpc_status,
            body: Message::Response(response).encode(),
        },
        // Notifications are accepted and dropped: there is nobody to tell.
        None => Answer {
            status: StatusCode::ACCEPTED,
            body: String::new(),
        },
    }
}

/// The answer to a batch: one error for each entry that waits for one, in order, among the responses of the
/// entries that were let through.
pub fn answer_batch(
    refused: &[(Refusal<'_>, Asked)],
    answered: impl IntoIterator<Item = Response>,
) -> Answer {
    let errors = refused
        .iter()
        .filter_map(|(refusal, asked)| response(*refusal, asked));
    let mut body = String::from("[");
    for response in answered.into_iter().chain(errors) {
        if body.len() > 1 {
            body.push(',');
        }
        Message::Response(response).write(&mut body);
    }
    if body.len() == 1 {
        return Answer {
            status: StatusCode::ACCEPTED,
            body: String::new(),
        };
    }
    body.push(']');
    Answer {
        status: StatusCode::OK,
        body,
    }
}

/// The error that takes the place of an answer, as a message; `None` when nobody waits for one.
pub fn error(refusal: Refusal<'_>, asked: &Asked) -> Option<Message> {
    response(refusal, asked).map(Message::Response)
}

/// The error that takes the place of a response; `None` when nobody waits for one.
fn response(refusal: Refusal<'_>, asked: &Asked) -> Option<Response> {
    let id = match asked {
        Asked::Request(id) => Some(id.clone()),
        Asked::Unreadable => None,
        Asked::Nothing => return None,
    };
    let entry = refusal.entry();
    // What does not exist must look as the server itself would say it: without anything of ours.
    let data = if let Refusal::Hidden(..) = refusal {
        None
    } else {
        let mut data = Object::new();
        data.insert("reason", entry.code);
        if let Some(wait) = refusal.retry_after() {
            let wait = i64::try_from(wait).unwrap_or(i64::MAX);
            data.insert("retry_after_ms", wait);
        }
        Some(Value::Object(data))
    };
    let error = ErrorObject {
        code: entry.rpc,
        message: refusal.text(),
        data,
    };
    Some(Response {
        id,
        outcome: Outcome::Error(error),
    })
}

/// A result of tools/call that says in `text` that the tool failed: for refusals from which the model is to
/// learn (a masked argument, a response that was withheld), where an error would end the turn.
pub fn tool_error(id: Id, era: Era, text: &str) -> Response {
    let mut block = Object::new();
    block.insert("type", "text");
    block.insert("text", text);
    let mut result = Object::new();
    if era == Era::Modern {
        result.insert("resultType", "complete");
    }
    result.insert("content", Value::Array(vec![Value::Object(block)]));
    result.insert("isError", true);
    Response {
        id: Some(id),
        outcome: Outcome::Result(result),
    }
}
