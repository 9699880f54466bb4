//! A daemon that is killed, one that comes back, two that meet, one that is removed.

use crate::world::{World, clean_up_afterwards, layout, run_in, runtime, said, spawn_in};
use exeat_ebpf::{Action, EventKind, Gate, Kernel, KernelError, Layout, Protocol, Settings};
use exeat_ebpf_abi::MAX_RANGES;
use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;
use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const SETTINGS: Settings = Settings {
    proxy_port: 18_901,
    dns_port: 18_902,
};
const VARIABLE: &str = "EXEAT_TEST_LIFECYCLE";

/// Not a test of its own: the daemon that the others kill, when they start it with the variable.
#[test]
fn daemon() {
    let Ok(name) = env::var(VARIABLE) else { return };
    let layout = layout(&name);
    let mut kernel = Kernel::start(&layout, SETTINGS).unwrap();
    let cgroup = layout.managed.join("a");
    fs::create_dir(&cgroup).unwrap();
    kernel.manage(&cgroup, 7).unwrap();
    let gate = Gate::from_descriptors(kernel.gate_descriptors().unwrap()).unwrap();
    let address = "203.0.113.7".parse().unwrap();
    gate.allow(7, address, 443, Protocol::Tcp, Action::Redirect)
        .unwrap();
    println!("\nready");
    // Until it is killed.
    std::thread::park();
}

fn start_daemon(name: &str) -> Child {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "lifecycle::daemon", "--nocapture"])
        .env(VARIABLE, name)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(
        lines.map_while(Result::ok).any(|line| line == "ready"),
        "the daemon did not start"
    );
    child
}

/// What a workload can do while nobody listens on the gate's port.
fn attempt(cgroup: &Path) -> String {
    run_in(
        cgroup,
        SETTINGS,
        "def raw(): socket(AF_INET, SOCK_RAW, 1)
u = socket(AF_INET, SOCK_DGRAM)
say(' '.join(name(f) for f in (lambda: tcp('203.0.113.7', 443), lambda: tcp('203.0.113.8', 443), raw,
    lambda: u.sendto(b'x', ('127.0.0.1', 9)))))",
    )
    .as_str()
    .unwrap()
    .to_owned()
}

const CLOSED: &str = "ECONNREFUSED ECONNREFUSED EPERM ECONNREFUSED";

fn named(test: &str) -> (String, Layout) {
    let name = format!("{test}-{}", std::process::id());
    let layout = layout(&name);
    clean_up_afterwards(&layout);
    (name, layout)
}

/// Whoever takes the gate's ports while it is away gets nothing.
fn steal(cgroup: &Path) {
    let thief = (
        TcpListener::bind(("127.0.0.1", SETTINGS.proxy_port)).unwrap(),
        UdpSocket::bind(("127.0.0.1", SETTINGS.dns_port)).unwrap(),
    );
    assert_eq!(attempt(cgroup), CLOSED);
    let dns = run_in(cgroup, SETTINGS, "u = socket(AF_INET, SOCK_DGRAM)
say([name(lambda: u.sendto(query(), ('192.0.2.53', 53))), name(lambda: u.connect(('192.0.2.53', 53)))])");
    assert_eq!(dns, serde_json::json!(["ECONNREFUSED", "ECONNREFUSED"]));
    thief.0.set_nonblocking(true).unwrap();
    thief.1.set_nonblocking(true).unwrap();
    thief.0.accept().unwrap_err();
    thief.1.recv(&mut [0; 99]).unwrap_err();
}

#[test]
fn a_killed_daemon_leaves_everything_closed_and_another_adopts_it() {
    let (name, layout) = named("killed");
    let mut daemon = start_daemon(&name);
    let cgroup = layout.managed.join("a");
    assert_eq!(attempt(&cgroup), CLOSED);
    match Kernel::start(&layout, SETTINGS) {
        Err(KernelError::Held { holder, .. }) => {
            assert_eq!(holder, format!("process {}", daemon.id()));
        }
        other => panic!("{other:?}"),
    }
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert_eq!(attempt(&cgroup), CLOSED);
    steal(&cgroup);

    let mut kernel = Kernel::start(&layout, SETTINGS).unwrap();
    assert!(kernel.adopted());
    assert_eq!(
        kernel
            .managed()
            .unwrap()
            .iter()
            .map(|(_, number)| *number)
            .collect::<Vec<_>>(),
        [7]
    );
    assert_eq!(kernel.missing_links().unwrap(), Vec::<String>::new());
    // The rules are still there, and refusals reach the new daemon's ring.
    let gate = Gate::from_descriptors(kernel.gate_descriptors().unwrap()).unwrap();
    runtime().block_on(async {
        let mut events = gate.events().unwrap();
        while events.try_next().unwrap().is_some() {}
        assert_eq!(attempt(&cgroup), CLOSED);
        let first = events.next().await.unwrap();
        let second = events.next().await.unwrap();
        // .7 is allowed, but there is no gate; .8 is not.
        for (event, address, detail) in [(first, "203.0.113.7", 1), (second, "203.0.113.8", 0)] {
            assert_eq!((event.kind, event.workload), (EventKind::RefusedConnect, 7));
            assert_eq!(
                (event.address, event.detail),
                (Some(address.parse().unwrap()), detail)
            );
        }
    });
    kernel.unmanage(&cgroup).unwrap();
    assert_eq!(kernel.managed().unwrap(), []);
    drop(kernel);

    Kernel::release(&layout).unwrap();
    assert!(!layout.bpffs.exists());
    let free = run_in(
        &cgroup,
        SETTINGS,
        "socket(AF_INET, SOCK_RAW, 1); say('free')",
    );
    assert_eq!(free, "free");
    Kernel::release(&layout).unwrap();
}

#[test]
fn what_was_opened_ends_with_a_cgroup_that_goes_while_no_daemon_is_there() {
    let (_, layout) = named("gone");
    let manage = |kernel: &mut Kernel, name: &str| {
        let cgroup = layout.managed.join(name);
        fs::create_dir(&cgroup).unwrap();
        kernel.manage(&cgroup, 7).unwrap();
        let gate = Gate::from_descriptors(kernel.gate_descriptors().unwrap()).unwrap();
        gate.heartbeat().unwrap();
        (cgroup, gate)
    };
    let send = "u = socket(AF_INET, SOCK_DGRAM)
say(name(lambda: u.sendto(b'x', ('203.0.113.9', 5000))))";
    let mut kernel = Kernel::start(&layout, SETTINGS).unwrap();
    let (first, gate) = manage(&mut kernel, "first");
    let net = "203.0.113.0".parse().unwrap();
    gate.allow_range(7, net, 24, Some(5000), Protocol::Udp, Action::Direct)
        .unwrap();
    assert_eq!(run_in(&first, SETTINGS, send), "OK");
    drop(kernel);
    fs::remove_dir(&first).unwrap();

    let mut kernel = Kernel::start(&layout, SETTINGS).unwrap();
    assert_eq!(kernel.managed().unwrap(), []);
    let (second, _gate) = manage(&mut kernel, "second");
    assert_eq!(run_in(&second, SETTINGS, send), "ECONNREFUSED");
}

#[test]
fn programs_are_replaced_without_a_gap() {
    let (name, layout) = named("replace");
    let mut daemon = start_daemon(&name);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let cgroup = layout.managed.join("a");
    // Tries all the while, until its input ends; whatever passes is an error.
    let mut attempts = spawn_in(
        &cgroup,
        SETTINGS,
        "import select
u = socket(AF_INET, SOCK_DGRAM); passed = n = 0
while n < 100 or not select.select([sys.stdin], [], [], 0)[0]:
    n += 1
    passed += name(lambda: socket(AF_INET, SOCK_RAW, 1)) == 'OK'
    passed += name(lambda: u.sendto(b'x', ('127.0.0.1', 9))) == 'OK'
    passed += name(lambda: tcp('127.0.0.1', 22)) not in ('ECONNREFUSED', 'ECONNREFUSED late')
say(passed)",
    );
    for _ in 0..5 {
        let kernel = Kernel::start(&layout, SETTINGS).unwrap();
        assert!(kernel.adopted());
    }
    drop(attempts.stdin.take());
    assert_eq!(said(attempts), 0);
}

#[test]
fn refusals_beyond_the_ring_are_counted() {
    let (_, layout) = named("lost");
    let mut kernel = Kernel::start(&layout, SETTINGS).unwrap();
    let cgroup = layout.managed.join("a");
    fs::create_dir(&cgroup).unwrap();
    kernel.manage(&cgroup, 7).unwrap();
    let gate = Gate::from_descriptors(kernel.gate_descriptors().unwrap()).unwrap();
    let script = "u = socket(AF_INET, SOCK_DGRAM)
for n in range(20000):
    assert name(lambda: u.sendto(b'x', ('127.0.0.1', 9))).startswith('ECONNREFUSED')
say(1)";
    run_in(&cgroup, SETTINGS, script);
    let lost = gate.lost().unwrap();
    let mut read = 0;
    runtime().block_on(async {
        let mut events = gate.events().unwrap();
        while events.try_next().unwrap().is_some() {
            read += 1;
        }
    });
    assert!(lost > 0 && read > 0);
    assert_eq!(read + lost, 20_000);
    assert_eq!(kernel.lost().unwrap(), 0);
}

#[test]
fn full_tables_say_so() {
    let (_, layout) = named("full");
    let kernel = Kernel::start(&layout, SETTINGS).unwrap();
    let gate = Gate::from_descriptors(kernel.gate_descriptors().unwrap()).unwrap();
    let range = |number: u32, workload| {
        let net = Ipv4Addr::from(number << 8).into();
        gate.allow_range(workload, net, 24, None, Protocol::Tcp, Action::Redirect)
    };
    (0..MAX_RANGES).for_each(|number| range(number, 1).unwrap());
    assert!(matches!(range(0, 2), Err(KernelError::Full("RANGES"))));
    gate.forget(1).unwrap();
    range(0, 2).unwrap();
}

#[test]
fn the_gate_needs_no_privilege() {
    let world = World::new("plain");
    let workload = world.workload("plain");
    let descriptors = world.kernel.lock().unwrap().gate_descriptors().unwrap();
    let number = workload.number;
    // Of this thread alone: its capabilities go with its identity.
    let plain = std::thread::spawn(move || {
        let nobody = Uid::from_raw(65_534);
        set_thread_res_uid(nobody, nobody, nobody).unwrap();
        let gate = Gate::from_descriptors(descriptors).unwrap();
        let address = "203.0.113.7".parse().unwrap();
        gate.allow(number, address, 443, Protocol::Tcp, Action::Redirect)
            .unwrap();
        gate.permit_listener(number, address, 80).unwrap();
        gate.forbid_listener(number, address, 80).unwrap();
        gate.heartbeat().unwrap();
        assert_eq!(
            gate.dns_source("127.0.0.1:1".parse().unwrap(), 1).unwrap(),
            None
        );
        let stray = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(gate.origin(&stray).unwrap(), None);
        assert_eq!(gate.lost().unwrap(), 0);
        runtime().block_on(async {
            gate.events().unwrap().try_next().unwrap();
        });
    });
    plain.join().unwrap();
    assert_eq!(
        workload.run("say(name(lambda: tcp('203.0.113.7', 443)))"),
        "OK"
    );
}
