//! Media types and codings that servers were seen to take for something else.

use hyper::http::HeaderMap;
use hyper::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};

use super::{Body, BodyFault, check_request, response_body};

fn headers(types: &[&str], codings: &[&str]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for value in types {
        map.append(
            CONTENT_TYPE,
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    for value in codings {
        map.append(
            CONTENT_ENCODING,
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    map
}

#[test]
fn one_media_type_is_due_in_a_request() {
    for good in [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "application/json ; Charset=\"utf-8\"",
        "application/json;",
    ] {
        assert_eq!(check_request(&headers(&[good], &[])), Ok(()), "{good}");
    }
    for bad in [
        "application/jsonp",
        "application/json, text/plain",
        "text/plain; application/json",
        "text/plain",
        "application/json;charset=utf-16le",
        "application/json;charset=utf-7",
        "application/json;charset=utf-8;charset=utf-7",
        "application/json;charset=utf-8;x=y",
        "application/json;x=y",
        "application/json-rpc",
        "text/event-stream",
        "",
        "application/j\u{e9}son",
    ] {
        assert_eq!(
            check_request(&headers(&[bad], &[])),
            Err(BodyFault::MediaType),
            "{bad}"
        );
    }
    assert_eq!(check_request(&headers(&[], &[])), Err(BodyFault::MediaType));
    let twice = headers(&["application/json", "application/json"], &[]);
    assert_eq!(check_request(&twice), Err(BodyFault::Duplicate));
}

#[test]
fn bodies_are_not_encoded() {
    let json = &["application/json"][..];
    assert_eq!(check_request(&headers(json, &["identity"])), Ok(()));
    for bad in ["gzip", "deflate", "br", "identity, gzip", ""] {
        assert_eq!(
            check_request(&headers(json, &[bad])),
            Err(BodyFault::Encoding),
            "{bad}"
        );
    }
    assert_eq!(
        check_request(&headers(json, &["identity", "gzip"])),
        Err(BodyFault::Duplicate)
    );
}

#[test]
fn responses_are_messages_or_events() {
    let body = |value: &str| response_body(&headers(&[value], &[]));
    assert_eq!(body("application/json"), Ok(Some(Body::Json)));
    assert_eq!(
        body("TEXT/EVENT-STREAM; charset=utf-8"),
        Ok(Some(Body::Events))
    );
    assert_eq!(
        body("text/event-stream;charset=utf-16-le"),
        Err(BodyFault::MediaType)
    );
    assert_eq!(body("text/html"), Err(BodyFault::MediaType));
    assert_eq!(response_body(&HeaderMap::new()), Ok(None));
}
