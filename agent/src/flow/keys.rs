//! Fetches the keys of issuers: the gate's own exchanges, permitted by the configuration, each with its record.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use thiserror::Error;
use tokio::time::{Instant, timeout_at};

use super::Stages;
use super::describe::{Story as _, finding, read};
use crate::audit::record::{Http, Kind, Stage};
use crate::audit::{AuditUnavailable, OpenRecord, Outcome, Start, Text};
use crate::config::{HttpsUrl, HttpsUrlFault, KeySource};
use crate::decode::json::{Limits, Value, parse};
use crate::forward::body::HttpFault;
use crate::forward::open::{Destination, OpenFault};
use crate::forward::upstream::{Body, Unheard};
use crate::identify::peer::Peer;
use crate::identify::token::{Fresh, KeysFault, Supply};
use crate::tls::leaf::Alpn;

/// Bytes of a key set or of an issuer's metadata beyond which it is not read.
const LARGEST: usize = 512 << 10;
/// Bounds of an issuer's metadata.
const METADATA: Limits = Limits {
    bytes: LARGEST,
    depth: 16,
    values: 16 << 10,
    number: 32,
};
/// Whose connections these are, where connections are kept apart by workload: nobody's.
const NOBODY: u32 = 0;

/// Why there are no new keys.
#[derive(Debug, Error)]
enum FetchFault {
    /// It cannot be recorded.
    #[error(transparent)]
    Unrecorded(#[from] AuditUnavailable),
    /// No connection.
    #[error("opening a connection to `{0}`")]
    Open(HttpsUrl, #[source] Box<OpenFault>),
    /// HTTP failed.
    #[error("asking for `{0}`")]
    Ask(HttpsUrl, #[source] HttpFault),
    /// The answer broke off.
    #[error("reading `{0}`")]
    Read(HttpsUrl, #[source] Box<dyn Error + Send + Sync>),
    /// Another status than 200; redirects are not followed.
    #[error("`{0}` answered {1}")]
    Status(HttpsUrl, StatusCode),
    /// Too large, or in a content coding that nobody asked for.
    #[error("`{0}` answered more than 512 KiB, or in a content coding")]
    Form(HttpsUrl),
    /// Not in time.
    #[error("`{0}` did not answer in time")]
    Late(HttpsUrl),
    /// The metadata cannot be read, or is another issuer's.
    #[error("`{0}` is not the metadata of this issuer: {1}")]
    Metadata(HttpsUrl, &'static str),
    /// It points to what is no acceptable URL.
    #[error("`{0}` names no acceptable `jwks_uri`")]
    Location(HttpsUrl, #[source] HttpsUrlFault),
    /// What was fetched is no usable key set.
    #[error("reading the keys at `{0}`")]
    Keys(HttpsUrl, #[source] KeysFault),
}

/// Keeps the keys of one issuer fresh, until the gate stops.
pub async fn serve_keys(stages: Arc<Stages>, supply: Arc<Supply>) {
    let stopping = &stages.stopping;
    while stopping.run_until_cancelled(supply.due()).await.is_some() {
        let fetching = Box::pin(fetch(&stages, &supply));
        match stopping.run_until_cancelled(fetching).await {
            None => return,
            Some(Ok(keys)) => {
                supply.settle(Ok(keys));
            }
            Some(Err(fault)) => {
                let fault = Unavailable(Arc::clone(&supply.issuer), fault);
                let text = Text::error(&fault).to_string();
                if supply.settle(Err(text)) {
                    finding(&stages.log, "issuer_unavailable", &fault, None).await;
                }
            }
        }
    }
}

/// An issuer's keys cannot be fetched.
#[derive(Debug, Error)]
#[error("fetching the keys of the issuer `{0}`")]
struct Unavailable(Arc<str>, #[source] FetchFault);

/// One round.
async fn fetch(stages: &Stages, supply: &Supply) -> Result<Fresh, FetchFault> {
    let getting = Getting {
        stages,
        private: supply.private,
        deadline: Instant::now() + supply.limit,
    };
    let url = match &supply.source {
        KeySource::Url(url) => url.clone(),
        KeySource::Discovered(issuer) => getting.discover(issuer, &supply.issuer).await?,
        // Its keys came with the setup.
        KeySource::File(_) => return Err(AuditUnavailable::Ended.into()),
    };
    let set = getting.get(&url).await?;
    supply.read(&set).map_err(|why| FetchFault::Keys(url, why))
}

/// Requests of one round.
struct Getting<'a> {
    stages: &'a Stages,
    private: bool,
    deadline: Instant,
}

impl Getting<'_> {
    /// Where the issuer says that its keys are.
    async fn discover(&self, issuer: &HttpsUrl, name: &str) -> Result<HttpsUrl, FetchFault> {
        let [openid, oauth] = issuer
            .metadata()
            .ok_or_else(|| FetchFault::Metadata(issuer.clone(), "its URL has a query"))?;
        match self.get(&openid).await {
            Err(FetchFault::Status(_, status)) if status.is_client_error() => {
                let metadata = self.get(&oauth).await?;
                located(&metadata, name, oauth)
            }
            metadata => located(&metadata?, name, openid),
        }
    }

    /// What stands at `url`, within the round's deadline.
    async fn get(&self, url: &HttpsUrl) -> Result<Bytes, FetchFault> {
        let late = || FetchFault::Late(url.clone());
        let opened = self.stages.log.open(Kind::Http, Start::default());
        let opened = timeout_at(self.deadline, opened).await;
        let mut record = opened.map_err(|_late| late())??;
        record.record_mut().http = Some(Http {
            name: Some(Text::new(url.host().as_str())),
            sni: Some(Text::new(url.host().as_str())),
            port: Some(url.port()),
            version: Some(Text::fixed("HTTP/1.1")),
            method: Some(Text::fixed("GET")),
            path: Some(Text::path(&url.path())),
            ..Http::default()
        });
        let asked = timeout_at(self.deadline, self.ask(&mut record, url)).await;
        match asked.unwrap_or_else(|_late| Err(late())) {
            Ok(bytes) => {
                record.tell_inspected(read(), read());
                record.tell_response_bytes(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                drop(record.close(Outcome::done()));
                Ok(bytes)
            }
            Err(fault) => {
                record.fail(&fault);
                Err(fault)
            }
        }
    }

    async fn ask(&self, record: &mut OpenRecord, url: &HttpsUrl) -> Result<Bytes, FetchFault> {
        let permit = self.stages.decider.keys(self.private);
        record.tell_decision(permit.decision());
        record.stage(Stage::Forward);
        let peer = Peer::Name(url.host().clone());
        let to = Destination {
            workload: NOBODY,
            peer: &peer,
            port: url.port(),
            dialled: std::net::Ipv4Addr::UNSPECIFIED.into(),
        };
        let asking = |error| FetchFault::Ask(url.clone(), error);
        let request = request(url)?;
        let response = {
            let intended = record.intend().await?;
            let opened = self.stages.ways.tls(permit, &intended, to, &[Alpn::Http1]);
            let (mut sender, _alpn) = opened
                .await
                .map_err(|fault| FetchFault::Open(url.clone(), Box::new(fault)))?;
            sender.ready().await.map_err(asking)?;
            sender
                .send(intended, request, None::<Unheard>)
                .await
                .map_err(asking)?
        };
        let status = response.status();
        record.tell_status(status);
        if status != StatusCode::OK {
            return Err(FetchFault::Status(url.clone(), status));
        }
        if response.headers().contains_key(CONTENT_ENCODING) {
            return Err(FetchFault::Form(url.clone()));
        }
        match Limited::new(response.into_body(), LARGEST).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(FetchFault::Form(url.clone())),
            Err(error) => Err(FetchFault::Read(url.clone(), error)),
        }
    }
}

fn request(url: &HttpsUrl) -> Result<Request<Body>, FetchFault> {
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let mut request = Request::new(body);
    let letters = |_unfit| FetchFault::Location(url.clone(), HttpsUrlFault::Letters);
    *request.uri_mut() = url.path().parse::<Uri>().map_err(letters)?;
    let host = HeaderValue::from_str(&url.authority())
        .map_err(|_unfit| FetchFault::Location(url.clone(), HttpsUrlFault::Host))?;
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(USER_AGENT, HeaderValue::from_static("exeat"));
    Ok(request)
}

/// Where metadata, which stands at `at`, says that the keys are.
fn located(metadata: &[u8], issuer: &str, at: HttpsUrl) -> Result<HttpsUrl, FetchFault> {
    let Ok(metadata) = parse(metadata, &METADATA) else {
        return Err(FetchFault::Metadata(at, "it is not JSON in one reading"));
    };
    let text = |name: &str| metadata.get(name).and_then(Value::as_str);
    // Or another issuer's keys would verify this one's tokens (`OpenID` Connect Discovery 1.0 section 4.3).
    if text("issuer") != Some(issuer) {
        return Err(FetchFault::Metadata(at, "`issuer` in it is another"));
    }
    let Some(location) = text("jwks_uri") else {
        return Err(FetchFault::Metadata(at, "it has no `jwks_uri`"));
    };
    HttpsUrl::parse(location).map_err(|fault| FetchFault::Location(at, fault))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_the_issuers_own() {
        let at = HttpsUrl::parse("https://a.example/.well-known/openid-configuration").unwrap();
        let of = |text: &str| {
            let found = located(text.as_bytes(), "https://a.example", at.clone());
            found
                .map(|url| url.to_string())
                .map_err(|fault| fault.to_string())
        };
        let good = r#"{"issuer":"https://a.example","jwks_uri":"https://keys.example/a?p=1"}"#;
        assert_eq!(of(good), Ok("https://keys.example/a?p=1".to_owned()));
        for (text, why) in [
            (good.replace("//a.example", "//a.example/"), "another"),
            (good.replace("//a.example", "//b.example"), "another"),
            (
                good.replacen('{', r#"{"issuer":"https://b.example","#, 1),
                "one reading",
            ),
            (good.replace("jwks_uri", "jwks"), "no `jwks_uri`"),
            (good.replace("https://keys", "http://keys"), "acceptable"),
            (
                good.replace("keys.example", "169.254.169.254"),
                "acceptable",
            ),
            (good.replace("keys.example", "localhost"), "acceptable"),
            (format!("{good}x"), "one reading"),
            ("[]".to_owned(), "another"),
        ] {
            let fault = of(&text).unwrap_err();
            assert!(fault.contains(why), "{text}: {fault}");
        }
    }
}
