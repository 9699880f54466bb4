//! MCP over JSON-RPC: what a message asks for, in both eras of the protocol.
//!
//! *Legacy* is 2024-11-05 to 2025-11-25 (initialize, sessions, requests in both directions); *modern* is
//! 2026-07-28 (no handshake, every request names its revision in `_meta`, requests of a server travel inside
//! results). The era is chosen per request, by the body; headers are then checked to agree with it.

mod called;
mod embedded;
mod era;
mod headers;
mod list;
mod methods;
mod params;
mod result;
mod view;

#[cfg(test)]
mod tests;

pub use called::{Called, called, content, is_structured};
pub use embedded::{Embedded, embedded};
pub use era::{
    Era, META_CLIENT_CAPABILITIES, META_CLIENT_INFO, META_LOG_LEVEL, META_PROTOCOL_VERSION,
    META_SERVER_INFO, Revision, Spoken, spoken,
};
pub use headers::{HeaderFault, MCP_METHOD, MCP_NAME, MCP_PROTOCOL_VERSION, MCP_SESSION_ID};
pub use headers::{check_batch_headers, check_headers, decode_value, encode_value};
pub use list::{Filtered, Hints, List, Listed, filter, listed};
pub use methods::{Direction, Eras, Kind, METHODS, Method, Subject, method};
pub use params::{Mirrors, check_params, repeats_params};
pub use result::{Greeting, ResultFault, ResultKind, greeting, is_error, result_kind};
pub use view::{Client, MAX_NAME, Name, View, ViewFault, subscribed, view};
