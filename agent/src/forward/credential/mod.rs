//! Credentials: the secrets that the gate holds, and how one is put into a request.

mod own;
mod sigv4;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use exeat_policy::{Credential, Placement, PolicySet};
use hyper::Request;
use hyper::body::Body as HttpBody;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::PathAndQuery;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::timeout;
use zeroize::Zeroizing;

use self::sigv4::Signer;
use super::body::BodyFault;
use super::percent;
use super::whole::{Incomplete, collect};
use crate::channel::Secret;
use crate::decode::base64;
use crate::identify::room::{NoRoom, Taken};
use crate::refuse::Refusal;
use crate::secrets;
use crate::telemetry::clock::{self, Timestamp};

/// How long a request waits for a source that is being read: a little longer than that takes at most.
const WAIT: Duration = secrets::LIMIT.saturating_add(Duration::from_secs(2));

/// Why a request does not get its credential. Never says the secret.
#[derive(Debug, Error)]
pub enum CredentialFault {
    /// Its source tells none.
    #[error("the credential `{name}` cannot be had: {why}")]
    Unavailable {
        /// Its name.
        name: Arc<str>,
        /// What is wrong with its source.
        why: String,
    },
    /// Nothing was heard of it.
    #[error("the credential `{name}` was not read in time")]
    Late {
        /// Its name.
        name: Arc<str>,
    },
    /// The request is not encrypted: whoever listens would have it, or whoever reads on the way.
    #[error("the credential `{name}` is not sent in clear text")]
    Clear {
        /// Its name.
        name: Arc<str>,
    },
    /// What let the request pass may not do so any more: it was waited for too long.
    #[error("the policy changed while the credential `{name}` was waited for")]
    Changed {
        /// Its name.
        name: Arc<str>,
    },
    /// The query has no room for it.
    #[error("the credential `{name}` and the request's query are no URL together")]
    Query {
        /// Its name.
        name: Arc<str>,
    },
    /// It lasted until a time that has passed.
    #[error("the credential `{name}` has ended at {at}")]
    Ended {
        /// Its name.
        name: Arc<str>,
        /// When.
        at: Timestamp,
    },
    /// The request has no form that it could sign.
    #[error("the credential `{name}` does not sign {what}")]
    Unsignable {
        /// Its name.
        name: Arc<str>,
        /// What is in it.
        what: &'static str,
    },
    /// The body is larger than what is held to be signed.
    #[error("the credential `{name}` does not sign a body of more than {most} bytes")]
    TooLarge {
        /// Its name.
        name: Arc<str>,
        /// What is held, in bytes.
        most: usize,
    },
    /// As much is held for its workload as may be.
    #[error(transparent)]
    NoRoom(NoRoom),
    /// The body did not end in time.
    #[error("the body that the credential `{name}` is to sign did not end in time")]
    Endless {
        /// Its name.
        name: Arc<str>,
    },
    /// The body did not come.
    #[error("reading the body that the credential `{name}` is to sign")]
    Unread {
        /// Its name.
        name: Arc<str>,
        /// Why.
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
}

impl CredentialFault {
    /// What the caller is told.
    pub fn refusal(&self) -> Refusal<'static> {
        match self {
            Self::Unavailable { .. }
            | Self::Late { .. }
            | Self::Clear { .. }
            | Self::Changed { .. }
            | Self::Query { .. }
            | Self::Ended { .. } => Refusal::CredentialUnavailable,
            Self::TooLarge { .. } => Refusal::TooLarge,
            Self::NoRoom(_) => Refusal::HeldBytes,
            Self::Unsignable { .. } | Self::Endless { .. } | Self::Unread { .. } => {
                Refusal::HttpForm
            }
        }
    }
}

/// The secrets that the gate holds.
#[derive(Debug)]
pub struct Credentials {
    held: watch::Sender<Table>,
    /// How long a request waits for one.
    wait: Duration,
}

type Table = HashMap<Arc<str>, Held>;

/// What came of reading a source.
#[derive(Debug, Clone)]
struct Held {
    definition: Arc<Credential>,
    read: Timestamp,
    form: Result<Form, String>,
}

/// A secret as it is sent. Its bytes are shared, and overwritten when the last of them is dropped.
#[derive(Clone)]
enum Form {
    Header(HeaderName, HeaderValue),
    /// The parameter's name, and the whole parameter.
    Query(Arc<str>, Arc<Zeroizing<String>>),
    Signed(Arc<Signer>),
}

impl Form {
    /// When it ended, if it has by now.
    fn ended(&self) -> Option<Timestamp> {
        match self {
            Self::Signed(signer) => signer.ended(clock::wall()),
            Self::Header(..) | Self::Query(..) => None,
        }
    }
}

impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}

/// How a credential stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub name: Arc<str>,
    /// When its source was read last; `None`: it is being read for the first time.
    pub read: Option<Timestamp>,
    /// Why there is no secret, if there is none.
    pub fault: Option<String>,
}

impl Default for Credentials {
    fn default() -> Self {
        Self {
            held: watch::Sender::new(Table::new()),
            wait: WAIT,
        }
    }
}

impl Credentials {
    /// Learns what came of reading the source of `definition`.
    pub fn learn(&self, definition: &Arc<Credential>, secret: Result<Secret, String>) {
        let form = secret.and_then(|secret| form(&definition.placement, &secret));
        let held = Held {
            definition: Arc::clone(definition),
            read: clock::wall(),
            form,
        };
        self.held.send_modify(|table| {
            table.insert(Arc::clone(&definition.name), held);
        });
    }

    /// Forgets what `set` does not define, or defines otherwise. To be done before it is in force.
    pub fn keep(&self, set: &PolicySet) {
        self.held.send_modify(|table| {
            table.retain(|name, held| set.credential(name) == Some(&held.definition));
        });
    }

    /// How the credentials of `set` stand.
    pub fn standing(&self, set: &PolicySet) -> Vec<Standing> {
        let table = self.held.borrow();
        let standing = |credential: &Arc<Credential>| {
            let held = table.get(&credential.name);
            Standing {
                name: Arc::clone(&credential.name),
                read: held.map(|held| held.read),
                fault: held.and_then(|held| match &held.form {
                    Ok(form) => form.ended().map(|at| format!("it has ended at {at}")),
                    Err(why) => Some(why.clone()),
                }),
            }
        };
        set.credentials().into_iter().map(standing).collect()
    }

    /// What is put into a request that is due `credential`, if nobody on the way reads what is sent (`sealed`). Waits while
    /// its source is being read.
    ///
    /// # Errors
    /// A [`CredentialFault`]: then the request is not to be sent.
    pub async fn due(
        &self,
        credential: &Arc<Credential>,
        sealed: bool,
    ) -> Result<Injection, CredentialFault> {
        let name = || Arc::clone(&credential.name);
        if !sealed {
            return Err(CredentialFault::Clear { name: name() });
        }
        let mut heard = self.held.subscribe();
        let known = heard.wait_for(|table| table.contains_key(&credential.name));
        let found = match timeout(self.wait, known).await {
            Ok(Ok(table)) => table.get(&credential.name).cloned(),
            Ok(Err(_)) | Err(_) => None,
        };
        // One that is defined anew since the decision is another's.
        let held = found.filter(|held| held.definition == *credential);
        let held = held.ok_or_else(|| CredentialFault::Late { name: name() })?;
        let form = held.form;
        let form = form.map_err(|why| CredentialFault::Unavailable { name: name(), why })?;
        match form.ended() {
            Some(at) => Err(CredentialFault::Ended { name: name(), at }),
            None => Ok(Injection { name: name(), form }),
        }
    }
}

/// A secret on its way into one request.
#[derive(Debug)]
pub struct Injection {
    name: Arc<str>,
    form: Form,
}

impl Injection {
    /// The credential's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether `request` can be sent with it, as far as its head shows: of a body that it signs, `most` bytes are held.
    ///
    /// # Errors
    /// A [`CredentialFault`].
    pub fn check<B: HttpBody>(
        &self,
        request: &Request<B>,
        most: usize,
    ) -> Result<(), CredentialFault> {
        let Form::Signed(signer) = &self.form else {
            return Ok(());
        };
        let checked = signer.check(request.uri(), request.headers());
        checked.map_err(|what| self.unsignable(what))?;
        let most_bytes = u64::try_from(most).unwrap_or(u64::MAX);
        if signer.signs_body() && request.body().size_hint().lower() > most_bytes {
            let name = Arc::clone(&self.name);
            return Err(CredentialFault::TooLarge { name, most });
        }
        Ok(())
    }

    /// Whether it signs the body, which has to be there whole then.
    pub fn signs_body(&self) -> bool {
        matches!(&self.form, Form::Signed(signer) if signer.signs_body())
    }

    /// Reads the body that is to be signed, at most `most` bytes within `limit`, in the room that `taken` takes. Trailers
    /// are not signed, and go no further.
    ///
    /// # Errors
    /// A [`CredentialFault`].
    pub async fn read<B>(
        &self,
        body: B,
        most: usize,
        limit: Duration,
        taken: &mut Taken,
    ) -> Result<Bytes, CredentialFault>
    where
        B: HttpBody<Data = Bytes, Error = BodyFault>,
    {
        let name = Arc::clone(&self.name);
        let body = collect(body, most, limit, taken).await;
        body.map_err(|fault| match fault {
            Incomplete::TooLarge => CredentialFault::TooLarge { name, most },
            Incomplete::NoRoom(fault) => CredentialFault::NoRoom(fault),
            Incomplete::Late(_) => CredentialFault::Endless { name },
            Incomplete::Read(cause) => CredentialFault::Unread { name, cause },
        })
    }

    fn unsignable(&self, what: &'static str) -> CredentialFault {
        let name = Arc::clone(&self.name);
        CredentialFault::Unsignable { name, what }
    }

    /// Puts the secret, or what it signs, in the place of whatever the client sent there, or logs in with elsewhere. `body`
    /// is all of the request's body, where that is signed.
    ///
    /// # Errors
    /// A [`CredentialFault`].
    pub fn put<B>(
        self,
        request: &mut Request<B>,
        body: Option<&[u8]>,
    ) -> Result<(), CredentialFault> {
        if let Some(at) = self.form.ended() {
            // While its body was read.
            let name = self.name;
            return Err(CredentialFault::Ended { name, at });
        }
        own::strip(request).ok_or_else(|| CredentialFault::Query {
            name: Arc::clone(&self.name),
        })?;
        match self.form {
            Form::Signed(ref signer) => {
                let done = signer.sign(request, body, clock::wall());
                done.map_err(|what| self.unsignable(what))
            }
            Form::Header(name, value) => {
                remove(request.headers_mut(), &name);
                request.headers_mut().insert(name, value);
                Ok(())
            }
            Form::Query(parameter, pair) => {
                let mut parts = request.uri().clone().into_parts();
                let path = parts.path_and_query.as_ref();
                let path = with_parameter(path, &parameter, &pair);
                let bytes = Bytes::from_owner(Owned(path));
                let put = PathAndQuery::from_maybe_shared(bytes)
                    .ok()
                    .and_then(|path| {
                        parts.path_and_query = Some(path);
                        hyper::Uri::from_parts(parts).ok()
                    });
                let fault = CredentialFault::Query { name: self.name };
                *request.uri_mut() = put.ok_or(fault)?;
                Ok(())
            }
        }
    }
}

/// Bytes that are overwritten when the last that shares them is dropped.
struct Owned(Zeroizing<String>);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// A header's name as servers read it that do not tell `_` and `-` apart.
fn plain(name: &HeaderName) -> String {
    name.as_str().replace('_', "-")
}

/// Removes every header that a server may take for `name`.
fn remove(headers: &mut HeaderMap, name: &HeaderName) {
    let wanted = plain(name);
    let same: Vec<HeaderName> = headers
        .keys()
        .filter(|key| plain(key) == wanted)
        .cloned()
        .collect();
    for name in same {
        headers.remove(name);
    }
}

/// The path with its query, in which `pair` stands in the place of every parameter that a server may take for
/// `parameter`: percent-encoded or in other case.
fn with_parameter(path: Option<&PathAndQuery>, parameter: &str, pair: &str) -> Zeroizing<String> {
    let (path, query) = path.map_or(("/", None), |path| (path.path(), path.query()));
    let room = path.len() + query.map_or(0, str::len) + pair.len() + 2;
    let mut written = Zeroizing::new(String::with_capacity(room));
    written.push_str(path);
    written.push('?');
    let is_other = |name: &str| !decoded(name).eq_ignore_ascii_case(parameter.as_bytes());
    written.push_str(&kept(query.unwrap_or_default(), is_other));
    if !written.ends_with(['?', '&', ';']) {
        written.push('&');
    }
    written.push_str(pair);
    written
}

/// The parameters of `query` whose names, as they are sent, `keeps` says true to; each with what separates it from the
/// next.
fn kept(query: &str, keeps: impl Fn(&str) -> bool) -> String {
    let name = |part: &str| {
        let part = part.trim_end_matches(['&', ';']);
        keeps(part.split('=').next().unwrap_or_default())
    };
    let parts = query.split_inclusive(['&', ';']);
    parts.filter(|part| name(part)).collect()
}

/// A parameter's name, percent-encoding undone once, without blanks around it.
fn decoded(name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let pair = match (byte, after) {
            (b'%', [high, low, tail @ ..]) => {
                percent::octet([*high, *low]).map(|byte| (byte, tail))
            }
            (b'+', tail) => Some((b' ', tail)),
            _ => None,
        };
        let (byte, tail) = pair.unwrap_or((*byte, after));
        out.push(byte);
        rest = tail;
    }
    out.trim_ascii().to_vec()
}

/// The secret as `placement` sends it; or why it cannot be sent so.
fn form(placement: &Placement, told: &Secret) -> Result<Form, String> {
    let secret = told.expose();
    match placement {
        Placement::Header { name, prefix } => {
            let mut text = Zeroizing::new(String::with_capacity(prefix.len() + secret.len()));
            text.push_str(prefix);
            text.push_str(secret);
            header(name, text)
        }
        Placement::Basic(user) => {
            let mut pair = Zeroizing::new(String::with_capacity(user.len() + secret.len() + 1));
            pair.push_str(user);
            pair.push(':');
            pair.push_str(secret);
            let mut text = Zeroizing::new(String::with_capacity(pair.len().div_ceil(3) * 4 + 8));
            text.push_str("Basic ");
            base64::encode(pair.as_bytes(), &mut text);
            header("authorization", text)
        }
        Placement::Query(name) => {
            let room = name.len() + 1 + secret.len() * 3;
            let mut pair = Zeroizing::new(String::with_capacity(room));
            pair.push_str(name);
            pair.push('=');
            percent::encode(secret.as_bytes(), b"", &mut pair);
            Ok(Form::Query(Arc::clone(name), Arc::new(pair)))
        }
        Placement::AwsSigV4 { region, service } => {
            let signer = Signer::new(told, region, service);
            let signer = signer.map_err(|fault| format!("it is not keys of AWS: {fault}"))?;
            Ok(Form::Signed(Arc::new(signer)))
        }
    }
}

fn header(name: &str, text: Zeroizing<String>) -> Result<Form, String> {
    let unfit = || "a header cannot carry it".to_owned();
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_bad| unfit())?;
    let value = secret_value(text).ok_or_else(unfit)?;
    Ok(Form::Header(name, value))
}

/// The value of a header that is never shown, and never in a table of HTTP/2 that outlives the request.
fn secret_value(text: Zeroizing<String>) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(Owned(text))).ok()?;
    value.set_sensitive(true);
    Some(value)
}
