//! The breaker.

use super::words::{duration, percent};
use super::{Kind, Loader, tables};
use crate::model::Breaker;
use crate::yaml::Node;

/// What holds where nothing is said.
const TIME_MS: u64 = 30_000;
const MIN_CALLS: u32 = 10;
/// The longest window: what failed earlier says nothing of now.
const WINDOW_MAX_MS: u64 = 3_600_000;
/// The most calls that a window is waited for.
const CALLS_MAX: u64 = 1_000_000;

impl Loader<'_> {
    pub(super) fn breaker(&mut self, node: &Node) {
        self.define(Kind::Setting, "breaker", node.span);
        let Some(fields) = self.reader.fields(node, &tables::BREAKER) else {
            return;
        };
        let error_rate = self.reader.required(fields, "error_rate", "`breaker`");
        let error_rate =
            error_rate.and_then(|node| self.reader.parsed(node, "a share as `20%`", percent));
        let mut time = |key, most: u64| match fields.get(key) {
            None => Some(TIME_MS),
            Some(node) => {
                let time = self.reader.parsed(node, "a time as `30s`", duration)?;
                if time > most {
                    let message = format!("`{key}` is at most {} s", most / 1000);
                    self.reader.fault(node.span, message);
                }
                Some(time)
            }
        };
        let window_ms = time("window", WINDOW_MAX_MS);
        let open_for_ms = time("open_for", WINDOW_MAX_MS);
        let min_calls = match fields.get("min_calls") {
            None => Some(MIN_CALLS),
            Some(node) => {
                let calls = self
                    .reader
                    .integer(node, "a number of calls", 1..=CALLS_MAX);
                calls.and_then(|calls| u32::try_from(calls).ok())
            }
        };
        if let (Some(error_rate), Some(window_ms), Some(min_calls), Some(open_for_ms)) =
            (error_rate, window_ms, min_calls, open_for_ms)
        {
            self.draft.breaker = Some(Breaker {
                error_rate,
                window_ms,
                min_calls,
                open_for_ms,
            });
        }
    }
}
