//! Tasks, whose results come under other methods than the call's: learnt of, and for their caller alone.

use exeat_policy::Underway;

use super::answer;
use super::judge::{NotPassed, Talking, Told};
use crate::decide::InForce;
use crate::decode::rpc::Message;
use crate::identify::tasks::Became;
use crate::refuse::{Refusal, Subject};

impl Talking {
    /// Learns from a notification of the server how one of its tasks stands.
    pub(super) fn learn_task(&self, message: &Message) {
        let told = message.method().is_some_and(|method| {
            matches!(method, "notifications/tasks" | "notifications/tasks/status")
        });
        if let Some(task) = message.params().filter(|_| told).and_then(answer::task) {
            self.stages.calls.task(&self.account.callee, task);
        }
    }

    /// The call of this caller that became this task.
    pub(super) fn became(&self, task: Option<&str>) -> Option<Became> {
        self.stages.calls.became(&self.account, task?)
    }

    /// May the client ask after this task, if its message names one? Of one that is not known it is told what a server
    /// without it would say; where the method does not exist in the era of the message (`exists`), that.
    pub(super) fn asks_after(
        &self,
        policy: &InForce,
        task: Option<&str>,
        exists: bool,
    ) -> Result<(), NotPassed> {
        let Some(task) = task else {
            return Ok(());
        };
        self.may_have(policy, Some(task))
            .map(drop)
            .map_err(|refused| NotPassed {
                told: if exists {
                    refused.told
                } else {
                    Told::Plain(Refusal::Hidden(Subject::Method, ""))
                },
                ..refused
            })
    }

    /// What comes of a call under its task's id is for its caller alone, and only while the call's tool is shown to it:
    /// ids can be guessed, and `tasks/*` names no tool that a rule could tell apart. Of a task that is not known nobody
    /// can say whose it is.
    pub(super) fn may_have(
        &self,
        policy: &InForce,
        task: Option<&str>,
    ) -> Result<Became, NotPassed> {
        let denied = |why| Err(NotPassed::plain(Refusal::Hidden(Subject::Task, ""), why));
        let Some(became) = self.became(task) else {
            return denied("no task that a call of this caller is known to have become");
        };
        let is_shown = |asks: &Underway| match asks {
            Underway::Call(tool) => {
                let hints = self.stages.observed.hints(&self.account, tool);
                self.lists(policy, tool, hints.unwrap_or_default())
            }
            Underway::Other => true,
            Underway::Unknown => false,
        };
        if !became.asks().all(is_shown) {
            return denied("the task is a call of a tool that the caller is not shown, or may be");
        }
        Ok(became)
    }
}
