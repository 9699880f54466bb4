//! Socket creation: TCP and UDP over IP, nothing else.

use crate::world::SHARED;
use exeat_ebpf::{EventKind, probe};
use serde_json::{Value, json};

#[test]
fn only_tcp_and_udp_sockets_are_created() {
    let workload = SHARED.workload("create");
    // A namespace whose kernel would give anybody a ping socket.
    let script = "import ctypes; assert ctypes.CDLL(None).unshare(0x40000000) == 0
open('/proc/sys/net/ipv4/ping_group_range', 'w').write('0 1000')
kinds = [(AF_INET, SOCK_STREAM, 0), (AF_INET6, SOCK_STREAM, 6), (AF_INET, SOCK_DGRAM, 0), (AF_INET6, SOCK_DGRAM, 17),
    (AF_UNIX, SOCK_STREAM, 0),
    (AF_INET, SOCK_RAW, 1), (AF_INET, SOCK_RAW, 255), (AF_INET6, SOCK_RAW, 58), (AF_INET, SOCK_DGRAM, 1), (AF_INET6, SOCK_DGRAM, 58),
    (AF_INET, SOCK_DGRAM, 136), (AF_INET6, SOCK_DGRAM, 136), (AF_INET, SOCK_STREAM, 262)]
say([name(lambda: socket(*k)) for k in kinds])";
    let said = workload.run(script);
    // What this kernel makes for others shows that it was the hook that refused.
    let outside = SHARED.run_in(&SHARED.outside(), script);
    let outside = outside.as_array().unwrap();
    let choice = probe().unwrap().refusal_errno;
    let expected: Vec<Value> = outside
        .iter()
        .enumerate()
        .map(|(index, made)| match (index, made.as_str()) {
            (0..5, _) => json!("OK"),
            // Multipath TCP is answered so that programs fall back to plain TCP.
            (12.., _) if choice => json!("EPROTONOSUPPORT"),
            // Linux 7.1 and newer have no UDP-Lite.
            (10 | 11, Some("EPROTONOSUPPORT")) => made.clone(),
            (_, made) => {
                assert_eq!(made, Some("OK"));
                json!("EPERM")
            }
        })
        .collect();
    assert_eq!(said, Value::Array(expected));
    let raw = workload.event(EventKind::RefusedSocket, |event| event.protocol == 1);
    assert_eq!(raw.detail & 0xffff, 3, "SOCK_RAW");
    let multipath = workload.event(EventKind::RefusedSocket, |event| event.protocol == 255);
    assert!(
        [255, 262].contains(&(multipath.detail >> 16)),
        "{multipath:?}"
    );
}

#[test]
fn sctp_is_refused_where_the_kernel_has_it() {
    let workload = SHARED.workload("sctp");
    let script = "say([name(lambda: socket(AF_INET, SOCK_STREAM, 132)), name(lambda: socket(AF_INET6, SOCK_STREAM, 132)),
    name(lambda: socket(AF_INET, SOCK_SEQPACKET, 132)), name(lambda: socket(AF_INET6, SOCK_SEQPACKET, 132))])";
    // What others get says whether it is this kernel that has none, or the hook that refuses.
    let outside = SHARED.run_in(&SHARED.outside(), script);
    let said = workload.run(script);
    if outside == json!(["OK", "OK", "OK", "OK"]) {
        println!("this kernel has SCTP: the hook refuses it");
        assert_eq!(said, json!(["EPERM", "EPERM", "EPERM", "EPERM"]));
        let refused = workload.event(EventKind::RefusedSocket, |event| event.protocol == 132);
        assert!([1, 5].contains(&(refused.detail & 0xffff)), "{refused:?}");
    } else {
        println!("this kernel has no SCTP: there is nothing to refuse");
        let absent = ["EPROTONOSUPPORT", "EPROTONOSUPPORT"];
        // No protocol at all has sockets of the second type then.
        let nothing = ["ESOCKTNOSUPPORT", "ESOCKTNOSUPPORT"];
        assert_eq!(outside, json!([absent, nothing].concat()));
        assert_eq!(said, outside, "as the kernel says to others");
    }
}
