//! All maps, and the constants that the loader sets before the programs are verified.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use core::ffi::c_void;
use core::ptr;
use exeat_ebpf_abi::{
    Config, Destination, DnsKey, DnsSource, Endpoint, File, Listener, MAX_DESTINATIONS,
    MAX_GUARDED, MAX_LISTENERS, MAX_MANAGED, MAX_RANGES, MAX_WATCHED, Origin, Owner, Tuple,
};

/// One value: what the supervisor says.
#[map]
pub static CONFIG: Array<Config> = Array::with_max_entries(1, 0);
/// Cgroup id to workload.
#[map]
pub static MANAGED: HashMap<u64, u32> = HashMap::with_max_entries(MAX_MANAGED, 0);
/// Workloads that are cut off from everything.
#[map]
pub static CUT: HashMap<u32, u32> = HashMap::with_max_entries(MAX_MANAGED, 0);
/// Workloads whose processes are stopped when they execute something that may be a stdio server, until it is judged.
#[map]
pub static JUDGED: HashMap<u32, u32> = HashMap::with_max_entries(MAX_MANAGED, 0);
/// Where servers listen whose clients pass the gate, whoever they are.
#[map]
pub static GUARDED: HashMap<Endpoint, u32> =
    HashMap::with_max_entries(MAX_GUARDED, BPF_F_NO_PREALLOC);
/// Addresses that workloads may reach.
#[map]
pub static ALLOW: HashMap<Destination, u32> =
    HashMap::with_max_entries(MAX_DESTINATIONS, BPF_F_NO_PREALLOC);
/// Ranges that workloads may reach.
#[map]
pub static RANGES: LpmTrie<Destination, u32> =
    LpmTrie::with_max_entries(MAX_RANGES, BPF_F_NO_PREALLOC);
/// Listeners whose replies may leave.
#[map]
pub static LISTEN: HashMap<Listener, u32> = HashMap::with_max_entries(MAX_LISTENERS, 0);
/// Files whose execution by an unmanaged process stops it.
#[map]
pub static WATCHED: HashMap<File, u32> = HashMap::with_max_entries(MAX_WATCHED, 0);
/// Who created a socket.
#[btf_map]
pub static OWNER: SkStorage<Owner> = SkStorage::new();
/// What a client socket asked for, at its last redirected connect or send.
#[btf_map]
pub static CLIENT: SkStorage<Origin> = SkStorage::new();
/// What the client of an accepted socket asked for.
#[btf_map]
pub static ACCEPTED: SkStorage<Origin> = SkStorage::new();
/// Redirected connections between their first packet's arrival and the gate's side being established.
#[map]
pub static TUPLE: LruHashMap<Tuple, Origin> = LruHashMap::with_max_entries(65_536, 0);
/// Queries between their egress and the gate's question.
#[map]
pub static DNS_SOURCE: LruHashMap<DnsKey, DnsSource> = LruHashMap::with_max_entries(16_384, 0);
/// `CLOCK_MONOTONIC` nanoseconds of the gate's last sign of life.
#[map]
pub static HEARTBEAT: Array<u64> = Array::with_max_entries(1, 0);
/// The gate's ring: refusals and drops.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
/// The supervisor's ring: processes.
#[map]
pub static PROCESSES: RingBuf = RingBuf::with_byte_size(1 << 21, 0);
/// Records that did not fit, by ring. Per CPU, because plain counters lose increments.
#[map]
pub static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(2, 0);

macro_rules! constants {
    ($($(#[$doc:meta])* $name:ident, $read:ident;)*) => { $(
        $(#[$doc])*
        #[unsafe(no_mangle)]
        static $name: u32 = 0;

        $(#[$doc])*
        #[inline(always)]
        pub fn $read() -> u32 {
            // Volatile: the compiler sees a zero, the verifier sees what the loader wrote.
            // SAFETY: a `u32` of this program's own read-only data, which nothing writes after the load.
            unsafe { ptr::read_volatile(&raw const $name) }
        }
    )* };
}

constants! {
    /// The kernel has `bpf_set_retval` in address hooks (6.1).
    SET_RETVAL, set_retval;
    /// Offset of `sock::sk_cgrp_data`, whose first field is the cgroup.
    SOCK_CGROUP, sock_cgroup;
    /// Offset of `cgroup::kn`.
    CGROUP_NODE, cgroup_node;
    /// Offset of `kernfs_node::id`.
    NODE_ID, node_id;
    /// Offset of `linux_binprm::filename`.
    BPRM_FILENAME, bprm_filename;
    /// Offset of `linux_binprm::file`.
    BPRM_FILE, bprm_file;
    /// Offset of `file::f_inode`.
    FILE_INODE, file_inode;
    /// Offset of `inode::i_ino`.
    INODE_NUMBER, inode_number;
    /// Offset of `inode::i_mode`.
    INODE_MODE, inode_mode;
    /// Offset of `inode::i_sb`.
    INODE_SB, inode_sb;
    /// Offset of `super_block::s_dev`.
    SB_DEV, sb_dev;
    /// Offset of `task_struct::mm`.
    TASK_MM, task_mm;
    /// Offset of `task_struct::files`.
    TASK_FILES, task_files;
    /// Offset of `files_struct::fdt`.
    FILES_TABLE, files_table;
    /// Offset of `fdtable::fd`.
    TABLE_FILES, table_files;
    /// Offset of `task_struct::tgid`.
    TASK_TGID, task_tgid;
    /// Offset of `task_struct::real_parent`.
    TASK_PARENT, task_parent;
    /// Offset of `task_struct::group_leader`.
    TASK_LEADER, task_leader;
    /// Offset of `task_struct::start_boottime`.
    TASK_START, task_start;
    /// Offset of `task_struct::exit_code`.
    TASK_EXIT_CODE, task_exit_code;
    /// Offset of `task_struct::signal`.
    TASK_SIGNAL, task_signal;
    /// Offset of `signal_struct::live`.
    SIGNAL_LIVE, signal_live;
    /// Offset of `mm_struct::arg_start`.
    MM_ARG_START, mm_arg_start;
    /// Offset of `mm_struct::arg_end`.
    MM_ARG_END, mm_arg_end;
}

/// A socket storage, for program types that aya's wrapper does not take.
pub struct Storage<T: 'static>(pub &'static SkStorage<T>);

impl<T> Storage<T> {
    fn map(&self) -> *mut c_void {
        ptr::from_ref(self.0).cast_mut().cast()
    }

    /// The value of a socket, null if it has none.
    ///
    /// # Safety
    /// `sk` is what the kernel gave this program as a socket.
    #[inline(always)]
    pub unsafe fn get<S>(&self, sk: *mut S) -> *mut T {
        // SAFETY: the map is one of this program's; `sk` is as the caller promises; the helper copes with a socket that has no value.
        unsafe {
            aya_ebpf::helpers::generated::bpf_sk_storage_get(
                self.map(),
                sk.cast(),
                ptr::null_mut(),
                0,
            )
        }
        .cast()
    }

    /// The value of a socket, made (as zeroes) if it has none; null if there is no memory.
    ///
    /// # Safety
    /// `sk` is what the kernel gave this program as a socket.
    #[inline(always)]
    pub unsafe fn make<S>(&self, sk: *mut S) -> *mut T {
        // SAFETY: the map is one of this program's; `sk` is as the caller promises; the helper copes with a socket that has no value.
        unsafe {
            aya_ebpf::helpers::generated::bpf_sk_storage_get(
                self.map(),
                sk.cast(),
                ptr::null_mut(),
                u64::from(aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE),
            )
        }
        .cast()
    }
}

/// The loader's word on the machine.
#[inline(always)]
pub fn config() -> Option<&'static Config> {
    CONFIG.get(0)
}

/// A key that looks for one address in the ranges.
#[inline(always)]
pub fn range_key(destination: Destination) -> Key<Destination> {
    Key::new(192, destination)
}
