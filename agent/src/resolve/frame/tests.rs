//! Pipelined, split, cut and endless streams.

use super::*;
use tokio::io::{DuplexStream, duplex};

fn frames(limits: FrameLimits) -> (Frames<DuplexStream>, DuplexStream) {
    let (ours, theirs) = duplex(4096);
    (Frames::new(ours, limits), theirs)
}

#[tokio::test]
async fn pipelined_messages_come_one_by_one() {
    let (mut frames, mut peer) = frames(FrameLimits::default());
    peer.write_all(b"\0\x03one\0\x05three\0\0\0\x01x")
        .await
        .unwrap();
    drop(peer);
    for want in [&b"one"[..], b"three", b"", b"x"] {
        assert_eq!(frames.next().await.unwrap().unwrap(), want);
    }
    assert!(frames.next().await.unwrap().is_none());
}

#[tokio::test]
async fn a_split_length_is_put_together() {
    let (mut frames, mut peer) = frames(FrameLimits::default());
    let read = tokio::spawn(async move { frames.next().await });
    for byte in [0_u8, 2, b'o', b'k'] {
        peer.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(read.await.unwrap().unwrap().unwrap(), b"ok");
}

#[tokio::test]
async fn streams_are_bounded() {
    let (mut long, mut peer) = frames(FrameLimits {
        message: 4,
        ..FrameLimits::default()
    });
    peer.write_all(&[0xff, 0xff]).await.unwrap();
    let fault = long.next().await.unwrap_err();
    assert!(
        matches!(
            fault,
            FrameFault::TooLong {
                length: 65535,
                limit: 4
            }
        ),
        "{fault}"
    );

    let (mut many, mut peer) = frames(FrameLimits {
        messages: 1,
        ..FrameLimits::default()
    });
    peer.write_all(b"\0\x01a\0\x01b").await.unwrap();
    assert_eq!(many.next().await.unwrap().unwrap(), b"a");
    assert!(matches!(
        many.next().await.unwrap_err(),
        FrameFault::TooMany { limit: 1 }
    ));

    let idle = Duration::from_millis(5);
    let (mut slow, mut peer) = frames(FrameLimits {
        idle,
        ..FrameLimits::default()
    });
    peer.write_all(b"\0\x03on").await.unwrap();
    assert!(matches!(slow.next().await.unwrap_err(), FrameFault::Idle));
}

#[tokio::test]
async fn a_cut_message_is_said() {
    for part in [&b"\0"[..], b"\0\x03", b"\0\x03on"] {
        let (mut frames, mut peer) = frames(FrameLimits::default());
        peer.write_all(part).await.unwrap();
        drop(peer);
        assert!(
            matches!(frames.next().await.unwrap_err(), FrameFault::Cut),
            "{part:?}"
        );
    }
}

#[tokio::test]
async fn answers_carry_their_length() {
    let (mut frames, mut peer) = frames(FrameLimits::default());
    frames.send(b"answer").await.unwrap();
    drop(frames.into_inner());
    let mut bytes = Vec::new();
    peer.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, b"\0\x06answer");
    let (mut frames, _peer) = self::frames(FrameLimits::default());
    let fault = frames.send(&vec![0; 65536]).await.unwrap_err();
    assert!(matches!(fault, FrameFault::TooLong { .. }), "{fault}");
}
