//! Servers that listen: whoever connects meets the gate, and nothing else reaches them.

use crate::world::{SHARED, Workload, World, clean_up_afterwards, layout, run_in};
use exeat_ebpf::{EventKind, Kernel, Settings};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, ChildStdout};

/// A server in a workload, which says where it listens, greets whoever comes, and tells who came.
struct Serving<'a> {
    workload: Workload<'a>,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    port: u16,
}

impl<'a> Serving<'a> {
    fn new(world: &'a World, name: &str, bind: &str) -> Self {
        let workload = world.workload(name);
        let mut child = world.spawn_in(
            &workload.cgroup,
            &format!(
                "import threading
family = AF_INET6 if ':' in '{bind}' else AF_INET
l = create_server(('{bind}', 0), family=family, dualstack_ipv6=family == AF_INET6)
say(l.getsockname()[1])
def serve():
    while True:
        c, a = l.accept(); c.send(b'server\\n'); c.close()
threading.Thread(target=serve, daemon=True).start()
sys.stdin.readline()"
            ),
        );
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.next().unwrap().unwrap().parse().unwrap();
        Self {
            workload,
            child,
            lines,
            port,
        }
    }

    fn permit(&self, address: &str) {
        let gate = &self.workload.world.gate;
        gate.permit_listener(self.workload.number, address.parse().unwrap(), self.port)
            .unwrap();
    }

    fn guard(&self, address: &str, local: &[&str]) {
        let server = SocketAddr::new(address.parse().unwrap(), self.port);
        let local: Vec<IpAddr> = local.iter().map(|text| text.parse().unwrap()).collect();
        let kernel = self.workload.world.kernel.lock().unwrap();
        kernel.guard(&[server], &[self.port], &local).unwrap();
    }

    fn outside(&self, script: &str) -> Value {
        let script = format!("P = {}\n{script}", self.port);
        let world = self.workload.world;
        world.run_in(&world.outside(), &script)
    }

    /// What a process of the gate meets.
    fn by_gate(&self) -> Value {
        let world = self.workload.world;
        let script = format!("say(line(tcp('127.0.0.1', {})))", self.port);
        world.run_in(&world.layout.gate, &script)
    }

    /// What a process that is not managed meets at an address.
    fn met(&self, address: &str) -> Value {
        let family = if address.contains(':') {
            "AF_INET6"
        } else {
            "AF_INET"
        };
        self.outside(&format!("say(line(tcp('{address}', P, {family})))"))
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.kill());
        drop(self.child.wait());
        self.lines.by_ref().for_each(drop);
    }
}

/// Each of these replaces what is guarded, so each has a world of its own.
fn world(name: &str) -> World {
    World::new(name)
}

/// This machine's address that is not loopback, if it has one.
fn own() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().unwrap().ip())
}

#[test]
fn whoever_connects_to_a_server_meets_the_gate() {
    let world = world("guard");
    let server = Serving::new(&world, "exact", "127.0.0.1");
    server.permit("127.0.0.1");
    server.guard("127.0.0.1", &[]);
    let asked = |address: &str, family| format!("0 {address} {} {family}", server.port);
    assert_eq!(server.met("127.0.0.1"), asked("127.0.0.1", 4));
    assert_eq!(server.met("0.0.0.0"), asked("127.0.0.1", 4));
    assert_eq!(server.met("::ffff:127.0.0.1"), asked("127.0.0.1", 6));
    assert_eq!(server.met("::ffff:0.0.0.0"), asked("127.0.0.1", 6));
    let said = server.outside(
        "r = []
s = socket(); s.bind(('127.0.0.1', 0)); s.connect(('127.0.0.1', P)); r.append(line(s)); r.append(s.getpeername()[1] == P)
s = socket(); s.setblocking(False); r.append(errno.errorcode[s.connect_ex(('127.0.0.1', P))]); r.append(line(s))
s = socket(); s.sendto(b'hello', 0x20000000, ('127.0.0.1', P)); r.append(line(s))
s = socket(); s.setsockopt(IPPROTO_TCP, 30, 1); s.connect(('127.0.0.1', P)); s.send(b'x'); r.append(line(s))
import ctypes; libc = ctypes.CDLL(None)
o = create_server(('127.0.0.1', 0)); s = socket(); s.connect(o.getsockname()); libc.connect(s.fileno(), bytes(16), 16)
s.connect(('127.0.0.1', P)); r.append(line(s))
s = socket(AF_INET, SOCK_STREAM, 262); s.connect(('127.0.0.1', P)); r.append(line(s))
say(r)",
    );
    let own = asked("127.0.0.1", 4);
    assert_eq!(
        said,
        json!([own, true, "EINPROGRESS", own, own, own, own, own])
    );
    // The gate meets the server itself.
    assert_eq!(server.by_gate(), "server");
}

/// Its first packet cannot be read as one with a note, and must not find the note of somebody else's.
#[test]
fn a_connection_with_options_does_not_arrive() {
    let world = world("options");
    let server = Serving::new(&world, "options", "127.0.0.1");
    server.guard("127.0.0.1", &[]);
    // A route to be recorded (RFC 791, section 3.1), which no privilege is needed for.
    let said = server.outside(
        "s = socket(); s.setsockopt(IPPROTO_IP, IP_OPTIONS, bytes([7, 7, 4, 0, 0, 0, 0, 0])); s.settimeout(0.4)
say(name(lambda: s.connect(('127.0.0.1', P))).split()[0])",
    );
    assert_eq!(said, "ETIMEDOUT");
}

#[test]
fn other_addresses_of_the_same_server_are_no_way_around() {
    let world = world("around");
    let server = Serving::new(&world, "wide", "::");
    server.permit("::");
    let own = own();
    let text = own.map(|address| address.to_string());
    let local: Vec<&str> = text.iter().map(String::as_str).collect();
    server.guard("127.0.0.1", &local);
    for address in ["127.0.0.2", "127.9.9.9", "::1"].iter().chain(&local) {
        let met = server.met(address);
        assert_eq!(
            met.as_str().unwrap().split(' ').next(),
            Some("0"),
            "{address}: {met}"
        );
    }
}

#[test]
fn what_is_nobodys_at_the_same_port_is_left_alone() {
    let world = world("neighbour");
    let server = Serving::new(&world, "one", "127.0.0.1");
    server.guard("127.0.0.1", &[]);
    let said = server.outside(
        "l = create_server(('127.0.0.2', P)); s = tcp('127.0.0.2', P); a, _ = l.accept(); a.send(b'neighbour\\n')
u = socket(AF_INET, SOCK_DGRAM); v = socket(AF_INET, SOCK_DGRAM); u.bind(('127.0.0.1', P)); v.sendto(b'x', ('127.0.0.1', P))
say([line(s), s.getpeername()[0], u.recv(9).decode()])",
    );
    assert_eq!(said, json!(["neighbour", "127.0.0.2", "x"]));
}

#[test]
fn without_the_redirect_the_server_is_not_open_either() {
    let world = world("closed");
    let server = Serving::new(&world, "shut", "0.0.0.0");
    server.permit("0.0.0.0");
    // Nothing is guarded: the packet filter alone stands before the server.
    let said = server.outside(
        "s = socket(); s.settimeout(1.5)
say(name(lambda: s.connect(('127.0.0.1', P))))",
    );
    assert!(said.as_str().unwrap().starts_with("ETIMEDOUT"), "{said}");
    server
        .workload
        .event(EventKind::IngressDrop, |event| event.detail == 7);
    assert_eq!(server.by_gate(), "server");
}

#[test]
fn other_namespaces_neither_reach_nor_are_mistaken() {
    let world = world("guard-netns");
    let server = Serving::new(&world, "home", "127.0.0.1");
    server.permit("127.0.0.1");
    server.guard("127.0.0.1", &[]);
    // The same address and port in another namespace are somebody else's.
    let said = server.outside(
        "import ctypes, fcntl; assert ctypes.CDLL(None).unshare(0x40000000) == 0
u = socket(AF_INET, SOCK_DGRAM); fcntl.ioctl(u, 0x8914, struct.pack('16sH14x', b'lo', 0x49))
l = create_server(('127.0.0.1', P)); s = tcp('127.0.0.1', P); a, _ = l.accept(); a.send(b'own\\n'); say(line(s))",
    );
    assert_eq!(said, "own");
    // A workload that listens in another namespace is not reached from there.
    let said = server.outside(&format!(
        "import ctypes, fcntl; assert ctypes.CDLL(None).unshare(0x40000000) == 0
u = socket(AF_INET, SOCK_DGRAM); fcntl.ioctl(u, 0x8914, struct.pack('16sH14x', b'lo', 0x49))
r, w = os.pipe()
if os.fork() == 0:
    open('{}/cgroup.procs', 'w').write('0')
    l = create_server(('127.0.0.1', P)); os.write(w, b'x'); time.sleep(20); os._exit(0)
os.read(r, 1); n = name(lambda: tcp('127.0.0.1', P)); say(n); os._exit(0)",
        server.workload.cgroup.display()
    ));
    assert_eq!(said, "ECONNREFUSED");
}

#[test]
fn nobody_behind_the_gates_port_means_nobody_at_all() {
    const SETTINGS: Settings = Settings {
        proxy_port: 18_911,
        dns_port: 18_912,
    };
    let layout = layout(&format!("guard-dead-{}", std::process::id()));
    clean_up_afterwards(&layout);
    let kernel = Kernel::start(&layout, SETTINGS).unwrap();
    let server = "127.0.0.1:18913".parse().unwrap();
    kernel.guard(&[server], &[18_913], &[]).unwrap();
    // It holds without the daemon, and whoever takes the gate's port meanwhile gains nothing.
    drop(kernel);
    let outside = layout.cgroup_root.join("outside");
    fs::create_dir_all(&outside).unwrap();
    let said = run_in(
        &outside,
        SETTINGS,
        "l = create_server(('127.0.0.1', 18913)); r = [name(lambda: tcp('127.0.0.1', 18913))]
t = create_server(('127.0.0.1', PROXY)); r.append(name(lambda: tcp('127.0.0.1', 18913))); say(r)",
    );
    assert_eq!(said, json!(["ECONNREFUSED", "ECONNREFUSED"]));
}

#[test]
fn a_cut_workload_is_mute_and_comes_back() {
    let workload = SHARED.workload("cut");
    workload.allow("203.0.113.7", 443);
    let mut child = SHARED.spawn_in(
        &workload.cgroup,
        "s = tcp('203.0.113.7', 443); line(s); s.send(b'one\\n'); say(line(s)); sys.stdin.readline()
u = socket(AF_INET, SOCK_DGRAM)
say([name(lambda: tcp('203.0.113.7', 443)), name(lambda: tcp('192.0.2.53', 53)), name(lambda: u.sendto(query(), ('192.0.2.53', 53))),
    name(lambda: u.connect(('192.0.2.53', 53)))])
s.send(b'two\\n'); s.settimeout(1); say(name(lambda: s.recv(9))); sys.stdin.readline()
s.settimeout(8); say(line(s)); say(line(tcp('203.0.113.7', 443)))",
    );
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let mut stdin = child.stdin.take().unwrap();
    assert_eq!(lines.next().unwrap(), "\"one\"");
    SHARED.kernel.lock().unwrap().cut(workload.number).unwrap();
    assert!(
        SHARED
            .kernel
            .lock()
            .unwrap()
            .severed()
            .unwrap()
            .contains(&workload.number)
    );
    stdin.write_all(b"\n").unwrap();
    assert_eq!(
        lines.next().unwrap(),
        "[\"ECONNREFUSED\", \"ECONNREFUSED\", \"ECONNREFUSED\", \"ECONNREFUSED\"]"
    );
    assert!(lines.next().unwrap().contains("ETIMEDOUT"));
    workload.event(EventKind::RefusedConnect, |event| event.detail == 2);
    workload.event(EventKind::RefusedSend, |event| event.detail == 2);
    workload.event(EventKind::EgressDrop, |event| event.detail == 6);
    SHARED.kernel.lock().unwrap().mend(workload.number).unwrap();
    stdin.write_all(b"\n").unwrap();
    assert_eq!(lines.next().unwrap(), "\"two\"");
    assert_eq!(
        lines.next().unwrap(),
        json!(workload.origin("203.0.113.7", 443, 4)).to_string()
    );
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_is_guarded_is_replaced_as_a_whole() {
    let world = world("guard-set");
    let server = Serving::new(&world, "set", "127.0.0.1");
    server.guard("127.0.0.1", &[]);
    assert!(server.met("127.0.0.1").as_str().unwrap().starts_with("0 "));
    world.kernel.lock().unwrap().guard(&[], &[], &[]).unwrap();
    let said = server.outside(
        "l = create_server(('127.0.0.3', P)); s = tcp('127.0.0.3', P); a, _ = l.accept(); a.send(b'x\\n'); say(line(s))",
    );
    assert_eq!(said, "x");
}
