//! Which processes are meant: children cgroups, cgroups elsewhere, other network namespaces.

use crate::world::{SHARED, dropped};
use exeat_ebpf::{EventKind, Waiting, destroy_connections};
use serde_json::json;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};

const TRY: &str = "say(name(lambda: tcp('203.0.113.7', 443)))";

#[test]
fn child_cgroups_belong_to_their_workload() {
    let workload = SHARED.workload("nested");
    workload.allow("203.0.113.7", 443);
    let deep = workload.cgroup.join("a/b");
    fs::create_dir_all(&deep).unwrap();
    assert_eq!(
        SHARED.run_in(&deep, "say(line(tcp('203.0.113.7', 443)))"),
        workload.origin("203.0.113.7", 443, 4)
    );
    let refused =
        "say([name(lambda: tcp('203.0.113.8', 443)), name(lambda: socket(AF_INET, SOCK_RAW, 1))])";
    assert_eq!(
        SHARED.run_in(&deep, refused),
        json!(["ECONNREFUSED", "EPERM"])
    );
    // Nor is the way out to make a new one.
    let said = workload.run(&format!(
        "d = '{}/own'; os.mkdir(d); open(d + '/cgroup.procs', 'w').write('0'); say(name(lambda: tcp('203.0.113.8', 443)))",
        workload.cgroup.display()
    ));
    assert_eq!(said, "ECONNREFUSED");
}

#[test]
fn cgroups_below_the_parent_without_a_number_may_nothing() {
    let stray = SHARED.layout.managed.join("stray");
    fs::create_dir(&stray).unwrap();
    let said = SHARED.run_in(
        &stray,
        "say([name(lambda: socket()), name(lambda: socket(AF_INET6, SOCK_DGRAM))])",
    );
    assert_eq!(said, json!(["EPERM", "EPERM"]));
}

#[test]
fn cgroups_elsewhere_can_be_workloads() {
    let cgroup = SHARED.layout.cgroup_root.join("unit/of/somebody");
    fs::create_dir_all(&cgroup).unwrap();
    let workload = SHARED.manage(cgroup.clone());
    workload.allow("203.0.113.7", 443);
    assert_eq!(
        workload.run("say(line(tcp('203.0.113.7', 443)))"),
        workload.origin("203.0.113.7", 443, 4)
    );
    assert_eq!(
        workload.run(
            "u = socket(AF_INET, SOCK_DGRAM); u.connect(('127.0.0.1', 9))
say([name(lambda: tcp('203.0.113.8', 443)), name(lambda: socket(AF_INET, SOCK_RAW, 1)), name(lambda: u.send(b'x'))])"
        ),
        json!(["ECONNREFUSED", "EPERM", dropped()])
    );
    // Its neighbours are not concerned.
    let parent = cgroup.parent().unwrap();
    assert_eq!(
        SHARED.run_in(
            parent,
            "l = create_server(('127.0.0.1', 0)); say(name(lambda: tcp(*l.getsockname())))"
        ),
        "OK"
    );
    let mut kernel = SHARED.kernel.lock().unwrap();
    assert!(
        kernel
            .managed()
            .unwrap()
            .iter()
            .any(|(_, number)| *number == workload.number)
    );
    kernel.unmanage(&cgroup).unwrap();
    assert!(
        !kernel
            .managed()
            .unwrap()
            .iter()
            .any(|(_, number)| *number == workload.number)
    );
    drop(kernel);
    let free = "l = create_server(('127.0.0.1', 0)); socket(AF_INET, SOCK_RAW, 1); say(name(lambda: tcp(*l.getsockname())))";
    assert_eq!(SHARED.run_in(&cgroup, free), "OK");
}

#[test]
fn other_network_namespaces_get_nowhere() {
    let workload = SHARED.workload("netns");
    workload.allow("203.0.113.7", 443);
    workload.allow("127.0.0.1", 7777);
    let said = workload.run(
        "import ctypes; assert ctypes.CDLL(None).unshare(0x40000000) == 0
import fcntl; u = socket(AF_INET, SOCK_DGRAM)
fcntl.ioctl(u, 0x8914, struct.pack('16sH14x', b'lo', 0x49))
l = create_server(('127.0.0.1', PROXY))
d = socket(AF_INET, SOCK_DGRAM); d.bind(('127.0.0.1', DNS))
say([name(lambda: tcp('203.0.113.7', 443)), name(lambda: tcp('127.0.0.1', 7777)), name(lambda: tcp('127.0.0.1', PROXY)),
    name(lambda: u.sendto(query(), ('192.0.2.53', 53))), name(lambda: u.connect(('192.0.2.53', 53)))])",
    );
    assert_eq!(said, json!(vec!["ECONNREFUSED"; 5]));
    workload.event(EventKind::ForeignNetns, |event| event.protocol == 6);
    assert_eq!(workload.run(TRY), "OK");
}

#[test]
fn what_becomes_another_workload_has_nothing_of_the_one_before() {
    let cgroup = SHARED.layout.cgroup_root.join("another");
    fs::create_dir(&cgroup).unwrap();
    let before = SHARED.manage(cgroup.clone());
    before.allow("203.0.113.7", 443);
    assert_eq!(before.run(TRY), "OK");
    SHARED.kernel.lock().unwrap().cut(before.number).unwrap();
    let after = SHARED.manage(cgroup);
    assert_eq!(after.run(TRY), "ECONNREFUSED");
    after.allow("203.0.113.7", 443);
    assert_eq!(after.run(TRY), "OK");
    let severed = SHARED.kernel.lock().unwrap().severed().unwrap();
    assert!(!severed.contains(&before.number), "{severed:?}");
}

#[test]
fn connections_older_than_management_are_destroyed() {
    let cgroup = SHARED.layout.cgroup_root.join("older");
    fs::create_dir(&cgroup).unwrap();
    // One socket is born in the cgroup, one is brought along.
    let mut child = SHARED.spawn_in(
        &SHARED.outside(),
        &format!(
            "l = create_server(('127.0.0.1', 0)); brought = tcp(*l.getsockname())
open('{}/cgroup.procs', 'w').write('0')
born = tcp(*l.getsockname()); u = socket(AF_INET, SOCK_DGRAM); u.connect(l.getsockname())
say('ready'); sys.stdin.readline()
say([name(lambda: s.send(b'x')) for s in (brought, born)])
say([name(lambda: s.connect(('203.0.113.7', 443))) for s in (socket(), u)])",
            cgroup.display()
        ),
    );
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "\"ready\"");
    let workload = SHARED.manage(cgroup);
    // At least the listener and the UDP socket; what the listener's end takes along counts for nothing.
    assert!(destroy_connections(&workload.cgroup, Waiting::Destroyed).unwrap() >= 2);
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let gone = lines.next().unwrap();
    for name in serde_json::from_str::<Vec<String>>(&gone).unwrap() {
        assert!(
            ["ECONNABORTED", "EPIPE", "ECONNRESET"].contains(&name.as_str()),
            "{gone}"
        );
    }
    assert_eq!(
        lines.next().unwrap(),
        "[\"ECONNREFUSED\", \"ECONNREFUSED\"]"
    );
    assert!(child.wait().unwrap().success());
}
