//! What was measured, and the processor time that watched processes spent meanwhile.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::param::clock_ticks_per_second;
use serde_json::{Value, json};

/// What one connection's task counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Duration of each request, in microseconds.
    pub(crate) latencies: Vec<u32>,
    /// Bytes of answers' bodies.
    pub(crate) bytes: u64,
    /// Events in streamed answers.
    pub(crate) events: u64,
    /// Connections opened.
    pub(crate) connections: u64,
    /// Requests or connections that failed.
    pub(crate) errors: u64,
    /// The first failure.
    pub(crate) error: Option<String>,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.bytes += other.bytes;
        self.events += other.events;
        self.connections += other.connections;
        self.errors += other.errors;
        self.error = self.error.take().or(other.error);
    }

    pub(crate) fn fail(&mut self, error: &anyhow::Error) {
        self.errors += 1;
        self.error.get_or_insert_with(|| format!("{error:#}"));
    }

    pub(crate) fn finished(&mut self, took: Duration) {
        self.latencies
            .push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }
}

/// Processor time so far of each process, in seconds, user and system.
pub(crate) fn spent(pids: &[u32]) -> Result<Vec<f64>> {
    let ticks =
        f64::from(u32::try_from(clock_ticks_per_second()).context("read the clock's ticks")?);
    let of = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))
            .with_context(|| format!("read the processor time of {pid}"))?;
        // The name, in brackets, may hold anything; the fields are counted from behind it.
        let (_, fields) = text.rsplit_once(") ").context("parse a process's state")?;
        let times = fields.split(' ').skip(11).take(2).map(str::parse::<u32>);
        let total: u32 = times
            .sum::<Result<u32, _>>()
            .context("parse a process's times")?;
        Ok(f64::from(total) / ticks)
    };
    pids.iter().map(of).collect()
}

/// The document that is printed.
pub(crate) fn document(mut tally: Tally, window: Duration, watched: &[(u32, f64)]) -> Value {
    tally.latencies.sort_unstable();
    let requests = tally.latencies.len();
    let at = |per_mille: usize| {
        let index = (requests * per_mille / 1000).min(requests.saturating_sub(1));
        tally.latencies.get(index).copied().unwrap_or_default()
    };
    let count = u32::try_from(requests).unwrap_or(u32::MAX);
    let sum: u64 = tally.latencies.iter().copied().map(u64::from).sum();
    let processes: Vec<Value> = watched
        .iter()
        .map(|(pid, seconds)| {
            let each = seconds * 1e6 / f64::from(count.max(1));
            json!({ "pid": pid, "cpu_seconds": seconds, "cpu_us_per_request": each })
        })
        .collect();
    json!({
        "requests": requests,
        "errors": tally.errors,
        "error": tally.error,
        "seconds": window.as_secs_f64(),
        "requests_per_second": f64::from(count) / window.as_secs_f64(),
        "latency_us": {
            "mean": sum / u64::from(count.max(1)),
            "p50": at(500), "p90": at(900), "p99": at(990), "p999": at(999), "max": at(1000),
        },
        "bytes": tally.bytes,
        "events": tally.events,
        "connections": tally.connections,
        "watched": processes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_rates() {
        let tally = Tally {
            latencies: (1..=1000).rev().collect(),
            ..Tally::default()
        };
        let document = document(tally, Duration::from_secs(2), &[(7, 0.5)]);
        assert_eq!(document["requests_per_second"], 500.0);
        assert_eq!(document["latency_us"]["p50"], 501);
        assert_eq!(document["latency_us"]["p99"], 991);
        assert_eq!(document["latency_us"]["max"], 1000);
        assert_eq!(document["watched"][0]["cpu_us_per_request"], 500.0);
        assert!(spent(&[std::process::id()]).unwrap()[0] >= 0.0);
    }
}
