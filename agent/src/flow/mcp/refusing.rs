//! Tells a server that what it asked of the client is refused: in the legacy era answers travel as POSTs of
//! their own, and the client never saw the question. The record of what was refused ends with that.

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, Uri};
use tokio::sync::Semaphore;

use super::super::connection::{Connection, SendFault};
use super::super::credential;
use super::super::describe::Story as _;
use super::super::exchange::full;
use super::Place;
use super::judge::NotPassed;
use crate::audit::OpenRecord;
use crate::audit::record::Stage;
use crate::decode::rpc::Message;
use crate::forward::upstream::Version;
use crate::identify::peer::Peer;
use crate::refuse::{Asked, asked, error};

/// Refusals of one stream on their way at once; a server that asks faster is not told.
const AT_ONCE: usize = 8;

/// Sends refusals to one server, in the client's session.
#[derive(Clone)]
pub(super) struct Refuser {
    connection: Arc<Connection>,
    peer: Peer,
    server: Arc<str>,
    uri: Uri,
    headers: HeaderMap,
    places: Arc<Semaphore>,
}

impl Refuser {
    /// A refuser for the session of a request with these `headers`.
    pub(super) fn new(place: Place<'_>, uri: &Uri, headers: &HeaderMap) -> Self {
        Self {
            connection: Arc::clone(place.connection),
            peer: place.peer.clone(),
            server: Arc::clone(place.server),
            uri: uri.clone(),
            headers: headers.clone(),
            places: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Answers `message`, which did not pass, if it waits for an answer, and ends its record.
    pub(super) fn tell(&self, message: &Message, not_passed: NotPassed, mut record: OpenRecord) {
        let asked = asked(message);
        if asked == Asked::Nothing {
            return not_passed.record(record);
        }
        let (Some(told), Ok(place)) = (
            error(not_passed.told.refusal(), &asked),
            Arc::clone(&self.places).try_acquire_owned(),
        ) else {
            tracing::warn!("a server asks faster than it can be refused");
            return not_passed.record(record);
        };
        let this = self.clone();
        let body = told.encode();
        record.stage(Stage::Refuse);
        if let Some(refused) = &not_passed.refused {
            record.tell_decision(refused.decision());
        }
        self.connection.stages.tasks.spawn(async move {
            if let Err(fault) = this.send(&mut record, body).await {
                tracing::debug!(%fault, "a server could not be told of a refusal");
            }
            not_passed.record(record);
            drop(place);
        });
    }

    /// The headers of the request, without what belongs to it alone. Few requests come to this.
    fn own_headers(&self) -> HeaderMap {
        let mut own = self.headers.clone();
        own.remove(CONTENT_LENGTH);
        own.remove("last-event-id");
        own.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let accepted = "application/json, text/event-stream";
        own.insert(ACCEPT, HeaderValue::from_static(accepted));
        for mirrored in ["mcp-method", "mcp-name"] {
            own.remove(mirrored);
        }
        own
    }

    async fn send(&self, record: &mut OpenRecord, body: String) -> Result<(), SendFault> {
        let mut request = Request::new(full(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.own_headers();
        if self.connection.version == Version::Http2 {
            *request.version_mut() = hyper::Version::HTTP_2;
            request.headers_mut().remove(HOST);
        }
        let server = &self.server;
        credential::withhold(&self.connection, server, request.headers_mut());
        let due = credential::due_to_server(&self.connection, server, [&mut *record]);
        let request = credential::put(&self.connection, due.await?, request).await?;
        let intended = record.intend().await?;
        let sent = self.connection.send_aside(&self.peer, intended, request);
        let response = sent.await?;
        // Nothing is asked of its body, and it may be without end.
        drop(response);
        Ok(())
    }
}
