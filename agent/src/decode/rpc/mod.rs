//! JSON-RPC 2.0 messages as MCP allows them, without the shapes that implementations read differently.
//!
//! Sources: JSON-RPC 2.0 specification sections 4 to 6; MCP base protocol of every revision. MCP narrows
//! `params` and ids: `params` is an object, an id is a string or an integer and never null.

mod fault;
mod message;
mod read;

#[cfg(test)]
mod tests;

pub use exeat_policy::confusable;
pub use fault::{Fault, FaultKind};
pub use message::{ErrorObject, Id, Message, Notification, Outcome, Request, Response};
pub use read::{Incoming, MAX_BATCH, MAX_NAME, message, parse, parse_single};
