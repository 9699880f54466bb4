//! Who calls, by the token of the request: read strictly, verified by its issuer's keys on every request.

mod expiry;
mod fault;
mod keys;
#[cfg(any(test, feature = "oracle"))]
pub mod oracle;
mod parse;
mod supply;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use exeat_policy::{Json, PolicySet, Token};
use hyper::header::{AUTHORIZATION, HeaderMap};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode};
use serde::de::IgnoredAny;

pub use self::expiry::Expiry;
pub use self::fault::TokenFault;
pub use self::keys::KeysFault;
use self::keys::{Keys, TRIED};
use self::parse::Unverified;
pub use self::supply::{Fresh, Standing, Supply};
use crate::audit::{Text, mask};
use crate::config;
use crate::decode::json::{Number, Object, Value};

/// A token whose signature, issuer, audience and time are verified.
pub struct Verified {
    issuer: Arc<str>,
    subject: String,
    claims: Object,
    /// What its issuer's clock may differ.
    leeway: Duration,
}

// Claims say who people are.
impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verified")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

impl Verified {
    /// Whether its time is over at `now`, counted from 1970: for what waited since it was verified. No leeway is given,
    /// and one that does not say is over.
    pub fn is_over(&self, now: Duration) -> bool {
        self.until().is_none_or(|until| until <= now)
    }

    /// When what it authorised ends: with the leeway that it was given when it was verified.
    pub fn expiry(&self) -> Expiry {
        let until = self.until().unwrap_or_default();
        Expiry::at(until.saturating_add(self.leeway))
    }

    fn until(&self) -> Option<Duration> {
        let until = self.claims.get("exp").and_then(Value::as_number);
        let until = until.and_then(Number::as_f64);
        until.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }

    /// What `policy` reads of its claims, for records, and what that is.
    pub fn recorded(&self, policy: &PolicySet) -> (Option<serde_json::Value>, Vec<Text>) {
        let mut read = policy.claims_read(&self.issuer).peekable();
        match read.peek() {
            None => (None, Vec::new()),
            Some(_) => mask::claims(&self.claims.to_serde(), read),
        }
    }

    /// The form that policy judges.
    pub fn judged(&self) -> Token<'_> {
        Token {
            issuer: &self.issuer,
            subject: &self.subject,
            claims: Json::Map(&self.claims),
        }
    }
}

/// An issuer and its keys.
#[derive(Debug)]
struct Issuer {
    name: Arc<str>,
    /// What is asked of tokens, but for the algorithm.
    asked: Validation,
    keys: Source,
}

/// Where its keys are.
#[derive(Debug)]
enum Source {
    /// They came with the setup.
    Fixed(Keys),
    /// They are fetched.
    Fetched(Arc<Supply>),
}

/// The issuers whose tokens are verified.
#[derive(Debug, Default)]
pub struct Tokens {
    issuers: HashMap<Arc<str>, Issuer>,
}

impl Tokens {
    /// The configured issuers, each with the text of its key set or `None`, where it is fetched within `limit`.
    ///
    /// # Errors
    /// The issuer whose key set cannot be used, and why.
    pub fn new<'a>(
        issuers: impl IntoIterator<Item = (&'a config::Issuer, Option<&'a str>)>,
        limit: Duration,
    ) -> Result<Self, (String, KeysFault)> {
        let built = issuers.into_iter().map(|(issuer, set)| {
            let keys = match set {
                None => Source::Fetched(Arc::new(Supply::new(issuer, limit))),
                Some(set) => Keys::read(set.as_bytes(), &issuer.algorithms)
                    .map(Source::Fixed)
                    .map_err(|fault| (issuer.issuer.clone(), fault))?,
            };
            let name: Arc<str> = issuer.issuer.as_str().into();
            let asked = asked(issuer);
            Ok((Arc::clone(&name), Issuer { name, asked, keys }))
        });
        Ok(Self {
            issuers: built.collect::<Result<_, _>>()?,
        })
    }

    /// The keys that are to be fetched, in the order of the issuers' names.
    pub fn supplies(&self) -> Vec<&Arc<Supply>> {
        let supplies = self
            .issuers
            .values()
            .filter_map(|issuer| match &issuer.keys {
                Source::Fetched(supply) => Some(supply),
                Source::Fixed(_) => None,
            });
        let mut supplies: Vec<_> = supplies.collect();
        supplies.sort_by(|one, other| one.issuer.cmp(&other.issuer));
        supplies
    }

    /// The verified token of a request. `None`: it has none, or one of the upstream's own: a bearer value that is no
    /// JSON Web Token, or one of an issuer that neither the configuration nor `policy` names.
    ///
    /// # Errors
    /// Whatever is wrong with a token that is not the upstream's own.
    pub async fn look(
        &self,
        headers: &HeaderMap,
        policy: &PolicySet,
    ) -> Result<Option<Arc<Verified>>, TokenFault> {
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = given.next() else {
            return Ok(None);
        };
        if self.issuers.is_empty() && !policy.names_issuers() {
            return Ok(None);
        }
        if given.next().is_some() {
            return Err(TokenFault::Several);
        }
        let otherwise = |wrong| {
            self.otherwise(value.as_bytes(), policy, wrong)
                .map(|()| None)
        };
        let Some(text) = bearer(value.as_bytes()) else {
            return otherwise("scheme");
        };
        let Some(token) = parse::read(&text)? else {
            return otherwise("form");
        };
        let Some(named) = token.issuer()? else {
            return otherwise("form");
        };
        match self.issuers.get(named) {
            Some(issuer) => {
                issuer.check(&text, &token).await?;
                issuer.verified(token).map(Arc::new).map(Some)
            }
            None if policy.names_issuer(named) => Err(TokenFault::Unconfigured),
            None => Ok(None),
        }
    }

    /// Refuses a JSON Web Token of which [`Tokens::look`] found that it is the upstream's own, where that does not get it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn not_its_own(&self, headers: &HeaderMap, policy: &PolicySet) -> Result<(), TokenFault> {
        if self.issuers.is_empty() && !policy.names_issuers() {
            return Ok(());
        }
        for value in headers.get_all(AUTHORIZATION) {
            let value = String::from_utf8_lossy(value.as_bytes());
            if let Some(token) = tokens_in(&value).pop() {
                token?.issuer()?.ok_or(TokenFault::Claim("iss"))?;
                return Err(TokenFault::Foreign);
            }
        }
        Ok(())
    }

    /// Refuses a token of one of these issuers under another scheme than `Bearer`, under none, or beside something else:
    /// some receivers pass over what they do not know. `wrong`: what is, then.
    fn otherwise(
        &self,
        value: &[u8],
        policy: &PolicySet,
        wrong: &'static str,
    ) -> Result<(), TokenFault> {
        let text = String::from_utf8_lossy(value);
        for token in tokens_in(&text) {
            let token = token?;
            let named = token.issuer()?;
            if named.is_some_and(|it| self.issuers.contains_key(it) || policy.names_issuer(it)) {
                return Err(TokenFault::Malformed(wrong));
            }
        }
        Ok(())
    }
}

/// The JSON Web Tokens that stand anywhere in a header's value; some receivers take ones whose parts are padded.
fn tokens_in(value: &str) -> Vec<Result<Unverified, TokenFault>> {
    let parts = value.split('.').map(|part| part.trim_end_matches('='));
    let value = parts.collect::<Vec<_>>().join(".");
    let words =
        value.split(|letter: char| !letter.is_ascii_alphanumeric() && !"-_.+/".contains(letter));
    let words = words.filter(|word| word.matches('.').count() >= 2);
    words
        .filter_map(|word| parse::read(word).transpose())
        .collect()
}

/// The value of a header of the scheme `Bearer`, whose name knows no case (RFC 9110 section 11.1). What stands
/// between them, and bytes that are no text, hide no value from the verification.
fn bearer(value: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(value);
    let (scheme, rest) = text.trim().split_at_checked("bearer".len())?;
    if !scheme.eq_ignore_ascii_case("bearer") || rest.starts_with(is_token68) {
        return None;
    }
    Some(
        rest.trim_start_matches(|letter| !is_token68(letter))
            .to_owned(),
    )
}

/// Whether a letter is one of a bearer value (RFC 9110 section 11.2).
fn is_token68(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "-._~+/=".contains(letter)
}

fn asked(issuer: &config::Issuer) -> Validation {
    let mut asked = Validation {
        algorithms: Vec::new(),
        leeway: issuer.leeway.as_secs(),
        validate_nbf: true,
        ..Validation::default()
    };
    asked.set_issuer(&[&issuer.issuer]);
    asked.set_audience(&issuer.audience);
    asked.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    asked
}

impl Issuer {
    /// What a token says that was checked.
    fn verified(&self, token: Unverified) -> Result<Verified, TokenFault> {
        Ok(Verified {
            issuer: Arc::clone(&self.name),
            subject: token.subject()?.to_owned(),
            claims: token.claims,
            leeway: Duration::from_secs(self.asked.leeway),
        })
    }

    /// Whether one of the keys that the token may mean signed it, and all holds that is asked of it. A key that is not
    /// known may have been published since.
    async fn check(&self, text: &str, token: &Unverified) -> Result<(), TokenFault> {
        let supply = match &self.keys {
            Source::Fixed(keys) => return self.holds(keys, text, token),
            Source::Fetched(supply) => supply,
        };
        let now = || match supply.keys() {
            Some(keys) => self.holds(&keys, text, token),
            None => Err(TokenFault::Unavailable),
        };
        let checked = now();
        let renews = match checked {
            Err(TokenFault::UnknownKey | TokenFault::Unavailable) => true,
            // Where no id tells keys apart, that its own is not among them shows in nothing else.
            Err(TokenFault::Signature | TokenFault::Algorithm | TokenFault::Ambiguous) => {
                let named = token.header()?.key_id.is_some();
                !named || !supply.keys().is_some_and(|keys| keys.are_identified())
            }
            Ok(()) | Err(_) => false,
        };
        if renews && supply.renewed().await {
            now()
        } else {
            checked
        }
    }

    fn holds(&self, keys: &Keys, text: &str, token: &Unverified) -> Result<(), TokenFault> {
        let header = token.header()?;
        let mut meant = keys.meant(header.key_id).peekable();
        meant.peek().ok_or(TokenFault::UnknownKey)?;
        let mut meant = meant
            .filter(|key| key.algorithm.name() == header.algorithm)
            .peekable();
        meant.peek().ok_or(TokenFault::Algorithm)?;
        for key in meant.by_ref().take(TRIED) {
            let mut asked = self.asked.clone();
            asked.algorithms = vec![key.algorithm.into()];
            match decode::<IgnoredAny>(text, &key.material, &asked) {
                Ok(_) => return Ok(()),
                Err(error) => match fault(error.kind()) {
                    TokenFault::Signature => {}
                    // Another key can mend nothing else.
                    wrong => return Err(wrong),
                },
            }
        }
        Err(match meant.next() {
            None => TokenFault::Signature,
            Some(_) => TokenFault::Ambiguous,
        })
    }
}

fn fault(kind: &ErrorKind) -> TokenFault {
    match kind {
        ErrorKind::ExpiredSignature => TokenFault::Expired,
        ErrorKind::ImmatureSignature => TokenFault::Early,
        ErrorKind::InvalidAudience => TokenFault::Audience,
        ErrorKind::InvalidIssuer => TokenFault::Claim("iss"),
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => TokenFault::Algorithm,
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => {
            TokenFault::Claim(match claim.as_str() {
                "exp" => "exp",
                "nbf" => "nbf",
                "aud" => "aud",
                "sub" => "sub",
                _ => "iss",
            })
        }
        ErrorKind::Base64(_)
        | ErrorKind::Json(_)
        | ErrorKind::Utf8(_)
        | ErrorKind::InvalidToken => TokenFault::Malformed("form"),
        // Whatever else the library finds, the signature is not shown to be the key's.
        _ => TokenFault::Signature,
    }
}
