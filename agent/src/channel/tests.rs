//! Frames and messages over real socket pairs, whole and broken.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use proptest::prelude::*;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::*;

fn ends() -> (SupervisorEnd, GateEnd) {
    let (supervisor, gate) = pair().unwrap();
    (
        SupervisorEnd::new(supervisor).unwrap(),
        GateEnd::new(gate).unwrap(),
    )
}

/// The supervisor's end, and the gate's as bare as a hostile gate has it.
fn hostile() -> (SupervisorEnd, OwnedFd) {
    let (supervisor, gate) = pair().unwrap();
    (SupervisorEnd::new(supervisor).unwrap(), gate)
}

fn write(socket: BorrowedFd<'_>, bytes: &[u8]) {
    rustix::io::write(socket, bytes).unwrap();
}

#[tokio::test]
async fn messages_and_descriptors_cross_in_order() {
    let (supervisor, gate) = ends();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let message = ToGate::Stop { deadline_ms: 7 };
    supervisor.send(&message, &[writer.as_fd()]).await.unwrap();
    drop(writer);
    supervisor
        .send(&ToGate::WorkloadGone { number: 1 }, &[])
        .await
        .unwrap();
    let mut received = gate.receive().await.unwrap().unwrap();
    assert_eq!(received.message, message);
    let writer = File::from(received.descriptors.pop().unwrap());
    assert!(received.descriptors.is_empty());
    std::io::Write::write_all(&mut &writer, b"over").unwrap();
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "over");
    let next = gate.receive().await.unwrap().unwrap();
    assert_eq!(next.message, ToGate::WorkloadGone { number: 1 });
    gate.send(&ToSupervisor::Ready, &[]).await.unwrap();
    assert_eq!(
        supervisor.receive().await.unwrap().unwrap().message,
        ToSupervisor::Ready
    );
    drop(supervisor);
    assert!(gate.receive().await.unwrap().is_none());
}

#[tokio::test]
async fn a_policy_larger_than_a_packet_goes_beside_it() {
    let (supervisor, gate) = ends();
    let text = "x".repeat(5 << 20);
    let sources = vec![Source {
        name: "a.yaml".into(),
        text,
    }];
    let message = ToGate::Prepare {
        generation: 2,
        sources,
    };
    let null = File::open("/dev/null").unwrap();
    supervisor.send(&message, &[null.as_fd()]).await.unwrap();
    let received = gate.receive().await.unwrap().unwrap();
    assert_eq!(received.message, message);
    assert_eq!(received.descriptors.len(), 1);
    let too_large = vec![Source {
        name: "a".into(),
        text: "x".repeat(40 << 20),
    }];
    let sent = supervisor
        .send(
            &ToGate::Prepare {
                generation: 3,
                sources: too_large,
            },
            &[],
        )
        .await;
    assert!(matches!(sent, Err(ChannelError::TooLarge(_))));
}

#[tokio::test]
async fn a_gate_that_does_not_read_is_stuck_not_waited_for() {
    let (supervisor, _gate) = hostile();
    let message = ToGate::Prepare {
        generation: 1,
        sources: vec![Source {
            name: "a".into(),
            text: "x".repeat(60 << 10),
        }],
    };
    let error = loop {
        if let Err(error) = supervisor
            .send_within(Duration::from_millis(50), &message, &[])
            .await
        {
            break error;
        }
    };
    assert!(matches!(error, ChannelError::Stuck), "{error}");
}

#[tokio::test]
async fn what_a_hostile_gate_sends_is_an_error_and_nothing_else() {
    for bytes in [
        &b"x"[..],
        b"i",
        b"i{",
        b"inull",
        b"m",
        b"i\"ready\" ",
        b"i\"stop\"",
        b"i{\"stop\":{\"deadline_ms\":1}}",
        b"i{\"sign\":{\"request\":1,\"names\":[],\"key\":\"0\"}}",
        b"i{\"sign\":{\"request\":1,\"names\":[],\"key\":\"\\u00e9\\u00e9\"}}",
        b"i{\"sign\":{\"request\":1,\"names\":[],\"key\":\"\",\"ca\":true}}",
        b"i{\"sign\":{\"request\":-1,\"names\":[],\"key\":\"\"}}",
        b"i\"ready\"\"ready\"",
        b"i\xff",
    ] {
        let (supervisor, gate) = hostile();
        write(gate.as_fd(), bytes);
        let result = supervisor.receive().await;
        if bytes == b"i\"ready\" " {
            assert_eq!(result.unwrap().unwrap().message, ToSupervisor::Ready);
        } else {
            assert!(result.is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}

#[tokio::test]
async fn descriptors_from_the_gate_are_never_taken() {
    let before = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let file = File::open("/dev/null").unwrap();
    let (_supervisor, gate) = hostile();
    for body in [b"\"ready\"".to_vec(), vec![b' '; 1 << 20]] {
        let refused = send_frame(gate.as_fd(), &body, &[file.as_fd()]);
        assert!(
            matches!(&refused, Err(ChannelError::Send(e)) if e.raw_os_error() == Some(1)),
            "EPERM is due: {refused:?}"
        );
    }
    // Where the kernel refuses none.
    let (supervisor, gate) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .unwrap();
    let supervisor = SupervisorEnd::new(supervisor).unwrap();
    send_frame(gate.as_fd(), b"\"ready\"", &[file.as_fd()]).unwrap();
    assert!(matches!(
        supervisor.receive().await,
        Err(ChannelError::Malformed(_))
    ));
    // A body in a memory file is refused too: its reader could be made to wait or to fault.
    send_frame(gate.as_fd(), &vec![b' '; 1 << 20], &[]).unwrap();
    assert!(matches!(
        supervisor.receive().await,
        Err(ChannelError::Malformed(_))
    ));
    drop((supervisor, gate, file));
    let after = std::fs::read_dir("/proc/self/fd").unwrap().count();
    // Other tests open files at the same time; what would leak here leaks at every message.
    assert!(after < before + 64);
}

#[tokio::test]
async fn a_packet_over_the_limit_is_an_error() {
    let (supervisor, gate) = hostile();
    write(gate.as_fd(), &vec![b'i'; (64 << 10) + 2]);
    assert!(matches!(
        supervisor.receive().await,
        Err(ChannelError::Malformed(_))
    ));
}

#[test]
fn secrets_are_not_shown() {
    let identity = ClientIdentity {
        host: "a.example".into(),
        certificate: String::new(),
        key: Secret::new("hunter2".into()),
    };
    assert!(!format!("{identity:?}").contains("hunter2"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bytes_survive_hex(bytes: Vec<u8>) {
        let json = serde_json::to_string(&Hex(bytes.clone())).unwrap();
        prop_assert_eq!(serde_json::from_str::<Hex>(&json).unwrap().0, bytes);
    }

    #[test]
    fn no_bytes_of_the_gate_panic_the_supervisor(bytes in proptest::collection::vec(any::<u8>(), 1..200)) {
        let (supervisor, gate) = pair().unwrap();
        write(gate.as_fd(), &bytes);
        if let Ok(Some(frame)) = receive_frame(supervisor.as_fd(), false) {
            drop(serde_json::from_slice::<ToSupervisor>(&frame.body));
        }
    }
}
