//! What can go wrong while a name is resolved.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::class::Class;

/// The kernel map or the synthetic table did not take an entry.
#[derive(Debug, thiserror::Error)]
#[error("cannot bind the addresses of `{name}` to workload {workload}")]
pub struct BindFault {
    /// The name that was asked.
    pub name: String,
    /// The workload that asked.
    pub workload: u32,
    /// Why not: a full table, or a failed system call.
    #[source]
    pub cause: Box<dyn Error + Send + Sync>,
}

/// The resolver's settings cannot work.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingsFault {
    /// No server to ask.
    #[error("no upstream name server is configured")]
    NoUpstream,
    /// A server that cannot be asked.
    #[error("upstream name server `{0}` is not an address that can be asked")]
    UnusableUpstream(SocketAddr),
    /// More servers than are ever tried.
    #[error("{count} upstream name servers are configured; at most {limit} are used")]
    TooManyUpstreams {
        /// How many were given.
        count: usize,
        /// How many are tried.
        limit: usize,
    },
}

/// The upstream servers gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamFault {
    /// A socket could not be opened, or the server could not be reached.
    #[error("cannot ask name server {server}")]
    Io {
        /// The server that was tried last.
        server: SocketAddr,
        /// The system's reason.
        #[source]
        cause: io::Error,
    },
    /// Nothing that matched the question came in time.
    #[error("name server {server} did not answer in time")]
    Timeout {
        /// The server that was tried last.
        server: SocketAddr,
    },
    /// The server answered with an error.
    #[error("name server {server} answered with code {rcode}")]
    Code {
        /// The server that was tried last.
        server: SocketAddr,
        /// RFC 6895 section 2.3.
        rcode: u16,
    },
    /// The answer's bytes are not a message, or break the protocol.
    #[error("name server {server} sent a malformed answer: {what}")]
    Malformed {
        /// The server.
        server: SocketAddr,
        /// What is wrong with it.
        what: &'static str,
    },
    /// So many datagrams did not match the question that somebody is guessing.
    #[error("more than {limit} datagrams that match no question came from name server {server}")]
    Flooded {
        /// The address that they claim to come from.
        server: SocketAddr,
        /// How many were dropped before giving up.
        limit: u32,
    },
    /// The aliases of a name lead back to one of them, or in two directions.
    #[error("the aliases of `{name}` do not lead to one name: {what}")]
    Alias {
        /// The name that was asked.
        name: String,
        /// Loop, length, fork or bad target.
        what: &'static str,
    },
    /// The whole resolution ran out of time.
    #[error("no name server answered for `{name}` within the deadline")]
    Deadline {
        /// The name that was asked.
        name: String,
    },
}

/// The proxy has no address to dial.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ResolveFault {
    /// The name is one that is never asked upstream under this grant.
    #[error("`{name}` is a reserved name that is not resolved")]
    Reserved {
        /// The name.
        name: String,
    },
    /// The name does not exist.
    #[error("`{name}` does not exist")]
    NoName {
        /// The name.
        name: String,
    },
    /// The name exists without addresses.
    #[error("`{name}` has no addresses")]
    NoAddress {
        /// The name.
        name: String,
    },
    /// Every address is of a class that the grant does not cover.
    #[error("`{name}` resolves only to refused addresses, first {address} ({class})")]
    Refused {
        /// The name.
        name: String,
        /// The first of them.
        address: IpAddr,
        /// Its class.
        class: Class,
    },
    /// Too many resolutions are under way.
    #[error("too many names are being resolved to resolve `{name}` as well")]
    Overloaded {
        /// The name.
        name: String,
    },
    /// The upstream servers failed.
    #[error("cannot resolve `{name}`")]
    Upstream {
        /// The name.
        name: String,
        /// Why.
        #[source]
        cause: std::sync::Arc<UpstreamFault>,
    },
}
