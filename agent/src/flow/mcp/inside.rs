//! What a message asks for inside: what a server asks of its client in a result or a notification, the only way that it
//! has in 2026-07-28, and the resources that `subscriptions/listen` names. Each is decided and recorded as if it had come
//! by itself, caused by what carries it.

use super::bounded::{Observed, Unacceptable};
use super::judge::{NotPassed, Seen, Talking, Told, unjudgeable, unviewable};
use crate::audit::record::{Cause, Kind, Session, Side, Stage};
use crate::audit::{OpenRecord, Outcome, Shared, Start};
use crate::decide::{InForce, Message as AboutMessage, Permit};
use crate::decode::json::{Object, Value};
use crate::decode::mcp::{Embedded, embedded, subscribed};
use crate::decode::rpc::Message;
use crate::flow::describe::Story as _;
use crate::refuse::Refusal;

const REFUSED: &str =
    "the server's answer was not acceptable: it asks for something that is refused";
/// What a notification says of a task that is nothing of what came of it (2025-11-25 schema, `Task`).
const STATE: [&str; 9] = [
    "_meta",
    "createdAt",
    "lastUpdatedAt",
    "pollInterval",
    "pollIntervalMs",
    "status",
    "taskId",
    "ttl",
    "ttlMs",
];
const UNRECORDED: Unacceptable = Unacceptable {
    told: Refusal::AuditUnavailable,
    why: "the server's answer was not acceptable: what it asks for could not be recorded",
};

/// The records of requests that may pass, until it is known whether what carries them does.
#[derive(Default)]
#[must_use = "dropping them closes the records as abandoned"]
pub(super) struct Inside(Vec<OpenRecord>);

impl Inside {
    /// What carries them is `delivered`, or is not.
    pub(super) fn end(self, delivered: bool) {
        for record in self.0 {
            if delivered {
                // In the writer's queue before it is passed on.
                drop(record.close(Outcome::done()));
            } else {
                record.refuse_with("what carries the request is not delivered");
            }
        }
    }
}

impl Talking {
    /// Decides on what `result` asks for; `record` is of the answer.
    ///
    /// # Errors
    /// Why it is not delivered.
    pub(super) fn inside_result(
        &self,
        record: &mut OpenRecord,
        result: &Object,
    ) -> Result<Inside, Unacceptable> {
        let requests = embedded(result)?;
        if requests.is_empty() {
            return Ok(Inside::default());
        }
        let session = record.record_mut().session.clone();
        self.inside(&requests, session, Some(Cause::Id(record.id())))
    }

    /// May what a server tells or asks pass, which does not always have a record ([`Talking::tell_call`])? A
    /// notification may carry a task's result, and in it what the server asks of the client; what an observing policy
    /// would have made of it stands beside.
    pub(super) fn consider_told(
        &self,
        message: &Message,
        session: Option<Shared<Session>>,
    ) -> (Result<Permit<AboutMessage>, NotPassed>, Option<Observed>) {
        self.learn_task(message);
        match self.carried(message, session) {
            Ok((inside, observed)) => {
                let judged = self.consider(Side::Server, message);
                inside.end(judged.is_ok());
                (judged, observed)
            }
            Err(not_passed) => (Err(not_passed), None),
        }
    }

    fn carried(
        &self,
        message: &Message,
        session: Option<Shared<Session>>,
    ) -> Result<(Inside, Option<Observed>), NotPassed> {
        let (Some(method @ ("notifications/tasks" | "notifications/tasks/status")), Some(params)) =
            (message.method(), message.params())
        else {
            return Ok((Inside::default(), None));
        };
        let requests = embedded(params).map_err(|_fault| unjudgeable())?;
        let task = params.get("taskId").and_then(Value::as_str);
        let cause = match self.became(task) {
            // A server may tell of a task before the answer by which its call became one.
            None if params.keys().all(|key| STATE.contains(&key)) => None,
            Some(_) | None => {
                let call = self.may_have(&self.stages.decider.in_force(), task)?;
                Some(call.cause())
            }
        };
        let inside = self.inside(&requests, session, cause);
        let inside = inside.map_err(Unacceptable::not_passed)?;
        match self.bounded(Some(method), params) {
            Ok(observed) => Ok((inside, observed)),
            Err(unacceptable) => {
                inside.end(false);
                Err(unacceptable.not_passed())
            }
        }
    }

    /// May changes of the resources that `message`, whose record this is, asks for be listened to? Each as by a
    /// `resources/subscribe` of its own.
    pub(super) fn listens(
        &self,
        policy: &InForce,
        record: &mut OpenRecord,
        message: &Message,
    ) -> Result<Inside, NotPassed> {
        let mut inside = Inside::default();
        let judged = subscribed(message)
            .map_err(unviewable)?
            .into_iter()
            .try_for_each(|uri| {
                let seen = Seen {
                    method: "resources/subscribe",
                    name: Some(uri),
                    id: message.id(),
                    ..Seen::default()
                };
                let cause = record.id();
                let session = record.record_mut().session.clone();
                let opened = self.open_inside(session, Some(Cause::Id(cause)));
                let mut of_uri = opened.ok_or_else(|| {
                    let why = "what it is to listen to could not be recorded";
                    NotPassed::plain(Refusal::AuditUnavailable, why)
                })?;
                self.describe(policy, &mut of_uri, Side::Client, seen.method, Some(&seen));
                let judged = self.decide(policy, &mut of_uri, &seen);
                if judged.is_ok() {
                    inside.0.push(of_uri);
                } else {
                    record.stage(Stage::Decide);
                    let decision = of_uri.record_mut().decision.clone();
                    record.record_mut().decision = decision;
                    drop(of_uri.close(Outcome::refused()));
                }
                judged.map(drop)
            });
        match judged {
            Ok(()) => Ok(inside),
            Err(not_passed) => {
                inside.end(false);
                Err(not_passed)
            }
        }
    }

    /// Nothing may wait here: answers are judged inside a poll as well. `None`, too, where the workload has as many under
    /// way as it may.
    fn open_inside(
        &self,
        session: Option<Shared<Session>>,
        cause: Option<Cause>,
    ) -> Option<OpenRecord> {
        let start = Start {
            at: None,
            workload: Some(self.actor.process.clone()),
            identity: Some(self.actor.identity.clone()),
            session,
            cause,
        };
        let share = self.actor.known.exchange()?;
        let mut record = self.stages.log.try_open(Kind::Mcp, start).ok()?;
        record.hold(share);
        Some(record)
    }

    fn inside(
        &self,
        requests: &[Embedded<'_>],
        session: Option<Shared<Session>>,
        cause: Option<Cause>,
    ) -> Result<Inside, Unacceptable> {
        let mut inside = Inside::default();
        let mut fault = None;
        for request in requests {
            let Some(mut record) = self.open_inside(session.clone(), cause.clone()) else {
                fault = Some(UNRECORDED);
                break;
            };
            match self.judge_inside(&mut record, request) {
                Ok(permit) => {
                    drop(permit);
                    inside.0.push(record);
                }
                Err(not_passed) => {
                    fault = Some(Unacceptable {
                        told: match not_passed.told {
                            Told::Plain(told @ Refusal::LimitReached(_)) => told,
                            Told::Plain(_) | Told::HiddenTool(_) => Refusal::Denied,
                        },
                        why: REFUSED,
                    });
                    not_passed.record(record);
                }
            }
        }
        match fault {
            None => Ok(inside),
            Some(fault) => {
                inside.end(false);
                Err(fault)
            }
        }
    }
}
