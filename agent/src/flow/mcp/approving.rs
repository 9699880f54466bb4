//! Calls that a rule wants approved: what a person is asked, and what becomes of the call then.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use super::effects::Settled;
use super::judge::{NotPassed, Talking, Told, era};
use crate::audit::record::ResponseKind;
use crate::audit::{OpenRecord, Outcome, Text};
use crate::channel::{Approval, ApprovalCaller, Granted};
use crate::decide::approvals::{Asking, NotWaiting, Shown, Ticket, Word, names_of, recorded};
use crate::decode::json::{Limits, Object, Value, parse};
use crate::decode::rpc::{Id, Message, Notification, Outcome as Answered, Response};
use crate::flow::describe::{Story as _, read, unread};
use crate::identify::token::Verified;
use crate::intake::{Actor, Acts};
use crate::refuse::{Refusal, tool_error};

/// How often a client hears that its call still waits.
const ALIVE: Duration = Duration::from_secs(10);
/// The largest message that waits for a person, in bytes.
const MOST: usize = 64 << 10;
const META: &str = "_meta";
/// What in it is each message's own: by what its progress is told, and where it stands in a trace.
const OWN: [&str; 4] = ["progressToken", "traceparent", "tracestate", "baggage"];
/// What an approval does not know.
const UNSHOWABLE: &str = "a call that cannot be put before a person";

impl Talking {
    /// Has `message`, which needs an approval, wait for one.
    pub(super) fn ask(
        &self,
        record: &mut OpenRecord,
        message: &Message,
        not_passed: NotPassed,
        beside: &[&[u8]],
    ) -> Settled {
        let asks = not_passed
            .refused
            .as_ref()
            .and_then(|refused| refused.asks());
        let (Some(asks), Some((tool, params))) = (asks, call(message)) else {
            return Settled::Refused(not_passed);
        };
        // All of it, since it is held.
        if message.encode().len() > MOST {
            return Settled::Refused(NotPassed {
                refused: None,
                why: "a call that is too large to be put before a person",
                ..not_passed
            });
        }
        let arguments = params.get("arguments");
        let state = self.stages.decider.in_force();
        let bound = bound(params);
        let further = bound
            .keys()
            .filter(|key| !["name", "arguments"].contains(key));
        let further = further.map(|key| Text::new(key).to_string()).collect();
        let shown = Shown {
            arguments: arguments.map_or_else(Default::default, |arguments| {
                self.masked(&state, &arguments.to_serde()).0
            }),
            further,
            subject: self.actor.identity.subject.as_ref().map(Text::to_string),
            names: names_of(&self.actor.caller(), &state.set),
        };
        let Some(caller) = caller(&self.actor) else {
            return Settled::Refused(NotPassed::plain(Refusal::NeedsApproval, UNSHOWABLE));
        };
        let token = self.actor.token.as_deref().map(Verified::judged);
        let certificate = self.actor.certificate.as_ref();
        let certificate = certificate.map(|shown| shown.verified().judged());
        let bound = Value::Object(bound).to_text();
        let asked = self.stages.approvals.ask(Asking {
            server: &self.talk.server,
            tool,
            rules: asks.rules.clone(),
            caller,
            token: token.map(|token| (token.issuer, token.subject)),
            certificate: certificate.map(|shown| (shown.authority, shown.subject)),
            record: record.id().to_string(),
            arguments: &arguments.map(Value::to_text).unwrap_or_default(),
            bound: &bound,
            beside,
            shown,
            wait: asks.wait,
        });
        match asked {
            Ok(ticket) => {
                tell(record, ticket.approval(), None);
                Settled::Waits(Box::new(ticket))
            }
            Err(why) => Settled::Refused(not_waiting(why)),
        }
    }

    /// What becomes of `message` now that its wait has ended with `word`: an approval is used up, and the message
    /// judged anew by the policy that is in force by now.
    pub(super) async fn heard(
        &self,
        record: &mut OpenRecord,
        message: &Message,
        ticket: Ticket,
        word: Word,
    ) -> Settled {
        let refused = |refusal, why| Settled::Refused(NotPassed::plain(refusal, why));
        match word {
            Word::TimedOut => refused(Refusal::ApprovalTimedOut, "no approval in time"),
            Word::Stopping => refused(
                Refusal::ShuttingDown,
                "the daemon stopped before it was approved",
            ),
            Word::Denied { by, reason } => {
                let denied = (&by, "denied", reason.as_deref());
                tell(record, ticket.approval(), Some(denied));
                let Message::Request(request) = message else {
                    return refused(Refusal::Denied, "denied");
                };
                let response =
                    denied_answer(request.id.clone(), message, ticket.approval(), reason);
                record.tell_inspected(read(), unread("answered in the server's place"));
                super::answer::tell(record, ResponseKind::Result, Some(&response));
                Settled::Answered(response, Outcome::refused())
            }
            Word::Granted => self.granted(record, message, ticket).await,
        }
    }

    /// Uses the approval up, unless a breaker keeps the call from being sent at present.
    async fn granted(&self, record: &mut OpenRecord, message: &Message, ticket: Ticket) -> Settled {
        let told = |record: &mut OpenRecord, approval: &Approval| {
            let by = approval.granted.as_ref();
            tell(record, approval, by.map(|by| (by, "approved", None)));
        };
        let decider = &self.stages.decider;
        let admitted = match decider.admit(&self.talk.server, &ticket.approval().tool) {
            Ok(admitted) => admitted,
            Err(refused) => {
                told(record, &ticket.leave());
                return Settled::Refused(NotPassed {
                    told: Told::Plain(Refusal::BreakerOpen(refused.retry_after())),
                    refused: Some(refused),
                    why: "",
                });
            }
        };
        match ticket.redeem(admitted).await {
            Ok((approval, approved)) => {
                told(record, &approval);
                match self.judge_approved(record, message, approved) {
                    Ok(permit) => Settled::Passes(Box::new(permit)),
                    Err(not_passed) => Settled::Refused(not_passed),
                }
            }
            Err(fault) => {
                tracing::error!(%fault, "an approval could not be used");
                let why = "it was approved, and the approval could not be used";
                Settled::Refused(NotPassed::plain(Refusal::NeedsApproval, why))
            }
        }
    }
}

/// A tool call that waits for its answer: its tool and parameters.
fn call(message: &Message) -> Option<(&str, &Object)> {
    let Message::Request(request) = message else {
        return None;
    };
    let params = request.params.as_ref()?;
    let tool = params.get("name").and_then(Value::as_str)?;
    (request.method == "tools/call").then_some((tool, params))
}

/// The parameters of a call without what tells one message of it from the next.
fn bound(params: &Object) -> Object {
    let mut bound = params.clone();
    if let Some(meta) = bound.get_mut(META).and_then(Value::as_object_mut) {
        for key in OWN {
            meta.remove(key);
        }
        if meta.is_empty() {
            bound.remove(META);
        }
    }
    bound
}

fn not_waiting(why: NotWaiting) -> NotPassed {
    let (refusal, why) = match why {
        NotWaiting::TooMany => (
            Refusal::ApprovalsFull,
            "too many calls wait for an approval",
        ),
        NotWaiting::TooManyOfCaller => (
            Refusal::ApprovalsFull,
            "too many calls of this caller wait for an approval",
        ),
        NotWaiting::Unshowable => (Refusal::NeedsApproval, UNSHOWABLE),
        NotWaiting::NoId => (Refusal::NeedsApproval, "no randomness"),
    };
    NotPassed::plain(refusal, why)
}

/// Who calls, and every user who has a part in it.
fn caller(actor: &Actor) -> Option<ApprovalCaller> {
    let workload = &actor.known.workload;
    let uid = actor.identity.uid?;
    let (name, others) = match actor.acts {
        Acts::Workload => (
            Some(workload.name.clone()),
            [Some(workload.uid), workload.started_by],
        ),
        Acts::User => (None, [None, None]),
    };
    // Nobody has the greatest number: it stands where no user is known.
    let others = others.into_iter().flatten().filter(|uid| *uid != u32::MAX);
    let mut uids: Vec<u32> = others.chain([uid]).collect();
    uids.sort_unstable();
    uids.dedup();
    Some(ApprovalCaller {
        workload: name,
        user: actor.user.as_deref().map(str::to_owned),
        uid,
        token: None,
        uids,
    })
}

/// Writes into the record what it waits for, or what was decided.
fn tell(
    record: &mut OpenRecord,
    approval: &Approval,
    decided: Option<(&Granted, &'static str, Option<&str>)>,
) {
    record.record_mut().approval = Some(recorded(approval, decided));
}

/// How a denied call is answered: so that the model learns why.
fn denied_answer(
    id: Id,
    message: &Message,
    approval: &Approval,
    reason: Option<String>,
) -> Response {
    let mut text = format!("Not sent: a person denied this call of `{}`", approval.tool);
    let mut told = Object::new();
    told.insert("id", &*approval.id);
    told.insert("decision", "denied");
    if let Some(reason) = reason {
        text.push_str(": ");
        text.push_str(&reason);
        told.insert("reason", &*reason);
    }
    let mut response = tool_error(id, era(message), &text);
    if let Answered::Result(result) = &mut response.outcome {
        let mut content = Object::new();
        content.insert("approval", told);
        result.insert("structuredContent", content);
    }
    response
}

/// When a client hears that its call waits: at once, and then as long as it does.
pub(super) fn alive() -> Interval {
    let mut tick = interval(ALIVE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

/// What is decided. Until it is, the client is told at each `tick`, with how often it was.
pub(super) async fn word(
    ticket: &mut Ticket,
    mut tick: Interval,
    mut tell: impl FnMut(i64),
) -> Word {
    let mut count = 0;
    loop {
        tokio::select! {
            biased;
            word = ticket.wait() => return word,
            _ = tick.tick() => {
                count += 1;
                tell(count);
            }
        }
    }
}

/// Says, to a client that asked to be told of progress, that its call waits: the `count`th time.
pub(super) fn progress(message: &Message, approval: &Approval, count: i64) -> Option<Message> {
    let token = message.params()?.get(META)?.get("progressToken")?;
    let mut params = Object::new();
    params.insert("progressToken", token.clone());
    // Far below anything that the server will say: progress only ever rises.
    let progress = format!("{}e-9", count.max(1));
    let progress = parse(progress.as_bytes(), &Limits::REQUEST).ok()?;
    params.insert("progress", progress);
    params.insert(
        "message",
        &*format!("waiting for an approval ({})", approval.id),
    );
    Some(Message::Notification(Notification {
        method: "notifications/progress".to_owned(),
        params: Some(params),
    }))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[tokio::test]
    async fn a_client_hears_at_once_and_every_ten_seconds_that_its_call_waits() {
        let mut tick = alive();
        assert_eq!(tick.period(), Duration::from_secs(10));
        let begun = tokio::time::Instant::now();
        assert!(tick.tick().await <= begun, "the first is at once");

        let told = RefCell::new(Vec::new());
        let mut ticket = Ticket::for_tests(Duration::from_mins(1));
        let tick = interval(Duration::from_millis(1));
        tokio::select! {
            word = word(&mut ticket, tick, |count| told.borrow_mut().push(count)) => panic!("{word:?}"),
            () = async {
                while told.borrow().len() < 3 {
                    tokio::task::yield_now().await;
                }
            } => {}
        }
        assert_eq!(told.into_inner().get(..3), Some(&[1, 2, 3][..]));

        let mut ticket = Ticket::for_tests(Duration::from_millis(1));
        let word = word(&mut ticket, alive(), |_count| ()).await;
        assert!(matches!(word, Word::TimedOut), "{word:?}");
    }
}
