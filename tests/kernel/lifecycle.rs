//! A daemon that is killed, one that comes back, two that meet, one that is removed.

use crate::world::{clean_up_afterwards, layout, run_in, runtime};
use exeat_ebpf::{Action, EventKind, Gate, Kernel, KernelError, Layout, Protocol, Settings};
use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader};
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
        // Port 443 of .7 was redirected, to nobody; .8 was refused.
        assert_eq!((first.kind, first.workload), (EventKind::RefusedConnect, 7));
        assert_eq!(first.address, Some("203.0.113.8".parse().unwrap()));
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
fn programs_are_replaced_without_a_gap() {
    let (name, layout) = named("replace");
    let mut daemon = start_daemon(&name);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let cgroup = layout.managed.join("a");
    // Tries all the while; whatever passes is an error.
    let attempts = std::thread::spawn(move || {
        run_in(
            &cgroup,
            SETTINGS,
            "u = socket(AF_INET, SOCK_DGRAM); passed = n = 0; end = time.monotonic() + 4
while time.monotonic() < end:
    n += 1
    passed += name(lambda: socket(AF_INET, SOCK_RAW, 1)) == 'OK'
    passed += name(lambda: u.sendto(b'x', ('127.0.0.1', 9))) == 'OK'
    passed += name(lambda: tcp('127.0.0.1', 22)) not in ('ECONNREFUSED', 'ECONNREFUSED late')
say([passed, n > 100])",
        )
    });
    let mut replaced = 0;
    while !attempts.is_finished() {
        let kernel = Kernel::start(&layout, SETTINGS).unwrap();
        assert!(kernel.adopted());
        replaced += 1;
    }
    assert!(replaced > 1);
    assert_eq!(attempts.join().unwrap(), serde_json::json!([0, true]));
}
