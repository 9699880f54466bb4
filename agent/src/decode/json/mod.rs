//! A strict JSON reader into an own tree, and the one way in which that tree is written again.
//!
//! Receivers disagree about JSON (duplicate keys, lone surrogates, a byte order mark, `1e400`, depth), so a
//! decision made on one reading may be executed on another. Whatever parsers disagree about is refused here,
//! and what was decided on is written anew in one canonical form; received bytes are never sent on.
//! RFC 8259 is the grammar; RFC 7493 (I-JSON) is the list of what to refuse.

mod fault;
mod limits;
mod parse;
mod string;
mod value;
mod write;

#[cfg(test)]
mod tests;

pub use fault::{Fault, FaultKind};
pub use limits::Limits;
pub use parse::parse;
pub use value::{Key, Number, Object, Value};
pub use write::write_text;
