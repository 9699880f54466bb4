//! Records of the rings.

/// Bytes of a thread's name, with its final zero.
pub const COMM_LENGTH: usize = 16;
/// Most bytes of an executable's path that a record holds, with its final zero.
pub const EXE_LENGTH: usize = 256;
/// Most bytes of arguments that a record holds.
pub const ARGV_LENGTH: usize = 512;

/// Values of [`Event::kind`].
pub mod kind {
    /// TCP connect to an address that the workload may not reach; `detail` is 0 or one of
    /// [`refused`](super::kind::refused).
    pub const REFUSED_CONNECT: u32 = 1;
    /// UDP send to an address that the workload may not reach; `detail` as above.
    pub const REFUSED_SEND: u32 = 2;
    /// Creation of a socket of a kind that workloads do not get; `detail` is its type, and
    /// its protocol in the upper sixteen bits.
    pub const REFUSED_SOCKET: u32 = 3;
    /// A packet that no rule lets out; `detail` says why, see [`drop`](super::kind::drop).
    pub const EGRESS_DROP: u32 = 4;
    /// A packet that no rule lets in; `detail` as above.
    pub const INGRESS_DROP: u32 = 5;
    /// Use of a socket that another workload, or nobody managed, created; `detail` is its owner.
    pub const FOREIGN_SOCKET: u32 = 6;
    /// Connect to the gate's own port.
    pub const PROXY_DIALLED: u32 = 7;
    /// Connect from another network namespace.
    pub const FOREIGN_NETNS: u32 = 8;
    /// A managed process executed a file; `detail` is 0 or [`HELD`](super::kind::HELD).
    pub const EXEC: u32 = 16;
    /// A managed process created a process; `detail` is the child's thread group.
    pub const FORK: u32 = 17;
    /// The last thread of a managed process ended; `detail` is the kernel's exit code.
    pub const EXIT: u32 = 18;
    /// An unmanaged process executed a watched file and was stopped.
    pub const WATCHED_EXEC: u32 = 19;

    /// Value of [`Event::detail`](super::Event::detail) in [`EXEC`]: the process was stopped, until it is judged.
    pub const HELD: u32 = 1;

    /// Values of [`Event::detail`](super::Event::detail) in refusals.
    pub mod refused {
        /// The rules allow it, but no socket of the gate's waits for it.
        pub const NO_GATE: u32 = 1;
        /// The workload is cut off.
        pub const CUT: u32 = 2;
    }

    /// Values of [`Event::detail`](super::Event::detail) in drops.
    pub mod drop {
        /// Destination not allowed.
        pub const DESTINATION: u32 = 1;
        /// The header is not one that an allowed socket makes.
        pub const MALFORMED: u32 = 2;
        /// Source route: IPv4 options or an IPv6 routing header.
        pub const SOURCE_ROUTE: u32 = 3;
        /// A protocol that is neither TCP nor UDP.
        pub const PROTOCOL: u32 = 4;
        /// The socket's workload is not known.
        pub const UNKNOWN_WORKLOAD: u32 = 5;
        /// The workload is cut off.
        pub const CUT: u32 = 6;
        /// A connection to a workload that the gate did not open.
        pub const NOT_BY_GATE: u32 = 7;
    }
}

/// A record of either ring; process events of kind exec are an [`Execution`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// One of [`kind`].
    pub kind: u32,
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
    /// 4, 6 or 0.
    pub family: u8,
    /// Depends on the kind.
    pub detail: u32,
    /// Destination address (for ingress: source address).
    pub address: crate::Address,
    /// Id of the process's cgroup, 0 where the kernel cannot tell.
    pub cgroup: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub at_ns: u64,
    /// Name of the thread, zero-terminated.
    pub comm: [u8; COMM_LENGTH],
    /// Start of the process (`CLOCK_BOOTTIME`, nanoseconds; process events only).
    pub started_ns: u64,
    /// Zero.
    pub reserved: u64,
}

/// A record of a process that executed a file.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execution {
    /// The common part.
    pub event: Event,
    /// The file that runs; for a script, its interpreter.
    pub file: crate::File,
    /// Bytes of `argv` in use.
    pub argv_length: u32,
    /// Bytes of arguments that the process has, more than `argv_length` if cut.
    pub argv_total: u32,
    /// Path as the caller gave it, zero-terminated: the script where `file` is an interpreter.
    pub exe: [u8; EXE_LENGTH],
    /// Arguments, each ended by a zero.
    pub argv: [u8; ARGV_LENGTH],
}
