//! Heads as HTTP/2 wants them: without what belongs to a connection, with the length and the date that are due.

use std::cell::RefCell;

use hyper::Method;
use hyper::body::SizeHint;
use hyper::header::{CONTENT_LENGTH, DATE, EXPECT, HeaderMap, HeaderValue, TE};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

use crate::forward::headers::strip_hop_by_hop;

/// Makes headers of an answer, interim or final, fit (RFC 9113 section 8.2.2).
pub(super) fn fit_answer(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    headers.remove(TE);
}

/// Makes headers of a request fit. What has no body says so where a body is usual (RFC 9110 section 8.6).
pub(super) fn fit_request(headers: &mut HeaderMap, method: &Method, size: &SizeHint) {
    strip_hop_by_hop(headers);
    let usual = ![Method::GET, Method::HEAD, Method::DELETE].contains(method);
    if let Some(length) = size.exact().filter(|length| usual || *length > 0) {
        say_length(headers, length);
    }
}

/// Says how long the body is, unless that was said.
pub(super) fn say_length(headers: &mut HeaderMap, length: u64) {
    headers
        .entry(CONTENT_LENGTH)
        .or_insert_with(|| HeaderValue::from(length));
}

/// Says when it is answered, unless that was said (RFC 9110 section 6.6.1).
pub(super) fn say_date(headers: &mut HeaderMap) {
    if !headers.contains_key(DATE)
        && let Some(now) = now()
    {
        headers.insert(DATE, now);
    }
}

/// The length that the headers say; `h2` has made sure that they agree on it.
pub(super) fn said_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether the sender waits to be asked for the body (RFC 9110 section 10.1.1).
pub(super) fn waits(headers: &HeaderMap) -> bool {
    let expects = headers.get(EXPECT);
    expects.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// The second that it is, as headers say it; written once for each.
fn now() -> Option<HeaderValue> {
    thread_local! {
        static LAST: RefCell<Option<(i64, HeaderValue)>> = const { RefCell::new(None) };
    }
    let now = Timestamp::now();
    LAST.with_borrow_mut(|last| {
        if let Some((second, text)) = last
            && *second == now.as_second()
        {
            return Some(text.clone());
        }
        let text = DateTimePrinter::new()
            .timestamp_to_rfc9110_string(&now)
            .ok()?;
        let text = HeaderValue::try_from(text).ok()?;
        *last = Some((now.as_second(), text.clone()));
        Some(text)
    })
}

#[cfg(test)]
mod tests {
    use hyper::Method;
    use hyper::body::SizeHint;
    use hyper::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderMap, HeaderValue, TE};

    use super::{fit_answer, fit_request, said_length, say_date};

    #[test]
    fn the_date_is_said_once_and_as_http_says_it() {
        let mut headers = HeaderMap::new();
        say_date(&mut headers);
        let said = headers.get(DATE).unwrap().to_str().unwrap().to_owned();
        // As in `Sun, 06 Nov 1994 08:49:37 GMT`.
        assert!(said.len() == 29 && said.ends_with(" GMT"), "{said}");
        let old = HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT");
        headers.insert(DATE, old.clone());
        say_date(&mut headers);
        assert_eq!(headers.get(DATE), Some(&old));
    }

    #[test]
    fn what_belongs_to_a_connection_goes_and_lengths_come() {
        let mut headers = HeaderMap::new();
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("close, x-hop"));
        headers.insert("x-hop", HeaderValue::from_static("1"));
        let mut answer = headers.clone();
        fit_answer(&mut answer);
        assert!(answer.is_empty(), "{answer:?}");
        let none = SizeHint::with_exact(0);
        let mut get = headers.clone();
        fit_request(&mut get, &Method::GET, &none);
        assert_eq!(said_length(&get), None);
        let mut post = headers.clone();
        fit_request(&mut post, &Method::POST, &none);
        assert_eq!(said_length(&post), Some(0));
        assert_eq!(post.get(TE), Some(&HeaderValue::from_static("trailers")));
        post.insert(CONTENT_LENGTH, HeaderValue::from_static("7"));
        fit_request(&mut post, &Method::POST, &SizeHint::with_exact(7));
        assert_eq!(said_length(&post), Some(7));
    }
}
