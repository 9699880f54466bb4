//! The first bytes of a connection: what is spoken, and for TLS the ClientHello, read under a limit and a deadline.

use std::io;
use std::time::Duration;

use rustls::server::Acceptor;
use thiserror::Error;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use crate::tls::leaf::Alpn;
use crate::tls::tee::Tee;

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// A TLS handshake record.
    Tls,
    /// The preface of HTTP/2 (RFC 9113 section 3.4), or its beginning.
    Http2,
    /// A letter, as every HTTP/1.1 method begins.
    Http1,
    /// Something else: nothing that can be judged.
    Unknown,
}

/// Why the beginning could not be read.
#[derive(Debug, Error)]
pub enum HelloFault {
    /// Nothing, or not all of it, came in time.
    #[error("no whole greeting within {}s", .0.as_secs())]
    Timeout(Duration),
    /// The workload closed before it said anything.
    #[error("the connection was closed before its first byte")]
    Closed,
    /// Not a ClientHello.
    #[error("reading the ClientHello")]
    Malformed(#[source] io::Error),
    /// The socket failed.
    #[error("reading the first byte")]
    Read(#[source] io::Error),
    /// A server name that is not a host name.
    #[error("a server name that is not a host name")]
    Name,
    /// Protocols are offered, and none that the gate speaks.
    #[error("no application protocol that can be inspected is offered")]
    Protocol,
}

/// A ClientHello that was read and not yet answered.
pub struct Hello {
    start: StartHandshake<Tee<TcpStream>>,
    /// The server name, as sent.
    pub name: Option<String>,
    /// What of h2 and http/1.1 is offered, in the client's order; empty when it offers nothing at all.
    pub offers: Vec<Alpn>,
}

impl std::fmt::Debug for Hello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hello")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Looks at the first bytes without taking them.
///
/// # Errors
/// [`HelloFault::Timeout`], [`HelloFault::Closed`], [`HelloFault::Read`].
pub async fn peek(stream: &TcpStream, limit: Duration) -> Result<Spoken, HelloFault> {
    let mut first = [0_u8; 4];
    let peeked = timeout(limit, stream.peek(&mut first)).await;
    let count = match peeked {
        Err(_) => return Err(HelloFault::Timeout(limit)),
        Ok(Err(error)) => return Err(HelloFault::Read(error)),
        Ok(Ok(count)) => count,
    };
    Ok(match first.get(..count) {
        None | Some([]) => return Err(HelloFault::Closed),
        Some([0x16, ..]) => Spoken::Tls,
        // No method begins with PRI, and a client that sends the preface sends it in one piece.
        Some(b"PRI ") => Spoken::Http2,
        Some([byte, ..]) if byte.is_ascii_uppercase() => Spoken::Http1,
        Some(_) => Spoken::Unknown,
    })
}

/// Reads the ClientHello. rustls bounds it (a handshake message of at most 64 KiB).
///
/// # Errors
/// [`HelloFault::Timeout`], [`HelloFault::Malformed`], [`HelloFault::Protocol`].
pub async fn read(stream: TcpStream, limit: Duration) -> Result<Hello, HelloFault> {
    let acceptor = LazyConfigAcceptor::new(Acceptor::default(), Tee::new(stream));
    let start = match timeout(limit, acceptor).await {
        Err(_) => return Err(HelloFault::Timeout(limit)),
        Ok(Err(error)) => return Err(HelloFault::Malformed(error)),
        Ok(Ok(start)) => start,
    };
    let hello = start.client_hello();
    let name = hello.server_name().map(str::to_owned);
    let mut offers = Vec::new();
    if let Some(offered) = hello.alpn() {
        offers.extend(offered.filter_map(|protocol| match protocol {
            b"h2" => Some(Alpn::Http2),
            b"http/1.1" => Some(Alpn::Http1),
            _ => None,
        }));
        if offers.is_empty() {
            return Err(HelloFault::Protocol);
        }
    }
    Ok(Hello {
        start,
        name,
        offers,
    })
}

impl Hello {
    /// The handshake, to be finished with a configuration.
    pub fn into_handshake(mut self) -> StartHandshake<Tee<TcpStream>> {
        self.start.io.forget();
        self.start
    }

    /// The connection as it came: the stream and every byte that was read from it.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        self.start.io.into_parts()
    }

    /// Refuses with the alert `access_denied` (RFC 8446 section 6.2), so that the caller is told at once.
    pub async fn deny(self) {
        /// Alert record, TLS 1.2 on the wire, fatal, `access_denied`.
        const ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];
        let (mut stream, _) = self.into_parts();
        let told = async {
            stream.write_all(&ALERT).await?;
            stream.shutdown().await
        };
        if let Err(error) = told.await {
            tracing::debug!(%error, "a refused client was gone before its alert");
        }
    }
}
