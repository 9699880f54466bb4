//! `exeat run`: asked of the gate, prepared here, and left to a task ([`super::serving`]).

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use exeat_policy::{Container, Directory, EnvValue, Launch};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::accounts::{self, LocalUser};
use super::cgroups;
use super::clients::fail;
use super::containers::{Planned, Remover, apart, without_docker};
use super::core::Supervisor;
use super::lives::discard;
use super::serving::{Order, Over, serve};
use super::streams::Streams;
use super::workloads::{Live, Origin};
use crate::channel::{
    Kind, NotStarted, Placeholder, RunVerdict, Session, ToGate, Workload, encode_hex,
};
use crate::control::{Client, Code, Responder, Run};
use crate::launch::environment::{Base, environment};
use crate::launch::stage::{Start, chain};

/// Time for the gate to decide on a start.
const VERDICT_LIMIT: Duration = Duration::from_secs(10);
/// Starts that wait for the gate.
const MAX_ASKED: usize = 256;

/// A start that waits for the gate's verdict.
#[derive(Debug)]
pub(super) struct Asked {
    run: Run,
    client: Client,
    until: Instant,
}

/// A refusal to start, for the client, and for whoever speaks through it.
struct Refusal(NotStarted, Code, String);

impl Refusal {
    const fn failed(code: Code, text: String) -> Self {
        Self(NotStarted::Failed, code, text)
    }
}

impl Supervisor {
    /// Asks the gate, the only one who decides and records, whether a user may start a server.
    pub(super) async fn ask_run(&mut self, client: Client, run: Run) {
        if !self.gate.as_ref().is_some_and(|gate| gate.ready) {
            let text = "the gate is being started anew; try again";
            return fail(client.responder, Code::Unavailable, text).await;
        }
        if self.asked.len() >= MAX_ASKED {
            let text = "too many servers are being started; try again";
            return fail(client.responder, Code::Busy, text).await;
        }
        let request = self.next_request;
        self.next_request = request.wrapping_add(1);
        let message = ToGate::MayRun {
            request,
            uid: client.peer.uid,
            user: accounts::name_of(client.peer.uid),
            workload: client.peer.workload,
            server: run.server.clone(),
            extra_args: run.arguments.clone(),
        };
        self.asked.insert(
            request,
            Asked {
                run,
                client,
                until: Instant::now() + VERDICT_LIMIT,
            },
        );
        self.tell(message).await;
    }

    /// The gate's verdict. One that was not asked for means nothing.
    pub(super) async fn verdict(&mut self, request: u64, verdict: RunVerdict) {
        let Some(asked) = self.asked.remove(&request) else {
            return;
        };
        match verdict {
            RunVerdict::Permitted => self.start(asked).await,
            RunVerdict::Refused { why, reason } => {
                let reason = reason.chars().take(1024).collect::<String>();
                let code = match why {
                    NotStarted::Unregistered => Code::NotFound,
                    _ => Code::Refused,
                };
                let refusal = Refusal(why, code, reason);
                self.refuse(asked.client, &asked.run, refusal).await;
            }
        }
    }

    /// Tells a client that nothing is started. Who speaks through it may show nobody what it says: they are told by
    /// the gate, which alone reads what they ask.
    async fn refuse(&mut self, client: Client, run: &Run, refusal: Refusal) {
        let Refusal(why, code, text) = refusal;
        let mut responder = client.responder;
        // At a terminal sits a person, who reads the sentence.
        if run.terminal.is_none()
            && let Err(error) = self.turn_away(&mut responder, client.peer.uid, why).await
        {
            tracing::debug!(error, "a host is not told of a refused start");
        }
        fail(responder, code, text).await;
    }

    async fn turn_away(
        &mut self,
        client: &mut Responder,
        uid: u32,
        why: NotStarted,
    ) -> Result<(), String> {
        let Some(gate) = self.gate.as_ref().filter(|gate| gate.ready) else {
            return Err("the gate is being started anew".into());
        };
        let (streams, theirs) = Streams::make().map_err(|error| error.to_string())?;
        let handed = client.streams(&theirs.each_ref().map(AsFd::as_fd)).await;
        handed.map_err(|error| chain(&error))?;
        let [input, output, _errors] = streams.all();
        let ends = [input.as_fd(), output.as_fd()];
        let sent = gate.send(&ToGate::NotStarted { uid, why }, &ends).await;
        if let Err(error) = sent {
            self.gate_lost(&error).await;
        }
        Ok(())
    }

    /// Answers those whom the gate left without a verdict.
    pub(super) fn refuse_overdue(&mut self, now: Instant) {
        let overdue = self.asked.extract_if(|_, asked| asked.until < now);
        for (_, asked) in overdue.collect::<Vec<_>>() {
            self.tasks.spawn(fail(
                asked.client.responder,
                Code::Unavailable,
                "the gate did not decide in time",
            ));
        }
    }

    /// Nothing more is served of a session. One that is not there means nothing.
    pub(super) fn session_over(&mut self, number: u32) {
        if let Some(running) = self.running.remove(&number) {
            // Its server may have ended by itself.
            let _ended = running.send(Over::Session);
        }
    }

    /// Answers all who wait for the gate, because it is gone, and ends what it served.
    pub(super) async fn fail_asked(&mut self, why: &str) {
        self.settling.clear();
        for (number, running) in std::mem::take(&mut self.running) {
            if let Some(live) = self.workloads.get(number) {
                let name = live.record.name.clone();
                self.lost.push(LostSession { number, name });
            }
            let _ended = running.send(Over::Gate);
        }
        for (_, asked) in std::mem::take(&mut self.asked) {
            fail(asked.client.responder, Code::Unavailable, why).await;
        }
        for (_, client) in std::mem::take(&mut self.reloads) {
            fail(client, Code::Unavailable, why).await;
        }
    }

    /// Has the ends of sessions recorded that their gate could not record any more.
    pub(super) async fn say_lost(&mut self) {
        for LostSession { number, name } in std::mem::take(&mut self.lost) {
            let detail = format!("`{name}`, workload {number}: its gate ended");
            self.record("session_lost", Some(number), vec![detail])
                .await;
        }
    }

    async fn start(&mut self, asked: Asked) {
        let Asked { run, client, .. } = asked;
        let (live, start, after) = match self.prepare(&run, client.peer.uid) {
            Ok(prepared) => prepared,
            Err(refusal) => {
                // It was permitted, as the log says.
                let detail = format!("`{}`: {}", run.server, refusal.2);
                self.record("run_failed", None, vec![detail]).await;
                return self.refuse(client, &run, refusal).await;
            }
        };
        let Client {
            peer, responder, ..
        } = client;
        let number = live.record.number;
        // The gate knows the workload, and the kernel holds its cgroup, before the process exists.
        self.tell(ToGate::Workload(Box::new(live.record.clone())))
            .await;
        self.workloads.add(live);
        let (end, over) = oneshot::channel();
        self.running.insert(number, end);
        let order = Order {
            session: Session {
                number,
                uid: peer.uid,
                user: accounts::name_of(peer.uid),
                workload: peer.workload,
                host: None,
                host_unknown: None,
                extra_args: run.arguments,
            },
            caller: peer.pid,
            program: self.parts.plan.stage.clone(),
            start,
            after,
            happenings: self.happenings.clone(),
            hashes: Arc::clone(&self.hashes),
            hashing: Arc::clone(&self.hashing),
            stop: self.stop.clone(),
            stopping: self.stopping.clone(),
            over,
        };
        self.tasks.spawn(serve(order, responder));
    }

    fn prepare(&mut self, run: &Run, uid: u32) -> Result<(Live, Start, Option<Remover>), Refusal> {
        let not_found = || {
            let text = format!("no server `{}`", run.server);
            Refusal(NotStarted::Unregistered, Code::NotFound, text)
        };
        let server = self.parts.policy.set.server(&run.server);
        let launch = server.and_then(|server| server.launch());
        let launch = launch.ok_or_else(not_found)?.clone();
        // Policy was asked a moment ago.
        if self.disconnections.has(&run.server) {
            let text = format!("`{}` was disconnected by an administrator", run.server);
            return Err(Refusal(NotStarted::Disconnected, Code::Refused, text));
        }
        if launch.uncovered(&run.arguments).is_some() {
            let text = "the policy has changed: its `extra_args` do not cover what follows `--`";
            return Err(Refusal(NotStarted::Denied, Code::Refused, text.into()));
        }
        let invalid = |text: String| Refusal::failed(Code::Invalid, text);
        let user = launch.user.clone().unwrap_or_else(|| uid.to_string());
        let mut user = accounts::find(&user).map_err(|e| invalid(chain(&e)))?;
        let internal = |text: String| Refusal::failed(Code::Internal, text);
        let set = &self.parts.policy.set;
        let is_docker = Container::is_started_by(&launch.command);
        apart(user.account.uid, is_docker, set, self.workloads.iter()).map_err(invalid)?;
        let planned = if is_docker {
            let deadline = self.parts.config.limits.fetch_deadline;
            Some(Planned::new(&run.server, deadline).map_err(internal)?)
        } else {
            user.account = without_docker(user.account, set).map_err(invalid)?;
            None
        };
        let directory = begins(&launch, &user, run).map_err(invalid)?;
        let busy = || Refusal::failed(Code::Busy, "there are too many workloads".into());
        let number = self.workloads.number().ok_or_else(busy)?;
        let placeholders = placeholders(&launch).map_err(invalid)?;
        let (cgroup, cgroup_id) = self.cgroup(&run.server, number).map_err(internal)?;
        let place = (&*cgroup, directory);
        let start = self.start_order(run, &launch, &user, &placeholders, place, planned.as_ref());
        let after = planned.map(|planned| planned.remover(&start));
        let mut args = vec![launch.command.clone()];
        args.extend(launch.args.iter().chain(&run.arguments).cloned());
        let record = Workload {
            number,
            name: run.server.clone(),
            kind: Kind::Server,
            cgroup,
            cgroup_id,
            pid: None,
            uid: user.account.uid,
            exe: launch.command.into(),
            args,
            started_by: Some(uid),
            placeholders,
        };
        Ok((
            Live {
                record,
                origin: Origin::Run,
            },
            start,
            after,
        ))
    }

    /// A new cgroup whose processes are this workload; its id.
    fn cgroup(&mut self, server: &str, number: u32) -> Result<(PathBuf, u64), String> {
        let tree = &self.parts.tree;
        let cgroup = tree.add(&file_name(server), number);
        let cgroup = cgroup.map_err(|e| chain(&e))?;
        let managed = cgroups::id(&cgroup).map_err(|e| chain(&e)).and_then(|id| {
            let managed = self.parts.kernel.manage(&cgroup, number);
            managed.map_err(|e| chain(&e)).map(|()| id)
        });
        match managed {
            Ok(id) => Ok((cgroup, id)),
            Err(text) => {
                discard(&cgroup);
                Err(text)
            }
        }
    }

    fn start_order(
        &self,
        run: &Run,
        launch: &Launch,
        user: &LocalUser,
        placeholders: &[Placeholder],
        (cgroup, directory): (&Path, PathBuf),
        planned: Option<&Planned>,
    ) -> Start {
        let variables = launch.env.iter().map(|(name, value)| match value {
            EnvValue::Text(text) => (name.clone(), text.clone()),
            EnvValue::Secret(secret) => {
                let held = placeholders
                    .iter()
                    .find(|placeholder| placeholder.secret == *secret);
                (
                    name.clone(),
                    held.map(|held| held.value.clone()).unwrap_or_default(),
                )
            }
        });
        let language = std::env::var("LANG").ok();
        let base = Base {
            user: &user.name,
            home: &user.home,
            terminal: run.terminal.as_ref().map(|terminal| terminal.kind.as_str()),
            language: language.as_deref(),
        };
        let arguments = launch.args.iter().chain(&run.arguments).cloned().collect();
        let (program, arguments) = match planned {
            Some(planned) => {
                let below = cgroup.strip_prefix(&self.parts.tree.root);
                planned.program(below.unwrap_or(cgroup), &launch.command, arguments)
            }
            None => (launch.command.clone().into(), arguments),
        };
        Start {
            cgroup: cgroup.to_owned(),
            account: user.account.clone(),
            directory,
            program,
            arguments,
            environment: environment(base, variables, &self.parts.trust),
            trust: Some(self.parts.trust.clone()),
        }
    }
}

/// The directory that a server begins in.
fn begins(launch: &Launch, user: &LocalUser, run: &Run) -> Result<PathBuf, String> {
    match &launch.directory {
        Directory::Home => Ok(user.home.clone()),
        Directory::At(path) => Ok(path.into()),
        Directory::Caller => {
            let directory = run.directory.clone();
            directory.ok_or_else(|| "the caller's directory is not known".into())
        }
    }
}

/// A session whose gate ended.
#[derive(Debug)]
pub(super) struct LostSession {
    number: u32,
    name: String,
}

/// One for each secret, so that a server with a secret under two names sees one value.
fn placeholders(launch: &Launch) -> Result<Vec<Placeholder>, String> {
    let mut found: Vec<Placeholder> = Vec::new();
    for (_, value) in &launch.env {
        if let EnvValue::Secret(secret) = value
            && !found
                .iter()
                .any(|placeholder| placeholder.secret == *secret)
        {
            let mut random = [0; 24];
            aws_lc_rs::rand::fill(&mut random)
                .map_err(|_e| "no randomness for a placeholder".to_owned())?;
            let value = format!("exeat-{}", encode_hex(&random));
            found.push(Placeholder {
                secret: secret.clone(),
                value,
            });
        }
    }
    Ok(found)
}

/// A server's name as part of a cgroup's.
pub(crate) fn file_name(name: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "-_".contains(c) {
            c
        } else {
            '_'
        }
    };
    name.chars().map(plain).take(128).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_parts_of_a_path_and_nothing_more() {
        assert_eq!(file_name("github"), "github");
        assert_eq!(file_name("../a/b c"), "___a_b_c");
        assert_eq!(file_name(&"x".repeat(500)).len(), 128);
    }

    #[test]
    fn a_secret_has_one_placeholder_whatever_its_names() {
        let secret = || EnvValue::Secret("token".into());
        let launch = Launch {
            extra_args: Vec::new(),
            command: "x".into(),
            args: Vec::new(),
            user: None,
            directory: Directory::Home,
            env: vec![("A".into(), secret()), ("B".into(), secret())],
            fetch: Vec::new(),
        };
        let first = placeholders(&launch).unwrap();
        assert_eq!(first.len(), 1);
        assert_ne!(first, placeholders(&launch).unwrap());
    }
}
