//! UDP: names are asked of the gate, all else stays inside unless a rule lets it out.

use crate::world::{SHARED, World, dropped};
use exeat_ebpf::{Action, EventKind, Protocol};
use serde_json::json;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

#[test]
fn queries_go_to_the_resolver_and_seem_to_come_from_the_server_asked() {
    let workload = SHARED.workload("dns");
    let said = workload.run(
        "r = []
def ask(family, server, how):
    s = socket(family, SOCK_DGRAM); s.settimeout(8)
    if how == 'connected': s.connect((server, 53)); s.send(query()); peer = s.getpeername()[:2]
    else: s.sendto(query(), (server, 53)); peer = None
    data, source = s.recvfrom(512)
    r.append([data[2:].decode().split()[:2], source[:2], peer])
ask(AF_INET, '192.0.2.53', 'connected')
ask(AF_INET, '192.0.2.53', 'unconnected')
ask(AF_INET6, '2001:db8::53', 'connected')
ask(AF_INET6, '2001:db8::53', 'unconnected')
ask(AF_INET6, '::ffff:192.0.2.53', 'connected')
ask(AF_INET6, '::ffff:192.0.2.53', 'unconnected')
say(r)",
    );
    let number = workload.number.to_string();
    let expected = |asked: &str, shown: &str, connected| {
        let peer = if connected {
            json!([shown, 53])
        } else {
            json!(null)
        };
        json!([[number, asked], [shown, 53], peer])
    };
    let (v4, v6, mapped) = ("192.0.2.53", "2001:db8::53", "::ffff:192.0.2.53");
    assert_eq!(
        said,
        json!([
            expected("192.0.2.53:53", v4, true),
            expected("192.0.2.53:53", v4, false),
            expected("[2001:db8::53]:53", v6, true),
            expected("[2001:db8::53]:53", v6, false),
            expected("192.0.2.53:53", mapped, true),
            expected("192.0.2.53:53", mapped, false),
        ])
    );
}

#[test]
fn queries_name_the_process_that_asks() {
    let workload = SHARED.workload("dns-who");
    let said = workload.run(
        "s = socket(AF_INET, SOCK_DGRAM); s.sendto(query(), ('192.0.2.53', 53)); s.settimeout(8)
say([int(s.recv(512)[2:].split()[2]), os.getpid()])",
    );
    assert_eq!(said[0], said[1]);
}

#[test]
fn the_resolver_is_not_asked_directly_nor_by_others() {
    let workload = SHARED.workload("dns-direct");
    let said = workload.run(
        "u = lambda: socket(AF_INET, SOCK_DGRAM)
say([name(lambda: u().sendto(query(), ('127.0.0.1', DNS))), name(lambda: u().connect(('127.0.0.1', DNS)))])",
    );
    assert_eq!(said, json!(["ECONNREFUSED", "ECONNREFUSED"]));
    let said = SHARED.run_in(
        &SHARED.outside(),
        "s = socket(AF_INET, SOCK_DGRAM); s.sendto(query(), ('127.0.0.1', DNS)); s.settimeout(8)
say(s.recv(512)[2:].decode())",
    );
    assert_eq!(said, "unknown");
}

#[test]
fn other_datagrams_stay_inside() {
    let workload = SHARED.workload("udp");
    let said = workload.run(
        "r = []
def u(f=AF_INET): return socket(f, SOCK_DGRAM)
# QUIC's first packet, unconnected and connected.
initial = b'\\xc3\\0\\0\\0\\1' + bytes(1195)
r.append(name(lambda: u().sendto(initial, ('203.0.113.7', 443))))
r.append(name(lambda: u(AF_INET6).sendto(initial, ('2001:db8::7', 443))))
r.append(name(lambda: u(AF_INET6).sendto(initial, ('::ffff:203.0.113.7', 443))))
# Resolvers connect to order addresses: that is no offence.
s = u(); r.append(name(lambda: s.connect(('127.0.0.1', 9)))); r.append(name(lambda: s.send(initial)))
# Elsewhere than connected.
r.append(name(lambda: s.sendto(initial, ('127.0.0.1', 10))))
r.append(name(lambda: u().sendto(b'x', ('127.0.0.1', 11))))
say(r)",
    );
    let refused = "ECONNREFUSED";
    // What only the wire shows is dropped there, with the error of a firewall.
    assert_eq!(
        said,
        json!([refused, refused, refused, "OK", dropped(), refused, refused])
    );
    workload.event(EventKind::RefusedSend, |event| {
        event.port == 443 && event.family == 6
    });
    let dropped = workload.event(EventKind::EgressDrop, |event| event.port == 9);
    assert_eq!((dropped.protocol, dropped.detail), (17, 1));
    assert_ne!(dropped.tgid, 0, "the socket's creator");
}

#[test]
fn datagrams_from_outside_do_not_arrive() {
    let workload = SHARED.workload("udp-in");
    let mut child = SHARED.spawn_in(
        &workload.cgroup,
        "s = socket(AF_INET, SOCK_DGRAM); s.bind(('127.0.0.1', 0)); say(s.getsockname()[1])
sys.stdin.read(); s.settimeout(0.2)
try: say(s.recv(9).decode())
except TimeoutError: say('nothing')",
    );
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
    SHARED.run_in(
        &SHARED.outside(),
        &format!(
            "socket(AF_INET, SOCK_DGRAM).sendto(b'hi', ('127.0.0.1', {})); say(1)",
            line.trim()
        ),
    );
    workload.event(EventKind::IngressDrop, |event| event.protocol == 17);
    drop(child.stdin.take());
    line.clear();
    std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
    assert_eq!(line.trim(), "\"nothing\"");
    assert!(child.wait().unwrap().success());
}

#[test]
fn direct_datagrams_need_a_rule_and_a_living_gate() {
    // A world of its own: its gate falls silent.
    let world = World::new("direct");
    let workload = world.workload("direct");
    let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((length, from)) = server.recv_from(&mut buffer) {
            server.send_to(&buffer[..length], from).unwrap();
        }
    });
    let script = format!(
        "r = []
def exchange(connected):
    s = socket(AF_INET, SOCK_DGRAM); s.settimeout(2)
    if connected: s.connect(('127.0.0.1', {port})); s.send(b'ping')
    else: s.sendto(b'ping', ('127.0.0.1', {port}))
    assert s.recv(9) == b'ping'
say([name(lambda: exchange(c)) for c in (False, True)])"
    );
    let closed = json!(["ECONNREFUSED", dropped()]);
    assert_eq!(workload.run(&script), closed);
    let net = "127.0.0.0".parse().unwrap();
    let gate = &world.gate;
    gate.allow_range(
        workload.number,
        net,
        8,
        Some(port),
        Protocol::Udp,
        Action::Direct,
    )
    .unwrap();
    assert_eq!(workload.run(&script), json!(["OK", "OK"]));
    world.beating.store(false, Ordering::Relaxed);
    // Three seconds after the last beat, and as long as it takes on a busy machine.
    let silent = (0..100).find(|_| {
        let (_never, pause) = mpsc::channel::<()>();
        pause
            .recv_timeout(std::time::Duration::from_millis(200))
            .unwrap_err();
        workload.run(&script) == closed
    });
    assert!(silent.is_some(), "datagrams still pass");
    world.beating.store(true, Ordering::Relaxed);
    gate.heartbeat().unwrap();
    assert_eq!(workload.run(&script), json!(["OK", "OK"]));
}
