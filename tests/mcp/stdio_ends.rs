//! Who starts a server and how that ends: users whom policy does not let, signals, servers that hang or leave
//! something behind, and servers that are cut off.

use std::fs;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::Command;

use exeat_tests::Lab;
use exeat_tests::daemon::{Daemon, binary};
use exeat_tests::process::{must, run};
use exeat_tests::stdio::Session;
use exeat_tests::wait::{wait_for, wait_until};
use rustix::process::{Signal, kill_process, test_kill_process};
use serde_json::{Value, json};

use crate::stdio::{ALL, Wire, alive, policy, wired};
use crate::stdio_faults::{Beside, ask, ended, odd, pid};
use crate::world::LIMIT;

/// Waits until the server's standard error, as its host gets it, has a line that begins so; the rest of that line.
async fn errs(lab: &Lab, begins: &str) -> String {
    let path = lab.directory().join("run-odd.err");
    wait_for(&format!("the server says {begins}"), LIMIT, async || {
        let text = fs::read_to_string(&path).ok()?;
        let mut lines = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        lines.find_map(|line| Some(line.strip_prefix(begins)?.trim().to_owned()))
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_of_the_host_reach_the_server() {
    let lab = Lab::new().unwrap();
    let script = "for s in HUP INT QUIT USR1 USR2 WINCH; do trap \"echo got-$s >&2\" $s; done
      trap \"echo got-TERM >&2; exit 7\" TERM
      echo ready >&2
      while :; do sleep 0.05; done"
        .replace('\n', ";");
    let daemon = lab.daemon(&odd(&lab, &script)).await.unwrap();
    let mut session = daemon.run("odd").unwrap();
    errs(&lab, "ready").await;
    let launcher = pid(session.pid().unwrap());
    for (name, signal) in [
        ("INT", Signal::INT),
        ("HUP", Signal::HUP),
        ("QUIT", Signal::QUIT),
        ("USR1", Signal::USR1),
        ("USR2", Signal::USR2),
        ("WINCH", Signal::WINCH),
        ("TERM", Signal::TERM),
    ] {
        kill_process(launcher, signal).unwrap();
        errs(&lab, &format!("got-{name}")).await;
    }
    // Only the last one ended it, and its own status is the launcher's.
    assert_eq!(session.line().await.unwrap(), None);
    assert_eq!(session.close().await.unwrap().code(), Some(7));
    ended(&daemon, "the server ended").await;
}

/// Whether a process is stopped; `proc_pid_stat(5)`.
fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
    state.is_some_and(|state| state.starts_with('T'))
}

/// As at a terminal, where each job is a process group of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_stopped_and_goes_on_with_what_started_it() {
    let lab = Lab::new().unwrap();
    let told = lab.directory().join("told");
    fs::write(&told, "").unwrap();
    must("chmod", &[Path::new("666"), &told]).unwrap();
    // It starts nothing while it is stopped: a shell whose new process is stopped before it executes is not stopped
    // itself, but waits (vfork).
    let script = format!(
        "trap \"echo got-CONT >&2\" CONT; trap \"echo TERM >{}; exit\" TERM; sleep 600 & echo pid $$ >&2; \
         while :; do wait; done",
        told.display()
    );
    let daemon = lab.daemon(&odd(&lab, &script)).await.unwrap();
    let mut command = lab.exeat(&["run", "odd"]).unwrap();
    command.process_group(0);
    let log = lab.directory().join("run-odd.err");
    let session = Session::start(command, &log).unwrap();
    let server: u32 = errs(&lab, "pid ").await.parse().unwrap();
    let launcher = session.pid().unwrap();
    for times in 1..=2 {
        kill_process(pid(launcher), Signal::TSTP).unwrap();
        wait_until("both are stopped", LIMIT, || {
            is_stopped(launcher) && is_stopped(server)
        })
        .await
        .unwrap();
        kill_process(pid(launcher), Signal::CONT).unwrap();
        wait_until("both go on", LIMIT, || {
            let said = fs::read_to_string(&log).unwrap();
            !is_stopped(launcher)
                && !is_stopped(server)
                && said.matches("got-CONT").count() == times
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}: {}", fs::read_to_string(&log).unwrap()));
    }

    // A stopped server ends as kindly as others when what started it is gone.
    kill_process(pid(launcher), Signal::TSTP).unwrap();
    wait_until("it is stopped", LIMIT, || is_stopped(server))
        .await
        .unwrap();
    drop(session);
    wait_until("it takes its leave", LIMIT, || {
        fs::read_to_string(&told).unwrap() == "TERM\n"
    })
    .await
    .unwrap();
    ended(&daemon, "the server ended").await;
}

/// A session without a shell: nobody could continue what is stopped there, and the kernel stops nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_could_continue_is_not_stopped() {
    not_stopped(&["setsid"]).await;
}

/// As in a container whose first process it is, and which led no session when it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_no_session_that_it_sees_is_not_stopped() {
    not_stopped(&["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]).await;
}

async fn not_stopped(within: &[&str]) {
    let lab = Lab::new().unwrap();
    let script = "trap \"echo got-USR1 >&2\" USR1; echo pid $$ >&2; while :; do sleep 0.05; done";
    let daemon = lab.daemon(&odd(&lab, script)).await.unwrap();
    let inside = lab.exeat(&["run", "odd"]).unwrap();
    let mut command = Command::new(within[0]);
    command.args(&within[1..]);
    command.arg(inside.get_program()).args(inside.get_args());
    let log = lab.directory().join("run-odd.err");
    let session = Session::start(command, &log).unwrap();
    let server: u32 = errs(&lab, "pid ").await.parse().unwrap();
    let launcher = launched(session.pid().unwrap());
    kill_process(pid(launcher), Signal::TSTP).unwrap();
    // By the second one's end the first signal was looked at.
    for times in 1..=2 {
        kill_process(pid(launcher), Signal::USR1).unwrap();
        wait_until("it is passed on", LIMIT, || {
            fs::read_to_string(&log)
                .unwrap()
                .matches("got-USR1")
                .count()
                == times
        })
        .await
        .unwrap();
    }
    assert!(!is_stopped(launcher) && !is_stopped(server));
    drop(session);
    ended(&daemon, "the server ended").await;
}

/// The process itself, or that which it started.
fn launched(process: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap();
    let mut children = children.split_whitespace();
    children
        .next()
        .map_or(process, |child| child.parse().unwrap())
}

/// It reads nothing and says nothing: its host may go on, cancel and end it as any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_holds_nobody() {
    let lab = Lab::new().unwrap();
    let daemon = lab
        .daemon(&odd(&lab, "echo hangs >&2; exec sleep 600"))
        .await
        .unwrap();
    let mut beside = Beside::new(&lab).await;
    let mut session = daemon.run("odd").unwrap();
    errs(&lab, "hangs").await;
    for id in [1, 2] {
        ask(&mut session, id).await;
    }
    session
        .send(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } }))
        .await
        .unwrap();
    let of = |id: &'static str| {
        move |record: &Value| record["mcp"]["id"] == id && record["mcp"]["method"] == "tools/call"
    };
    let cancelled = daemon.record("the cancelled call", of("1")).await.unwrap();
    assert_eq!(
        cancelled["outcome"]["error"], "the client cancelled its request",
        "{cancelled}"
    );
    assert_eq!(cancelled["outcome"]["status"], "abandoned", "{cancelled}");
    beside.works().await;
    // What waits is told with the server's end, which a host brings about as it would without Exeat.
    kill_process(pid(session.pid().unwrap()), Signal::TERM).unwrap();
    let answer = session.receive().await.unwrap();
    assert_eq!(answer["id"], 2, "{answer}");
    assert_eq!(
        answer["error"]["data"]["reason"], "upstream_reset",
        "{answer}"
    );
    assert_eq!(session.line().await.unwrap(), None);
    assert_eq!(session.close().await.unwrap().signal(), Some(15));
    let call = daemon.record("the call", of("2")).await.unwrap();
    assert_eq!(call["outcome"]["status"], "failed", "{call}");
    ended(&daemon, "the server ended").await;
    beside.works().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_leaves_its_session_does_not_leave_its_workload() {
    let lab = Lab::new().unwrap();
    // Twice forked, in a session of its own, and deaf; the server itself ends when it is told to.
    let script = "grep ^0:: /proc/self/cgroup >&2; \
        (setsid sh -c \"trap : TERM HUP; echo left \\$\\$ >&2; exec 0<&- 1>&-; while :; do sleep 600; done\" &); \
        read line; exit 0";
    let daemon = lab.daemon(&odd(&lab, script)).await.unwrap();
    let mut beside = Beside::new(&lab).await;
    let mut session = daemon.run("odd").unwrap();
    let left: u32 = errs(&lab, "left ").await.parse().unwrap();
    let cgroup = errs(&lab, "0::").await;
    let cgroup = exeat_tests::cgroup::mount()
        .unwrap()
        .join(cgroup.trim_start_matches('/'));
    let processes = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
    assert!(
        processes.lines().any(|line| line == left.to_string()),
        "{processes}"
    );
    ask(&mut session, 1).await;
    let answer = session.receive().await.unwrap();
    assert_eq!(
        answer["error"]["data"]["reason"], "upstream_reset",
        "{answer}"
    );
    assert_eq!(session.line().await.unwrap(), None);
    assert_eq!(session.close().await.unwrap().code(), Some(0));
    wait_until("nothing of it is left", LIMIT, || {
        !cgroup.exists() && test_kill_process(pid(left)).is_err()
    })
    .await
    .unwrap();
    let end = ended(&daemon, "the server ended").await;
    assert_eq!(end["workload"]["name"], "odd", "{end}");
    beside.works().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_cut_off_ends_and_comes_back() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, ALL)).await.unwrap();
    let mut session = wired(&daemon, &mut wire).await;
    ask(&mut session, 1).await;
    wire.hears("\"id\":1").await;
    let order = ["servers", "disconnect", "wire", "--reason", "leaks"];
    let done = daemon.cli(&order).await.unwrap();
    assert!(done.status.success(), "{done:?}");
    assert_eq!(done.json().unwrap()["state"], "disconnected", "{done:?}");
    let answer = session.receive().await.unwrap();
    assert_eq!(answer["id"], 1, "{answer}");
    assert_eq!(
        answer["error"]["data"]["reason"], "server_disconnected",
        "{answer}"
    );
    assert_eq!(session.line().await.unwrap(), None);
    session.close().await.unwrap();
    ended(&daemon, "the server was disconnected").await;
    let call = daemon
        .record("the call", |record| record["mcp"]["method"] == "tools/call")
        .await
        .unwrap();
    assert_ne!(call["outcome"]["status"], "done", "{call}");
    assert_eq!(
        call["outcome"]["error"], "the server was disconnected",
        "{call}"
    );
    // Nobody starts it meanwhile, and the host is told why.
    let mut again = daemon.run("wire").unwrap();
    assert_eq!(again.line().await.unwrap(), None);
    assert!(!again.close().await.unwrap().success());
    let said = fs::read_to_string(lab.directory().join("run-wire.err")).unwrap();
    assert!(said.contains("disconnected by an administrator"), "{said}");
    let order = ["servers", "reconnect", "wire"];
    let done = daemon.cli(&order).await.unwrap();
    assert_eq!(done.json().unwrap()["state"], "connected", "{done:?}");
    let mut session = wired(&daemon, &mut wire).await;
    ask(&mut session, 2).await;
    wire.hears("\"id\":2").await;
    wire.answers(&json!(2));
    assert_eq!(session.receive().await.unwrap()["id"], 2);
    assert_eq!(session.close().await.unwrap().code(), Some(0));
}

/// More than everything on the way to an end that does not read holds: of three such messages one is being written, one
/// waits to be, and there is no room for the third.
const LARGE: usize = 2 << 20;

/// A call with so much in it.
fn large(id: u32) -> Value {
    let params = json!({ "name": "x", "arguments": { "text": "x".repeat(LARGE) } });
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params })
}

/// Waits for the line of the log about the call with `id` that `wanted` is looked for in.
async fn line(daemon: &Daemon<'_>, id: u32, wanted: impl Fn(&Value) -> bool) -> Value {
    let id = id.to_string();
    wait_for(&format!("the record of {id}"), LIMIT, async || {
        let mut lines = daemon.audit_lines().ok()?.into_iter();
        lines.find(|line| line["mcp"]["id"] == *id && wanted(line))
    })
    .await
    .unwrap()
}

async fn cut_off(daemon: &Daemon<'_>, server: &str) {
    let order = ["servers", "disconnect", server, "--reason", "hangs"];
    let done = daemon.cli(&order).await.unwrap();
    assert!(done.status.success(), "{done:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_has_not_read_when_it_is_cut_off_is_answered() {
    let lab = Lab::new().unwrap();
    let daemon = lab
        .daemon(&odd(&lab, "echo hangs >&2; exec sleep 600"))
        .await
        .unwrap();
    let mut session = daemon.run("odd").unwrap();
    errs(&lab, "hangs").await;
    for id in [1, 2, 3] {
        session.send(&large(id)).await.unwrap();
    }
    line(&daemon, 3, |line| line["open"].is_object()).await;
    cut_off(&daemon, "odd").await;
    let mut answered = Vec::new();
    for _ in 0..3 {
        let answer = session.receive().await.unwrap();
        let reason = &answer["error"]["data"]["reason"];
        assert_eq!(reason, "server_disconnected", "{answer}");
        answered.push(answer["id"].as_u64().unwrap());
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, 2, 3]);
    assert_eq!(session.line().await.unwrap(), None);
    for id in [1, 2, 3] {
        let call = line(&daemon, id, |line| line["outcome"].is_object()).await;
        assert_eq!(call["outcome"]["status"], "abandoned", "{call}");
        let why = "the server was disconnected";
        assert_eq!(call["outcome"]["error"], why, "{call}");
    }
    session.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_host_has_not_read_when_its_server_is_cut_off_reaches_it() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, ALL)).await.unwrap();
    let mut session = wired(&daemon, &mut wire).await;
    for id in 1..=4 {
        ask(&mut session, id).await;
        wire.hears(&format!("\"id\":{id},")).await;
    }
    let content = json!([{ "type": "text", "text": "x".repeat(LARGE) }]);
    for id in 1..=3 {
        wire.say(&json!({ "jsonrpc": "2.0", "id": id, "result": { "content": content } }));
        line(&daemon, id, |line| line["outcome"]["status"] == "done").await;
    }
    cut_off(&daemon, "wire").await;
    // What the log says was done the host has, and what is not answered it is told.
    for id in 1..=4 {
        let answer = session.receive().await.unwrap();
        assert_eq!(answer["id"], id, "{}", answer["error"]);
        assert_eq!(answer["result"].is_object(), id < 4, "{}", answer["error"]);
    }
    let call = line(&daemon, 4, |line| line["outcome"].is_object()).await;
    assert_eq!(call["outcome"]["status"], "abandoned", "{call}");
    assert_eq!(session.line().await.unwrap(), None);
    session.close().await.unwrap();
}

/// `exeat run` of this server as this user.
pub(crate) fn as_user(lab: &Lab, user: &str, server: &str) -> Command {
    let mut host = lab.inside.command("setpriv");
    host.args(["--reuid", user, "--clear-groups", "--"])
        .arg(binary().unwrap())
        .args(["run", server, "--config"])
        .arg(lab.directory().join("exeat.yaml"));
    host
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_policy_does_not_let_starts_nothing() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let rules = "identities: { staff: { user: bin } }
rules: [{ id: staff-only, who: [staff], tools: [\"*\"], effect: allow }]";
    let daemon = lab.daemon(&policy(&lab, rules)).await.unwrap();
    // Not even root, whom the rule does not name.
    for (user, uid) in [("games", 5), ("root", 0)] {
        let done = run(&mut as_user(&lab, user, "wire"), LIMIT).await.unwrap();
        assert!(!done.status.success(), "{done:?}");
        assert_eq!(done.stdout, "", "{user}");
        let said = "`wire` may not be started by this user";
        assert!(done.stderr.contains(said), "{user}: {}", done.stderr);
        let record = daemon
            .record("the refused start", |record| {
                record["lifecycle"]["event"] == "run" && record["identity"]["uid"] == uid
            })
            .await
            .unwrap();
        assert_eq!(record["lifecycle"]["detail"], "wire", "{record}");
        assert_eq!(record["identity"]["user"], user, "{record}");
        assert_eq!(record["decision"]["effect"], "deny", "{record}");
        assert_eq!(record["outcome"]["status"], "refused", "{record}");
    }
    let status = daemon.status().await.unwrap();
    assert_eq!(status["workloads"], json!([]), "{status}");
    assert_eq!(wire.heard(), "");
    let started = |record: &Value| record["lifecycle"]["event"] == "session_started";
    assert!(!daemon.audit().unwrap().iter().any(started));
    // Whom it names it lets.
    let log = lab.directory().join("run-bin.err");
    let mut session = Session::start(as_user(&lab, "bin", "wire"), &log).unwrap();
    alive(&mut session, &mut wire, "begin").await;
    session.close().await.unwrap();
}

/// Who called `exeat run` is what the kernel says of it, down to the bytes of its program.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_is_known_by_its_program() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, ALL)).await.unwrap();
    // A program that nobody else runs, started by a shell: host, and the first of its ancestors.
    let host = lab.directory().join("a host");
    fs::copy("/usr/bin/dash", &host).unwrap();
    must("chmod", &[Path::new("755"), &host]).unwrap();
    let mut command = lab.inside.command("/usr/bin/dash");
    command.args([
        "-c",
        r#""$0" -c '"$0" run wire --config "$1"; exit $?' "$1" "$2"; exit $?"#,
    ]);
    command.args([
        &host,
        &binary().unwrap(),
        &lab.directory().join("exeat.yaml"),
    ]);
    let log = lab.directory().join("host.err");
    let mut session = Session::start(command, &log).unwrap();
    alive(&mut session, &mut wire, "begin").await;
    let shell = session.pid().unwrap();
    let started = daemon
        .record("the session's beginning", |record| {
            record["lifecycle"]["event"] == "session_started"
        })
        .await
        .unwrap();
    let told = &started["session"]["host"];
    assert_eq!(told["exe"], host.to_str().unwrap(), "{started}");
    let sum = must("sha256sum", &[Path::new("/usr/bin/dash")]).unwrap();
    let digest = sum.split_whitespace().next().unwrap();
    assert_eq!(told["sha256"], digest, "{started}");
    assert_eq!(started["session"]["host_unknown"], Value::Null, "{started}");
    let first = &told["ancestors"][0];
    assert!(first.to_string().contains("/usr/bin/dash"), "{started}");
    assert!(first.to_string().contains(&shell.to_string()), "{started}");
    assert!(
        told["ancestors"]
            .to_string()
            .contains(&std::process::id().to_string()),
        "{started}"
    );
    // Every record of the session names it, by its digest too.
    session.close().await.unwrap();
    let end = daemon
        .record("the session's end", |record| {
            record["lifecycle"]["event"] == "session_ended"
        })
        .await
        .unwrap();
    assert_eq!(end["session"]["host"]["sha256"], digest, "{end}");
}

/// A program that takes longer to read than a start waits for it: its host is named, and why its hash is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_could_not_be_hashed_is_said_to_be_so() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, ALL)).await.unwrap();
    let path = lab.directory().join("large");
    fs::copy("/usr/bin/dash", &path).unwrap();
    must("chmod", &[Path::new("755"), &path]).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    let whole = file.metadata().unwrap().len();
    file.set_len(16 << 30).unwrap();
    drop(file);
    let mut command = lab.inside.command(&path);
    command.args(["-c", r#""$0" run wire --config "$1"; exit $?"#]);
    command.args([&binary().unwrap(), &lab.directory().join("exeat.yaml")]);
    let log = lab.directory().join("host.err");
    let mut session = Session::start(command, &log).unwrap();
    alive(&mut session, &mut wire, "begin").await;
    let started = daemon
        .record("the session's beginning", |record| {
            record["lifecycle"]["event"] == "session_started"
        })
        .await
        .unwrap();
    let told = &started["session"];
    assert_eq!(told["host"]["exe"], path.to_str().unwrap(), "{started}");
    assert_eq!(told["host"]["sha256"], Value::Null, "{started}");
    let why = "its executable was not hashed in time";
    assert_eq!(told["host_unknown"], why, "{started}");
    session.close().await.unwrap();
    // Nor does the daemon read on.
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(whole).unwrap();
}

/// What enters the kernel by another door than x86-64's own: tried bare, where it opens, and under Exeat.
const DOORS: &str = r#"
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number):
    ctypes.set_errno(0)
    return 0 if libc.syscall(number, 0, 0, 0, 0, 0, 0) >= 0 else ctypes.get_errno()
# PTRACE_TRACEME by the number that x32 has for itself, and socket(2) by the one that it shares.
x32 = [call(0x40000000 | number) for number in (521, 41)]
# mov eax, 20 (getpid); int 0x80; ret
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(b"\xb8\x14\0\0\0\xcd\x80\xc3")
enter = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
child = os.fork()
if child == 0:
    os._exit(0 if enter() == os.getpid() else 1)
print("doors", *x32, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=sys.stderr)
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_doors_into_the_kernel_are_shut() {
    let lab = Lab::new().unwrap();
    let script = lab.directory().join("doors.py");
    fs::write(&script, DOORS).unwrap();
    must("chmod", &[Path::new("644"), &script]).unwrap();
    let mut bare = lab.inside.command("/usr/bin/python3");
    let bare = run(bare.arg(&script), LIMIT).await.unwrap();
    assert!(
        bare.stderr.ends_with(" 0\n"),
        "int 0x80 works here: {bare:?}"
    );
    let command = format!("exec /usr/bin/python3 {}", script.display());
    let daemon = lab.daemon(&odd(&lab, &command)).await.unwrap();
    let mut session = daemon.run("odd").unwrap();
    // EPERM twice, and a death by SIGSYS.
    assert_eq!(errs(&lab, "doors ").await, "1 1 -31");
    assert_eq!(session.line().await.unwrap(), None);
    assert_eq!(session.close().await.unwrap().code(), Some(0));
}
