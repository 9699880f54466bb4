//! From bytes to messages.

use super::{
    ErrorObject, Fault, FaultKind, Id, Message, Notification, Outcome, Request, Response,
    confusable,
};
use crate::decode::json::{self, Limits, Object, Value};
use crate::decode::mcp::{self, Kind};

/// Entries of a batch; the TypeScript server has the same bound.
pub const MAX_BATCH: usize = 100;

/// Bytes of a method's name.
pub const MAX_NAME: usize = 256;

/// Bytes of an id.
const MAX_ID: usize = 256;

/// 2^53 - 1, the largest integer that every receiver keeps exact.
const MAX_SAFE: i64 = 9_007_199_254_740_991;

const MEMBERS: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];

/// Members of `params` that policy reads: a second spelling of one may be what the server reads.
const PARAMETERS: [&str; 17] = [
    "name",
    "uri",
    "arguments",
    "_meta",
    "ref",
    "argument",
    "task",
    "taskId",
    "cursor",
    "context",
    "requestState",
    "inputResponses",
    "clientInfo",
    "protocolVersion",
    "capabilities",
    "requestId",
    "progressToken",
];

/// Members of `_meta` that policy reads.
const META: [&str; 5] = [
    "progressToken",
    mcp::META_PROTOCOL_VERSION,
    mcp::META_CLIENT_INFO,
    mcp::META_CLIENT_CAPABILITIES,
    mcp::META_LOG_LEVEL,
];

/// What one body, frame or event holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// One message.
    Single(Message),
    /// 1 to [`MAX_BATCH`] messages; each entry is decided, or refused, on its own.
    Batch(Vec<Result<Message, Fault>>),
}

impl Incoming {
    /// Roughly the memory that it takes, in bytes.
    pub fn weight(&self) -> usize {
        match self {
            Incoming::Single(message) => message.weight(),
            Incoming::Batch(entries) => entries.iter().flatten().map(Message::weight).sum(),
        }
    }
}

/// Reads a body that may hold one message or a batch.
///
/// # Errors
/// A [`Fault`] when nothing of the body can be judged. Faults of single batch entries stand in the batch.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Incoming, Fault> {
    match json::parse(bytes, limits) {
        Ok(Value::Array(entries)) => batch(entries).map(Incoming::Batch),
        Ok(value) => message(value).map(Incoming::Single),
        Err(fault) => Err(Fault::without_id(FaultKind::Json(fault))),
    }
}

/// Reads a body, frame or event that must hold one message (every revision but 2025-03-26, and stdio).
///
/// # Errors
/// A [`Fault`] with the id where it could be read.
pub fn parse_single(bytes: &[u8], limits: &Limits) -> Result<Message, Fault> {
    match json::parse(bytes, limits) {
        Ok(Value::Array(_)) => Err(Fault::without_id(FaultKind::BatchUnexpected)),
        Ok(value) => message(value),
        Err(fault) => Err(Fault::without_id(FaultKind::Json(fault))),
    }
}

fn batch(entries: Vec<Value>) -> Result<Vec<Result<Message, Fault>>, Fault> {
    if entries.is_empty() {
        return Err(Fault::without_id(FaultKind::BatchEmpty));
    }
    if entries.len() > MAX_BATCH {
        return Err(Fault::without_id(FaultKind::BatchTooLong));
    }
    let mut read: Vec<Result<Message, Fault>> = Vec::with_capacity(entries.len());
    for entry in entries {
        let entry = message(entry).and_then(|message| {
            let Message::Request(request) = &message else {
                return Ok(message);
            };
            let taken = read.iter().flatten().any(
                |earlier| matches!(earlier, Message::Request(one) if one.id.same_slot(&request.id)),
            );
            if taken {
                return Err(Fault {
                    id: Some(request.id.clone()),
                    kind: FaultKind::BatchSameId,
                });
            }
            Ok(message)
        });
        read.push(entry);
    }
    Ok(read)
}

/// Reads a value as one message.
///
/// # Errors
/// A [`Fault`] with the id where it could be read.
pub fn message(value: Value) -> Result<Message, Fault> {
    let Value::Object(object) = value else {
        return Err(Fault::without_id(FaultKind::NotAnObject));
    };
    let id = object.get("id").map(read_id);
    // The id of a response is not answered: it belongs to the other side's numbering.
    let answerable = if object.get("method").is_some() {
        id.clone().and_then(Result::ok)
    } else {
        None
    };
    take(object, id).map_err(|kind| Fault {
        id: answerable,
        kind,
    })
}

impl Id {
    /// The id that `value` spells, also where a message names another one (`requestId` of a cancellation);
    /// `None` for anything that receivers read differently.
    pub fn read(value: &Value) -> Option<Id> {
        match value {
            Value::String(text) if text.len() <= MAX_ID => Some(Id::Text(text.clone())),
            Value::Number(number) => number
                .as_i64()
                .filter(|number| (-MAX_SAFE..=MAX_SAFE).contains(number))
                .map(Id::Number),
            _ => None,
        }
    }
}

fn read_id(value: &Value) -> Result<Id, FaultKind> {
    Id::read(value).ok_or(FaultKind::Id)
}

fn take(mut object: Object, id: Option<Result<Id, FaultKind>>) -> Result<Message, FaultKind> {
    for key in object.keys() {
        if !MEMBERS.contains(&key) {
            return Err(if confusable(key, &MEMBERS) {
                FaultKind::ConfusableKey
            } else {
                FaultKind::UnknownMember
            });
        }
    }
    if object.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(FaultKind::Version);
    }
    let method = object.remove("method");
    let params = object.remove("params");
    let result = object.remove("result");
    let error = object.remove("error");
    match (method, result, error) {
        (Some(method), None, None) => call(method, params, id),
        (None, Some(result), None) if params.is_none() => {
            let Value::Object(result) = result else {
                return Err(FaultKind::ResultShape);
            };
            let id = id.ok_or(FaultKind::Id)??;
            Ok(Message::Response(Response {
                id: Some(id),
                outcome: Outcome::Result(result),
            }))
        }
        (None, None, Some(error)) if params.is_none() => {
            // JSON-RPC 2.0 section 5: null where the id of the request could not be read; MCP lets it be absent.
            let id = match object.get("id") {
                None | Some(Value::Null) => None,
                Some(_) => id.transpose()?,
            };
            let outcome = Outcome::Error(read_error(error)?);
            Ok(Message::Response(Response { id, outcome }))
        }
        (None, None, None) => Err(FaultKind::Neither),
        _ => Err(FaultKind::Hybrid),
    }
}

fn call(
    method: Value,
    params: Option<Value>,
    id: Option<Result<Id, FaultKind>>,
) -> Result<Message, FaultKind> {
    let Value::String(method) = method else {
        return Err(FaultKind::Method);
    };
    if method.is_empty() || method.len() > MAX_NAME {
        return Err(FaultKind::Method);
    }
    let params = match params {
        None => None,
        Some(Value::Object(params)) => Some(params),
        Some(_) => return Err(FaultKind::Params),
    };
    if let Some(params) = &params {
        check_keys(params, &PARAMETERS)?;
        if let Some(Value::Object(meta)) = params.get("_meta") {
            check_keys(meta, &META)?;
        }
    }
    if let Some(id) = id {
        let id = id?;
        if method.starts_with("notifications/") {
            return Err(FaultKind::RequestOfNotification);
        }
        return Ok(Message::Request(Request { id, method, params }));
    }
    if mcp::method(&method).is_some_and(|known| known.kind == Kind::Request) {
        return Err(FaultKind::NotificationOfRequest);
    }
    Ok(Message::Notification(Notification { method, params }))
}

fn check_keys(object: &Object, known: &[&str]) -> Result<(), FaultKind> {
    if object.keys().any(|key| confusable(key, known)) {
        return Err(FaultKind::ConfusableKey);
    }
    Ok(())
}

fn read_error(value: Value) -> Result<ErrorObject, FaultKind> {
    let Value::Object(mut error) = value else {
        return Err(FaultKind::ErrorShape);
    };
    let code = error
        .remove("code")
        .and_then(|code| code.as_number()?.as_i64());
    let message = error.remove("message");
    let data = error.remove("data");
    // Members that JSON-RPC does not know are dropped: what is sent on is written anew without them.
    let (Some(code), Some(Value::String(message))) = (code, message) else {
        return Err(FaultKind::ErrorShape);
    };
    Ok(ErrorObject {
        code,
        message,
        data,
    })
}
