//! `exeat run`: asked of the gate, started here, watched by a task until nothing of it is left.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use exeat_policy::{EnvValue, Launch};
use rustix::process::{Pid, Signal as Kill, kill_process_group};
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::accounts::{self, LocalUser};
use super::cgroups;
use super::clients::fail;
use super::core::{Happening, Supervisor};
use super::lives::discard;
use super::settle::Settled;
use super::workloads::{Live, Origin};
use crate::channel::{Kind, Placeholder, RunVerdict, ToGate, Workload, encode_hex};
use crate::control::reply::{self, Exited, Started};
use crate::control::{Client, Code, Reply, Responder, Run, Signal};
use crate::launch::environment::{Base, environment};
use crate::launch::stage::{Program, Stage, Start, chain, spawn};

/// Time for the gate to decide on a start.
const VERDICT_LIMIT: Duration = Duration::from_secs(10);
/// Starts that wait for the gate.
const MAX_ASKED: usize = 256;
/// Time for a server to end after SIGTERM.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// A start that waits for the gate's verdict.
#[derive(Debug)]
pub(super) struct Asked {
    run: Run,
    client: Client,
    until: Instant,
}

/// A refusal to start, for the client.
struct Refusal(Code, String);

/// What a task needs to start and watch a server.
struct Order {
    number: u32,
    settled: Settled,
    program: Program,
    start: Start,
    streams: Vec<OwnedFd>,
    cgroup: PathBuf,
    happenings: mpsc::Sender<Happening>,
    stop: CancellationToken,
}

impl Supervisor {
    /// Asks the gate, the only one who decides and records, whether a user may start a server.
    pub(super) async fn ask_run(&mut self, client: Client, run: Run) {
        let launchable = self
            .parts
            .policy
            .set
            .server(&run.server)
            .and_then(|s| s.launch());
        if launchable.is_none() {
            let text = format!(
                "no server `{}` that can be started is in the register",
                run.server
            );
            return fail(client.responder, Code::NotFound, text).await;
        }
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
            RunVerdict::Refused { reason } => {
                let reason = reason.chars().take(1024).collect::<String>();
                fail(asked.client.responder, Code::Refused, reason).await;
            }
        }
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

    /// Answers all who wait for the gate, because it is gone.
    pub(super) async fn fail_asked(&mut self, why: &str) {
        self.settling.clear();
        for (_, asked) in std::mem::take(&mut self.asked) {
            fail(asked.client.responder, Code::Unavailable, why).await;
        }
        for (_, client) in std::mem::take(&mut self.reloads) {
            fail(client, Code::Unavailable, why).await;
        }
    }

    async fn start(&mut self, asked: Asked) {
        let Asked { run, client, .. } = asked;
        let Client {
            peer,
            descriptors,
            responder,
            ..
        } = client;
        let (live, start) = match self.prepare(&run, peer.uid) {
            Ok(prepared) => prepared,
            Err(Refusal(code, text)) => return fail(responder, code, text).await,
        };
        let number = live.record.number;
        let cgroup = live.record.cgroup.clone();
        // The gate knows the workload, and the kernel holds its cgroup, before the process exists.
        self.tell(ToGate::Workload(Box::new(live.record.clone())))
            .await;
        self.workloads.add(live);
        let settled = self.settle(number).await;
        let order = Order {
            number,
            settled,
            program: self.parts.plan.stage.clone(),
            start,
            streams: descriptors,
            cgroup,
            happenings: self.happenings.clone(),
            stop: self.stop.clone(),
        };
        self.tasks.spawn(serve(order, responder));
    }

    fn prepare(&mut self, run: &Run, uid: u32) -> Result<(Live, Start), Refusal> {
        let not_found = || Refusal(Code::NotFound, format!("no server `{}`", run.server));
        let server = self
            .parts
            .policy
            .set
            .server(&run.server)
            .ok_or_else(not_found)?;
        let launch = server.launch().ok_or_else(not_found)?.clone();
        // Policy was asked a moment ago.
        if self.disconnections.has(&run.server) {
            let text = format!("`{}` was disconnected by an administrator", run.server);
            return Err(Refusal(Code::Refused, text));
        }
        let invalid = |text: String| Refusal(Code::Invalid, text);
        let user = launch.user.clone().unwrap_or_else(|| uid.to_string());
        let user = accounts::find(&user).map_err(|e| invalid(chain(&e)))?;
        let busy = || Refusal(Code::Busy, "there are too many workloads".into());
        let number = self.workloads.number().ok_or_else(busy)?;
        let placeholders = placeholders(&launch).map_err(invalid)?;
        let internal = |text: String| Refusal(Code::Internal, text);
        let name = file_name(&run.server);
        let cgroup = self
            .parts
            .tree
            .add(&name, number)
            .map_err(|e| internal(chain(&e)))?;
        let managed = cgroups::id(&cgroup).map_err(|e| chain(&e)).and_then(|id| {
            self.parts
                .kernel
                .manage(&cgroup, number)
                .map_err(|e| chain(&e))
                .map(|()| id)
        });
        let cgroup_id = match managed {
            Ok(id) => id,
            Err(text) => {
                discard(&cgroup);
                return Err(internal(text));
            }
        };
        let start = self.start_order(run, &launch, &user, &placeholders, cgroup.clone());
        let mut args = vec![launch.command.clone()];
        args.extend(start.arguments.iter().cloned());
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
        ))
    }

    fn start_order(
        &self,
        run: &Run,
        launch: &Launch,
        user: &LocalUser,
        placeholders: &[Placeholder],
        cgroup: PathBuf,
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
        Start {
            cgroup,
            account: user.account.clone(),
            directory: user.home.clone(),
            program: launch.command.clone().into(),
            arguments: launch.args.iter().chain(&run.arguments).cloned().collect(),
            environment: environment(base, variables, &self.parts.trust),
            trust: Some(self.parts.trust.clone()),
        }
    }
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

/// Starts a server and stays until nothing of it is left.
async fn serve(order: Order, mut client: Responder) {
    order.settled.wait().await;
    let stage = Stage::Start(order.start);
    let streams: Vec<_> = order.streams.iter().map(OwnedFd::as_fd).collect();
    let spawned = spawn(&order.program, &stage, &streams).await;
    drop(streams);
    drop(order.streams);
    let number = order.number;
    match spawned {
        Ok(mut spawned) => {
            let pid = spawned.pid;
            send(&order.happenings, Happening::Started { number, pid }).await;
            let status = watch(&mut spawned.child, pid, number, &mut client, &order.stop).await;
            // Whatever it left behind had its life from the client, too.
            empty(&order.cgroup).await;
            if let Some(status) = status {
                tell_exit(client, status).await;
            }
        }
        Err(error) => {
            empty(&order.cgroup).await;
            fail(client, Code::Invalid, chain(&error)).await;
        }
    }
    send(&order.happenings, Happening::Ended { number }).await;
}

async fn empty(cgroup: &std::path::Path) {
    if let Err(error) = cgroups::empty(cgroup).await {
        tracing::error!(
            error = chain(&error),
            "a server's processes could not be ended"
        );
    }
}

async fn send(happenings: &mpsc::Sender<Happening>, happening: Happening) {
    if happenings.send(happening).await.is_err() {
        tracing::debug!("the supervisor is gone");
    }
}

/// Passes on signals until the process has ended, by itself or because the client went away.
async fn watch(
    child: &mut Child,
    pid: u32,
    number: u32,
    client: &mut Responder,
    stop: &CancellationToken,
) -> Option<ExitStatus> {
    if client
        .reply(Reply::Started(Started {
            pid,
            workload: number,
        }))
        .await
        .is_err()
    {
        return end(child, pid).await;
    }
    loop {
        tokio::select! {
            status = child.wait() => return status.ok(),
            () = stop.cancelled() => return end(child, pid).await,
            signal = client.signal() => match signal {
                Ok(Some(signal)) => kill(pid, number_of(signal)),
                Ok(None) | Err(_) => return end(child, pid).await,
            },
        }
    }
}

/// Ends a process, first kindly.
async fn end(child: &mut Child, pid: u32) -> Option<ExitStatus> {
    kill(pid, Kill::TERM);
    match timeout(GRACE, child.wait()).await {
        Ok(status) => status.ok(),
        Err(_elapsed) => {
            kill(pid, Kill::KILL);
            child.wait().await.ok()
        }
    }
}

/// Signals the session that the server leads, as a terminal would. The child was not waited for,
/// so its number is its own.
fn kill(pid: u32, signal: Kill) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(Err(error)) = pid.map(|pid| kill_process_group(pid, signal)) {
        tracing::debug!(%error, "a server took no signal");
    }
}

const fn number_of(signal: Signal) -> Kill {
    match signal {
        Signal::Hangup => Kill::HUP,
        Signal::Interrupt => Kill::INT,
        Signal::Quit => Kill::QUIT,
        Signal::Terminate => Kill::TERM,
        Signal::User1 => Kill::USR1,
        Signal::User2 => Kill::USR2,
        Signal::Continue => Kill::CONT,
        Signal::WindowChange => Kill::WINCH,
    }
}

async fn tell_exit(mut client: Responder, status: ExitStatus) {
    let byte = |n: i32| u8::try_from(n).unwrap_or(u8::MAX);
    let status = match status.code() {
        Some(code) => reply::ExitStatus::Code(byte(code)),
        None => reply::ExitStatus::Signal(byte(status.signal().unwrap_or_default())),
    };
    let told = match client.reply(Reply::Exited(Exited { status })).await {
        Ok(()) => client.done().await,
        failed => failed,
    };
    if let Err(error) = told {
        tracing::debug!(%error, "a client did not wait for its server's end");
    }
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
            command: "x".into(),
            args: Vec::new(),
            user: None,
            env: vec![("A".into(), secret()), ("B".into(), secret())],
            fetch: Vec::new(),
        };
        let first = placeholders(&launch).unwrap();
        assert_eq!(first.len(), 1);
        assert_ne!(first, placeholders(&launch).unwrap());
    }
}
