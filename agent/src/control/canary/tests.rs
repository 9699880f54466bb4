//! The proof must fail where nothing is enforced: this machine's tests run outside of management.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream, UdpSocket};

use super::*;

fn refused(tried: &str) -> Attempt {
    let saw = "connection refused".to_owned();
    Attempt {
        tried: tried.to_owned(),
        saw,
        refused: true,
        micros: 3,
    }
}

fn addresses(targets: &Targets, protocol: &str) -> Vec<SocketAddr> {
    let arguments = targets.arguments();
    let own = arguments
        .iter()
        .filter_map(|argument| argument.strip_prefix(protocol));
    own.map(|address| address.trim_start_matches('/').parse().unwrap())
        .collect()
}

async fn judged(targets: &Targets, attempts: &[Attempt]) -> Canary {
    targets
        .judge(&serde_json::to_vec(attempts).unwrap())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_refusal_of_every_attempt_proves_enforcement() {
    let targets = Targets::open().await.unwrap();
    let attempts: Vec<Attempt> = targets
        .arguments()
        .iter()
        .map(|argument| refused(argument))
        .collect();
    assert!(judged(&targets, &attempts).await.enforced);
}

#[tokio::test]
async fn silence_proves_nothing() {
    let targets = Targets::open().await.unwrap();
    assert!(!judged(&targets, &[]).await.enforced);
    let some: Vec<Attempt> = targets
        .arguments()
        .iter()
        .skip(1)
        .map(|argument| refused(argument))
        .collect();
    assert!(!judged(&targets, &some).await.enforced);
    targets.judge(b"").await.unwrap_err();
}

#[tokio::test]
async fn what_arrives_speaks_louder_than_what_is_said() {
    let targets = Targets::open().await.unwrap();
    let attempts: Vec<Attempt> = targets
        .arguments()
        .iter()
        .map(|argument| refused(argument))
        .collect();
    let address = addresses(&targets, "tcp")[0];
    TcpStream::connect(address)
        .unwrap()
        .write_all(b"x")
        .unwrap();
    let judged = judged(&targets, &attempts).await;
    assert!(!judged.enforced);
    assert_eq!(judged.attempts.last().unwrap().saw, "it arrived");
}

#[tokio::test]
async fn a_datagram_that_arrives_is_seen() {
    let targets = Targets::open().await.unwrap();
    let attempts: Vec<Attempt> = targets
        .arguments()
        .iter()
        .map(|argument| refused(argument))
        .collect();
    let address = addresses(&targets, "udp")[0];
    UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .send_to(b"x", address)
        .unwrap();
    assert!(!judged(&targets, &attempts).await.enforced);
}
