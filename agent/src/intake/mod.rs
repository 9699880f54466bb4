//! Intake: whose connection was accepted, and what it was meant for, as the kernel says.

use std::fs;
use std::net::IpAddr;
use std::sync::Arc;

use exeat_ebpf::{Gate as Kernel, KernelError, Origin};
use exeat_policy::Caller;
use thiserror::Error;
use tokio::net::TcpStream;

use crate::audit::record::{
    Cause, Certificate, Identity, Workload as RecordedWorkload, WorkloadKind,
};
use crate::audit::{Shared, Text};
use crate::decide::InForce;
use crate::identify::account::Whose;
use crate::identify::calls::{Calls, Causing};
use crate::identify::certificate::Shown;
use crate::identify::live::{Live, Registered};
use crate::identify::token::Verified;
use crate::identify::told::Told;
use crate::identify::users::Users;
use crate::identify::workloads::{Known, Workloads};
use crate::telemetry::clock::Monotonic;

/// Bytes of an unmanaged client's arguments that records show.
const ARGUMENTS: usize = 4096;

/// What intake asks.
#[derive(Debug)]
pub struct Intake {
    /// The kernel's maps.
    pub kernel: Arc<Kernel>,
    /// Who is managed.
    pub workloads: Arc<Workloads>,
    /// How far that reaches.
    pub told: Told,
    /// Names of Unix users.
    pub users: Arc<Users>,
    /// Open connections.
    pub live: Arc<Live>,
    /// Connections that one workload may hold.
    pub most: usize,
}

/// As whom policy judges an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acts {
    /// As its workload.
    Workload,
    /// As its user alone: a process that nobody manages, which started a stdio server.
    User,
}

/// An actor that the kernel attests: a process of a managed workload, or of a user.
#[derive(Debug, Clone)]
pub struct Actor {
    /// As whom it is judged.
    pub acts: Acts,
    /// Its workload; of a process that nobody manages, the workload that it started, or what stands for its user's
    /// processes.
    pub known: Arc<Known>,
    /// The process's user, by number.
    pub uid: u32,
    /// Its user's name, where there is one.
    pub user: Option<Arc<str>>,
    /// For records: the process.
    pub process: Shared<RecordedWorkload>,
    /// For records: the user, and whom token and certificate are about.
    pub identity: Shared<Identity>,
    /// The verified token of the request.
    pub token: Option<Arc<Verified>>,
    /// The verified client certificate of the connection.
    pub certificate: Option<Shown>,
    /// The generation of the policy by which `identity` says who that is; none where nothing is shown.
    pub shown_by: Option<u64>,
}

/// A connection that may be looked at.
#[derive(Debug)]
pub struct Arrived {
    /// Who made it.
    pub actor: Actor,
    /// Where the process meant to go.
    pub address: IpAddr,
    /// Which port.
    pub port: u16,
    /// Its place in the table of open connections.
    pub registered: Registered,
}

/// A connection that is not looked at.
#[derive(Debug, Error)]
pub enum Stranger {
    /// The kernel knows nothing of it: somebody dialled the gate itself.
    #[error("a connection that was not redirected")]
    NotRedirected,
    /// Its workload is not known (any more).
    #[error("a connection of unknown workload {0}")]
    UnknownWorkload(u32),
    /// The workload has as many connections as it may.
    #[error("workload {workload} has {most} connections already")]
    TooMany {
        /// Its number.
        workload: u32,
        /// The bound.
        most: usize,
    },
    /// More users than are told apart.
    #[error("a connection of one user more than are told apart")]
    TooManyUsers,
    /// The kernel could not be asked.
    #[error("asking the kernel for the destination")]
    Kernel(#[source] KernelError),
}

impl Intake {
    /// Finds out whose `stream` is.
    ///
    /// # Errors
    /// A [`Stranger`], to be closed without an answer.
    pub async fn arrive(&self, stream: &TcpStream) -> Result<Arrived, Stranger> {
        let origin = self
            .kernel
            .origin(stream)
            .map_err(Stranger::Kernel)?
            .ok_or(Stranger::NotRedirected)?;
        let Origin { address, port, .. } = origin;
        let register = |workload| {
            let registered = self.live.register(workload, port, self.most);
            registered.ok_or(Stranger::TooMany {
                workload,
                most: self.most,
            })
        };
        let (actor, registered) = if origin.workload == 0 {
            let actor = self.user(&origin).await.ok_or(Stranger::TooManyUsers)?;
            let registered = register(actor.number())?;
            (actor, registered)
        } else {
            let unknown = || Stranger::UnknownWorkload(origin.workload);
            self.workloads.get(origin.workload).ok_or_else(unknown)?;
            // It counts while it waits to be known.
            let registered = register(origin.workload)?;
            let moment = Monotonic::from_nanoseconds(origin.at_ns);
            let actor = self
                .actor(origin.workload, origin.tgid, origin.uid, moment)
                .await
                .ok_or_else(unknown)?;
            (actor, registered)
        };
        let address = address.ip();
        Ok(Arrived {
            actor,
            address,
            port,
            registered,
        })
    }

    /// A process in no workload, as its user's.
    async fn user(&self, origin: &Origin) -> Option<Actor> {
        let Origin {
            tgid, uid, cgroup, ..
        } = *origin;
        let user = self.users.name(uid).await;
        let known = self.workloads.user(uid, user.as_deref())?;
        let identity = Identity {
            verified_by: Text::fixed("kernel"),
            user: user.as_deref().map(Text::new),
            uid: Some(uid),
            ..Identity::default()
        };
        Some(Actor {
            acts: Acts::User,
            known,
            uid,
            user,
            process: client(tgid, uid, cgroup).into(),
            identity: identity.into(),
            token: None,
            certificate: None,
            shown_by: None,
        })
    }

    /// The process `pid` with `uid` in the workload of this number, as what it executed by this moment.
    pub async fn actor(
        &self,
        workload: u32,
        pid: u32,
        uid: u32,
        moment: Monotonic,
    ) -> Option<Actor> {
        let known = self.workloads.get(workload)?;
        let user = self.users.name(uid).await;
        self.told.reach(moment).await;
        let process = self.workloads.recorded(&known, pid);
        let identity = Identity {
            name: Text::new(&known.workload.name),
            verified_by: Text::fixed("kernel"),
            user: user.as_deref().map(Text::new),
            uid: Some(uid),
            ..Identity::default()
        };
        Some(Actor {
            acts: Acts::Workload,
            known,
            uid,
            user,
            process,
            identity: identity.into(),
            token: None,
            certificate: None,
            shown_by: None,
        })
    }
}

impl Actor {
    /// The form that policy judges.
    pub fn caller(&self) -> Caller<'_> {
        let workload = match self.acts {
            Acts::Workload => self.known.judged(),
            Acts::User => None,
        };
        Caller {
            workload,
            user: self.user.as_deref(),
            fetching: workload.is_some() && self.known.fetching.is_open(),
            token: self.token.as_deref().map(Verified::judged),
            certificate: self
                .certificate
                .as_ref()
                .map(|shown| shown.verified().judged()),
            known_as: &[],
        }
    }

    /// Whose is what is remembered of its conversations.
    pub fn whose(&self) -> Whose {
        Whose::new(&self.caller(), self.uid)
    }

    /// The same with the token of one request and the certificate of its connection. Their identities add to what the
    /// kernel attests; records name the first of them.
    #[must_use]
    pub fn showing(
        &self,
        token: Option<Arc<Verified>>,
        certificate: Option<Shown>,
        in_force: &InForce,
    ) -> Self {
        let policy = &in_force.set;
        let actor = Self {
            token,
            certificate,
            shown_by: Some(in_force.generation),
            ..self.clone()
        };
        let caller = actor.caller();
        let names = policy.identities_shown(&caller);
        let roles = policy
            .roles()
            .iter()
            .filter(|role| role.members.iter().any(|member| names.contains(&member)));
        let (means, issuer, subject) = match (&caller.token, &caller.certificate) {
            (Some(token), _) => ("jwt", Some(token.issuer), Some(token.subject)),
            (None, Some(shown)) => ("certificate", Some(shown.authority), Some(shown.subject)),
            (None, None) => ("kernel", None, None),
        };
        let certificate = actor.certificate.as_ref().map(|shown| {
            let judged = shown.verified().judged();
            Certificate {
                authority: Text::new(judged.authority),
                subject: Text::new(judged.subject),
                sha256: Text::new(shown.verified().sha256()),
            }
        });
        let claimed = actor.token.as_deref().map(|token| token.recorded(policy));
        let (claims, claims_read) = claimed.unwrap_or_default();
        let identity = Identity {
            claims,
            claims_read,
            name: names
                .first()
                .map(|name| Text::new(name))
                .unwrap_or_default(),
            verified_by: Text::fixed(means),
            issuer: issuer.map(Text::new),
            subject: subject.map(Text::new),
            certificate,
            identities: names.iter().map(|name| Text::new(name)).collect(),
            roles: roles.map(|role| Text::new(&role.name)).collect(),
            ..(*self.identity).clone()
        };
        Self {
            identity: identity.into(),
            ..actor
        }
    }

    /// For records of what `in_force` decides: who asks, as that has it. The token and the certificate were shown once, and
    /// another policy may have come into force since.
    pub fn identity_by(&self, in_force: &InForce) -> Option<Shared<Identity>> {
        let shown = self.shown_by.filter(|by| *by != in_force.generation);
        shown.map(|_other| {
            let (token, certificate) = (self.token.clone(), self.certificate.clone());
            self.showing(token, certificate, in_force).identity
        })
    }

    /// The request of which what it does now is a part, where it is a server's process.
    pub fn cause(&self, calls: &Calls) -> Option<Cause> {
        let server = match self.acts {
            Acts::Workload => self.known.server()?,
            Acts::User => return None,
        };
        calls.cause(server, self.number())
    }

    /// The same with what is asked for, where it is a server's process.
    pub fn causing(&self, calls: &Calls) -> Causing {
        match (self.acts, self.known.server()) {
            (Acts::Workload, Some(server)) => calls.causing(server, self.number()),
            _ => Causing::default(),
        }
    }

    /// The workload's number.
    pub fn number(&self) -> u32 {
        self.known.workload.number
    }
}

/// What an unprivileged look tells of a process that may be gone by now, or another's. The kernel attests its
/// number, user and cgroup; the rest is shown only while the process is that user's.
fn client(pid: u32, uid: u32, cgroup: u64) -> RecordedWorkload {
    let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let status = read("status");
    let own = String::from_utf8_lossy(&status).lines().find_map(|line| {
        line.strip_prefix("Uid:")?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    }) == Some(uid);
    let (name, arguments) = if own {
        (read("comm"), read("cmdline"))
    } else {
        (Vec::new(), Vec::new())
    };
    let arguments = arguments.get(..ARGUMENTS).unwrap_or(&arguments);
    RecordedWorkload {
        name: Text::from(String::from_utf8_lossy(&name).trim_end()),
        kind: WorkloadKind::Unmanaged,
        cgroup: Some(cgroup),
        pid: Some(pid),
        args: arguments
            .split(|byte| *byte == 0)
            .filter(|argument| !argument.is_empty())
            .map(|argument| Text::from(String::from_utf8_lossy(argument).as_ref()))
            .collect(),
        uid: Some(uid),
        ..RecordedWorkload::default()
    }
}
