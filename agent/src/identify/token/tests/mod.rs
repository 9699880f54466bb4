//! Tokens of attackers, and those of issuers.

mod attacks;
mod fetched;

use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as Rsa, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256,
};
use exeat_policy::{PolicySet, Source, compile};
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{KeysFault, TokenFault, Tokens, Verified, oracle};
use crate::config::{Issuer, KeySource, TokenAlgorithm};
use crate::decode::json::{Limits, parse};
use crate::decode::{base64, corpus};
use crate::telemetry::clock;

const A: &str = "https://a.example";
const B: &str = "https://b.example";
const LIMIT: Duration = Duration::from_secs(5);

/// A signer for each algorithm; `other` is another issuer's.
struct Signers {
    rsa: Rsa,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    other: Ed25519KeyPair,
}

static SIGNERS: LazyLock<Signers> = LazyLock::new(|| Signers {
    rsa: Rsa::generate(KeySize::Rsa2048).unwrap(),
    ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
    ed: Ed25519KeyPair::generate().unwrap(),
    other: Ed25519KeyPair::generate().unwrap(),
});

fn url(bytes: &[u8]) -> String {
    let mut text = String::new();
    base64::encode(bytes, &mut text);
    text.trim_end_matches('=')
        .replace('+', "-")
        .replace('/', "_")
}

fn modulus() -> Vec<u8> {
    let modulus = SIGNERS.rsa.public_key().modulus();
    modulus.big_endian_without_leading_zero().to_vec()
}

/// The key sets of the two issuers: `a` has one key for each algorithm.
fn sets() -> (Value, Value) {
    let (n, e) = (url(&modulus()), "AQAB");
    let point = SIGNERS.ec.public_key().as_ref();
    let a = json!({ "keys": [
        { "kty": "RSA", "kid": "rs", "alg": "RS256", "use": "sig", "n": n, "e": e },
        { "kty": "RSA", "kid": "ps", "alg": "PS256", "key_ops": ["verify"], "n": n, "e": e },
        { "kty": "EC", "kid": "es", "crv": "P-256", "x": url(&point[1..33]), "y": url(&point[33..]) },
        { "kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": url(SIGNERS.ed.public_key().as_ref()) },
        { "kty": "oct", "kid": "hs", "k": "c2VjcmV0" },
        { "kty": "RSA", "kid": "enc", "use": "enc", "n": n, "e": e },
    ] });
    let other = url(SIGNERS.other.public_key().as_ref());
    let b = json!({ "keys": [{ "kty": "OKP", "kid": "b1", "crv": "Ed25519", "x": other }] });
    (a, b)
}

fn issuer(name: &str) -> Issuer {
    Issuer {
        issuer: name.to_owned(),
        audience: vec!["mcp".to_owned(), "https://mcp.example".to_owned()],
        jwks: KeySource::File("/none".into()),
        private: false,
        refresh: Duration::from_mins(5),
        max_age: Duration::from_hours(1),
        algorithms: TokenAlgorithm::ALL.to_vec(),
        leeway: Duration::from_secs(30),
    }
}

fn tokens() -> Tokens {
    let (a, b) = sets();
    let (a, b) = (a.to_string(), b.to_string());
    let issuers = [
        (&issuer(A), Some(a.as_str())),
        (&issuer(B), Some(b.as_str())),
    ];
    Tokens::new(issuers, LIMIT).unwrap()
}

fn policy(text: &str) -> PolicySet {
    let text = format!("version: 1\n{text}");
    let name = "p.yaml".to_owned();
    compile(&[Source { name, text }]).unwrap()
}

fn now() -> i64 {
    clock::wall().microseconds() / 1_000_000
}

fn claims(issuer: &str) -> Value {
    json!({ "iss": issuer, "aud": "mcp", "sub": "s", "exp": now() + 300, "appid": "x" })
}

fn sign(by: &str, message: &str) -> Vec<u8> {
    let random = SystemRandom::new();
    let bytes = message.as_bytes();
    let mut signature = vec![0; 256];
    match by {
        "RS256" => SIGNERS
            .rsa
            .sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature)
            .unwrap(),
        "PS256" => SIGNERS
            .rsa
            .sign(&RSA_PSS_SHA256, &random, bytes, &mut signature)
            .unwrap(),
        "ES256" => signature = SIGNERS.ec.sign(&random, bytes).unwrap().as_ref().to_vec(),
        "EdDSA" => signature = SIGNERS.ed.sign(bytes).as_ref().to_vec(),
        "other" => signature = SIGNERS.other.sign(bytes).as_ref().to_vec(),
        // The classic confusion: the public key as the secret.
        "HS256" => {
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &modulus());
            signature = aws_lc_rs::hmac::sign(&key, bytes).as_ref().to_vec();
        }
        _ => signature.clear(),
    }
    signature
}

fn token(header: &str, payload: &str, by: &str) -> String {
    let message = format!("{}.{}", url(header.as_bytes()), url(payload.as_bytes()));
    let signature = sign(by, &message);
    format!("{message}.{}", url(&signature))
}

fn ours(algorithm: &str, kid: &str, claims: &Value) -> String {
    let header = json!({ "alg": algorithm, "typ": "JWT", "kid": kid });
    token(&header.to_string(), &claims.to_string(), algorithm)
}

fn headers(values: &[String]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
    }
    headers
}

/// The keys of none of these issuers are fetched, so that there is nothing to wait for.
fn look_at(
    tokens: &Tokens,
    headers: &HeaderMap,
    policy: &PolicySet,
) -> Result<Option<Arc<Verified>>, TokenFault> {
    let looking = pin!(tokens.look(headers, policy));
    match looking.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(found) => found,
        Poll::Pending => panic!("nothing to wait for"),
    }
}

/// `None`: opaque; the subject of what is verified.
fn look(tokens: &Tokens, text: &str) -> Result<Option<String>, TokenFault> {
    let headers = headers(&[format!("Bearer {text}")]);
    let found = look_at(tokens, &headers, &policy(""))?;
    Ok(found.map(|token| token.judged().subject.to_owned()))
}

#[test]
fn each_algorithm_verifies_by_its_own_key() {
    let tokens = tokens();
    for (algorithm, kid) in [
        ("RS256", "rs"),
        ("PS256", "ps"),
        ("ES256", "es"),
        ("EdDSA", "ed"),
    ] {
        let found = look(&tokens, &ours(algorithm, kid, &claims(A)));
        assert_eq!(found, Ok(Some("s".to_owned())), "{algorithm}");
    }
    // Two issuers side by side, each by its own keys; one key needs no id.
    let header = r#"{"alg":"EdDSA","typ":"at+jwt"}"#;
    let other = token(header, &claims(B).to_string(), "other");
    assert_eq!(look(&tokens, &other), Ok(Some("s".to_owned())));
    let list = json!({ "iss": A, "aud": ["x", "https://mcp.example"], "sub": "s", "exp": now() - 10, "nbf": now() + 10 });
    assert_eq!(
        look(&tokens, &ours("ES256", "es", &list)),
        Ok(Some("s".to_owned()))
    );
}

/// A token with this header, which `by` signed, as it is looked at.
fn with_header(header: &Value, by: &str) -> Result<Option<String>, TokenFault> {
    let text = token(&header.to_string(), &claims(A).to_string(), by);
    look(&tokens(), &text)
}

#[test]
fn no_algorithm_is_taken_for_another() {
    use TokenFault::{Algorithm, Malformed, UnknownKey};
    for (algorithm, kid, by, fault) in [
        ("none", "ed", "", Algorithm),
        ("nOnE", "ed", "", Algorithm),
        ("", "ed", "", Algorithm),
        ("HS256", "rs", "HS256", Algorithm),
        ("HS256", "hs", "HS256", UnknownKey),
        ("PS256", "rs", "PS256", Algorithm),
        ("RS256", "ps", "RS256", Algorithm),
        ("RS256", "enc", "RS256", UnknownKey),
        ("rs256", "rs", "RS256", Algorithm),
        ("RS512", "rs", "RS256", Algorithm),
        ("ES256", "ed", "ES256", Algorithm),
    ] {
        let header = json!({ "alg": algorithm, "kid": kid });
        assert_eq!(with_header(&header, by), Err(fault), "{header}");
    }
    for (header, fault) in [
        (json!({ "alg": "none" }), Algorithm),
        (json!({ "kid": "ed" }), Malformed("header")),
        (
            json!({ "alg": ["EdDSA"], "kid": "ed" }),
            Malformed("header"),
        ),
        (json!({ "alg": null, "kid": "ed" }), Malformed("header")),
    ] {
        assert_eq!(with_header(&header, "EdDSA"), Err(fault), "{header}");
    }
    let twice = r#"{"alg":"EdDSA","kid":"ed","alg":"none"}"#;
    let text = token(twice, &claims(A).to_string(), "EdDSA");
    assert_eq!(look(&tokens(), &text), Err(Malformed("header")));
}

#[test]
fn a_token_brings_no_key_and_no_extension() {
    use TokenFault::{Critical, Malformed, Signature, Type, UnknownKey};
    for (kid, by, fault) in [
        (json!("../../ed"), "EdDSA", UnknownKey),
        (json!("ed' OR 1=1"), "EdDSA", UnknownKey),
        (json!("ed\u{0}"), "EdDSA", UnknownKey),
        (json!(""), "EdDSA", UnknownKey),
        (json!(["ed"]), "EdDSA", Malformed("header")),
        (json!("e".repeat(257)), "EdDSA", Malformed("key id")),
        (json!("ed"), "other", Signature),
        (json!("b1"), "other", UnknownKey),
    ] {
        let header = json!({ "alg": "EdDSA", "kid": kid });
        assert_eq!(with_header(&header, by), Err(fault), "{header}");
    }
    let own = sets().1["keys"][0].clone();
    for (name, value, by, fault) in [
        ("jwk", own, "other", Signature),
        ("jku", json!("https://b.example/k"), "other", Signature),
        ("x5u", json!("https://b.example/c"), "other", Signature),
        ("x5c", json!(["MIIB"]), "other", Signature),
        ("crit", json!(["b64"]), "EdDSA", Critical),
        ("crit", json!(["exp"]), "EdDSA", Critical),
        ("crit", json!([]), "EdDSA", Critical),
        ("typ", json!("logout+jwt"), "EdDSA", Type),
        ("typ", json!("dpop+jwt"), "EdDSA", Type),
    ] {
        let mut header = json!({ "alg": "EdDSA", "kid": "ed" });
        header[name] = value;
        assert_eq!(with_header(&header, by), Err(fault), "{header}");
    }
    // What it brings is passed over where the signature is the issuer's.
    let header = json!({ "alg": "EdDSA", "kid": "ed", "jku": "https://b.example/k" });
    assert_eq!(with_header(&header, "EdDSA"), Ok(Some("s".to_owned())));
}

#[test]
fn attackers_claims() {
    use TokenFault as F;
    let tokens = tokens();
    let changed = |name: &str, value: Value| {
        let mut claims = claims(A);
        claims[name] = value;
        look(&tokens, &ours("EdDSA", "ed", &claims))
    };
    for (name, value, fault) in [
        ("exp", json!(now() - 31), F::Expired),
        ("exp", json!("9999999999"), F::Claim("exp")),
        ("exp", json!(-1), F::Claim("exp")),
        ("exp", Value::Null, F::Claim("exp")),
        ("nbf", json!(now() + 120), F::Early),
        ("nbf", json!("soon"), F::Claim("nbf")),
        ("aud", json!("other"), F::Audience),
        ("aud", json!(["other", "mc", "mcp "]), F::Audience),
        ("aud", json!([]), F::Audience),
        ("aud", json!({ "mcp": true }), F::Claim("aud")),
        ("iss", json!([A]), F::Malformed("issuer")),
        ("iss", Value::Null, F::Malformed("issuer")),
        ("iss", json!(B), F::UnknownKey),
        ("sub", json!(""), F::Claim("sub")),
        ("sub", json!(7), F::Claim("sub")),
    ] {
        assert_eq!(changed(name, value.clone()), Err(fault), "{name}: {value}");
    }
    for name in ["exp", "aud", "sub"] {
        let mut claims = claims(A);
        claims.as_object_mut().unwrap().remove(name);
        assert_eq!(
            look(&tokens, &ours("EdDSA", "ed", &claims)),
            Err(F::Claim(name))
        );
    }
    let plain = claims(A).to_string();
    let doubled = plain.replacen('{', r#"{"appid":"y","#, 1);
    let hidden = plain.replacen('{', r#"{"\u0069ss":"https://c.example","#, 1);
    for payload in [
        doubled,
        hidden,
        format!("{plain}x"),
        format!("\u{feff}{plain}"),
    ] {
        let text = token(r#"{"alg":"EdDSA","kid":"ed"}"#, &payload, "EdDSA");
        assert_eq!(
            look(&tokens, &text),
            Err(F::Malformed("payload")),
            "{payload}"
        );
    }
}

/// What a lenient reader takes for a token is none that the upstream alone has to judge.
#[test]
fn no_other_writing_of_a_token_passes_as_opaque() {
    let tokens = tokens();
    let good = ours("EdDSA", "ed", &claims(A));
    let parts: Vec<&str> = good.split('.').collect();
    let [header, payload, signature] = parts.as_slice() else {
        panic!("three parts");
    };
    assert_eq!(look(&tokens, &good), Ok(Some("s".to_owned())));
    let broken = payload.replacen('J', "!J", 1);
    let marked = url(&[b"\xef\xbb\xbf", &base64::decode_url(header).unwrap()[..]].concat());
    // One more letter holds bits that no byte takes: the last of them may be anything.
    let (header_bits, payload_bits) = (format!("{header}B"), format!("{payload}B"));
    for text in [
        format!("{header}=.{payload}=.{signature}"),
        format!("{header}.{payload}.{signature}="),
        format!("{header}.{payload}.{signature}."),
        format!("{header}.{payload}.{signature}.{signature}"),
        format!("{header}.{payload}"),
        format!("{header}.{payload}.{signature}, Basic YTpi"),
        format!("{header}.{payload}.{signature} {signature}"),
        format!("{header}.{broken}.{signature}"),
        format!("{header_bits}.{payload_bits}.{signature}"),
        format!("{marked}.{broken}.{signature}"),
        format!("{header}..{signature}"),
        format!(".{payload}.{signature}"),
        format!("{header}.{payload}."),
        format!("{header}.{payload}.{}", signature.to_uppercase()),
    ] {
        let found = look(&tokens, &text);
        assert!(found.is_err(), "{text}: {found:?}");
    }
    let mut value = format!("Bearer {good}").into_bytes();
    value.push(0xff);
    let mut headers = HeaderMap::new();
    headers.append(AUTHORIZATION, HeaderValue::from_bytes(&value).unwrap());
    look_at(&tokens, &headers, &policy("")).unwrap_err();
}

#[test]
fn what_is_opaque_and_what_is_not() {
    let tokens = tokens();
    let policy = policy("identities: { c: { jwt: { issuer: 'https://c.example' } } }");
    let look = |values: &[String]| {
        let found = look_at(&tokens, &headers(values), &policy);
        found.map(|token| token.is_some())
    };
    let good = ours("EdDSA", "ed", &claims(A));
    let mut foreign = claims("https://d.example");
    foreign["aud"] = json!("elsewhere");
    let foreign = ours("HS256", "x", &foreign);
    for opaque in [
        "Basic YTpi",
        "Bearer",
        "Bearer gho_abcdefgh",
        "Bearer a.b.c",
        "Bearer a.b.c.d.e",
        "Bearerx",
        "Bearer eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..aaaa.bbbb.cccc",
    ] {
        assert_eq!(look(&[opaque.to_owned()]), Ok(false), "{opaque}");
    }
    assert_eq!(look(&[format!("Bearer {foreign}")]), Ok(false));
    // Receivers that pass over the scheme take these for the same token.
    let padded = format!("{}==", good.replace('.', "==."));
    for scheme in [
        "",
        "Token ",
        "DPoP ",
        "BearerX ",
        "Token token=",
        "x:",
        "Bearer\\",
    ] {
        for token in [&good, &padded] {
            assert_ne!(look(&[format!("{scheme}{token}")]), Ok(false), "{scheme}");
        }
        assert_eq!(look(&[format!("Token {foreign}")]), Ok(false));
    }
    let digest = "Digest username=\"a.b.c\", realm=\"x.y.z\", uri=\"/eyJhIjox/e.f\"";
    assert_eq!(look(&[digest.to_owned()]), Ok(false));
    assert_eq!(look(&[format!("bEARER \t {good} ")]), Ok(true));
    assert_eq!(look(&[format!("Bearer,\"{good}")]), Ok(true));
    let both = [format!("Bearer {good}"), "Basic YTpi".to_owned()];
    assert_eq!(look(&both), Err(TokenFault::Several));
    let huge = format!("Bearer {}", "a".repeat(16 * 1024 + 1));
    assert_eq!(look(&[huge]), Err(TokenFault::TooLarge));
    // Policy counts on an issuer that nobody gave keys for.
    let unknown = ours("EdDSA", "ed", &claims("https://c.example"));
    assert_eq!(
        look(&[format!("Bearer {unknown}")]),
        Err(TokenFault::Unconfigured)
    );
    // Where no issuer is named, nothing is looked into.
    let nothing = look_at(&Tokens::default(), &headers(&both), &self::policy(""));
    assert!(matches!(nothing, Ok(None)));
    // No token is shown in a debugging text.
    let shown = format!(
        "{:?}",
        look_at(&tokens, &headers(&[format!("Bearer {good}")]), &policy)
    );
    assert!(
        !shown.contains("appid") && !shown.contains(&good),
        "{shown}"
    );
}

#[test]
fn a_token_beside_something_else_is_refused() {
    let tokens = tokens();
    let policy = policy("identities: { c: { jwt: { issuer: 'https://c.example' } } }");
    let look = |text: &str| {
        let found = look_at(&tokens, &headers(&[format!("Bearer {text}")]), &policy);
        found.map(|token| token.is_some())
    };
    let good = ours("EdDSA", "ed", &claims(A));
    let foreign = ours("HS256", "x", &claims("https://d.example"));
    // Some take the first word after `Bearer`, and some the one that is a token.
    let mut nameless = claims(A);
    nameless.as_object_mut().unwrap().remove("iss");
    let nameless = ours("EdDSA", "ed", &nameless);
    let unknown = ours("EdDSA", "ed", &claims("https://c.example"));
    for prefix in [
        "x.y ",
        "x.y,",
        "x ",
        "a.b.c ",
        "a.b.c.d.e;",
        "gho_abcdefgh ",
        "gho_abcdefgh, Bearer ",
        "token=\"",
        &*format!("{foreign} "),
        &*format!("{nameless} "),
    ] {
        for known in [&good, &unknown] {
            let found = look(&format!("{prefix}{known}"));
            assert!(found.is_err(), "{prefix}{known}: {found:?}");
        }
    }
    for prefix in ["x.y ", "a.b.c,", "x.y, Bearer "] {
        // The upstream's own, and nobody else's.
        for own in [&foreign, &nameless] {
            assert_eq!(look(&format!("{prefix}{own}")), Ok(false));
        }
        let opaque = look(&format!("{prefix}a.b.c"));
        assert_eq!(opaque, Ok(false), "{prefix}");
    }
}

#[test]
fn what_is_nobodys_is_refused_where_the_server_does_not_get_it() {
    let tokens = tokens();
    let mut nameless = claims(A);
    nameless.as_object_mut().unwrap().remove("iss");
    let nameless = ours("EdDSA", "ed", &nameless);
    let foreign = ours("HS256", "x", &claims("https://d.example"));
    let own = |tokens: &Tokens, value: &str| {
        tokens.not_its_own(&headers(&[value.to_owned()]), &policy(""))
    };
    for (text, fault) in [
        (&nameless, TokenFault::Claim("iss")),
        (&foreign, TokenFault::Foreign),
    ] {
        assert_eq!(look(&tokens, text), Ok(None), "it may be the server's own");
        for scheme in [
            "Bearer ",
            "bearer,",
            "Bearer x.y ",
            "Bearer x.y,",
            "Bearer a.b.c ",
            "DPoP ",
            "Token token=",
            "",
        ] {
            assert_eq!(
                own(&tokens, &format!("{scheme}{text}")),
                Err(fault),
                "{scheme}"
            );
        }
        assert_eq!(own(&Tokens::default(), &format!("Bearer {text}")), Ok(()));
    }
    for opaque in ["Basic YTpi", "Bearer gho_abcdefgh", "Bearer a.b.c"] {
        assert_eq!(own(&tokens, opaque), Ok(()), "{opaque}");
    }
}

#[test]
fn the_corpus_of_tokens_and_keys() {
    corpus::run("token", oracle::token);
    corpus::run("keys", oracle::keys);
    let (a, b) = sets();
    oracle::keys(a.to_string().as_bytes());
    oracle::keys(b.to_string().as_bytes());
    oracle::token(ours("RS256", "rs", &claims(A)).as_bytes());
}

#[test]
fn key_sets() {
    let (a, _) = sets();
    let read = |set: &Value, algorithms: &[TokenAlgorithm]| {
        let issuer = Issuer {
            algorithms: algorithms.to_vec(),
            ..issuer(A)
        };
        Tokens::new([(&issuer, Some(set.to_string().as_str()))], LIMIT).map_err(|(_, fault)| fault)
    };
    let all = TokenAlgorithm::ALL;
    let one = |key: Value| read(&json!({ "keys": [key] }), &all).err();
    let mut private = a["keys"][0].clone();
    private["d"] = json!("AQAB");
    assert_eq!(one(private), Some(KeysFault::Private));
    let mut small = a["keys"][0].clone();
    small["n"] = json!(url(&[0xff; 128]));
    assert_eq!(one(small), Some(KeysFault::None));
    let mut off = a["keys"][2].clone();
    off["crv"] = json!("P-384");
    assert_eq!(one(off), Some(KeysFault::None));
    assert_eq!(one(a["keys"][4].clone()), Some(KeysFault::None));
    assert_eq!(read(&json!([]), &all).err(), Some(KeysFault::Form));
    let many = vec![a["keys"][0].clone(); 20_000];
    let fault = read(&json!({ "keys": many }), &all).err();
    assert_eq!(fault, Some(KeysFault::Form));
    // An RSA key that does not say is for what the configuration says first.
    let mut silent = a["keys"][0].clone();
    silent.as_object_mut().unwrap().remove("alg");
    let set = json!({ "keys": [silent] });
    let with = |algorithms: &[TokenAlgorithm], signed: &str| {
        look(
            &read(&set, algorithms).unwrap(),
            &ours(signed, "rs", &claims(A)),
        )
        .map(drop)
    };
    assert_eq!(with(&all, "RS256"), Ok(()));
    assert_eq!(with(&all, "PS256"), Err(TokenFault::Algorithm));
    assert_eq!(with(&[TokenAlgorithm::Ps256], "PS256"), Ok(()));
    assert_eq!(
        with(&[TokenAlgorithm::Ps256], "RS256"),
        Err(TokenFault::Algorithm)
    );
}

/// What is found of a token of the issuer's Ed25519 key with this header, where these are the keys.
fn among(keys: &[Value], header: &Value) -> Result<(), TokenFault> {
    let set = json!({ "keys": keys }).to_string();
    let tokens = Tokens::new([(&issuer(A), Some(set.as_str()))], LIMIT).unwrap();
    let text = token(&header.to_string(), &claims(A).to_string(), "EdDSA");
    look(&tokens, &text).map(drop)
}

/// A key that signed nothing, under this id.
fn idle(kid: &str) -> Value {
    let key = Ed25519KeyPair::generate().unwrap();
    json!({ "kty": "OKP", "kid": kid, "crv": "Ed25519", "x": url(key.public_key().as_ref()) })
}

/// The set `keys` without their ids.
fn nameless(keys: &[Value]) -> Vec<Value> {
    let mut keys = keys.to_vec();
    for key in &mut keys {
        key.as_object_mut().unwrap().remove("kid");
    }
    keys
}

#[test]
fn of_a_thousand_keys_the_last_counts_as_the_first_does() {
    let mut keys: Vec<Value> = (0..999).map(|number| idle(&format!("k{number}"))).collect();
    keys.push(sets().0["keys"][3].clone());
    let named = |kid: &str| json!({ "alg": "EdDSA", "kid": kid });
    let unnamed = json!({ "alg": "EdDSA" });
    assert_eq!(among(&keys, &named("ed")), Ok(()));
    assert_eq!(among(&keys, &named("k998")), Err(TokenFault::Signature));
    assert_eq!(among(&keys, &named("k999")), Err(TokenFault::UnknownKey));
    assert_eq!(among(&keys, &unnamed), Err(TokenFault::Ambiguous));
    let said = TokenFault::Ambiguous.to_string();
    assert!(said.contains("none of the first 8 keys"), "{said}");
    // As many as are tried are no more than are tried; where no key has an id, a token's says nothing.
    for header in [&unnamed, &named("ed")] {
        assert_eq!(among(&nameless(&keys[992..]), header), Ok(()), "{header}");
        let refused = among(&nameless(&keys[991..]), header);
        assert_eq!(refused, Err(TokenFault::Ambiguous), "{header}");
        let refused = among(&nameless(&keys[990..998]), header);
        assert_eq!(refused, Err(TokenFault::Signature), "{header}");
    }
    // A key of another algorithm is not one that could have signed.
    let mut others = vec![sets().0["keys"][2].clone(); 100];
    others.push(keys[999].clone());
    assert_eq!(among(&others, &unnamed), Ok(()));
}

#[test]
fn keys_of_one_id_are_tried_in_turn() {
    let signer = sets().0["keys"][3].clone();
    let header = json!({ "alg": "EdDSA", "kid": "ed" });
    let after = |number: usize| {
        let mut keys: Vec<Value> = (0..number).map(|_| idle("ed")).collect();
        keys.push(signer.clone());
        among(&keys, &header)
    };
    assert_eq!(after(1), Ok(()));
    assert_eq!(after(7), Ok(()));
    assert_eq!(after(8), Err(TokenFault::Ambiguous));
    // Another kind of key under the same id is not taken for it, and uses no try up.
    let mut keys = vec![sets().0["keys"][2].clone(); 20];
    for key in &mut keys {
        key["kid"] = json!("ed");
    }
    keys.push(signer);
    assert_eq!(among(&keys, &header), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// No bit of a token can be other than it was signed.
    #[test]
    fn a_flipped_bit_never_verifies(place in any::<prop::sample::Index>(), bit in 0_u8..8, which in 0_usize..4) {
        static GIVEN: LazyLock<(Tokens, Vec<String>)> = LazyLock::new(|| {
            let pairs = [("RS256", "rs"), ("PS256", "ps"), ("ES256", "es"), ("EdDSA", "ed")];
            (tokens(), pairs.iter().map(|(algorithm, kid)| ours(algorithm, kid, &claims(A))).collect())
        });
        let (tokens, texts) = &*GIVEN;
        let mut bytes = texts[which].clone().into_bytes();
        let at = place.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let mut value = b"Bearer ".to_vec();
        value.extend(bytes);
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            let mut headers = HeaderMap::new();
            headers.append(AUTHORIZATION, value);
            prop_assert!(!matches!(look_at(tokens, &headers, &policy("")), Ok(Some(_))));
        }
    }
}

#[test]
fn a_token_is_over_when_it_says_so_or_says_nothing() {
    for (claims, over) in [
        (r#"{"exp":1000}"#, true),
        (r#"{"exp":999.5}"#, true),
        (r#"{"exp":1001}"#, false),
        (r#"{"exp":1e300}"#, true),
        (r#"{"exp":-1}"#, true),
        (r#"{"exp":"1001"}"#, true),
        ("{}", true),
    ] {
        let claims = parse(claims.as_bytes(), &Limits::REQUEST).unwrap();
        let token = Verified {
            issuer: A.into(),
            subject: "s".into(),
            claims: claims.as_object().unwrap().clone(),
            leeway: Duration::from_secs(30),
        };
        assert_eq!(token.is_over(Duration::from_secs(1000)), over, "{claims:?}");
    }
}
