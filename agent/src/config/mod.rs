//! What `/etc/exeat/exeat.yaml` may say, and what holds where it says nothing.
//!
//! Every field has a default, so that an absent file is a working configuration. The types are
//! also the form in which the supervisor hands the configuration to the gate.

mod approvals;
mod issuers;
mod load;
mod read;
mod reference;
#[cfg(test)]
mod tests;
mod url;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use approvals::{Approvals, ConsoleUrl, Webhook, WebhookUrl};
pub use issuers::{Issuer, KeySource, TokenAlgorithm};
pub use load::{ConfigError, load, read_opened, read_text};
pub use read::parse;
pub use reference::page;
pub use url::{HttpsUrl, HttpsUrlFault};

/// Where the configuration is looked for when `--config` does not say.
pub const DEFAULT_FILE: &str = "/etc/exeat/exeat.yaml";

/// The whole configuration of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The policy: a file, or a directory whose `*.yaml` are merged in name order.
    pub policy: PathBuf,
    /// Keys, audit segments and everything else that outlives a reboot.
    pub state_dir: PathBuf,
    /// Sockets and trust bundles; emptied by a reboot.
    pub run_dir: PathBuf,
    /// The directory in a bpf file system under which programs and maps are pinned.
    pub bpffs: PathBuf,
    /// Name of Exeat's own cgroup directly under the cgroup2 mount.
    pub cgroup: String,
    /// The unprivileged process.
    pub gate: GateConfig,
    /// Docker, where policy names containers by their labels.
    pub docker: Docker,
    /// Where the gate listens for redirected traffic.
    pub listeners: Listeners,
    /// Name resolution on behalf of workloads.
    pub dns: Dns,
    /// Trust towards upstream servers and clients.
    pub tls: Tls,
    /// Whose tokens are verified.
    pub issuers: Vec<Issuer>,
    /// How calls that wait for a person reach one; absent: `exeat approvals` alone.
    pub approvals: Option<Approvals>,
    /// A proxy that every upstream connection has to pass, where the site has one.
    pub upstream_proxy: Option<UpstreamProxy>,
    /// The audit log.
    pub audit: Audit,
    /// Bounds on what one peer may occupy.
    pub limits: Limits,
    /// How long live exchanges may take to end after SIGTERM before they are cut.
    pub shutdown: Duration,
}

/// The unprivileged process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateConfig {
    /// The account it runs under: a name, or a uid in digits. Never root.
    pub user: String,
}

/// Docker, where policy names containers by their labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Docker {
    /// Where its daemon keeps everything; absent: where Docker's own configuration says.
    pub data_root: Option<PathBuf>,
}

/// Ports on the loopback interface, IPv4 and IPv6 alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listeners {
    /// TCP port of the intercepting proxy; 0 lets the kernel choose one.
    pub proxy_port: u16,
    /// UDP port of the resolver; 0 lets the kernel choose one.
    pub dns_port: u16,
}

/// Name resolution on behalf of workloads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// Who answers what policy lets through.
    pub upstream: DnsUpstream,
}

/// Who answers names that policy lets through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DnsUpstream {
    /// The `nameserver` lines of a file in the form of resolv.conf(5).
    ResolvConf(PathBuf),
    /// These servers, asked in this order.
    Servers(Vec<SocketAddr>),
}

/// Trust towards upstream servers, for which the system's roots always count, and towards clients, for which nothing else
/// does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM files with further root certificates.
    pub extra_roots: Vec<PathBuf>,
    /// Certificates that the gate shows to servers which ask for one.
    pub client_certificates: Vec<ClientCertificate>,
    /// Whose client certificates identify callers of registered servers.
    pub client_authorities: Vec<ClientAuthority>,
}

/// Who vouches for clients of registered servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientAuthority {
    /// As policy names it.
    pub name: String,
    /// PEM file with its root certificates.
    pub roots: PathBuf,
}

/// A certificate for one upstream host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificate {
    /// The host as policy writes it.
    pub host: String,
    /// PEM file with the chain, leaf first.
    pub cert: PathBuf,
    /// PEM file with the private key; read by the supervisor alone.
    pub key: PathBuf,
}

/// A proxy between this host and the rest of the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamProxy {
    /// `http://host:port`, spoken to with CONNECT.
    pub url: String,
    /// For Basic authentication, where it is asked for.
    pub username: Option<String>,
    /// File with the password on its first line; read by the supervisor alone.
    pub password_file: Option<PathBuf>,
}

/// The audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Longest time between a record and its fdatasync; zero syncs each record.
    pub sync: Duration,
    /// A segment is closed once it holds this many bytes.
    pub segment_bytes: u64,
}

/// Bounds on what one peer may occupy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Largest body, decoded, that is held for inspection, in bytes.
    pub body_bytes: u64,
    /// What is held in memory of one workload's bodies at a time, and of what they were decoded to, in bytes.
    pub held_bytes: u64,
    /// Largest header section of one request or response, in bytes.
    pub header_bytes: u32,
    /// Time for a peer to finish its TLS hello or request head.
    pub header_deadline: Duration,
    /// Time for an upstream connection to come about, look-up and handshake included.
    pub connect_deadline: Duration,
    /// Time without a byte either way after which a connection is closed.
    pub idle_deadline: Duration,
    /// Time for an upstream to begin its answer. A tool may take long.
    pub answer_deadline: Duration,
    /// Time for a server with `launch.fetch` to fetch before it writes its first message.
    pub fetch_deadline: Duration,
    /// Connections that one workload may hold through the gate.
    pub connections_per_workload: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            policy: "/etc/exeat/policy.d".into(),
            state_dir: "/var/lib/exeat".into(),
            run_dir: "/run/exeat".into(),
            bpffs: "/sys/fs/bpf/exeat".into(),
            cgroup: "exeat".into(),
            gate: GateConfig {
                user: "exeat".into(),
            },
            docker: Docker::default(),
            listeners: Listeners {
                proxy_port: 0,
                dns_port: 0,
            },
            dns: Dns {
                upstream: DnsUpstream::ResolvConf("/etc/resolv.conf".into()),
            },
            tls: Tls::default(),
            issuers: Vec::new(),
            approvals: None,
            upstream_proxy: None,
            audit: Audit {
                sync: Duration::from_millis(20),
                segment_bytes: 64 << 20,
            },
            limits: Limits {
                body_bytes: 4 << 20,
                held_bytes: 128 << 20,
                header_bytes: 64 << 10,
                header_deadline: Duration::from_secs(10),
                connect_deadline: Duration::from_secs(10),
                idle_deadline: Duration::from_mins(10),
                answer_deadline: Duration::from_mins(10),
                fetch_deadline: Duration::from_mins(5),
                connections_per_workload: 256,
            },
            shutdown: Duration::from_secs(10),
        }
    }
}
