//! What callers see, byte by byte, and what they never see.

use std::fmt::Write as _;

use hyper::http::StatusCode;

use super::{
    Answer, Asked, HttpRefusal, Refusal, Subject, Timeout, Upstream, answer, answer_batch, asked,
    tool_error,
};
use crate::decode::json::{Limits, Object, Value, parse};
use crate::decode::mcp::{Era, HeaderFault, MCP_NAME, ViewFault};
use crate::decode::rpc::{self, Id, Message, Outcome, Response, parse_single};

/// Every refusal; `known` makes a new variant break this file until it is listed.
fn all() -> Vec<Refusal<'static>> {
    let listed = vec![
        Refusal::ApprovalTimedOut,
        Refusal::ApprovalsFull,
        Refusal::AuditUnavailable,
        Refusal::BodyType,
        Refusal::BreakerOpen(Some(29_001)),
        Refusal::CredentialUnavailable,
        Refusal::Denied,
        Refusal::Disconnected,
        Refusal::DryRun,
        Refusal::HeaderMismatch,
        Refusal::HeldBytes,
        Refusal::Hidden(Subject::Method, "x/y"),
        Refusal::Hidden(Subject::Prompt, "x"),
        Refusal::Hidden(Subject::Resource(Era::Legacy), "x:"),
        Refusal::Hidden(Subject::Resource(Era::Modern), "x:"),
        Refusal::Hidden(Subject::Task, "x"),
        Refusal::Hidden(Subject::Tool, "x"),
        Refusal::HttpForm,
        Refusal::InvalidParams,
        Refusal::InvalidRequest,
        Refusal::InvalidCertificate,
        Refusal::InvalidToken,
        Refusal::IssuerUnavailable,
        Refusal::LimitReached(None),
        Refusal::LimitReached(Some(1_500)),
        Refusal::MissingEnvelope,
        Refusal::NeedsApproval,
        Refusal::NameDisagreement,
        Refusal::NotStarted,
        Refusal::ParseError,
        Refusal::ResponseRefused,
        Refusal::ResponseTooLarge,
        Refusal::ShuttingDown,
        Refusal::TimedOut(Timeout::Connect),
        Refusal::TimedOut(Timeout::Headers),
        Refusal::TimedOut(Timeout::Body),
        Refusal::TooLarge,
        Refusal::Unregistered,
        Refusal::Upstream(Upstream::Dns),
        Refusal::Upstream(Upstream::Connect),
        Refusal::Upstream(Upstream::Tls),
        Refusal::Upstream(Upstream::Certificate),
        Refusal::Upstream(Upstream::Reset),
        Refusal::Upstream(Upstream::Protocol),
    ];
    listed.iter().for_each(known);
    listed
}

/// Does nothing, but for not compiling when a refusal is new.
fn known(refusal: &Refusal<'_>) {
    match refusal {
        Refusal::ApprovalTimedOut
        | Refusal::ApprovalsFull
        | Refusal::AuditUnavailable
        | Refusal::BodyType
        | Refusal::BreakerOpen(_)
        | Refusal::CredentialUnavailable
        | Refusal::Denied
        | Refusal::Disconnected
        | Refusal::DryRun
        | Refusal::HeaderMismatch
        | Refusal::HeldBytes
        | Refusal::Hidden(..)
        | Refusal::HttpForm
        | Refusal::InvalidParams
        | Refusal::InvalidRequest
        | Refusal::InvalidCertificate
        | Refusal::InvalidToken
        | Refusal::IssuerUnavailable
        | Refusal::LimitReached(_)
        | Refusal::MissingEnvelope
        | Refusal::NeedsApproval
        | Refusal::NameDisagreement
        | Refusal::NotStarted
        | Refusal::ParseError
        | Refusal::ResponseRefused
        | Refusal::ResponseTooLarge
        | Refusal::ShuttingDown
        | Refusal::TimedOut(_)
        | Refusal::TooLarge
        | Refusal::Unregistered
        | Refusal::Upstream(_) => {}
    }
}

#[test]
fn the_catalogue() {
    let mut rows = String::new();
    for refusal in all() {
        let entry = refusal.entry();
        writeln!(
            rows,
            "{} {} {} {} {}",
            entry.code,
            entry.status.as_u16(),
            entry.rpc_status.as_u16(),
            entry.rpc,
            refusal.text()
        )
        .unwrap();
    }
    insta::assert_snapshot!(rows);
}

#[test]
fn no_status_makes_a_client_fall_back() {
    for refusal in all() {
        let entry = refusal.entry();
        assert!(
            ![404, 405].contains(&entry.rpc_status.as_u16()),
            "{}",
            entry.code
        );
        if entry.rpc_status == StatusCode::BAD_REQUEST {
            // Codes that clients of both eras know from servers.
            assert!(
                [-32700, -32600, -32602, -32020].contains(&entry.rpc),
                "{}",
                entry.code
            );
        }
        // The protocol's own codes, or ours outside what JSON-RPC reserves; never one we made up inside it.
        let own = !(-32768..=-32000).contains(&entry.rpc);
        let defined = [-32700, -32600, -32601, -32602, -32002, -32020].contains(&entry.rpc);
        assert!(own || defined, "{}", entry.code);
        assert!(!entry.message.is_empty() && !entry.message.ends_with('.'));
        for word in ["policy", "rule", "exeat"] {
            assert!(
                !refusal.text().to_lowercase().contains(word),
                "{}",
                entry.code
            );
        }
    }
}

#[test]
fn a_hidden_tool_is_answered_like_an_unknown_one() {
    let Answer { status, body } = answer(
        Refusal::Hidden(Subject::Tool, "danger\u{200b}\""),
        &Asked::Request(Id::Number(3)),
    );
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        body,
        "{\"jsonrpc\":\"2.0\",\"id\":3,\"error\":{\"code\":-32602,\"message\":\"Unknown tool: danger\u{200b}\\\"\"}}"
    );
}

#[test]
fn each_kind_of_message_gets_its_answer() {
    let denied = |asked: &Asked| answer(Refusal::Denied, asked);
    let wait = answer(
        Refusal::LimitReached(Some(1_500)),
        &Asked::Request(Id::Number(1)),
    );
    assert_eq!(
        wait.body,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-31429,"message":"a limit on calls is reached; try again in 2 s","data":{"reason":"limit_reached","retry_after_ms":1500}}}"#
    );
    assert_eq!(
        denied(&Asked::Request(Id::Text("a\"".into()))).body,
        r#"{"jsonrpc":"2.0","id":"a\"","error":{"code":-31403,"message":"not permitted","data":{"reason":"denied"}}}"#
    );
    assert_eq!(
        denied(&Asked::Nothing),
        Answer {
            status: StatusCode::ACCEPTED,
            body: String::new()
        }
    );
    let unreadable = answer(Refusal::ParseError, &Asked::Unreadable);
    assert_eq!(unreadable.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        unreadable.body,
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"not acceptable JSON","data":{"reason":"parse_error"}}}"#
    );
    let read = |text: &str| asked(&parse_single(text.as_bytes(), &Limits::REQUEST).unwrap());
    assert_eq!(
        read(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#),
        Asked::Request(Id::Number(1))
    );
    assert_eq!(
        read(r#"{"jsonrpc":"2.0","method":"notifications/x"}"#),
        Asked::Nothing
    );
    assert_eq!(
        read(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#),
        Asked::Nothing
    );
}

#[test]
fn batches_are_answered_entry_by_entry() {
    let refused = [
        (Refusal::Denied, Asked::Request(Id::Number(1))),
        (Refusal::Denied, Asked::Nothing),
        (Refusal::InvalidRequest, Asked::Unreadable),
    ];
    let through = Response {
        id: Some(Id::Number(2)),
        outcome: Outcome::Result(Object::new()),
    };
    let Answer { status, body } = answer_batch(&refused, [through]);
    assert_eq!(status, StatusCode::OK);
    let Ok(Value::Array(entries)) = parse(body.as_bytes(), &Limits::RESPONSE) else {
        panic!("an array")
    };
    let ids: Vec<String> = entries
        .iter()
        .map(|entry| entry.get("id").unwrap().to_text())
        .collect();
    assert_eq!(ids, ["2", "1", "null"]);
    let silent = answer_batch(&[(Refusal::Denied, Asked::Nothing)], []);
    assert_eq!(
        silent,
        Answer {
            status: StatusCode::ACCEPTED,
            body: String::new()
        }
    );
}

#[test]
fn faults_become_refusals() {
    let fault = |text: &str| parse_single(text.as_bytes(), &Limits::REQUEST).unwrap_err();
    let pair = |fault: &rpc::Fault| (Refusal::from(fault), Asked::from(fault));
    assert_eq!(pair(&fault("{")), (Refusal::ParseError, Asked::Unreadable));
    assert_eq!(
        pair(&fault(r#"{"jsonrpc":"2.0","id":9,"method":"ping","x":1}"#)),
        (Refusal::InvalidRequest, Asked::Request(Id::Number(9)))
    );
    let small = Limits {
        bytes: 3,
        ..Limits::REQUEST
    };
    let large = parse_single(b"{   }", &small).unwrap_err();
    assert_eq!(Refusal::from(&large), Refusal::TooLarge);
    assert_eq!(
        Refusal::from(HeaderFault::Missing(MCP_NAME)),
        Refusal::HeaderMismatch
    );
    assert_eq!(
        Refusal::from(HeaderFault::Envelope),
        Refusal::MissingEnvelope
    );
    assert_eq!(Refusal::from(ViewFault::Name), Refusal::InvalidParams);
}

#[test]
fn ordinary_http_is_told_which() {
    let http = |refusal: Refusal<'_>| {
        let refusal = HttpRefusal::from(refusal);
        (refusal.status.as_u16(), refusal.body())
    };
    assert_eq!(
        http(Refusal::Denied),
        (
            403,
            r#"{"error":{"code":"denied","message":"not permitted"}}"#.to_owned()
        )
    );
    let code = |refusal| {
        let refusal = HttpRefusal::from(refusal);
        (refusal.status.as_u16(), refusal.code)
    };
    assert_eq!(code(Refusal::NameDisagreement), (421, "name_disagreement"));
    assert_eq!(code(Refusal::TooLarge), (413, "too_large"));
    assert_eq!(
        code(Refusal::Upstream(Upstream::Certificate)),
        (502, "upstream_certificate")
    );
    assert_eq!(
        code(Refusal::TimedOut(Timeout::Connect)),
        (504, "timeout_connect")
    );
    assert_eq!(code(Refusal::AuditUnavailable), (503, "audit_unavailable"));
}

#[test]
fn tool_errors_have_the_shape_of_their_era() {
    let text = |era| Message::Response(tool_error(Id::Number(1), era, "no")).encode();
    assert_eq!(
        text(Era::Legacy),
        r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"no"}],"isError":true}}"#
    );
    assert_eq!(
        text(Era::Modern),
        r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","content":[{"type":"text","text":"no"}],"isError":true}}"#
    );
}
