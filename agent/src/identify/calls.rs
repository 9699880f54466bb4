//! Tool calls in flight, by server: what an outbound request of the server's processes can be caused by.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::audit::RecordId;
use crate::audit::record::Cause;

/// Candidates named in one record; a server with more calls in flight names the newest.
const NAMED: usize = 16;

type Table = HashMap<Arc<str>, Vec<RecordId>>;

/// The calls in flight.
#[derive(Debug, Default)]
pub struct Calls {
    table: Arc<Mutex<Table>>,
}

/// One call in flight; ends when dropped.
#[derive(Debug)]
pub struct InFlight {
    table: Arc<Mutex<Table>>,
    server: Arc<str>,
    record: RecordId,
}

impl Calls {
    /// A call of `server` begins; `record` is the id of its record.
    pub fn begin(&self, server: &Arc<str>, record: RecordId) -> InFlight {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.entry(Arc::clone(server)).or_default().push(record);
        InFlight {
            table: Arc::clone(&self.table),
            server: Arc::clone(server),
            record,
        }
    }

    /// How many calls of `server` are in flight.
    pub fn in_flight(&self, server: &str) -> usize {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.get(server).map_or(0, Vec::len)
    }

    /// What a request of `server`'s processes was caused by, as things stand now.
    pub fn cause(&self, server: &str) -> Option<Cause> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        match table.get(server).map(Vec::as_slice) {
            None | Some([]) => None,
            Some([one]) => Some(Cause::Id(*one)),
            Some(several) => Some(Cause::Candidates(
                several.iter().rev().take(NAMED).copied().collect(),
            )),
        }
    }
}

impl InFlight {
    /// The id of the call's record.
    pub fn record(&self) -> RecordId {
        self.record
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(calls) = table.get_mut(&self.server) else {
            return;
        };
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
    use std::sync::Arc;

    use super::Calls;
    use crate::audit::RecordId;
    use crate::audit::record::Cause;

    #[test]
    fn one_call_is_the_cause_and_several_are_candidates() {
        let id = |text: &str| text.parse::<RecordId>().expect("an id");
        let (one, two) = (
            id("01890a5d-ac96-774b-bcce-b302099a8057"),
            id("01890a5d-ac96-774b-bcce-b302099a8058"),
        );
        let calls = Calls::default();
        let github = Arc::from("github");
        assert_eq!(calls.cause("github"), None);
        let first = calls.begin(&github, one);
        assert_eq!(calls.cause("github"), Some(Cause::Id(one)));
        assert_eq!(calls.cause("linear"), None);
        let second = calls.begin(&github, two);
        assert_eq!(
            calls.cause("github"),
            Some(Cause::Candidates(vec![two, one]))
        );
        drop(first);
        assert_eq!(calls.cause("github"), Some(Cause::Id(two)));
        drop(second);
        assert_eq!(calls.cause("github"), None);
    }
}
