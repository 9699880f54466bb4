//! The machine, and who runs on which of its cores.

use std::fs;
use std::thread::available_parallelism;

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::{Value, json};

/// The cores that client and upstream share, and the one of the proxy in the middle.
///
/// On two cores or more they are apart, so that neither takes the other's time; with one there is nothing to choose.
#[derive(Debug)]
pub(crate) struct Cores {
    all: Option<CpuSet>,
    apart: bool,
}

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Core {
    /// Client and upstream: the first core.
    Load,
    /// The proxy: the second core.
    Middle,
}

impl Cores {
    pub(crate) fn find() -> Self {
        let apart = available_parallelism().is_ok_and(|cores| cores.get() > 1);
        Self {
            all: sched_getaffinity(None).ok(),
            apart,
        }
    }

    pub(crate) fn apart(&self) -> bool {
        self.apart
    }

    /// Does `start` with the affinity that processes started by it are to have.
    pub(crate) async fn on<T>(
        &self,
        core: Core,
        start: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        if !self.apart {
            return start.await;
        }
        let mut set = CpuSet::new();
        set.set(match core {
            Core::Load => 0,
            Core::Middle => 1,
        });
        sched_setaffinity(None, &set).context("keep to a core")?;
        let started = start.await;
        if let Some(all) = &self.all {
            sched_setaffinity(None, all).context("use all cores again")?;
        }
        started
    }
}

pub(crate) fn describe(cores: &Cores) -> Value {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let processor = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map(|line| line.trim_start_matches([' ', '\t', ':']));
    let memory = read("/proc/meminfo");
    let kilobytes: Option<u64> = memory
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|number| number.parse().ok());
    json!({
        "processor": processor,
        "cores": available_parallelism().map_or(1, std::num::NonZero::get),
        "memory_gib": kilobytes.map(|kilobytes| kilobytes >> 20),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load_before": load(),
        "pinned": cores.apart(),
    })
}

/// The load average of the last minute.
pub(crate) fn load() -> Value {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text
        .split(' ')
        .next()
        .and_then(|load| load.parse::<f64>().ok());
    json!(first)
}
