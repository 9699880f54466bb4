//! The audit log: one record for every exchange, chained, in files that only grow.
//!
//! A stage reserves a record's place with [`Log::open`] before anything is let through, adds what
//! it learns, and closes the record, which then cannot fail. The published form of the lines is
//! `agent/docs/audit-format.md`.

mod chain;
mod id;
mod log;
pub mod mask;
mod open;
mod read;
pub mod record;
mod schema;
mod shared;
#[cfg(test)]
mod tests;
mod text;
mod writer;

pub use chain::{Digest, Head, LineFault, VERSION};
pub use id::{RecordId, RecordIdError};
pub use log::{AuditUnavailable, Log, Options, Receipt, Start, SyncPolicy};
pub use open::{Intended, OpenRecord, RecordMut, Witness};
pub use read::{
    Entry, Fault, FaultKind, Filter, From as TailFrom, ReadError, Segments, Tail, Verification,
    VerifyError,
};
pub use record::{Kind, Outcome, Record, Stage, Status};
pub use schema::schema;
pub use shared::Shared;
pub use text::{MAX_TEXT, Text, is_whole};
pub use writer::{Finished, StartError, Writer};
