//! The list of refusals, and the one table of what each is called on the wire.

use hyper::http::StatusCode;

use crate::decode::{http::BodyFault, mcp, rpc};

/// Why a caller gets no answer from where it asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal<'a> {
    /// Nobody approved it in time.
    ApprovalTimedOut,
    /// Too many calls wait for an approval.
    ApprovalsFull,
    /// The log cannot take a record, so nothing may happen.
    AuditUnavailable,
    /// The body stands in another charset, coding or media type than is due.
    BodyType,
    /// Calls of the server or the tool fail; the milliseconds until one is let through again.
    BreakerOpen(Option<u64>),
    /// The secret that belongs into the request cannot be had.
    CredentialUnavailable,
    /// Policy does not allow it, or nothing allows it.
    Denied,
    /// An administrator has disconnected the server.
    Disconnected,
    /// Policy wants it run dry, which no tool call in a message of its own is.
    DryRun,
    /// A header that repeats the body says something else, or is missing.
    HeaderMismatch,
    /// As much is held in memory for the caller's workload as may be.
    HeldBytes,
    /// Policy hides it from this caller: it does not exist for them.
    Hidden(Subject, &'a str),
    /// HTTP that is malformed or of a form that is not let through (CONNECT, TRACE with a body).
    HttpForm,
    /// A member that the method needs is missing or of the wrong type.
    InvalidParams,
    /// JSON that is not a message.
    InvalidRequest,
    /// A limit on calls, their rate or what they add up to is used up; the milliseconds until this call passes,
    /// where waiting helps.
    LimitReached(Option<u64>),
    /// The client certificate of the connection is not one that can be verified.
    InvalidCertificate,
    /// The token of the request is not one that can be verified.
    InvalidToken,
    /// The keys of the token's issuer cannot be fetched.
    IssuerUnavailable,
    /// A modern message that lacks what every modern message carries.
    MissingEnvelope,
    /// Policy wants it approved by a person, which no tool call in a message of its own is, or which failed.
    NeedsApproval,
    /// The server could not be started.
    NotStarted,
    /// Host, `:authority` and the name of the TLS connection are not one name.
    NameDisagreement,
    /// Bytes that are not JSON, or that parsers read differently.
    ParseError,
    /// The answer of the other side cannot be judged, so it is not delivered.
    ResponseRefused,
    /// The daemon stops.
    ShuttingDown,
    /// The other side did not answer in time.
    TimedOut(Timeout),
    /// The message is larger than the limit.
    TooLarge,
    /// MCP spoken to something that is not in the register.
    Unregistered,
    /// The other side could not be reached or trusted.
    Upstream(Upstream),
    /// The answer of the other side is larger than the limit.
    ResponseTooLarge,
}

/// What kind of thing is hidden.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// A method: unknown to this server, as far as this caller can see.
    Method,
    /// A prompt.
    Prompt,
    /// A resource; legacy and modern servers answer with different codes.
    Resource(mcp::Era),
    /// A task.
    Task,
    /// A tool.
    Tool,
}

/// What went wrong on the way to the other side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Upstream {
    /// Its name has no acceptable address.
    Dns,
    /// No connection.
    Connect,
    /// TLS failed for another reason than the certificate.
    Tls,
    /// Its certificate is not trusted.
    Certificate,
    /// The connection ended before the answer did.
    Reset,
    /// The answer is not HTTP.
    Protocol,
}

/// What was waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timeout {
    /// A connection.
    Connect,
    /// The head of the answer.
    Headers,
    /// The rest of the answer.
    Body,
}

/// How a refusal appears on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Machine-readable name, stable: `error.code` in HTTP bodies, `error.data.reason` in JSON-RPC.
    pub code: &'static str,
    /// Status for ordinary HTTP.
    pub status: StatusCode,
    /// Status under a JSON-RPC error. Never 404 or 405, and 400 only where the specification demands it with a
    /// code that clients know: on others dual-era clients fall back to another transport.
    pub rpc_status: StatusCode,
    /// JSON-RPC code: the protocol's own where it has one, else outside -32768..=-32000, which it reserves.
    pub rpc: i64,
    /// One sentence for people; the name of what is hidden is appended after a colon.
    pub message: &'static str,
}

/// JSON-RPC codes that the protocols define.
const PARSE_ERROR: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const RESOURCE_NOT_FOUND: i64 = -32002;
const HEADER_MISMATCH: i64 = -32020;

/// Codes of our own: -31000 less the HTTP status that says the same.
const UNAUTHORIZED: i64 = -31401;
const DENIED: i64 = -31403;
const TOO_LARGE: i64 = -31413;
const BODY_TYPE: i64 = -31415;
const DISAGREEMENT: i64 = -31421;
const LIMIT: i64 = -31429;
const UPSTREAM: i64 = -31502;
const UNAVAILABLE: i64 = -31503;
const TIMED_OUT: i64 = -31504;

impl Refusal<'_> {
    /// The table.
    #[rustfmt::skip]
    pub fn entry(&self) -> Entry {
        use StatusCode as S;
        let row = |code, status, rpc_status, rpc, message| Entry { code, status, rpc_status, rpc, message };
        match self {
            Refusal::ApprovalTimedOut => row("approval_timed_out", S::FORBIDDEN, S::OK, TIMED_OUT, "needs an approval, which nobody gave in time"),
            Refusal::ApprovalsFull => row("approvals_full", S::TOO_MANY_REQUESTS, S::OK, LIMIT, "needs an approval, and too many calls wait for one"),
            Refusal::AuditUnavailable => row("audit_unavailable", S::SERVICE_UNAVAILABLE, S::OK, UNAVAILABLE, "nothing can be recorded at present, so nothing is let through"),
            Refusal::BodyType => row("unsupported_body", S::UNSUPPORTED_MEDIA_TYPE, S::UNSUPPORTED_MEDIA_TYPE, BODY_TYPE, "the body must be application/json in UTF-8 without content coding"),
            Refusal::BreakerOpen(_) => row("breaker_open", S::SERVICE_UNAVAILABLE, S::OK, UNAVAILABLE, "calls of this server or this tool fail at present, so none is sent"),
            Refusal::CredentialUnavailable => row("credential_unavailable", S::SERVICE_UNAVAILABLE, S::OK, UNAVAILABLE, "the credential that belongs into this request cannot be had at present"),
            Refusal::Denied => row("denied", S::FORBIDDEN, S::OK, DENIED, "not permitted"),
            Refusal::Disconnected => row("server_disconnected", S::FORBIDDEN, S::OK, DENIED, "this server was disconnected by an administrator: do not retry"),
            Refusal::DryRun => row("dry_run_unavailable", S::FORBIDDEN, S::OK, DENIED, "is to be run dry, which is done for tool calls that are sent alone, with arguments that leave a place for it"),
            Refusal::HeaderMismatch => row("header_mismatch", S::BAD_REQUEST, S::BAD_REQUEST, HEADER_MISMATCH, "a header disagrees with the message"),
            Refusal::HeldBytes => row("held_bytes", S::SERVICE_UNAVAILABLE, S::SERVICE_UNAVAILABLE, UNAVAILABLE, "as much is held in memory for this workload as may be: what was asked for was not sent or, if only its answer found no place, was done"),
            Refusal::Hidden(subject, _) => match subject {
                Subject::Method => row("unknown_method", S::FORBIDDEN, S::OK, METHOD_NOT_FOUND, "Method not found"),
                Subject::Prompt => row("unknown_prompt", S::FORBIDDEN, S::OK, INVALID_PARAMS, "Unknown prompt"),
                Subject::Resource(mcp::Era::Legacy) => row("unknown_resource", S::FORBIDDEN, S::OK, RESOURCE_NOT_FOUND, "Resource not found"),
                Subject::Resource(mcp::Era::Modern) => row("unknown_resource", S::FORBIDDEN, S::OK, INVALID_PARAMS, "Resource not found"),
                Subject::Task => row("unknown_task", S::FORBIDDEN, S::OK, INVALID_PARAMS, "Unknown task"),
                Subject::Tool => row("unknown_tool", S::FORBIDDEN, S::OK, INVALID_PARAMS, "Unknown tool"),
            },
            Refusal::HttpForm => row("malformed_request", S::BAD_REQUEST, S::FORBIDDEN, INVALID_REQUEST, "a form of HTTP request that is not let through"),
            Refusal::InvalidParams => row("invalid_params", S::BAD_REQUEST, S::OK, INVALID_PARAMS, "a parameter is missing or of the wrong type"),
            Refusal::InvalidRequest => row("invalid_request", S::BAD_REQUEST, S::BAD_REQUEST, INVALID_REQUEST, "not an acceptable JSON-RPC message"),
            Refusal::InvalidCertificate => row("invalid_certificate", S::FORBIDDEN, S::FORBIDDEN, DENIED, "the client certificate is not acceptable"),
            Refusal::InvalidToken => row("invalid_token", S::UNAUTHORIZED, S::UNAUTHORIZED, UNAUTHORIZED, "the bearer token is not acceptable"),
            Refusal::IssuerUnavailable => row("issuer_unavailable", S::SERVICE_UNAVAILABLE, S::SERVICE_UNAVAILABLE, UNAVAILABLE, "the bearer token cannot be verified at present: its issuer is not reached"),
            Refusal::LimitReached(_) => row("limit_reached", S::TOO_MANY_REQUESTS, S::OK, LIMIT, "a limit on calls is reached"),
            Refusal::MissingEnvelope => row("missing_envelope", S::BAD_REQUEST, S::BAD_REQUEST, INVALID_PARAMS, "the message does not name its protocol revision"),
            Refusal::NeedsApproval => row("approval_unavailable", S::FORBIDDEN, S::OK, DENIED, "needs an approval, which is asked for tool calls that are sent alone and can be shown to a person"),
            Refusal::NameDisagreement => row("name_disagreement", S::MISDIRECTED_REQUEST, S::MISDIRECTED_REQUEST, DISAGREEMENT, "the request names another host than its connection"),
            Refusal::NotStarted => row("not_started", S::SERVICE_UNAVAILABLE, S::OK, UNAVAILABLE, "the server was not started: standard error says why"),
            Refusal::ParseError => row("parse_error", S::BAD_REQUEST, S::BAD_REQUEST, PARSE_ERROR, "not acceptable JSON"),
            Refusal::ResponseRefused => row("response_refused", S::BAD_GATEWAY, S::OK, UPSTREAM, "the answer was not acceptable and is not delivered"),
            Refusal::ShuttingDown => row("shutting_down", S::SERVICE_UNAVAILABLE, S::OK, UNAVAILABLE, "shutting down: where it speaks over standard streams, start the server anew; else try again"),
            Refusal::TimedOut(what) => match what {
                Timeout::Connect => row("timeout_connect", S::GATEWAY_TIMEOUT, S::OK, TIMED_OUT, "the connection to the other side took too long"),
                Timeout::Headers => row("timeout_headers", S::GATEWAY_TIMEOUT, S::OK, TIMED_OUT, "the other side did not begin its answer in time"),
                Timeout::Body => row("timeout_body", S::GATEWAY_TIMEOUT, S::OK, TIMED_OUT, "the other side did not finish its answer in time"),
            },
            Refusal::TooLarge => row("too_large", S::PAYLOAD_TOO_LARGE, S::PAYLOAD_TOO_LARGE, TOO_LARGE, "larger than the limit"),
            Refusal::Unregistered => row("unregistered_server", S::FORBIDDEN, S::OK, DENIED, "this MCP server is not registered"),
            Refusal::Upstream(what) => match what {
                Upstream::Dns => row("upstream_dns", S::BAD_GATEWAY, S::OK, UPSTREAM, "the other side's name could not be resolved"),
                Upstream::Connect => row("upstream_connect", S::BAD_GATEWAY, S::OK, UPSTREAM, "no connection to the other side"),
                Upstream::Tls => row("upstream_tls", S::BAD_GATEWAY, S::OK, UPSTREAM, "TLS with the other side failed"),
                Upstream::Certificate => row("upstream_certificate", S::BAD_GATEWAY, S::OK, UPSTREAM, "the other side's certificate is not trusted"),
                Upstream::Reset => row("upstream_reset", S::BAD_GATEWAY, S::OK, UPSTREAM, "the other side ended the connection"),
                Upstream::Protocol => row("upstream_protocol", S::BAD_GATEWAY, S::OK, UPSTREAM, "the other side's answer is not HTTP"),
            },
            Refusal::ResponseTooLarge => row("response_too_large", S::BAD_GATEWAY, S::OK, TOO_LARGE, "the answer is larger than the limit"),
        }
    }

    /// Milliseconds after which the same is worth trying again, where that is known.
    pub(super) fn retry_after(&self) -> Option<u64> {
        if let Refusal::LimitReached(wait) | Refusal::BreakerOpen(wait) = self {
            *wait
        } else {
            None
        }
    }

    /// The message with the name of what is hidden, as the specification's example spells it ("Unknown tool: ...").
    /// Servers differ here, so whoever answers for some names must answer for all that policy does not allow.
    pub(super) fn text(&self) -> String {
        let message = self.entry().message;
        if let Some(wait) = self.retry_after() {
            return format!("{message}; try again in {} s", wait.div_ceil(1000));
        }
        let Refusal::Hidden(subject, name) = self else {
            return message.to_owned();
        };
        match subject {
            // A method that does not exist is answered without its name, as JSON-RPC 2.0 section 5.1 words it.
            Subject::Method | Subject::Task => message.to_owned(),
            Subject::Prompt | Subject::Resource(_) | Subject::Tool => format!("{message}: {name}"),
        }
    }
}

/// A fault of a message is answered by the code that the protocol has for it.
impl From<&rpc::Fault> for Refusal<'static> {
    fn from(fault: &rpc::Fault) -> Refusal<'static> {
        if fault.is_too_large() {
            Refusal::TooLarge
        } else if fault.is_parse_error() {
            Refusal::ParseError
        } else {
            Refusal::InvalidRequest
        }
    }
}

impl From<mcp::ViewFault> for Refusal<'static> {
    fn from(fault: mcp::ViewFault) -> Refusal<'static> {
        match fault {
            mcp::ViewFault::Name
            | mcp::ViewFault::LongName
            | mcp::ViewFault::Subscriptions
            | mcp::ViewFault::Arguments
            | mcp::ViewFault::Meta => Refusal::InvalidParams,
            mcp::ViewFault::Response => Refusal::InvalidRequest,
        }
    }
}

impl From<mcp::HeaderFault> for Refusal<'static> {
    fn from(fault: mcp::HeaderFault) -> Refusal<'static> {
        match fault {
            mcp::HeaderFault::Envelope => Refusal::MissingEnvelope,
            mcp::HeaderFault::Duplicate(_)
            | mcp::HeaderFault::Malformed(_)
            | mcp::HeaderFault::Mismatch(_)
            | mcp::HeaderFault::Missing(_) => Refusal::HeaderMismatch,
        }
    }
}

impl From<mcp::ResultFault> for Refusal<'static> {
    fn from(_: mcp::ResultFault) -> Refusal<'static> {
        Refusal::ResponseRefused
    }
}

impl From<BodyFault> for Refusal<'static> {
    fn from(_: BodyFault) -> Refusal<'static> {
        Refusal::BodyType
    }
}
