//! Whose work a task is: the call that became it, so that what comes later under the task's id is known as that call's
//! (2025-11-25 "Tasks", and the extension `io.modelcontextprotocol/tasks`). A task is its caller's alone: ids can be
//! guessed, and a server that many reach under one credential cannot tell whose they are.

use std::iter;
use std::sync::Arc;

use exeat_policy::Underway;

use super::account::Account;
use super::calls::Callee;
use crate::audit::RecordId;
use crate::audit::record::Cause;
use crate::bounded::Fair;

/// The longest id of a task that is remembered, in bytes.
const ID: usize = 256;
/// Tasks that are remembered, ended ones too, since their results are asked for later.
const KEPT: usize = 65_536;
/// Tasks of one caller at one server.
const EACH: usize = 16_384;

/// Calls of one caller that are told apart under one id.
const CALLS: usize = 8;

/// The call that became a task: of several for which its server said one id, each may be it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Became {
    record: RecordId,
    asks: Underway,
    others: Vec<(RecordId, Underway)>,
}

impl Became {
    fn of(record: RecordId, asks: Underway) -> Self {
        Self {
            record,
            asks,
            others: Vec::new(),
        }
    }

    /// It may be this call, too.
    fn or(&mut self, record: RecordId, asks: Underway) {
        if self.records().any(|known| known == record) {
            return;
        }
        if self.others.len() < CALLS - 1 {
            self.others.push((record, asks));
        } else if !self.asks().any(|known| *known == asks)
            && let Some((_, last)) = self.others.last_mut()
        {
            *last = Underway::Unknown;
        }
    }

    fn records(&self) -> impl Iterator<Item = RecordId> {
        iter::once(self.record).chain(self.others.iter().map(|(record, _)| *record))
    }

    /// What it asked for, or may have: of too many calls [`Underway::Unknown`] as well.
    pub fn asks(&self) -> impl Iterator<Item = &Underway> {
        iter::once(&self.asks).chain(self.others.iter().map(|(_, asks)| asks))
    }

    /// The id of the call's record, if it is known which it is.
    pub fn record(&self) -> Option<RecordId> {
        self.others.is_empty().then_some(self.record)
    }

    /// What is done for the task is done for this.
    pub fn cause(&self) -> Cause {
        self.record()
            .map_or_else(|| Cause::Candidates(self.records().collect()), Cause::Id)
    }
}

/// The tasks that are known.
#[derive(Debug)]
pub(super) struct Tasks(Fair<Account, Arc<str>, Became>);

impl Default for Tasks {
    fn default() -> Self {
        Self(Fair::new(KEPT, EACH))
    }
}

impl Tasks {
    /// A call of `account` was answered by the id of a task. A server that says one id of several calls does not give one
    /// call's result out under another's name.
    pub(super) fn begin(&mut self, account: &Account, id: &str, record: RecordId, asks: Underway) {
        if id.len() > ID {
            return;
        }
        match self.0.get(account, id) {
            Some(became) => became.or(record, asks),
            None => self
                .0
                .insert(account, Arc::from(id), Became::of(record, asks)),
        }
    }

    /// The call of `account` that became this task.
    pub(super) fn of(&mut self, account: &Account, id: &str) -> Option<Became> {
        self.0.get(account, id).cloned()
    }

    /// The tasks of a workload that is gone are nobody's.
    pub(super) fn forget(&mut self, workload: u32) {
        self.0
            .retain(|account| account.callee != Callee::Workload(workload));
    }
}

#[cfg(test)]
mod tests {
    use super::super::account::Whose;
    use super::*;

    fn id(number: usize) -> RecordId {
        let text = format!("01890a5d-ac96-774b-bcce-{number:012x}");
        text.parse().expect("an id")
    }

    fn call(tool: &str) -> Underway {
        Underway::Call(Arc::from(tool))
    }

    fn begin(tasks: &mut Tasks, account: &Account, task: &str, number: usize) {
        tasks.begin(account, task, id(number), call("build"));
    }

    fn became(number: usize) -> Became {
        Became::of(id(number), call("build"))
    }

    fn account(callee: Callee) -> Account {
        Account {
            callee,
            whose: Whose::nobody(),
        }
    }

    #[test]
    fn a_task_is_its_calls_and_known_by_its_server_alone() {
        let mut tasks = Tasks::default();
        let one = account(Callee::Workload(1));
        let other = account(Callee::Server(Arc::from("s")));
        begin(&mut tasks, &one, "t", 1);
        begin(&mut tasks, &one, "t", 1);
        assert_eq!(tasks.of(&one, "t"), Some(became(1)));
        assert_eq!(tasks.of(&other, "t"), None);
        begin(&mut tasks, &other, &"x".repeat(ID + 1), 3);
        assert_eq!(tasks.0.len(), 1);
        tasks.forget(1);
        assert!(tasks.0.is_empty());
    }

    #[test]
    fn of_calls_that_were_told_one_id_each_may_be_the_task() {
        let mut tasks = Tasks::default();
        let one = account(Callee::Workload(1));
        let mut told = |number, tool: &str| {
            tasks.begin(&one, "t", id(number), call(tool));
            tasks.of(&one, "t").expect("a task")
        };
        let asks = |became: &Became| became.asks().cloned().collect::<Vec<_>>();
        let first = told(1, "a");
        assert_eq!(first.cause(), Cause::Id(id(1)));
        assert_eq!(
            (first.record(), asks(&first)),
            (Some(id(1)), vec![call("a")])
        );
        let second = told(2, "b");
        assert_eq!(second.cause(), Cause::Candidates(vec![id(1), id(2)]));
        assert_eq!(second.record(), None);
        assert_eq!(asks(&second), [call("a"), call("b")]);
        for number in 3..=CALLS {
            told(number, "c");
        }
        // Of a tool that is known nothing more has to be, and of any other too much.
        let full = told(CALLS + 1, "a");
        assert_eq!(asks(&full).len(), CALLS);
        assert!(!asks(&full).contains(&Underway::Unknown));
        let beyond = told(CALLS + 2, "d");
        assert_eq!(asks(&beyond).len(), CALLS);
        assert!(asks(&beyond).contains(&Underway::Unknown));
        assert!(asks(&beyond).starts_with(&[call("a"), call("b"), call("c")]));
    }

    #[test]
    fn no_more_are_kept_than_there_is_room_for() {
        let mut tasks = Tasks::default();
        let few = account(Callee::Workload(2));
        begin(&mut tasks, &few, "t", 2);
        let flood = account(Callee::Workload(1));
        for number in 0..=EACH {
            begin(&mut tasks, &flood, &number.to_string(), 1);
        }
        assert_eq!(tasks.0.len(), EACH + 1);
        assert_eq!(tasks.of(&flood, "0"), None);
        assert!(tasks.of(&flood, &EACH.to_string()).is_some());
        assert_eq!(tasks.of(&few, "t"), Some(became(2)));
    }
}
