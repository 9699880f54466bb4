//! Whose work a task is: the call that became it, so that what comes later under the task's id is known as that call's
//! (2025-11-25 "Tasks", and the extension `io.modelcontextprotocol/tasks`). A task is its caller's alone: ids can be
//! guessed, and a server that many reach under one credential cannot tell whose they are.

use std::sync::Arc;

use exeat_policy::Underway;

use super::account::Account;
use super::calls::Callee;
use crate::audit::RecordId;
use crate::bounded::Fair;

/// The longest id of a task that is remembered, in bytes.
const ID: usize = 256;
/// Tasks that are remembered, ended ones too, since their results are asked for later.
const KEPT: usize = 65_536;
/// Tasks of one caller at one server.
const EACH: usize = 16_384;

/// The call that became a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Became {
    /// The id of the call's record.
    pub record: RecordId,
    /// What it asked for.
    pub asks: Underway,
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
    /// A call of `account` was answered by the id of a task. One whose id is in use is not taken for another call's: a
    /// server that says one id twice does not give one call's result out under another's name.
    pub(super) fn begin(&mut self, account: &Account, id: &str, became: Became) {
        if id.len() <= ID && !self.0.contains(account, id) {
            self.0.insert(account, Arc::from(id), became);
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

    fn became(number: usize) -> Became {
        let text = format!("01890a5d-ac96-774b-bcce-{number:012x}");
        Became {
            record: text.parse().expect("an id"),
            asks: Underway::Call(Arc::from("build")),
        }
    }

    fn account(callee: Callee) -> Account {
        Account {
            callee,
            whose: Whose::nobody(),
        }
    }

    #[test]
    fn a_task_is_its_first_calls_and_known_by_its_server_alone() {
        let mut tasks = Tasks::default();
        let one = account(Callee::Workload(1));
        let other = account(Callee::Server(Arc::from("s")));
        tasks.begin(&one, "t", became(1));
        tasks.begin(&one, "t", became(2));
        assert_eq!(tasks.of(&one, "t"), Some(became(1)));
        assert_eq!(tasks.of(&other, "t"), None);
        tasks.begin(&other, &"x".repeat(ID + 1), became(3));
        assert_eq!(tasks.0.len(), 1);
        tasks.forget(1);
        assert!(tasks.0.is_empty());
    }

    #[test]
    fn no_more_are_kept_than_there_is_room_for() {
        let mut tasks = Tasks::default();
        let few = account(Callee::Workload(2));
        tasks.begin(&few, "t", became(2));
        let flood = account(Callee::Workload(1));
        for number in 0..=EACH {
            tasks.begin(&flood, &number.to_string(), became(1));
        }
        assert_eq!(tasks.0.len(), EACH + 1);
        assert_eq!(tasks.of(&flood, "0"), None);
        assert!(tasks.of(&flood, &EACH.to_string()).is_some());
        assert_eq!(tasks.of(&few, "t"), Some(became(2)));
    }
}
