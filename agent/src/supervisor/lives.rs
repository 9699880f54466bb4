//! The lives of workloads and processes: taken over, noticed, ended.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use exeat_ebpf::kind::HELD;
use exeat_ebpf::{Event, EventKind, EventStream, KernelError};

use super::cgroups;
use super::core::{Happening, Supervisor};
use super::error::DaemonError;
use super::processes::{SOON, from_event, outline, read_within, shown};
use super::unregistered::SUFFIX;
use super::workloads::{Live, Origin, parse_name};
use crate::channel::{Kind, Process, ToGate, Workload};
use crate::launch::stage::chain;

/// Events that are taken note of in one turn, before others have theirs.
const AT_ONCE: usize = 256;

impl Supervisor {
    /// Takes over the workloads that an earlier daemon left running, and clears away the rest.
    pub(super) fn adopt(&mut self) -> Result<(), DaemonError> {
        let managed = self.parts.kernel.managed()?;
        for cgroup in self.parts.tree.existing()? {
            let id = cgroups::id(&cgroup)?;
            let number = managed
                .iter()
                .find(|(of, _)| *of == id)
                .map(|(_, number)| *number);
            if !cgroups::populated(&cgroup)? {
                if number.is_some() {
                    self.parts.kernel.unmanage(&cgroup)?;
                }
                discard(&cgroup);
                continue;
            }
            let number = match number {
                Some(number) => number,
                // The daemon ended between making the cgroup and managing it.
                None => self.manage_new(&cgroup)?,
            };
            let live = self.describe(&cgroup, number, id)?;
            self.workloads.add(live);
        }
        for live in self.workloads.iter() {
            let record = &live.record;
            self.agree_on_cut(&record.name, record.kind, record.number)?;
        }
        // Those of others' cgroups are taken again when they are found, perhaps as something else, perhaps by nobody.
        for (_, number) in managed {
            if self.workloads.get(number).is_none() {
                self.parts.kernel.shut(number)?;
                self.parts.kernel.spare(number)?;
            }
        }
        for host in self.hosts() {
            self.judge_if_host(&host.name, host.kind, host.number)
                .map_err(KernelError::Argument)?;
        }
        Ok(())
    }

    fn manage_new(&mut self, cgroup: &Path) -> Result<u32, DaemonError> {
        let full = || KernelError::Argument("there are too many workloads".into());
        let number = self.workloads.number().ok_or_else(full)?;
        self.parts.kernel.manage(cgroup, number)?;
        Ok(number)
    }

    /// What can be learnt of a running workload from its cgroup's name and its processes.
    fn describe(&mut self, cgroup: &Path, number: u32, id: u64) -> Result<Live, DaemonError> {
        let set = &self.parts.policy.set;
        let part = parse_name(cgroup).map_or("", |(name, _)| name);
        let host = set
            .hosts()
            .find(|host| super::runs::file_name(&host.name) == part);
        let server = set
            .servers()
            .find(|server| super::runs::file_name(&server.name) == part);
        let (name, kind) = match (server, host) {
            (Some(server), _) => (server.name.to_string(), Kind::Server),
            (None, Some(host)) => (host.name.to_string(), Kind::Host),
            (None, None) if part.ends_with(SUFFIX) => {
                let host = part.strip_suffix(SUFFIX).unwrap_or(part);
                let mut hosts = set.hosts();
                let found = hosts.find(|of| super::runs::file_name(&of.name) == host);
                let name = found.map_or(host, |host| &host.name);
                (name.to_owned(), Kind::Unregistered)
            }
            // Not in the register any more: it stays managed, and nothing is allowed to it.
            (None, None) => (part.to_owned(), Kind::Server),
        };
        let mut first: Option<Process> = None;
        for pid in cgroups::processes(cgroup)? {
            if let Some(process) = read_within(SOON, pid, number) {
                if first
                    .as_ref()
                    .is_none_or(|first| process.started < first.started)
                {
                    first = Some(process.clone());
                }
                self.processes.put(process);
            }
        }
        let record = record(number, &name, kind, cgroup, id, first.as_ref());
        Ok(Live {
            record,
            origin: Origin::Own,
        })
    }

    /// Ends a workload whose processes are gone: its cgroup is not managed any more, and nothing
    /// in the kernel or the gate remembers it.
    pub(super) async fn end(&mut self, number: u32) {
        let Some(live) = self.workloads.remove(number) else {
            return;
        };
        let cgroup = &live.record.cgroup;
        if let Err(error) = self.parts.kernel.unmanage_id(live.record.cgroup_id) {
            tracing::error!(
                number,
                error = chain(&error),
                "a workload's end was not taken note of"
            );
        }
        if live.origin != Origin::Foreign {
            discard(cgroup);
        }
        self.processes.forget(number);
        self.running.remove(&number);
        if live.origin == Origin::Run && live.record.kind == Kind::Server {
            self.arriving.ended(number, live.record.name);
        }
        self.tell(ToGate::WorkloadGone { number }).await;
    }

    /// Ends the stdio servers that an earlier daemon left running: nobody is at the other end of their streams, and
    /// their hosts were told to start them anew.
    pub(super) async fn end_orphans(&mut self) {
        let set = &self.parts.policy.set;
        let is_launched = |live: &&Live| {
            let server = set.server(&live.record.name);
            live.origin == Origin::Own && server.is_some_and(|server| server.launch().is_some())
        };
        let orphans: Vec<(u32, PathBuf)> = self
            .workloads
            .iter()
            .filter(is_launched)
            .map(|live| (live.record.number, live.record.cgroup.clone()))
            .collect();
        for (number, cgroup) in orphans {
            self.record("session_lost", Some(number), Vec::new()).await;
            self.tasks.spawn(async move {
                if let Err(error) = cgroups::empty(&cgroup).await {
                    tracing::error!(error = chain(&error), "a server without a session goes on");
                }
            });
        }
    }

    /// Ends the workloads that nobody else waits for, once they are empty or their cgroup is gone.
    pub(super) async fn sweep(&mut self) {
        let ended: Vec<u32> = self
            .workloads
            .iter()
            .filter(|live| is_over(live))
            .map(|live| live.record.number)
            .collect();
        for number in ended {
            self.end(number).await;
        }
    }

    /// A record of the supervisor's ring.
    pub(super) async fn process_event(&mut self, event: Event) {
        match event.kind {
            EventKind::Exec => self.executed(event).await,
            EventKind::Fork => {
                let child = event.detail;
                // In a storm of forks the child's own time of start is not looked up.
                let seen = if self.may_tell_process(event.workload) {
                    outline(child, event.workload)
                } else {
                    None
                };
                let known = self.processes.fork(event.tgid, child, seen);
                if let Some(process) = known.cloned() {
                    self.tell_process(process.workload, ToGate::Process(Box::new(process)))
                        .await;
                }
            }
            EventKind::Exit => {
                self.judging.reported.remove(&event.tgid);
                if self.processes.gone(event.tgid) {
                    self.tell_process(event.workload, ToGate::ProcessGone { pid: event.tgid })
                        .await;
                }
                let over = self.workloads.get(event.workload).is_some_and(is_over);
                if over {
                    self.end(event.workload).await;
                }
            }
            EventKind::WatchedExec => self.look_at(&event),
            // The gate's ring.
            EventKind::RefusedConnect
            | EventKind::RefusedSend
            | EventKind::RefusedSocket
            | EventKind::EgressDrop
            | EventKind::IngressDrop
            | EventKind::ForeignSocket
            | EventKind::ProxyDialled
            | EventKind::ForeignNetns => {}
        }
    }

    /// Takes note of what happened before the moment for which the gate asks, and says so. What comes in faster than
    /// that is taken note of is left to the next turn.
    pub(super) async fn catch_up(&mut self, processes: &mut Option<EventStream>) {
        let Some(until) = self.catching else { return };
        for _ in 0..AT_ONCE {
            let event = match processes.as_mut().map(EventStream::try_next) {
                Some(Ok(Some(event))) if event.at_ns <= until.nanoseconds() => event,
                other => {
                    self.catching = None;
                    match other {
                        Some(Ok(Some(later))) => self.process_event(later).await,
                        Some(Err(error)) => {
                            self.process_events_failed(Err(error)).await;
                            *processes = None;
                        }
                        None | Some(Ok(None)) => {}
                    }
                    return self.tell(ToGate::Caught { until }).await;
                }
            };
            self.process_event(event).await;
        }
    }

    async fn executed(&mut self, event: Event) {
        self.look_at_exec(event.workload, event.tgid, event.detail == HELD);
        let Some(process) = self.processes.put(from_event(&event)).cloned() else {
            return;
        };
        let (pid, started) = (process.pid, process.started);
        self.tell_process(process.workload, ToGate::Process(Box::new(process)))
            .await;
        // The record of the exec does not wait for the hash of a large file.
        let Ok(turn) = Arc::clone(&self.hashing).try_acquire_owned() else {
            return;
        };
        let table = Arc::clone(&self.hashes);
        let happenings = self.happenings.clone();
        self.tasks.spawn_blocking(move || {
            let _turn = turn;
            let Some(hash) = table.of_process(pid) else {
                return;
            };
            let hashed = Happening::Hashed {
                pid,
                started,
                sha256: shown(&hash),
            };
            if happenings.blocking_send(hashed).is_err() {
                tracing::debug!("the supervisor is gone");
            }
        });
    }

    pub(super) async fn process_events_failed(&mut self, event: Result<Event, KernelError>) {
        if let Err(error) = event {
            self.finding("process_events_failed", None, vec![chain(&error)])
                .await;
        }
    }
}

fn is_over(live: &Live) -> bool {
    match live.origin {
        Origin::Run => false,
        Origin::Own => cgroups::populated(&live.record.cgroup).is_ok_and(|populated| !populated),
        // A unit that is empty may fill again as long as its cgroup is there.
        Origin::Foreign => {
            cgroups::id(&live.record.cgroup).is_ok_and(|id| id != live.record.cgroup_id)
                || !live.record.cgroup.exists()
        }
    }
}

/// A workload that others started.
pub(super) fn record(
    number: u32,
    name: &str,
    kind: Kind,
    cgroup: &Path,
    cgroup_id: u64,
    first: Option<&Process>,
) -> Workload {
    Workload {
        number,
        name: name.to_owned(),
        kind,
        cgroup: cgroup.to_owned(),
        cgroup_id,
        pid: first.map(|process| process.pid),
        uid: first.map_or(u32::MAX, |process| process.uid),
        exe: first
            .map(|process| process.exe.clone().into())
            .unwrap_or_default(),
        args: first
            .map(|process| process.args.clone())
            .unwrap_or_default(),
        started_by: None,
        placeholders: Vec::new(),
    }
}

/// Removes a cgroup that nothing is in.
pub(super) fn discard(cgroup: &Path) {
    if let Err(error) = cgroups::remove(cgroup) {
        tracing::warn!(error = chain(&error), "an empty cgroup stays behind");
    }
}
