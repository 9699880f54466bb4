//! Tool calls in flight, by who carries them out: what an outbound request of their processes can be caused by.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::audit::RecordId;
use crate::audit::record::Cause;

/// Candidates named in one record; a server with more calls in flight names the newest.
const NAMED: usize = 16;

/// Whose call it is to carry out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Callee {
    /// A server that is reached over HTTP, whichever of its processes answers.
    Server(Arc<str>),
    /// One workload: two instances of a stdio server are not each other's cause.
    Workload(u32),
}

/// What may have caused an outbound request.
#[derive(Debug, Default)]
pub struct Causing {
    /// For the record.
    pub cause: Option<Cause>,
    /// The tools of all calls in flight, one for each.
    pub tools: Vec<Arc<str>>,
}

/// A call's record and its tool.
type Call = (RecordId, Arc<str>);

type Table = HashMap<Callee, Vec<Call>>;

/// The calls in flight.
#[derive(Debug, Default)]
pub struct Calls {
    table: Arc<Mutex<Table>>,
}

/// One call in flight; ends when dropped.
#[derive(Debug)]
pub struct InFlight {
    table: Arc<Mutex<Table>>,
    callee: Callee,
    record: RecordId,
}

impl Calls {
    /// A call of `tool` that `callee` is to carry out begins; `record` is the id of its record.
    pub fn begin(&self, callee: Callee, record: RecordId, tool: &str) -> InFlight {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let call = (record, Arc::from(tool));
        table.entry(callee.clone()).or_default().push(call);
        InFlight {
            table: Arc::clone(&self.table),
            callee,
            record,
        }
    }

    /// How many calls of `server`, whose workloads `is_its` knows, are in flight.
    pub fn in_flight(&self, server: &str, is_its: impl Fn(u32) -> bool) -> usize {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let of_it = table.iter().filter(|(callee, _)| match callee {
            Callee::Server(name) => **name == *server,
            Callee::Workload(number) => is_its(*number),
        });
        of_it.map(|(_, calls)| calls.len()).sum()
    }

    /// What a request of a process of `server`, in this workload, was caused by, as things stand now.
    pub fn cause(&self, server: &str, workload: u32) -> Option<Cause> {
        self.of(server, workload, cause).flatten()
    }

    /// The same with the tools that are called, both of one moment.
    pub fn causing(&self, server: &str, workload: u32) -> Causing {
        let told = self.of(server, workload, |calls| Causing {
            cause: cause(calls),
            tools: calls.iter().map(|(_, tool)| Arc::clone(tool)).collect(),
        });
        told.unwrap_or_default()
    }

    /// What `tell` says of the calls in flight that this workload of `server` carries out.
    fn of<T>(&self, server: &str, workload: u32, tell: impl FnOnce(&[Call]) -> T) -> Option<T> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.is_empty() {
            return None;
        }
        let calls = table
            .get(&Callee::Workload(workload))
            .or_else(|| table.get(&Callee::Server(Arc::from(server))));
        calls.map(|calls| tell(calls))
    }
}

fn cause(calls: &[Call]) -> Option<Cause> {
    match calls {
        [] => None,
        [(one, _)] => Some(Cause::Id(*one)),
        several => {
            let newest = several.iter().rev().take(NAMED);
            Some(Cause::Candidates(newest.map(|(id, _)| *id).collect()))
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
        let Some(calls) = table.get_mut(&self.callee) else {
            return;
        };
        if let Some(index) = calls.iter().position(|(call, _)| *call == self.record) {
            calls.remove(index);
        }
        if calls.is_empty() {
            table.remove(&self.callee);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Callee, Calls};
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
        let github = || Callee::Server(Arc::from("github"));
        assert_eq!(calls.cause("github", 1), None);
        let first = calls.begin(github(), one, "get");
        assert_eq!(calls.cause("github", 1), Some(Cause::Id(one)));
        assert_eq!(calls.cause("linear", 1), None);
        let second = calls.begin(github(), two, "set");
        assert_eq!(
            calls.cause("github", 1),
            Some(Cause::Candidates(vec![two, one]))
        );
        let tools = calls.causing("github", 1).tools;
        assert_eq!(
            tools.iter().map(|tool| &**tool).collect::<Vec<_>>(),
            ["get", "set"]
        );
        assert!(calls.causing("linear", 1).tools.is_empty());
        drop(first);
        assert_eq!(calls.cause("github", 1), Some(Cause::Id(two)));
        drop(second);
        assert_eq!(calls.cause("github", 1), None);
    }

    #[test]
    fn instances_of_one_server_are_told_apart() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let id = id.parse::<RecordId>().expect("an id");
        let calls = Calls::default();
        let _call = calls.begin(Callee::Workload(7), id, "get");
        assert_eq!(calls.cause("github", 7), Some(Cause::Id(id)));
        assert_eq!(calls.cause("github", 8), None);
    }
}
