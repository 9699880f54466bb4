//! Credentials: the secrets that the gate holds, and how one is put into a request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use exeat_policy::{Credential, Placement, PolicySet};
use hyper::Request;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::PathAndQuery;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::channel::Secret;
use crate::decode::base64;
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
    /// The request is not encrypted and leaves the machine, or goes where not only those can listen who may.
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
                fault: held.and_then(|held| held.form.as_ref().err().cloned()),
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
        match held.form {
            Ok(form) => Ok(Injection { name: name(), form }),
            Err(why) => Err(CredentialFault::Unavailable { name: name(), why }),
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

    /// Puts the secret in the place of whatever the client sent there.
    ///
    /// # Errors
    /// [`CredentialFault::Query`].
    pub fn put<B>(self, request: &mut Request<B>) -> Result<(), CredentialFault> {
        match self.form {
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

/// Removes every header that a server may take for `name`: many do not tell `_` and `-` apart.
fn remove(headers: &mut HeaderMap, name: &HeaderName) {
    let plain = |name: &HeaderName| name.as_str().replace('_', "-");
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
    for part in query.unwrap_or_default().split_inclusive(['&', ';']) {
        let name = part.trim_end_matches(['&', ';']);
        let name = name.split('=').next().unwrap_or_default();
        if !decoded(name).eq_ignore_ascii_case(parameter.as_bytes()) {
            written.push_str(part);
        }
    }
    if !written.ends_with(['?', '&', ';']) {
        written.push('&');
    }
    written.push_str(pair);
    written
}

/// A parameter's name, percent-encoding undone once, without blanks around it.
fn decoded(name: &str) -> Vec<u8> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let pair = match (byte, after) {
            (b'%', [high, low, tail @ ..]) => {
                let value = digit(*high).zip(digit(*low));
                value.map(|(high, low)| (high << 4 | low, tail))
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
fn form(placement: &Placement, secret: &Secret) -> Result<Form, String> {
    let secret = secret.expose();
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
            for byte in secret.bytes() {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    pair.push(char::from(byte));
                } else {
                    pair.push('%');
                    for digit in [byte >> 4, byte & 15] {
                        let digit = char::from_digit(digit.into(), 16).unwrap_or_default();
                        pair.push(digit.to_ascii_uppercase());
                    }
                }
            }
            Ok(Form::Query(Arc::clone(name), Arc::new(pair)))
        }
    }
}

fn header(name: &str, text: Zeroizing<String>) -> Result<Form, String> {
    let unfit = || "a header cannot carry it".to_owned();
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_bad| unfit())?;
    let value = HeaderValue::from_maybe_shared(Bytes::from_owner(Owned(text)));
    let mut value = value.map_err(|_bad| unfit())?;
    // Never shown, and never in a table of HTTP/2 that outlives the request.
    value.set_sensitive(true);
    Ok(Form::Header(name, value))
}

#[cfg(test)]
mod tests {
    use exeat_policy::{Source, compile};

    use super::*;

    const SECRET: &str = "s3cr3t/of+it";

    fn set(placement: &str) -> PolicySet {
        let text = format!(
            "version: 1\ncredentials: {{ x: {{ file: /x, hosts: [a.example] {placement} }} }}\n"
        );
        let name = "p.yaml".to_owned();
        compile(&[Source { name, text }]).unwrap()
    }

    async fn sent(placement: &str, uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let set = set(placement);
        let definition = set.credential("x").unwrap();
        let credentials = Credentials::default();
        credentials.learn(definition, Ok(Secret::new(SECRET.to_owned())));
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).unwrap();
        let due = credentials.due(definition, true).await.unwrap();
        assert_eq!(due.name(), "x");
        due.put(&mut request).unwrap();
        assert!(
            !format!("{request:?} {credentials:?}").contains(SECRET) || placement.contains("query")
        );
        request
    }

    #[tokio::test]
    async fn what_the_client_sent_there_is_gone() {
        let own = [
            ("authorization", "Bearer own"),
            ("Authorization", "Basic own"),
            ("x-api-key", "own"),
            ("x_api_key", "own"),
            ("x-other", "own"),
        ];
        let all = |request: &Request<()>, name: &str| -> Vec<String> {
            let values = request.headers().get_all(name).iter();
            values
                .map(|value| value.to_str().unwrap().to_owned())
                .collect()
        };
        let request = sent("", "/", &own).await;
        assert_eq!(all(&request, "authorization"), ["Bearer s3cr3t/of+it"]);
        assert_eq!(all(&request, "x-api-key"), ["own"]);
        let request = sent(", header: X-Api-Key, prefix: 'k '", "/", &own).await;
        assert_eq!(all(&request, "x-api-key"), ["k s3cr3t/of+it"]);
        assert_eq!(all(&request, "x_api_key"), <[&str; 0]>::default());
        assert_eq!(all(&request, "authorization").len(), 2);
        assert_eq!(all(&request, "x-other"), ["own"]);
        let request = sent(", basic: me", "/", &own).await;
        assert_eq!(
            all(&request, "authorization"),
            ["Basic bWU6czNjcjN0L29mK2l0"]
        );
    }

    #[tokio::test]
    async fn a_parameter_replaces_all_that_may_be_read_as_it() {
        let secret = "key=s3cr3t%2Fof%2Bit";
        for (given, left) in [
            ("/p", "/p?"),
            ("/p?", "/p?"),
            ("/p?a=1", "/p?a=1&"),
            ("/p?key=own", "/p?"),
            ("/p?a=1&key=own&b=2", "/p?a=1&b=2&"),
            ("/p?a=1;key=own;b=2", "/p?a=1;b=2&"),
            ("/p?KEY=own&%6bey=own&ke%59=own&key", "/p?"),
            ("/p?+key=own&keys=2", "/p?keys=2&"),
            ("/p?a=key", "/p?a=key&"),
            ("https://a.example/p?key=own", "https://a.example/p?"),
        ] {
            let request = sent(", query: key", given, &[]).await;
            assert_eq!(
                request.uri().to_string(),
                format!("{left}{secret}"),
                "{given}"
            );
        }
    }

    #[tokio::test]
    async fn what_cannot_be_had_is_a_fault() {
        let set = set("");
        let definition = set.credential("x").unwrap();
        let credentials = Credentials {
            wait: Duration::from_millis(10),
            ..Credentials::default()
        };
        let secret = || Secret::new(SECRET.to_owned());
        let late = credentials.due(definition, true).await.unwrap_err();
        assert!(matches!(late, CredentialFault::Late { .. }), "{late}");
        credentials.learn(definition, Ok(secret()));
        let clear = credentials.due(definition, false).await.unwrap_err();
        assert!(matches!(clear, CredentialFault::Clear { .. }), "{clear}");
        credentials.learn(definition, Err("its file is gone".to_owned()));
        let told = credentials.due(definition, true).await.unwrap_err();
        assert!(told.to_string().ends_with("its file is gone"), "{told}");
        // Defined anew: what was read before is not what is meant now.
        credentials.learn(definition, Ok(secret()));
        let other = self::set(", header: X-Key");
        credentials.keep(&other);
        assert_eq!(credentials.standing(&other)[0].read, None);
        let late = credentials.due(definition, true).await.unwrap_err();
        assert!(matches!(late, CredentialFault::Late { .. }), "{late}");
        credentials.learn(other.credential("x").unwrap(), Ok(secret()));
        let late = credentials.due(definition, true).await.unwrap_err();
        assert!(matches!(late, CredentialFault::Late { .. }), "{late}");
    }
}
