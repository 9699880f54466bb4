//! Servers that misbehave: silence, resets, and bytes that no library would send.

use std::future::pending;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Memory, Peer, Seen};

/// The longest head that is read before a script is played, in bytes.
const HEAD: usize = 64 * 1024;

/// Waits for a byte and resets the connection.
pub(super) async fn reset(mut stream: TcpStream) -> Result<()> {
    let mut byte = [0];
    // Whether or not one came, the connection ends in a reset.
    let _length = stream.read(&mut byte).await;
    stream.set_zero_linger().context("make closing a reset")
}

/// Reads for ever.
pub(super) async fn silent(mut stream: impl AsyncRead + Unpin) -> Result<()> {
    let mut buffer = vec![0; 4096];
    while let Ok(1..) = stream.read(&mut buffer).await {}
    // Half-closed by the peer: stay, and say nothing.
    pending().await
}

/// Reads a request's head, records it as text, plays `bytes` and closes.
pub(super) async fn script(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    bytes: &Bytes,
    peer: &Peer,
    memory: &Arc<Memory>,
) -> Result<()> {
    let mut head = Vec::new();
    let mut buffer = vec![0; 4096];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") && head.len() < HEAD {
        let length = stream.read(&mut buffer).await.context("read a head")?;
        if length == 0 {
            break;
        }
        head.extend_from_slice(buffer.get(..length).unwrap_or_default());
    }
    memory.requests().push(seen(&head, peer));
    stream.write_all(bytes).await.context("play the script")?;
    stream.shutdown().await.context("close after the script")
}

fn seen(head: &[u8], peer: &Peer) -> Seen {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let mut first = lines
        .next()
        .unwrap_or_default()
        .split(' ')
        .map(str::to_owned);
    let headers: Vec<(String, String)> = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let host = headers.iter().find(|(name, _)| name == "host");
    Seen {
        connection: peer.connection,
        peer: peer.address,
        server_name: peer.server_name.clone(),
        alpn: peer.alpn.clone(),
        method: first.next().unwrap_or_default(),
        path: first.next().unwrap_or_default(),
        version: first.next().unwrap_or_default(),
        authority: host.map(|(_, value)| value.clone()),
        headers,
        body: Bytes::new(),
        body_bytes: 0,
        trailers: Vec::new(),
        complete: false,
    }
}
