//! The public keys of an issuer, from its JSON Web Key Set (RFC 7517). Each is for one algorithm only.

use jsonwebtoken::{Algorithm, DecodingKey};
use thiserror::Error;

use crate::config::TokenAlgorithm;
use crate::decode::base64;
use crate::decode::json::{Limits, Object, Value, parse};

/// Bytes of a set beyond which it is not read.
const LARGEST: usize = 512 << 10;
/// Keys of a set by which one token is tried, as each costs a verification and anybody may show a token.
pub(super) const TRIED: usize = 8;
const LIMITS: Limits = Limits {
    bytes: LARGEST,
    depth: 8,
    values: 64 << 10,
    number: 32,
};

/// Why a text is no set of keys.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeysFault {
    /// It is not JSON, or too large.
    #[error("a key set must be one JSON object of at most 512 KiB with a list `keys`")]
    Form,
    /// No key in it can verify a token.
    #[error(
        "no key of the set is a public RSA key of 2048 to 8192 bits, P-256 or Ed25519 key for signatures by an algorithm of `algorithms`"
    )]
    None,
    /// A private key was published.
    #[error("the key set holds a private key: publish the public part alone, and replace the key")]
    Private,
}

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    /// What a token calls it.
    pub(super) id: Option<String>,
    /// The one algorithm that it is for.
    pub(super) algorithm: TokenAlgorithm,
    /// The key itself.
    pub(super) material: DecodingKey,
}

/// The keys of an issuer, at least one.
#[derive(Debug)]
pub(super) struct Keys {
    keys: Vec<Key>,
    /// Whether one of them has an id.
    identified: bool,
}

impl Keys {
    /// Reads a set: of its keys, those that can verify by one of `algorithms`.
    ///
    /// # Errors
    /// [`KeysFault`].
    pub(super) fn read(bytes: &[u8], algorithms: &[TokenAlgorithm]) -> Result<Self, KeysFault> {
        let set = parse(bytes, &LIMITS).map_err(|_fault| KeysFault::Form)?;
        let listed = set
            .get("keys")
            .and_then(Value::as_array)
            .ok_or(KeysFault::Form)?;
        let objects = || listed.iter().filter_map(Value::as_object);
        let private = |key: &Object| {
            let kind = key.get("kty").and_then(Value::as_str);
            matches!(kind, Some("RSA" | "EC" | "OKP")) && key.get("d").is_some()
        };
        if objects().any(private) {
            return Err(KeysFault::Private);
        }
        let keys: Vec<Key> = objects().filter_map(|key| read(key, algorithms)).collect();
        if keys.is_empty() {
            return Err(KeysFault::None);
        }
        let identified = keys.iter().any(|key| key.id.is_some());
        Ok(Self { keys, identified })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.keys.len()
    }

    /// Whether an id may tell one from another.
    pub(super) const fn are_identified(&self) -> bool {
        self.identified
    }

    /// The keys that a token may mean: those of its id, or any where it has none or the whole set has none.
    pub(super) fn meant(&self, id: Option<&str>) -> impl Iterator<Item = &Key> {
        let id = id.filter(|_| self.identified);
        let fits = move |key: &&Key| id.is_none() || key.id.as_deref() == id;
        self.keys.iter().filter(fits)
    }
}

fn read(key: &Object, algorithms: &[TokenAlgorithm]) -> Option<Key> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    if key
        .get("use")
        .is_some_and(|usage| usage.as_str() != Some("sig"))
    {
        return None;
    }
    if let Some(operations) = key.get("key_ops") {
        let verifies = |one: &Value| one.as_str() == Some("verify");
        operations
            .as_array()
            .filter(|all| all.iter().any(verifies))?;
    }
    let (possible, material): (&[TokenAlgorithm], DecodingKey) = match text("kty")? {
        "RSA" => {
            let (n, e) = (
                base64::decode_url(text("n")?)?,
                base64::decode_url(text("e")?)?,
            );
            let sized = (256..=1024).contains(&n.len()) && n.first()? >= &0x80;
            if !sized || e.is_empty() || e.len() > 8 {
                return None;
            }
            let key = DecodingKey::from_rsa_raw_components(&n, &e);
            (&[TokenAlgorithm::Rs256, TokenAlgorithm::Ps256], key)
        }
        "EC" if text("crv")? == "P-256" => {
            let mut point = vec![4];
            for part in ["x", "y"] {
                point.extend(base64::decode_url(text(part)?).filter(|part| part.len() == 32)?);
            }
            (&[TokenAlgorithm::Es256], DecodingKey::from_ec_der(&point))
        }
        "OKP" if text("crv")? == "Ed25519" => {
            let point = base64::decode_url(text("x")?).filter(|point| point.len() == 32)?;
            (&[TokenAlgorithm::EdDsa], DecodingKey::from_ed_der(&point))
        }
        _ => return None,
    };
    // An RSA key that does not say is for the first that the issuer signs by; never for what a token says.
    let algorithm = possible.iter().find(|one| match key.get("alg") {
        None => algorithms.contains(one),
        Some(said) => said.as_str() == Some(one.name()) && algorithms.contains(one),
    })?;
    Some(Key {
        id: text("kid").map(str::to_owned),
        algorithm: *algorithm,
        material,
    })
}

impl From<TokenAlgorithm> for Algorithm {
    fn from(algorithm: TokenAlgorithm) -> Self {
        match algorithm {
            TokenAlgorithm::Rs256 => Self::RS256,
            TokenAlgorithm::Ps256 => Self::PS256,
            TokenAlgorithm::Es256 => Self::ES256,
            TokenAlgorithm::EdDsa => Self::EdDSA,
        }
    }
}
