//! What a server fetches before it speaks: each answer of a fetch host is counted and hashed while it passes.

use std::sync::Arc;

use exeat_policy::Origin;
use hyper::header::{CONTENT_TYPE, RANGE};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Response, StatusCode};
use sha2::{Digest as _, Sha256};

use super::connection::Connection;
use crate::channel::{Artefact, encode_hex};
use crate::decide::{Exchange, Permit};
use crate::forward::body::Received;
use crate::identify::fetching::Place;
use crate::identify::peer::Peer;
use crate::identify::workloads::Known;

/// A request that fetches, if it is answered so.
pub(super) struct Asked {
    /// With its query.
    path: String,
    /// For a part of it.
    ranged: bool,
}

/// One answer on its way.
pub(super) struct Fetch {
    known: Arc<Known>,
    place: Place,
    digest: Sha256,
    bytes: u64,
    /// Whether all of it is all that there is.
    whole: bool,
}

impl Asked {
    /// A request that a fetch host grants, and whose answer has a body.
    pub(super) fn of(permit: &Permit<Exchange>, request: &Request<Received>) -> Option<Self> {
        let origin = permit.egress().map(|terms| terms.origin);
        let fetches = matches!(origin, Some(Origin::Fetch(_))) && *request.method() == Method::GET;
        let target = request.uri().path_and_query();
        fetches.then(|| Self {
            path: target
                .map_or_else(|| request.uri().path(), PathAndQuery::as_str)
                .to_owned(),
            ranged: request.headers().contains_key(RANGE),
        })
    }

    /// It is answered with something.
    pub(super) fn answered<B>(
        self,
        connection: &Connection,
        peer: &Peer,
        response: &Response<B>,
    ) -> Option<Fetch> {
        let status = response.status();
        // What an error brings may be run all the same (`curl … | sh`).
        if status.is_redirection() {
            return None;
        }
        let known = &connection.arrived.actor.known;
        let kind = response.headers().get(CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok());
        let artefact = Artefact::new(&peer.to_string(), &self.path, kind);
        Some(Fetch {
            place: known.fetching.arrives(artefact)?,
            known: Arc::clone(known),
            digest: Sha256::new(),
            bytes: 0,
            // A part that nobody asked for is taken for the whole.
            whole: !(self.ranged && status == StatusCode::PARTIAL_CONTENT),
        })
    }
}

impl Fetch {
    /// The next bytes.
    pub(super) fn data(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
    }

    /// Nothing more comes: at its end, or before.
    pub(super) fn over(self, ended: bool) {
        let Self {
            known,
            place,
            digest,
            bytes,
            whole,
        } = self;
        let sha256 = (ended && whole).then(|| encode_hex(&digest.finalize()));
        known.fetching.arrived(place, bytes, sha256);
    }
}
