//! What an MCP server answers, judged before it is delivered: lists filtered, requests inside results decided.

use super::judge::{Talking, hints};
use crate::audit::record::{Mcp, ResponseKind};
use crate::audit::{OpenRecord, Text};
use crate::decode::json::Object;
use crate::decode::mcp::{Era, List, Mirrors, embedded, filter, is_error, listed, result_kind};
use crate::decode::rpc::{Outcome, Response};
use crate::refuse::Refusal;

/// Judges a response to a request with `method` (`None`: it is not known what it answers), in place. `record` is the
/// request's, or the response's own.
///
/// # Errors
/// What the caller gets in its place.
pub(super) fn judge(
    talking: &Talking,
    record: &mut OpenRecord,
    method: Option<&str>,
    era: Era,
    response: &mut Response,
) -> Result<(), Refusal<'static>> {
    let result = match &mut response.outcome {
        Outcome::Error(_) => return Ok(()),
        Outcome::Result(result) => result,
    };
    result_kind(result).map_err(Refusal::from)?;
    for request in embedded(result).map_err(Refusal::from)? {
        if talking.embedded(request.method).is_err() {
            return Err(Refusal::Denied);
        }
    }
    if lists_tools(method, result) {
        let server = &talking.talk.server;
        for tool in listed(result, List::Tools).map_err(Refusal::from)? {
            let observed = &talking.stages.observed;
            observed.list(server, tool.name, hints(tool.hints));
            observed.mirror(server, tool.name, Mirrors::of(tool.entry));
        }
        let policy = talking.shown_by(record, method)?;
        filter(result, List::Tools, era, |tool| {
            talking.lists(&policy, tool.name, hints(tool.hints))
        })
        .map_err(Refusal::from)?;
    }
    Ok(())
}

/// Whether the result may be a list of tools. Ids are the client's to choose and to use twice, and an answer
/// may come on a stream that was taken up again: what is known of the request does not tell it from others.
fn lists_tools(method: Option<&str>, result: &Object) -> bool {
    method.and_then(List::of) == Some(List::Tools) || result.get("tools").is_some()
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
    use super::lists_tools;
    use crate::decode::json::Limits;
    use crate::decode::rpc::{Message, Outcome, parse_single};

    #[test]
    fn a_list_of_tools_is_one_whatever_it_is_said_to_answer() {
        let lists = |method, result: &str| {
            let text = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
            let parsed = parse_single(text.as_bytes(), &Limits::RESPONSE);
            let Ok(Message::Response(response)) = parsed else {
                panic!("a response is due")
            };
            let Outcome::Result(result) = response.outcome else {
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
