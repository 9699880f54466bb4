//! From bytes to messages: strict JSON, JSON-RPC 2.0, MCP of both eras, lines, server-sent events, and the recogniser
//! of MCP that is spoken to something unregistered.
//!
//! Pure: bytes and headers in, values or faults out. No clock, no I/O. A fault never repeats what was read.
#![warn(clippy::arithmetic_side_effects)]

pub mod base64;
mod bytes;
pub mod http;
pub mod json;
pub mod lines;
pub mod mcp;
#[cfg(any(test, feature = "oracle"))]
pub mod oracle;
pub mod rpc;
pub mod scan;
pub mod sse;

#[cfg(test)]
pub(crate) mod corpus;
