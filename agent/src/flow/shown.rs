//! What a request shows of who asks, beside what the kernel attests: its token, and its connection's certificate.

use exeat_policy::{Authorization, Server};
use hyper::Request;
use hyper::header::{AUTHORIZATION, EXPECT, HeaderValue, WWW_AUTHENTICATE};

use super::Stages;
use super::connection::Connection;
use super::exchange::{Answer, refused};
use crate::audit::OpenRecord;
use crate::audit::record::Stage;
use crate::forward::body::{Drained, Received};
use crate::identify::certificate::{CertificateFault, Shown};
use crate::identify::token::TokenFault;
use crate::intake::Actor;
use crate::refuse::Refusal;

/// Why nobody is believed who shows such a thing.
pub(super) enum Unbelieved {
    /// The token is not acceptable, or cannot be verified at present.
    Token(TokenFault),
    /// The certificate is not acceptable.
    Certificate(CertificateFault),
}

/// Who asks, where the request shows a token or its connection a certificate: only a registered server's requests are
/// judged by them, and refused for them.
pub(super) async fn shown(
    connection: &Connection,
    request: &Request<Received>,
) -> Result<Option<Actor>, Unbelieved> {
    let Stages {
        tokens,
        authorities,
        decider,
        ..
    } = &*connection.stages;
    let presented = connection.presented.as_ref();
    if presented.is_none() && !request.headers().contains_key(AUTHORIZATION) {
        return Ok(None);
    }
    let policy = decider.in_force();
    let certificate = presented
        .filter(|_| policy.set.asks_certificates())
        .map(|presented| Shown::of(presented, &authorities.load()))
        .transpose()
        .map_err(Unbelieved::Certificate)?;
    let token = tokens.look(request.headers(), &policy.set).await;
    let token = token.map_err(Unbelieved::Token)?;
    if certificate.is_none() && token.is_none() {
        return Ok(None);
    }
    let actor = &connection.arrived.actor;
    Ok(Some(actor.showing(token, certificate, &policy)))
}

/// The same for a request to this server: a token that nobody could verify is the server's own only where it gets it.
pub(super) fn of_server(
    connection: &Connection,
    request: &Request<Received>,
    server: &str,
    shown: Option<Actor>,
) -> Result<Option<Actor>, Unbelieved> {
    let Stages {
        tokens, decider, ..
    } = &*connection.stages;
    let is_verified = shown.as_ref().is_some_and(|actor| actor.token.is_some());
    let policy = decider.in_force();
    let server = policy.set.server(server);
    let gets = |server: &Server| server.authorization == Authorization::Forward;
    if !is_verified && !server.is_some_and(gets) {
        let own = tokens.not_its_own(request.headers(), &policy.set);
        own.map_err(Unbelieved::Token)?;
    }
    Ok(shown)
}

/// Refuses a request whose token or certificate is not acceptable or cannot be verified at present; for tokens as RFC
/// 6750 section 3 has it.
pub(super) fn unbelieved(
    connection: &Connection,
    mut record: OpenRecord,
    request: Request<Received>,
    why: Unbelieved,
) -> Answer {
    unread_rest(connection, request);
    record.stage(Stage::Identify);
    match why {
        Unbelieved::Certificate(fault) => refused(record, Refusal::InvalidCertificate, &fault),
        Unbelieved::Token(TokenFault::Unavailable) => {
            refused(record, Refusal::IssuerUnavailable, &TokenFault::Unavailable)
        }
        Unbelieved::Token(fault) => challenging(refused(record, Refusal::InvalidToken, &fault)),
    }
}

/// An answer that asks for another token.
pub(super) fn challenging(mut answer: Answer) -> Answer {
    let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
    answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    answer
}

/// Reads on, for a while, what nobody wants, unless its sender waits to be asked for it.
pub(super) fn unread_rest(connection: &Connection, request: Request<Received>) {
    let waits = request.headers().contains_key(EXPECT);
    let rest = Drained::new(request.into_body(), &connection.stages.tasks);
    if waits {
        rest.leave();
    }
}
