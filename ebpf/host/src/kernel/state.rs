//! What the pins hold, and what this process is.

use super::load::PINNED;
use crate::bpf::{self, Table};
use crate::{KernelError, Layout};
use exeat_ebpf_abi::{
    Config, Destination, DnsKey, DnsSource, Endpoint, File, LAYOUT_VERSION, Listener, MAX_MANAGED,
    Origin, Owner, Pod, Range, Tuple,
};
use std::fs;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

/// Opens a pinned map.
pub(super) fn open<K: Pod, V: Pod>(
    layout: &Layout,
    name: &'static str,
) -> Result<Table<K, V>, KernelError> {
    Table::new(open_raw(layout, name)?).map_err(|cause| KernelError::map("use", name, cause))
}

pub(super) fn open_raw(layout: &Layout, name: &'static str) -> Result<OwnedFd, KernelError> {
    bpf::open(&layout.map(name)).map_err(|cause| KernelError::map("open", name, cause))
}

pub(super) fn config(table: &Table<u32, Config>) -> Result<Config, KernelError> {
    let config = table
        .get(&0)
        .map_err(|cause| KernelError::map("read", "CONFIG", cause))?;
    Ok(config.unwrap_or_default())
}

/// All keys with their values.
pub(super) fn entries<K: Pod, V: Pod>(table: &Table<K, V>, limit: u32) -> io::Result<Vec<(K, V)>> {
    let mut entries = Vec::new();
    for key in table.keys(limit)? {
        // Gone meanwhile is no error.
        if let Some(value) = table.get(&key)? {
            entries.push((key, value));
        }
    }
    Ok(entries)
}

/// The loader would use a pinned map of any shape.
pub(super) fn check_shapes(layout: &Layout) -> Result<(), KernelError> {
    for name in PINNED {
        let path = layout.map(name);
        let map = match bpf::open(&path) {
            Ok(map) => map,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(cause) => return Err(KernelError::path("open the pin", &path, cause)),
        };
        let info = bpf::map_info(map.as_fd())
            .map_err(|cause| KernelError::path("examine the pin", &path, cause))?;
        let found = (
            usize::try_from(info.key_size),
            usize::try_from(info.value_size),
        );
        let (key, value) = shape(name);
        if found != (Ok(key), Ok(value)) {
            return Err(KernelError::Shape {
                map: (*name).to_owned(),
            });
        }
    }
    Ok(())
}

fn shape(map: &str) -> (usize, usize) {
    const fn pair<K, V>() -> (usize, usize) {
        (size_of::<K>(), size_of::<V>())
    }
    match map {
        "CONFIG" => pair::<u32, Config>(),
        "MANAGED" => pair::<u64, u32>(),
        "CUT" | "JUDGED" => pair::<u32, u32>(),
        "GUARDED" => pair::<Endpoint, u32>(),
        "ALLOW" => pair::<Destination, u32>(),
        "RANGES" => pair::<Range, u32>(),
        "LISTEN" => pair::<Listener, u32>(),
        "WATCHED" => pair::<File, u32>(),
        "OWNER" => pair::<i32, Owner>(),
        "CLIENT" | "ACCEPTED" => pair::<i32, Origin>(),
        "TUPLE" => pair::<Tuple, Origin>(),
        "DNS_SOURCE" => pair::<DnsKey, DnsSource>(),
        "HEARTBEAT" | "LOST" => pair::<u32, u64>(),
        // Rings.
        _ => (0, 0),
    }
}

/// Versions of the pins that are not ours, with their directories.
fn other_versions(layout: &Layout) -> Result<Vec<std::path::PathBuf>, KernelError> {
    let failed = |cause| KernelError::path("list", &layout.bpffs, cause);
    let mut others = Vec::new();
    for entry in fs::read_dir(&layout.bpffs).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let version = name
            .to_str()
            .and_then(|name| name.strip_prefix('v')?.parse::<u32>().ok());
        if version.is_some_and(|version| version != LAYOUT_VERSION) {
            others.push(entry.path());
        }
    }
    Ok(others)
}

/// Workloads that pins of other versions know. The shape of `MANAGED` is the same in all versions.
pub(super) fn foreign_managed(layout: &Layout) -> Result<Vec<(u64, u32)>, KernelError> {
    let mut all = Vec::new();
    for directory in other_versions(layout)? {
        let path = directory.join("maps/MANAGED");
        let entries = bpf::open(&path)
            .and_then(Table::<u64, u32>::new)
            .and_then(|table| entries(&table, MAX_MANAGED))
            .map_err(|cause| KernelError::path("read the workloads of", &path, cause))?;
        all.extend(entries);
    }
    Ok(all)
}

/// Detaches the programs of other versions. They stayed until ours were attached.
pub(super) fn remove_other_versions(layout: &Layout) -> Result<(), KernelError> {
    other_versions(layout)?
        .iter()
        .try_for_each(|directory| remove_tree(directory))
}

/// Removes a directory of pins. Links go before maps.
pub(super) fn remove_tree(directory: &Path) -> Result<(), KernelError> {
    let failed = |cause| KernelError::path("remove the pins in", directory, cause);
    let mut entries = fs::read_dir(directory)
        .and_then(Iterator::collect::<io::Result<Vec<_>>>)
        .map_err(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_type().map_err(failed)?.is_dir() {
            remove_tree(&path)?;
        } else {
            fs::remove_file(&path)
                .map_err(|cause| KernelError::path("remove the pin", &path, cause))?;
        }
    }
    fs::remove_dir(directory).map_err(failed)
}

/// The cookie of this process's network namespace.
pub(super) fn netns_cookie() -> Result<u64, KernelError> {
    let failed = |cause| KernelError::System {
        what: "ask for the network namespace",
        cause,
    };
    let socket = UdpSocket::bind(("127.0.0.1", 0)).map_err(failed)?;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>())
        .map_err(|error| failed(io::Error::other(error)))?;
    // SAFETY: `cookie` is writable and `length` says its size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 && cookie != 0 {
        Ok(cookie)
    } else {
        Err(failed(io::Error::last_os_error()))
    }
}

/// include/uapi/asm-generic/socket.h; Linux 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;
