//! A call on its way: what its end says to breakers and limits, told by the record that ends with it.

use std::sync::Arc;

use tokio::time::Instant;

use super::breakers::{Fate, Trial};
use super::counters::{Charge, Counters};
use crate::audit::Witness;
use crate::audit::record::{Record, ResponseKind, Side, Status};

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
/// Nor does what was answered and not delivered: how large and of what form an answer is may be the caller's choice,
/// who had what was asked for done.
pub(super) fn has_failed(record: &Record) -> bool {
    let status = record.outcome.as_ref().map(|outcome| outcome.status);
    !is_servers(record) && fate(record) == Fate::Failed && status != Some(Status::Refused)
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
    let response = mcp.and_then(|mcp| mcp.response);
    match outcome.status {
        Status::Failed => Fate::Failed,
        // What came was no acceptable answer.
        Status::Refused if response.is_some() => Fate::Failed,
        Status::Refused | Status::Abandoned => Fate::Unknown,
        Status::Done if status.is_some_and(|status| status >= 500 || status == 429) => Fate::Failed,
        // Taken on, or left on a stream that may be taken up again: what comes of it comes elsewhere.
        Status::Done
            if response == Some(ResponseKind::None) && status.is_none_or(|status| status < 300) =>
        {
            Fate::TakenOn
        }
        Status::Done => match mcp.map(|mcp| (mcp.code, mcp.is_error)) {
            Some((Some(code), _)) if !CALLERS.contains(&code) => Fate::Failed,
            Some((None, Some(true))) => Fate::ToolFailed,
            _ => Fate::Answered,
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    fn ended(status: Status, response: Option<ResponseKind>, code: Option<i64>) -> Record {
        let outcome = json!({ "status": status, "latency_us": 1 });
        from_value(json!({
            "id": "019a0000-0000-7000-8000-000000000001", "time": "2026-07-01T00:00:00Z", "mono": 1, "kind": "mcp",
            "mcp": { "method": "tools/call", "response": response, "code": code }, "outcome": outcome,
        }))
        .unwrap()
    }

    #[test]
    fn what_was_answered_is_given_back_where_the_server_says_that_it_failed() {
        use ResponseKind::{Error, Http as Page, None as Nothing, Result, Stream};
        for (status, response, code, fate_of, back) in [
            (Status::Done, Some(Result), None, Fate::Answered, false),
            (Status::Done, Some(Stream), None, Fate::Answered, false),
            (Status::Done, Some(Error), Some(-32603), Fate::Failed, true),
            (
                Status::Done,
                Some(Error),
                Some(-32602),
                Fate::Answered,
                false,
            ),
            (Status::Done, Some(Nothing), None, Fate::TakenOn, false),
            (Status::Failed, None, None, Fate::Failed, true),
            (Status::Refused, Some(Result), None, Fate::Failed, false),
            (Status::Refused, Some(Page), None, Fate::Failed, false),
            (Status::Refused, None, None, Fate::Unknown, false),
            (Status::Abandoned, None, None, Fate::Unknown, false),
        ] {
            let mut record = ended(status, response, code);
            assert_eq!(fate(&record), fate_of, "{status:?} {response:?}");
            assert_eq!(has_failed(&record), back, "{status:?} {response:?}");
            record.mcp.as_mut().unwrap().from = Some(Side::Server);
            assert!(!has_failed(&record), "{status:?} {response:?}");
        }
        for (http, fate_of) in [
            (200, Fate::TakenOn),
            (202, Fate::TakenOn),
            (404, Fate::Answered),
            (429, Fate::Failed),
            (500, Fate::Failed),
        ] {
            let mut record = ended(Status::Done, Some(Nothing), None);
            record.http = from_value(json!({ "status": http })).unwrap();
            assert_eq!(fate(&record), fate_of, "{http}");
        }
    }
}
