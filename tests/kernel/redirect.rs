//! TCP: what is allowed arrives at the gate with its destination, what is not fails at once.

use crate::world::SHARED;
use exeat_ebpf::{Action, EventKind, Protocol};
use serde_json::json;

#[test]
fn allowed_connections_arrive_with_their_destination() {
    let workload = SHARED.workload("redirect");
    workload.allow("203.0.113.7", 443);
    workload.allow("2001:db8::7", 8443);
    workload.allow("127.0.0.1", 7777);
    workload.allow("::1", 7778);
    let said = workload.run(
        "r = []
r.append(line(tcp('203.0.113.7', 443)))
r.append(line(tcp('2001:db8::7', 8443, AF_INET6)))
r.append(line(tcp('::ffff:203.0.113.7', 443, AF_INET6)))
r.append(line(tcp('0.0.0.0', 7777)))
r.append(line(tcp('::', 7778, AF_INET6)))
s = socket(); s.bind(('127.0.0.1', 0)); s.connect(('203.0.113.7', 443)); r.append(line(s))
s = socket(); s.setblocking(False)
r.append(errno.errorcode[s.connect_ex(('203.0.113.7', 443))]); r.append(line(s))
say(r)",
    );
    let v4 = workload.origin("203.0.113.7", 443, 4);
    assert_eq!(
        said,
        json!([
            v4,
            workload.origin("2001:db8::7", 8443, 6),
            workload.origin("203.0.113.7", 443, 6),
            workload.origin("127.0.0.1", 7777, 4),
            workload.origin("::1", 7778, 6),
            v4,
            "EINPROGRESS",
            v4,
        ])
    );
}

#[test]
fn fast_open_and_reconnects_keep_no_old_destination() {
    let workload = SHARED.workload("fast-open");
    workload.allow("203.0.113.7", 443);
    workload.allow("203.0.113.8", 80);
    let said = workload.run(
        "r = []
s = socket(); s.sendto(b'hello', 0x20000000, ('203.0.113.7', 443)); r.append(line(s))
s = socket(); r.append(name(lambda: s.sendto(b'hello', 0x20000000, ('203.0.113.9', 443))))
s = socket(); s.setsockopt(IPPROTO_TCP, 30, 1); s.connect(('203.0.113.7', 443)); s.send(b'x'); r.append(line(s))
s = tcp('203.0.113.7', 443); r.append(line(s))
import ctypes; libc = ctypes.CDLL(None)
r.append(libc.connect(s.fileno(), bytes(16), 16))
s.connect(('203.0.113.8', 80)); r.append(line(s))
libc.connect(s.fileno(), bytes(16), 16)
r.append(name(lambda: s.connect(('203.0.113.9', 80))))
say(r)",
    );
    let (first, second) = (
        workload.origin("203.0.113.7", 443, 4),
        workload.origin("203.0.113.8", 80, 4),
    );
    assert_eq!(
        said,
        json!([
            first,
            "ECONNREFUSED",
            first,
            first,
            0,
            second,
            "ECONNREFUSED"
        ])
    );
}

#[test]
fn what_is_not_allowed_is_refused_at_once() {
    let workload = SHARED.workload("refused");
    workload.allow("203.0.113.7", 443);
    let said = workload.run(
        "say([name(lambda: tcp(*a)) for a in [('203.0.113.7', 444), ('203.0.113.6', 443), ('127.0.0.1', 22),
    ('2001:db8::1', 443, AF_INET6), ('::ffff:203.0.113.6', 443, AF_INET6), ('::203.0.113.7', 443, AF_INET6)]])",
    );
    assert_eq!(said, json!(vec!["ECONNREFUSED"; 6]));
    let event = workload.event(EventKind::RefusedConnect, |event| event.port == 444);
    assert_eq!(event.address, Some("203.0.113.7".parse().unwrap()));
    assert_eq!((event.protocol, event.family), (6, 4));
    assert!(
        event.tgid != 0 && event.cgroup != 0 && event.comm.starts_with("python"),
        "{event:?}"
    );
    workload.event(EventKind::RefusedConnect, |event| event.family == 6);
}

#[test]
fn workloads_do_not_share_rules() {
    let (one, other) = (SHARED.workload("share-one"), SHARED.workload("share-other"));
    one.allow("203.0.113.7", 443);
    let script = "say(name(lambda: tcp('203.0.113.7', 443)))";
    assert_eq!(one.run(script), "OK");
    assert_eq!(other.run(script), "ECONNREFUSED");
    SHARED.gate.forget(one.number).unwrap();
    assert_eq!(one.run(script), "ECONNREFUSED");
}

#[test]
fn ranges_hold_their_family_port_and_prefix() {
    let workload = SHARED.workload("ranges");
    let allow = |net: &str, prefix, port| {
        let net = net.parse().unwrap();
        let gate = &SHARED.gate;
        gate.allow_range(
            workload.number,
            net,
            prefix,
            port,
            Protocol::Tcp,
            Action::Redirect,
        )
        .unwrap();
    };
    allow("198.51.100.0", 25, Some(443));
    allow("10.0.0.0", 8, None);
    allow("::", 0, Some(9443));
    let said = workload.run(
        "say([name(lambda: tcp(*a)) for a in [('198.51.100.127', 443), ('198.51.100.128', 443), ('198.51.100.1', 80),
    ('10.9.8.7', 1), ('11.0.0.1', 1), ('2001:db8::5', 9443, AF_INET6), ('203.0.113.7', 9443),
    ('::ffff:203.0.113.7', 9443, AF_INET6)]])",
    );
    let (ok, no) = ("OK", "ECONNREFUSED");
    assert_eq!(said, json!([ok, no, no, ok, no, ok, no, no]));
    let net = "10.0.0.0".parse().unwrap();
    SHARED
        .gate
        .disallow_range(workload.number, net, 8, None, Protocol::Tcp)
        .unwrap();
    assert_eq!(workload.run("say(name(lambda: tcp('10.9.8.7', 1)))"), no);
}

#[test]
fn a_process_sees_the_peer_that_it_asked_for() {
    let workload = SHARED.workload("peer");
    workload.allow("203.0.113.7", 443);
    workload.allow("2001:db8::7", 443);
    let said = workload.run(
        "say([tcp('203.0.113.7', 443).getpeername()[:2], tcp('2001:db8::7', 443, AF_INET6).getpeername()[:2],
    tcp('::ffff:203.0.113.7', 443, AF_INET6).getpeername()[:2]])",
    );
    assert_eq!(
        said,
        json!([
            ["203.0.113.7", 443],
            ["2001:db8::7", 443],
            ["::ffff:203.0.113.7", 443]
        ])
    );
}

#[test]
fn the_gates_ports_are_not_dialled() {
    let workload = SHARED.workload("dial");
    // Even with a rule that says so.
    workload.allow("127.0.0.1", SHARED.settings.proxy_port);
    let dials = "say([name(lambda: tcp(*a)) for a in [('127.0.0.1', PROXY), ('0.0.0.0', PROXY), ('::1', PROXY, AF_INET6),
    ('::', PROXY, AF_INET6), ('::ffff:127.0.0.1', PROXY, AF_INET6), ('::ffff:0.0.0.0', PROXY, AF_INET6)]])";
    assert_eq!(workload.run(dials), json!(vec!["ECONNREFUSED"; 6]));
    workload.event(EventKind::ProxyDialled, |event| {
        event.port == SHARED.settings.proxy_port
    });
    // Nor by anybody else, who could meet the note of a connection that failed.
    assert_eq!(
        SHARED.run_in(&SHARED.outside(), dials),
        json!(vec!["ECONNREFUSED"; 6])
    );
}

#[test]
fn names_over_tcp_go_to_the_gate_without_a_rule() {
    let workload = SHARED.workload("dns-tcp");
    assert_eq!(
        workload.run("say(line(tcp('192.0.2.53', 53)))"),
        workload.origin("192.0.2.53", 53, 4)
    );
}

#[test]
fn others_are_left_alone() {
    let said = SHARED.run_in(
        &SHARED.outside(),
        "l = create_server(('127.0.0.1', 0)); s = tcp(*l.getsockname()); a, _ = l.accept(); a.send(b'x')
u = socket(AF_INET, SOCK_DGRAM); u.bind(('127.0.0.1', 0)); v = socket(AF_INET, SOCK_DGRAM); v.sendto(b'y', u.getsockname())
raw = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)
say([s.recv(1).decode(), s.getpeername() == l.getsockname(), u.recv(9).decode()])",
    );
    assert_eq!(said, json!(["x", true, "y"]));
}
