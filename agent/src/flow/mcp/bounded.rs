//! What a server answers to tool calls, as far as policy bounds it.

use std::sync::Arc;

use exeat_policy::Responses;

use super::judge::{NotPassed, Talking, Told};
use crate::audit::{OpenRecord, Text};
use crate::decide::InForce;
use crate::decode::json::Object;
use crate::decode::mcp::{Called, ResultFault, called, content, is_error, is_structured};
use crate::refuse::Refusal;

/// Why an answer is not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unacceptable {
    /// What whoever waits for it is told.
    pub(super) told: Refusal<'static>,
    /// What the record says.
    pub(super) why: &'static str,
}

impl From<Refusal<'static>> for Unacceptable {
    fn from(told: Refusal<'static>) -> Self {
        let why = "the server's answer was not acceptable";
        Self { told, why }
    }
}

impl From<ResultFault> for Unacceptable {
    fn from(fault: ResultFault) -> Self {
        Refusal::from(fault).into()
    }
}

impl Unacceptable {
    /// The same of a message that nobody waits for.
    pub(super) fn not_passed(self) -> NotPassed {
        NotPassed {
            told: Told::Plain(self.told),
            refused: None,
            why: self.why,
        }
    }
}

/// What records say of an answer for which there is no room.
pub(super) const NO_ROOM: &str =
    "no room to hold the server's answer: as much is held in memory as `limits.held_bytes` permits";

const TOO_LARGE: Unacceptable = Unacceptable {
    told: Refusal::ResponseTooLarge,
    why: "the server's answer was not acceptable: a result larger than `max_bytes`",
};
const CONTENT: Unacceptable = Unacceptable {
    told: Refusal::ResponseRefused,
    why: "the server's answer was not acceptable: content of a type that is not permitted",
};
const UNSTRUCTURED: Unacceptable = Unacceptable {
    told: Refusal::ResponseRefused,
    why: "the server's answer was not acceptable: a result without structured content",
};

/// What a policy that observes would have refused.
pub(super) struct Observed {
    policy: Arc<InForce>,
    would: Unacceptable,
}

impl Observed {
    /// Writes into the record of what is delivered what would have become of it.
    pub(super) fn tell(&self, record: &mut OpenRecord) {
        let mut record = record.record_mut();
        let decided = record.decision.take();
        let why = Text::fixed(self.would.why);
        record.decision = Some(self.policy.observed(decided, why));
    }
}

impl Talking {
    /// Whether the policy in force lets the results of tool calls that are in `said` reach the client: the server's
    /// answer to a request with `method` (`None`: it is not known what it answers), or what a notification says.
    pub(super) fn bounded(
        &self,
        method: Option<&str>,
        said: &Object,
    ) -> Result<Option<Observed>, Unacceptable> {
        let policy = self.stages.decider.in_force();
        let server = &self.talk.server;
        let Some(bounds) = policy.set.responses(server) else {
            return Ok(None);
        };
        let judged = called(method, said).map_err(Unacceptable::from);
        let judged =
            judged.and_then(|each| each.into_iter().try_for_each(|one| within(bounds, one)));
        let Err(would) = judged else {
            return Ok(None);
        };
        if policy.set.observes(server) {
            return Ok(Some(Observed { policy, would }));
        }
        Err(would)
    }
}

fn within(bounds: &Responses, called: Called<'_>) -> Result<(), Unacceptable> {
    let Called { result, ended } = called;
    if let Some(most) = bounds.max_bytes {
        let mut text = String::new();
        result.write(&mut text);
        if text.len() as u64 > most {
            return Err(TOO_LARGE);
        }
    }
    if bounds.content.is_some() && !content(result)?.into_iter().all(|of| bounds.permits(of)) {
        return Err(CONTENT);
    }
    if bounds.structured && ended && !is_error(result) && !is_structured(result) {
        return Err(UNSTRUCTURED);
    }
    Ok(())
}
