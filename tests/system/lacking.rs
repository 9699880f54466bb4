//! Machines that lack what the daemon needs: a sentence with the remedy, and exit status 2. What is missing is taken
//! away in a mount namespace of the daemon's own, so that it is the kernel and the files which say so.

use std::fs;
use std::process::Command;

use exeat_tests::Lab;
use exeat_tests::cgroup::Cgroup;
use exeat_tests::daemon::{Daemon, binary};
use exeat_tests::namespace::Namespace;
use exeat_tests::process::{Process, run};
use exeat_tests::wait::{wait_for, wait_until};
use serde_json::Value;

use crate::place::{LIMIT, foreign, foreign_policy, policy};

const ENTRY: &str = "{ host: api.lab.example }";
const PROXY: u16 = 24_455;
const DNS: u16 = 24_456;

/// Hides what a directory holds.
const NO_BTF: &str = "mount -t tmpfs none /sys/kernel/btf";
const NO_CGROUP2: &str = r#"for place in $(awk '$3 == "cgroup2" { print $2 }' /proc/self/mounts); do umount -l "$place"; done"#;
/// As often as it is mounted there.
const NO_BPFFS: &str = "while mountpoint -q /sys/fs/bpf; do umount -l /sys/fs/bpf; done";

/// `exeat ARGUMENTS` on a machine that the shell's `change` has made another one; `change` may put a program before it.
fn changed(lab: &Lab, change: &str, arguments: &[&str]) -> Command {
    let script = if change.contains("\"$@\"") {
        change.to_owned()
    } else {
        format!("{change}\nexec \"$@\"")
    };
    let mut command = lab.inside.command("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-ec"])
        .args([script.as_str(), "sh"])
        .arg(binary().unwrap())
        .args(arguments)
        .arg("--config")
        .arg(lab.directory().join("exeat.yaml"));
    command
}

/// A lab in which a daemon ran, so that its configuration is there, and ended.
async fn prepared<'lab>(lab: &'lab Lab, settings: &str) -> Daemon<'lab> {
    let mut daemon = lab.daemon_with(&policy(&[ENTRY]), settings).await.unwrap();
    daemon.stop().await.unwrap();
    daemon
}

/// Puts another text in the place of a file below `/proc/sys/kernel`.
fn setting(lab: &Lab, name: &str, text: &str) -> String {
    let file = lab.directory().join(format!("{name}-{}", text.len()));
    fs::write(&file, format!("{text}\n")).unwrap();
    format!("mount --bind {} /proc/sys/kernel/{name}", file.display())
}

/// Its sentences, one a line, of a daemon that cannot start.
async fn fails(mut command: Command) -> Vec<String> {
    let done = run(&mut command, LIMIT).await.unwrap();
    assert_eq!(done.status.code(), Some(2), "{done:?}");
    assert_eq!(done.stdout, "", "{done:?}");
    assert!(done.stderr.starts_with("exeat: "), "{done:?}");
    done.stderr.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_machine_lacks_is_a_sentence_with_its_remedy() {
    let lab = Lab::new().unwrap();
    let _daemon = prepared(&lab, "").await;
    // As those kernels are where they are used.
    let open = setting(&lab, "unprivileged_bpf_disabled", "0  ");
    let old = format!(
        "{}\n{open}",
        setting(&lab, "osrelease", "5.4.0-150-generic")
    );
    let early = setting(&lab, "osrelease", "5.18.0");
    let closed = setting(&lab, "unprivileged_bpf_disabled", "2");
    let for_good = setting(&lab, "unprivileged_bpf_disabled", "1 ");
    // Without the right to mount, for root too.
    let bound = r#"exec setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin "$@""#;
    let rows = [
        (
            NO_CGROUP2.to_owned(),
            "the root of cgroup2 is not mounted here",
            "mount -t cgroup2 none /sys/fs/cgroup",
        ),
        (
            NO_BTF.to_owned(),
            "/sys/kernel/btf/vmlinux",
            "boot one that is built with CONFIG_DEBUG_INFO_BTF",
        ),
        (
            old.clone(),
            "Linux 5.4.0-150-generic is too old",
            "boot 5.15 or newer",
        ),
        (
            format!("{early}\n{closed}"),
            "kernel.unprivileged_bpf_disabled=2 keeps the unprivileged gate",
            "set it to 0 (sysctl), or boot 5.19 or newer",
        ),
        (
            format!("{early}\n{for_good}"),
            "kernel.unprivileged_bpf_disabled=1 keeps the unprivileged gate",
            "boot with it at 0, or boot 5.19 or newer",
        ),
        (
            format!("{NO_BPFFS}\n{bound}"),
            "no bpf filesystem is mounted and mounting one failed",
            "run `mount -t bpf bpf /sys/fs/bpf`",
        ),
    ];
    for (change, what, remedy) in rows {
        let said = fails(changed(&lab, &change, &["daemon"])).await;
        assert_eq!(said.len(), 1, "{change}: {said:?}");
        assert!(said[0].contains(what), "{change}: {said:?}");
        assert!(said[0].contains(remedy), "{change}: {said:?}");
    }
    // All of it at once.
    let all = format!("{old}\n{NO_BTF}\n{NO_CGROUP2}");
    let said = fails(changed(&lab, &all, &["daemon"])).await;
    assert_eq!(said.len(), 3, "{said:?}");

    // The control: the same way of starting, with nothing taken away but what the daemon puts back itself.
    let mut command = changed(&lab, NO_BPFFS, &["daemon"]);
    let mut daemon = Process::start("again", lab.directory(), &mut command).unwrap();
    wait_for("the daemon serves", LIMIT, async || {
        let mut status = lab.exeat(&["status", "--no-canary"]).unwrap();
        let done = run(&mut status, LIMIT).await.ok()?;
        done.status.success().then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}: {}", daemon.report()));
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_is_said_by_whom() {
    let lab = Lab::new().unwrap();
    let settings = format!("listeners: {{ proxy_port: {PROXY}, dns_port: {DNS} }}");
    let _daemon = prepared(&lab, &settings).await;
    for (kind, port, protocol) in [("SOCK_STREAM", PROXY, "tcp"), ("SOCK_DGRAM", DNS, "udp")] {
        let program = format!(
            "import socket, time
s = socket.socket(socket.AF_INET, socket.{kind}); s.bind(('127.0.0.1', {port}))
if s.type == socket.SOCK_STREAM: s.listen()
print('{{}}', flush=True); time.sleep(600)"
        );
        let mut command = lab.inside.command("/usr/bin/python3");
        command.args(["-c", &program]);
        let mut holder = Process::start(protocol, lab.directory(), &mut command).unwrap();
        holder.ready(LIMIT).await.unwrap();
        let said = fails(lab.exeat(&["daemon"]).unwrap()).await;
        let wanted = format!(
            "listening on 127.0.0.1:{port} ({protocol}), held by process {} (python3",
            holder.pid()
        );
        assert!(said[0].contains(&wanted), "{wanted}: {said:?}");
    }
}

/// The checks of a run of `exeat doctor`: their shape is the same on every machine.
fn checks(stdout: &str) -> Vec<Value> {
    let checks: Vec<Value> = serde_json::from_str(stdout).unwrap_or_else(|_| panic!("{stdout}"));
    for check in &checks {
        let text = |key: &str| check[key].as_str().unwrap_or_default();
        assert!(!text("subject").is_empty(), "{check}");
        assert!(!text("found").is_empty(), "{check}");
        match text("standing") {
            "ok" => assert!(check["remedy"].is_null(), "{check}"),
            "warn" | "fail" => assert!(!text("remedy").is_empty(), "what to do: {check}"),
            other => panic!("{other}: {check}"),
        }
    }
    checks
}

fn standing<'a>(checks: &'a [Value], subject: &str) -> Option<&'a str> {
    let check = checks.iter().find(|check| check["subject"] == subject)?;
    check["standing"].as_str()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_tries_the_runtimes_and_finds_what_is_missing() {
    let lab = Lab::new().unwrap();
    let daemon = lab.daemon(&policy(&[ENTRY])).await.unwrap();
    let done = daemon.cli(&["doctor"]).await.unwrap();
    let found = checks(&done.stdout);
    let any_failed = found.iter().any(|check| check["standing"] == "fail");
    assert_eq!(done.status.code(), Some(i32::from(any_failed)), "{done:?}");
    // This machine runs the daemon.
    for subject in ["kernel", "cgroup2", "bpffs", "btf", "programs", "daemon"] {
        assert_eq!(
            standing(&found, subject),
            Some("ok"),
            "{subject}: {found:?}"
        );
    }
    // Installed with the tests, and known to trust what the variable names; the others are what this machine has.
    for subject in ["curl", "python"] {
        assert_eq!(
            standing(&found, subject),
            Some("ok"),
            "{subject}: {found:?}"
        );
    }
    let curl = found.iter().find(|check| check["subject"] == "curl");
    assert_eq!(curl.unwrap()["found"], "trusts what CURL_CA_BUNDLE names");

    for (change, subject) in [
        (NO_BTF, "btf"),
        (NO_CGROUP2, "cgroup2"),
        (NO_BPFFS, "bpffs"),
    ] {
        let mut doctor = changed(&lab, change, &["doctor", "--no-runtimes", "--json"]);
        let done = run(&mut doctor, LIMIT).await.unwrap();
        assert_eq!(done.status.code(), Some(1), "{subject}: {done:?}");
        let found = checks(&done.stdout);
        assert_eq!(standing(&found, subject), Some("fail"), "{found:?}");
        assert_eq!(standing(&found, "kernel"), Some("ok"), "{found:?}");
    }
    let mut doctor = changed(&lab, ":", &["doctor", "--no-runtimes", "--json"]);
    let done = run(&mut doctor, LIMIT).await.unwrap();
    let found = checks(&done.stdout);
    assert!(
        !found.iter().any(|check| check["subject"] == "curl"),
        "{found:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_programs_in_the_kernel_say_is_in_the_daemons_log() {
    const SAID: &str = "no memory for a socket's owner: refused";
    let lab = Lab::new().unwrap();
    let workload = Cgroup::create(&format!("{}small", lab.name())).unwrap();
    let name = workload.path().file_name().unwrap().to_str().unwrap();
    let policy = foreign_policy(name, &[ENTRY]);
    let daemon = lab.daemon(&policy).await.unwrap();
    // A network namespace in which sockets have no room for options, which their storage is counted among.
    let small = Namespace::create(&format!("{}s", lab.name())).unwrap();
    let dials = async || {
        let mut command = workload.launcher(small.command("env"));
        command.args(["/usr/bin/python3", "-c", "import socket; socket.socket()"]);
        run(&mut command, LIMIT).await.unwrap()
    };
    let done = dials().await;
    assert!(done.status.success(), "the control: {done:?}");
    let mut command = small.command("sh");
    command.args(["-ec", "echo 0 > /proc/sys/net/core/optmem_max"]);
    let done = run(&mut command, LIMIT).await.unwrap();
    assert!(done.status.success(), "{done:?}");
    assert!(!daemon.log().contains(SAID), "{}", daemon.log());
    let done = dials().await;
    assert!(!done.status.success(), "it is refused: {done:?}");
    wait_until("the program's message is in the log", LIMIT, || {
        daemon.log().lines().any(|line| {
            line.contains(SAID) && line.contains("WARN") && line.contains("exeat_ebpf::probes")
        })
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}: {}", daemon.log()));
}

/// Keeps what it executes from `sock_diag(7)`, as on a kernel that destroys no sockets.
const NO_DESTROYING: &str = r#"exec /usr/bin/python3 -c 'import ctypes, os, struct, sys
# linux/filter.h: socket(AF_NETLINK, _, NETLINK_SOCK_DIAG) fails with EOPNOTSUPP, all else is as it was.
rows = [(0x20, 0, 0, 0), (0x15, 0, 5, 41), (0x20, 0, 0, 16), (0x15, 0, 3, 16),
    (0x20, 0, 0, 32), (0x15, 0, 1, 4), (6, 0, 0, 0x5005f), (6, 0, 0, 0x7fff0000)]
text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *row) for row in rows))
whole = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(rows), ctypes.addressof(text)))
assert ctypes.CDLL(None).prctl(22, 2, whole, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])' "$@""#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kernel_that_destroys_no_sockets_is_told_of_with_a_disconnection() {
    const OPTION: &str = "CONFIG_INET_DIAG_DESTROY";
    let lab = Lab::new().unwrap();
    let mut daemon = lab.daemon(&policy(&[ENTRY])).await.unwrap();
    let name = format!("{}-kept", lab.name());
    let cgroup = Cgroup::create(&name).unwrap();
    daemon
        .put_in_force(&foreign_policy(&name, &[ENTRY]))
        .await
        .unwrap();
    daemon.stop().await.unwrap();
    let mut command = changed(&lab, NO_DESTROYING, &["daemon"]);
    let process = Process::start("lacking", lab.directory(), &mut command).unwrap();
    let _server = foreign(&lab, &cgroup, "server", &["sleep", "600"]);
    wait_for("the workload is managed", LIMIT, async || {
        let status = daemon.status().await.ok()?;
        (status["workloads"].as_array()?.len() == 1).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}: {}", process.report()));

    let order = ["servers", "disconnect", "demo"];
    let told = daemon.cli(&order).await.unwrap().json().unwrap();
    assert_eq!(told["state"], "disconnected", "{told}");
    assert_eq!(told["workloads"], 1, "it is cut off all the same: {told}");
    assert_eq!(told["problems"].as_array().unwrap().len(), 1, "{told}");
    assert!(
        told["problems"][0].as_str().unwrap().contains(OPTION),
        "{told}"
    );
    let finding = daemon
        .record("the finding", |record| {
            record["finding"]["what"] == "connections_left_open"
        })
        .await
        .unwrap();
    assert!(finding.to_string().contains(OPTION), "{finding}");

    let doctor = ["doctor", "--no-runtimes", "--json"];
    for (change, expected) in [(NO_DESTROYING, "warn"), (":", "ok")] {
        let done = run(&mut changed(&lab, change, &doctor), LIMIT)
            .await
            .unwrap();
        let found = checks(&done.stdout);
        assert_eq!(standing(&found, "sockets"), Some(expected), "{found:?}");
        let said = found.iter().find(|check| check["subject"] == "sockets");
        let named = said.unwrap()["found"].as_str().unwrap().contains(OPTION);
        assert_eq!(named, expected == "warn", "{found:?}");
    }
}
