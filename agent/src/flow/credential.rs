//! The secret that policy wants put into a request: asked for before it is sent, put in last of all.

use std::sync::Arc;

use exeat_policy::{Authorization, Credential};
use hyper::Request;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};

use super::Bounds;
use super::connection::Connection;
use super::describe::Story as _;
use super::exchange::full;
use crate::audit::OpenRecord;
use crate::decide::{Exchange, Permit};
use crate::forward::body::Received;
use crate::forward::credential::{CredentialFault, Injection};
use crate::forward::upstream::Body;

/// What is put into a request, as long as the policy that wants it is in force.
pub(super) struct Due {
    injection: Injection,
    generation: u64,
}

impl Due {
    /// Whether `request` can be sent with it, as far as its head shows.
    pub(super) fn check(
        &self,
        bounds: &Bounds,
        request: &Request<Received>,
    ) -> Result<(), CredentialFault> {
        self.injection.check(request, bounds.body)
    }

    /// The secret, unless the policy changed while something was waited for.
    fn still(self, connection: &Connection) -> Result<Injection, CredentialFault> {
        let in_force = connection.stages.decider.in_force();
        if in_force.generation == self.generation {
            Ok(self.injection)
        } else {
            let name = self.injection.name().into();
            Err(CredentialFault::Changed { name })
        }
    }
}

/// What policy wants put into the request that `permit` is for.
pub(super) async fn due(
    connection: &Connection,
    permit: &Permit<Exchange>,
    record: &mut OpenRecord,
) -> Result<Option<Due>, CredentialFault> {
    let due = permit.egress().and_then(|terms| terms.credential.as_ref());
    let Some(credential) = due else {
        return Ok(None);
    };
    record.tell_credential(&credential.name);
    // The policy that wants it is the one that decided.
    let generation = permit.decision().generation.unwrap_or_default();
    waited(connection, credential, connection.tls, generation).await
}

async fn waited(
    connection: &Connection,
    credential: &Arc<Credential>,
    sealed: bool,
    generation: u64,
) -> Result<Option<Due>, CredentialFault> {
    let injection = connection.stages.credentials.due(credential, sealed);
    let due = Due {
        injection: injection.await?,
        generation,
    };
    let injection = due.still(connection)?;
    Ok(Some(Due {
        injection,
        generation,
    }))
}

/// What policy wants put into a request to the registered server `server`, and named in these records.
pub(super) async fn due_to_server(
    connection: &Connection,
    server: &str,
    records: impl IntoIterator<Item = &mut OpenRecord>,
) -> Result<Option<Due>, CredentialFault> {
    let state = connection.stages.decider.in_force();
    let Some(credential) = state.set.replacement(server) else {
        return Ok(None);
    };
    let mut same = true;
    for record in records {
        record.tell_credential(&credential.name);
        let decision = record.record_mut().decision.clone();
        let decided = decision.and_then(|decision| decision.generation);
        same &= decided.is_none_or(|generation| generation == state.generation);
    }
    if !same {
        let name = Arc::clone(&credential.name);
        return Err(CredentialFault::Changed { name });
    }
    waited(connection, credential, connection.tls, state.generation).await
}

/// Takes out what the registered server `server` is not to get of the caller's, by the policy in force.
pub(super) fn withhold(connection: &Connection, server: &str, headers: &mut HeaderMap) {
    let state = connection.stages.decider.in_force();
    let server = state.set.server(server);
    if server.is_none_or(|server| server.authorization != Authorization::Forward) {
        headers.remove(AUTHORIZATION);
    }
}

/// Puts it in, or has it sign what is sent. To be done when nothing is taken out of the request any more that the client
/// named.
pub(super) async fn put(
    connection: &Connection,
    due: Option<Due>,
    mut request: Request<Body>,
) -> Result<Request<Body>, CredentialFault> {
    let Some(due) = due else {
        return Ok(request);
    };
    if !due.injection.signs_body() {
        due.injection.put(&mut request, None)?;
        return Ok(request);
    }
    let (mut head, body) = request.into_parts();
    let Bounds {
        body: most, idle, ..
    } = connection.stages.bounds;
    let mut taken = connection.arrived.actor.known.room.none();
    let body = due.injection.read(body, most, idle, &mut taken).await?;
    let body = taken.around(body);
    let injection = due.still(connection)?;
    head.headers.remove(TRANSFER_ENCODING);
    if !body.is_empty() {
        let length = HeaderValue::from(body.len());
        head.headers.insert(CONTENT_LENGTH, length);
    }
    let mut request = Request::from_parts(head, full(body.clone()));
    injection.put(&mut request, Some(&body))?;
    Ok(request)
}
