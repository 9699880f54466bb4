//! What a rule's effect asks for beyond yes and no: a dry run, or an approval (`approving`).

use hyper::Uri;
use hyper::header::HeaderMap;

use super::answer;
use super::judge::{NotPassed, Talking, Told, era};
use crate::audit::record::{DryRun, ResponseKind, Side};
use crate::audit::{OpenRecord, Outcome, Text};
use crate::decide::approvals::Ticket;
use crate::decide::{Message as AboutMessage, Permit, Rehearsal};
use crate::decode::json::{Object, Value};
use crate::decode::mcp::{check_params, repeats_params};
use crate::decode::rpc::{Id, Message, Outcome as Carried, Response};
use crate::flow::describe::{Story as _, read, unread};
use crate::refuse::{Refusal, tool_error};

/// Parameters longer than this, in bytes, are not repeated to who sent them.
const REPEATED: usize = 64 << 10;

/// What stands beside a message in the request that it came in.
pub(super) struct Beside<'a> {
    /// Where it was sent.
    pub(super) uri: &'a Uri,
    /// They may repeat arguments.
    pub(super) headers: &'a mut HeaderMap,
}

/// Headers that say nothing of what is asked for: of the connection, of the body's form, and of the place in a trace.
const FORM: [&str; 10] = [
    "baggage",
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
];

impl Beside<'_> {
    /// Everything in it by which a server may decide what it does: path and query, session, credentials, any other header.
    fn said(&self) -> Vec<&[u8]> {
        let place = self.uri.path_and_query().map_or("", |place| place.as_str());
        let mut headers: Vec<_> = self.headers.iter().collect();
        headers.retain(|(name, _)| !FORM.contains(&name.as_str()));
        // Values of one name stay in their order.
        headers.sort_by_key(|(name, _)| name.as_str());
        let headers = headers
            .into_iter()
            .flat_map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()]);
        std::iter::once(place.as_bytes()).chain(headers).collect()
    }
}

/// What becomes of a client's message.
pub(super) enum Settled {
    /// It may be sent, as it is now.
    Passes(Box<Permit<AboutMessage>>),
    /// It is answered in the server's place; the record says so and waits to be closed like this.
    Answered(Response, Outcome),
    /// It waits for a person ([`Talking::heard`]).
    Waits(Box<Ticket>),
    /// It is refused.
    Refused(NotPassed),
}

impl Settled {
    /// What becomes of a message in a batch, where nothing is answered in a server's place and nothing waits.
    pub(super) fn within_batch(self) -> Result<Permit<AboutMessage>, NotPassed> {
        let (refusal, why) = match self {
            Self::Passes(permit) => return Ok(*permit),
            Self::Refused(not_passed) => return Err(not_passed),
            Self::Answered(..) => (
                Refusal::DryRun,
                "a dry run that cannot be answered within a batch",
            ),
            Self::Waits(_) => (
                Refusal::NeedsApproval,
                "a call that cannot wait for an approval within a batch",
            ),
        };
        Err(NotPassed::plain(refusal, why))
    }
}

impl Talking {
    /// Judges `message` of the client, and carries out what is asked for where it does not pass as it is. `beside`: of
    /// the request that it came in alone.
    pub(super) fn settle(
        &self,
        record: &mut OpenRecord,
        message: &mut Message,
        beside: Option<Beside<'_>>,
    ) -> Settled {
        match self.judge_client(record, message) {
            Ok(permit) => Settled::Passes(Box::new(permit)),
            Err(not_passed) if not_passed.told == Told::Plain(Refusal::DryRun) => {
                let headers = beside.map(|beside| beside.headers);
                self.rehearse(record, message, headers, not_passed)
            }
            Err(not_passed) if not_passed.told == Told::Plain(Refusal::NeedsApproval) => {
                let beside = beside.as_ref().map(Beside::said).unwrap_or_default();
                self.ask(record, message, not_passed, &beside)
            }
            Err(not_passed) => Settled::Refused(not_passed),
        }
    }

    fn rehearse(
        &self,
        record: &mut OpenRecord,
        message: &mut Message,
        headers: Option<&mut HeaderMap>,
        mut not_passed: NotPassed,
    ) -> Settled {
        let Some(refused) = not_passed.refused.take() else {
            return Settled::Refused(not_passed);
        };
        match (refused.rehearse(message), &*message) {
            (Rehearsal::Told(mut permit), _) => {
                permit.watched(record);
                let Err(why) = self.tell_told(record, message, headers, &permit) else {
                    return Settled::Passes(permit);
                };
                Settled::Refused(NotPassed { why, ..not_passed })
            }
            (Rehearsal::Untold(_), Message::Request(request)) if request.method == "tools/call" => {
                let response = self.not_sent(message, request.id.clone());
                record.tell_inspected(read(), unread("answered in the server's place"));
                answer::tell(record, ResponseKind::Result, Some(&response));
                tell_dry_run(record, DryRun::default());
                Settled::Answered(response, Outcome::done())
            }
            (Rehearsal::Untold(by) | Rehearsal::NoPlace(by), _) => {
                not_passed.refused = Some(by);
                Settled::Refused(not_passed)
            }
        }
    }

    /// Writes what is sent now into the record, and into the header that repeats the argument that was set.
    fn tell_told(
        &self,
        record: &mut OpenRecord,
        message: &Message,
        headers: Option<&mut HeaderMap>,
        permit: &Permit<AboutMessage>,
    ) -> Result<(), &'static str> {
        const UNCLEAR: &str = "a header repeats the argument by which the call is run dry";
        let Some(dry_run) = permit.dry_run() else {
            return Ok(());
        };
        let class = record
            .record_mut()
            .mcp
            .as_ref()
            .and_then(|mcp| mcp.class.clone());
        self.tell_call(record, Side::Client, message);
        if let Some(mcp) = &mut record.record_mut().mcp {
            mcp.class = class;
            // The client is the side that is meant where none is named.
            mcp.from = None;
        }
        let told = DryRun {
            sent: true,
            argument: Some(Text::new(&dry_run.argument.to_string())),
        };
        tell_dry_run(record, told);
        let Some(headers) = headers else {
            return Ok(());
        };
        let tool = message.params().and_then(|params| params.get("name"));
        let tool = tool.and_then(Value::as_str).unwrap_or_default();
        let mirrors = self.stages.observed.mirrors(&self.account, tool);
        if mirrors.is_none() && repeats_params(headers) {
            // Which of them repeats the argument is not known.
            return Err(UNCLEAR);
        }
        if let Some(mirrors) = &mirrors {
            let arguments = message.params().and_then(|params| params.get("arguments"));
            let set = dry_run
                .argument
                .keys()
                .try_fold(arguments.ok_or(UNCLEAR)?, |value, key| value.get(key))
                .ok_or(UNCLEAR)?;
            mirrors.repeat(headers, dry_run.argument.keys(), set);
        }
        check_params(headers, message, mirrors.as_deref()).map_err(|_fault| UNCLEAR)
    }

    /// The answer to a call that is not sent: what would have been.
    fn not_sent(&self, message: &Message, id: Id) -> Response {
        let params = message.params();
        let tool = params.and_then(|params| params.get("name"));
        let tool = tool.and_then(Value::as_str).unwrap_or_default();
        let mut told = Object::new();
        told.insert("dryRun", true);
        told.insert("sent", false);
        told.insert("server", &*self.talk.server);
        told.insert("tool", tool);
        let text = params
            .cloned()
            .map(|params| Value::Object(params).to_text());
        let text = text.unwrap_or_default();
        let would = if text.len() <= REPEATED {
            let arguments = params.and_then(|params| params.get("arguments"));
            let none = || Value::Object(Object::new());
            told.insert("arguments", arguments.cloned().unwrap_or_else(none));
            format!("Would have been sent: {text}")
        } else {
            format!("Its {} bytes are too many to be repeated.", text.len())
        };
        let text = format!("Not sent: calls of `{tool}` are run dry, so nothing was done. {would}");
        // As a failure: nothing was done, and clients hold a success against the schema that the tool states.
        let mut response = tool_error(id, era(message), &text);
        if let Carried::Result(result) = &mut response.outcome {
            result.insert("structuredContent", told);
        }
        response
    }
}

fn tell_dry_run(record: &mut OpenRecord, dry_run: DryRun) {
    if let Some(mcp) = &mut record.record_mut().mcp {
        mcp.dry_run = Some(dry_run);
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn said(uri: &str, given: &[(&'static str, &'static str)]) -> Vec<Vec<u8>> {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            let name = HeaderName::from_static(name);
            headers.append(name, HeaderValue::from_static(value));
        }
        let uri = uri.parse().unwrap();
        let beside = Beside {
            uri: &uri,
            headers: &mut headers,
        };
        beside.said().into_iter().map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn an_approval_binds_query_session_and_credentials() {
        let call = [
            ("mcp-session-id", "1"),
            ("authorization", "Bearer a"),
            ("x-tenant", "b"),
        ];
        let one = said("/mcp?tenant=1", &call);
        // The order of names says nothing, nor does what is about the body's form or the trace.
        let [session, authorization, tenant] = call;
        let form = [
            tenant,
            ("content-length", "7"),
            ("traceparent", "x"),
            session,
            authorization,
        ];
        assert_eq!(said("/mcp?tenant=1", &form), one);
        for (uri, given) in [
            ("/mcp?tenant=2", call),
            ("/mcp", call),
            ("/other?tenant=1", call),
            (
                "/mcp?tenant=1",
                [("mcp-session-id", "2"), authorization, tenant],
            ),
            (
                "/mcp?tenant=1",
                [session, ("authorization", "Bearer b"), tenant],
            ),
            ("/mcp?tenant=1", [session, authorization, ("x-tenant", "c")]),
        ] {
            assert_ne!(said(uri, &given), one, "{uri} {given:?}");
        }
        assert_ne!(
            said("/", &[("a", "1"), ("a", "2")]),
            said("/", &[("a", "2"), ("a", "1")])
        );
    }
}
