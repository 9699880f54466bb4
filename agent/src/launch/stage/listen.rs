//! The gate's sockets, born in the gate's cgroup: an accepted socket inherits its listener's.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use serde::{Deserialize, Serialize};

use super::confine::join;
use super::{Report, StageError, holder};
use crate::channel::send_frame;

/// Connections that wait for accept, for each listener.
const BACKLOG: i32 = 1024;
/// Ports that are tried where the kernel chooses, until one is free on both addresses.
const ATTEMPTS: u32 = 32;

/// Orders to open the gate's sockets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// The gate's cgroup.
    pub cgroup: PathBuf,
    /// TCP; 0: any that is free.
    pub proxy_port: u16,
    /// UDP; 0: any that is free.
    pub dns_port: u16,
    /// TCP, for links of approvals, where there is such a listener.
    pub approvals: Option<SocketAddr>,
}

/// What was opened. The sockets stand in this order: TCP on 127.0.0.1, TCP on `::1`, UDP on
/// 127.0.0.1, UDP on `::1`, TCP for approvals; those on `::1` are absent where the machine has no IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listening {
    /// TCP.
    pub proxy_port: u16,
    /// UDP.
    pub dns_port: u16,
    /// Whether there are sockets on `::1`.
    pub v6: bool,
}

pub(super) fn run(order: &Listen, socket: &OwnedFd) -> Result<(), StageError> {
    join(&order.cgroup)?;
    let (proxy, proxy_port) = open_pair(SocketType::STREAM, order.proxy_port)?;
    let (dns, dns_port) = open_pair(SocketType::DGRAM, order.dns_port)?;
    let v6 = proxy.len() == 2 && dns.len() == 2;
    let report = Report::Listening(Listening {
        proxy_port,
        dns_port,
        v6,
    });
    let body = serde_json::to_vec(&report)
        .map_err(|e| StageError::Orders(crate::channel::ChannelError::Encode(e)))?;
    let approvals = order.approvals.map(|at| open(SocketType::STREAM, at));
    let approvals = approvals.transpose()?.map(|(socket, _port)| socket);
    let mut descriptors: Vec<BorrowedFd<'_>> = if v6 {
        proxy.iter().chain(&dns).map(OwnedFd::as_fd).collect()
    } else {
        proxy
            .iter()
            .take(1)
            .chain(dns.iter().take(1))
            .map(OwnedFd::as_fd)
            .collect()
    };
    descriptors.extend(approvals.as_ref().map(OwnedFd::as_fd));
    send_frame(socket.as_fd(), &body, &descriptors).map_err(StageError::Orders)
}

/// Sockets on 127.0.0.1 and, where there is IPv6, on `::1`, with the same port.
fn open_pair(kind: SocketType, port: u16) -> Result<(Vec<OwnedFd>, u16), StageError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let at = |address, port| SocketAddr::new(address, port);
        let (v4, chosen) = open(kind, at(Ipv4Addr::LOCALHOST.into(), port))?;
        match open(kind, at(Ipv6Addr::LOCALHOST.into(), chosen)) {
            Ok((v6, _same)) => return Ok((vec![v4, v6], chosen)),
            Err(StageError::Listen { cause, .. }) if no_ipv6(&cause) => {
                return Ok((vec![v4], chosen));
            }
            Err(StageError::Listen { cause, .. })
                if port == 0 && attempt < ATTEMPTS && cause.kind() == io::ErrorKind::AddrInUse => {}
            Err(e) => return Err(e),
        }
    }
}

fn no_ipv6(cause: &io::Error) -> bool {
    let codes = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL];
    codes
        .iter()
        .any(|code| cause.raw_os_error() == Some(code.raw_os_error()))
}

fn open(kind: SocketType, wanted: SocketAddr) -> Result<(OwnedFd, u16), StageError> {
    let protocol = if kind == SocketType::STREAM {
        "tcp"
    } else {
        "udp"
    };
    bind(kind, wanted).map_err(|errno| {
        let holder = if errno == Errno::ADDRINUSE {
            holder::of(protocol, wanted.port())
        } else {
            None
        };
        StageError::Listen {
            address: wanted,
            protocol,
            holder,
            cause: errno.into(),
        }
    })
}

fn bind(kind: SocketType, address: SocketAddr) -> Result<(OwnedFd, u16), Errno> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if kind == SocketType::STREAM {
        // A restart finds its port although old connections linger. Not for UDP, where it would
        // let another process of the gate's user share the port.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    if kind == SocketType::STREAM {
        rustix::net::listen(&socket, BACKLOG)?;
    }
    let bound = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((socket, bound.port()))
}
