//! Why a JSON text is not a message that may be judged.

use thiserror::Error;

use super::Id;
use crate::decode::json;

/// A refused message, with the id that the refusal can answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("JSON-RPC message refused")]
pub struct Fault {
    /// The id of the message where it is a request whose id could be read; else the answer carries null.
    pub id: Option<Id>,
    /// What was refused.
    #[source]
    pub kind: FaultKind,
}

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FaultKind {
    /// A batch without entries (JSON-RPC 2.0 section 6).
    #[error("empty batch")]
    BatchEmpty,
    /// A batch of more than [`MAX_BATCH`](super::MAX_BATCH) entries.
    #[error("batch of too many entries")]
    BatchTooLong,
    /// An array where one message is due.
    #[error("batch where one message is due")]
    BatchUnexpected,
    /// Two requests of a batch with one id (a number and its decimal string count as one): both would be
    /// executed and one answered.
    #[error("id used twice in a batch")]
    BatchSameId,
    /// A key that some parser takes for a known one: other case, look-alike letters, invisible characters.
    #[error("key that looks like a known one")]
    ConfusableKey,
    /// `error` without an integer `code` and a string `message`.
    #[error("malformed error member")]
    ErrorShape,
    /// Members of a request and of a response in one message.
    #[error("request and response in one message")]
    Hybrid,
    /// An id that is neither a string of at most 256 bytes nor an integer within +-(2^53 - 1) in plain digits.
    #[error("unacceptable id")]
    Id,
    /// Not JSON that every receiver reads alike.
    #[error("unacceptable JSON")]
    Json(#[source] json::Fault),
    /// `method` is not a string of 1 to 256 bytes.
    #[error("unacceptable method")]
    Method,
    /// Neither `method` nor `result` nor `error`.
    #[error("neither request nor response")]
    Neither,
    /// The root, or an entry of a batch, is not an object.
    #[error("message that is not an object")]
    NotAnObject,
    /// A method that is a request by the protocol, sent without an id: servers answer 202 and do not run it.
    #[error("request method without an id")]
    NotificationOfRequest,
    /// `params` is not an object.
    #[error("params that are not an object")]
    Params,
    /// A method named `notifications/...` with an id.
    #[error("notification method with an id")]
    RequestOfNotification,
    /// `result` is not an object.
    #[error("result that is not an object")]
    ResultShape,
    /// A member at the top level that JSON-RPC 2.0 does not know.
    #[error("unknown member")]
    UnknownMember,
    /// `jsonrpc` is not the string `2.0`.
    #[error("unknown JSON-RPC version")]
    Version,
}

impl Fault {
    pub(super) fn without_id(kind: FaultKind) -> Fault {
        Fault { id: None, kind }
    }

    /// Whether the text was not even JSON: -32700 rather than -32600.
    pub fn is_parse_error(&self) -> bool {
        matches!(self.kind, FaultKind::Json(_))
    }

    /// Whether a limit on size was met.
    pub fn is_too_large(&self) -> bool {
        matches!(
            self.kind,
            FaultKind::Json(json::Fault {
                kind: json::FaultKind::TooLarge { .. },
                ..
            })
        )
    }
}
