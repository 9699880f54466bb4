//! What the two processes say to each other.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::approval::Approval;
use super::artefact::{Artefact, ArtefactRest};
use crate::config::Config;
use crate::control::Handover;
use crate::telemetry::clock::{Monotonic, Timestamp};

/// A direction of the channel, with what its receiver is ready to take.
pub trait Message: Serialize + for<'de> Deserialize<'de> {
    /// Whether a message may bring descriptors, and a body too large for one packet.
    const TRUSTED: bool;

    /// Whether it brings a secret, of which its way here leaves no copy.
    fn is_secret(&self) -> bool {
        false
    }
}

/// From the supervisor to the gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToGate {
    /// Always the first message; its descriptors stand in the order of `Setup::descriptors`.
    Setup(Box<Setup>),
    /// A policy that is being compiled, here and there; in the place of one that was not put in force.
    Prepare {
        /// Counts from 1 in the daemon's life.
        generation: u64,
        /// The files in merge order.
        sources: Vec<Source>,
    },
    /// The policy of this number compiled in the supervisor and is to be put in force; to be answered with `Reloaded`.
    Policy {
        /// The one of the last `Prepare`.
        generation: u64,
    },
    /// The client authorities changed: their names, and their certificates as PEM.
    ClientAuthorities(Vec<(String, String)>),
    /// A workload came into being; its processes have not run an instruction yet, unless it was
    /// running when the daemon started.
    Workload(Box<Workload>),
    /// The last process of a workload is gone, and so are its entries in the kernel.
    WorkloadGone {
        /// The number; never used again.
        number: u32,
    },
    /// A process of a workload started, or replaced its program.
    Process(Box<Process>),
    /// A process of a workload ended.
    ProcessGone {
        /// Its id in the initial namespace.
        pid: u32,
    },
    /// Answers `Catch`: every process that was made, replaced its program or ended before this moment was told of.
    Caught {
        /// On the clock of the kernel's events.
        until: Monotonic,
    },
    /// Is everything said so far about a workload in force? To be answered with `Settled`.
    Settle {
        /// The workload's number.
        number: u32,
    },
    /// Answers `Sign`.
    Certificate {
        /// The number that `Sign` gave.
        request: u64,
        /// The chain, leaf first, each in DER; or why there is none.
        chain: Result<Vec<Hex>, String>,
    },
    /// A command from the control socket that the gate has to answer. The message brings one
    /// descriptor: the client's socket, on which the gate answers and which it then closes.
    Client(Box<Handover>),
    /// May this user start this server? To be recorded and answered with `RunVerdict`.
    MayRun {
        /// Repeated in the answer.
        request: u64,
        /// Who asks, as the kernel attests.
        uid: u32,
        /// The account's name, where it has one.
        user: Option<String>,
        /// The workload that asks, where the process is managed.
        workload: Option<u32>,
        /// The server's name in the register.
        server: String,
        /// What is to follow the register's arguments.
        extra_args: Vec<String>,
    },
    /// A stdio server is about to be started: its session. The message brings six descriptors, in the order of
    /// [`Session`]. To be answered with `Settled`, before which the server does not run.
    Session(Box<Session>),
    /// A stdio server is not started. The message brings two descriptors, what the caller's standard input is read
    /// from and its output written to: who asks there is told so.
    NotStarted {
        /// Who wanted it.
        uid: u32,
        /// Why it is not.
        why: NotStarted,
    },
    /// Something that the supervisor did or saw, for the audit log.
    Record(Box<Lifecycle>),
    /// A host started an MCP server without Exeat; to be recorded.
    Unregistered(Box<Unregistered>),
    /// A server is disconnected: nothing new begins with it, and what is under way ends at once or, with
    /// `drain_ms`, when its calls are answered or that time is over. To be recorded and answered with `Severed`.
    Disconnect {
        /// Which, by whom and why.
        disconnection: Box<Disconnection>,
        /// Milliseconds that calls in flight may take.
        drain_ms: Option<u64>,
    },
    /// Takes that back; to be recorded.
    Reconnect {
        /// Which server, by whom and why it is connected again.
        reconnection: Box<Disconnection>,
    },
    /// What came of reading the source of a credential, as the policy told last defines it.
    Credential {
        /// Its name.
        name: String,
        /// The secret, or why there is none.
        secret: Result<Secret, String>,
    },
    /// Answers `Approvals`.
    ApprovalsKept {
        /// The number that `Approvals` gave.
        request: u64,
        /// Why they are not on the disk, if they are not.
        fault: Option<String>,
    },
    /// Drain, then exit; the second one answers `Drained`.
    Stop {
        /// How long live exchanges may go on.
        deadline_ms: u64,
    },
}

/// From the gate to the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ToSupervisor {
    /// The gate serves.
    Ready,
    /// Asks for a server certificate for a key that the gate made.
    Sign {
        /// Repeated in the answer.
        request: u64,
        /// Host names or IP literals, the first the subject.
        names: Vec<String>,
        /// `SubjectPublicKeyInfo` in DER (RFC 5280, 4.1.2.7).
        key: Hex,
    },
    /// Somebody waits to hear of the processes of until now; one at a time, to be answered with `Caught`.
    Catch,
    /// Answers `Policy`.
    Reloaded {
        /// The one that is in force now.
        generation: u64,
        /// Why the offered one is not, if it is not.
        faults: Vec<String>,
    },
    /// Answers `MayRun`.
    RunVerdict {
        /// The number that `MayRun` gave.
        request: u64,
        /// What was decided.
        verdict: RunVerdict,
    },
    /// Answers `Disconnect`, once no call of the server is in flight any more.
    Severed {
        /// The server's name.
        server: String,
    },
    /// Answers `Settle` and `Session`.
    Settled {
        /// The workload's number.
        number: u32,
        /// Why its session cannot be served, if it cannot.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fault: Option<String>,
    },
    /// Nothing more is served of a stdio session: its server is to end.
    SessionOver {
        /// The number of the server's workload.
        number: u32,
    },
    /// What a server that `exeat run` started fetched before it spoke, in pieces.
    Fetched {
        /// The number of its workload.
        number: u32,
        /// As many as a message holds ([`Artefact::pieces`]).
        artefacts: Vec<Artefact>,
        /// Whether this is the last piece.
        last: bool,
        /// With the last one: what there was beyond all of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rest: Option<ArtefactRest>,
    },
    /// The calls that wait for a person, to be kept in the place of those before; to be answered with
    /// `ApprovalsKept`.
    Approvals {
        /// Repeated in the answer.
        request: u64,
        /// At most [`super::MOST_APPROVALS`].
        waiting: Vec<Approval>,
    },
    /// Sent every second while the gate's executor turns.
    Health(Health),
    /// Nothing is under way any more, and everything is told; to be answered with a second `Stop`, before which what
    /// the supervisor has to say of it is recorded.
    Drained,
    /// Everything is drained and recorded; the process ends next.
    Stopped,
}

impl Message for ToGate {
    const TRUSTED: bool = true;

    fn is_secret(&self) -> bool {
        matches!(self, Self::Credential { .. })
    }
}

impl Message for ToSupervisor {
    const TRUSTED: bool = false;
}

/// Everything that the gate needs before it can serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// What each descriptor of this message is, in order.
    pub descriptors: Vec<Role>,
    /// The configuration as read; paths in it need not be readable to the gate.
    pub config: Config,
    /// Number of the policy that follows.
    pub generation: u64,
    /// The policy's files in merge order.
    pub sources: Vec<Source>,
    /// Certificate of Exeat's CA, PEM.
    pub ca_certificate: String,
    /// Contents of `tls.extra_roots`, PEM, in order.
    pub extra_roots: Vec<String>,
    /// Contents of `tls.client_certificates`, in order.
    pub client_identities: Vec<ClientIdentity>,
    /// Names and contents of `tls.client_authorities`, PEM, in order.
    pub client_authorities: Vec<(String, String)>,
    /// Contents of the key sets of `issuers`, in order; none of an issuer whose keys are fetched.
    pub key_sets: Vec<Option<String>>,
    /// For `upstream_proxy`, where it wants a password.
    pub proxy_credentials: Option<ProxyCredentials>,
    /// For `approvals`, where the configuration has it.
    pub approving: Option<Approving>,
    /// The workloads alive now.
    pub workloads: Vec<Workload>,
    /// Their processes.
    pub processes: Vec<Process>,
    /// The servers that are disconnected.
    pub disconnected: Vec<Disconnection>,
    /// The calls that waited for a person when the gate before this one ended.
    pub approvals: Vec<Approval>,
    /// TCP port of the proxy on both loopback addresses.
    pub proxy_port: u16,
    /// UDP port of the resolver on both loopback addresses.
    pub dns_port: u16,
}

/// What a descriptor is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A kernel map or ring, by its name in `exeat_ebpf::GateMap`.
    Map(String),
    /// Listening TCP socket on 127.0.0.1.
    ProxyV4,
    /// Listening TCP socket on `::1`, same port.
    ProxyV6,
    /// UDP socket on 127.0.0.1.
    DnsV4,
    /// UDP socket on `::1`, same port.
    DnsV6,
    /// Listening TCP socket of `approvals.listen`.
    Approvals,
    /// The directory of audit segments, opened with `O_DIRECTORY`; owned by the gate's user.
    AuditDirectory,
    /// The directory of what limits counted, likewise.
    LimitsDirectory,
}

/// One policy file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// As shown in faults.
    pub name: String,
    /// The file's whole text.
    pub text: String,
}

/// A certificate and its key, for one upstream host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientIdentity {
    /// The host as policy writes it.
    pub host: String,
    /// Chain, PEM, leaf first.
    pub certificate: String,
    /// Private key, PEM.
    pub key: Secret,
}

/// What links in messages to approvers are made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approving {
    /// The key that signs them, of 32 bytes.
    pub key: Hex,
    /// For each of `approvals.webhooks`, in order: the URL, and the approver's uid.
    pub webhooks: Vec<(Secret, u32)>,
}

/// What the upstream proxy wants to see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyCredentials {
    /// Basic user name.
    pub username: String,
    /// Basic password.
    pub password: Secret,
}

/// Numbers from here on are the gate's own, for what is in no workload; the supervisor gives out smaller ones.
pub const FIRST_USER: u32 = 1 << 31;

/// Which half of the register a workload is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An MCP server.
    Server,
    /// An MCP host: an agent, IDE or desktop application.
    Host,
    /// The MCP servers that the host of the workload's name started without Exeat.
    Unregistered,
}

/// The processes of one managed cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Never used again in the daemon's life; never 0.
    pub number: u32,
    /// Name in the register.
    pub name: String,
    /// Server or host.
    pub kind: Kind,
    /// Absolute path of the cgroup's directory.
    pub cgroup: PathBuf,
    /// The kernel's id of the cgroup.
    pub cgroup_id: u64,
    /// The first process, where one is known.
    pub pid: Option<u32>,
    /// The account it runs under.
    pub uid: u32,
    /// Its executable.
    pub exe: PathBuf,
    /// Its arguments, the program's name included.
    pub args: Vec<String>,
    /// Who asked for it (`exeat run`), if anyone did.
    pub started_by: Option<u32>,
    /// What stands in the process's environment in the place of secrets.
    pub placeholders: Vec<Placeholder>,
}

/// A value that a process holds in the place of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placeholder {
    /// Name of the secret.
    pub secret: String,
    /// What the process sees; random, worth nothing anywhere else.
    pub value: String,
}

/// A process of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Its workload.
    pub workload: u32,
    /// Its id in the initial namespace.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// When it started, in clock ticks after boot (`/proc/PID/stat`, field 22).
    pub started: u64,
    /// Real uid.
    pub uid: u32,
    /// Executable as the kernel names it.
    pub exe: String,
    /// Arguments, the program's name included; cut at 64 KiB.
    pub args: Vec<String>,
    /// Of the executable, in hex, where it could be read.
    pub sha256: Option<String>,
}

/// A stdio session, as the supervisor attests it.
///
/// Its descriptors: what the caller's standard input, output and error are read from and written to, then the
/// gate's ends of the server's standard input, output and error. Each is an end of a Unix socket pair, which the
/// gate alone holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// The server's workload, which the gate was told of before.
    pub number: u32,
    /// Who asked for it.
    pub uid: u32,
    /// The account's name, where it has one.
    pub user: Option<String>,
    /// The workload that asked, where the process is managed.
    pub workload: Option<u32>,
    /// The process that called `exeat run`.
    pub host: Option<HostProcess>,
    /// Why it, or the hash of its executable, is not known.
    pub host_unknown: Option<String>,
    /// What follows the register's arguments.
    pub extra_args: Vec<String>,
}

/// The process that called `exeat run`, as it was found at that time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostProcess {
    /// Its id in the initial namespace.
    pub pid: u32,
    /// When it started, in clock ticks after boot.
    pub started: u64,
    /// Its executable as the kernel names it.
    pub exe: String,
    /// Of the executable, in hex, where it could be read.
    pub sha256: Option<String>,
    /// Those that it comes from, nearest first: id and executable.
    pub ancestors: Vec<(u32, String)>,
}

/// Whether a user may start a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RunVerdict {
    /// Start it.
    Permitted,
    /// Do not.
    Refused {
        /// In short.
        why: NotStarted,
        /// What the caller is told.
        reason: String,
    },
}

/// Why a server is not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotStarted {
    /// Policy does not let this user start it, or not with these arguments.
    Denied,
    /// An administrator has disconnected it.
    Disconnected,
    /// It is not in the register, or not to be started.
    Unregistered,
    /// Nothing can be recorded.
    Unrecorded,
    /// It could not be started.
    Failed,
}

/// Signs of life.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Connections open now.
    pub connections: u64,
    /// Policy in force.
    pub generation: u64,
}

/// An administrator's word on a server's connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disconnection {
    /// The server's name in the register.
    pub server: String,
    /// When.
    pub since: Timestamp,
    /// The administrator's uid, as the kernel attests.
    pub uid: u32,
    /// The account's name; its number where it has none.
    pub user: String,
    /// Why, in the administrator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Something that the supervisor did or saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lifecycle {
    /// True if somebody should look at it (a `finding`), false for the course of things.
    pub finding: bool,
    /// What happened, in snake case: `daemon_started`, `policy_refused`, `gate_restarted`, ...
    pub event: String,
    /// The workload that it is about, if it is about one.
    pub workload: Option<u32>,
    /// One sentence each.
    pub details: Vec<String>,
}

/// An MCP server that a host started without Exeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unregistered {
    /// The host's workload.
    pub host: u32,
    /// The server's process.
    pub process: Process,
    /// By what it is known for a server; a part of a sentence.
    pub why: String,
    /// What became of it.
    pub done: Done,
}

/// What became of an unregistered server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    /// It reaches what its host may.
    Left,
    /// It reaches nothing.
    Isolated,
    /// It was ended.
    Stopped,
}

/// Bytes that travel as hex digits.
#[derive(Clone, PartialEq, Eq)]
pub struct Hex(pub Vec<u8>);

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&encode_hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        decode_hex(&text)
            .map(Hex)
            .ok_or_else(|| serde::de::Error::custom("not hex digits"))
    }
}

/// Lower-case hex of `bytes`.
pub fn encode_hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a string cannot fail.
            write!(text, "{byte:02x}").unwrap_or_default();
            text
        })
}

/// The bytes that hex digits of either case stand for.
pub fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let digit = |c: u8| {
        char::from(c)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect()
}

/// Text that must not be shown, and is overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes `text` into custody.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}
