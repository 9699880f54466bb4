//! Opens the one upstream connection of a client connection: TCP, or a site's own HTTP proxy by CONNECT,
//! then TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper::http::uri::{Authority, InvalidUri};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tls::upstream::is_certificate_fault;

/// Why an upstream could not be reached.
#[derive(Debug, Error)]
pub enum DialFault {
    /// No address answered in time.
    #[error("connecting to {target}: no answer within {}s", limit.as_secs())]
    ConnectTimeout {
        /// Name or address with port.
        target: String,
        /// The deadline that passed.
        limit: Duration,
    },
    /// Every address refused; the last error stands for all.
    #[error("connecting to {target}")]
    Connect {
        /// Name or address with port.
        target: String,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// The site's own proxy did not open the way.
    #[error("the site's proxy answered {status} to CONNECT {target}")]
    Proxy {
        /// Name or address with port.
        target: String,
        /// The proxy's answer.
        status: StatusCode,
    },
    /// The site's own proxy does not speak HTTP as it should.
    #[error("asking the site's proxy for {target}")]
    ProxyProtocol {
        /// Name or address with port.
        target: String,
        /// What hyper met.
        #[source]
        source: hyper::Error,
    },
    /// The site's proxy sent bytes before the tunnel was open.
    #[error("the site's proxy sent bytes of its own into the way to {target}")]
    ProxyBytes {
        /// Name or address with port.
        target: String,
    },
    /// The upstream's certificate is not acceptable.
    #[error("verifying the certificate of {target}")]
    Certificate {
        /// Name or address with port.
        target: String,
        /// rustls's verdict.
        #[source]
        source: io::Error,
    },
    /// The handshake failed otherwise.
    #[error("TLS handshake with {target}")]
    Tls {
        /// Name or address with port.
        target: String,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// The handshake took too long.
    #[error("TLS handshake with {target}: not done within {}s", limit.as_secs())]
    TlsTimeout {
        /// Name or address with port.
        target: String,
        /// The deadline that passed.
        limit: Duration,
    },
}

/// A proxy of the site's own, through which alone the outside can be reached.
#[derive(Clone)]
pub struct SiteProxy {
    /// Where it listens.
    pub address: SocketAddr,
    /// The value of `Proxy-Authorization`, marked sensitive.
    pub authorization: Option<HeaderValue>,
}

impl std::fmt::Debug for SiteProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SiteProxy")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Where to dial.
#[derive(Debug)]
pub struct Route<'a> {
    /// Name or address with port, for errors and for CONNECT.
    pub target: String,
    /// The addresses that were resolved and checked, in order of preference; unused with a proxy.
    pub addresses: &'a [SocketAddr],
    /// The site's proxy, if the way leads through one.
    pub proxy: Option<&'a SiteProxy>,
    /// Deadline of each step.
    pub limit: Duration,
}

/// Opens TCP along `route`.
///
/// # Errors
/// Every [`DialFault`] but those of TLS.
pub async fn connect(route: &Route<'_>) -> Result<TcpStream, DialFault> {
    let Some(proxy) = route.proxy else {
        return reach(route, route.addresses).await;
    };
    let stream = reach(route, &[proxy.address]).await?;
    match timeout(route.limit, through(route, proxy, stream)).await {
        Ok(done) => done,
        Err(_) => Err(DialFault::ConnectTimeout {
            target: route.target.clone(),
            limit: route.limit,
        }),
    }
}

/// How long an address has before the next one is tried beside it (RFC 8305 section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// The first of these addresses that answers, in their order: one that is silent does not use up the time of those
/// after it. What is left of the others ends with this.
async fn first(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut attempts = JoinSet::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let mut left = addresses.iter();
    loop {
        if let Some(address) = left.next() {
            attempts.spawn(TcpStream::connect(*address));
        } else if attempts.is_empty() {
            return Err(last);
        }
        match timeout(STAGGER, attempts.join_next()).await {
            Ok(Some(Ok(Ok(stream)))) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Some(Ok(Err(error)))) => last = error,
            Ok(Some(Err(error))) => last = io::Error::other(error),
            Ok(None) | Err(_) => {}
        }
    }
}

/// Tries the addresses until the deadline of the whole has passed.
async fn reach(route: &Route<'_>, addresses: &[SocketAddr]) -> Result<TcpStream, DialFault> {
    match timeout(route.limit, first(addresses)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(source)) => Err(DialFault::Connect {
            target: route.target.clone(),
            source,
        }),
        Err(_) => Err(DialFault::ConnectTimeout {
            target: route.target.clone(),
            limit: route.limit,
        }),
    }
}

/// RFC 9110 section 9.3.6: CONNECT in authority form.
async fn through(
    route: &Route<'_>,
    proxy: &SiteProxy,
    stream: TcpStream,
) -> Result<TcpStream, DialFault> {
    let target = || route.target.clone();
    let protocol = |source| DialFault::ProxyProtocol {
        target: target(),
        source,
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(protocol)?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::CONNECT;
    let invalid = |error: InvalidUri| DialFault::Connect {
        target: target(),
        source: io::Error::new(io::ErrorKind::InvalidInput, error),
    };
    *request.uri_mut() = Uri::from(route.target.parse::<Authority>().map_err(invalid)?);
    let host = HeaderValue::from_str(&route.target).map_err(|error| DialFault::Connect {
        target: target(),
        source: io::Error::new(io::ErrorKind::InvalidInput, error),
    })?;
    request.headers_mut().insert(HOST, host);
    if let Some(value) = &proxy.authorization {
        request
            .headers_mut()
            .insert(PROXY_AUTHORIZATION, value.clone());
    }
    let asked = async {
        let response = sender.send_request(request).await.map_err(protocol)?;
        if response.status() != StatusCode::OK {
            return Err(DialFault::Proxy {
                target: target(),
                status: response.status(),
            });
        }
        hyper::upgrade::on(response).await.map_err(protocol)
    };
    let (asked, _) = tokio::join!(asked, connection.with_upgrades());
    let parts = asked?
        .downcast::<TokioIo<TcpStream>>()
        .map_err(|_other| DialFault::ProxyBytes { target: target() })?;
    if parts.read_buf.is_empty() {
        Ok(parts.io.into_inner())
    } else {
        Err(DialFault::ProxyBytes { target: target() })
    }
}

/// TLS over `stream`, verified for `name`.
///
/// # Errors
/// [`DialFault::Certificate`], [`DialFault::Tls`], [`DialFault::TlsTimeout`].
pub async fn secure(
    stream: TcpStream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    route: &Route<'_>,
) -> Result<TlsStream<TcpStream>, DialFault> {
    let target = route.target.clone();
    match timeout(
        route.limit,
        TlsConnector::from(config).connect(name, stream),
    )
    .await
    {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(source)) if is_certificate_fault(&source) => {
            Err(DialFault::Certificate { target, source })
        }
        Ok(Err(source)) => Err(DialFault::Tls { target, source }),
        Err(_) => Err(DialFault::TlsTimeout {
            target,
            limit: route.limit,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::{TcpListener, TcpSocket, TcpStream};

    use super::*;

    /// A port that accepts no more, so that whoever connects hears nothing; it lasts as long as what is returned.
    async fn silent() -> (TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut filling = Vec::new();
        while let Ok(connected) = timeout(STAGGER, TcpStream::connect(address)).await {
            filling.push(connected.unwrap());
        }
        (listener, filling)
    }

    #[tokio::test]
    async fn an_address_that_is_silent_leaves_time_for_the_next() {
        let (silent, _full) = silent().await;
        let good = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let silent = silent.local_addr().unwrap();
        let good = good.local_addr().unwrap();
        let route = |limit| Route {
            target: "upstream:443".to_owned(),
            addresses: &[],
            proxy: None,
            limit: Duration::from_secs(limit),
        };
        let reached = reach(&route(20), &[silent, gone, good]).await.unwrap();
        assert_eq!(reached.peer_addr().unwrap(), good);
        let refused = reach(&route(20), &[gone]).await;
        assert!(matches!(refused, Err(DialFault::Connect { .. })));
        let unheard = reach(&route(1), &[gone, silent]).await;
        assert!(matches!(unheard, Err(DialFault::ConnectTimeout { .. })));
        let none = reach(&route(20), &[]).await;
        assert!(matches!(none, Err(DialFault::Connect { .. })));
    }
}
