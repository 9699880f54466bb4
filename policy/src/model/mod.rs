//! What a policy says, typed: the register of servers, hosts, identities, roles, rules and limits.

mod argument;
mod breaker;
mod credential;
mod egress;
mod identity;
mod label;
mod mask;
mod responses;
mod role;
mod rule;
mod url;

use std::fmt;
use std::sync::Arc;

pub(crate) use self::argument::Segment;
pub use self::argument::{
    ArgumentPlace, ArgumentTest, Bound, Pattern, PatternFault, Pointer, PointerFault, Scalar, Test,
    Type,
};
pub use self::breaker::Breaker;
pub use self::credential::{Credential, Placement, SecretOrigin};
pub use self::egress::{
    Cidr, CidrFault, EgressRule, HostRule, Kind, Protocol, RangeRule, Tls, Wire,
};
pub use self::identity::{CertificateTest, Claim, ClaimTest, NameKind, NameTest, Proof, TokenTest};
pub use self::label::Label;
pub use self::mask::Mask;
pub use self::responses::{Content, Responses};
pub use self::role::{Grant, Role};
pub use self::rule::{Cap, Class, ClassSet, Effect, Limit, Mode, Per, Rule, Selector, Written};
pub use self::url::{Endpoint, Url, UrlFault};
use crate::fault::Place;
use crate::glob::Glob;
use crate::name::Name;
use crate::time::{Date, Timestamp};

/// A registered MCP server.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its name, unique over all files.
    pub name: Arc<str>,
    /// What it is for.
    pub purpose: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// The most sensitive data that it sees.
    pub data: Option<Data>,
    /// The last day before its registration must be looked at again.
    pub review_by: Option<Date>,
    /// How it is reached.
    pub transport: Transport,
    /// Which foreign processes are it.
    pub matcher: Option<Matcher>,
    /// What its processes may reach; nothing else leaves.
    pub egress: Vec<EgressRule>,
    /// What is said of its tools, in the order written.
    pub tools: Vec<(Glob, Tool)>,
    /// What becomes of the `Authorization` header of requests to it.
    pub authorization: Authorization,
    /// What it may answer to tool calls, in the place of what the policy says of all servers.
    pub responses: Option<Responses>,
    /// Whether denials of calls are enforced.
    pub mode: Mode,
    /// Where it is defined.
    pub place: Place,
}

/// What the register says of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// Its capability class.
    pub class: Class,
    /// How it is told to do nothing; `None`: it cannot be told.
    pub dry_run: Option<Arc<DryRun>>,
    /// The credential of what its calls cause, in the place of the egress entry's.
    pub credential: Option<Arc<str>>,
}

/// The argument by which a tool is run dry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DryRun {
    /// Where it stands; never [wide](Pointer::is_wide).
    pub argument: Pointer,
    /// What is put there.
    pub value: Scalar,
}

impl Server {
    /// How to start it, for a stdio server.
    #[must_use]
    pub fn launch(&self) -> Option<&Launch> {
        match &self.transport {
            Transport::Launch(launch) => Some(launch),
            Transport::Url(_) | Transport::Listen(_) => None,
        }
    }

    /// The credentials that its egress entries, its tools and its `authorization` name.
    pub(crate) fn credentials(&self) -> impl Iterator<Item = &Arc<str>> {
        let tools = self.tools.iter();
        let of_tools = tools.filter_map(|(_, tool)| tool.credential.as_ref());
        let own = self.authorization.credential();
        sent(&self.egress).chain(of_tools).chain(own)
    }

    /// Whether its review is overdue.
    #[must_use]
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        self.review_by.is_some_and(|date| date.is_past(now))
    }
}

/// What becomes of the `Authorization` header of requests to a server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Authorization {
    /// The server gets it.
    #[default]
    Forward,
    /// The server does not get it, whatever it is.
    Strip,
    /// The server gets the credential of this name and not the header, whatever that is.
    Replace(Arc<str>),
}

impl Authorization {
    /// The credential that the server gets.
    #[must_use]
    pub const fn credential(&self) -> Option<&Arc<str>> {
        match self {
            Self::Replace(name) => Some(name),
            Self::Forward | Self::Strip => None,
        }
    }
}

/// How a server is reached.
#[derive(Debug, Clone)]
pub enum Transport {
    /// Started by `exeat run`, spoken to over its standard streams.
    Launch(Launch),
    /// A remote server, or one on loopback, at a URL.
    Url(Url),
    /// A local HTTP server that something else starts, listening here.
    Listen(Endpoint),
}

/// How a stdio server is started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program, looked up in the PATH unless it holds a slash.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// What may follow them, as whoever calls `exeat run` says: each argument is covered by one of these.
    pub extra_args: Vec<Glob>,
    /// The Unix user it runs as, never root; `None`: whoever calls `exeat run`.
    pub user: Option<String>,
    /// Where it begins.
    pub directory: Directory,
    /// Its environment.
    pub env: Vec<(String, EnvValue)>,
    /// Hosts that may be read from (HTTPS, port 443, GET and HEAD) until the server's first protocol message.
    pub fetch: Vec<Name>,
}

impl Launch {
    /// Where in `extra` (what follows `--` of `exeat run`) the first argument stands that no pattern covers.
    ///
    /// One that climbs (`..` between slashes) leads elsewhere than it says: `*` alone or the very same text covers it.
    #[must_use]
    pub fn uncovered(&self, extra: &[String]) -> Option<usize> {
        let covers = |argument: &str| {
            let climbs = argument.split('/').any(|segment| segment == "..");
            self.extra_args.iter().any(|pattern| {
                pattern.is_everything()
                    || pattern.literal() == Some(argument)
                    || !climbs && pattern.matches(argument)
            })
        };
        extra.iter().position(|argument| !covers(argument))
    }
}

/// The working directory that a server begins in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Directory {
    /// The home of its user.
    #[default]
    Home,
    /// The one that whoever calls `exeat run` is in.
    Caller,
    /// An absolute path.
    At(String),
}

/// The value of an environment variable.
#[derive(Clone, PartialEq, Eq)]
pub enum EnvValue {
    /// The value itself.
    Text(String),
    /// The name of a credential; the process gets a placeholder.
    Secret(String),
}

impl fmt::Debug for EnvValue {
    /// Shows which secret is meant, and of a plain value only its length: people paste tokens here.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Secret(name) => write!(f, "Secret({name})"),
        }
    }
}

/// How sensitive the data is that a server sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Data {
    /// Anyone may see it.
    Public,
    /// For the house.
    Internal,
    /// For some in the house.
    Confidential,
    /// Under law or contract.
    Regulated,
}

/// Which processes, started by others, belong to a server or a host. All parts given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Matcher {
    /// A systemd unit, with its suffix.
    pub unit: Option<String>,
    /// A cgroup, as a path below the cgroup2 mount, beginning with `/`.
    pub cgroup: Option<String>,
    /// Labels that a container must carry which others start with Docker, all of them, in order and each name once. Where
    /// there are any, no other part is given, and no process shows by itself that it is meant.
    pub container: Vec<Label>,
    /// The executable's absolute path.
    pub exe: Option<String>,
    /// Patterns over the first arguments after the program's name, in order; further arguments are free.
    pub args: Vec<Glob>,
    /// SHA-256 of the executable.
    pub sha256: Option<[u8; 32]>,
    /// Patterns over the Unix user's name; any of them.
    pub user: Vec<Glob>,
}

/// What is known about a process, to be matched.
#[derive(Debug, Clone, Copy, Default)]
pub struct Process<'a> {
    /// The systemd unit that it runs in.
    pub unit: Option<&'a str>,
    /// Its cgroup's path below the cgroup2 mount.
    pub cgroup: Option<&'a str>,
    /// The path of its executable, links resolved.
    pub exe: Option<&'a str>,
    /// Its arguments after the program's name.
    pub args: &'a [String],
    /// SHA-256 of its executable.
    pub sha256: Option<&'a [u8; 32]>,
    /// The name of its user.
    pub user: Option<&'a str>,
}

impl Matcher {
    /// Whether the process is meant. What is asked for and not known does not match; a matcher that
    /// asks for nothing matches nothing.
    #[must_use]
    pub fn matches(&self, process: &Process<'_>) -> bool {
        let same = |asked: &Option<String>, known: Option<&str>| {
            asked.as_deref().is_none_or(|asked| known == Some(asked))
        };
        let below = |asked: &str, known: &str| {
            known
                .strip_prefix(asked)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let arguments = self.args.len() <= process.args.len()
            && self
                .args
                .iter()
                .zip(process.args)
                .all(|(glob, arg)| glob.matches(arg));
        let user = self.user.is_empty()
            || process
                .user
                .is_some_and(|user| self.user.iter().any(|glob| glob.matches(user)));
        self.asks()
            && same(&self.unit, process.unit)
            && self
                .cgroup
                .as_deref()
                .is_none_or(|asked| process.cgroup.is_some_and(|known| below(asked, known)))
            && same(&self.exe, process.exe)
            && arguments
            && self
                .sha256
                .as_ref()
                .is_none_or(|asked| process.sha256 == Some(asked))
            && user
    }

    /// Whether anything is asked for.
    fn asks(&self) -> bool {
        self.unit.is_some() || self.cgroup.is_some() || self.exe.is_some() || !self.user.is_empty()
    }
}

/// An MCP client that runs here: an agent, an IDE, a desktop application.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its name, unique over all files.
    pub name: Arc<str>,
    /// Which processes are it; `None`: only those started as it.
    pub matcher: Option<Matcher>,
    /// The servers that it may reach.
    pub servers: Vec<Arc<str>>,
    /// What else its processes may reach.
    pub egress: Vec<EgressRule>,
    /// What becomes of MCP servers that it starts without Exeat.
    pub unregistered: Unregistered,
    /// Where it is defined.
    pub place: Place,
}

impl Host {
    /// The credentials that its egress entries name.
    pub(crate) fn credentials(&self) -> impl Iterator<Item = &Arc<str>> {
        sent(&self.egress)
    }
}

fn sent(egress: &[EgressRule]) -> impl Iterator<Item = &Arc<str>> {
    let rules = egress.iter().filter_map(EgressRule::host);
    rules.filter_map(|rule| rule.credential.as_ref())
}

/// What becomes of an MCP server that a host starts without Exeat.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unregistered {
    /// It is recorded, and reaches what the host may.
    Allow,
    /// It reaches nothing.
    #[default]
    Isolate,
    /// It is ended.
    Stop,
}

/// Who may call.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its name, unique over all files and apart from the hosts' names.
    pub name: Arc<str>,
    /// How a caller shows that it is this one.
    pub proof: Proof,
    /// Whose it is, where one person has several: who approves must be another than who calls.
    pub person: Option<Arc<str>>,
    /// Where it is defined.
    pub place: Place,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table is read line by line")]
    fn a_matcher_asks_for_all_its_parts() {
        let args = ["server.js".to_owned(), "--port".to_owned()];
        let process = Process {
            unit: Some("x.service"),
            cgroup: Some("/system.slice/x.service/child"),
            exe: Some("/usr/bin/node"),
            args: &args,
            sha256: Some(&[7; 32]),
            user: Some("dev1"),
        };
        let globs = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| Glob::parse(text).unwrap())
                .collect::<Vec<_>>()
        };
        let text = |text: &str| Some(text.to_owned());
        let exe = Matcher {
            exe: text("/usr/bin/node"),
            ..Matcher::default()
        };
        for (matcher, matches) in [
            (Matcher::default(), false),
            (
                Matcher {
                    unit: text("x.service"),
                    ..Matcher::default()
                },
                true,
            ),
            (
                Matcher {
                    unit: text("y.service"),
                    ..Matcher::default()
                },
                false,
            ),
            (
                Matcher {
                    cgroup: text("/system.slice/x.service"),
                    ..Matcher::default()
                },
                true,
            ),
            (
                Matcher {
                    cgroup: text("/system.slice/x"),
                    ..Matcher::default()
                },
                false,
            ),
            (exe.clone(), true),
            (
                Matcher {
                    args: globs(&["server.js"]),
                    ..exe.clone()
                },
                true,
            ),
            (
                Matcher {
                    args: globs(&["--port"]),
                    ..exe.clone()
                },
                false,
            ),
            (
                Matcher {
                    args: globs(&["*.js", "--port", "1"]),
                    ..exe.clone()
                },
                false,
            ),
            (
                Matcher {
                    sha256: Some([7; 32]),
                    ..exe.clone()
                },
                true,
            ),
            (
                Matcher {
                    sha256: Some([8; 32]),
                    ..exe.clone()
                },
                false,
            ),
            (
                Matcher {
                    user: globs(&["root", "dev*"]),
                    ..exe.clone()
                },
                true,
            ),
            (
                Matcher {
                    user: globs(&["root"]),
                    ..exe
                },
                false,
            ),
        ] {
            assert_eq!(matcher.matches(&process), matches, "{matcher:?}");
            let unknown = Process::default();
            assert!(!matcher.matches(&unknown), "{matcher:?}");
        }
    }
}
