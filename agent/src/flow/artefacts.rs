//! What a server fetches before it speaks: each answer of a fetch host is counted and hashed while it passes.

use std::sync::Arc;

use exeat_policy::Origin;
use hyper::header::{CONTENT_TYPE, RANGE};
use hyper::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::Number;
use sha2::{Digest as _, Sha256};

use super::connection::Connection;
use crate::channel::{Artefact, encode_hex};
use crate::decide::{Exchange, Permit};
use crate::forward::body::Received;
use crate::identify::fetching::Place;
use crate::identify::peer::Peer;
use crate::identify::workloads::Known;

/// The longest answer that is looked at for whether it is a [`Granted`], in bytes.
const TOKEN: usize = 64 << 10;

/// What anybody gets who asks for it, another each time, before a registry shows an image (its token authentication
/// specification, RFC 6749 section 5.1). Anything else beside it, or in its place, is what is fetched.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Granted {
    token: Option<String>,
    access_token: Option<String>,
    #[serde(rename = "refresh_token")]
    _refresh_token: Option<String>,
    #[serde(rename = "expires_in")]
    _expires_in: Option<Number>,
    #[serde(rename = "issued_at")]
    _issued_at: Option<String>,
    #[serde(rename = "token_type")]
    _token_type: Option<String>,
    #[serde(rename = "scope")]
    _scope: Option<String>,
}

/// A request that fetches, if it is answered so.
pub(super) struct Asked {
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
    /// What came, as long as it may be a [`Granted`].
    short: Option<Vec<u8>>,
    /// Whether all of it is all that there is.
    whole: bool,
}

impl Asked {
    /// A request that a fetch host grants, and whose answer has a body.
    pub(super) fn of(permit: &Permit<Exchange>, request: &Request<Received>) -> Option<Self> {
        let origin = permit.egress().map(|terms| terms.origin);
        let fetches = matches!(origin, Some(Origin::Fetch(_))) && *request.method() == Method::GET;
        fetches.then(|| Self {
            path: request.uri().path().to_owned(),
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
            short: Some(Vec::new()),
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
        let fits = |short: &Vec<u8>| short.len().saturating_add(bytes.len()) <= TOKEN;
        self.short = self.short.take().filter(fits);
        if let Some(short) = &mut self.short {
            short.extend_from_slice(bytes);
        }
    }

    /// Nothing more comes: at its end, or before.
    pub(super) fn over(self, ended: bool) {
        let Self {
            known,
            place,
            digest,
            bytes,
            short,
            whole,
        } = self;
        // Without a digest it is compared with no other.
        let stays = !short.is_some_and(|short| is_token(&short));
        let sha256 = (ended && whole && stays).then(|| encode_hex(&digest.finalize()));
        known.fetching.arrived(place, bytes, sha256);
    }
}

/// By what came, whatever was asked for: a launcher writes that.
fn is_token(body: &[u8]) -> bool {
    let word = |token: &String| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        !token.is_empty() && token.bytes().all(plain)
    };
    serde_json::from_slice(body).is_ok_and(|granted: Granted| {
        let mut given = granted.token.iter().chain(&granted.access_token).peekable();
        given.peek().is_some() && given.all(word)
    })
}

#[cfg(test)]
mod tests {
    use super::is_token;

    #[test]
    fn a_token_is_one_by_what_came() {
        for body in [
            r#"{"token":"a.b-c_d~e+f/g=="}"#,
            r#"{"access_token":"a","expires_in":300,"issued_at":"2026-01-01T00:00:00Z"}"#,
            r#" {"token":"a","access_token":"a","scope":"x","token_type":"Bearer","refresh_token":""} "#,
        ] {
            assert!(is_token(body.as_bytes()), "{body}");
        }
        for body in [
            "",
            "null",
            r#""a""#,
            r#"["a", null]"#,
            "{}",
            r#"{"expires_in":1}"#,
            r#"{"token":""}"#,
            r#"{"token":"require('x')"}"#,
            r#"{"token":"a","access_token":"b c"}"#,
            r#"{"token":"a","scripts":{"install":"x"}}"#,
            r#"{"token":"a","expires_in":{}}"#,
            "{\"token\":\"a\"}\n#!/bin/sh",
        ] {
            assert!(!is_token(body.as_bytes()), "{body}");
        }
    }
}
