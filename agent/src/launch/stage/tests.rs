//! The stages run as root, in processes of their own: this test binary, started again.

use std::env;
use std::fs::{self, File};
use std::io::Read as _;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::net::ipproto;
use serde_json::{Value, json};

use super::*;
use crate::supervisor::ca::Authority;
use crate::supervisor::cgroups::{Tree, destroy, find_root};

const STAGE: &str = "EXEAT_TEST_STAGE";
const PROBE: &str = "EXEAT_TEST_PROBE";
/// Nobody, in most systems.
const UID: u32 = 65534;

/// Not a test of its own: the stage in the child.
#[test]
fn stage_process() {
    if env::var_os(STAGE).is_some() {
        // Written for a process without threads, and works with those of the test harness.
        let code = run();
        assert_eq!(code, ExitCode::SUCCESS);
    }
}

/// Loads a program that does nothing, makes a map, and looks into a map that is none: prints the three errors,
/// 0 where there is none.
const BPF: &str = r#"
import ctypes, struct
libc = ctypes.CDLL(None, use_errno=True)
def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, 120)
    ctypes.set_errno(0)
    return 0 if libc.syscall(321, command, buffer, 120) >= 0 else ctypes.get_errno()
program = ctypes.create_string_buffer(struct.pack("<BBhiBBhi", 0xb7, 0, 0, 0, 0x95, 0, 0, 0))
licence = ctypes.create_string_buffer(b"GPL")
print(bpf(5, struct.pack("<IIQQ", 1, 2, ctypes.addressof(program), ctypes.addressof(licence))),
    bpf(0, struct.pack("<IIII", 2, 4, 4, 1)), bpf(1, struct.pack("<IIQQQ", 0xffffffff, 0, 0, 0, 0)))
"#;

/// What [`BPF`] prints, run by this thread with what it may.
fn bpf() -> String {
    let done = std::process::Command::new("/usr/bin/python3")
        .args(["-c", BPF])
        .output()
        .unwrap();
    let said = [done.stdout, done.stderr].concat();
    String::from_utf8(said).unwrap().trim().to_owned()
}

/// Not a test of its own: what the gate stage becomes. Tries what it must not be able to do.
#[test]
fn probe_process() {
    let Some(orders) = env::var_os(PROBE) else {
        return;
    };
    let orders: Value = serde_json::from_str(orders.to_str().unwrap()).unwrap();
    let path = |key: &str| Path::new(orders[key].as_str().unwrap()).to_owned();
    let said = |result: Result<(), io::Error>| result.err().map(|e| format!("{:?}", e.kind()));
    let raw = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::RAW,
        Some(ipproto::ICMP),
    );
    let open: Vec<String> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .map(|link| link.display().to_string())
        .collect();
    let report = json!({
        "status": fs::read_to_string("/proc/thread-self/status").unwrap(),
        "cgroup": fs::read_to_string("/proc/self/cgroup").unwrap(),
        "limits": fs::read_to_string("/proc/self/limits").unwrap(),
        "environment": env::vars().map(|(name, _)| name).collect::<Vec<_>>(),
        "directory": env::current_dir().unwrap(),
        "open": open,
        "key": said(fs::read(path("key")).map(drop)),
        "leave": said(fs::write(path("elsewhere"), "0")),
        "bpf": bpf(),
        "raw": said(raw.map(drop).map_err(io::Error::from)),
        "root": said(nix::unistd::setuid(nix::unistd::Uid::from_raw(0)).map_err(io::Error::from)),
    });
    let stdin = io::stdin();
    send_frame(stdin.as_fd(), report.to_string().as_bytes(), &[]).unwrap();
}

fn this_test(name: &str, variable: &str, value: &str) -> Program {
    Program {
        path: env::current_exe().unwrap(),
        arguments: ["--exact", name, "--nocapture", "--test-threads=1"]
            .map(str::to_owned)
            .into(),
        environment: vec![(variable.to_owned(), value.to_owned())],
    }
}

fn stage_program() -> Program {
    this_test("launch::stage::tests::stage_process", STAGE, "1")
}

/// One that other accounts may look into.
fn open_directory() -> tempfile::TempDir {
    let mode = fs::Permissions::from_mode(0o755);
    tempfile::Builder::new()
        .permissions(mode)
        .tempdir()
        .unwrap()
}

fn tree(name: &str) -> Tree {
    Tree::create(
        find_root().unwrap(),
        &format!("super-{name}-{}", std::process::id()),
    )
    .unwrap()
}

fn account() -> Account {
    Account {
        uid: UID,
        gid: UID,
        groups: vec![UID],
    }
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status
        .lines()
        .find(|line| line.starts_with(&format!("{name}:")))
        .unwrap();
    line.split_once(':').unwrap().1.trim()
}

#[tokio::test]
async fn the_gate_keeps_no_privilege() {
    let tree = tree("gate");
    let directory = open_directory();
    let today = jiff::civil::date(2026, 11, 21);
    Authority::open(directory.path(), today).unwrap();
    // A descriptor that a careless supervisor left open across exec.
    let forgotten = File::open("/proc/self/status").unwrap();
    rustix::io::fcntl_setfd(&forgotten, rustix::io::FdFlags::empty()).unwrap();
    let (ours, theirs) = crate::channel::pair().unwrap();
    rustix::io::ioctl_fionbio(&ours, false).unwrap();
    let orders = json!({
        "key": directory.path().join("ca.key"),
        "elsewhere": tree.managed.join("cgroup.procs"),
    });
    let stage = Stage::Gate(EnterGate {
        cgroup: tree.gate.clone(),
        account: account(),
        program: this_test(
            "launch::stage::tests::probe_process",
            PROBE,
            &orders.to_string(),
        ),
    });
    let mut spawned = spawn(&stage_program(), &stage, &[theirs.as_fd()])
        .await
        .unwrap();
    drop(theirs);
    let frame = receive_frame(ours.as_fd(), false).unwrap().unwrap();
    spawned.child.wait().await.unwrap();
    let report: Value = serde_json::from_slice(&frame.body).unwrap();
    let text = |key: &str| report[key].as_str().unwrap_or_default();

    let status = text("status");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(status, set), "0000000000000000", "{set}");
    }
    assert_eq!(field(status, "NoNewPrivs"), "1");
    assert_eq!(field(status, "Uid"), vec![UID.to_string(); 4].join("\t"));
    assert_eq!(field(status, "Gid"), vec![UID.to_string(); 4].join("\t"));
    assert_eq!(field(status, "Groups"), UID.to_string());
    assert!(text("cgroup").contains("/gate\n"), "{}", text("cgroup"));
    assert!(text("limits").lines().any(|line| {
        line.starts_with("Max core file size") && line.split_whitespace().nth(4) == Some("0")
    }));
    assert_eq!(report["environment"], json!([PROBE]));
    assert_eq!(report["directory"], "/");
    assert_eq!(text("key"), "PermissionDenied");
    assert_eq!(text("leave"), "PermissionDenied");
    assert_eq!(text("raw"), "PermissionDenied");
    assert_eq!(text("root"), "PermissionDenied");
    // EPERM, EPERM and EBADF; root can do both, so that it is the gate which cannot.
    assert_eq!(text("bpf"), "1 1 9");
    assert_eq!(bpf(), "0 0 9");
    let open: Vec<&str> = report["open"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert!(
        !open.iter().any(|link| link.ends_with("/status")),
        "{open:?}"
    );
    destroy(&tree.base).await.unwrap();
}

/// Where any user may load programs (`kernel.unprivileged_bpf_disabled=0`), this alone keeps the gate from it; here
/// it keeps root from it.
#[test]
fn the_gates_filter_leaves_elements_of_maps_alone() {
    let filtered = std::thread::spawn(|| {
        // On this thread and what it starts.
        syscalls::refuse_programs().unwrap();
        bpf()
    });
    assert_eq!(filtered.join().unwrap(), "1 1 9");
    assert_eq!(bpf(), "0 0 9");
}

fn start(tree: &Tree, script: &str) -> Start {
    Start {
        cgroup: tree.add("server", 1).unwrap(),
        account: account(),
        directory: "/".into(),
        program: "sh".into(),
        arguments: vec!["-c".into(), script.into()],
        environment: vec![
            ("PATH".into(), "/usr/bin:/bin".into()),
            ("A".into(), "b c".into()),
        ],
        trust: None,
    }
}

fn null() -> OwnedFd {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap()
        .into()
}

async fn output(start: Start) -> String {
    let (mut reader, writer) = io::pipe().unwrap();
    let (null, writer) = (null(), OwnedFd::from(writer));
    let fds = [null.as_fd(), writer.as_fd(), null.as_fd()];
    let mut spawned = spawn(&stage_program(), &Stage::Start(start), &fds)
        .await
        .unwrap();
    drop(writer);
    assert!(spawned.child.wait().await.unwrap().success());
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn a_server_starts_confined_in_its_cgroup_with_its_environment_alone() {
    let tree = tree("start");
    let script =
        "cat /proc/self/status /proc/self/cgroup; env; ls /proc/self/fd | wc -l; umask; pwd";
    let text = output(start(&tree, script)).await;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(&text, set), "0000000000000000", "{set}");
    }
    assert_eq!(field(&text, "NoNewPrivs"), "1");
    assert_eq!(field(&text, "Uid").split_whitespace().next(), Some("65534"));
    assert!(text.contains("/w/server-1\n"), "{text}");
    let mut variables: Vec<&str> = text
        .lines()
        .filter(|line| {
            line.split_once('=')
                .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        })
        .filter(|line| {
            !["PWD=", "OLDPWD=", "_=", "SHLVL="]
                .iter()
                .any(|own| line.starts_with(own))
        })
        .collect();
    variables.sort_unstable();
    assert_eq!(variables, ["A=b c", "PATH=/usr/bin:/bin"]);
    // The three streams, and the directory that ls reads.
    assert!(text.ends_with("\n4\n0022\n/\n"), "{text}");
    destroy(&tree.base).await.unwrap();
}

/// Tries each refused call by its number, and what servers need.
const CALLS: &str = r#"
import ctypes, mmap, os, socket, threading, subprocess
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(number, *arguments)
    return 0 if result >= 0 else ctypes.get_errno()
def sock(family, kind, protocol=0):
    try:
        socket.socket(family, kind, protocol).close()
        return 0
    except OSError as error:
        return error.errno
X32 = 0x40000000
for name, number in [("io_uring_setup", 425), ("io_uring_enter", 426), ("io_uring_register", 427), ("ptrace", 101), ("process_vm_readv", 310), ("process_vm_writev", 311), ("pidfd_getfd", 438),
        ("kcmp", 312), ("bpf", 321), ("perf_event_open", 298), ("userfaultfd", 323), ("setns", 308), ("mount", 165), ("umount2", 166),
        ("pivot_root", 155), ("open_tree", 428), ("move_mount", 429), ("fsopen", 430), ("fsconfig", 431), ("fsmount", 432), ("fspick", 433),
        ("mount_setattr", 442), ("add_key", 248), ("request_key", 249), ("keyctl", 250), ("kexec_load", 246), ("kexec_file_load", 320),
        ("init_module", 175), ("finit_module", 313), ("delete_module", 176), ("open_by_handle_at", 304), ("fanotify_init", 300)]:
    print(name, call(number, 0, 0, 0, 0, 0, 0))
# By the x32 interface: by its own numbers, and by those that it shares.
for name, number in [("getpid", 39), ("socket", 41), ("bpf", 321), ("execve", 520), ("ptrace", 521), ("kexec_load", 528),
        ("process_vm_readv", 539), ("process_vm_writev", 540)]:
    print("x32", name, call(X32 | number, 0, 0, 0, 0, 0, 0))
# By i386's: mov eax, 20 (getpid); int 0x80; ret.
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(b"\xb8\x14\0\0\0\xcd\x80\xc3")
enter = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
child = os.fork()
if child == 0:
    enter()
    os._exit(0)
print("i386", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
for name, flag in [("user", 0x10000000), ("net", 0x40000000), ("mount", 0x20000), ("cgroup", 0x2000000)]:
    print("unshare", name, call(272, flag))
    print("clone", name, call(56, flag | 17, 0, 0, 0, 0))
print("clone3", call(435, 0, 0))
print("packet", sock(17, socket.SOCK_DGRAM))
print("vsock", sock(40, socket.SOCK_STREAM))
print("alg", sock(38, 5))
print("xdp", sock(44, 3))
print("diag", sock(16, 3, 4))
print("unix", sock(1, 1), "inet", sock(2, 1), "inet6", sock(10, 2), "route", sock(16, 3, 0))
thread = threading.Thread(target=lambda: print("thread", 0)); thread.start(); thread.join()
print("child", subprocess.run(["true"]).returncode)
"#;

#[tokio::test]
async fn a_server_is_refused_what_leads_out() {
    let tree = tree("calls");
    let mut order = start(&tree, "");
    order.program = "/usr/bin/python3".into();
    order.arguments = vec!["-c".into(), CALLS.into()];
    let said = output(order).await;
    let allowed = [
        "unix 0 inet 0 inet6 0 route 0",
        "thread 0",
        "child 0",
        // Ended by SIGSYS.
        "i386 -31",
        // ENOSYS: C libraries then use the older call.
        "clone3 38",
    ];
    for line in allowed {
        assert!(said.lines().any(|other| other == line), "{line}: {said}");
    }
    let refused: Vec<&str> = said
        .lines()
        .filter(|line| !allowed.contains(line))
        .collect();
    assert_eq!(refused.len(), 53, "{said}");
    for line in refused {
        assert!(line.ends_with(" 1"), "{line}: EPERM is due");
    }
    destroy(&tree.base).await.unwrap();
}

#[tokio::test]
async fn the_trust_bundle_covers_the_systems_for_the_server_alone() {
    let tree = tree("trust");
    let directory = open_directory();
    let bundle = directory.path().join("bundle.pem");
    let system = directory.path().join("system.pem");
    for (path, text) in [(&bundle, "ours"), (&system, "the system's")] {
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(path)
            .unwrap();
        fs::write(path, text).unwrap();
    }
    let mut order = start(&tree, &format!("cat {}", system.display()));
    order.trust = Some(Trust {
        bundle: bundle.clone(),
        java: bundle.clone(),
        covers: vec![Cover {
            laid: bundle,
            over: system.clone(),
        }],
    });
    assert_eq!(output(order).await, "ours");
    assert_eq!(fs::read_to_string(&system).unwrap(), "the system's");
    destroy(&tree.base).await.unwrap();
}

#[tokio::test]
async fn a_stage_says_why_it_failed() {
    let tree = tree("fail");
    let null = null();
    let fds = [null.as_fd(); 3];
    let mut missing = start(&tree, "");
    missing.program = "/nonexistent/server".into();
    let mut root = missing.clone();
    root.program = "sh".into();
    root.account.uid = 0;
    let mut nowhere = missing.clone();
    nowhere.cgroup = "/nonexistent".into();
    for (order, words) in [
        (missing, "starting `/nonexistent/server`: No such file"),
        (root, "refusing to run as root"),
        (nowhere, "joining the cgroup `/nonexistent`: No such file"),
    ] {
        let error = spawn(&stage_program(), &Stage::Start(order), &fds)
            .await
            .unwrap_err();
        assert!(error.to_string().starts_with(words), "{error}");
    }
    let two = spawn(
        &stage_program(),
        &Stage::Start(start_again(&tree).await),
        &fds[..2],
    )
    .await;
    assert!(two.unwrap_err().to_string().contains("2 descriptors"));
    destroy(&tree.base).await.unwrap();
}

async fn start_again(tree: &Tree) -> Start {
    let cgroup = tree.managed.join("server-1");
    // The stage that failed may not have ended yet.
    destroy(&cgroup).await.unwrap();
    start(tree, "true")
}

#[test]
fn streams_that_lead_out_are_refused() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("[::1]:0")
        .or_else(|_| UdpSocket::bind("127.0.0.1:0"))
        .unwrap();
    let packet = rustix::net::socket(
        rustix::net::AddressFamily::PACKET,
        rustix::net::SocketType::DGRAM,
        None,
    )
    .unwrap();
    let procs = File::open(find_root().unwrap().join("cgroup.procs")).unwrap();
    let directory = File::open("/").unwrap();
    start::check_stream("stdin", &tcp).unwrap_err();
    start::check_stream("stdin", &udp).unwrap_err();
    start::check_stream("stdin", &packet).unwrap_err();
    start::check_stream("stdin", &procs).unwrap_err();
    start::check_stream("stdin", &directory).unwrap_err();
    let (unix, _other) = UnixStream::pair().unwrap();
    let (reader, writer) = io::pipe().unwrap();
    start::check_stream("stdin", &unix).unwrap();
    start::check_stream("stdin", &reader).unwrap();
    start::check_stream("stdout", &writer).unwrap();
    start::check_stream("stdout", null()).unwrap();
    start::check_stream("stdout", tempfile::tempfile().unwrap()).unwrap();
}

#[tokio::test]
async fn the_gates_sockets_are_opened_on_both_addresses() {
    let tree = tree("listen");
    let order = Listen {
        cgroup: tree.gate.clone(),
        proxy_port: 0,
        dns_port: 0,
        approvals: None,
    };
    let (listening, sockets) = listen(&stage_program(), order).await.unwrap();
    let mut sockets = sockets.into_iter();
    let proxy = TcpListener::from(sockets.next().unwrap());
    assert_eq!(
        proxy.local_addr().unwrap().to_string(),
        format!("127.0.0.1:{}", listening.proxy_port)
    );
    if listening.v6 {
        let proxy = TcpListener::from(sockets.next().unwrap());
        assert_eq!(
            proxy.local_addr().unwrap().to_string(),
            format!("[::1]:{}", listening.proxy_port)
        );
    }
    let dns = UdpSocket::from(sockets.next().unwrap());
    assert_eq!(
        dns.local_addr().unwrap().to_string(),
        format!("127.0.0.1:{}", listening.dns_port)
    );

    let taken = Listen {
        cgroup: tree.gate.clone(),
        proxy_port: listening.proxy_port,
        dns_port: 0,
        approvals: None,
    };
    let error = listen(&stage_program(), taken)
        .await
        .unwrap_err()
        .to_string();
    let start = format!(
        "listening on 127.0.0.1:{} (tcp), held by process ",
        listening.proxy_port
    );
    assert!(error.starts_with(&start), "{error}");
    destroy(&tree.base).await.unwrap();
}

/// What a server tries of others: PID is a process of its user, NAME a socket without a path.
const OTHERS: &str = r#"
import os, signal, socket, sys, tempfile
pid, name = int(sys.argv[1]), sys.argv[2]
def said(attempt):
    try:
        return str(attempt())
    except OSError as error:
        return type(error).__name__
def meet(path):
    with socket.socket(socket.AF_UNIX) as client: return client.connect(path)
def move():
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        open(one + "/a", "w").close()
        os.rename(one + "/a", two + "/a")
        os.link(two + "/a", one + "/a")
child = os.fork()
if child == 0: signal.pause()
print("memory", said(lambda: os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR))))
print("signal", said(lambda: os.kill(pid, 0)))
print("abstract", said(lambda: meet("\0" + name)))
print("bus", said(lambda: meet(f"/run/dbus/{name}")))
print("seen", sorted(os.listdir("/run/dbus")))
print("resolver", said(lambda: open("/run/systemd/resolve/stub-resolv.conf").read().count("exeat")))
print("hidden", said(lambda: os.stat("/run/systemd/resolve/" + name)))
print("write", said(lambda: os.mkdir("/run/systemd/x")))
print("rename", said(move))
print("child", said(lambda: os.kill(child, signal.SIGKILL)))
"#;

/// A process of nobody's outside the server, and sockets of services that would act for it.
struct Outside {
    process: std::process::Child,
    name: String,
    made: Vec<PathBuf>,
    _listeners: [UnixListener; 2],
}

impl Outside {
    fn new(name: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let bus = Path::new("/run/dbus").join(&name);
        fs::create_dir_all("/run/dbus").unwrap();
        let by_path = UnixListener::bind(&bus).unwrap();
        let opened = std::process::Command::new("chmod")
            .arg("777")
            .arg(&bus)
            .status();
        assert!(opened.unwrap().success());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let resolver = Path::new("/run/systemd/resolve");
        fs::create_dir_all(resolver).unwrap();
        let own = resolver.join(&name);
        fs::write(&own, "").unwrap();
        let mut made = vec![bus, own];
        // Where systemd-resolved runs it is there already.
        let stub = resolver.join("stub-resolv.conf");
        if !stub.exists() {
            fs::write(&stub, "# exeat\n").unwrap();
            made.push(stub);
        }
        let mut process = std::process::Command::new("setpriv");
        process.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        process.args(["--no-new-privs", "sleep", "600"]);
        Self {
            process: process.spawn().unwrap(),
            name,
            made,
            _listeners: [by_path, UnixListener::bind_addr(&address).unwrap()],
        }
    }

    fn arguments(&self) -> [String; 2] {
        [self.process.id().to_string(), self.name.clone()]
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        for path in &self.made {
            fs::remove_file(path).unwrap();
        }
    }
}

#[tokio::test]
async fn nobody_outside_acts_for_a_server() {
    let tree = tree("apart");
    let outside = Outside::new(&format!("{}", tree.base.file_name().unwrap().display()));
    let said = |text: &str, what: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let found = lines.find(|(key, _)| *key == what);
        found.map(|(_, said)| said.to_owned()).unwrap_or_default()
    };

    // Without Exeat each of it succeeds.
    let mut free = std::process::Command::new("setpriv");
    free.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "/usr/bin/python3",
        "-c",
        OTHERS,
    ]);
    let free = free.args(outside.arguments()).output().unwrap();
    let text = String::from_utf8(free.stdout).unwrap();
    for what in ["signal", "abstract", "bus", "rename", "child"] {
        assert_eq!(said(&text, what), "None", "{what}: {text}");
    }
    let yama = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    if yama.is_err() || yama.is_ok_and(|scope| scope.trim() == "0") {
        assert_eq!(said(&text, "memory"), "None", "{text}");
    }

    let mut order = start(&tree, "");
    order.program = "/usr/bin/python3".into();
    order.arguments = ["-c".to_owned(), OTHERS.to_owned()]
        .into_iter()
        .chain(outside.arguments())
        .collect();
    order.trust = Some(Trust {
        bundle: "/".into(),
        java: "/".into(),
        covers: Vec::new(),
    });
    let text = output(order).await;
    for (what, wanted) in [
        ("memory", "PermissionError"),
        ("signal", "PermissionError"),
        ("abstract", "PermissionError"),
        ("bus", "FileNotFoundError"),
        ("seen", "[]"),
        ("hidden", "FileNotFoundError"),
        ("write", "PermissionError"),
        ("rename", "None"),
        ("child", "None"),
    ] {
        assert_eq!(said(&text, what), wanted, "{what}: {text}");
    }
    assert!(said(&text, "resolver").parse::<u32>().is_ok(), "{text}");
    destroy(&tree.base).await.unwrap();
}
