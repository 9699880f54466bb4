//! What clients log in with by themselves: it goes from each request that gets a credential, so that nobody acts as
//! another than the credential's account.
//!
//! The names are whole ones, by which services are known to read whose request it is. Names that other things have as
//! well (`key`, `code`, `page_token`) stay: without them, honest requests would ask for something else.

use hyper::Request;
use hyper::header::HeaderName;
use hyper::http::uri::{PathAndQuery, Uri};

use super::{decoded, kept, plain};

/// Headers, as [`plain`] writes them.
const HEADERS: [&str; 31] = [
    "api-key",
    "api-token",
    "apikey",
    "authorization",
    "cookie",
    "cookie2",
    "dd-api-key",
    "dd-application-key",
    "deploy-token",
    "dpop",
    "job-token",
    "ocp-apim-subscription-key",
    "private-token",
    "proxy-authorization",
    "x-access-token",
    "x-amz-security-token",
    "x-api-key",
    "x-api-token",
    "x-apikey",
    "x-auth-key",
    "x-auth-token",
    "x-authorization",
    "x-figma-token",
    "x-forwarded-access-token",
    "x-functions-key",
    "x-goog-api-key",
    "x-rapidapi-key",
    "x-shopify-access-token",
    "x-subscription-token",
    "x-vault-token",
    "xi-api-key",
];

/// Parameters of the query, written in the same way.
const PARAMETERS: [&str; 14] = [
    "access-token",
    "api-key",
    "api-token",
    "apikey",
    "apitoken",
    "auth",
    "auth-token",
    "authorization",
    "authtoken",
    "job-token",
    "oauth-token",
    "private-token",
    "subscription-key",
    "token",
];

/// Takes all of it out; `None` where what is left is no URL.
pub(super) fn strip<B>(request: &mut Request<B>) -> Option<()> {
    let headers = request.headers_mut();
    let own: Vec<HeaderName> = headers
        .keys()
        .filter(|name| HEADERS.contains(&&*plain(name)))
        .cloned()
        .collect();
    for name in own {
        headers.remove(name);
    }
    let Some(query) = request.uri().query() else {
        return Some(());
    };
    let left = kept(query, |name| !is_own(name));
    if left.len() == query.len() {
        return Some(());
    }
    let left = left.trim_end_matches(['&', ';']);
    let path = request.uri().path();
    let written = if left.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{left}")
    };
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(written).ok()?);
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    Some(())
}

/// Whether a parameter of the query, by its name as it is sent, is one of those; as servers read names that take `.` and
/// a blank for `_`.
fn is_own(name: &str) -> bool {
    let mut name = decoded(name);
    name.make_ascii_lowercase();
    for byte in &mut name {
        if b"_. ".contains(byte) {
            *byte = b'-';
        }
    }
    let mut own = PARAMETERS.iter();
    own.any(|own| own.as_bytes() == name)
}

#[cfg(test)]
mod tests {
    use hyper::Request;
    use hyper::header::HeaderName;

    use super::{HEADERS, PARAMETERS, strip};
    use crate::audit::mask::is_telling;

    /// Records hide each of them: what is taken for a secret here is one there.
    #[test]
    fn records_know_each_of_them_for_a_secret() {
        for name in HEADERS.iter().chain(&PARAMETERS) {
            assert!(is_telling(name), "{name}");
        }
        assert!(HEADERS.is_sorted() && PARAMETERS.is_sorted());
    }

    #[test]
    fn what_a_client_logs_in_with_is_gone_and_the_rest_stays() {
        let mut request = Request::builder()
            .uri("/p")
            .header("Private-Token", "own")
            .header("x_api_key", "own")
            .header("cookie", "a=own")
            .header("cookie", "b=own")
            .header("accept", "text/plain")
            .header("x-atlassian-token", "no-check")
            .body(())
            .unwrap();
        strip(&mut request).unwrap();
        let mut left: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "x-atlassian-token"]);
        for (given, left) in [
            ("/p?a=1", "/p?a=1"),
            ("/p?", "/p?"),
            ("/p?access_token=own", "/p"),
            ("/p?a=1&access_token=own", "/p?a=1"),
            ("/p?ACCESS-TOKEN=own&a=1;api.key=own;b=2", "/p?a=1;b=2"),
            (
                "/p?%61ccess%5Ftoken=own&page_token=2&key=3",
                "/p?page_token=2&key=3",
            ),
            ("https://a.example/p?token", "https://a.example/p"),
        ] {
            let mut request = Request::builder().uri(given).body(()).unwrap();
            strip(&mut request).unwrap();
            assert_eq!(request.uri().to_string(), left, "{given}");
        }
    }
}
