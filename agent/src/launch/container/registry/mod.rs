//! Fetching an image from its registry (OCI distribution and image specifications), and handing it to Docker's daemon
//! while it comes: every byte passes the gate, and each blob is what its digest says.

mod https;

use std::path::Path;
use std::time::Duration;

use exeat_policy::Image;
use hyper::header::{HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use self::https::{Client, Place};
use super::archive::{GivenUp, Writer, archive};
use super::client::{Answer, HttpError, shown};
use super::engine::{Engine, EngineError};
use crate::channel::encode_hex;

/// The longest manifest (its bound in the OCI distribution specification).
const MANIFEST: usize = 4 << 20;
/// The longest configuration.
const CONFIGURATION: u64 = 4 << 20;
/// The longest answer of who gives tokens.
const TOKEN: usize = 256 << 10;
/// The largest image, by its layers together as they are sent.
const IMAGE: u64 = 32 << 30;
/// The most layers (Docker's bound is 127).
const LAYERS: usize = 128;
/// How often one request is sent elsewhere.
const REDIRECTS: u32 = 5;

/// What manifests are taken.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json";
/// What layers are taken: archives, as they are or compressed, which Docker's daemon tells apart by itself.
const ARCHIVES: [&str; 5] = [
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
];

/// Why an image did not come by.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// A registry elsewhere than `launch.fetch` can name.
    #[error("`{0}` is not at port 443, where alone is fetched from")]
    Port(String),
    /// It took longer than a server may fetch.
    #[error(
        "it did not come by within {0} s: raise `limits.fetch_deadline`, or fetch it by `docker pull` beforehand"
    )]
    Late(u64),
    /// The trust bundle.
    #[error("reading the trust bundle")]
    Trust(#[source] rustls_pki_types::pem::Error),
    /// A host is not there, or not to be fetched from.
    #[error("reaching `{host}`, which `launch.fetch` has to name")]
    Reach {
        /// Which.
        host: String,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// A host did not answer as it should.
    #[error("asking `{host}`")]
    Http {
        /// Which.
        host: String,
        /// Why.
        #[source]
        cause: HttpError,
    },
    /// A host answered with an error.
    #[error("`{host}` answered {status} to {path}: {said}")]
    Status {
        /// Which.
        host: String,
        /// What was asked for.
        path: String,
        /// Of HTTP.
        status: StatusCode,
        /// The beginning of its answer, escaped.
        said: String,
    },
    /// Only those get it whom the registry knows.
    #[error(
        "`{0}` wants a user's credentials, which Exeat does not give: fetch the image by `docker pull` beforehand"
    )]
    Credentials(String),
    /// An answer is not what it should be.
    #[error("{0}")]
    Unfit(&'static str),
    /// An answer is no JSON of its kind.
    #[error("understanding the {0}")]
    Json(&'static str, #[source] serde_json::Error),
    /// What came is something else.
    #[error("the {what} has sha256 {got} and not {wanted}")]
    Digest {
        /// Manifest, configuration or layer.
        what: &'static str,
        /// What came, in hex.
        got: String,
        /// What was asked for, in hex.
        wanted: String,
    },
    /// Docker's daemon did not take it.
    #[error("handing it to Docker's daemon")]
    Engine(#[source] EngineError),
    /// Docker's daemon went away.
    #[error("Docker's daemon took no more of it")]
    Untaken,
}

impl From<GivenUp> for PullError {
    fn from(_gone: GivenUp) -> Self {
        Self::Untaken
    }
}

/// What a manifest names.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// A manifest, or a list of them.
#[derive(Debug, Deserialize)]
struct Manifest {
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

impl Descriptor {
    /// The digest in hex.
    fn sha256(&self) -> Result<&str, PullError> {
        hex(&self.digest)
    }
}

/// Of `sha256:HEX`.
fn hex(digest: &str) -> Result<&str, PullError> {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    digest
        .strip_prefix("sha256:")
        .filter(|hex| hex.len() == 64 && hex.bytes().all(lower))
        .ok_or(PullError::Unfit("a digest of the manifest is no sha256"))
}

fn equal(what: &'static str, digest: Sha256, wanted: &str) -> Result<(), PullError> {
    let got = encode_hex(&digest.finalize());
    if got == wanted {
        return Ok(());
    }
    Err(PullError::Digest {
        what,
        got,
        wanted: wanted.to_owned(),
    })
}

/// A repository at a registry.
struct Repository {
    client: Client,
    registry: Place,
    name: String,
    /// What the registry wants to see.
    token: Option<HeaderValue>,
}

/// Fetches an image and has Docker's daemon take it, within `limit`; its id there.
pub(super) async fn pull(
    image: &Image,
    engine: &Engine,
    bundle: &Path,
    limit: Duration,
) -> Result<String, PullError> {
    let registry =
        Place::registry(&image.registry).ok_or_else(|| PullError::Port(image.registry.clone()))?;
    let mut repository = Repository {
        client: Client::new(bundle)?,
        registry,
        name: image.name.clone(),
        token: None,
    };
    repository.greet().await?;
    let manifest = repository.manifest(image.reference()).await?;
    let name = image.kept_as();
    let (writer, archive) = archive();
    let (sent, taken) = tokio::join!(
        repository.send(&manifest, &name, writer),
        engine.load(archive, &name, limit)
    );
    match (sent, taken) {
        // If the daemon goes away, what it said is the reason.
        (Ok(()) | Err(PullError::Untaken), taken) => taken.map_err(PullError::Engine),
        (Err(error), _) => Err(error),
    }
}

impl Repository {
    /// Learns what the registry wants to see. By HEAD: what is refused is nothing that was fetched.
    async fn greet(&mut self) -> Result<(), PullError> {
        let place = self.registry.at("/v2/");
        let answer = self.client.ask(Method::HEAD, &place, "*/*", None).await?;
        if answer.response.status() == StatusCode::UNAUTHORIZED {
            self.take_token(answer).await?;
        }
        Ok(())
    }

    async fn take_token(&mut self, refused: Answer) -> Result<(), PullError> {
        let challenge = refused.response.headers().get(WWW_AUTHENTICATE).cloned();
        drop(refused);
        self.token = Some(self.ask_token(challenge.as_ref()).await?);
        Ok(())
    }

    /// The manifest of this platform's image.
    async fn manifest(&mut self, reference: &str) -> Result<Manifest, PullError> {
        let first = self.one_manifest(reference).await?;
        if first.config.is_some() {
            return Ok(first);
        }
        let is_ours =
            |platform: &Platform| platform.os == "linux" && platform.architecture == "amd64";
        let ours = first
            .manifests
            .iter()
            .find(|one| one.platform.as_ref().is_some_and(is_ours))
            .ok_or(PullError::Unfit("the image is not there for linux/amd64"))?;
        ours.sha256()?;
        let second = self.one_manifest(&ours.digest).await?;
        match second.config {
            Some(_) => Ok(second),
            None => Err(PullError::Unfit("a list of manifests names another list")),
        }
    }

    async fn one_manifest(&mut self, reference: &str) -> Result<Manifest, PullError> {
        let path = format!("/v2/{}/manifests/{reference}", self.name);
        let answer = self.get(&path, MANIFESTS).await?;
        let failed = self.registry.failed();
        let body = answer.whole(MANIFEST).await.map_err(failed)?;
        if reference.contains(':') {
            equal("manifest", Sha256::new_with_prefix(&body), hex(reference)?)?;
        }
        serde_json::from_slice(&body).map_err(|error| PullError::Json("manifest", error))
    }

    /// Writes the image as it comes; last what makes an image of it.
    async fn send(
        &mut self,
        manifest: &Manifest,
        name: &str,
        writer: Writer,
    ) -> Result<(), PullError> {
        let config = manifest.config.as_ref();
        let config = config.ok_or(PullError::Unfit("the manifest has no configuration"))?;
        let sum = |sum: u64, layer: &Descriptor| sum.checked_add(layer.size);
        let size = manifest.layers.iter().try_fold(0, sum);
        if config.size > CONFIGURATION
            || manifest.layers.len() > LAYERS
            || size.is_none_or(|size| size > IMAGE)
        {
            return Err(PullError::Unfit("the image is too large"));
        }
        if manifest
            .layers
            .iter()
            .any(|layer| !ARCHIVES.contains(&&*layer.media_type))
        {
            return Err(PullError::Unfit(
                "a layer is no archive, or kept elsewhere: that is no image of a container",
            ));
        }
        let config_name = format!("{}.json", config.sha256()?);
        self.blob("configuration", config, &config_name, &writer)
            .await?;
        let mut names = Vec::new();
        for (number, layer) in manifest.layers.iter().enumerate() {
            let name = format!("{number}.tar");
            self.blob("layer", layer, &name, &writer).await?;
            names.push(name);
        }
        let list = json!([{ "Config": config_name, "RepoTags": [name], "Layers": names }]);
        writer
            .file("manifest.json", list.to_string().into())
            .await?;
        writer.finish().await?;
        Ok(())
    }

    /// Passes on a blob, which is what its digest says, or the archive ends here.
    async fn blob(
        &mut self,
        what: &'static str,
        blob: &Descriptor,
        name: &str,
        writer: &Writer,
    ) -> Result<(), PullError> {
        let wanted = blob.sha256()?;
        let path = format!("/v2/{}/blobs/{}", self.name, blob.digest);
        let mut answer = self.get(&path, "*/*").await?;
        writer.begin(name, blob.size).await?;
        let (mut digest, mut left) = (Sha256::new(), blob.size);
        while let Some(data) = answer.data().await.map_err(self.registry.failed())? {
            let length = data.len() as u64;
            left = left
                .checked_sub(length)
                .ok_or(PullError::Unfit("a blob is longer than the manifest says"))?;
            digest.update(&data);
            writer.bytes(data).await?;
        }
        if left > 0 {
            return Err(PullError::Unfit("a blob is shorter than the manifest says"));
        }
        equal(what, digest, wanted)?;
        writer.pad(blob.size).await?;
        Ok(())
    }

    /// Asks the registry; with a token, if it wants one that anybody gets.
    async fn get(&mut self, path: &str, accept: &'static str) -> Result<Answer, PullError> {
        let answer = self.follow(path, accept).await?;
        let answer = if answer.response.status() == StatusCode::UNAUTHORIZED {
            self.take_token(answer).await?;
            self.follow(path, accept).await?
        } else {
            answer
        };
        match answer.response.status() {
            StatusCode::OK => Ok(answer),
            StatusCode::UNAUTHORIZED => Err(PullError::Credentials(self.registry.host.clone())),
            status => Err(said(&self.registry.host, path, status, answer).await),
        }
    }

    /// Goes where it is sent to. The token is for the registry alone.
    async fn follow(&self, path: &str, accept: &'static str) -> Result<Answer, PullError> {
        let mut place = self.registry.at(path);
        for _redirect in 0..=REDIRECTS {
            let token = self
                .token
                .as_ref()
                .filter(|_| place.host == self.registry.host);
            let answer = self.client.ask(Method::GET, &place, accept, token).await?;
            if !answer.response.status().is_redirection() {
                return Ok(answer);
            }
            place = place.next(&answer.response).ok_or(PullError::Unfit(
                "it is sent elsewhere than to https and port 443",
            ))?;
        }
        Err(PullError::Unfit("it is sent elsewhere too often"))
    }

    /// What anybody gets who asks where the registry says (its token authentication specification).
    async fn ask_token(&self, challenge: Option<&HeaderValue>) -> Result<HeaderValue, PullError> {
        #[derive(Deserialize)]
        struct Given {
            token: Option<String>,
            access_token: Option<String>,
        }
        let credentials = || PullError::Credentials(self.registry.host.clone());
        let challenge = challenge.and_then(|value| value.to_str().ok());
        let challenge = challenge
            .and_then(Challenge::read)
            .ok_or_else(credentials)?;
        let place = challenge.place(&self.name).ok_or(PullError::Unfit(
            "its tokens are not given out at https and port 443",
        ))?;
        let answer = self
            .client
            .ask(Method::GET, &place, "application/json", None)
            .await?;
        match answer.response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(credentials()),
            status => return Err(said(&place.host, "a token", status, answer).await),
        }
        let body = answer.whole(TOKEN).await.map_err(place.failed())?;
        let given: Given =
            serde_json::from_slice(&body).map_err(|error| PullError::Json("token", error))?;
        let token = given.token.or(given.access_token).ok_or_else(credentials)?;
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_unfit| PullError::Unfit("a token is no word"))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// The beginning of what a host said with its error.
async fn said(host: &str, path: &str, status: StatusCode, mut answer: Answer) -> PullError {
    let said = answer.data().await.ok().flatten().unwrap_or_default();
    PullError::Status {
        host: host.to_owned(),
        path: path.to_owned(),
        status,
        said: shown(&String::from_utf8_lossy(&said)),
    }
}

/// `Bearer realm="…",service="…",scope="…"`.
#[derive(Debug, PartialEq, Eq)]
struct Challenge<'a> {
    realm: &'a str,
    service: Option<&'a str>,
}

impl<'a> Challenge<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (scheme, parameters) = text.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut rest) = (None, None, parameters);
        while let Some((name, after)) = rest.split_once("=\"") {
            let (value, after) = after.split_once('"')?;
            match name.trim_matches([',', ' ']) {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                _ => {}
            }
            rest = after;
        }
        Some(Self {
            realm: realm?,
            service,
        })
    }

    /// Where a token to read this repository is given out.
    fn place(&self, name: &str) -> Option<Place> {
        let mut place = Place::parse(self.realm)?;
        let begin = if place.path.contains('?') { '&' } else { '?' };
        let scope = format!(
            "{begin}scope={}",
            encode(&format!("repository:{name}:pull"))
        );
        place.path.push_str(&scope);
        if let Some(service) = self.service {
            place.path.push_str("&service=");
            place.path.push_str(&encode(service));
        }
        Some(place)
    }
}

fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push_str(&encode_hex(&[byte]).to_ascii_uppercase());
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_says_where_a_token_is() {
        let text =
            "Bearer realm=\"https://auth.example/token\",service=\"the registry\",scope=\"x\"";
        let challenge = Challenge::read(text).unwrap();
        let place = challenge.place("org/mcp").unwrap();
        assert_eq!(place.host, "auth.example");
        assert_eq!(
            place.path,
            "/token?scope=repository%3Aorg%2Fmcp%3Apull&service=the%20registry"
        );
        for text in ["Basic realm=\"x\"", "Bearer", "Bearer realm=x", ""] {
            assert_eq!(Challenge::read(text), None, "{text}");
        }
        let elsewhere = Challenge::read("bearer realm=\"http://auth.example/\"").unwrap();
        assert!(elsewhere.place("x").is_none());
    }

    #[test]
    fn a_digest_is_sha256_in_lower_case() {
        hex(&format!("sha256:{}", "a".repeat(64))).unwrap();
        for digest in ["sha512:aa".to_owned(), format!("sha256:{}", "A".repeat(64))] {
            assert!(hex(&digest).is_err(), "{digest}");
        }
    }
}
