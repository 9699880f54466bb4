//! The attacks that everybody tries, as far as the tests beside this do not have them.

use serde_json::{Value, json};

use super::{A, claims, headers, look, look_at, now, ours, policy, token, tokens, url};
use crate::decode::base64;
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

/// A token of this header and the usual claims, with these bytes in the signature's place.
fn with_signature(header: &Value, signature: impl FnOnce(&str) -> Vec<u8>) -> String {
    let claims = claims(A).to_string();
    let message = format!(
        "{}.{}",
        url(header.to_string().as_bytes()),
        url(claims.as_bytes())
    );
    let signature = url(&signature(&message));
    format!("{message}.{signature}")
}

/// The group's order, big-endian: of P-256 (FIPS 186-4).
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6,
    0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// The same pair as in certificates: a sequence of two integers.
fn der(pair: &[u8]) -> Vec<u8> {
    let integers = pair.chunks(32).flat_map(|half| {
        let mut bytes = half;
        while let [0, rest @ ..] = bytes {
            bytes = rest;
        }
        let sign: &[u8] = if bytes.first().is_some_and(|first| *first > 0x7f) {
            &[0]
        } else {
            &[]
        };
        let length = u8::try_from(sign.len() + bytes.len()).unwrap();
        [&[2, length], sign, bytes].concat()
    });
    let integers: Vec<u8> = integers.collect();
    let length = u8::try_from(integers.len()).unwrap();
    [&[0x30, length], &integers[..]].concat()
}

#[test]
fn a_pair_of_numbers_is_a_signature_in_one_writing() {
    let header = json!({ "alg": "ES256", "kid": "es" });
    let signed = |message: &str| super::sign("ES256", message);
    let told = |text: &str| look(&tokens(), text);
    assert_eq!(
        told(&with_signature(&header, signed)),
        Ok(Some("s".to_owned()))
    );
    let half = |r: &[u8], s: &[u8]| [r, s].concat();
    let (zero, mut one) = ([0; 32], [0; 32]);
    one[31] = 1;
    // Numbers that no signature has ("psychic signatures"), and those that a careless check reduces to such.
    for forged in [
        half(&zero, &zero),
        half(&zero, &one),
        half(&one, &zero),
        half(&ORDER, &ORDER),
        half(&ORDER, &zero),
        half(&[0xff; 32], &[0xff; 32]),
        vec![0],
        der(&half(&one, &one)),
        vec![0x30, 6, 2, 1, 0, 2, 1, 0],
        Vec::new(),
    ] {
        let text = with_signature(&header, |_| forged.clone());
        assert_eq!(told(&text), Err(TokenFault::Signature), "{forged:?}");
    }
    // A good one, written otherwise.
    let others: [fn(Vec<u8>) -> Vec<u8>; 5] = [
        |pair| der(&pair),
        |pair| [&pair[..], &[0]].concat(),
        |pair| [&[0], &pair[..]].concat(),
        |pair| pair[..63].to_vec(),
        |pair| [&pair[32..], &pair[..32]].concat(),
    ];
    for (index, other) in others.into_iter().enumerate() {
        let text = with_signature(&header, |message| other(signed(message)));
        assert_eq!(told(&text), Err(TokenFault::Signature), "{index}");
    }
}

/// RFC 8032 section 5.1.7: one that adds the group's order to the second half is none, or anybody makes two of one.
#[test]
fn a_signature_is_not_made_another() {
    // 2^252 + 27742317777372353535851937790883648493, little-endian.
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let header = json!({ "alg": "EdDSA", "kid": "ed" });
    let more = |message: &str| {
        let mut signature = super::sign("EdDSA", message);
        let mut carry = 0_u16;
        for (byte, add) in signature[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = u8::try_from(sum & 0xff).unwrap();
            carry = sum >> 8;
        }
        signature
    };
    let found = look(&tokens(), &with_signature(&header, more));
    assert_eq!(found, Err(TokenFault::Signature));
    let identity = |_: &str| [&[1][..], &[0; 63]].concat();
    let found = look(&tokens(), &with_signature(&header, identity));
    assert_eq!(found, Err(TokenFault::Signature));
}

#[test]
fn a_public_key_is_a_secret_in_no_writing() {
    let set = super::sets().0;
    let keys = set["keys"].as_array().unwrap();
    for key in keys.iter().filter(|key| key["kty"] != "oct") {
        let part = |name: &str| key[name].as_str().unwrap_or_default().to_owned();
        let decoded = ["n", "x"].map(|name| base64::decode_url(&part(name)).unwrap());
        for secret in [
            key.to_string().into_bytes(),
            part("n").into_bytes(),
            part("x").into_bytes(),
            decoded.concat(),
        ] {
            let secret = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret);
            let sign = |message: &str| {
                let tag = aws_lc_rs::hmac::sign(&secret, message.as_bytes());
                tag.as_ref().to_vec()
            };
            for header in [
                json!({ "alg": "HS256", "kid": key["kid"] }),
                json!({ "alg": "HS256" }),
                json!({ "alg": key["alg"], "kid": key["kid"] }),
            ] {
                let found = look(&tokens(), &with_signature(&header, sign));
                assert!(found.is_err(), "{header}: {found:?}");
            }
        }
    }
    // Each of the issuer's signers under the names of the others' algorithms and keys.
    let signers = [
        ("RS256", "rs"),
        ("PS256", "ps"),
        ("ES256", "es"),
        ("EdDSA", "ed"),
    ];
    for (by, own) in signers {
        for (algorithm, _) in signers {
            for (_, kid) in signers {
                let header = json!({ "alg": algorithm, "kid": kid });
                let text = with_signature(&header, |message| super::sign(by, message));
                let found = look(&tokens(), &text);
                let right = algorithm == by && kid == own;
                assert_eq!(matches!(found, Ok(Some(_))), right, "{by}: {header}");
            }
        }
    }
}

#[test]
fn a_token_in_a_token_and_a_name_said_twice_are_none() {
    let good = ours("EdDSA", "ed", &claims(A));
    let quoted = json!(good).to_string();
    let plain = claims(A).to_string();
    let nested = |header: &str, payload: &str| look(&tokens(), &token(header, payload, "EdDSA"));
    for (header, payload) in [
        // RFC 7519 section 5.2: the payload is the inner token, as it is or as a text of JSON.
        (r#"{"alg":"EdDSA","kid":"ed","cty":"JWT"}"#, good.as_str()),
        (r#"{"alg":"EdDSA","kid":"ed","cty":"JWT"}"#, &quoted),
        (r#"{"alg":"EdDSA","kid":"b1","kid":"ed"}"#, &plain),
        (
            r#"{"alg":"EdDSA","kid":"ed","typ":"JWE","typ":"JWT"}"#,
            &plain,
        ),
        (r#"{"alg":"EdDSA","kid":"ed","\u0061lg":"none"}"#, &plain),
    ] {
        let found = nested(header, payload);
        assert!(
            matches!(found, Err(TokenFault::Malformed(_))),
            "{header}: {found:?}"
        );
    }
    for name in ["iss", "sub", "aud", "exp", "nbf"] {
        let twice = plain.replacen('{', &format!("{{\"{name}\":\"x\",\"{name}\":\"x\","), 1);
        let found = nested(HEADER, &twice);
        assert_eq!(found, Err(TokenFault::Malformed("payload")), "{name}");
    }
    // Deep, wide, and longer than anything is looked into.
    let deep = format!("{{\"a\":{}1{},", "[".repeat(20), "]".repeat(20));
    let wide = format!("{{\"a\":[{}0],", "0,".repeat(5000));
    for begins in [deep, wide] {
        let found = nested(HEADER, &plain.replacen('{', &begins, 1));
        assert_eq!(found, Err(TokenFault::Malformed("payload")), "{begins:.9}");
    }
    let mut huge = claims(A);
    huge["pad"] = json!("x".repeat(1 << 20));
    let found = look(&tokens(), &ours("EdDSA", "ed", &huge));
    assert_eq!(found, Err(TokenFault::TooLarge));
    // Encrypted, with the header of one that is signed.
    let parts: Vec<&str> = good.split('.').collect();
    let encrypted = format!("{}.{}.{}.x.y", parts[0], parts[1], parts[2]);
    let found = look(&tokens(), &encrypted);
    assert_eq!(found, Err(TokenFault::Malformed("form")));
}
