//! MCP servers that a host started without Exeat: left with no network, or ended; and reported.

use std::collections::HashSet;
use std::path::Path;

use exeat_ebpf::Waiting;
use exeat_policy::Unregistered as Mode;
use rustix::process::Signal;

use super::cgroups;
use super::core::Supervisor;
use super::judging::{Judged, is_in};
use super::lives::{discard, record};
use super::placing::cut_old;
use super::processes::{origin, outline};
use super::recognising::Why;
use super::workloads::{Live, Origin};
use crate::channel::{Done, Kind, Process, ToGate, Unregistered, Workload};
use crate::launch::stage::chain;

/// Behind a host's name in the name of the cgroup for its unregistered servers. No name in the register gives a
/// cgroup with a dot.
pub(crate) const SUFFIX: &str = ".unregistered";
/// How often descendants are looked for.
const ROUNDS: u32 = 1000;

impl Supervisor {
    /// Heeds what was found out of processes; then `mend`, a host that was cut off meanwhile, goes on.
    pub(super) async fn judged(&mut self, all: Vec<Judged>, mend: Option<u32>) {
        for judged in all {
            let (pid, held) = (judged.process.pid, judged.held);
            let again = self.heed(judged).await;
            if held && again {
                cgroups::signal(pid, Signal::CONT);
            }
        }
        if let Some(Err(error)) = mend.map(|number| self.parts.kernel.mend(number)) {
            tracing::error!(error = chain(&error), "a host stays cut off");
        }
    }

    /// Whether the process, if it is stopped, is to go on.
    async fn heed(&mut self, judged: Judged) -> bool {
        let Judged {
            host,
            process,
            why,
            contained,
            ..
        } = judged;
        let Some(why) = why else { return true };
        let Some(host) = self.workloads.get(host).map(|live| live.record.clone()) else {
            return true;
        };
        // Another process may have its number by now, or it was moved by an earlier judgement.
        let same = origin(process.pid).is_some_and(|(_, started)| started == process.started);
        if !same || !is_in(process.pid, &host.cgroup, &self.parts.tree.root) {
            return same;
        }
        let done = match (self.unregistered(&host.name), &why) {
            (Mode::Allow, _) => {
                if self.judging.is_news(&process) {
                    self.report_server(&host, &process, &why, Done::Left).await;
                }
                return true;
            }
            // A container is made elsewhere: isolation would not reach into it.
            (Mode::Isolate, _) if contained => stop(&host, &process),
            (Mode::Isolate, _) | (Mode::Stop, Why::Unjudged) => self.isolate(&host, &process).await,
            (Mode::Stop, _) => stop(&host, &process),
        };
        self.report_server(&host, &process, &why, done.0).await;
        for process in done.1 {
            cgroups::signal(process.pid, Signal::CONT);
        }
        false
    }

    async fn report_server(&mut self, host: &Workload, process: &Process, why: &Why, done: Done) {
        tracing::warn!(
            host = host.name,
            pid = process.pid,
            ?why,
            ?done,
            "an unregistered server"
        );
        self.report(ToGate::Unregistered(Box::new(Unregistered {
            host: host.number,
            process: process.clone(),
            why: why.text(),
            done,
        })))
        .await;
    }

    /// Moves a process and what comes from it to where nothing is reachable; those that are to go on.
    async fn isolate(&mut self, host: &Workload, first: &Process) -> (Done, Vec<Process>) {
        let place = match self.isolated(host, first).await {
            Ok(place) => place,
            Err(error) => {
                tracing::error!(
                    error,
                    "an unregistered server could not be isolated, and is ended"
                );
                return stop(host, first);
            }
        };
        let mut moved = Vec::new();
        let all = seize(first, &host.cgroup, |process| {
            let went = cgroups::move_process(process.pid, &place.cgroup);
            if let Err(error) = went {
                // It ended meanwhile, or it does not run at all.
                tracing::warn!(pid = process.pid, error = chain(&error), "not moved");
                cgroups::signal(process.pid, Signal::KILL);
            }
        });
        for process in all {
            moved.push(process.clone());
            if let Some(known) = self.processes.moved(process, place.number).cloned() {
                self.tell_process(known.workload, ToGate::Process(Box::new(known)))
                    .await;
            }
        }
        cut_old(place.number, &place.cgroup, Waiting::Destroyed);
        (Done::Isolated, moved)
    }

    /// The workload of a host's unregistered servers; made where there is none.
    async fn isolated(&mut self, host: &Workload, first: &Process) -> Result<Workload, String> {
        let is_its =
            |live: &&Live| live.record.kind == Kind::Unregistered && live.record.name == host.name;
        if let Some(live) = self.workloads.iter().find(is_its) {
            return Ok(live.record.clone());
        }
        let number = self
            .workloads
            .number()
            .ok_or("there are too many workloads")?;
        let name = format!("{}{SUFFIX}", super::runs::file_name(&host.name));
        let cgroup = self.parts.tree.add(&name, number).map_err(|e| chain(&e))?;
        let id = match self.manage_at(&cgroup, number) {
            Ok(id) => id,
            Err(error) => {
                discard(&cgroup);
                return Err(error);
            }
        };
        let record = record(
            number,
            &host.name,
            Kind::Unregistered,
            &cgroup,
            id,
            Some(first),
        );
        self.tell(ToGate::Workload(Box::new(record.clone()))).await;
        self.workloads.add(Live {
            record: record.clone(),
            origin: Origin::Own,
        });
        Ok(record)
    }

    fn manage_at(&mut self, cgroup: &Path, number: u32) -> Result<u64, String> {
        let id = cgroups::id(cgroup).map_err(|e| chain(&e))?;
        let managed = self.parts.kernel.manage(cgroup, number);
        managed.map(|()| id).map_err(|e| chain(&e))
    }
}

/// Ends a process and what comes from it.
fn stop(host: &Workload, first: &Process) -> (Done, Vec<Process>) {
    // Not one by one as they are found: the children of one that is gone are no longer known for its.
    for process in seize(first, &host.cgroup, |_| {}) {
        cgroups::signal(process.pid, Signal::KILL);
    }
    (Done::Stopped, Vec::new())
}

/// Stops `first` and every process of the cgroup that comes from it, and does `each` to it; until no more are found,
/// since they may make others until they are stopped.
fn seize(first: &Process, cgroup: &Path, mut each: impl FnMut(&Process)) -> Vec<Process> {
    let mut seized = vec![first.clone()];
    let mut theirs = HashSet::from([first.pid]);
    cgroups::signal(first.pid, Signal::STOP);
    each(first);
    for _round in 0..ROUNDS {
        let pids = cgroups::processes(cgroup).unwrap_or_default();
        let mut others: Vec<Process> = pids
            .into_iter()
            .filter(|pid| !theirs.contains(pid))
            .filter_map(|pid| outline(pid, first.workload))
            .collect();
        // Parents before children.
        others.sort_unstable_by_key(|process| (process.started, process.pid));
        let before = seized.len();
        for process in others {
            if theirs.contains(&process.parent) {
                theirs.insert(process.pid);
                cgroups::signal(process.pid, Signal::STOP);
                each(&process);
                seized.push(process);
            }
        }
        if seized.len() == before {
            break;
        }
    }
    seized
}
