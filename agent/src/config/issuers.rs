//! `issuers`: whose tokens are verified, and where their keys are.

use std::path::PathBuf;
use std::time::Duration;

use exeat_policy::yaml::{Fields, Keys, Node, Reader};
use serde::{Deserialize, Serialize};

use super::read::{MINUTE, SECOND, duration, keys, list, path};
use super::url::HttpsUrl;

/// By how much clocks may differ where the file does not say.
const LEEWAY: Duration = Duration::from_secs(30);
/// How often keys are fetched where the file does not say.
const REFRESH: Duration = Duration::from_mins(5);
/// How long fetched keys count where the file does not say.
const MAX_AGE: Duration = Duration::from_hours(1);

const ISSUER: Keys = keys(
    "an issuer",
    &[
        "issuer",
        "audience",
        "jwks",
        "private",
        "refresh",
        "max_age",
        "algorithms",
        "leeway",
    ],
);
const JWKS: Keys = keys("`jwks`", &["file", "url"]);

/// Who issues tokens, and by what they are verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// As `iss` names it, exactly.
    pub issuer: String,
    /// The values of `aud` that are accepted, one of which a token must name; never empty.
    pub audience: Vec<String>,
    /// Where the JSON Web Key Set is.
    pub jwks: KeySource,
    /// Whether the hosts that keys are fetched from may have private addresses.
    pub private: bool,
    /// How often keys are fetched.
    pub refresh: Duration,
    /// How long fetched keys count where they cannot be fetched anew.
    pub max_age: Duration,
    /// What its keys may be for; never empty.
    pub algorithms: Vec<TokenAlgorithm>,
    /// By how much clocks may differ.
    pub leeway: Duration,
}

/// Where a key set is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeySource {
    /// In a file, read when the daemon starts.
    File(PathBuf),
    /// There.
    Url(HttpsUrl),
    /// Where the issuer, which is this URL, says.
    Discovered(HttpsUrl),
}

/// How a token may be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl TokenAlgorithm {
    /// All of them; of two for one kind of key, the first is what a key that does not say is for.
    pub const ALL: [Self; 4] = [Self::Rs256, Self::Ps256, Self::Es256, Self::EdDsa];

    /// As `alg` names it (RFC 7518, RFC 8037).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

pub(super) fn issuers(reader: &mut Reader, fields: Fields<'_>) -> Option<Vec<Issuer>> {
    let issuers = list(reader, fields, "issuers", "issuers", issuer)?;
    let node = fields.get("issuers")?;
    for (place, one) in issuers.iter().enumerate() {
        if issuers
            .iter()
            .take(place)
            .any(|other| other.issuer == one.issuer)
        {
            let shown = one.issuer.escape_debug();
            reader.fault(node.span, format!("issuer `{shown}` stands here twice"));
        }
    }
    Some(issuers)
}

fn issuer(reader: &mut Reader, node: &Node) -> Option<Issuer> {
    let fields = reader.fields(node, &ISSUER)?;
    let named = reader.required(fields, "issuer", ISSUER.what);
    let name = named.and_then(|node| reader.text(node, "the issuer as its tokens name it"));
    let audience = reader
        .required(fields, "audience", ISSUER.what)
        .and_then(|node| audience(reader, node));
    let jwks = match fields.get("jwks") {
        Some(node) => jwks(reader, node),
        None => named.and_then(|node| discovered(reader, node)),
    };
    let private = fields
        .get("private")
        .map_or(Some(false), |node| reader.flag(node));
    let day = 24 * 60 * MINUTE;
    let refresh = duration(reader, fields, "refresh", SECOND..=day).unwrap_or(REFRESH);
    let max_age = duration(reader, fields, "max_age", SECOND..=30 * day);
    let max_age = max_age.unwrap_or_else(|| MAX_AGE.max(refresh));
    fetched_alone(reader, fields, jwks.as_ref());
    if max_age < refresh
        && let Some(node) = fields.get("max_age")
    {
        reader.fault(node.span, "`max_age` is shorter than `refresh`");
    }
    let leeway = duration(reader, fields, "leeway", 0..=5 * MINUTE);
    Some(Issuer {
        issuer: name?.to_owned(),
        audience: audience?,
        jwks: jwks?,
        private: private?,
        refresh,
        max_age,
        algorithms: algorithms(reader, fields)?,
        leeway: leeway.unwrap_or(LEEWAY),
    })
}

/// What is said of fetching where nothing is fetched.
fn fetched_alone(reader: &mut Reader, fields: Fields<'_>, jwks: Option<&KeySource>) {
    if !matches!(jwks, Some(KeySource::File(_))) {
        return;
    }
    for key in ["private", "refresh", "max_age"] {
        if let Some(node) = fields.get(key) {
            reader.fault(
                node.span,
                format!("`{key}` has no meaning beside `jwks: {{ file: … }}`"),
            );
        }
    }
}

fn audience(reader: &mut Reader, node: &Node) -> Option<Vec<String>> {
    let items = reader.one_or_list(node);
    if items.is_empty() {
        reader.expected(node, "at least one audience");
        return None;
    }
    let texts = items.iter().map(|node| {
        let text = reader.text(node, "an audience as tokens name it");
        text.map(str::to_owned)
    });
    texts.collect()
}

fn jwks(reader: &mut Reader, node: &Node) -> Option<KeySource> {
    let fields = reader.fields(node, &JWKS)?;
    match (fields.get("file"), fields.get("url")) {
        (Some(node), None) => path(reader, node).map(KeySource::File),
        (None, Some(node)) => reader
            .parsed(node, "an `https` URL", HttpsUrl::parse)
            .map(KeySource::Url),
        (Some(_), Some(_)) | (None, None) => {
            reader.expected(node, "either `file` or `url`");
            None
        }
    }
}

/// An issuer that says itself where its keys are.
fn discovered(reader: &mut Reader, node: &Node) -> Option<KeySource> {
    let expected = "an `https` URL, since no `jwks` says where the keys are";
    let url = reader.parsed(node, expected, HttpsUrl::parse)?;
    if url.metadata().is_none() {
        reader.expected(node, "an issuer without a query");
        return None;
    }
    Some(KeySource::Discovered(url))
}

fn algorithms(reader: &mut Reader, fields: Fields<'_>) -> Option<Vec<TokenAlgorithm>> {
    let words = TokenAlgorithm::ALL.map(|algorithm| (algorithm.name(), algorithm));
    let Some(node) = fields.get("algorithms") else {
        return Some(TokenAlgorithm::ALL.to_vec());
    };
    let items = reader.list(node, "algorithms").unwrap_or_default();
    if items.is_empty() {
        reader.expected(node, "at least one algorithm");
    }
    let read = items.iter().map(|node| reader.choice(node, &words, &[]));
    read.collect()
}
