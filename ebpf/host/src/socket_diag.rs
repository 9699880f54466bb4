//! Ends connections that are older than management, over netlink; manual page sock-diag in section 7.

use crate::{KernelError, Missing, cgroup};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

// include/uapi/linux/netlink.h, sock_diag.h, inet_diag.h.
const NETLINK_SOCK_DIAG: libc::c_int = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const ATTRIBUTE_CGROUP: u16 = 21;
const HEADER: usize = 16;
// include/net/tcp_states.h; a UDP socket is established or closed.
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;
/// Length of `struct inet_diag_sockid`.
const ID: usize = 48;
/// Length of `struct inet_diag_msg`.
const ANSWER: usize = 72;
/// Where the inode stands in it.
const INODE: usize = 68;

/// What becomes of sockets that wait for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// They are destroyed as well.
    Destroyed,
    /// Those that were created in the cgroup stay: its programs judge what comes to them.
    Kept,
}

/// Destroys every TCP and UDP socket that was created in `cgroup` or below, or that a process there
/// holds, in this network namespace. Returns how many.
///
/// The processes keep the descriptors; what they do with them next meets the programs.
///
/// # Errors
/// The kernel cannot (`CONFIG_INET_DIAG_DESTROY`), or the caller may not.
pub fn destroy_connections(cgroup: &Path, waiting: Waiting) -> Result<usize, KernelError> {
    let failed = |cause| KernelError::path("destroy the connections of", cgroup, cause);
    let members = Members::of(cgroup)?;
    let mut destroyed = 0;
    for family in [libc::AF_INET, libc::AF_INET6] {
        for protocol in [libc::IPPROTO_TCP, libc::IPPROTO_UDP] {
            let kind = [byte(family), byte(protocol)];
            for socket in sockets(kind).map_err(|cause| explained(cause, failed))? {
                let kept = waiting == Waiting::Kept && socket.waits() && members.made(&socket);
                let matters = !kept && members.have(&socket);
                if matters && destroy(kind, &socket.id).map_err(|cause| explained(cause, failed))? {
                    destroyed += 1;
                }
            }
        }
    }
    Ok(destroyed)
}

/// Whether this kernel destroys sockets, tried on two of the caller's own.
///
/// # Errors
/// It cannot (`CONFIG_INET_DIAG_DESTROY`), or the caller may not.
pub fn try_destroying() -> Result<(), KernelError> {
    let failed = |cause| KernelError::System {
        what: "destroy a socket of one's own",
        cause,
    };
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    destroy_own(libc::IPPROTO_TCP, &tcp).map_err(|cause| explained(cause, failed))?;
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    destroy_own(libc::IPPROTO_UDP, &udp).map_err(|cause| explained(cause, failed))
}

fn destroy_own(protocol: libc::c_int, own: &impl AsFd) -> io::Result<()> {
    let kind = [byte(libc::AF_INET), byte(protocol)];
    let inode = File::from(own.as_fd().try_clone_to_owned()?)
        .metadata()?
        .ino();
    let found = sockets(kind)?
        .into_iter()
        .find(|socket| u64::from(socket.inode) == inode);
    match found {
        Some(socket) if destroy(kind, &socket.id)? => Ok(()),
        _ => Err(io::Error::other("the kernel does not list it")),
    }
}

/// Tells a kernel that cannot from one that would not.
fn explained(cause: io::Error, otherwise: impl Fn(io::Error) -> KernelError) -> KernelError {
    match cause.raw_os_error() {
        Some(libc::ENOENT) => Missing(
            "the kernel cannot list sockets: load the modules tcp_diag and udp_diag".to_owned(),
        )
        .into(),
        Some(libc::EOPNOTSUPP) => Missing(
            "the kernel cannot destroy sockets: boot one that is built with CONFIG_INET_DIAG_DESTROY, or restart the processes that hold them"
                .to_owned(),
        )
        .into(),
        _ => otherwise(cause),
    }
}

fn byte(constant: libc::c_int) -> u8 {
    u8::try_from(constant).unwrap_or(0)
}

/// What is known of a socket.
struct Socket {
    state: u8,
    id: Vec<u8>,
    inode: u32,
    /// Where it was created, if the kernel tells (Linux 5.8).
    cgroup: Option<u64>,
}

impl Socket {
    /// A listener, or a UDP socket without a peer.
    const fn waits(&self) -> bool {
        matches!(self.state, TCP_LISTEN | TCP_CLOSE)
    }
}

/// The cgroups concerned, and the sockets that processes there hold.
struct Members {
    cgroups: HashSet<u64>,
    inodes: HashSet<u32>,
}

impl Members {
    fn of(top: &Path) -> Result<Self, KernelError> {
        let mut members = Self {
            cgroups: HashSet::new(),
            inodes: HashSet::new(),
        };
        let mut queue = vec![top.to_owned()];
        while let Some(path) = queue.pop() {
            members.cgroups.insert(cgroup::id(&path)?);
            let processes = fs::read_to_string(path.join("cgroup.procs"))
                .map_err(|cause| KernelError::path("list the processes of", &path, cause))?;
            members.inodes.extend(processes.lines().flat_map(held));
            queue.extend(cgroup::children(&path));
        }
        Ok(members)
    }

    /// Created in one of the cgroups.
    fn made(&self, socket: &Socket) -> bool {
        socket
            .cgroup
            .is_some_and(|cgroup| self.cgroups.contains(&cgroup))
    }

    fn have(&self, socket: &Socket) -> bool {
        self.made(socket) || (socket.inode != 0 && self.inodes.contains(&socket.inode))
    }
}

/// Inodes of the sockets that a process holds. A process that ends meanwhile holds none.
fn held(process: &str) -> Vec<u32> {
    fs::read_dir(format!("/proc/{process}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            let inode = target
                .to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')?;
            inode.parse().ok()
        })
        .collect()
}

fn open() -> io::Result<File> {
    // SAFETY: the call touches no memory.
    let raw = unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            NETLINK_SOCK_DIAG,
        )
    };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call returned a new descriptor that nobody else knows of.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    // Reading and writing a socket is receiving and sending.
    Ok(File::from(socket))
}

/// A request: the netlink header and `struct inet_diag_req_v2`.
fn request(kind: u16, flags: u16, [family, protocol]: [u8; 2], id: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + 8 + ID).unwrap_or(0);
    let mut message = Vec::with_capacity(HEADER + 8 + ID);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([family, protocol, 0, 0]);
    // All states.
    message.extend(u32::MAX.to_ne_bytes());
    message.extend(id);
    message.resize(HEADER + 8 + ID, 0);
    message
}

/// All sockets of a family and protocol.
fn sockets(kind: [u8; 2]) -> io::Result<Vec<Socket>> {
    let mut netlink = open()?;
    netlink.write_all(&request(SOCK_DIAG_BY_FAMILY, REQUEST | DUMP, kind, &[]))?;
    let mut sockets = Vec::new();
    // The kernel fills up to 32 KiB at a time.
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = netlink.read(&mut buffer)?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        if rest.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while let Some((kind, body, next)) = message(rest) {
            match kind {
                DONE => return Ok(sockets),
                ERROR => status(body)?,
                _ => sockets.extend(socket(body)),
            }
            rest = next;
        }
    }
}

/// Whether the socket was there and is destroyed.
fn destroy(kind: [u8; 2], id: &[u8]) -> io::Result<bool> {
    let mut netlink = open()?;
    netlink.write_all(&request(SOCK_DESTROY, REQUEST | ACK, kind, id))?;
    let mut buffer = [0; 4096];
    let length = netlink.read(&mut buffer)?;
    let answer = message(buffer.get(..length).unwrap_or_default());
    let Some((ERROR, body, _)) = answer else {
        return Err(io::Error::other("the kernel answers with something else"));
    };
    match status(body) {
        Ok(()) => Ok(true),
        // Closed meanwhile.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The first message: its kind, its body, and what follows.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(number(bytes, 0)?).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body, next))
}

/// The error of an acknowledgement, if it has one.
fn status(body: &[u8]) -> io::Result<()> {
    match number(body, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn socket(body: &[u8]) -> Option<Socket> {
    let state = *body.get(1)?;
    let id = body.get(4..4 + ID)?.to_vec();
    let inode = number(body, INODE)?;
    let mut attributes = body.get(ANSWER..).unwrap_or_default();
    let mut cgroup = None;
    while let Some(head) = attributes.get(..4) {
        let length = usize::from(u16::from_ne_bytes(head.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(head.get(2..4)?.try_into().ok()?);
        let Some(value) = attributes.get(4..length) else {
            break;
        };
        if kind == ATTRIBUTE_CGROUP {
            cgroup = value.try_into().ok().map(u64::from_ne_bytes);
        }
        attributes = attributes
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    Some(Socket {
        state,
        id,
        inode,
        cgroup,
    })
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(
        bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::{message, socket};

    #[test]
    fn odd_messages_are_not_read() {
        for bytes in [
            &[][..],
            &[1; 3],
            &[0xff; 16],
            &[0; 16],
            &[15, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert!(message(bytes).is_none(), "{bytes:?}");
        }
        let mut body = [0; 80];
        // An attribute that claims no length, and one that claims too much.
        assert!(socket(&body).is_some_and(|socket| socket.cgroup.is_none()));
        body[72] = 200;
        assert!(socket(&body).is_some_and(|socket| socket.cgroup.is_none()));
        assert!(socket(&body[..60]).is_none());
    }
}
