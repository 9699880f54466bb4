//! Types shared by the kernel programs and the daemon: map keys, map values and ring records.
//!
//! Every type is `repr(C)`, holds no implicit padding and is valid for every bit pattern; sizes are
//! asserted below. Integers are in host byte order unless a field says otherwise. A change of any
//! layout, or of a map's purpose, demands a new [`LAYOUT_VERSION`]: pins of another version are
//! never reused.
#![no_std]

mod config;
mod event;
mod socket;

pub use config::{Config, MAX_LEVEL, levels};
pub use event::{ARGV_LENGTH, COMM_LENGTH, EXE_LENGTH, Event, Execution, kind};
pub use socket::{
    Address, Destination, DnsKey, DnsSource, Endpoint, Listener, Origin, Owner, Range, Tuple,
    action, family, guard, protocol,
};

/// Version of all layouts in this crate; part of the directory that maps and links are pinned in.
pub const LAYOUT_VERSION: u32 = 1;

/// How long after the gate's last heartbeat direct UDP flows are still let through.
pub const HEARTBEAT_NS: u64 = 3_000_000_000;

/// Largest number of addresses that the policy has opened at one time, over all workloads.
pub const MAX_DESTINATIONS: u32 = 262_144;
/// Largest number of address ranges, over all workloads.
pub const MAX_RANGES: u32 = 16_384;
/// Largest number of permitted listeners, over all workloads.
pub const MAX_LISTENERS: u32 = 1_024;
/// Largest number of guarded addresses and ports.
pub const MAX_GUARDED: u32 = 16_384;
/// Largest number of managed cgroups.
pub const MAX_MANAGED: u32 = 4_096;
/// Largest number of watched executables.
pub const MAX_WATCHED: u32 = 4_096;

/// Index in the per-CPU map `LOST`: records that did not fit the gate's ring.
pub const LOST_GATE: u32 = 0;
/// Index in the per-CPU map `LOST`: records that did not fit the supervisor's ring.
pub const LOST_PROCESS: u32 = 1;

/// A watched executable's place in the filesystem.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct File {
    /// Device in the kernel's own form: major << 20 | minor.
    pub device: u64,
    /// Inode number on that device.
    pub inode: u64,
}

/// Types that may be built from any bytes of their size and read as bytes.
///
/// # Safety
/// The type holds no padding, no pointer and no value with an invalid bit pattern.
#[cfg(feature = "user")]
pub unsafe trait Pod: Copy + 'static {}

#[cfg(feature = "user")]
macro_rules! pod {
    ($($type:ty),* $(,)?) => { $(
        // SAFETY: integers and arrays of integers only; sizes below prove that nothing is padded.
        unsafe impl Pod for $type {}
    )* };
}
#[cfg(feature = "user")]
pod!(
    i32,
    u32,
    u64,
    Address,
    Config,
    Destination,
    DnsKey,
    DnsSource,
    Endpoint,
    Event,
    Execution,
    File,
    Listener,
    Origin,
    Owner,
    Range,
    Tuple,
);

const _: () = {
    use core::mem::size_of;
    assert!(size_of::<Address>() == 16);
    assert!(size_of::<Config>() == 48);
    assert!(size_of::<Destination>() == 24);
    assert!(size_of::<DnsKey>() == 20);
    assert!(size_of::<DnsSource>() == 32);
    assert!(size_of::<Endpoint>() == 20);
    assert!(size_of::<Event>() == 96);
    assert!(size_of::<Execution>() == 96 + 16 + 8 + EXE_LENGTH + ARGV_LENGTH);
    assert!(size_of::<File>() == 16);
    assert!(size_of::<Listener>() == 24);
    assert!(size_of::<Origin>() == 56);
    assert!(size_of::<Owner>() == 16);
    assert!(size_of::<Range>() == 28);
    assert!(size_of::<Tuple>() == 20);
};
