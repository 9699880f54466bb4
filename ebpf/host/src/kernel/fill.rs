//! How full the tables are.

use crate::KernelError;
use crate::bpf::{self, Table};
use exeat_ebpf_abi::{
    Destination, Endpoint, File, LAYOUT_VERSION, Listener, MAX_DESTINATIONS, MAX_GUARDED,
    MAX_LISTENERS, MAX_MANAGED, MAX_RANGES, MAX_WATCHED, Pod, Range,
};
use std::path::Path;

/// How full one of the kernel's tables is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// What it holds.
    pub what: &'static str,
    /// Entries.
    pub entries: usize,
    /// How many there may be.
    pub limit: u32,
}

/// How full the tables below `bpffs` are, a daemon's directory of pins. Those that forget the oldest entry by
/// themselves are left out. Reads key after key: for a diagnosis, not for a loop.
///
/// # Errors
/// There are no pins, or this process may not read them.
pub fn fill(bpffs: &Path) -> Result<Vec<Fill>, KernelError> {
    let maps = bpffs.join(format!("v{LAYOUT_VERSION}")).join("maps");
    Ok(vec![
        count::<u64, u32>(&maps, "MANAGED", "managed cgroups", MAX_MANAGED)?,
        count::<u32, u32>(&maps, "CUT", "disconnected workloads", MAX_MANAGED)?,
        count::<Destination, u32>(&maps, "ALLOW", "open addresses", MAX_DESTINATIONS)?,
        count::<Range, u32>(&maps, "RANGES", "open ranges", MAX_RANGES)?,
        count::<Listener, u32>(&maps, "LISTEN", "permitted listeners", MAX_LISTENERS)?,
        count::<Endpoint, u32>(&maps, "GUARDED", "guarded places", MAX_GUARDED)?,
        count::<File, u32>(&maps, "WATCHED", "watched executables", MAX_WATCHED)?,
    ])
}

fn count<K: Pod, V: Pod>(
    maps: &Path,
    name: &'static str,
    what: &'static str,
    limit: u32,
) -> Result<Fill, KernelError> {
    let keys = bpf::open(&maps.join(name))
        .and_then(Table::<K, V>::new)
        .and_then(|table| table.keys(limit))
        .map_err(|cause| KernelError::map("read", name, cause))?;
    Ok(Fill {
        what,
        entries: keys.len(),
        limit,
    })
}
