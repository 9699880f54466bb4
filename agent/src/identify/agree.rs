//! Agreement: the name in the handshake, the name in every request, the name that the workload asked for and
//! the address that it dialled belong together, or the request is refused.

use std::net::IpAddr;

use exeat_policy::Name;
use hyper::body::Body;
use hyper::header::{HOST, HeaderValue};
use hyper::http::uri::{Authority, Uri};
use hyper::{Method, Request, Version};
use thiserror::Error;

use crate::identify::bindings::{Bindings, Table};
use crate::identify::peer::{Peer, PeerFault};

/// Names and addresses that do not belong together. For the record; the caller is told less.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum Disagreement {
    /// The name was never asked for by this workload.
    #[error("`{0}` was not asked for by this workload")]
    NotAsked(Name),
    /// The address is a synthetic one that means another name.
    #[error("the address means `{means}`, not `{said}`")]
    OtherName {
        /// What the address means.
        means: Name,
        /// What was said.
        said: Peer,
    },
    /// The request names another host than the connection.
    #[error("the request names `{said}` on a connection to `{connected}`")]
    OtherHost {
        /// The connection's peer.
        connected: Peer,
        /// The request's.
        said: String,
    },
    /// The request names another port than the connection.
    #[error("the request names port {said} on a connection to port {connected}")]
    OtherPort {
        /// The connection's.
        connected: u16,
        /// The request's.
        said: u16,
    },
    /// No host, or several.
    #[error("{0} Host headers")]
    Hosts(usize),
    /// A host that is neither a name nor an address.
    #[error("a host that is neither a name nor an address")]
    Malformed(#[from] PeerFault),
}

/// A form of request that is not let through.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// RFC 9112 section 3.2.2: what is not the request that could be made in origin form.
    #[error(
        "a request in absolute form of another scheme than the connection's, or without a Host"
    )]
    Absolute,
    /// RFC 9110 section 9.3.6.
    #[error("CONNECT")]
    Connect,
    /// RFC 9110 section 9.3.8: it has no content, and its echo may hold what was put into a request that looked like another.
    #[error("TRACE with a body, or in a header that stands for a method")]
    Trace,
    /// Another method in a header than can be read.
    #[error("a method in a header that cannot be read")]
    Override,
    /// A scheme that is not the connection's.
    #[error("a scheme that is not the connection's")]
    Scheme,
}

/// Whether `workload` may mean `peer` by the `address` that it dialled.
///
/// # Errors
/// A [`Disagreement`].
pub fn bound<T: Table>(
    bindings: &Bindings<T>,
    workload: u32,
    address: IpAddr,
    peer: &Peer,
) -> Result<(), Disagreement> {
    if let Some(means) = bindings.synthetic_name(workload, address) {
        return match peer {
            Peer::Name(name) if *name == means => Ok(()),
            said => Err(Disagreement::OtherName {
                means,
                said: said.clone(),
            }),
        };
    }
    match peer {
        Peer::Name(name) if is_localhost(name) && address.is_loopback() => Ok(()),
        Peer::Name(name) if bindings.asked(workload, name) => Ok(()),
        Peer::Name(name) => Err(Disagreement::NotAsked(name.clone())),
        Peer::Address(said) if *said == address => Ok(()),
        Peer::Address(said) => Err(Disagreement::OtherHost {
            connected: Peer::Address(address),
            said: said.to_string(),
        }),
    }
}

/// RFC 6761 section 6.3: it is what it says, whoever resolves it.
pub fn is_localhost(name: &Name) -> bool {
    name.as_str() == "localhost"
}

/// The host that a request names, by `:authority` (HTTP/2) or `Host`.
///
/// # Errors
/// [`Disagreement::Hosts`] unless it names exactly one, [`Disagreement::Malformed`].
pub fn named<B>(request: &Request<B>) -> Result<(Peer, Option<u16>), Disagreement> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(Disagreement::Hosts(
            request.headers().get_all(HOST).iter().count(),
        ));
    }
    let host = first
        .map(|value| value.to_str().map_err(|_bytes| PeerFault))
        .transpose()?;
    let authority = request.uri().authority().map(Authority::as_str);
    // RFC 9113 section 8.3.1: both may be there, and then they must agree.
    let stated = match (authority, host) {
        (Some(authority), Some(host)) if Peer::parse(authority)? != Peer::parse(host)? => {
            return Err(Disagreement::Hosts(2));
        }
        (Some(authority), _) => authority,
        (None, Some(host)) => host,
        (None, None) => return Err(Disagreement::Hosts(0)),
    };
    Ok(Peer::parse(stated)?)
}

/// Whether a request on a connection to `peer` at `port` names just that.
///
/// # Errors
/// A [`Disagreement`].
pub fn same_host(
    (said, said_port): (Peer, Option<u16>),
    peer: &Peer,
    port: u16,
    tls: bool,
) -> Result<(), Disagreement> {
    if said != *peer {
        return Err(Disagreement::OtherHost {
            connected: peer.clone(),
            said: said.to_string(),
        });
    }
    let said_port = said_port.unwrap_or(if tls { 443 } else { 80 });
    if said_port == port {
        Ok(())
    } else {
        Err(Disagreement::OtherPort {
            connected: port,
            said: said_port,
        })
    }
}

/// Whether the request has a form that may be judged.
///
/// # Errors
/// A [`Form`] that is refused.
pub fn form<B: Body>(request: &Request<B>, tls: bool) -> Result<(), Form> {
    if *request.method() == Method::CONNECT {
        return Err(Form::Connect);
    }
    if *request.method() == Method::TRACE && !request.body().is_end_stream() {
        return Err(Form::Trace);
    }
    let scheme = request.uri().scheme_str();
    let own = scheme == Some(if tls { "https" } else { "http" });
    if request.version() == Version::HTTP_2 {
        return if own { Ok(()) } else { Err(Form::Scheme) };
    }
    let origin = scheme.is_none() && request.uri().authority().is_none();
    if origin || (own && request.headers().contains_key(HOST)) {
        Ok(())
    } else {
        Err(Form::Absolute)
    }
}

/// Writes a request of HTTP/1 in absolute form, whose host was agreed on, in origin form: the same request (RFC 9112
/// section 3.2.2), and the one form that is sent on.
pub fn in_origin_form<B>(request: &mut Request<B>) {
    if request.version() == Version::HTTP_2 || request.uri().authority().is_none() {
        return;
    }
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
}

/// Headers by which a request asks to be taken for one of another method; frameworks heed them on POST.
pub const OVERRIDES: [&str; 3] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
];

/// Every method that the request may be taken for beside its own, in capitals as frameworks read them.
///
/// # Errors
/// A [`Form`]: unreadable, or one that is never let through.
pub fn overrides<B>(request: &Request<B>) -> Result<Vec<String>, Form> {
    let stated = OVERRIDES
        .iter()
        .flat_map(|name| request.headers().get_all(*name));
    let read = |value: &HeaderValue| {
        let method = value.to_str().map_err(|_bytes| Form::Override)?;
        match method.trim().to_ascii_uppercase() {
            method if method == "CONNECT" => Err(Form::Connect),
            method if method == "TRACE" => Err(Form::Trace),
            method => Ok(method),
        }
    };
    stated.map(read).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;
    use hyper::Request;

    use super::{Disagreement, Form, form, in_origin_form, named, overrides, same_host};
    use crate::identify::peer::Peer;

    fn request(uri: &str, hosts: &[&str]) -> Request<Full<Bytes>> {
        let mut request = Request::builder().uri(uri);
        for host in hosts {
            request = request.header("host", *host);
        }
        request.body(Full::default()).expect("a request")
    }

    #[test]
    fn one_host_is_named_and_it_is_the_connections() {
        let peer = Peer::parse_host("api.example.com").expect("a name");
        let ok = |hosts: &[&str], port, tls| {
            named(&request("/x", hosts)).and_then(|said| same_host(said, &peer, port, tls))
        };
        assert_eq!(ok(&["api.example.com"], 443, true), Ok(()));
        assert_eq!(
            ok(&["API.example.com.:443"], 443, true),
            Ok(()),
            "a name is one name in any case, and with the dot of the root"
        );
        assert_eq!(ok(&["api.example.com:8443"], 8443, true), Ok(()));
        assert_eq!(ok(&["api.example.com"], 80, false), Ok(()));
        assert!(matches!(
            ok(&["api.example.com"], 8443, true),
            Err(Disagreement::OtherPort {
                connected: 8443,
                said: 443
            })
        ));
        assert!(matches!(
            ok(&["evil.example"], 443, true),
            Err(Disagreement::OtherHost { .. })
        ));
        assert_eq!(ok(&[], 443, true), Err(Disagreement::Hosts(0)));
        assert_eq!(
            ok(&["api.example.com", "api.example.com"], 443, true),
            Err(Disagreement::Hosts(2)),
            "even two equal ones: the next parser may take either"
        );
        assert!(matches!(
            ok(&["api.example.com@evil"], 443, true),
            Err(Disagreement::Malformed(_))
        ));
    }

    #[test]
    fn forms_that_say_more_than_the_request_are_refused() {
        assert_eq!(form(&request("/x", &[]), true), Ok(()));
        let host = &["api.example.com"];
        let absolute = request("http://api.example.com/x", host);
        assert_eq!(form(&absolute, false), Ok(()));
        assert_eq!(form(&absolute, true), Err(Form::Absolute));
        let unnamed = request("http://api.example.com/x", &[]);
        assert_eq!(form(&unnamed, false), Err(Form::Absolute));
        let mut connect = request("/x", &[]);
        *connect.method_mut() = hyper::Method::CONNECT;
        assert_eq!(form(&connect, true), Err(Form::Connect));
        *connect.method_mut() = hyper::Method::TRACE;
        assert_eq!(form(&connect, true), Ok(()));
        *connect.body_mut() = Full::from("x");
        assert_eq!(form(&connect, true), Err(Form::Trace));
        let mut second = request("http://api.example.com/x", &[]);
        *second.version_mut() = hyper::Version::HTTP_2;
        assert_eq!(form(&second, true), Err(Form::Scheme));
        assert_eq!(form(&second, false), Ok(()));
    }

    #[test]
    fn an_absolute_form_is_sent_on_as_the_request_that_it_is() {
        for (given, sent) in [
            ("https://api.example.com/x?y=https://z/", "/x?y=https://z/"),
            ("https://api.example.com", "/"),
            ("https://api.example.com?y", "/?y"),
            ("/x", "/x"),
            ("*", "*"),
        ] {
            let mut request = request(given, &["api.example.com"]);
            in_origin_form(&mut request);
            assert_eq!(request.uri().to_string(), sent, "{given}");
        }
        let other = request("https://evil.example/x", &["api.example.com"]);
        assert_eq!(named(&other), Err(Disagreement::Hosts(2)));
        let user = request(
            "https://api.example.com@evil.example/x",
            &["api.example.com"],
        );
        assert!(matches!(named(&user), Err(Disagreement::Malformed(_))));
    }

    #[test]
    fn a_method_in_a_header_is_a_method() {
        let mut asked = request("/x", &[]);
        assert_eq!(overrides(&asked), Ok(Vec::new()));
        for (name, value) in [
            ("x-http-method-override", "delete"),
            ("x-method-override", " PUT"),
        ] {
            asked
                .headers_mut()
                .append(name, value.parse().expect("a value"));
        }
        assert_eq!(
            overrides(&asked),
            Ok(vec!["DELETE".to_owned(), "PUT".to_owned()])
        );
        let hidden = hyper::header::HeaderValue::from_bytes(b"\xff").expect("a value");
        asked.headers_mut().append("x-http-method", hidden);
        assert_eq!(overrides(&asked), Err(Form::Override));
        asked
            .headers_mut()
            .insert("x-http-method", "trace".parse().expect("a value"));
        assert_eq!(overrides(&asked), Err(Form::Trace));
    }
}
