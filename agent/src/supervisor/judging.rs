//! Judging what a host's processes execute: is it an MCP server that the host started without Exeat?

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use exeat_policy::Unregistered as Mode;
use rustix::process::Signal;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout_at};

use super::cgroups;
use super::configurations::Configurations;
use super::core::{Happening, Supervisor};
use super::matching::cgroup_of;
use super::processes::{origin, outline, read};
use super::recognising::{Known, Why, is_configured, is_piped, is_stopped};
use super::turns::{Turn, Turns};
use crate::channel::{Kind, Process, ToGate, Workload};
use crate::hosts::Package;
use crate::launch::stage::chain;

/// Time to find out what a process is; past it, it is taken for a server.
const LIMIT: Duration = Duration::from_secs(10);
/// Processes that wait to be looked at without being held.
const WAITING: usize = 4096;
/// Processes that are remembered as reported.
const MAX_REPORTED: usize = 16_384;
/// Reports that wait for a gate.
const MAX_UNTOLD: usize = 1024;

/// What judging keeps.
#[derive(Debug)]
pub(super) struct Judging {
    configurations: Arc<Configurations>,
    turns: Arc<Turns>,
    /// Processes that are not held and wait for their turn.
    places: Arc<Semaphore>,
    /// One found no place.
    missed: bool,
    /// Processes that stay in their host's workload and were reported, with their start: what they start is theirs.
    pub(super) reported: HashMap<u32, u64>,
    /// What could not be told yet, because there was no gate.
    untold: Vec<ToGate>,
    /// How many events were lost so far.
    lost: u64,
}

/// What came of looking at a process.
#[derive(Debug)]
pub(super) struct Judged {
    /// The host's workload.
    pub(super) host: u32,
    pub(super) process: Process,
    /// It is stopped until this is heeded.
    pub(super) held: bool,
    /// Why it is a server, if it is one.
    pub(super) why: Option<Why>,
    /// It has a container made, by somebody outside its workload.
    pub(super) contained: bool,
}

/// What was found out of a process.
struct Found {
    process: Process,
    why: Option<Why>,
    contained: bool,
}

/// Looks at processes of one host.
#[derive(Clone)]
struct Judge {
    host: u32,
    cgroup: PathBuf,
    root: PathBuf,
    known: Arc<Known>,
    configurations: Arc<Configurations>,
    turns: Arc<Turns>,
}

impl Judging {
    pub(super) fn new(configurations: Configurations, lost: u64) -> Self {
        Self {
            configurations: Arc::new(configurations),
            turns: Arc::new(Turns::new()),
            places: Arc::new(Semaphore::new(WAITING)),
            missed: false,
            reported: HashMap::new(),
            untold: Vec::new(),
            lost,
        }
    }

    /// Notes that a process was reported; whether that is news: it was not, and does not come from one that was.
    pub(super) fn is_news(&mut self, process: &Process) -> bool {
        let same = |pid: u32, started: u64| self.reported.get(&pid) == Some(&started);
        let own = same(process.pid, process.started);
        let parent = origin(process.parent);
        let inherited = parent.is_some_and(|(_, started)| same(process.parent, started));
        if self.reported.len() < MAX_REPORTED {
            self.reported.insert(process.pid, process.started);
        }
        !own && !inherited
    }
}

impl Supervisor {
    /// What the policy says of the servers that a host starts without Exeat. A host that it does not know any more
    /// may nothing, and its servers no more.
    pub(super) fn unregistered(&self, host: &str) -> Mode {
        let host = self.parts.policy.set.host(host);
        host.map(|host| host.unregistered).unwrap_or_default()
    }

    /// To be called before a workload is managed: none of its processes escapes judgement.
    pub(super) fn judge_if_host(&self, name: &str, kind: Kind, number: u32) -> Result<(), String> {
        let judged = kind == Kind::Host && self.unregistered(name) != Mode::Allow;
        let kernel = &self.parts.kernel;
        let done = if judged {
            kernel.judge(number)
        } else {
            kernel.spare(number)
        };
        done.map_err(|e| chain(&e))
    }

    /// Makes the kernel hold what policy wants judged, and looks at what runs already.
    pub(super) async fn rejudge(&mut self) {
        for host in self.hosts() {
            if let Err(error) = self.judge_if_host(&host.name, Kind::Host, host.number) {
                let text = format!("what `{}` starts is not judged: {error}", host.name);
                self.finding("match_incomplete", Some(host.number), vec![text])
                    .await;
            }
            self.survey(&host, false);
        }
    }

    /// Looks at a process of a host that executed something.
    pub(super) fn look_at_exec(&mut self, host: u32, pid: u32, held: bool) {
        let live = self.workloads.get(host).map(|live| &live.record);
        let Some(host) = live.filter(|record| record.kind == Kind::Host) else {
            // Held for a host that has gone meanwhile.
            if held {
                cgroups::signal(pid, Signal::CONT);
            }
            return;
        };
        // Those that are held are bounded by what a user may start, the others by this.
        let place = if held {
            None
        } else if is_piped(pid) {
            let Ok(place) = Arc::clone(&self.judging.places).try_acquire_owned() else {
                self.judging.missed = true;
                return;
            };
            Some(place)
        } else {
            return;
        };
        let judge = self.judge(host.clone());
        let happenings = self.happenings.clone();
        self.tasks.spawn(async move {
            let _place = place;
            match judge.look(pid, held, Instant::now() + LIMIT).await {
                Some(judged) => {
                    let told = happenings.send(Happening::Judged(vec![judged], None));
                    if told.await.is_err() {
                        tracing::debug!("the supervisor is gone");
                    }
                }
                // It has ended, or became another workload's.
                None if held => cgroups::signal(pid, Signal::CONT),
                None => {}
            }
        });
    }

    /// Looks at every process of a host. With `cut`, none of them reaches anything until that is done.
    pub(super) fn survey(&self, host: &Workload, cut: bool) {
        let pids = cgroups::processes(&host.cgroup).unwrap_or_default();
        if pids.is_empty() {
            return;
        }
        if cut && let Err(error) = self.parts.kernel.cut(host.number) {
            tracing::error!(
                error = chain(&error),
                "a host is not cut off while it is looked at"
            );
        }
        let number = host.number;
        let judge = self.judge(host.clone());
        let happenings = self.happenings.clone();
        self.tasks.spawn(async move {
            let all = judge.look_at_all(pids).await;
            let mend = cut.then_some(number);
            if happenings.send(Happening::Judged(all, mend)).await.is_err() {
                tracing::debug!("the supervisor is gone");
            }
        });
    }

    /// Before the gate knows of a workload in which processes run: those of a host are looked at first.
    pub(super) fn survey_new(&self, record: &Workload) {
        if record.kind == Kind::Host {
            self.survey(record, true);
        }
    }

    /// The hosts that live.
    pub(super) fn hosts(&self) -> Vec<Workload> {
        let records = self.workloads.iter().map(|live| &live.record);
        let hosts = records.filter(|record| record.kind == Kind::Host);
        hosts.cloned().collect()
    }

    /// An event that was lost may have been of a process that waits: every host is looked at.
    pub(super) fn look_for_lost(&mut self) {
        let lost = match self.parts.kernel.lost() {
            Ok(lost) => lost,
            Err(error) => {
                return tracing::warn!(error = chain(&error), "lost events are not counted");
            }
        };
        if lost == self.judging.lost && !self.judging.missed {
            return;
        }
        self.judging.missed = false;
        tracing::warn!(
            lost,
            before = self.judging.lost,
            "events of processes were lost"
        );
        self.judging.lost = lost;
        for host in self.hosts() {
            self.survey(&host, false);
        }
    }

    /// At the end of a daemon that stops in order: nobody waits for the next one.
    pub(super) fn let_go(&self) {
        for host in self.hosts() {
            if let Err(error) = self.parts.kernel.spare(host.number) {
                tracing::warn!(
                    error = chain(&error),
                    "processes of a host may wait for the next daemon"
                );
            }
            let pids = cgroups::processes(&host.cgroup).unwrap_or_default();
            for pid in pids
                .into_iter()
                .filter(|pid| is_stopped(*pid) && is_piped(*pid))
            {
                cgroups::signal(pid, Signal::CONT);
            }
        }
    }

    /// Has something recorded, now or when there is a gate.
    pub(super) async fn report(&mut self, told: ToGate) {
        if self.gate.as_ref().is_some_and(|gate| gate.ready) {
            return self.tell(told).await;
        }
        if self.judging.untold.len() < MAX_UNTOLD {
            self.judging.untold.push(told);
        } else {
            tracing::error!("there is no gate to record an unregistered server");
        }
    }

    /// The gate is there.
    pub(super) async fn report_untold(&mut self) {
        for told in std::mem::take(&mut self.judging.untold) {
            self.tell(told).await;
        }
    }

    fn judge(&self, host: Workload) -> Judge {
        Judge {
            known: Arc::new(Known::new(&self.parts.policy.set, &host)),
            host: host.number,
            cgroup: host.cgroup,
            root: self.parts.tree.root.clone(),
            configurations: Arc::clone(&self.judging.configurations),
            turns: Arc::clone(&self.judging.turns),
        }
    }
}

impl Judge {
    /// Looks at all of them, in the time of one: those that nothing keeps do not wait for the others.
    async fn look_at_all(self, pids: Vec<u32>) -> Vec<Judged> {
        let deadline = Instant::now() + LIMIT;
        let mut looking = JoinSet::new();
        for (place, pid) in pids.into_iter().enumerate() {
            let judge = self.clone();
            looking.spawn(async move {
                let held = is_stopped(pid) && is_piped(pid);
                Some((place, judge.look(pid, held, deadline).await?))
            });
        }
        let mut all: Vec<(usize, Judged)> = Vec::new();
        while let Some(looked) = looking.join_next().await {
            match looked {
                Ok(judged) => all.extend(judged),
                Err(error) => tracing::error!(error = chain(&error), "looking at a process"),
            }
        }
        // As the kernel lists them, a process before what it started.
        all.sort_unstable_by_key(|(place, _)| *place);
        all.into_iter().map(|(_, judged)| judged).collect()
    }

    /// Looks at a process; `None`: it is not there, or not this host's.
    async fn look(&self, pid: u32, held: bool, deadline: Instant) -> Option<Judged> {
        let process = outline(pid, self.host)?;
        if !is_in(pid, &self.cgroup, &self.root) {
            return None;
        }
        let unjudged = |process| Found {
            process,
            why: Some(Why::Unjudged),
            contained: false,
        };
        let found = if is_piped(pid) {
            match timeout_at(deadline, self.find(pid, process.uid, held)).await {
                Ok(Ok(found)) => found?,
                Ok(Err(error)) => {
                    tracing::error!(pid, error, "a host's process could not be judged");
                    unjudged(process)
                }
                Err(_late) => unjudged(process),
            }
        } else {
            Found {
                process,
                why: None,
                contained: false,
            }
        };
        Some(Judged {
            host: self.host,
            process: found.process,
            held,
            why: found.why,
            contained: found.contained,
        })
    }

    /// The process in full, and why it is a server if it is one; `None`: it has ended.
    async fn find(&self, pid: u32, uid: u32, held: bool) -> Result<Option<Found>, String> {
        let failed = |e: tokio::task::JoinError| chain(&e);
        let is_own = self.known.is_own(pid);
        // A thread that hangs keeps its turn: where all of a user's do, that user's others wait for their deadline.
        let turn = self.turns.take(self.host, uid, is_own).await;
        let turn: Arc<Turn> = Arc::new(turn.map_err(|e| chain(&e))?);
        let (known, host, own) = (Arc::clone(&self.known), self.host, Arc::clone(&turn));
        let looked = spawn_blocking(move || {
            let _turn = own;
            let process = read(pid, host)?;
            if is_own {
                // What is held has not run, so that its environment is what it was started with.
                let why = known.is_loaded_into(pid, !held).then_some(Why::Posing);
                let found = Found {
                    process,
                    why,
                    contained: false,
                };
                return Some((found, None));
            }
            let cwd = PathBuf::from(format!("/proc/{pid}/cwd"));
            let package = Package::running(&process.exe, &process.args, &cwd);
            let why = known.look(&process, &package);
            let contained = matches!(package, Package::Image(_));
            let asked = why.is_none().then_some(package);
            let found = Found {
                process,
                why,
                contained,
            };
            Some((found, asked))
        });
        let (found, package) = match looked.await.map_err(failed)? {
            None => return Ok(None),
            Some((found, None)) => return Ok(Some(found)),
            Some((found, Some(package))) => (found, package),
        };
        // A project's configuration stands where the host works, or where the server is to.
        let directory = |pid: u32| fs::read_link(format!("/proc/{pid}/cwd")).ok();
        let directories = [found.process.pid, found.process.parent]
            .into_iter()
            .filter_map(directory);
        let directories = directories.collect();
        let configurations = &self.configurations;
        let entries = configurations
            .started(found.process.uid, directories, Arc::clone(&turn))
            .await?;
        let configured = spawn_blocking(move || {
            let _turn = turn;
            let is = entries
                .iter()
                .any(|entries| is_configured(&found.process, &package, entries));
            Found {
                why: is.then_some(Why::Configured),
                ..found
            }
        });
        configured.await.map(Some).map_err(failed)
    }
}

/// Whether a process is in a cgroup or below it.
pub(super) fn is_in(pid: u32, cgroup: &Path, root: &Path) -> bool {
    cgroup_of(pid).is_some_and(|path| root.join(path.trim_start_matches('/')).starts_with(cgroup))
}
