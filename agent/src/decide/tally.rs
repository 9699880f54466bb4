//! Limits over calls that were recorded, counted by what counts live ones.

use exeat_policy::{PolicySet, Request, Timestamp, limit_keys};

use super::attempt::{has_failed, is_servers};
use super::counters::Counters;
use super::unused;
use crate::audit::record::Record;
use crate::decode::mcp::{Direction, method};

/// What limits stand at, from the first call that is put to it on.
#[derive(Debug, Default)]
pub struct Tally(Counters);

impl Tally {
    /// Has `decide` judge the call of `record` by what its limits stood at, and counts it if `decide` says that it passes. One
    /// that failed is given back where its limit says so. The second: whether a limit is about it.
    pub fn weigh<T>(
        &self,
        set: &PolicySet,
        request: Request<'_>,
        session: Option<&str>,
        record: (&Record, Timestamp),
        decide: impl FnOnce(&Request<'_>) -> (T, bool),
    ) -> (T, bool) {
        let keys = limit_keys(set, &request);
        let (record, at) = record;
        if keys.is_empty() || answers(record) {
            let counts: Vec<_> = keys.iter().map(unused).collect();
            let counts = &*counts;
            return (decide(&Request { counts, ..request }).0, false);
        }
        let owner = self.0.owner(&request.caller);
        let held = self.0.hold(keys, owner, session, at);
        let counts = held.counts();
        let counts = &*counts;
        let (decided, passes) = decide(&Request { counts, ..request });
        if passes {
            let charges = held.charge();
            if has_failed(record) {
                self.0.refund(charges);
            }
        }
        (decided, true)
    }
}

/// Whether a record is that of the answer to a message that was counted when it was sent: it has the message's method,
/// and comes from the other side.
fn answers(record: &Record) -> bool {
    let method = record.mcp.as_ref().and_then(|mcp| method(&mcp.method));
    method.is_some_and(|method| match method.direction {
        Direction::ToServer => is_servers(record),
        Direction::ToClient => !is_servers(record),
        Direction::Both | Direction::BothThenToServer | Direction::BothThenToClient => false,
    })
}
