//! The attacks that everybody tries, as far as the tests beside this do not have them.

use serde_json::{Value, json};

use super::{A, claims, headers, look, look_at, now, ours, policy, token, tokens, url};
use crate::identify::token::TokenFault;

const HEADER: &str = r#"{"alg":"EdDSA","kid":"ed"}"#;

/// Signed by the issuer, with this end of its time.
fn ends(exp: &str) -> Result<Option<String>, TokenFault> {
    let mut claims = claims(A);
    claims.as_object_mut().unwrap().remove("exp");
    let payload = claims
        .to_string()
        .replacen('{', &format!("{{\"exp\":{exp},"), 1);
    look(&tokens(), &token(HEADER, &payload, "EdDSA"))
}

#[test]
fn an_end_that_is_no_time_is_none() {
    let soon = now() + 300;
    for exp in [
        "1e300",
        "-1e300",
        "1e999",
        "-0.0",
        "true",
        "[9999999999]",
        "{}",
        "\"9999999999\"",
        "\"\"",
        "null",
    ] {
        let found = ends(exp);
        assert!(found.is_err(), "{exp}: {found:?}");
    }
    for past in ["0", "0.5", "1e3"] {
        assert_eq!(ends(past), Err(TokenFault::Expired), "{past}");
    }
    // A number with a point is a time (RFC 7519 section 2).
    for later in [format!("{soon}.5"), format!("{soon}.0e0")] {
        assert_eq!(ends(&later), Ok(Some("s".to_owned())), "{later}");
    }
    let twice = format!("1,\"exp\":{soon}");
    assert_eq!(ends(&twice), Err(TokenFault::Malformed("payload")));
}

#[test]
fn a_part_that_is_encoded_twice_is_no_part() {
    let good = ours("EdDSA", "ed", &claims(A));
    let parts: Vec<&str> = good.split('.').collect();
    let again = |part: usize| url(parts[part].as_bytes());
    for text in [
        format!("{}.{}.{}", again(0), parts[1], parts[2]),
        format!("{}.{}.{}", parts[0], again(1), parts[2]),
        format!("{}.{}.{}", parts[0], parts[1], again(2)),
        format!("{}.{}.{}", again(0), again(1), again(2)),
        url(good.as_bytes()),
        format!("{}.{}==.{}=", parts[0], parts[1], parts[2]),
        format!("{}%3D.{}.{}", parts[0], parts[1], parts[2]),
    ] {
        let found = look(&tokens(), &text);
        assert!(!matches!(found, Ok(Some(_))), "{text}: {found:?}");
    }
}

#[test]
fn blanks_within_a_token_end_it() {
    let good = ours("EdDSA", "ed", &claims(A));
    for place in [
        1,
        good.find('.').unwrap(),
        good.find('.').unwrap() + 1,
        good.len() - 1,
    ] {
        for blank in [" ", "\t", "  ", "\u{a0}"] {
            let mut text = good.clone();
            text.insert_str(place, blank);
            let found = look(&tokens(), &text);
            assert!(
                !matches!(found, Ok(Some(_))),
                "{place} {blank:?}: {found:?}"
            );
        }
    }
}

#[test]
fn two_headers_are_two_tokens_even_where_they_agree() {
    let good = format!("Bearer {}", ours("EdDSA", "ed", &claims(A)));
    let other = format!(
        "Bearer {}",
        ours(
            "EdDSA",
            "ed",
            &json!({ "iss": A, "aud": "mcp", "sub": "t", "exp": now() + 300 })
        )
    );
    for values in [
        [good.clone(), good.clone()],
        [good.clone(), other],
        [good, "Bearer x".to_owned()],
    ] {
        let found = look_at(&tokens(), &headers(&values), &policy(""));
        assert!(matches!(found, Err(TokenFault::Several)), "{found:?}");
    }
}

#[test]
fn a_payload_is_not_left_as_it_is_where_the_header_says_so() {
    // RFC 7797: what is signed would be the bytes themselves.
    let plain = claims(A).to_string();
    for header in [
        json!({ "alg": "EdDSA", "kid": "ed", "b64": false }),
        json!({ "alg": "EdDSA", "kid": "ed", "b64": false, "crit": ["b64"] }),
    ] {
        let header = url(header.to_string().as_bytes());
        let message = format!("{header}.{plain}");
        let signature = url(&super::sign("EdDSA", &message));
        let found = look(&tokens(), &format!("{message}.{signature}"));
        assert!(!matches!(found, Ok(Some(_))), "{found:?}");
    }
}

#[test]
fn keys_and_places_of_keys_in_the_header_are_not_looked_at() {
    let own = super::sets().1["keys"][0].clone();
    for name in ["jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256"] {
        let place: Value = match name {
            "jwk" => own.clone(),
            "x5c" => json!(["MIIB"]),
            _ => json!("https://b.example/keys"),
        };
        let mut header = json!({ "alg": "EdDSA" });
        header[name] = place;
        // Without a key id any of the issuer's keys may be meant, and none of the token's.
        let text = token(&header.to_string(), &claims(A).to_string(), "other");
        let found = look(&tokens(), &text);
        assert!(found.is_err(), "{name}: {found:?}");
    }
}
