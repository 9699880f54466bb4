//! Signatures of AWS (Signature Version 4): what is really sent, signed in the place of whatever the client signed.
//!
//! What is signed is the host, the type of the body and all that AWS gives a meaning by an `x-amz-` name. The body is
//! signed but for S3, which takes requests over TLS without.

mod canonical;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use aws_lc_rs::{digest, hmac};
use hyper::Request;
use hyper::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue,
};
use hyper::http::Uri;
use zeroize::Zeroizing;

use self::canonical::{Paths, Signed};
use super::{decoded, plain, remove, secret_value};
use crate::channel::{Secret, encode_hex};
use crate::secrets::{AwsKeys, AwsKeysFault};
use crate::telemetry::clock::Timestamp;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// What stands for the body's digest where the body is not signed.
const NOT_SIGNED: HeaderValue = HeaderValue::from_static("UNSIGNED-PAYLOAD");
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const CONTENT: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
/// What a client's own signature consists of; the last is of version 4a.
const OWN: [HeaderName; 5] = [
    AUTHORIZATION,
    DATE,
    CONTENT,
    TOKEN,
    HeaderName::from_static("x-amz-region-set"),
];

/// What else a request acts on than its URL names, where services know such: S3's copies and renames.
const SOURCES: [&str; 2] = ["x-amz-copy-source", "x-amz-rename-source"];

/// Signs with one set of keys, for one service in one region.
pub(super) struct Signer {
    keys: AwsKeys,
    session: Option<HeaderValue>,
    region: Arc<str>,
    service: Arc<str>,
}

impl Signer {
    /// Signs with the keys that `printed` tells.
    ///
    /// # Errors
    /// An [`AwsKeysFault`].
    pub(super) fn new(
        printed: &Secret,
        region: &Arc<str>,
        service: &Arc<str>,
    ) -> Result<Self, AwsKeysFault> {
        let mut keys = AwsKeys::parse(printed.expose())?;
        let session = keys.session.take().map(|session| {
            let text = Zeroizing::new(session.expose().to_owned());
            secret_value(text).ok_or(AwsKeysFault::Session)
        });
        Ok(Self {
            keys,
            session: session.transpose()?,
            region: Arc::clone(region),
            service: Arc::clone(service),
        })
    }

    /// When the keys ended, if they have by `now`.
    pub(super) fn ended(&self, now: Timestamp) -> Option<Timestamp> {
        self.keys.ends.filter(|ends| *ends <= now)
    }

    /// Whether the body is signed, and so has to be there whole.
    pub(super) fn signs_body(&self) -> bool {
        !self.is_s3()
    }

    fn is_s3(&self) -> bool {
        &*self.service == "s3"
    }

    /// Whether a request to `uri` with these headers can be signed.
    ///
    /// # Errors
    /// What cannot be signed about it.
    pub(super) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), &'static str> {
        if is_signed_in_chunks(headers) {
            return Err("a body in chunks with signatures or checksums of their own (aws-chunked)");
        }
        if headers.keys().any(|name| SOURCES.contains(&&*plain(name))) {
            return Err(
                "a copy or rename (x-amz-copy-source, x-amz-rename-source): policy judges its URL, and not what it names beside that",
            );
        }
        let signs = |name: &HeaderName| is_signed(name.as_str());
        let odd = |value: &HeaderValue| !value.as_bytes().is_ascii();
        if headers
            .iter()
            .any(|(name, value)| signs(name) && odd(value))
        {
            return Err(
                "a signed header with bytes that are no ASCII, which services read in several ways",
            );
        }
        let query = uri.query().unwrap_or_default();
        if query.split(['&', ';']).any(is_presigned) {
            return Err("a URL that is signed already (X-Amz- parameters): sign by headers");
        }
        self.target(uri).map(drop)
    }

    /// The canonical path and query.
    fn target(&self, uri: &Uri) -> Result<(String, String), &'static str> {
        // S3 under each of its names.
        let paths = match &*self.service {
            "s3" | "s3express" | "s3-object-lambda" | "s3-outposts" => Paths::Once,
            _ => Paths::Twice,
        };
        let path = canonical::path(uri.path(), paths)?;
        Ok((path, canonical::query(uri.query().unwrap_or_default())?))
    }

    /// Signs `request`, which is sent as it is then. `body` is all of it, where [`Signer::signs_body`].
    ///
    /// # Errors
    /// What cannot be signed about it.
    pub(super) fn sign<B>(
        &self,
        request: &mut Request<B>,
        body: Option<&[u8]>,
        now: Timestamp,
    ) -> Result<(), &'static str> {
        self.check(request.uri(), request.headers())?;
        let (path, query) = self.target(request.uri())?;
        let payload = match body {
            _ if self.is_s3() => NOT_SIGNED,
            Some(body) => hexadecimal(digest::digest(&digest::SHA256, body).as_ref())?,
            None => return Err("a body that was not read"),
        };
        let authority = request.uri().authority();
        let authority = authority.map(|authority| authority.as_str().as_bytes().to_vec());
        let named = request.headers().get(HOST);
        let host = authority.or_else(|| named.map(|host| host.as_bytes().to_vec()));
        let host = host.ok_or("a request without a host")?;
        let method = request.method().as_str().to_owned();
        let time = now.compact();
        let headers = request.headers_mut();
        for name in &OWN {
            remove(headers, name);
        }
        let when = HeaderValue::try_from(&time).map_err(|_bad| "the time of this machine")?;
        headers.insert(DATE, when);
        headers.insert(CONTENT, payload.clone());
        if let Some(session) = &self.session {
            headers.insert(TOKEN, session.clone());
        }
        let signed = canonical::headers(&host, headers, is_signed);
        let payload = payload.to_str().map_err(|_bad| "a body without a digest")?;
        let canonical = canonical::request(&method, &path, &query, &signed, payload);
        let value = secret_value(self.authorization(&canonical, &signed, &time));
        headers.insert(AUTHORIZATION, value.ok_or("a signature that is no header")?);
        Ok(())
    }

    /// The header that proves the canonical request, at a time as [`Timestamp::compact`] has it.
    fn authorization(&self, canonical: &[u8], signed: &Signed, time: &str) -> Zeroizing<String> {
        let Self {
            keys,
            region,
            service,
            ..
        } = self;
        let day = time.split('T').next().unwrap_or_default();
        let scope = format!("{day}/{region}/{service}/aws4_request");
        let digest = encode_hex(digest::digest(&digest::SHA256, canonical).as_ref());
        let text = format!("{ALGORITHM}\n{time}\n{scope}\n{digest}");
        let mut first = Zeroizing::new(Vec::with_capacity(4 + keys.secret.expose().len()));
        first.extend_from_slice(b"AWS4");
        first.extend_from_slice(keys.secret.expose().as_bytes());
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, &first);
        for part in [day, region, service, "aws4_request"] {
            let next = hmac::sign(&key, part.as_bytes());
            key = hmac::Key::new(hmac::HMAC_SHA256, next.as_ref());
        }
        let signature = encode_hex(hmac::sign(&key, text.as_bytes()).as_ref());
        let (id, names) = (&keys.id, canonical::names(signed));
        Zeroizing::new(format!(
            "{ALGORITHM} Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}"
        ))
    }
}

/// Whether AWS wants this header signed, beside the host.
fn is_signed(name: &str) -> bool {
    name == CONTENT_TYPE || name.starts_with("x-amz-")
}

/// Whether parts of the body carry signatures of the client's, or checksums whose announcement is signed.
fn is_signed_in_chunks(headers: &HeaderMap) -> bool {
    let says = |value: &HeaderValue, part: &[u8]| {
        let value = value.as_bytes().to_ascii_lowercase();
        value.windows(part.len()).any(|of| of == part)
    };
    headers.iter().any(|(name, value)| {
        let name = plain(name);
        name == CONTENT.as_str() && says(value, b"streaming-")
            || name == CONTENT_ENCODING.as_str() && says(value, b"aws-chunked")
    })
}

/// Whether a parameter of the query is one of a signature: version 4's, or 2's.
fn is_presigned(part: &str) -> bool {
    let name = decoded(part.split('=').next().unwrap_or_default());
    let name = name.to_ascii_lowercase();
    name.starts_with(b"x-amz-") || name.starts_with(b"x_amz_") || name == b"awsaccesskeyid"
}

fn hexadecimal(digest: &[u8]) -> Result<HeaderValue, &'static str> {
    HeaderValue::try_from(encode_hex(digest)).map_err(|_bad| "a body without a digest")
}
