//! The live proof: a process in a managed cgroup that is allowed nothing.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use tokio::time::timeout;

use super::cgroups;
use super::clients::fail;
use super::core::{Happening, Supervisor};
use super::lives::{discard, record};
use super::workloads::{Live, Origin};
use crate::channel::{Kind, ToGate};
use crate::control::canary::{MAX_OUTPUT, Targets};
use crate::control::reply::Canary;
use crate::control::{Code, Reply, Responder};
use crate::launch::stage::{Program, Stage, Start, chain, spawn};

/// Name of the canary's workload; no server has it, so policy allows it nothing.
const NAME: &str = "exeat:canary";
/// Time for all of its attempts.
const LIMIT: Duration = Duration::from_secs(20);

impl Supervisor {
    /// Starts a process that tries what is forbidden, and tells the client what came of it.
    pub(super) async fn canary(&mut self, client: Responder) {
        let targets = match Targets::open().await {
            Ok(targets) => targets,
            Err(error) => return fail(client, Code::Internal, chain(&error)).await,
        };
        let Some(number) = self.workloads.number() else {
            return fail(client, Code::Busy, "there are too many workloads").await;
        };
        let cgroup = match self.parts.tree.add("canary", number) {
            Ok(cgroup) => cgroup,
            Err(error) => return fail(client, Code::Internal, chain(&error)).await,
        };
        let managed = cgroups::id(&cgroup).map_err(|e| chain(&e)).and_then(|id| {
            self.parts
                .kernel
                .manage(&cgroup, number)
                .map_err(|e| chain(&e))
                .map(|()| id)
        });
        let id = match managed {
            Ok(id) => id,
            Err(text) => {
                discard(&cgroup);
                return fail(client, Code::Internal, text).await;
            }
        };
        let record = record(number, NAME, Kind::Server, &cgroup, id, None);
        self.tell(ToGate::Workload(Box::new(record.clone()))).await;
        self.workloads.add(Live {
            record,
            origin: Origin::Run,
        });
        let start = Start {
            cgroup: cgroup.clone(),
            account: self.parts.plan.account.clone(),
            directory: "/".into(),
            program: "/proc/self/exe".into(),
            arguments: ["internal".to_owned(), "canary".to_owned()]
                .into_iter()
                .chain(targets.arguments())
                .collect(),
            environment: Vec::new(),
            trust: None,
        };
        let (program, happenings) = (self.parts.plan.stage.clone(), self.happenings.clone());
        self.tasks.spawn(async move {
            let judged = attempt(&program, start, &targets).await;
            if let Err(error) = cgroups::empty(&cgroup).await {
                tracing::error!(error = chain(&error), "the canary could not be ended");
            }
            answer(client, judged).await;
            if happenings.send(Happening::Ended { number }).await.is_err() {
                tracing::debug!("the supervisor is gone");
            }
        });
    }
}

async fn attempt(program: &Program, start: Start, targets: &Targets) -> Result<Canary, String> {
    let failed = |e: std::io::Error| format!("preparing the canary: {e}");
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(failed)?;
    let null = OwnedFd::from(null);
    let (reader, writer) = std::io::pipe().map_err(failed)?;
    let writer = OwnedFd::from(writer);
    let streams = [null.as_fd(), writer.as_fd(), null.as_fd()];
    let spawned = spawn(program, &Stage::Start(start), &streams).await;
    let mut spawned = spawned.map_err(|e| chain(&e))?;
    drop(writer);
    if timeout(LIMIT, spawned.child.wait()).await.is_err() {
        return Err("the canary did not end in time".to_owned());
    }
    // The process is gone and all of its output, less than a pipe holds, waits.
    let limit = u64::try_from(MAX_OUTPUT).unwrap_or(u64::MAX);
    let mut output = Vec::new();
    reader
        .take(limit)
        .read_to_end(&mut output)
        .map_err(failed)?;
    targets.judge(&output).await.map_err(|e| chain(&e))
}

async fn answer(mut client: Responder, judged: Result<Canary, String>) {
    let canary = match judged {
        Ok(canary) => canary,
        Err(text) => return fail(client, Code::Internal, text).await,
    };
    let answered = match client.reply(Reply::Canary(canary)).await {
        Ok(()) => client.done().await,
        failed => failed,
    };
    if let Err(error) = answered {
        tracing::debug!(%error, "a client did not wait for its answer");
    }
}
