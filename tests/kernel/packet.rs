//! The backstop on the wire header, and replies of listeners.

use crate::world::{SHARED, dropped};
use exeat_ebpf::{Action, EventKind, Protocol};
use exeat_ebpf_abi::kind::drop::SOURCE_ROUTE;
use serde_json::json;
use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;

#[test]
fn source_routed_packets_do_not_leave() {
    let workload = SHARED.workload("routed");
    workload.allow("203.0.113.7", 443);
    let range = "127.0.0.0".parse().unwrap();
    let range6 = "::".parse().unwrap();
    for (net, prefix) in [(range, 8), (range6, 0)] {
        SHARED
            .gate
            .allow_range(
                workload.number,
                net,
                prefix,
                None,
                Protocol::Udp,
                Action::Direct,
            )
            .unwrap();
    }
    let said = workload.run(
        "lsrr = bytes([131, 7, 4, 127, 0, 0, 2, 0])
s = socket(); s.setsockopt(IPPROTO_IP, IP_OPTIONS, lsrr); s.settimeout(0.4)
r = [name(lambda: s.connect(('203.0.113.7', 443))).split()[0]]
u = socket(AF_INET, SOCK_DGRAM); r.append(name(lambda: u.sendto(b'x', ('127.0.0.1', 5000))))
u.setsockopt(IPPROTO_IP, IP_OPTIONS, lsrr); r.append(name(lambda: u.sendto(b'x', ('127.0.0.1', 5000))))
# A segment routing header (RFC 8754) with one segment left.
srh = struct.pack('BBBBBBH', 0, 4, 4, 1, 1, 0, 0) + inet_pton(AF_INET6, '::1') + inet_pton(AF_INET6, '::1')
v = socket(AF_INET6, SOCK_DGRAM); r.append(name(lambda: v.sendto(b'x', ('::1', 5000))))
v.setsockopt(IPPROTO_IPV6, 57, srh); r.append(name(lambda: v.sendto(b'x', ('::1', 5000))))
say(r)",
    );
    assert_eq!(said, json!(["ETIMEDOUT", "OK", dropped(), "OK", dropped()]));
    let routed = |family| {
        workload.event(EventKind::EgressDrop, |event| {
            event.detail == SOURCE_ROUTE && event.family == family
        })
    };
    routed(4);
    routed(6);
}

#[test]
fn loopback_addresses_do_not_leave_by_another_interface() {
    let workload = SHARED.workload("device");
    workload.allow("203.0.113.7", 443);
    // A cable to nowhere: queries and connections would leave by it.
    let said = workload.run(
        "import subprocess
u = socket(AF_INET, SOCK_DGRAM); a, b = f'exk{os.getpid()}a', f'exk{os.getpid()}b'
subprocess.run(f'ip link add {a} type veth peer name {b} && ip addr add 192.0.2.9/24 dev {a} && ip link set {a} up && ip link set {b} up', shell=True, check=True)
try:
    u.setsockopt(SOL_SOCKET, SO_BINDTODEVICE, a.encode())
    r = [name(lambda: u.sendto(query(), ('192.0.2.53', 53)))]
    t = socket(); t.setsockopt(SOL_SOCKET, SO_BINDTODEVICE, a.encode()); t.settimeout(0.4)
    r.append(name(lambda: t.connect(('203.0.113.7', 443))).split()[0])
finally: subprocess.run(f'ip link del {a}', shell=True)
say(r)",
    );
    assert_eq!(said, json!([dropped(), "ETIMEDOUT"]));
    workload.event(EventKind::EgressDrop, |event| event.protocol == 17);
    workload.event(EventKind::EgressDrop, |event| event.protocol == 6);
}

#[test]
fn listeners_answer_only_where_permitted() {
    let workload = SHARED.workload("listen");
    workload.allow("203.0.113.7", 443);
    let mut child = SHARED.spawn_in(
        &workload.cgroup,
        "l = create_server(('127.0.0.1', 0), reuse_port=False); port = l.getsockname()[1]; say(port)
a, _ = l.accept(); a.send(b'hello\\n'); a.recv(9)
s = socket(); s.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1); l.close(); s.bind(('127.0.0.1', port))
say([name(lambda: s.connect(('127.0.0.1', 22)))])",
    );
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    let port: u16 = line.trim().parse().unwrap();
    let dial = format!(
        "s = socket(); s.settimeout(TIME); n = name(lambda: s.connect(('127.0.0.1', {port})))
if n == 'OK': n = line(s); s.send(b'bye')
say(n)"
    );
    let (soon, later) = (dial.replace("TIME", "0.4"), dial.replace("TIME", "8"));
    let missed = |said: serde_json::Value| said.as_str().unwrap().starts_with("ETIMEDOUT");
    // Nobody comes in but the gate, and without a permission not even to the gate does an answer go out.
    assert!(missed(SHARED.run_in(&SHARED.outside(), &soon)));
    workload.event(EventKind::IngressDrop, |event| event.protocol == 6);
    assert!(missed(SHARED.run_in(&SHARED.layout.gate, &soon)));
    workload.event(EventKind::EgressDrop, |event| event.protocol == 6);
    let address = Ipv4Addr::LOCALHOST.into();
    SHARED
        .gate
        .permit_listener(workload.number, address, port)
        .unwrap();
    assert!(missed(SHARED.run_in(&SHARED.outside(), &soon)));
    assert_eq!(SHARED.run_in(&SHARED.layout.gate, &later), "hello");
    line.clear();
    lines.read_line(&mut line).unwrap();
    assert_eq!(
        line.trim(),
        "[\"ECONNREFUSED\"]",
        "outbound from the listener's port"
    );
    assert!(child.wait().unwrap().success());
}
