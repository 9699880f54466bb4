//! The secret that policy wants put into a request: asked for before it is sent, put in last of all.

use hyper::Request;

use super::connection::Connection;
use super::describe::Story as _;
use crate::audit::OpenRecord;
use crate::decide::{Exchange, Permit};
use crate::forward::credential::{CredentialFault, Injection};
use crate::forward::upstream::Body;

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
    let credentials = &connection.stages.credentials;
    credentials.due(credential, connection.tls).await.map(Some)
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
