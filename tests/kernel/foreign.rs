//! Sockets that change hands.

use crate::world::SHARED;
use exeat_ebpf::EventKind;
use serde_json::json;

/// Makes sockets outside, hands them in by inheritance and by message, tries them inside.
fn hand_in(cgroup: &std::path::Path, body: &str) -> String {
    format!(
        "made = [socket(), socket(AF_INET, SOCK_DGRAM), socket(AF_INET6, SOCK_STREAM)]
for s in made: s.set_inheritable(True)
left, right = socketpair()
if os.fork() == 0:
    open('{}/cgroup.procs', 'w').write('0')
    left.close(); _, fds, _, _ = recv_fds(right, 9, 9)
    received = [socket(fileno=fd) for fd in fds]
    r = []
{body}
    say(r); os._exit(0)
right.close(); send_fds(left, [b'x'], [s.fileno() for s in made]); pid, status = os.wait(); sys.exit(status)",
        cgroup.display()
    )
}

#[test]
fn sockets_made_outside_are_no_use_inside() {
    let workload = SHARED.workload("foreign");
    workload.allow("203.0.113.7", 443);
    let script = hand_in(
        &workload.cgroup,
        "    for t, u, t6 in (made, received):
        r += [name(lambda: t.connect(('203.0.113.7', 443))), name(lambda: t6.connect(('::1', 22))),
            name(lambda: u.connect(('192.0.2.53', 53))), name(lambda: u.sendto(query(), ('192.0.2.53', 53))),
            name(lambda: u.sendto(b'x', ('127.0.0.1', 9)))]",
    );
    let said = SHARED.run_in(&SHARED.outside(), &script);
    assert_eq!(said, json!(vec!["ECONNREFUSED"; 10]));
    let event = workload.event(EventKind::ForeignSocket, |event| event.protocol == 6);
    assert_eq!(event.detail, 0, "nobody's");
    workload.event(EventKind::ForeignSocket, |event| event.protocol == 17);
}

#[test]
fn sockets_of_another_workload_are_no_use_either() {
    let (one, other) = (SHARED.workload("hand-one"), SHARED.workload("hand-other"));
    for workload in [&one, &other] {
        workload.allow("203.0.113.7", 443);
    }
    let script = hand_in(
        &other.cgroup,
        "    for t, _, _ in (made, received): r.append(name(lambda: t.connect(('203.0.113.7', 443))))",
    );
    assert_eq!(
        SHARED.run_in(&one.cgroup, &script),
        json!(["ECONNREFUSED", "ECONNREFUSED"])
    );
    let event = other.event(EventKind::ForeignSocket, |_| true);
    assert_eq!(event.detail, one.number);
}

#[test]
fn sockets_made_inside_stay_bound_outside() {
    let workload = SHARED.workload("hand-out");
    workload.allow("203.0.113.7", 443);
    let script = hand_in(
        &SHARED.outside(),
        "    t, u, t6 = made
    r += [name(lambda: t6.connect(('::1', 22))), name(lambda: u.sendto(b'x', ('127.0.0.1', 9)))]
    t.connect(('203.0.113.7', 443)); r.append(line(t))",
    );
    assert_eq!(
        SHARED.run_in(&workload.cgroup, &script),
        json!([
            "ECONNREFUSED",
            "ECONNREFUSED",
            workload.origin("203.0.113.7", 443, 4)
        ])
    );
}
