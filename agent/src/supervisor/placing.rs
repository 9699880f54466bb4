//! Bringing processes that others start into workloads.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use exeat_ebpf::{Event, Waiting, destroy_connections};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::process::Signal;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::cgroups;
use super::core::{Happening, Supervisor};
use super::lives::{discard, record};
use super::matching::{Subject, cgroup_of, subjects};
use super::processes::{AT_LENGTH, Hashes, PATIENTLY, SOON, origin, read, read_known, read_within};
use super::settle::Settled;
use super::workloads::{Live, Origin};
use crate::channel::{Kind, Process, ToGate, watch};
use crate::control::peer::{CgroupRole, Cgroups};
use crate::launch::stage::chain;

/// Depth of slices within which units are watched for.
const SLICES: u32 = 6;

/// Processes and containers of which it is said one by one that not enough of them is known.
const SAID: usize = 4;

/// What runs, as far as policy names it.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) found: Vec<Found>,
    /// What may belong to a subject and could not be read: a sentence each.
    unread: Vec<String>,
}

/// Which processes have their place: below Exeat's own cgroup, or in a workload that others made.
#[derive(Clone)]
struct Taken {
    own: PathBuf,
    roles: Arc<dyn Cgroups>,
}

impl Taken {
    /// Whether a process in this cgroup stays where it is, whatever it is otherwise.
    fn holds(&self, cgroup: &str) -> bool {
        is_own(cgroup, &self.own) || self.roles.role(cgroup) != CgroupRole::Other
    }
}

/// Processes that belong to a subject.
#[derive(Debug, Clone)]
pub(super) struct Found {
    name: String,
    kind: Kind,
    /// The process that matched, then those that descend from it.
    processes: Vec<Process>,
}

/// What became of processes that were found.
#[derive(Debug)]
pub(super) enum Placed {
    /// They ended meanwhile, or belong to nobody.
    Nowhere,
    /// They are in a workload, whose ways are open once this is settled.
    In(Settled),
    /// They could not be placed.
    Failed,
}

impl Supervisor {
    /// After a change of policy: what is watched for, and what runs already.
    pub(super) async fn rewatch(&mut self) {
        let subjects = subjects(&self.parts.policy.set);
        for subject in &subjects {
            if subject.matcher.exe.is_none() && !subject.is_of_cgroups() {
                let text = format!(
                    "`{}` is matched by user alone: its processes are found when the policy is loaded, not when they start",
                    subject.name
                );
                self.finding("match_incomplete", None, vec![text]).await;
            }
        }
        let mut files = Vec::new();
        for subject in &subjects {
            match subject.executable() {
                // Perhaps there within the unit alone, whose files are not looked at.
                Ok(None) if subject.is_of_cgroups() && subject.matcher.exe.is_some() => {
                    let text = format!(
                        "`{}` is matched by nothing: its executable is not there",
                        subject.name
                    );
                    self.finding("match_incomplete", None, vec![text]).await;
                }
                Ok(file) => files.extend(file),
                Err(error) => {
                    let text = format!("the executable of `{}`: {error}", subject.name);
                    self.finding("match_incomplete", None, vec![text]).await;
                }
            }
        }
        files.sort_unstable();
        files.dedup();
        if let Err(error) = self.parts.kernel.watch_executables(&files) {
            self.finding("match_incomplete", None, vec![chain(&error)])
                .await;
        }
        self.rejudge().await;
        self.find_cgroups().await;
        let (hashes, happenings) = (Arc::clone(&self.hashes), self.happenings.clone());
        let taken = self.taken();
        self.tasks.spawn_blocking(move || {
            let scan = scan(&subjects, &taken, &hashes);
            if happenings.blocking_send(Happening::Scanned(scan)).is_err() {
                tracing::debug!("the supervisor is gone");
            }
        });
    }

    fn taken(&self) -> Taken {
        Taken {
            own: self.parts.tree.base.clone(),
            roles: self.workloads.roles(),
        }
    }

    /// Guards the places and manages the cgroups that policy names and that exist.
    pub(super) async fn find_cgroups(&mut self) {
        self.guard().await;
        let said = mem::take(&mut self.untaken);
        self.take_cgroups().await;
        let new: Vec<String> = self.untaken.difference(&said).cloned().collect();
        if !new.is_empty() {
            self.finding("match_failed", None, shortened(new)).await;
        }
    }

    async fn take_cgroups(&mut self) {
        let root = self.parts.tree.root.clone();
        let named: Vec<Subject> = subjects(&self.parts.policy.set)
            .into_iter()
            .filter(Subject::is_of_cgroups)
            .collect();
        if named.is_empty() && self.labelled.is_idle() {
            return;
        }
        self.sweep().await;
        // Before anything is looked for: what is made meanwhile is seen.
        self.units.slices(&root);
        for subject in &named {
            if let Some(path) = &subject.matcher.cgroup {
                self.units.parents(&root.join(path.trim_start_matches('/')));
            }
            for cgroup in subject.cgroups(&root) {
                if !self.workloads.has(&cgroup) && !cgroup.starts_with(&self.parts.tree.base) {
                    self.take_cgroup(subject, &cgroup).await;
                }
            }
        }
        self.find_labelled(&named).await;
    }

    /// Manages a cgroup as this; where it is managed as something else, it is never nobody's.
    pub(super) async fn take_cgroup(&mut self, subject: &Subject, cgroup: &Path) {
        let before = self.workloads.of(cgroup);
        let taken = match cgroups::id(cgroup) {
            Ok(id) => self.manage(subject, cgroup, id).map(|number| (number, id)),
            Err(error) => Err(chain(&error)),
        };
        let (number, id) = match taken {
            Ok(taken) => taken,
            Err(error) => {
                // One that is gone meanwhile needs no managing.
                if cgroup.exists() {
                    let name = &subject.name;
                    let text =
                        format!("`{}` is not managed as `{name}`: {error}", cgroup.display());
                    self.untaken.insert(text);
                }
                return;
            }
        };
        let pids = cgroups::processes(cgroup).unwrap_or_default();
        let processes: Vec<Process> = pids
            .iter()
            .filter_map(|pid| read_within(SOON, *pid, number))
            .collect();
        let first = processes.iter().min_by_key(|process| process.started);
        let record = record(number, &subject.name, subject.kind, cgroup, id, first);
        self.survey_new(&record);
        self.announce(
            Live {
                record,
                origin: Origin::Foreign,
            },
            processes,
        )
        .await;
        if let Some(before) = before {
            self.workloads.remove(before);
            self.processes.forget(before);
            self.tell(ToGate::WorkloadGone { number: before }).await;
        }
        // The programs of this cgroup judge what comes to the listeners that were created in it.
        cut_old(number, cgroup, Waiting::Kept);
    }

    /// Manages a cgroup, under the number that it may have from an earlier daemon.
    fn manage(&mut self, subject: &Subject, cgroup: &Path, id: u64) -> Result<u32, String> {
        let known = self.parts.kernel.managed().map_err(|e| chain(&e))?;
        let earlier = known.into_iter().find(|(of, number)| {
            // What lives is something else.
            *of == id && self.workloads.get(*number).is_none()
        });
        if let Some((_, number)) = earlier {
            self.agree_on_cut(&subject.name, subject.kind, number)
                .map_err(|e| chain(&e))?;
            self.judge_if_host(&subject.name, subject.kind, number)?;
            return Ok(number);
        }
        let number = self
            .workloads
            .number()
            .ok_or("there are too many workloads")?;
        self.agree_on_cut(&subject.name, subject.kind, number)
            .map_err(|e| chain(&e))?;
        self.enrol(&subject.name, subject.kind, cgroup, number)?;
        Ok(number)
    }

    /// Has the kernel manage a new workload; a host's processes are judged from the first on.
    fn enrol(&mut self, name: &str, kind: Kind, cgroup: &Path, number: u32) -> Result<(), String> {
        self.judge_if_host(name, kind, number)?;
        let kernel = &mut self.parts.kernel;
        let managed = kernel.manage(cgroup, number);
        if managed.is_err()
            && let Err(error) = kernel.spare(number)
        {
            tracing::warn!(number, error = chain(&error), "a number stays judged");
        }
        managed.map_err(|e| chain(&e))
    }

    async fn announce(&mut self, live: Live, processes: Vec<Process>) {
        self.tell(ToGate::Workload(Box::new(live.record.clone())))
            .await;
        self.workloads.add(live);
        for process in processes {
            if let Some(process) = self.processes.put(process).cloned() {
                self.tell_process(process.workload, ToGate::Process(Box::new(process)))
                    .await;
            }
        }
    }

    /// Looks at a process that the kernel stopped before its first instruction.
    pub(super) fn look_at(&self, event: &Event) {
        let pid = event.tgid;
        let subjects = subjects(&self.parts.policy.set);
        let (hashes, happenings) = (Arc::clone(&self.hashes), self.happenings.clone());
        let taken = self.taken();
        self.tasks.spawn_blocking(move || {
            let process = read(pid, 0);
            let started = process.as_ref().map_or(0, |process| process.started);
            let mut hash = || hashes.of_process(pid);
            let found = process.and_then(|process| find(&subjects, process, &taken, &mut hash));
            if happenings
                .blocking_send(Happening::Looked {
                    pid,
                    started,
                    found,
                })
                .is_err()
            {
                tracing::debug!("the supervisor is gone");
            }
        });
    }

    /// Lets a stopped process go on: in a workload if it belongs to one.
    pub(super) async fn place_stopped(&mut self, pid: u32, started: u64, found: Option<Found>) {
        let placed = match found {
            Some(found) => self.place(found).await,
            None => Placed::Nowhere,
        };
        let now = origin(pid).map(|(_, started)| started);
        match placed {
            // Also a process that could not be looked at: it is nobody's that the policy knows.
            Placed::Nowhere => self.resume(pid, None),
            Placed::In(settled) => self.resume(pid, Some(settled)),
            // What should be managed and cannot be does not run at all.
            Placed::Failed if now == Some(started) => cgroups::signal(pid, Signal::KILL),
            Placed::Failed => {}
        }
    }

    /// Makes workloads of what was found, and says what was not.
    pub(super) async fn scanned(&mut self, scan: Scan) {
        for found in scan.found {
            // These run already; nothing waits.
            drop(self.place(found).await);
        }
        if !scan.unread.is_empty() {
            self.finding("match_incomplete", None, shortened(scan.unread))
                .await;
        }
    }

    /// Makes a workload of processes that run.
    pub(super) async fn place(&mut self, found: Found) -> Placed {
        match self.try_place(&found) {
            Ok(None) => Placed::Nowhere,
            Ok(Some((live, processes))) => {
                let (number, cgroup) = (live.record.number, live.record.cgroup.clone());
                // One alone is the host itself, at its start.
                if processes.len() > 1 {
                    self.survey_new(&live.record);
                }
                self.announce(live, processes).await;
                cut_old(number, &cgroup, Waiting::Destroyed);
                Placed::In(self.settle(number).await)
            }
            Err(error) => {
                let text = format!("processes of `{}` are not managed: {error}", found.name);
                self.finding("match_failed", None, vec![text]).await;
                Placed::Failed
            }
        }
    }

    fn try_place(&mut self, found: &Found) -> Result<Option<(Live, Vec<Process>)>, String> {
        let alive = |process: &&Process| {
            origin(process.pid).is_some_and(|(_, started)| started == process.started)
        };
        let taken = self.taken();
        // Asked again: what was found may have been managed as something else meanwhile.
        let free = |process: &&Process| {
            alive(process) && !cgroup_of(process.pid).is_some_and(|cgroup| taken.holds(&cgroup))
        };
        let processes: Vec<Process> = found.processes.iter().filter(free).cloned().collect();
        let Some(first) = processes.first() else {
            return Ok(None);
        };
        let number = self
            .workloads
            .number()
            .ok_or("there are too many workloads")?;
        self.agree_on_cut(&found.name, found.kind, number)
            .map_err(|e| chain(&e))?;
        let name = super::runs::file_name(&found.name);
        let cgroup = self.parts.tree.add(&name, number).map_err(|e| chain(&e))?;
        let id = cgroups::id(&cgroup).map_err(|e| chain(&e));
        let managed = id.and_then(|id| {
            self.enrol(&found.name, found.kind, &cgroup, number)
                .map(|()| id)
        });
        let id = match managed {
            Ok(id) => id,
            Err(error) => {
                discard(&cgroup);
                return Err(error);
            }
        };
        for process in &processes {
            match cgroups::move_process(process.pid, &cgroup) {
                Err(error) if alive(&process) => {
                    // Those that were moved stay where nothing is allowed to them.
                    tracing::error!(pid = process.pid, error = chain(&error), "not moved");
                    return Err(chain(&error));
                }
                _ => {}
            }
        }
        let record = record(number, &found.name, found.kind, &cgroup, id, Some(first));
        let numbered = |process: Process| Process {
            workload: number,
            ..process
        };
        let processes = processes.into_iter().map(numbered).collect();
        Ok(Some((
            Live {
                record,
                origin: Origin::Own,
            },
            processes,
        )))
    }
}

/// As many sentences as a finding has, and how many more there are.
pub(super) fn shortened(mut all: Vec<String>) -> Vec<String> {
    let more = all.len().saturating_sub(SAID);
    all.truncate(SAID);
    if more > 0 {
        all.push(format!("{more} more"));
    }
    all
}

/// Ends the connections that are older than management.
pub(super) fn cut_old(number: u32, cgroup: &Path, waiting: Waiting) {
    match destroy_connections(cgroup, waiting) {
        Ok(count) => tracing::info!(number, count, "older connections were closed"),
        // The kernel refuses their use anyway: they are nobody's.
        Err(error) => {
            tracing::warn!(
                number,
                error = chain(&error),
                "older connections were not closed"
            );
        }
    }
}

/// The subject that a process belongs to, unless it is in a workload already.
fn find(
    subjects: &[Subject],
    process: Process,
    taken: &Taken,
    hash: &mut dyn FnMut() -> Option<[u8; 32]>,
) -> Option<Found> {
    let cgroup = cgroup_of(process.pid);
    if cgroup.as_deref().is_some_and(|cgroup| taken.holds(cgroup)) {
        return None;
    }
    let subject = of_processes(subjects)
        .find(|subject| subject.matches(&process, cgroup.as_deref(), hash))?;
    Some(Found {
        name: subject.name.clone(),
        kind: subject.kind,
        processes: vec![process],
    })
}

/// Those that are looked for process by process.
fn of_processes(subjects: &[Subject]) -> impl Iterator<Item = &Subject> {
    subjects
        .iter()
        .filter(|subject| subject.matcher.exe.is_some() || !subject.matcher.user.is_empty())
}

/// The subject that a process may belong to of which no argument is known.
fn suspected<'a>(subjects: &'a [Subject], process: &Process) -> Option<&'a Subject> {
    let cgroup = cgroup_of(process.pid);
    of_processes(subjects).find(|subject| subject.may_match(process, cgroup.as_deref()))
}

/// Whether a cgroup is below Exeat's own, whose name is the last part of `own`.
fn is_own(cgroup: &str, own: &Path) -> bool {
    own.file_name()
        .is_some_and(|name| Path::new(cgroup).starts_with(Path::new("/").join(name)))
}

/// Everything that runs and belongs to a subject, each with its descendants.
fn scan(subjects: &[Subject], taken: &Taken, hashes: &Arc<Hashes>) -> Scan {
    let mut all: Vec<(Process, bool)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| read_known(PATIENTLY, pid, 0))
        .collect();
    // Parents before children.
    all.sort_unstable_by_key(|(process, _)| (process.started, process.pid));
    let mut group_of: HashMap<u32, usize> = HashMap::new();
    let mut scan = Scan::default();
    for (process, known) in all {
        let pid = process.pid;
        if pid == std::process::id() || cgroup_of(pid).is_some_and(|cgroup| taken.holds(&cgroup)) {
            continue;
        }
        let group = group_of.get(&process.parent).copied();
        if let Some(found) = group.and_then(|group| scan.found.get_mut(group)) {
            found.processes.push(process);
            group_of.extend(group.map(|group| (pid, group)));
            continue;
        }
        let who = format!("process {pid} of uid {}, `{}`,", process.uid, process.exe);
        let suspected = if known {
            None
        } else {
            suspected(subjects, &process)
        };
        let mut late = false;
        let mut hash = || {
            let hash = hashes.of_process_within(AT_LENGTH, pid);
            late |= hash.is_err();
            hash.ok().flatten()
        };
        if let Some(found) = find(subjects, process, taken, &mut hash) {
            group_of.insert(pid, scan.found.len());
            scan.found.push(found);
        } else if let Some(subject) = suspected {
            let name = &subject.name;
            scan.unread.push(format!(
                "{who} may be of `{name}` and is not matched: its arguments could not be read in time"
            ));
        } else if late {
            scan.unread.push(format!(
                "{who} is not matched: it could not be hashed in time"
            ));
        }
    }
    scan
}

/// Notices directories that appear where units and containers do, and what Docker writes of containers.
#[derive(Debug)]
pub(super) struct UnitWatch {
    descriptor: AsyncFd<OwnedFd>,
}

impl UnitWatch {
    pub(super) fn new() -> io::Result<Self> {
        let descriptor = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self {
            descriptor: watch(descriptor, Interest::READABLE)?,
        })
    }

    /// Watches a directory for what is made in it or moved there; watching twice is watching once.
    pub(super) fn add(&self, directory: &Path) {
        let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        if let Err(error) = inotify::add_watch(self.descriptor.get_ref(), directory, flags) {
            tracing::debug!(%error, directory = %directory.display(), "not watched");
        }
    }

    /// Watches the root and the slices below it.
    fn slices(&self, root: &Path) {
        self.slices_below(root, SLICES);
    }

    fn slices_below(&self, directory: &Path, depth: u32) {
        let Some(depth) = depth.checked_sub(1) else {
            return;
        };
        self.add(directory);
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().ends_with(".slice") {
                self.slices_below(&entry.path(), depth);
            }
        }
    }

    /// Watches the parents of a path, those that exist.
    fn parents(&self, path: &Path) {
        let parents: Vec<PathBuf> = path.ancestors().skip(1).map(Path::to_owned).collect();
        for parent in parents.iter().filter(|parent| parent.is_dir()).take(2) {
            self.add(parent);
        }
    }

    /// Waits until something appeared. Safe to cancel.
    pub(super) async fn changed(&self) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        loop {
            let mut ready = self.descriptor.readable().await?;
            let mut reader = inotify::Reader::new(self.descriptor.get_ref().as_fd(), &mut buffer);
            let mut seen = false;
            loop {
                match reader.next() {
                    Ok(event) => {
                        let appears = ReadFlags::CREATE | ReadFlags::MOVED_TO;
                        seen |= event.events().intersects(appears);
                    }
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            ready.clear_ready();
            if seen {
                return Ok(());
            }
        }
    }
}
