//! What a caller is told when something is refused: one closed list, mapped to JSON-RPC and to HTTP.
//!
//! A caller learns what happened and never what the policy says; rule, reason and internal cause go to the
//! record alone. A new kind of refusal does not compile until it has its place in both protocols.
#![deny(clippy::wildcard_enum_match_arm)]

mod catalogue;
mod http;
mod rpc;

#[cfg(test)]
mod tests;

pub use catalogue::{Entry, Refusal, Subject, Timeout, Upstream};
pub use http::HttpRefusal;
pub use rpc::{Answer, Asked, answer, answer_batch, asked, error, tool_error};
