//! A daemon in small: one loaded kernel side, one gate that tells every client what it knows of it.

use exeat_ebpf::{
    Action, Event, EventKind, EventStream, Gate, Kernel, Layout, Protocol, Settings, probe,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, mpsc};
use std::thread;
use std::time::Duration;
use std::{fs, future};
use tokio::io::AsyncWriteExt as _;
use tokio::runtime;

/// How long any test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The world that most tests share; each has its own workload in it.
pub(crate) static SHARED: LazyLock<World> = LazyLock::new(|| World::new("shared"));

static NEXT_WORKLOAD: AtomicU32 = AtomicU32::new(1);

/// Events of one ring, as they come.
#[derive(Clone, Default)]
pub(crate) struct Events(Arc<(Mutex<Vec<Event>>, Condvar)>);

impl Events {
    fn gather(&self, mut stream: impl FnMut() -> EventStream + Send + 'static) {
        let here = self.clone();
        thread::spawn(move || {
            runtime().block_on(async {
                let mut stream = stream();
                loop {
                    let event = stream.next().await.unwrap();
                    here.0.0.lock().unwrap().push(event);
                    here.0.1.notify_all();
                }
            });
        });
    }

    /// Waits for an event; panics with what came instead.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, wanted: impl Fn(&Event) -> bool) -> Event {
        let guard = self.0.0.lock().unwrap();
        let absent = |all: &mut Vec<Event>| !all.iter().any(&wanted);
        let (guard, _) = self
            .0
            .1
            .wait_timeout_while(guard, PATIENCE, absent)
            .unwrap();
        let found = guard.iter().find(|event| wanted(event)).cloned();
        found.unwrap_or_else(|| {
            panic!(
                "no event: {what}; these came: {:#?}",
                guard.iter().rev().take(10).collect::<Vec<_>>()
            )
        })
    }
}

pub(crate) struct World {
    pub(crate) kernel: Arc<Mutex<Kernel>>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) layout: Layout,
    pub(crate) settings: Settings,
    pub(crate) refusals: Events,
    pub(crate) processes: Events,
    pub(crate) beating: Arc<AtomicBool>,
    arrivals: Arrivals,
}

/// How many connections of each workload the gate was told of.
type Arrivals = Arc<Mutex<BTreeMap<u32, u32>>>;

pub(crate) fn runtime() -> runtime::Runtime {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Directories of a world, below its own part of the hierarchy so that nobody else is concerned.
pub(crate) fn layout(name: &str) -> Layout {
    let features = probe().unwrap();
    let root = features.cgroup_root.join(format!("exeat-test-{name}"));
    fs::create_dir_all(&root).unwrap();
    Layout {
        bpffs: PathBuf::from(format!("/sys/fs/bpf/exeat-test-{name}")),
        managed: root.join("w"),
        gate: root.join("gate"),
        cgroup_root: root,
    }
}

/// Removes pins and cgroups, the deepest first, when this process has ended, however it ends.
///
/// One process does it for all worlds, and it is there before the first of them: whoever makes a world becomes a member
/// of its gate's cgroup, and whatever is started after that is a member too, which another's removal would kill.
pub(crate) fn clean_up_afterwards(layout: &Layout) {
    static PLACES: LazyLock<Mutex<ChildStdin>> = LazyLock::new(|| Mutex::new(remover()));
    let (pins, root) = (layout.bpffs.display(), layout.cgroup_root.display());
    writeln!(PLACES.lock().unwrap(), "{pins} {root}").unwrap();
}

/// Starts what removes the places that it is told of, once this process holds its standard input no more.
fn remover() -> ChildStdin {
    let script = r#"places=$(cat); t=0; left=1
while [ "$left" ] && [ $t -lt 100 ]; do t=$((t + 1)); left=
    while read -r pins root; do rm -rf "$pins"
        find "$root" -depth -type d -exec rmdir {} + 2> /dev/null; [ -e "$root" ] || continue
        left=1; for p in $(find "$root" -name cgroup.procs -exec cat {} +); do kill -9 $p; done
    done <<END
$places
END
    [ -z "$left" ] || sleep 0.2; done"#;
    let mut child = Command::new("sh")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    let places = child.stdin.take().unwrap();
    // It ends after this process.
    Box::leak(Box::new(child));
    places
}

/// Creates sockets as a member of a cgroup: accepted sockets belong to the cgroup that their
/// listener was created in. Moving a process moves all its threads, so one at a time.
fn listeners(cgroup: &Path) -> (Vec<TcpListener>, Vec<UdpSocket>) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap();
    fs::write(cgroup.join("cgroup.procs"), "0").unwrap();
    let (v4, v6) = (
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    );
    let tcp = TcpListener::bind((v4, 0)).unwrap();
    let udp = UdpSocket::bind((v4, 0)).unwrap();
    let tcp6 = TcpListener::bind((v6, tcp.local_addr().unwrap().port())).unwrap();
    let udp6 = UdpSocket::bind((v6, udp.local_addr().unwrap().port())).unwrap();
    drop(turn);
    (vec![tcp, tcp6], vec![udp, udp6])
}

impl World {
    pub(crate) fn new(name: &str) -> Self {
        let layout = layout(&format!("{name}-{}", std::process::id()));
        clean_up_afterwards(&layout);
        fs::create_dir_all(&layout.gate).unwrap();
        let (tcp, udp) = listeners(&layout.gate);
        let settings = Settings {
            proxy_port: tcp[0].local_addr().unwrap().port(),
            dns_port: udp[0].local_addr().unwrap().port(),
        };
        let kernel = Kernel::start(&layout, settings).unwrap();
        assert!(!kernel.adopted());
        let gate = Arc::new(Gate::from_descriptors(kernel.gate_descriptors().unwrap()).unwrap());
        let kernel = Arc::new(Mutex::new(kernel));
        let (refusals, processes) = (Events::default(), Events::default());
        let source = Arc::clone(&gate);
        refusals.gather(move || source.events().unwrap());
        let source = Arc::clone(&kernel);
        processes.gather(move || source.lock().unwrap().process_events().unwrap());
        let beating = Arc::new(AtomicBool::new(true));
        beat(Arc::clone(&gate), Arc::clone(&beating));
        let arrivals = Arrivals::default();
        serve(&gate, &arrivals, tcp, udp);
        Self {
            kernel,
            gate,
            layout,
            settings,
            refusals,
            processes,
            beating,
            arrivals,
        }
    }

    /// A new cgroup below the workloads' parent, managed.
    pub(crate) fn workload(&self, name: &str) -> Workload<'_> {
        let cgroup = self.layout.managed.join(name);
        fs::create_dir(&cgroup).unwrap();
        self.manage(cgroup)
    }

    pub(crate) fn manage(&self, cgroup: PathBuf) -> Workload<'_> {
        let number = NEXT_WORKLOAD.fetch_add(1, Ordering::Relaxed);
        self.kernel.lock().unwrap().manage(&cgroup, number).unwrap();
        Workload {
            world: self,
            cgroup,
            number,
        }
    }

    /// A cgroup that the programs see and that is nobody's.
    pub(crate) fn outside(&self) -> PathBuf {
        let path = self.layout.cgroup_root.join("outside");
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Runs a script as a member of a cgroup; what it says is its result.
    #[track_caller]
    pub(crate) fn run_in(&self, cgroup: &Path, script: &str) -> Value {
        let script = self.spawn_in(cgroup, script);
        finished(script).unwrap_or_else(|failure| {
            let refusals = self.refusals.0.0.lock().unwrap();
            let last: Vec<_> = refusals.iter().rev().take(10).collect();
            panic!("{failure}; the last refusals: {last:#?}")
        })
    }

    pub(crate) fn spawn_in(&self, cgroup: &Path, script: &str) -> Child {
        spawn_in(cgroup, self.settings, script)
    }
}

/// Runs a script as a member of a cgroup; what it says is its result.
#[track_caller]
pub(crate) fn run_in(cgroup: &Path, settings: Settings, script: &str) -> Value {
    said(spawn_in(cgroup, settings, script))
}

/// What a script says at its end.
#[track_caller]
pub(crate) fn said(script: Child) -> Value {
    finished(script).unwrap_or_else(|failure| panic!("{failure}"))
}

/// What a script says at its end, or how it failed.
fn finished(script: Child) -> Result<Value, String> {
    let output = script.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    if !output.status.success() {
        return Err(format!("the script failed: {text}"));
    }
    let line = text.lines().last().ok_or("the script says nothing")?;
    serde_json::from_str(line).map_err(|error| format!("{error}: {text}"))
}

/// The error that a packet's refusal gives: EPERM, as a firewall's, in the words of the scripts' `name`.
pub(crate) fn dropped() -> &'static str {
    if probe().unwrap().refusal_errno {
        "EPERM"
    } else {
        "ECONNREFUSED"
    }
}

pub(crate) fn spawn_in(cgroup: &Path, settings: Settings, script: &str) -> Child {
    let Settings {
        proxy_port,
        dns_port,
    } = settings;
    let old = if probe().unwrap().refusal_errno {
        "False"
    } else {
        "True"
    };
    let prelude =
        format!("PROXY, DNS, OLD = {proxy_port}, {dns_port}, {old}\n{PRELUDE}\n{script}\n");
    // The shell joins, then becomes the interpreter: all its sockets are born inside.
    Command::new("sh")
        .args([
            "-c",
            "echo $$ > \"$1/cgroup.procs\" && exec /usr/bin/python3 -c \"$2\"",
            "sh",
        ])
        .arg(cgroup)
        .arg(prelude)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What every script has.
const PRELUDE: &str = r#"
import errno, json, os, socket, struct, sys, time
from socket import *
def say(*values): print(json.dumps(values[0] if len(values) == 1 else values), flush=True)
def line(s):
    s.settimeout(8); b = b''
    while b'\n' not in b:
        c = s.recv(256)
        if not c: break
        b += c
    return b.decode().split('\n')[0]
def name(f):
    "The name of the error that a call fails with, or OK, and whether it came at once."
    t = time.monotonic()
    try: f(); n = 'OK'
    except TimeoutError: n = 'ETIMEDOUT'
    except OSError as e:
        n = errno.errorcode.get(e.errno, str(e))
        # Kernels without a choice of errors say EPERM of an address too: where EPERM is meant, see `dropped`. A
        # socket that is refused is never made.
        made = e.__traceback__
        while made.tb_next: made = made.tb_next
        if OLD and n == 'EPERM' and made.tb_frame.f_code.co_name != '__init__': n = 'ECONNREFUSED'
    return n if time.monotonic() - t < 0.5 else n + ' late'
def tcp(address, port, family=AF_INET):
    s = socket(family, SOCK_STREAM); s.settimeout(8); s.connect((address, port)); return s
def query(n=0x1234): return struct.pack('>HHHHHH', n, 0x100, 1, 0, 0, 0) + b'\x01x\0\0\1\0\1'
from socket import socket
"#;

pub(crate) struct Workload<'a> {
    pub(crate) world: &'a World,
    pub(crate) cgroup: PathBuf,
    pub(crate) number: u32,
}

impl Workload<'_> {
    #[track_caller]
    pub(crate) fn run(&self, script: &str) -> Value {
        self.world.run_in(&self.cgroup, script)
    }

    pub(crate) fn allow(&self, address: &str, port: u16) {
        let address = address.parse().unwrap();
        let gate = &self.world.gate;
        gate.allow(self.number, address, port, Protocol::Tcp, Action::Redirect)
            .unwrap();
    }

    /// How many of its connections have arrived at the gate.
    pub(crate) fn arrivals(&self) -> u32 {
        let arrivals = self.world.arrivals.lock().unwrap();
        arrivals.get(&self.number).copied().unwrap_or_default()
    }

    /// What the gate tells a client that it knows.
    pub(crate) fn origin(&self, address: &str, port: u16, family: u8) -> String {
        format!("{} {address} {port} {family}", self.number)
    }

    #[track_caller]
    pub(crate) fn event(&self, kind: EventKind, wanted: impl Fn(&Event) -> bool) -> Event {
        self.world
            .refusals
            .wait(&format!("{kind:?} of {}", self.number), |event| {
                event.kind == kind && event.workload == self.number && wanted(event)
            })
    }
}

fn beat(gate: Arc<Gate>, beating: Arc<AtomicBool>) {
    thread::spawn(move || {
        let (_never, ticks) = mpsc::channel::<()>();
        loop {
            if beating.load(Ordering::Relaxed) {
                gate.heartbeat().unwrap();
            }
            assert!(ticks.recv_timeout(Duration::from_millis(200)).is_err());
        }
    });
}

/// Says to every client what the kernel says of it, then echoes.
fn serve(gate: &Arc<Gate>, arrivals: &Arrivals, tcp: Vec<TcpListener>, udp: Vec<UdpSocket>) {
    for socket in udp {
        let gate = Arc::clone(gate);
        thread::spawn(move || answer(&gate, &socket));
    }
    let (gate, arrivals) = (Arc::clone(gate), Arc::clone(arrivals));
    thread::spawn(move || {
        runtime().block_on(async {
            for listener in tcp {
                listener.set_nonblocking(true).unwrap();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::spawn(accept(Arc::clone(&gate), Arc::clone(&arrivals), listener));
            }
            future::pending::<()>().await;
        });
    });
}

#[expect(
    clippy::infinite_loop,
    reason = "a server of tests ends with the process"
)]
async fn accept(gate: Arc<Gate>, arrivals: Arrivals, listener: tokio::net::TcpListener) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            continue;
        };
        let said = match gate.origin(&stream).unwrap() {
            Some(origin) => {
                let asked = origin.asked();
                let (number, family) = (origin.workload, origin.family);
                *arrivals.lock().unwrap().entry(number).or_default() += 1;
                format!("{number} {} {} {family}\n", asked.ip(), asked.port())
            }
            None => "unknown\n".to_owned(),
        };
        tokio::spawn(async move {
            // Clients may be gone already.
            if stream.write_all(said.as_bytes()).await.is_ok() {
                let (mut from, mut to) = stream.split();
                drop(tokio::io::copy(&mut from, &mut to).await);
            }
        });
    }
}

fn answer(gate: &Gate, socket: &UdpSocket) {
    let mut buffer = [0; 512];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        let id = u16::from_be_bytes([buffer[0], buffer[1]]);
        let said = match gate.dns_source(from, id).unwrap() {
            Some(source) => {
                // It is told once.
                assert_eq!(gate.dns_source(from, id).unwrap(), None);
                format!("{} {} {}", source.workload, source.asked, source.tgid)
            }
            None => "unknown".to_owned(),
        };
        let mut reply = buffer[..length.min(2)].to_vec();
        reply.extend(said.as_bytes());
        // A client may be gone already.
        drop(socket.send_to(&reply, from));
    }
}
