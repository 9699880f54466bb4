//! The secret that policy wants put into a request: asked for before it is sent, put in last of all.

use std::sync::Arc;

use exeat_policy::{Authorization, Credential};
use hyper::Request;
use hyper::header::{AUTHORIZATION, HeaderMap};

use super::Stages;
use super::connection::Connection;
use super::describe::Story as _;
use crate::audit::OpenRecord;
use crate::decide::{Exchange, Permit};
use crate::forward::credential::{CredentialFault, Injection};
use crate::forward::upstream::Body;
use crate::identify::agree::is_localhost;
use crate::identify::peer::Peer;

/// What policy wants put into the request that `permit` is for.
pub(super) async fn due(
    connection: &Connection,
    permit: &Permit<Exchange>,
    record: &mut OpenRecord,
) -> Result<Option<Injection>, CredentialFault> {
    let due = permit.egress().and_then(|terms| terms.credential.as_ref());
    let Some(credential) = due else {
        return Ok(None);
    };
    record.tell_credential(&credential.name);
    let generation = connection.stages.decider.in_force().generation;
    waited(connection, credential, connection.tls, generation).await
}

/// The secret, unless the policy changed while it was waited for.
async fn waited(
    connection: &Connection,
    credential: &Arc<Credential>,
    sealed: bool,
    generation: u64,
) -> Result<Option<Injection>, CredentialFault> {
    let Stages {
        credentials,
        decider,
        ..
    } = &*connection.stages;
    let injection = credentials.due(credential, sealed).await?;
    if decider.in_force().generation != generation {
        let name = Arc::clone(&credential.name);
        return Err(CredentialFault::Changed { name });
    }
    Ok(Some(injection))
}

/// What policy wants put into a request to the registered server `server`, and named in these records.
pub(super) async fn due_to_server(
    connection: &Connection,
    peer: &Peer,
    server: &str,
    records: impl IntoIterator<Item = &mut OpenRecord>,
) -> Result<Option<Injection>, CredentialFault> {
    let state = connection.stages.decider.in_force();
    let Some(credential) = state.set.replacement(server) else {
        return Ok(None);
    };
    for record in records {
        record.tell_credential(&credential.name);
    }
    let sealed = connection.tls || is_here(peer);
    waited(connection, credential, sealed, state.generation).await
}

/// Takes out what the registered server `server` is not to get of the caller's, by the policy in force.
pub(super) fn withhold(connection: &Connection, server: &str, headers: &mut HeaderMap) {
    let state = connection.stages.decider.in_force();
    let server = state.set.server(server);
    if server.is_none_or(|server| server.authorization != Authorization::Forward) {
        headers.remove(AUTHORIZATION);
    }
}

/// Whether what is sent to `peer` stays on this machine, whatever it resolves to.
fn is_here(peer: &Peer) -> bool {
    match peer {
        Peer::Name(name) => is_localhost(name),
        Peer::Address(address) => address.is_loopback(),
    }
}

/// Puts it in. To be done when nothing is taken out of the request any more that the client named.
pub(super) fn put(
    credential: Option<Injection>,
    mut request: Request<Body>,
) -> Result<Request<Body>, CredentialFault> {
    if let Some(credential) = credential {
        credential.put(&mut request)?;
    }
    Ok(request)
}
