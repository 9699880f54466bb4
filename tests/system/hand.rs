//! An upstream that is moved by hand: the test writes each byte, so that it knows what was sent when.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use exeat_tests::Lab;
use exeat_tests::authority::Fault;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long the other side may take with anything.
const LIMIT: Duration = Duration::from_secs(20);

/// The listening half.
pub(crate) struct Hand {
    listener: TcpListener,
    config: Arc<ServerConfig>,
}

/// One connection, after the handshake.
pub(crate) struct Held {
    stream: TlsStream<TcpStream>,
}

impl Hand {
    /// Listens outside for `name`.
    pub(crate) fn new(lab: &Lab, name: &str, address: SocketAddr) -> Self {
        let leaf = lab.authority.leaf(&[name], Fault::Sound).unwrap();
        lab.dns.points(name, &[address.ip()]);
        Self {
            listener: lab.outside.listen(address).unwrap(),
            config: leaf.server(&["http/1.1"], None).unwrap(),
        }
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> Held {
        let accepted = timeout(LIMIT, self.listener.accept()).await;
        let (stream, _) = accepted.expect("a connection in time").unwrap();
        let shaken = TlsAcceptor::from(Arc::clone(&self.config)).accept(stream);
        let stream = timeout(LIMIT, shaken)
            .await
            .expect("a handshake in time")
            .unwrap();
        Held { stream }
    }
}

impl Held {
    /// Reads until `end` has come; everything so far.
    pub(crate) async fn read_until(&mut self, end: &str) -> String {
        let mut got = Vec::new();
        let mut buffer = vec![0; 16 * 1024];
        while !String::from_utf8_lossy(&got).contains(end) {
            let read = timeout(LIMIT, self.stream.read(&mut buffer)).await;
            let length = read.unwrap_or_else(|_| panic!("`{end}` in time")).unwrap();
            assert!(
                length > 0,
                "the end before `{end}`: {}",
                String::from_utf8_lossy(&got)
            );
            got.extend_from_slice(&buffer[..length]);
        }
        String::from_utf8_lossy(&got).into_owned()
    }

    /// A request's head.
    pub(crate) async fn head(&mut self) -> String {
        self.read_until("\r\n\r\n").await
    }

    /// Sends text.
    pub(crate) async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Ends in order, and waits until the other side has noticed and ended too.
    pub(crate) async fn close(mut self) {
        // The other side may have ended first.
        let _ended = self.stream.shutdown().await;
        assert!(self.ended().await, "the other side keeps the connection");
    }

    /// Ends with a reset.
    pub(crate) fn reset(self) {
        self.stream.get_ref().0.set_zero_linger().unwrap();
    }

    /// Whether the other side has ended the connection.
    pub(crate) async fn ended(&mut self) -> bool {
        let mut byte = [0];
        matches!(
            timeout(LIMIT, self.stream.read(&mut byte)).await,
            Ok(Ok(0) | Err(_))
        )
    }
}
