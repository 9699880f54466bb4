//! Whose work a task is: the call that became it, so that what comes later under the task's id is known as that call's
//! (2025-11-25 "Tasks", and the extension `io.modelcontextprotocol/tasks`).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use exeat_policy::Underway;

use super::calls::Callee;
use crate::audit::RecordId;

/// The longest id of a task that is remembered, in bytes.
const ID: usize = 256;
/// Tasks that are remembered, ended ones too, since their results are asked for later. The oldest is forgotten.
const KEPT: usize = 16_384;

/// The call that became a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Became {
    /// The id of the call's record.
    pub record: RecordId,
    /// What it asked for.
    pub asks: Underway,
}

type Key = (Callee, Arc<str>);

/// The tasks that are known.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    known: HashMap<Key, Became>,
    order: VecDeque<Key>,
}

impl Tasks {
    /// `callee` answered a call by the id of a task. One whose id is in use is not taken for another call's: a server
    /// that says one id twice does not give one call's result out under another's name.
    pub(super) fn begin(&mut self, callee: &Callee, id: &str, became: Became) {
        let key: Key = (callee.clone(), Arc::from(id));
        if id.len() > ID || self.known.contains_key(&key) {
            return;
        }
        if self.order.len() >= KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.known.insert(key.clone(), became);
        self.order.push_back(key);
    }

    /// The call that became this task.
    pub(super) fn of(&self, callee: &Callee, id: &str) -> Option<Became> {
        let key: Key = (callee.clone(), Arc::from(id));
        self.known.get(&key).cloned()
    }

    /// The tasks of a workload that is gone are nobody's.
    pub(super) fn forget(&mut self, workload: u32) {
        let stays = |key: &Key| key.0 != Callee::Workload(workload);
        self.known.retain(|key, _| stays(key));
        self.order.retain(stays);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn became(number: usize) -> Became {
        let text = format!("01890a5d-ac96-774b-bcce-{number:012x}");
        Became {
            record: text.parse().expect("an id"),
            asks: Underway::Call(Arc::from("build")),
        }
    }

    #[test]
    fn a_task_is_its_first_calls_and_known_by_its_server_alone() {
        let mut tasks = Tasks::default();
        let (one, other) = (Callee::Workload(1), Callee::Server(Arc::from("s")));
        tasks.begin(&one, "t", became(1));
        tasks.begin(&one, "t", became(2));
        assert_eq!(tasks.of(&one, "t"), Some(became(1)));
        assert_eq!(tasks.of(&other, "t"), None);
        tasks.begin(&other, &"x".repeat(ID + 1), became(3));
        assert!(tasks.known.len() == 1 && tasks.order.len() == 1);
        tasks.forget(1);
        assert!(tasks.known.is_empty() && tasks.order.is_empty());
    }

    #[test]
    fn no_more_are_kept_than_there_is_room_for() {
        let mut tasks = Tasks::default();
        let callee = Callee::Workload(1);
        for number in 0..=KEPT {
            tasks.begin(&callee, &number.to_string(), became(1));
        }
        assert_eq!((tasks.known.len(), tasks.order.len()), (KEPT, KEPT));
        assert_eq!(tasks.of(&callee, "0"), None);
        assert!(tasks.of(&callee, &KEPT.to_string()).is_some());
    }
}
