//! What an MCP server answers, judged before it is delivered: lists filtered, requests inside results decided.

use super::bounded::Unacceptable;
use super::judge::{Talking, hints};
use crate::audit::record::{Mcp, ResponseKind};
use crate::audit::{OpenRecord, Text};
use crate::decode::json::{Object, Value};
use crate::decode::mcp::{Era, List, Mirrors, filter, is_error, listed, result_kind};
use crate::decode::rpc::{Outcome, Response};
use crate::identify::calls::{Answered, InFlight, Task};

/// Judges a response to a request with `method` (`None`: it is not known what it answers), in place. `record` is the
/// request's, or the response's own.
///
/// # Errors
/// Why it is not delivered, and what the caller gets in its place.
pub(super) fn judge(
    talking: &Talking,
    record: &mut OpenRecord,
    method: Option<&str>,
    era: Era,
    response: &mut Response,
) -> Result<(), Unacceptable> {
    let result = match &mut response.outcome {
        Outcome::Error(_) => return Ok(()),
        Outcome::Result(result) => result,
    };
    if let Some(task) = method.and_then(|method| asked_after(method, result)) {
        talking.stages.calls.task(&talking.account.callee, task);
    }
    result_kind(result)?;
    let inside = talking.inside_result(record, result)?;
    let judged = contents(talking, record, method, era, result);
    inside.end(judged.is_ok());
    judged
}

/// Judges what a result is made of, and takes out of it what is not for the caller.
fn contents(
    talking: &Talking,
    record: &mut OpenRecord,
    method: Option<&str>,
    era: Era,
    result: &mut Object,
) -> Result<(), Unacceptable> {
    if let Some(observed) = talking.bounded(method, result)? {
        observed.tell(record);
    }
    if lists_tools(method, result) {
        let Talking {
            stages,
            account,
            talk,
            ..
        } = talking;
        for tool in listed(result, List::Tools)? {
            let observed = &stages.observed;
            let told = (hints(tool.hints), Mirrors::of(tool.entry));
            observed.list(account, &talk.server, tool.name, told);
        }
        let policy = talking.shown_by(record, method)?;
        filter(result, List::Tools, era, |tool| {
            talking.lists(&policy, tool.name, hints(tool.hints))
        })?;
    }
    if lists_tasks(method, result) {
        let policy = talking.shown_by(record, method)?;
        filter(result, List::Tasks, era, |task| {
            talking.may_have(&policy, Some(task.name)).is_ok()
        })?;
    }
    Ok(())
}

/// Whether the result may be a list of tools. Ids are the client's to choose and to use twice, and an answer
/// may come on a stream that was taken up again: what is known of the request does not tell it from others.
fn lists_tools(method: Option<&str>, result: &Object) -> bool {
    method.and_then(List::of) == Some(List::Tools) || result.get("tools").is_some()
}

/// The same of tasks, whose name other results may have: `tasks` of what is known to answer something else is its own.
fn lists_tasks(method: Option<&str>, result: &Object) -> bool {
    match method {
        Some(method) => List::of(method) == Some(List::Tasks),
        None => result.get("tasks").is_some(),
    }
}

/// The request that `response` answers is answered, as far as the server says so.
pub(super) fn over(in_flight: Option<InFlight>, response: &Response) {
    if let Some(in_flight) = in_flight {
        in_flight.answered(leaves(response));
    }
}

/// How `response` leaves the request that it answers.
pub(super) fn leaves(response: &Response) -> Answered<'_> {
    let Outcome::Result(result) = &response.outcome else {
        return Answered::Whole;
    };
    let is_task = result.get("resultType").and_then(Value::as_str) == Some("task");
    // Within a member (2025-11-25), or as the result itself (the extension of 2026-07-28).
    let within = result.get("task").and_then(Value::as_object);
    let said = within.or(if is_task { Some(result) } else { None });
    match said.and_then(task) {
        Some(Task::Works(id) | Task::Left(id)) => Answered::Task(id),
        Some(Task::Over(id)) => Answered::Ended(id),
        None if is_task => Answered::Elsewhere,
        None => Answered::Whole,
    }
}

/// What the answer to a question after a task (`method`) says of it.
fn asked_after<'a>(method: &str, result: &'a Object) -> Option<Task<'a>> {
    match method {
        "tasks/get" | "tasks/cancel" => task(result),
        // The task's own result, which names it beside (2025-11-25 Tasks, "Related Task Metadata").
        "tasks/result" => {
            let related = result
                .get("_meta")?
                .get("io.modelcontextprotocol/related-task")?;
            related.get("taskId")?.as_str().map(Task::Over)
        }
        _ => None,
    }
}

/// What is said of a task, in a result or a notification.
pub(super) fn task(said: &Object) -> Option<Task<'_>> {
    let id = said.get("taskId")?.as_str()?;
    Some(match said.get("status").and_then(Value::as_str) {
        Some("completed" | "failed") => Task::Over(id),
        Some("cancelled") => Task::Left(id),
        _ => Task::Works(id),
    })
}

/// Writes into the record what answered.
pub(super) fn tell(record: &mut OpenRecord, kind: ResponseKind, response: Option<&Response>) {
    let mut so_far = record.record_mut();
    let Some(mcp) = &mut so_far.mcp else {
        return;
    };
    mcp.response = Some(kind);
    match response.map(|response| &response.outcome) {
        Some(Outcome::Result(result)) => tell_result(mcp, is_error(result)),
        Some(Outcome::Error(error)) => {
            mcp.response = Some(ResponseKind::Error);
            mcp.code = Some(error.code);
        }
        None => {}
    }
}

fn tell_result(mcp: &mut Mcp, failed: bool) {
    if mcp.method == Text::fixed("tools/call") {
        mcp.is_error = Some(failed);
    }
}

#[cfg(test)]
mod tests {
    use super::{asked_after, leaves, lists_tools};
    use crate::decode::json::Limits;
    use crate::decode::rpc::{Message, Outcome, Response, parse_single};
    use crate::identify::calls::{Answered, Task};

    fn response(result: &str) -> Response {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
        let parsed = parse_single(text.as_bytes(), &Limits::RESPONSE);
        let Ok(Message::Response(response)) = parsed else {
            panic!("a response is due")
        };
        response
    }

    #[test]
    fn an_answer_that_is_a_task_ends_nothing_before_the_task_does() {
        for (result, how) in [
            (r#"{"content":[]}"#, Answered::Whole),
            (r#"{"content":[],"taskId":"7"}"#, Answered::Whole),
            (
                r#"{"task":{"taskId":"7","status":"working"}}"#,
                Answered::Task("7"),
            ),
            (r#"{"task":{"taskId":"7"}}"#, Answered::Task("7")),
            (
                r#"{"task":{"taskId":"7","status":"completed"}}"#,
                Answered::Ended("7"),
            ),
            (
                r#"{"resultType":"task","taskId":"7","status":"working"}"#,
                Answered::Task("7"),
            ),
            (r#"{"resultType":"task","id":"7"}"#, Answered::Elsewhere),
        ] {
            assert_eq!(leaves(&response(result)), how, "{result}");
        }
        for (method, result, task) in [
            (
                "tasks/get",
                r#"{"taskId":"7","status":"working"}"#,
                Some(Task::Works("7")),
            ),
            (
                "tasks/get",
                r#"{"taskId":"7","status":"failed"}"#,
                Some(Task::Over("7")),
            ),
            (
                "tasks/cancel",
                r#"{"taskId":"7","status":"cancelled"}"#,
                Some(Task::Left("7")),
            ),
            (
                "tasks/result",
                r#"{"content":[],"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"7"}}}"#,
                Some(Task::Over("7")),
            ),
            ("tasks/result", r#"{"content":[]}"#, None),
            ("tools/call", r#"{"taskId":"7","status":"completed"}"#, None),
        ] {
            let response = response(result);
            let Outcome::Result(result) = &response.outcome else {
                panic!("a result is due")
            };
            assert_eq!(asked_after(method, result), task, "{method}");
        }
    }

    #[test]
    fn a_list_of_tools_is_one_whatever_it_is_said_to_answer() {
        let lists = |method, result: &str| {
            let Outcome::Result(result) = response(result).outcome else {
                panic!("a result is due")
            };
            lists_tools(method, &result)
        };
        for method in [None, Some("tools/list"), Some("ping"), Some("acme/x")] {
            assert!(lists(method, r#"{"tools":[]}"#), "{method:?}");
        }
        assert!(
            lists(Some("tools/list"), "{}"),
            "a list without tools is malformed, not harmless"
        );
        assert!(!lists(Some("ping"), "{}"));
        let initialized = r#"{"capabilities":{"tools":{}}}"#;
        assert!(!lists(Some("initialize"), initialized));
    }
}
