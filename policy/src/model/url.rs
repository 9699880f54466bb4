//! The URL or address of a registered server.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::name::{Name, NameFault};
use crate::path::{PathFault, normalise_path};

/// Where something listens, or is to be reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// At a name.
    Name(Name, u16),
    /// At an address.
    Address(IpAddr, u16),
}

impl Endpoint {
    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        match self {
            Self::Name(_, port) | Self::Address(_, port) => *port,
        }
    }

    /// The addresses that are known without asking: the address itself, or both loopbacks for
    /// `localhost` (RFC 6761, 6.3).
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        match self {
            Self::Address(address, _) => vec![*address],
            Self::Name(name, _) if name.as_str() == "localhost" => {
                vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
            }
            Self::Name(..) => Vec::new(),
        }
    }

    /// Reads `host:port` or `[address]:port`; the port is optional where `default` is given.
    pub(crate) fn parse(text: &str, default: Option<u16>) -> Result<Self, UrlFault> {
        let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
            Some(bracketed) => bracketed.ok_or(UrlFault::Address)?,
            None => text
                .split_at_checked(text.find(':').unwrap_or(text.len()))
                .unwrap_or((text, "")),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => parse_port(port).ok_or(UrlFault::Port)?,
            None if port.is_empty() => default.ok_or(UrlFault::Port)?,
            None => return Err(UrlFault::Port),
        };
        if text.starts_with('[') {
            let address: Ipv6Addr = host.parse().ok().ok_or(UrlFault::Address)?;
            return Ok(Self::Address(IpAddr::from(address).to_canonical(), port));
        }
        match host.parse::<Ipv4Addr>() {
            Ok(address) => Ok(Self::Address(address.into(), port)),
            Err(_) => Ok(Self::Name(Name::parse(host).map_err(UrlFault::Host)?, port)),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Address(IpAddr::V4(address), port) => write!(f, "{address}:{port}"),
            Self::Address(IpAddr::V6(address), port) => write!(f, "[{address}]:{port}"),
        }
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let decimal = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| decimal)
}

/// The URL of a server: scheme, host, port and path; no user, query or fragment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Url {
    /// `https` rather than `http`.
    pub tls: bool,
    /// Host and port.
    pub endpoint: Endpoint,
    /// The normalised path, beginning with `/`.
    pub path: String,
}

impl Url {
    /// Reads an `http` or `https` URL.
    pub fn parse(text: &str) -> Result<Self, UrlFault> {
        let lower = text.to_ascii_lowercase();
        let (tls, length) = match () {
            () if lower.starts_with("https://") => (true, 8),
            () if lower.starts_with("http://") => (false, 7),
            () => return Err(UrlFault::Scheme),
        };
        let rest = text.get(length..).unwrap_or_default();
        if rest.contains(['?', '#']) {
            return Err(UrlFault::Query);
        }
        let cut = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(cut).unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err(UrlFault::User);
        }
        let endpoint = Endpoint::parse(authority, Some(if tls { 443 } else { 80 }))?;
        let path = if path.is_empty() {
            "/".to_owned()
        } else {
            normalise_path(path).map_err(UrlFault::Path)?
        };
        Ok(Self {
            tls,
            endpoint,
            path,
        })
    }

    /// Whether a normalised path is the URL's or below it.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        let base = self.path.strip_suffix('/').unwrap_or(&self.path);
        path.strip_prefix(base)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let endpoint = self.endpoint.to_string();
        let usual = if self.tls { ":443" } else { ":80" };
        write!(
            f,
            "{scheme}://{}{}",
            endpoint.strip_suffix(usual).unwrap_or(&endpoint),
            self.path
        )
    }
}

/// Why a text is not the URL of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlFault {
    /// Not `http` or `https`.
    #[error("it begins with `https://` or `http://`")]
    Scheme,
    /// A user or password.
    #[error("it may not hold a user or password")]
    User,
    /// A query or fragment.
    #[error("leave out the query and fragment: only scheme, host, port and path are compared")]
    Query,
    /// Not an address.
    #[error("the part in brackets is not an ipv6 address")]
    Address,
    /// No port, or not one.
    #[error("expected a port between 1 and 65535")]
    Port,
    /// Not a host.
    #[error(transparent)]
    Host(NameFault),
    /// Not a path that can be compared.
    #[error(transparent)]
    Path(PathFault),
}
