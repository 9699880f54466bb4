//! What servers are asked and may still be doing, by who carries it out: what an outbound request of their processes
//! can be caused by.
//!
//! Only the server's own answer ends a request here. Whatever else ends it for its caller (a cancellation, a closed
//! connection, a time-out) leaves it among what may have caused something, since its server may go on with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use exeat_policy::Underway;
use tokio::time::Instant;

use super::account::{Account, Whose};
use super::tasks::{Became, Tasks};
use crate::audit::RecordId;
use crate::audit::record::Cause;

/// Candidates named in one record; a server with more requests in flight names the newest.
const NAMED: usize = 16;
/// How long a request counts for which nobody waits and that its server does not answer.
const LINGERS: Duration = Duration::from_secs(30);
/// How long one counts whose server said that the answer comes later, each time it says so.
const LATER: Duration = Duration::from_mins(10);
/// Requests of one callee that count though nobody waits for them. What is more may have asked anything.
const LINGERING: usize = 256;
/// The longest id of a task by which its end is recognised, in bytes.
const TASK_ID: usize = 256;

/// Whose request it is to carry out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Callee {
    /// A server that is reached over HTTP, whichever of its processes answers.
    Server(Arc<str>),
    /// One workload: two instances of a stdio server are not each other's cause.
    Workload(u32),
}

/// What may have caused an outbound request.
#[derive(Debug, Default)]
pub struct Causing {
    /// For the record.
    pub cause: Option<Cause>,
    /// What all requests in flight ask for, one for each.
    pub underway: Vec<Underway>,
}

/// What a server says of a task, the work of a call that it has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task<'a> {
    /// It goes on.
    Works(&'a str),
    /// It was cancelled, and may go on all the same.
    Left(&'a str),
    /// It has ended.
    Over(&'a str),
}

/// How an answer leaves what it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered<'a> {
    /// Nothing more is done for it.
    Whole,
    /// The answer itself comes later: on another stream.
    Elsewhere,
    /// The answer itself comes later: under this task.
    Task(&'a str),
    /// Nothing more is done for it, and this task, which has ended, tells what came of it.
    Ended(&'a str),
}

/// A request in flight.
#[derive(Debug)]
struct Request {
    record: RecordId,
    asks: Underway,
    /// Who asked.
    whose: Whose,
    lingers: Option<Lingers>,
}

/// Nobody waits for it any more.
#[derive(Debug)]
struct Lingers {
    until: Instant,
    task: Option<Box<str>>,
}

/// What one callee is asked.
#[derive(Debug, Default)]
struct Asked {
    requests: Vec<Request>,
    /// The last of those for which there was no room, and how long they count.
    forgotten: Option<(RecordId, Instant)>,
}

#[derive(Debug, Default)]
struct Table {
    asked: HashMap<Callee, Asked>,
    tasks: Tasks,
}

/// The requests in flight.
#[derive(Debug, Default)]
pub struct Calls {
    table: Arc<Mutex<Table>>,
}

/// One request in flight. Dropped, nobody waits for it any more, and it lingers.
#[derive(Debug)]
pub struct InFlight {
    table: Arc<Mutex<Table>>,
    callee: Callee,
    record: RecordId,
}

/// Whether a request with this method has its server act on somebody's behalf. Greetings and pings do not, nor does
/// what lasts or asks after a task, whose call is in flight itself.
pub fn acts(method: &str) -> bool {
    const STANDING: [&str; 5] = [
        "initialize",
        "logging/setLevel",
        "ping",
        "server/discover",
        "subscriptions/listen",
    ];
    !STANDING.contains(&method) && !method.starts_with("tasks/")
}

impl Calls {
    /// A request of this account begins; `record` is the id of its record.
    pub fn begin(&self, account: Account, record: RecordId, asks: Underway) -> InFlight {
        let Account { callee, whose } = account;
        let mut table = lock(&self.table);
        table
            .asked
            .entry(callee.clone())
            .or_default()
            .begin(record, asks, whose);
        InFlight {
            table: Arc::clone(&self.table),
            callee,
            record,
        }
    }

    /// How many requests to `server`, whose workloads `is_its` knows, are waited for.
    pub fn in_flight(&self, server: &str, is_its: impl Fn(u32) -> bool) -> usize {
        let table = lock(&self.table);
        let of_it = table.asked.iter().filter(|(callee, _)| match callee {
            Callee::Server(name) => **name == *server,
            Callee::Workload(number) => is_its(*number),
        });
        of_it.map(|(_, asked)| asked.waited_for()).sum()
    }

    /// What a request of a process of `server`, in this workload, was caused by, as things stand now.
    pub fn cause(&self, server: &str, workload: u32) -> Option<Cause> {
        self.of(server, workload, Asked::cause).flatten()
    }

    /// The same with what is asked for, both of one moment.
    pub fn causing(&self, server: &str, workload: u32) -> Causing {
        let told = self.of(server, workload, |asked| Causing {
            cause: asked.cause(),
            underway: asked.underway(),
        });
        told.unwrap_or_default()
    }

    /// What `tell` says of what this workload of `server` is asked.
    fn of<T>(&self, server: &str, workload: u32, tell: impl FnOnce(&Asked) -> T) -> Option<T> {
        let mut table = lock(&self.table);
        if table.asked.is_empty() {
            return None;
        }
        let now = Instant::now();
        let mut current = |callee: &Callee| {
            let asked = table.asked.get_mut(callee)?;
            asked.expire(now);
            Some(!asked.is_empty())
        };
        let own = Callee::Workload(workload);
        let callee = if current(&own).unwrap_or_default() {
            own
        } else {
            let server = Callee::Server(Arc::from(server));
            current(&server)?;
            server
        };
        table.asked.get(&callee).map(tell)
    }

    /// The request of this record, for which nobody waits any more, was answered after all.
    pub fn answered(&self, callee: &Callee, record: RecordId, how: Answered<'_>) {
        lock(&self.table).answered(callee, record, how);
    }

    /// `callee` says how one of its tasks stands.
    pub fn task(&self, callee: &Callee, task: Task<'_>) {
        if let Some(asked) = lock(&self.table).asked.get_mut(callee) {
            asked.task(task, Instant::now());
        }
    }

    /// The call of this account that became this task.
    pub fn became(&self, account: &Account, task: &str) -> Option<Became> {
        lock(&self.table).tasks.of(account, task)
    }

    /// A workload is gone, and does nothing more.
    pub fn forget(&self, workload: u32) {
        let now = Instant::now();
        let mut table = lock(&self.table);
        table.tasks.forget(workload);
        table.asked.retain(|callee, asked| {
            asked.expire(now);
            *callee != Callee::Workload(workload) && !asked.is_empty()
        });
    }
}

impl InFlight {
    /// The id of the request's record.
    pub fn record(&self) -> RecordId {
        self.record
    }

    /// It was never sent.
    pub fn unsent(self) {
        self.answered(Answered::Whole);
    }

    /// Its server answered.
    pub fn answered(self, how: Answered<'_>) {
        lock(&self.table).answered(&self.callee, self.record, how);
        // What is dropped now finds it gone, or lingering already.
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut table = lock(&self.table);
        // Where there is none, its workload is gone.
        let Some(asked) = table.asked.get_mut(&self.callee) else {
            return;
        };
        asked.left(self.record, now);
        if asked.is_empty() {
            table.asked.remove(&self.callee);
        }
    }
}

impl Table {
    fn answered(&mut self, callee: &Callee, record: RecordId, how: Answered<'_>) {
        let Some(asked) = self.asked.get_mut(callee) else {
            return;
        };
        let asks = asked.answered(record, how, Instant::now());
        if let (Some((asks, whose)), Answered::Task(id) | Answered::Ended(id)) = (asks, how) {
            let callee = callee.clone();
            let account = Account { callee, whose };
            self.tasks.begin(&account, id, record, asks);
        }
    }
}

impl Asked {
    fn begin(&mut self, record: RecordId, asks: Underway, whose: Whose) {
        self.requests.push(Request {
            record,
            asks,
            whose,
            lingers: None,
        });
    }

    fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.forgotten.is_none()
    }

    fn waited_for(&self) -> usize {
        let waited = self.requests.iter().filter(|one| one.lingers.is_none());
        waited.count()
    }

    fn cause(&self) -> Option<Cause> {
        match (self.requests.as_slice(), self.forgotten) {
            ([], None) => None,
            ([one], None) => Some(Cause::Id(one.record)),
            (several, forgotten) => {
                let newest = several.iter().rev().map(|one| one.record);
                let all = newest.chain(forgotten.map(|(record, _)| record));
                Some(Cause::Candidates(all.take(NAMED).collect()))
            }
        }
    }

    fn underway(&self) -> Vec<Underway> {
        let known = self.requests.iter().map(|one| one.asks.clone());
        known
            .chain(self.forgotten.map(|_| Underway::Unknown))
            .collect()
    }

    /// Forgets what counts no more.
    fn expire(&mut self, now: Instant) {
        self.requests
            .retain(|one| one.lingers.as_ref().is_none_or(|it| it.until > now));
        self.forgotten = self.forgotten.filter(|(_, until)| *until > now);
    }

    /// Nobody waits for the request of this record any more.
    fn left(&mut self, record: RecordId, now: Instant) {
        let mut own = self.requests.iter_mut().filter(|one| one.record == record);
        if let Some(one) = own.find(|one| one.lingers.is_none()) {
            one.lingers = Some(Lingers {
                until: now + LINGERS,
                task: None,
            });
            self.bound(now);
        }
    }

    /// What was answered had asked for this, and who; `None`: it is not known.
    fn answered(
        &mut self,
        record: RecordId,
        how: Answered<'_>,
        now: Instant,
    ) -> Option<(Underway, Whose)> {
        let index = self.requests.iter().position(|one| one.record == record)?;
        let task = match how {
            Answered::Whole | Answered::Ended(_) => {
                let Request { asks, whose, .. } = self.requests.remove(index);
                return Some((asks, whose));
            }
            Answered::Elsewhere => None,
            Answered::Task(id) => Some(id).filter(|id| id.len() <= TASK_ID),
        };
        let one = self.requests.get_mut(index)?;
        one.lingers = Some(Lingers {
            until: now + LATER,
            task: task.map(Box::from),
        });
        let (asks, whose) = (one.asks.clone(), one.whose.clone());
        self.bound(now);
        Some((asks, whose))
    }

    fn task(&mut self, task: Task<'_>, now: Instant) {
        let (Task::Works(id) | Task::Left(id) | Task::Over(id)) = task;
        let is_it = |one: &Request| {
            let lingers = one.lingers.as_ref();
            lingers.is_some_and(|it| it.task.as_deref() == Some(id))
        };
        if let Task::Over(_) = task {
            return self.requests.retain(|one| !is_it(one));
        }
        for one in self.requests.iter_mut().filter(|one| is_it(one)) {
            if let Some(lingers) = &mut one.lingers {
                lingers.until = match task {
                    Task::Left(_) => lingers.until.min(now + LINGERS),
                    Task::Works(_) | Task::Over(_) => now + LATER,
                };
            }
        }
    }

    /// Makes room: what counts the shortest is forgotten first, and stands for anything until then.
    fn bound(&mut self, now: Instant) {
        self.expire(now);
        while self.requests.len().saturating_sub(self.waited_for()) > LINGERING {
            let until = |one: &Request| one.lingers.as_ref().map(|it| it.until);
            let lingering = self.requests.iter().enumerate();
            let first = lingering
                .filter_map(|(index, one)| Some((until(one)?, index)))
                .min();
            let Some((until, index)) = first else { return };
            let record = self.requests.remove(index).record;
            let before = self.forgotten.map_or(until, |(_, before)| before);
            self.forgotten = Some((record, until.max(before)));
        }
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use exeat_policy::Underway;
    use tokio::time::Instant;

    use super::super::account::{Account, Whose};
    use super::{Answered, Asked, Callee, Calls, LATER, LINGERING, LINGERS, NAMED, Task, acts};
    use crate::audit::RecordId;
    use crate::audit::record::Cause;

    fn id(number: usize) -> RecordId {
        let text = format!("01890a5d-ac96-774b-bcce-{number:012x}");
        text.parse().expect("an id")
    }

    fn tool(name: &str) -> Underway {
        Underway::Call(Arc::from(name))
    }

    fn of(callee: Callee) -> Account {
        Account {
            callee,
            whose: Whose::nobody(),
        }
    }

    #[test]
    fn one_request_is_the_cause_and_several_are_candidates() {
        let (one, two) = (id(1), id(2));
        let calls = Calls::default();
        let github = || of(Callee::Server(Arc::from("github")));
        assert_eq!(calls.cause("github", 1), None);
        let first = calls.begin(github(), one, tool("get"));
        assert_eq!(calls.cause("github", 1), Some(Cause::Id(one)));
        assert_eq!(calls.cause("linear", 1), None);
        let second = calls.begin(github(), two, Underway::Other);
        let both = Some(Cause::Candidates(vec![two, one]));
        assert_eq!(calls.cause("github", 1), both);
        let underway = calls.causing("github", 1).underway;
        assert_eq!(underway, [tool("get"), Underway::Other]);
        assert!(calls.causing("linear", 1).underway.is_empty());
        first.answered(Answered::Whole);
        assert_eq!(calls.cause("github", 1), Some(Cause::Id(two)));
        second.unsent();
        assert_eq!(calls.cause("github", 1), None);
    }

    /// Call one tool, leave it, and let another's call lend its name and its credential to what the first still does.
    #[test]
    fn what_its_caller_leaves_stays_among_the_causes_until_it_is_answered() {
        let calls = Calls::default();
        let callee = Callee::Workload(7);
        let left = calls.begin(of(callee.clone()), id(1), tool("set"));
        drop(left);
        assert_eq!(calls.cause("github", 7), Some(Cause::Id(id(1))));
        assert_eq!(
            calls.in_flight("github", |_| true),
            0,
            "nobody waits for it"
        );
        let other = calls.begin(of(callee.clone()), id(2), tool("get"));
        let causing = calls.causing("github", 7);
        let both = Cause::Candidates(vec![id(2), id(1)]);
        assert_eq!(causing.cause, Some(both));
        assert_eq!(causing.underway, [tool("set"), tool("get")]);
        calls.answered(&callee, id(1), Answered::Whole);
        assert_eq!(calls.cause("github", 7), Some(Cause::Id(id(2))));
        drop(other);
        calls.forget(7);
        assert_eq!(calls.cause("github", 7), None, "its processes are gone");
        // What ends after its workload does not bring it back.
        let late = calls.begin(of(callee), id(3), tool("get"));
        calls.forget(7);
        drop(late);
        assert_eq!(calls.cause("github", 7), None);
    }

    #[test]
    fn what_lingers_does_so_for_its_time() {
        let now = Instant::now();
        let mut asked = Asked::default();
        asked.begin(id(1), tool("set"), Whose::nobody());
        asked.left(id(1), now);
        asked.left(id(1), now + LINGERS / 2);
        asked.expire(now + LINGERS * 9 / 10);
        assert_eq!(asked.cause(), Some(Cause::Id(id(1))));
        asked.expire(now + LINGERS);
        assert!(asked.is_empty());
    }

    #[test]
    fn a_call_that_became_a_task_lasts_as_long_as_the_task() {
        let now = Instant::now();
        let mut asked = Asked::default();
        asked.begin(id(1), tool("set"), Whose::nobody());
        asked.answered(id(1), Answered::Task("t1"), now);
        // The answer is given, and what carried it goes.
        asked.left(id(1), now);
        asked.task(Task::Works("t1"), now + LATER / 2);
        asked.task(Task::Over("t2"), now + LATER / 2);
        asked.expire(now + LATER);
        assert_eq!(asked.cause(), Some(Cause::Id(id(1))));
        asked.task(Task::Left("t1"), now + LATER);
        assert!(!asked.is_empty());
        asked.expire(now + LATER + LINGERS);
        assert!(asked.is_empty());
        asked.begin(id(1), tool("set"), Whose::nobody());
        asked.answered(id(1), Answered::Task("t1"), now);
        asked.task(Task::Over("t1"), now);
        assert!(asked.is_empty());
        asked.begin(id(2), tool("set"), Whose::nobody());
        asked.answered(id(2), Answered::Elsewhere, now);
        asked.expire(now + LINGERS);
        assert!(!asked.is_empty());
        asked.answered(id(2), Answered::Whole, now + LINGERS);
        assert!(asked.is_empty());
    }

    /// More calls that are left than are kept must not make the causes of others certain.
    #[test]
    fn what_there_is_no_room_for_may_have_been_anything() {
        let now = Instant::now();
        let mut asked = Asked::default();
        asked.begin(id(0), tool("set"), Whose::nobody());
        asked.left(id(0), now);
        let later = now + LINGERS / 2;
        for number in 1..=LINGERING {
            asked.begin(id(number), tool("get"), Whose::nobody());
            asked.left(id(number), later);
        }
        assert_eq!(asked.requests.len(), LINGERING);
        assert!(asked.underway().contains(&Underway::Unknown));
        for number in 1..=LINGERING {
            asked.answered(id(number), Answered::Whole, later);
        }
        // Only it is left: not certain, but named.
        assert_eq!(asked.cause(), Some(Cause::Candidates(vec![id(0)])));
        asked.begin(id(900), tool("get"), Whose::nobody());
        let both = Cause::Candidates(vec![id(900), id(0)]);
        assert_eq!(asked.cause(), Some(both));
        asked.expire(now + LINGERS);
        assert_eq!(asked.cause(), Some(Cause::Id(id(900))));
        for number in 0..NAMED {
            asked.begin(id(1000 + number), tool("get"), Whose::nobody());
        }
        let Some(Cause::Candidates(named)) = asked.cause() else {
            panic!("several are in flight")
        };
        assert_eq!(named.len(), NAMED);
    }

    #[test]
    fn instances_of_one_server_are_told_apart() {
        let calls = Calls::default();
        let _call = calls.begin(of(Callee::Workload(7)), id(1), tool("get"));
        assert_eq!(calls.cause("github", 7), Some(Cause::Id(id(1))));
        assert_eq!(calls.cause("github", 8), None);
    }

    #[test]
    fn what_a_server_is_asked_has_it_act_but_for_greetings_and_what_lasts() {
        for method in ["tools/call", "resources/read", "prompts/get", "acme/own"] {
            assert!(acts(method), "{method}");
        }
        for method in ["initialize", "ping", "subscriptions/listen", "tasks/result"] {
            assert!(!acts(method), "{method}");
        }
    }
}
