//! What the resolver is built from, and its bounds.

use std::net::SocketAddr;
use std::time::Duration;

use super::class::Own;
use super::fault::SettingsFault;
use super::upstream::MAX_SERVERS;

/// Bounds of the resolver.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long one server may take for one question.
    pub attempt: Duration,
    /// How long a name may take, over all servers and aliases; below the 5 s of usual clients.
    pub total: Duration,
    /// How often the list of servers is gone through.
    pub rounds: usize,
    /// Questions under way over all workloads and the proxy.
    pub in_flight: usize,
    /// Questions under way for one workload.
    pub in_flight_per_workload: usize,
    /// So many may wait for an answer that others asked for, for each that may ask.
    pub joining: usize,
    /// Questions that one workload may send upstream in a minute; what is cached is free.
    pub fresh_per_minute: usize,
    /// Entries of the cache.
    pub cache_entries: usize,
    /// Bytes of the cache, estimated.
    pub cache_bytes: usize,
    /// The longest that an address is kept or promised, in seconds.
    pub max_ttl: u32,
    /// The longest that an absence is kept, in seconds.
    pub max_negative_ttl: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            attempt: Duration::from_millis(1500),
            total: Duration::from_millis(4500),
            rounds: 2,
            in_flight: 512,
            in_flight_per_workload: 64,
            joining: 32,
            fresh_per_minute: 600,
            cache_entries: 4096,
            cache_bytes: 4 << 20,
            max_ttl: 60,
            max_negative_ttl: 10,
        }
    }
}

/// What the resolver is built from.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Servers to ask, in order; see [`super::parse_resolv_conf`].
    pub upstreams: Vec<SocketAddr>,
    /// This machine's addresses.
    pub own: Own,
    /// Bounds.
    pub limits: Limits,
}

/// The list of servers, if each of them can be asked.
pub(super) fn usable(upstreams: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, SettingsFault> {
    if upstreams.is_empty() {
        return Err(SettingsFault::NoUpstream);
    }
    if upstreams.len() > MAX_SERVERS {
        let count = upstreams.len();
        return Err(SettingsFault::TooManyUpstreams {
            count,
            limit: MAX_SERVERS,
        });
    }
    let odd = |server: &&SocketAddr| {
        server.port() == 0 || server.ip().is_unspecified() || server.ip().is_multicast()
    };
    match upstreams.iter().find(odd) {
        Some(server) => Err(SettingsFault::UnusableUpstream(*server)),
        None => Ok(upstreams),
    }
}
