//! Tool calls in flight, by server: what an outbound request of the server's processes can be caused by.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Candidates named in one record; a server with more calls in flight names the newest.
const NAMED: usize = 16;

type Table = HashMap<String, Vec<String>>;

/// The calls in flight.
#[derive(Debug, Default)]
pub struct Calls {
    table: Arc<Mutex<Table>>,
}

/// One call in flight; ends when dropped.
#[derive(Debug)]
pub struct InFlight {
    table: Arc<Mutex<Table>>,
    server: String,
    record: String,
}

/// What an outbound request of a server was caused by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// No call was in flight.
    None,
    /// Exactly one: its record's id.
    One(String),
    /// Several: their records' ids.
    Several(Vec<String>),
}

impl Calls {
    /// A call of `server` begins; `record` is the id of its record.
    pub fn begin(&self, server: &str, record: &str) -> InFlight {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.entry(server.to_owned()).or_default().push(record.to_owned());
        InFlight {
            table: Arc::clone(&self.table),
            server: server.to_owned(),
            record: record.to_owned(),
        }
    }

    /// What a request of `server`'s processes was caused by, as things stand now.
    pub fn cause(&self, server: &str) -> Cause {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        match table.get(server).map(Vec::as_slice) {
            None | Some([]) => Cause::None,
            Some([one]) => Cause::One(one.clone()),
            Some(several) => Cause::Several(several.iter().rev().take(NAMED).cloned().collect()),
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(calls) = table.get_mut(&self.server) else { return };
        if let Some(index) = calls.iter().position(|call| *call == self.record) {
            calls.remove(index);
        }
        if calls.is_empty() {
            table.remove(&self.server);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Calls, Cause};

    #[test]
    fn one_call_is_the_cause_and_several_are_candidates() {
        let calls = Calls::default();
        assert_eq!(calls.cause("github"), Cause::None);
        let first = calls.begin("github", "r1");
        assert_eq!(calls.cause("github"), Cause::One("r1".into()));
        assert_eq!(calls.cause("linear"), Cause::None);
        let second = calls.begin("github", "r2");
        assert_eq!(calls.cause("github"), Cause::Several(vec!["r2".into(), "r1".into()]));
        drop(first);
        assert_eq!(calls.cause("github"), Cause::One("r2".into()));
        drop(second);
        assert_eq!(calls.cause("github"), Cause::None);
    }
}
