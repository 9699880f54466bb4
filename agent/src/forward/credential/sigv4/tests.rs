//! Signatures that AWS publishes, and what a client may send for them to come out otherwise.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use exeat_policy::{Source, compile};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame};
use proptest::prelude::*;

use super::*;
use crate::forward::body::BodyFault;
use crate::forward::credential::{CredentialFault, Credentials, Form, Injection};
use crate::identify::room::{Left, Room};
use crate::refuse::Refusal;

/// AWS's own suite (awslabs/aws-c-auth, `tests/aws-signing-test-suite/v4`, Apache-2.0): requests, the token of a session
/// as one of their headers, bodies after `>`, signatures after `=`. `get-space-normalized` is as AWS published it first:
/// the blank not encoded.
const VECTORS: &str = include_str!("vectors.txt");
const ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const SESSION: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22==";
const NOW: &str = "2015-08-30T12:36:00.5Z";
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn signer(service: &str, session: Option<&str>) -> Signer {
    let printed = serde_json::json!({
        "Version": 1, "AccessKeyId": ID, "SecretAccessKey": SECRET, "SessionToken": session,
    });
    let printed = Secret::new(printed.to_string());
    Signer::new(&printed, &"us-east-1".into(), &service.into()).unwrap()
}

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

#[test]
fn the_signatures_that_aws_publishes() {
    let mut count = 0;
    for vector in VECTORS.split("# ").skip(1) {
        let (name, rest) = vector.split_once('\n').unwrap();
        let (first, rest) = rest.split_once('\n').unwrap();
        let first = first.strip_suffix(" HTTP/1.1").unwrap();
        let (method, target) = first.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (mut host, mut signature, mut payload) = ("", "", EMPTY.to_owned());
        let mut headers: Vec<(String, String)> = vec![(DATE.to_string(), now().compact())];
        for line in rest.lines() {
            if let Some(body) = line.strip_prefix("> ") {
                payload = encode_hex(digest::digest(&digest::SHA256, body.as_bytes()).as_ref());
                headers.push((CONTENT.to_string(), payload.clone()));
            } else if let Some(expected) = line.strip_prefix("= ") {
                signature = expected;
            } else if line.starts_with(' ') {
                // A value in lines, which HTTP does not have any more.
                headers.last_mut().unwrap().1.push_str(line);
            } else if let Some(named) = line.strip_prefix("Host:") {
                host = named;
            } else {
                let (name, value) = line.split_once(':').unwrap();
                headers.push((name.to_owned(), value.to_owned()));
            }
        }
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        let paths = if name.ends_with("-unnormalized") {
            Paths::Once
        } else {
            Paths::Twice
        };
        let path = canonical::path(path, paths).unwrap();
        let query = canonical::query(query).unwrap();
        let signed = canonical::headers(host.as_bytes(), &map, |_| true);
        let canonical = canonical::request(method, &path, &query, &signed, &payload);
        let text = signer("service", None).authorization(&canonical, &signed, &now().compact());
        let scope = format!("Credential={ID}/20150830/us-east-1/service/aws4_request, ");
        assert!(text.starts_with(&format!("{ALGORITHM} {scope}")), "{name}");
        let own = text.split("Signature=").nth(1).unwrap();
        assert_eq!(
            own,
            signature,
            "{name}: {}",
            String::from_utf8_lossy(&canonical)
        );
        count += 1;
    }
    assert_eq!(count, 38);
}

/// "Examples: Signature calculations in AWS Signature Version 4" for S3, and what else its keys may be.
#[test]
fn a_path_is_written_as_its_service_reads_it() {
    for (sent, once, twice) in [
        ("/test$file.text", "/test%24file.text", "/test%24file.text"),
        (
            "/test%24file.text",
            "/test%24file.text",
            "/test%2524file.text",
        ),
        ("/a%2fb//c/../d", "/a/b//c/../d", "/a%252fb/d"),
        ("/../a/..", "/../a/..", "/"),
        ("/a/b/..", "/a/b/..", "/a/"),
        ("/a/.", "/a/.", "/a/"),
        (
            "/test/@connections/JBDvjfGEIAMCERw%3D",
            "/test/%40connections/JBDvjfGEIAMCERw%3D",
            "/test/%40connections/JBDvjfGEIAMCERw%253D",
        ),
        (
            "/functions/arn%3Aaws",
            "/functions/arn%3Aaws",
            "/functions/arn%253Aaws",
        ),
    ] {
        assert_eq!(canonical::path(sent, Paths::Once).unwrap(), once);
        assert_eq!(
            canonical::path(sent, Paths::Twice).unwrap(),
            twice,
            "{sent}"
        );
    }
    canonical::path("/%zz", Paths::Once).unwrap_err();
    canonical::path("/a+b", Paths::Once).unwrap_err();
    for paths in [Paths::Once, Paths::Twice] {
        canonical::path("*", paths).unwrap_err();
        canonical::path("", paths).unwrap_err();
    }
    for (sent, signed) in [
        ("", ""),
        ("acl", "acl="),
        ("&b=%2f&&a=1=2&", "a=1%3D2&b=%2F"),
        ("max-keys=2&prefix=J", "max-keys=2&prefix=J"),
        ("a=2&a=1&A=3", "A=3&a=1&a=2"),
        ("a-=1&a=2", "a=2&a-=1"),
    ] {
        assert_eq!(canonical::query(sent).unwrap(), signed, "{sent}");
    }
    for unread in ["a=b+c", "a+b", "a=%z", "%=1"] {
        canonical::query(unread).unwrap_err();
    }
}

fn request(uri: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method("PUT").uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

/// What a client signed, under every name.
const SIGNED: [(&str, &str); 12] = [
    ("host", "api.example"),
    (
        "authorization",
        "AWS4-HMAC-SHA256 Credential=own, SignedHeaders=host, Signature=own",
    ),
    ("Authorization", "Bearer own"),
    ("x-amz-date", "20000101T000000Z"),
    ("x_amz_date", "20000101T000000Z"),
    ("x-amz-security-token", "own"),
    ("X_AMZ_security-token", "own"),
    ("x-amz-content-sha256", "own"),
    ("x-amz-region-set", "*"),
    ("x-amz-target", "Table.Get"),
    ("content-type", "application/x-amz-json-1.0"),
    ("user-agent", "own"),
];

#[test]
fn what_the_client_signed_is_gone_and_what_is_sent_is_signed() {
    let body = b"{}".as_slice();
    for session in [None, Some(SESSION)] {
        let mut signed = request("/a?b=%20&a", &SIGNED);
        signer("dynamodb", session)
            .sign(&mut signed, Some(body), now())
            .unwrap();
        let headers = signed.headers();
        let text = |name: &str| -> Vec<String> {
            let values = headers.get_all(name).iter();
            values
                .map(|value| value.to_str().unwrap().to_owned())
                .collect()
        };
        let digest = encode_hex(digest::digest(&digest::SHA256, body).as_ref());
        assert_eq!(text("x-amz-content-sha256"), std::slice::from_ref(&digest));
        assert_eq!(text("x-amz-date"), ["20150830T123600Z"]);
        let sent: Vec<String> = session.into_iter().map(str::to_owned).collect();
        assert_eq!(text("x-amz-security-token"), sent);
        assert!(
            headers.keys().all(|name| !name.as_str().contains('_')),
            "{headers:?}"
        );
        assert!(!headers.contains_key("x-amz-region-set"));
        let (token, listed) = match session {
            Some(session) => (
                format!("x-amz-security-token:{session}\n"),
                ";x-amz-security-token",
            ),
            None => (String::new(), ""),
        };
        let listed =
            format!("content-type;host;x-amz-content-sha256;x-amz-date{listed};x-amz-target");
        let canonical = format!(
            "PUT\n/a\na=&b=%20\ncontent-type:application/x-amz-json-1.0\nhost:api.example\nx-amz-content-sha256:{digest}\n\
             x-amz-date:20150830T123600Z\n{token}x-amz-target:Table.Get\n\n{listed}\n{digest}"
        );
        let names: Signed = listed
            .split(';')
            .map(|name| (name.to_owned(), Zeroizing::default()))
            .collect();
        let expected = signer("dynamodb", None).authorization(
            canonical.as_bytes(),
            &names,
            "20150830T123600Z",
        );
        assert_eq!(text("authorization"), [expected.to_string()]);
        // Neither is shown, nor kept by HTTP/2.
        let shown = format!("{signed:?}");
        assert!(
            !shown.contains("Signature=") && !shown.contains(SESSION),
            "{shown}"
        );
    }
}

#[test]
fn s3_takes_bodies_that_are_not_signed_and_nobody_else() {
    let mut sent = request("/key", &[("host", "bucket.s3.example")]);
    let s3 = signer("s3", None);
    assert!(!s3.signs_body());
    s3.sign(&mut sent, None, now()).unwrap();
    assert_eq!(sent.headers()["x-amz-content-sha256"], "UNSIGNED-PAYLOAD");
    for other in ["dynamodb", "s3-outposts", "s3express"] {
        let other = signer(other, None);
        assert!(other.signs_body());
        let mut sent = request("/key", &[("host", "bucket.s3.example")]);
        assert!(other.sign(&mut sent, None, now()).is_err());
        assert!(!sent.headers().contains_key(AUTHORIZATION));
    }
}

#[test]
fn paths_of_s3_are_read_alike_under_each_of_its_names() {
    let uri = Uri::from_static("/a%20b//c");
    for (service, path) in [
        ("s3", "/a%20b//c"),
        ("s3express", "/a%20b//c"),
        ("s3-object-lambda", "/a%20b//c"),
        ("s3-outposts", "/a%20b//c"),
        ("s3tables", "/a%2520b/c"),
        ("execute-api", "/a%2520b/c"),
    ] {
        let target = signer(service, None).target(&uri).unwrap();
        assert_eq!(target, (path.to_owned(), String::new()), "{service}");
    }
}

/// HTTP/2 names the host elsewhere.
#[test]
fn the_host_is_that_which_is_sent() {
    let mut first = request("/a", &[("host", "api.example:8443")]);
    let mut second = request("https://api.example:8443/a", &[]);
    for request in [&mut first, &mut second] {
        signer("sqs", None).sign(request, Some(b""), now()).unwrap();
    }
    assert_eq!(
        first.headers()[AUTHORIZATION],
        second.headers()[AUTHORIZATION]
    );
    let mut none = request("/a", &[]);
    assert!(
        signer("sqs", None)
            .sign(&mut none, Some(b""), now())
            .is_err()
    );
}

#[test]
fn what_others_signed_or_read_otherwise_is_refused() {
    let none: &[(&str, &str)] = &[];
    for (uri, headers, holds) in [
        ("/?X-Amz-Signature=own", none, "X-Amz-"),
        ("/?a=1&x%2damz%2DCredential=own", none, "X-Amz-"),
        ("/?a=1;X_Amz_Date=own", none, "X-Amz-"),
        ("/?+X-Amz-Expires", none, "X-Amz-"),
        ("/?AWSAccessKeyId=own&Signature=own", none, "X-Amz-"),
        ("/?prefix=a+b", none, "`+`"),
        ("/a+b", none, "`+`"),
        ("/?prefix=%a", none, "`%`"),
        ("/%a", none, "`%`"),
        (
            "/",
            &[("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")],
            "chunks",
        ),
        (
            "/",
            &[("X_Amz_Content_Sha256", "streaming-unsigned-payload-trailer")],
            "chunks",
        ),
        ("/", &[("content-encoding", "gzip, AWS-chunked")], "chunks"),
        ("/", &[("X-Amz-Copy-Source", "/other/key")], "copy"),
        ("/", &[("x_amz_copy-source", "/other/key")], "copy"),
        ("/", &[("x-amz-rename-source", "/key")], "copy"),
        (
            "/",
            &[
                ("content-encoding", "gzip"),
                ("content_encoding", "aws-chunked"),
            ],
            "chunks",
        ),
    ] {
        let mut request = request(uri, headers);
        request
            .headers_mut()
            .insert("host", HeaderValue::from_static("s3.example"));
        let s3 = signer("s3", None);
        let why = s3.check(request.uri(), request.headers()).unwrap_err();
        assert!(why.contains(holds), "{uri}: {why}");
        assert_eq!(s3.sign(&mut request, None, now()), Err(why));
        assert!(!request.headers().contains_key("x-amz-date"), "{uri}");
    }
}

#[tokio::test]
async fn keys_that_have_ended_sign_nothing() {
    let text = "version: 1\ncredentials: { x: { file: /x, aws_sigv4: { region: eu-central-1, service: sqs } } }\n";
    let name = "p.yaml".to_owned();
    let set = compile(&[Source {
        name,
        text: text.to_owned(),
    }])
    .unwrap();
    let definition = set.credential("x").unwrap();
    let credentials = Credentials::default();
    let learn = |ends: &str| {
        let printed = format!(
            r#"{{"Version":1,"AccessKeyId":"{ID}","SecretAccessKey":"{SECRET}","Expiration":{ends}}}"#
        );
        credentials.learn(definition, Ok(Secret::new(printed)));
    };
    learn(r#""2020-01-02T03:04:05Z""#);
    let fault = credentials.due(definition, true).await.unwrap_err();
    assert!(matches!(fault, CredentialFault::Ended { .. }), "{fault}");
    assert!(fault.to_string().contains("2020-01-02T03:04:05"), "{fault}");
    let standing = credentials.standing(&set).remove(0).fault.unwrap();
    assert!(standing.contains("2020-01-02T03:04:05"), "{standing}");
    for lasting in [r#""2999-01-02T03:04:05Z""#, "null"] {
        learn(lasting);
        credentials.due(definition, true).await.unwrap();
        assert_eq!(credentials.standing(&set).remove(0).fault, None);
    }
    let fault = credentials.due(definition, false).await.unwrap_err();
    assert!(matches!(fault, CredentialFault::Clear { .. }), "{fault}");
    // What is not keys is no credential, and said without what it is.
    credentials.learn(definition, Ok(Secret::new(SECRET.to_owned())));
    let fault = credentials
        .due(definition, true)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        fault.contains("keys of AWS") && !fault.contains(SECRET),
        "{fault}"
    );
}

/// Sends one byte and no more.
struct Endless(bool);

impl Body for Endless {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
    }
}

#[tokio::test]
async fn a_body_that_is_signed_has_a_size_and_an_end() {
    let signing = || {
        let form = Form::Signed(Arc::new(signer("sqs", None)));
        let name = "x".into();
        Injection { name, form }
    };
    let full = || Full::new(Bytes::from_static(b"abc")).map_err(|never| match never {});
    let minute = Duration::from_mins(1);
    let room = Room::new(3, Arc::new(Left::new(3)));
    let mut taken = room.none();
    let whole = signing().read(full(), 3, minute, &mut taken).await;
    assert_eq!(whole.unwrap(), b"abc".as_slice());
    let more = signing().read(full(), 3, minute, &mut room.none()).await;
    let more = more.unwrap_err();
    assert_eq!(more.refusal(), Refusal::HeldBytes, "{more}");
    drop(taken);
    let large = signing().read(full(), 2, minute, &mut room.none()).await;
    let large = large.unwrap_err();
    assert_eq!(large.refusal(), Refusal::TooLarge, "{large}");
    let announced = Request::builder().uri("/").body(full()).unwrap();
    signing().check(&announced, 3).unwrap();
    let large = signing().check(&announced, 2).unwrap_err();
    assert_eq!(large.refusal(), Refusal::TooLarge, "{large}");
    let late = signing()
        .read(
            Endless(false),
            3,
            Duration::from_millis(10),
            &mut room.none(),
        )
        .await;
    let late = late.unwrap_err();
    assert!(matches!(late, CredentialFault::Endless { .. }), "{late}");
    assert_eq!(late.refusal(), Refusal::HttpForm);
}

proptest! {
    /// Whatever is sent, what is signed has one line for each part of it: nothing in a request adds another.
    #[test]
    fn no_request_adds_a_line(
        path in "(/|/[ -~]{0,30})",
        query in "[!-~]{0,30}",
        value in "[ -~\t]{0,20}",
    ) {
        let (Ok(path), Ok(query)) = (canonical::path(&path, Paths::Twice), canonical::query(&query)) else {
            return Ok(());
        };
        let mut headers = HeaderMap::new();
        headers.append("x-amz-meta-a", HeaderValue::from_str(&value).unwrap());
        let signed = canonical::headers(b"a.example", &headers, is_signed);
        let text = String::from_utf8(canonical::request("GET", &path, &query, &signed, EMPTY).to_vec()).unwrap();
        prop_assert_eq!(text.lines().count(), 8);
        prop_assert!(path.starts_with('/') && !path.contains("//"));
        prop_assert!(!path.contains(|of: char| !of.is_ascii_alphanumeric() && !"-._~/%".contains(of)));
    }

    /// The order of parameters means nothing to a signature, and what is canonical stays so.
    #[test]
    fn a_canonical_query_is_its_own(mut parts in proptest::collection::vec("[a-zA-Z%0-9=/~-]{0,8}", 0..6)) {
        let first = canonical::query(&parts.join("&"));
        parts.reverse();
        prop_assert_eq!(&first, &canonical::query(&parts.join("&")));
        if let Ok(first) = first {
            prop_assert_eq!(canonical::query(&first), Ok(first.clone()));
        }
    }
}

#[test]
fn what_is_signed_of_headers_is_ascii() {
    let mut request = request("/", &[("host", "api.example")]);
    let odd = HeaderValue::from_bytes(b"m\xc3\xbcll").unwrap();
    request.headers_mut().insert("x-other", odd.clone());
    let signer = signer("s3", None);
    signer.check(request.uri(), request.headers()).unwrap();
    request.headers_mut().insert("x-amz-meta-of", odd);
    let why = signer.check(request.uri(), request.headers()).unwrap_err();
    assert!(why.contains("ASCII"), "{why}");
}
