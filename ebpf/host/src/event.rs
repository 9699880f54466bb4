//! Records of the kernel's rings.

use crate::KernelError;
use aya::maps::{Map, MapData, RingBuf};
use exeat_ebpf_abi::{Event as RawEvent, Execution as RawExecution, File, Pod, kind};
use std::ffi::OsStr;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::{fmt, io};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// TCP connect to an address that the workload may not reach; `detail` 1: it may, but no
    /// socket of the gate's waits for it.
    RefusedConnect,
    /// UDP send to an address that the workload may not reach; `detail` as above.
    RefusedSend,
    /// Creation of a socket of a kind that workloads do not get; `detail` is its type, and
    /// its protocol in the upper sixteen bits.
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
    /// A managed process executed a file; `detail` is 0 or `exeat_ebpf_abi::kind::HELD`: it was stopped, until it is judged.
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
    /// The file that runs, as [`identify`](crate::identify) names it; for a script, its interpreter.
    pub file: File,
    /// Path as the caller gave it: of the script, where there is one.
    pub path: PathBuf,
    /// Arguments as bytes, at most 512 in all.
    pub argv: Vec<Vec<u8>>,
    /// Some arguments did not fit.
    pub argv_cut: bool,
}

/// Records of one ring, in order.
pub struct EventStream {
    ring: AsyncFd<RingBuf<MapData>>,
    name: &'static str,
}

impl fmt::Debug for EventStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EventStream")
            .field("ring", &self.name)
            .finish_non_exhaustive()
    }
}

impl EventStream {
    pub(crate) fn new(map: OwnedFd, name: &'static str) -> Result<Self, KernelError> {
        let failed = |cause| KernelError::Map {
            what: "wait on",
            map: name,
            cause,
        };
        let ring = MapData::from_fd(map)
            .and_then(|data| RingBuf::try_from(Map::RingBuf(data)))
            .map_err(|error| failed(io::Error::other(error)))?;
        // SAFETY: the ring keeps the one descriptor that it was made with, until it is dropped.
        let registered = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        let ring = registered.map_err(|error| failed(error.into()))?;
        Ok(Self { ring, name })
    }

    /// Waits for the next record. Safe to cancel.
    ///
    /// # Errors
    /// The ring cannot be waited on, or holds a record that this version does not know; the record
    /// is then consumed, and the next call goes on behind it.
    pub async fn next(&mut self) -> Result<Event, KernelError> {
        loop {
            let mut guard = self
                .ring
                .readable_mut()
                .await
                .map_err(|cause| KernelError::Map {
                    what: "wait on",
                    map: self.name,
                    cause,
                })?;
            if let Some(record) = guard.get_inner_mut().next() {
                return decode(&record);
            }
            guard.clear_ready();
        }
    }

    /// The next record, if there is one at once.
    ///
    /// # Errors
    /// As [`EventStream::next`].
    pub fn try_next(&mut self) -> Result<Option<Event>, KernelError> {
        self.ring
            .get_mut()
            .next()
            .map(|record| decode(&record))
            .transpose()
    }
}

fn decode(record: &[u8]) -> Result<Event, KernelError> {
    let unknown = |kind| KernelError::Record {
        kind,
        length: record.len(),
    };
    let raw: RawEvent = read(record).ok_or_else(|| unknown(0))?;
    let kind = EventKind::from_raw(raw.kind).ok_or_else(|| unknown(raw.kind))?;
    let execution = match kind {
        EventKind::Exec | EventKind::WatchedExec => {
            let raw_execution: RawExecution = read(record).ok_or_else(|| unknown(raw.kind))?;
            Some(Box::new(execution(&raw_execution)))
        }
        _ => None,
    };
    Ok(Event {
        kind,
        workload: raw.workload,
        tgid: raw.tgid,
        tid: raw.tid,
        ppid: raw.ppid,
        uid: raw.uid,
        port: raw.port,
        protocol: raw.protocol,
        family: raw.family,
        address: (raw.family != 0).then(|| raw.address.ip()),
        detail: raw.detail,
        cgroup: raw.cgroup,
        at_ns: raw.at_ns,
        started_ns: raw.started_ns,
        comm: String::from_utf8_lossy(until_zero(&raw.comm)).into_owned(),
        execution,
    })
}

fn execution(raw: &RawExecution) -> Execution {
    let length = usize::try_from(raw.argv_length).unwrap_or(0);
    let argv = raw.argv.get(..length).unwrap_or(&[]);
    let argv_cut = raw.argv_total > raw.argv_length;
    // The last zero ends the last argument; without it, an empty one would seem to follow.
    let argv = argv.strip_suffix(&[0]).unwrap_or(argv);
    Execution {
        file: raw.file,
        path: PathBuf::from(OsStr::from_bytes(until_zero(&raw.exe))),
        argv: argv.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect(),
        argv_cut,
    }
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or(bytes)
}

/// Copies a record's head; `None` if it is too short.
fn read<T: Pod>(record: &[u8]) -> Option<T> {
    if record.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: there are enough bytes, any of them make a `Pod`, and the read may be unaligned.
    Some(unsafe { record.as_ptr().cast::<T>().read_unaligned() })
}

impl EventKind {
    const fn from_raw(kind: u32) -> Option<Self> {
        Some(match kind {
            kind::REFUSED_CONNECT => Self::RefusedConnect,
            kind::REFUSED_SEND => Self::RefusedSend,
            kind::REFUSED_SOCKET => Self::RefusedSocket,
            kind::EGRESS_DROP => Self::EgressDrop,
            kind::INGRESS_DROP => Self::IngressDrop,
            kind::FOREIGN_SOCKET => Self::ForeignSocket,
            kind::PROXY_DIALLED => Self::ProxyDialled,
            kind::FOREIGN_NETNS => Self::ForeignNetns,
            kind::EXEC => Self::Exec,
            kind::FORK => Self::Fork,
            kind::EXIT => Self::Exit,
            kind::WATCHED_EXEC => Self::WatchedExec,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::decode;
    use crate::KernelError;

    #[test]
    fn odd_records_are_errors() {
        for record in [&[][..], &[1; 4], &[0; 96], &[0xff; 96]] {
            let decoded = decode(record);
            assert!(
                matches!(decoded, Err(KernelError::Record { .. })),
                "{decoded:?}"
            );
        }
        let mut short_exec = [0; 96];
        short_exec[0] = 16;
        decode(&short_exec).unwrap_err();
    }
}
