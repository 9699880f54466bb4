//! What an MCP server answers, judged before it is delivered: lists filtered, requests inside results decided.

use super::judge::{Talking, hints};
use crate::audit::record::{Mcp, ResponseKind};
use crate::audit::{OpenRecord, Text};
use crate::decode::mcp::{Era, List, embedded, filter, is_error, listed, result_kind};
use crate::decode::rpc::{Outcome, Response};
use crate::refuse::Refusal;

/// Judges a response to a request with `method` (`None`: it is not known what it answers), in place.
///
/// # Errors
/// What the caller gets in its place.
pub(super) fn judge(
    talking: &Talking,
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
    let list = match method {
        Some(method) => List::of(method),
        // Nobody knows what it answers, so that whatever could be a list of tools is one.
        None => result.get("tools").map(|_| List::Tools),
    };
    if list == Some(List::Tools) {
        let server = &talking.talk.server;
        for tool in listed(result, List::Tools).map_err(Refusal::from)? {
            talking
                .stages
                .observed
                .list(server, tool.name, hints(tool.hints));
        }
        filter(result, List::Tools, era, |tool| {
            talking.lists(tool.name, hints(tool.hints))
        })
        .map_err(Refusal::from)?;
    }
    Ok(())
}

/// Writes into the record what answered.
pub(super) fn tell(record: &mut OpenRecord, kind: ResponseKind, response: Option<&Response>) {
    let Some(mcp) = &mut record.record_mut().mcp else {
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
