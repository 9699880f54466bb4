//! Limits over calls that were recorded, counted by what counts live ones.

use exeat_policy::{PolicySet, Request, Timestamp, limit_keys};

use super::attempt::has_failed;
use super::counters::Counters;
use crate::audit::record::Record;

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
        if keys.is_empty() {
            return (decide(&request).0, false);
        }
        let (record, at) = record;
        let held = self.0.hold(keys, session, at);
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
