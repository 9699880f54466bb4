//! Where an issuer publishes what verifies its tokens: an `https` URL, in one reading only.

use std::fmt;

use exeat_policy::Name;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Bytes of a URL.
const LONGEST: usize = 2048;

/// An `https` URL of a host by name: no user, no fragment, no address in the place of the name.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HttpsUrl {
    text: String,
    host: Name,
    port: u16,
    /// Where the path begins in `text`.
    path: usize,
}

/// Why a text is not such a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HttpsUrlFault {
    /// Another scheme, or none.
    #[error("it does not begin with `https://`")]
    Scheme,
    /// Too long, or a letter that stands in no URL.
    #[error("it holds what stands in no URL, or more than 2048 bytes")]
    Letters,
    /// A user or a fragment.
    #[error("user and fragment do not belong here")]
    Parts,
    /// Not a name, or one of this machine alone.
    #[error("its host is not the name of another host: addresses and `localhost` are not taken")]
    Host,
    /// Not a port.
    #[error("its port is none")]
    Port,
}

impl HttpsUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`HttpsUrlFault`].
    pub fn parse(text: &str) -> Result<Self, HttpsUrlFault> {
        const SCHEME: &str = "https://";
        let stands = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
        if text.len() > LONGEST || !text.bytes().all(stands) {
            return Err(HttpsUrlFault::Letters);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(HttpsUrlFault::Scheme)?;
        let length = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest
            .split_at_checked(length)
            .ok_or(HttpsUrlFault::Letters)?;
        if authority.contains('@') || path.contains('#') {
            return Err(HttpsUrlFault::Parts);
        }
        let (host, port) = match authority.split_once(':') {
            None => (authority, 443),
            Some((host, port)) => {
                let digits = port.bytes().all(|byte| byte.is_ascii_digit());
                let port = port.parse().ok().filter(|port| digits && *port != 0);
                (host, port.ok_or(HttpsUrlFault::Port)?)
            }
        };
        let host = Name::parse(host)
            .ok()
            .filter(|host| host.as_str() != "localhost" && !host.as_str().ends_with(".localhost"))
            .ok_or(HttpsUrlFault::Host)?;
        Ok(Self {
            text: text.to_owned(),
            host,
            port,
            path: SCHEME.len().saturating_add(length),
        })
    }

    /// The host.
    pub fn host(&self) -> &Name {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host with the port, where that is not the usual one.
    pub fn authority(&self) -> String {
        match self.port {
            443 => self.host.to_string(),
            port => format!("{}:{port}", self.host),
        }
    }

    /// Path and query, beginning with `/`.
    pub fn path(&self) -> String {
        match self.text.get(self.path..) {
            Some(path) if path.starts_with('/') => path.to_owned(),
            Some(query) => format!("/{query}"),
            None => "/".to_owned(),
        }
    }

    /// Where an issuer of this URL says where its keys are: `OpenID` Connect Discovery 1.0 section 4.1, then RFC 8414
    /// section 3.1. `None`: no issuer's URL has a query.
    pub fn metadata(&self) -> Option<[Self; 2]> {
        if self.text.contains('?') {
            return None;
        }
        let path = self.path();
        let path = path.strip_suffix('/').unwrap_or(&path);
        let origin = format!("https://{}", self.authority());
        let openid = format!("{origin}{path}/.well-known/openid-configuration");
        let oauth = format!("{origin}/.well-known/oauth-authorization-server{path}");
        Some([Self::parse(&openid).ok()?, Self::parse(&oauth).ok()?])
    }
}

impl fmt::Display for HttpsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for HttpsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for HttpsUrl {
    type Error = HttpsUrlFault;

    fn try_from(text: String) -> Result<Self, HttpsUrlFault> {
        Self::parse(&text)
    }
}

impl From<HttpsUrl> for String {
    fn from(url: HttpsUrl) -> Self {
        url.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_one_reading() {
        let url = HttpsUrl::parse("https://Login.example:8443/t/keys?p=1").unwrap();
        assert_eq!(url.host().as_str(), "login.example");
        assert_eq!((url.port(), url.path()), (8443, "/t/keys?p=1".to_owned()));
        assert_eq!(url.authority(), "login.example:8443");
        let bare = HttpsUrl::parse("https://a.example?x").unwrap();
        assert_eq!((bare.port(), bare.path()), (443, "/?x".to_owned()));
        for (text, fault) in [
            ("http://a.example/", HttpsUrlFault::Scheme),
            ("HTTPS://a.example/", HttpsUrlFault::Scheme),
            ("https://u:p@a.example/", HttpsUrlFault::Parts),
            ("https://a.example/#x", HttpsUrlFault::Parts),
            ("https://a.example:0/", HttpsUrlFault::Port),
            ("https://a.example:+443/", HttpsUrlFault::Port),
            ("https://a.example:/", HttpsUrlFault::Port),
            ("https://10.0.0.1/", HttpsUrlFault::Host),
            ("https://127.1/", HttpsUrlFault::Host),
            ("https://[::1]/", HttpsUrlFault::Port),
            ("https://localhost/", HttpsUrlFault::Host),
            ("https://x.localhost/", HttpsUrlFault::Host),
            ("https:///keys", HttpsUrlFault::Host),
            ("https://a.example/a b", HttpsUrlFault::Letters),
            ("https://a.example/\r\nx: y", HttpsUrlFault::Letters),
            ("https://a.example\\@b.example/", HttpsUrlFault::Letters),
        ] {
            assert_eq!(HttpsUrl::parse(text), Err(fault), "{text}");
        }
    }

    #[test]
    fn metadata_stands_where_the_specifications_say() {
        let of = |text: &str| {
            let found = HttpsUrl::parse(text).unwrap().metadata()?;
            Some(found.map(|url| url.to_string()))
        };
        let both = |openid: &str, oauth: &str| Some([openid.to_owned(), oauth.to_owned()]);
        assert_eq!(
            of("https://a.example"),
            both(
                "https://a.example/.well-known/openid-configuration",
                "https://a.example/.well-known/oauth-authorization-server"
            )
        );
        assert_eq!(
            of("https://a.example:444/t/"),
            both(
                "https://a.example:444/t/.well-known/openid-configuration",
                "https://a.example:444/.well-known/oauth-authorization-server/t"
            )
        );
        assert_eq!(of("https://a.example/?x"), None);
    }
}
