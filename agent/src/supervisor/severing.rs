//! Servers that an administrator disconnects: held to it in the kernel, told to the gate, kept on disk.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use exeat_ebpf::{KernelError, Waiting, destroy_connections};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::clients::fail;
use super::core::{Happening, Supervisor};
use super::error::DaemonError;
use super::kept;
use crate::channel::{Disconnection, Kind, ToGate};
use crate::control::command::{ServerDisconnect, ServerReconnect};
use crate::control::peer::Peer;
use crate::control::reply::Word;
use crate::control::{Code, Reply, Responder};
use crate::launch::stage::chain;
use crate::telemetry::clock;

/// Time for the gate to answer the clients of a server that is cut off at once.
/// A test that needs one to wait is not to hurry.
const GATE: Duration = Duration::from_secs(if cfg!(test) { 60 } else { 2 });

/// Time for the kernel to close what it had open; then who waits is told that it goes on.
const CLOSING: Duration = Duration::from_secs(3);

/// The file's form.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    disconnected: Vec<Disconnection>,
}

/// The version of [`Stored`] that this daemon reads and writes.
const VERSION: u32 = 1;

/// A server that is disconnected.
#[derive(Debug)]
struct Held {
    disconnection: Disconnection,
    /// Until when the gate may take to end what is under way; then it is cut off all the same.
    pending: Option<Instant>,
    /// Who waits for that, and for what answer.
    client: Option<(Responder, Word)>,
}

/// The servers that are disconnected.
#[derive(Debug)]
pub(super) struct Disconnections {
    path: PathBuf,
    held: BTreeMap<String, Held>,
}

impl Disconnections {
    /// Reads what an earlier daemon was told. What cannot be read is an error: to begin without it would connect
    /// what somebody has disconnected.
    pub(super) fn load(state: &Path) -> Result<Self, DaemonError> {
        let path = state.join("disconnected.json");
        let stored = match read(&path) {
            Ok(stored) => stored,
            Err(cause) => return Err(DaemonError::Disconnected { path, cause }),
        };
        let held = stored.disconnected.into_iter().map(|disconnection| {
            let held = Held {
                disconnection: disconnection.clone(),
                pending: None,
                client: None,
            };
            (disconnection.server, held)
        });
        Ok(Self {
            path,
            held: held.collect(),
        })
    }

    /// Whether a server is disconnected, or about to be.
    pub(super) fn has(&self, server: &str) -> bool {
        self.held.contains_key(server)
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Disconnection> {
        let all = self.held.values();
        all.map(|held| held.disconnection.clone()).collect()
    }

    /// Whole or not at all, and on the disk when this returns.
    fn save(&self) -> io::Result<()> {
        let stored = Stored {
            version: VERSION,
            disconnected: self.all(),
        };
        let text = serde_json::to_vec_pretty(&stored)?;
        kept::write(&self.path, &text)
    }
}

fn read(path: &Path) -> io::Result<Stored> {
    let stored = match fs::read(path) {
        Ok(bytes) => serde_json::from_slice::<Stored>(&bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Stored {
            version: VERSION,
            disconnected: Vec::new(),
        },
        Err(error) => return Err(error),
    };
    if stored.version != VERSION {
        let text = format!("version {} is not {VERSION}", stored.version);
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(stored)
}

impl Supervisor {
    /// `servers disconnect`: nothing new begins with the server, and what is under way ends, now or when its calls
    /// are answered.
    pub(super) async fn disconnect(
        &mut self,
        client: Responder,
        peer: &Peer,
        order: ServerDisconnect,
    ) {
        let ServerDisconnect {
            name,
            reason,
            drain_seconds,
        } = order;
        if self.parts.policy.set.server(&name).is_none() {
            let text = format!("there is no server `{name}` in the register");
            return fail(client, Code::NotFound, text).await;
        }
        let drain = drain_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        let mut problems = Vec::new();
        let cut = match drain {
            None => self.cut_workloads(&name, &mut problems),
            Some(_) => 0,
        };
        let disconnection = Disconnection {
            server: name.clone(),
            since: clock::wall(),
            uid: peer.uid,
            user: peer.user.clone(),
            reason,
        };
        let limit = drain.unwrap_or_default() + GATE;
        let held = Held {
            disconnection: disconnection.clone(),
            pending: Some(Instant::now() + limit),
            client: None,
        };
        let before = self.disconnections.held.insert(name.clone(), held);
        self.supersede(before, peer);
        // It is in force whether it can be kept or not; who ordered it is told.
        if let Err(error) = self.disconnections.save() {
            let path = self.disconnections.path.display();
            problems.push(format!(
                "`{path}` could not be written ({error}): a restart of the daemon would connect the server again"
            ));
        }
        let gate = self.gate.as_ref().is_some_and(|gate| gate.ready);
        self.tell(ToGate::Disconnect {
            disconnection: Box::new(disconnection),
            drain_ms: drain.and_then(|drain| u64::try_from(drain.as_millis()).ok()),
        })
        .await;
        let state = drain.map_or("disconnected", |_time| "draining");
        let word = Word {
            server: name.clone(),
            state: state.to_owned(),
            workloads: cut,
            problems,
        };
        match self.disconnections.held.get_mut(&name) {
            Some(held) if drain.is_none() => held.client = Some((client, word)),
            // A drain ends without the client.
            _ => answer(client, word).await,
        }
        if !gate {
            self.severed(&name);
        }
    }

    /// `servers reconnect`: policy alone decides again.
    pub(super) async fn reconnect(
        &mut self,
        client: Responder,
        peer: &Peer,
        order: ServerReconnect,
    ) {
        let ServerReconnect { name, reason } = order;
        let Some(held) = self.disconnections.held.remove(&name) else {
            let text = format!("the server `{name}` is not disconnected");
            return fail(client, Code::NotFound, text).await;
        };
        if let Err(error) = self.disconnections.save() {
            self.disconnections.held.insert(name.clone(), held);
            let path = self.disconnections.path.display();
            let text =
                format!("`{name}` stays disconnected: `{path}` could not be written: {error}");
            return fail(client, Code::Internal, text).await;
        }
        self.supersede(Some(held), peer);
        let mut problems = Vec::new();
        let mut mended = 0_u32;
        for number in self.workloads_of(&name) {
            match self.parts.kernel.mend(number) {
                Ok(()) => mended = mended.saturating_add(1),
                Err(error) => problems.push(chain(&error)),
            }
        }
        self.tell(ToGate::Reconnect {
            reconnection: Box::new(Disconnection {
                server: name.clone(),
                since: clock::wall(),
                uid: peer.uid,
                user: peer.user.clone(),
                reason,
            }),
        })
        .await;
        let word = Word {
            server: name,
            state: "connected".to_owned(),
            workloads: mended,
            problems,
        };
        answer(client, word).await;
    }

    /// What was under way with a server has ended, as the gate says, or there is no gate. A gate that lies cuts
    /// off what an administrator has ordered to be cut off, a little early.
    pub(super) fn severed(&mut self, server: &str) {
        let Some(held) = self.disconnections.held.get_mut(server) else {
            return;
        };
        if held.pending.take().is_none() {
            return;
        }
        let client = held.client.take();
        let mut problems = Vec::new();
        let cut = self.cut_workloads(server, &mut problems);
        for problem in &problems {
            tracing::error!(server, problem, "a workload is not cut off");
        }
        let cgroups: Vec<(u32, PathBuf)> = self
            .workloads
            .iter()
            .filter(|live| live.record.kind == Kind::Server && live.record.name == server)
            .map(|live| (live.record.number, live.record.cgroup.clone()))
            .collect();
        let happenings = self.happenings.clone();
        let closing = self
            .tasks
            .spawn_blocking(move || close(cgroups, &happenings));
        let Some((client, mut word)) = client else {
            return;
        };
        word.workloads = word.workloads.max(cut);
        word.problems.extend(problems);
        self.tasks.spawn(async move {
            word.problems.extend(match timeout(CLOSING, closing).await {
                Ok(Ok(open)) => open,
                Ok(Err(_)) | Err(_) => {
                    vec![
                        "its connections, which let no packet pass, are still being closed"
                            .to_owned(),
                    ]
                }
            });
            answer(client, word).await;
        });
    }

    /// Cuts off what the gate had its time for.
    pub(super) fn sever_overdue(&mut self) {
        let now = Instant::now();
        let overdue: Vec<String> = self
            .disconnections
            .held
            .iter()
            .filter(|(_, held)| held.pending.is_some_and(|until| until <= now))
            .map(|(server, _)| server.clone())
            .collect();
        for server in overdue {
            self.severed(&server);
        }
    }

    /// Answers who waits for what an earlier order began: the later one decides from here on.
    fn supersede(&self, before: Option<Held>, by: &Peer) {
        if let Some((client, mut word)) = before.and_then(|held| held.client) {
            word.problems.push(format!(
                "an order of `{}` for `{}` took over before it was known that nothing is under way any more",
                by.user, word.server
            ));
            self.tasks.spawn(answer(client, word));
        }
    }

    fn cut_workloads(&self, server: &str, problems: &mut Vec<String>) -> u32 {
        let mut cut = 0_u32;
        for number in self.workloads_of(server) {
            match self.parts.kernel.cut(number) {
                Ok(()) => cut = cut.saturating_add(1),
                Err(error) => problems.push(chain(&error)),
            }
        }
        cut
    }

    fn workloads_of(&self, server: &str) -> Vec<u32> {
        self.workloads
            .iter()
            .filter(|live| live.record.kind == Kind::Server && live.record.name == server)
            .map(|live| live.record.number)
            .collect()
    }

    /// Makes the kernel say of a workload what the disconnections say. To be called before one of this name is
    /// managed: it is never connected, not even for a moment.
    pub(super) fn agree_on_cut(
        &self,
        name: &str,
        kind: Kind,
        number: u32,
    ) -> Result<(), KernelError> {
        if kind == Kind::Server && self.disconnections.has(name) {
            self.parts.kernel.cut(number)
        } else {
            self.parts.kernel.mend(number)
        }
    }
}

/// Ends what the workloads in these cgroups have open. Returns a sentence for each of which it stays open.
fn close(cgroups: Vec<(u32, PathBuf)>, happenings: &mpsc::Sender<Happening>) -> Vec<String> {
    let mut open = Vec::new();
    for (number, cgroup) in cgroups {
        // Its listeners stay: reconnected, it is to serve again.
        match destroy_connections(&cgroup, Waiting::Kept) {
            Ok(count) => tracing::info!(number, count, "connections were closed"),
            Err(error) if !cgroup.exists() => {
                tracing::debug!(number, %error, "a workload ended before its connections were closed");
            }
            Err(error) => {
                let why = format!(
                    "connections stay open, though no packet passes by them: {}",
                    chain(&error)
                );
                open.push(why.clone());
                // Who ordered it may not wait for it, as with a drain.
                if happenings
                    .blocking_send(Happening::LeftOpen { number, why })
                    .is_err()
                {
                    tracing::debug!("the daemon ends");
                }
            }
        }
    }
    open
}

async fn answer(mut client: Responder, word: Word) {
    let answered = match client.reply(Reply::Word(word)).await {
        Ok(()) => client.done().await,
        failed => failed,
    };
    if let Err(error) = answered {
        tracing::debug!(%error, "a client did not wait for its answer");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// To begin without it would connect what somebody has disconnected.
    #[test]
    fn what_cannot_be_read_ends_the_start_with_the_file_and_what_to_do() {
        let state = tempfile::tempdir().unwrap();
        assert!(Disconnections::load(state.path()).unwrap().all().is_empty());
        let path = state.path().join("disconnected.json");
        for text in [
            "",
            "{",
            "[]",
            "\0\0\0\0",
            r#"{"version":1}"#,
            r#"{"version":2,"disconnected":[]}"#,
            r#"{"version":1,"disconnected":[],"more":1}"#,
            r#"{"version":1,"disconnected":[{"server":"a"}]}"#,
        ] {
            fs::write(&path, text).unwrap();
            let error = Disconnections::load(state.path()).unwrap_err();
            let said = chain(&error);
            let named = format!("`{}`", path.display());
            assert!(
                said.contains(&named) && said.contains("servers disconnect"),
                "{said}"
            );
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir_all(&path).unwrap();
        Disconnections::load(state.path()).unwrap_err();
    }
}
