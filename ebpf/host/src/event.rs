//! Records of the kernel's rings.

use crate::KernelError;
use std::net::IpAddr;
use std::path::PathBuf;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// TCP connect to an address that the workload may not reach.
    RefusedConnect,
    /// UDP send to an address that the workload may not reach.
    RefusedSend,
    /// Creation of a socket of a kind that workloads do not get; `detail` is its type.
    RefusedSocket,
    /// A packet that no rule lets out; `detail` is one of `exeat_ebpf_abi::kind::drop`.
    EgressDrop,
    /// A packet that no rule lets in.
    IngressDrop,
    /// Use of a socket that another workload (`detail`), or nobody managed (0), created.
    ForeignSocket,
    /// Connect to the gate's own port.
    ProxyDialled,
    /// Connect from another network namespace.
    ForeignNetns,
    /// A managed process executed a file.
    Exec,
    /// A managed process created a process; `detail` is the child's pid.
    Fork,
    /// The last thread of a managed process ended; `detail` is the wait status.
    Exit,
    /// An unmanaged process executed a watched file and was stopped (SIGSTOP) before its first
    /// instruction.
    WatchedExec,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// Number of the workload, 0 if none.
    pub workload: u32,
    /// Process, 0 where the kernel cannot tell.
    pub tgid: u32,
    /// Thread, 0 where the kernel cannot tell.
    pub tid: u32,
    /// Parent process (process events only).
    pub ppid: u32,
    /// Real user id.
    pub uid: u32,
    /// Destination port (for ingress: source port).
    pub port: u16,
    /// Protocol number, 255 if larger.
    pub protocol: u8,
    /// 4, 6 or 0: the address family that was used.
    pub family: u8,
    /// Destination address (for ingress: source address), if there is one.
    pub address: Option<IpAddr>,
    /// Depends on the kind.
    pub detail: u32,
    /// Id of the process's cgroup, 0 where the kernel cannot tell.
    pub cgroup: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub at_ns: u64,
    /// Start of the process (`CLOCK_BOOTTIME`, nanoseconds; process events only).
    pub started_ns: u64,
    /// Name of the thread.
    pub comm: String,
    /// What runs: exec events only.
    pub execution: Option<Box<Execution>>,
}

/// What a process executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// Device of the file that runs, as in `st_dev`; for a script, its interpreter's.
    pub device: u64,
    /// Inode of that file.
    pub inode: u64,
    /// Path as the caller gave it: of the script, where there is one.
    pub path: PathBuf,
    /// Arguments as bytes, at most 512 in all.
    pub argv: Vec<Vec<u8>>,
    /// Some arguments did not fit.
    pub argv_cut: bool,
}

/// Records of one ring, in order.
#[derive(Debug)]
pub struct EventStream {}

impl EventStream {
    /// Waits for the next record. Safe to cancel.
    ///
    /// # Errors
    /// The ring cannot be waited on, or holds a record that this version does not know.
    pub async fn next(&mut self) -> Result<Event, KernelError> {
        Err(KernelError::Argument(String::new()))
    }
}
