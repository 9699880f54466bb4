//! Workloads and their processes, as the supervisor attests them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use exeat_policy::{Caller, Reason, Workload as PolicyWorkload};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::audit::mask;
use crate::audit::record::{Workload as Recorded, WorkloadKind};
use crate::audit::{Shared, Text};
use crate::channel::{FIRST_USER, Kind, Process, Workload};
use crate::identify::fetching::Fetching;
use crate::identify::room::{Left, ROOMS, Room};
use crate::identify::share::{self, Share, Shares};
use crate::telemetry::clock;

/// Processes that are remembered; past it the oldest knowledge is not replaced, and records say less.
const PROCESSES: usize = 65_536;

/// Exchanges that one workload may have under way: an eighth of the log's places, so that none keeps the
/// others from being recorded, and with that from being served.
const EXCHANGES: usize = 4096;
/// The same of all servers together that one user, root too, had started: who starts more has no more.
const OF_USER: usize = EXCHANGES;
/// The same of one of those: more than a session's requests that may wait, and less than its user's, so that none keeps the
/// user's others from being recorded.
const OF_STARTED: usize = 3072;

/// A place among a workload's exchanges, and among those of who had it started.
pub type Place = (OwnedSemaphorePermit, Option<share::Place>);

/// One workload.
#[derive(Debug)]
pub struct Known {
    /// As the supervisor described it.
    pub workload: Workload,
    /// Since when the gate knows it.
    pub since: clock::Timestamp,
    /// Whether it may fetch its own code now.
    pub fetching: Fetching,
    /// What may be held in memory for it.
    pub room: Arc<Room>,
    /// The section of its records where the process is not known.
    recorded: Shared<Recorded>,
    exchanges: Arc<Semaphore>,
    /// Of who had it started, if anyone did.
    share: Option<Arc<Share>>,
    /// A user's processes that are in no workload.
    unmanaged: bool,
}

impl Known {
    /// A place for one more exchange, unless it, or who had it started, has as many under way as may be.
    pub fn exchange(&self) -> Option<Place> {
        let own = Arc::clone(&self.exchanges).try_acquire_owned().ok()?;
        let users = match &self.share {
            Some(share) => Some(share.exchange()?),
            None => None,
        };
        Some((own, users))
    }

    /// The form that policy judges; none for a user's processes.
    pub fn judged(&self) -> Option<PolicyWorkload<'_>> {
        (!self.unmanaged).then_some(match self.workload.kind {
            Kind::Server => PolicyWorkload::Server(&self.workload.name),
            Kind::Host => PolicyWorkload::Host(&self.workload.name),
            Kind::Unregistered => PolicyWorkload::Unregistered(&self.workload.name),
        })
    }

    /// The caller that policy judges where nothing is known of the process but its workload.
    pub fn caller(&self) -> Caller<'_> {
        let user = self.unmanaged.then_some(self.workload.name.as_str());
        Caller {
            workload: self.judged(),
            user,
            fetching: self.fetching.is_open(),
            token: None,
            certificate: None,
            known_as: &[],
        }
    }

    /// A name that no other workload has before the next boot, over restarts of the daemon too: numbers are given out anew.
    pub fn lasting_name(&self) -> String {
        if self.unmanaged {
            format!("uid:{}", self.workload.uid)
        } else {
            format!("cgroup:{}", self.workload.cgroup_id)
        }
    }

    /// Why nothing at all is allowed to it, whatever it asks for.
    pub fn barred(&self) -> Option<&'static str> {
        let barred = self.workload.kind == Kind::Unregistered && !self.unmanaged;
        barred.then_some(Reason::Unregistered.text())
    }

    /// The server's name, if it is a server.
    pub fn server(&self) -> Option<&str> {
        let server = self.workload.kind == Kind::Server && !self.unmanaged;
        server.then_some(self.workload.name.as_str())
    }
}

/// Users whose processes outside every workload use servers that listen here.
const USERS: usize = 4096;

#[derive(Debug, Default)]
struct State {
    workloads: HashMap<u32, Arc<Known>>,
    /// By number; of users whose processes are in no workload.
    users: HashMap<u32, Arc<Known>>,
    numbers: HashMap<u32, u32>,
    processes: HashMap<u32, (u32, Shared<Recorded>)>,
}

/// The table of workloads and processes.
#[derive(Debug)]
pub struct Workloads {
    state: RwLock<State>,
    /// Of users who have servers started.
    shares: Shares,
    /// Of one workload, in bytes.
    room: usize,
    /// What is left for all.
    left: Arc<Left>,
}

impl Workloads {
    /// None yet; for each, at most `room` bytes are held in memory, and for all [`ROOMS`] times as much.
    pub fn new(room: usize) -> Self {
        Self {
            state: RwLock::default(),
            shares: Shares::default(),
            room,
            left: Arc::new(Left::new(room.saturating_mul(ROOMS))),
        }
    }

    /// Takes in a workload.
    pub fn add(&self, workload: Workload) -> Arc<Known> {
        let recorded = Recorded {
            name: Text::from(workload.name.as_str()),
            kind: recorded_kind(workload.kind),
            cgroup: Some(workload.cgroup_id),
            pid: workload.pid,
            exe: Some(Text::from(workload.exe.to_string_lossy().as_ref())),
            args: mask::command(workload.args.iter().map(String::as_str)),
            uid: Some(workload.uid),
            ..Recorded::default()
        };
        let since = clock::wall();
        let started_by = workload.started_by;
        let exchanges = started_by.map_or(EXCHANGES, |_user| OF_STARTED);
        let known = Arc::new(Known {
            recorded: recorded.into(),
            exchanges: Arc::new(Semaphore::new(exchanges)),
            share: started_by.map(|uid| self.shares.of(uid, OF_USER)),
            room: Room::new(self.room, Arc::clone(&self.left)),
            unmanaged: false,
            since,
            fetching: Fetching::default(),
            workload,
        });
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state
            .workloads
            .insert(known.workload.number, Arc::clone(&known));
        known
    }

    /// The processes of a user that are in no workload, as something that connections and counts belong to. `None`:
    /// too many users did that already.
    pub fn user(&self, uid: u32, name: Option<&str>) -> Option<Arc<Known>> {
        let name = name.map_or_else(|| format!("uid {uid}"), str::to_owned);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let number = match state.numbers.get(&uid) {
            Some(number) => *number,
            None if state.numbers.len() < USERS => {
                let next = u32::try_from(state.numbers.len()).ok()?;
                let number = FIRST_USER.checked_add(next)?;
                state.numbers.insert(uid, number);
                number
            }
            None => return None,
        };
        if let Some(known) = state.users.get(&number)
            && known.workload.name == name
        {
            return Some(Arc::clone(known));
        }
        let workload = Workload {
            number,
            name,
            // Without a meaning here.
            kind: Kind::Host,
            cgroup: PathBuf::new(),
            cgroup_id: 0,
            pid: None,
            uid,
            exe: PathBuf::new(),
            args: Vec::new(),
            started_by: None,
            placeholders: Vec::new(),
        };
        let recorded = Recorded {
            kind: WorkloadKind::Unmanaged,
            uid: Some(uid),
            ..Recorded::default()
        };
        let known = Arc::new(Known {
            recorded: recorded.into(),
            exchanges: Arc::new(Semaphore::new(EXCHANGES)),
            share: None,
            room: Room::new(self.room, Arc::clone(&self.left)),
            unmanaged: true,
            since: clock::wall(),
            fetching: Fetching::default(),
            workload,
        });
        state.users.insert(number, Arc::clone(&known));
        Some(known)
    }

    /// Forgets a workload and its processes.
    pub fn remove(&self, number: u32) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.workloads.remove(&number);
        state
            .processes
            .retain(|_, (workload, _)| *workload != number);
    }

    /// A process began or replaced its program.
    pub fn process(&self, process: &Process) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = state.workloads.get(&process.workload) else {
            return;
        };
        let recorded = Recorded {
            name: known.recorded.name.clone(),
            kind: known.recorded.kind,
            cgroup: known.recorded.cgroup,
            pid: Some(process.pid),
            exe: Some(Text::from(process.exe.as_str())),
            args: mask::command(process.args.iter().map(String::as_str)),
            uid: Some(process.uid),
            sha256: process.sha256.as_deref().map(Text::from),
            ..Recorded::default()
        };
        if state.processes.len() < PROCESSES || state.processes.contains_key(&process.pid) {
            state
                .processes
                .insert(process.pid, (process.workload, recorded.into()));
        }
    }

    /// A process ended.
    pub fn process_gone(&self, pid: u32) {
        self.state
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .processes
            .remove(&pid);
    }

    /// How many processes of a workload are known.
    pub fn processes(&self, number: u32) -> usize {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state
            .processes
            .values()
            .filter(|(workload, _)| *workload == number)
            .count()
    }

    /// The workload of a number.
    pub fn get(&self, number: u32) -> Option<Arc<Known>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let known = state.workloads.get(&number);
        known.or_else(|| state.users.get(&number)).cloned()
    }

    /// Whether the workload of a number is of `server`.
    pub fn is_of(&self, number: u32, server: &str) -> bool {
        let known = self.get(number);
        known.is_some_and(|known| known.server() == Some(server))
    }

    /// Every workload.
    pub fn all(&self) -> Vec<Arc<Known>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.workloads.values().cloned().collect()
    }

    /// The section of a record for `pid` of `known`: of the process if it is known, else of the workload.
    pub fn recorded(&self, known: &Known, pid: u32) -> Shared<Recorded> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        match state.processes.get(&pid) {
            Some((workload, recorded)) if *workload == known.workload.number => recorded.clone(),
            _ => known.recorded.clone(),
        }
    }
}

fn recorded_kind(kind: Kind) -> WorkloadKind {
    match kind {
        Kind::Server => WorkloadKind::Server,
        Kind::Host => WorkloadKind::Host,
        Kind::Unregistered => WorkloadKind::Unregistered,
    }
}

#[cfg(test)]
mod tests {
    use super::{EXCHANGES, OF_STARTED, OF_USER, Workloads};
    use crate::channel::{Kind, Workload};

    fn workload(number: u32) -> Workload {
        Workload {
            number,
            name: "github".to_owned(),
            kind: Kind::Server,
            cgroup: "/sys/fs/cgroup/exeat/w/github-1".into(),
            cgroup_id: 1,
            pid: None,
            uid: 1000,
            exe: "/usr/bin/node".into(),
            args: Vec::new(),
            started_by: None,
            placeholders: Vec::new(),
        }
    }

    #[test]
    fn secrets_in_arguments_are_not_recorded() {
        let workloads = Workloads::new(0);
        let known = workloads.add(Workload {
            args: ["server", "--token", "hunter2"].map(String::from).to_vec(),
            ..workload(1)
        });
        let recorded = serde_json::to_string(&*workloads.recorded(&known, 0)).unwrap();
        assert!(
            recorded.contains(r#"["server","--token","[masked]"]"#),
            "{recorded}"
        );
    }

    #[test]
    fn one_workload_takes_no_place_of_another() {
        let workloads = Workloads::new(0);
        let (greedy, other) = (workloads.add(workload(1)), workloads.add(workload(2)));
        let mut places: Vec<_> = (0..EXCHANGES).map(|_| greedy.exchange()).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(greedy.exchange().is_none());
        assert!(other.exchange().is_some());
        places.pop();
        assert!(greedy.exchange().is_some(), "what ended makes room");
    }

    fn started(number: u32, uid: u32) -> Workload {
        Workload {
            started_by: Some(uid),
            ..workload(number)
        }
    }

    #[test]
    fn servers_that_one_user_had_started_share_their_places() {
        let workloads = Workloads::new(0);
        let (one, other) = (workloads.add(started(1, 0)), workloads.add(started(2, 0)));
        let mut places: Vec<_> = (0..OF_STARTED).map(|_| one.exchange()).collect();
        assert!(
            one.exchange().is_none(),
            "the rest is for the user's others"
        );
        places.extend((OF_STARTED..OF_USER).map(|_| other.exchange()));
        assert!(places.iter().all(Option::is_some));
        assert!(other.exchange().is_none());
        assert!(workloads.add(started(3, 0)).exchange().is_none());
        assert!(workloads.add(started(4, 1000)).exchange().is_some());
        assert!(workloads.add(workload(5)).exchange().is_some());
        places.pop();
        let place = other.exchange();
        assert!(place.is_some(), "what was refused took nothing");
        assert!(other.exchange().is_none());
    }

    #[test]
    fn a_users_share_lasts_as_long_as_anything_of_it_is_taken() {
        let workloads = Workloads::new(0);
        let one = workloads.add(started(1, 1000));
        drop(workloads.add(started(2, 0)));
        assert_eq!(workloads.shares.len(), 2);
        workloads.remove(2);
        assert_eq!(workloads.shares.len(), 1);
        let places: Vec<_> = (0..OF_STARTED).map(|_| one.exchange()).collect();
        workloads.remove(1);
        drop(one);
        // What is not over counts for the next of that user's.
        let next = workloads.add(started(3, 1000));
        let more: Vec<_> = (OF_STARTED..OF_USER).map(|_| next.exchange()).collect();
        assert!(more.iter().all(Option::is_some));
        assert!(next.exchange().is_none());
        workloads.remove(3);
        drop((next, more));
        assert_eq!(workloads.shares.len(), 1);
        drop(places);
        assert_eq!(workloads.shares.len(), 0);
    }
}
