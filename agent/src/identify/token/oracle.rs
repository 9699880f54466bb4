//! What must hold for every sequence of bytes that is shown as a token, or fetched as a key set; run by the fuzz
//! targets, and by tests over their corpus.

use serde_json::Value as Lenient;

use super::keys::Keys;
use super::parse;
use crate::config::TokenAlgorithm;
use crate::decode::base64;

/// What a lenient receiver takes for a token is never opaque, and what is read is what every reader reads.
pub fn token(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let parts: Vec<&str> = text.split('.').collect();
    let object = |place: usize| {
        let part = parts.get(place)?;
        let read = serde_json::from_slice(&base64::decode_leniently(part)).ok()?;
        Some(read).filter(Lenient::is_object)
    };
    let (header, claims) = (object(0), object(1));
    let taken = header.is_some() && claims.is_some();
    match parse::read(&text) {
        Ok(None) => assert!(!taken, "a token passes as opaque"),
        Ok(Some(read)) => {
            assert!(taken, "what nobody else reads");
            assert!(parts.len() == 3, "a token of other than three parts");
            let lenient = |of: &Option<Lenient>, name: &str| {
                let value = of.as_ref().and_then(|of| of.get(name));
                value.and_then(Lenient::as_str).map(str::to_owned)
            };
            if let Ok(issuer) = read.issuer() {
                let issuer = issuer.map(str::to_owned);
                assert!(issuer == lenient(&claims, "iss"), "two issuers");
            }
            if let Ok(subject) = read.subject() {
                assert!(
                    Some(subject.to_owned()) == lenient(&claims, "sub"),
                    "two subjects"
                );
            }
            if let Ok(said) = read.header() {
                let key_id = said.key_id.map(str::to_owned);
                assert!(key_id == lenient(&header, "kid"), "two key ids");
                assert!(
                    Some(said.algorithm.to_owned()) == lenient(&header, "alg"),
                    "two algorithms"
                );
                let critical = header.as_ref().and_then(|header| header.get("crit"));
                assert!(critical.is_none(), "a critical extension");
            }
        }
        Err(_) => {}
    }
}

/// A set is read within its bounds, and never a private key.
pub fn keys(bytes: &[u8]) {
    let Ok(keys) = Keys::read(bytes, &TokenAlgorithm::ALL) else {
        return;
    };
    assert!(keys.count() >= 1, "no key");
    assert!(keys.meant(None).count() == keys.count(), "a key is lost");
    let lenient: Option<Lenient> = serde_json::from_slice(bytes).ok();
    let listed = lenient.as_ref().and_then(|set| set.get("keys")?.as_array());
    let private = |key: &Lenient| key.get("kty") != Some(&"oct".into()) && key.get("d").is_some();
    let some = listed.is_some_and(|listed| {
        let known = |key: &&Lenient| {
            let kind = key.get("kty").and_then(Lenient::as_str);
            matches!(kind, Some("RSA" | "EC" | "OKP"))
        };
        listed.iter().filter(known).any(private)
    });
    assert!(!some, "a private key was taken");
}
