//! A call on its way: what its end says to breakers and limits, told by the record that ends with it.

use std::sync::Arc;

use tokio::time::Instant;

use super::breakers::{Fate, Trial};
use super::counters::{Charge, Counters};
use crate::audit::Witness;
use crate::audit::record::{Record, Side, Status};

/// A call that was let through, until its record ends.
#[derive(Debug)]
pub(super) struct Attempt {
    trial: Option<Trial>,
    /// What is given back if it fails.
    charges: Vec<Charge>,
    counters: Arc<Counters>,
}

impl Attempt {
    /// `None`: nobody is to know.
    pub(super) fn new(
        trial: Option<Trial>,
        charges: Vec<Charge>,
        counters: &Arc<Counters>,
    ) -> Option<Self> {
        (trial.is_some() || !charges.is_empty()).then(|| Self {
            trial,
            charges,
            counters: Arc::clone(counters),
        })
    }
}

impl Witness for Attempt {
    fn ended(self: Box<Self>, record: &Record) {
        let fate = fate(record);
        if let Some(trial) = self.trial {
            trial.end(fate, Instant::now());
        }
        if has_failed(record) && !self.charges.is_empty() {
            self.counters.refund(self.charges);
        }
    }
}

/// JSON-RPC errors that are the caller's doing (JSON-RPC 2.0 section 5.1; MCP's "resource not found").
const CALLERS: [i64; 5] = [-32700, -32600, -32601, -32602, -32002];

/// Whether a message of a record gives back what it was charged. What the server sends comes to no failure of its own.
pub(super) fn has_failed(record: &Record) -> bool {
    !is_servers(record) && fate(record) == Fate::Failed
}

/// Whether the message of a record came from the server.
pub(super) fn is_servers(record: &Record) -> bool {
    let mcp = record.mcp.as_ref();
    mcp.is_some_and(|mcp| mcp.from == Some(Side::Server))
}

/// How a call came out, by its record.
fn fate(record: &Record) -> Fate {
    let Some(outcome) = &record.outcome else {
        return Fate::Unknown;
    };
    let mcp = record.mcp.as_ref();
    let status = record.http.as_ref().and_then(|http| http.status);
    let answered = mcp.is_some_and(|mcp| mcp.response.is_some());
    match outcome.status {
        Status::Failed => Fate::Failed,
        // What came was no acceptable answer.
        Status::Refused if answered => Fate::Failed,
        Status::Refused | Status::Abandoned => Fate::Unknown,
        Status::Done if status.is_some_and(|status| status >= 500 || status == 429) => Fate::Failed,
        Status::Done => match mcp.map(|mcp| (mcp.code, mcp.is_error)) {
            Some((Some(code), _)) if !CALLERS.contains(&code) => Fate::Failed,
            Some((None, Some(true))) => Fate::ToolFailed,
            _ => Fate::Answered,
        },
    }
}
