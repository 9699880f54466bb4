//! The supervisor as a whole, as root, on the real kernel, with a gate that this test binary plays.

mod pins;
mod placing;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use exeat_ebpf::Kernel;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::cgroups::{destroy, find_root};
use super::*;
use crate::channel::{GateEnd, NotStarted, RunVerdict, ToGate, ToSupervisor};
use crate::control::client::Answer;
use crate::control::command::{ServerDisconnect, ServerReconnect};
use crate::control::reply::ExitStatus;
use crate::control::{Code, Command, Connection, Reply, Responder, Run, Signal};
use crate::launch::stage::Program;
use crate::telemetry::clock;

const GATE: &str = "EXEAT_TEST_GATE";
const PATIENCE: Duration = Duration::from_secs(20);
/// As long as nothing happens.
const PAUSE: Duration = Duration::from_millis(10);

/// Not a test of its own: the gate. It writes what it hears to the audit directory.
#[test]
fn gate_process() {
    if std::env::var_os(GATE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(gate());
    }
}

#[expect(clippy::too_many_lines, reason = "one arm for each message")]
async fn gate() {
    let channel = GateEnd::from_stdin().unwrap();
    let first = channel.receive().await.unwrap().unwrap();
    let ToGate::Setup(setup) = first.message else {
        panic!("setup comes first")
    };
    assert_eq!(setup.descriptors.len(), first.descriptors.len());
    // The last descriptor is the audit directory.
    let directory = first.descriptors.last().unwrap();
    let flags =
        rustix::fs::OFlags::CREATE | rustix::fs::OFlags::APPEND | rustix::fs::OFlags::WRONLY;
    let log = rustix::fs::openat(directory, "heard", flags, 0o600.into()).unwrap();
    let mut log = fs::File::from(log);
    let mut hear =
        |message: &ToGate| writeln!(log, "{}", serde_json::to_string(message).unwrap()).unwrap();
    hear(&ToGate::Setup(setup));
    // A gate for which somebody always waits.
    let asks = || rustix::fs::statat(directory, "catch", rustix::fs::AtFlags::empty()).is_ok();
    channel.send(&ToSupervisor::Ready, &[]).await.unwrap();
    while let Some(mut received) = channel.receive().await.unwrap() {
        hear(&received.message);
        let answer = match received.message {
            ToGate::Policy { generation } => ToSupervisor::Reloaded {
                generation,
                faults: Vec::new(),
            },
            ToGate::MayRun {
                request, server, ..
            } => {
                let verdict = if server == "forbidden" {
                    RunVerdict::Refused {
                        why: NotStarted::Denied,
                        reason: "not for you".into(),
                    }
                } else {
                    RunVerdict::Permitted
                };
                ToSupervisor::RunVerdict { request, verdict }
            }
            ToGate::Settle { number } => ToSupervisor::Settled {
                number,
                fault: None,
            },
            ToGate::Session(session) => {
                join(std::mem::take(&mut received.descriptors));
                ToSupervisor::Settled {
                    number: session.number,
                    fault: None,
                }
            }
            ToGate::Client(_) => {
                let client = Responder::adopt(received.descriptors.remove(0), None).unwrap();
                client
                    .fail(Code::NotFound, "said by the gate")
                    .await
                    .unwrap();
                continue;
            }
            ToGate::Workload(_) | ToGate::Caught { .. } if asks() => {
                sleep(Duration::from_millis(1)).await;
                ToSupervisor::Catch
            }
            ToGate::Stop { .. } => {
                channel.send(&ToSupervisor::Stopped, &[]).await.unwrap();
                return;
            }
            _ => continue,
        };
        channel.send(&answer, &[]).await.unwrap();
    }
}

/// Passes the six streams of a session on unread.
fn join(descriptors: Vec<OwnedFd>) {
    let files: Vec<fs::File> = descriptors.into_iter().map(Into::into).collect();
    let Ok([input, output, errors, to, from, aside]) = <[fs::File; 6]>::try_from(files) else {
        panic!("six streams are due")
    };
    for (mut from, mut to) in [(input, to), (from, output), (aside, errors)] {
        // Not by `io::copy`, in which the kernel holds a pipe's lock while it waits.
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut part) {
                to.write_all(&part[..length]).unwrap();
            }
        });
    }
}

fn run_command(server: &str) -> Command {
    Command::Run(Run {
        server: server.into(),
        arguments: Vec::new(),
        directory: None,
        terminal: None,
    })
}

fn this_test(name: &str, variable: &str) -> Program {
    Program {
        path: std::env::current_exe().unwrap(),
        arguments: ["--exact", name, "--nocapture", "--test-threads=1"]
            .map(str::to_owned)
            .into(),
        environment: vec![(variable.to_owned(), "1".to_owned())],
    }
}

struct Daemon {
    directory: tempfile::TempDir,
    name: String,
    stop: CancellationToken,
    task: JoinHandle<Result<(), DaemonError>>,
    /// Other ends of what clients hand in: an input that ends is the end of a session.
    held: Mutex<Vec<UnixStream>>,
    _pins: pins::Pins,
}

const POLICY: &str = r#"
version: 1
servers:
  echo:
    purpose: prints what it is
    owner: test@example.com
    launch:
      command: sh
      args: [-c, "id -u; cat /proc/self/cgroup; echo $TOKEN; test -n \"$SSL_CERT_FILE\" && echo trusted; exit 7"]
      user: nobody
      env: { TOKEN: { secret: token } }
  sleeper:
    purpose: waits to be told
    owner: test@example.com
    launch: { command: sh, args: [-c, "trap 'exit 3' TERM; sleep 600 & wait"], user: nobody }
  forbidden:
    purpose: is not started
    owner: test@example.com
    launch: { command: "true", user: nobody }
"#;

impl Daemon {
    async fn start(name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let name = format!("super-{name}-{}", std::process::id());
        let at = |part: &str| directory.path().join(part);
        fs::create_dir(at("policy")).unwrap();
        fs::write(at("policy/a.yaml"), POLICY).unwrap();
        let config = format!(
            "version: 1\nstate_dir: {0}/state\nrun_dir: {0}/run\npolicy: {0}/policy\n\
             bpffs: /sys/fs/bpf/{name}\ncgroup: {name}\ngate: {{ user: 65534 }}\n",
            directory.path().display(),
        );
        fs::write(at("exeat.yaml"), config).unwrap();
        let (stop, task) = Self::launch(directory.path()).await;
        Self {
            _pins: pins::Pins(Path::new("/sys/fs/bpf").join(&name)),
            held: Mutex::default(),
            directory,
            name,
            stop,
            task,
        }
    }

    async fn launch(directory: &Path) -> (CancellationToken, JoinHandle<Result<(), DaemonError>>) {
        let options = Options {
            config: Some(directory.join("exeat.yaml")),
            policy: None,
        };
        let programs = Programs {
            stage: this_test("launch::stage::tests::stage_process", "EXEAT_TEST_STAGE"),
            gate: this_test("supervisor::tests::gate_process", GATE),
        };
        let supervisor = start::prepare(options, programs).await.unwrap();
        let stop = supervisor.stop.clone();
        let task = tokio::spawn(supervisor.run());
        let socket = directory.join("run/control.sock");
        until(|| socket.exists()).await;
        (stop, task)
    }

    fn at(&self, part: &str) -> PathBuf {
        self.directory.path().join(part)
    }

    /// What the gate has heard, one value a message.
    fn heard(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.at("state/audit/heard")).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    fn heard_of(&self, what: &str) -> Vec<Value> {
        self.heard()
            .into_iter()
            .filter_map(|message| message.get(what).cloned())
            .collect()
    }

    fn workloads(&self) -> Vec<String> {
        let directory = find_root().unwrap().join(&self.name).join("w");
        let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
        let directories = entries.filter(|entry| entry.file_type().unwrap().is_dir());
        directories
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect()
    }

    async fn ask(&self, command: Command) -> Connection {
        Connection::open(&self.at("run/control.sock"), &command)
            .await
            .unwrap()
    }

    async fn run(&self, server: &str) -> (Connection, UnixStream) {
        let mut connection = self.ask(run_command(server)).await;
        let (answer, ends) = connection.first().await.unwrap();
        assert!(
            matches!(answer, Answer::Reply(Reply::Streams)),
            "{answer:?}"
        );
        let [input, output, errors] = <[OwnedFd; 3]>::try_from(ends).unwrap();
        let held = [input, errors].map(UnixStream::from);
        self.held.lock().unwrap().extend(held);
        (connection, output.into())
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        let cgroup = find_root().unwrap().join(&self.name);
        assert!(!cgroups::populated(&cgroup.join("gate")).unwrap());
        let layout = exeat_ebpf::Layout {
            bpffs: format!("/sys/fs/bpf/{}", self.name).into(),
            cgroup_root: find_root().unwrap(),
            managed: cgroup.join("w"),
            gate: cgroup.join("gate"),
        };
        Kernel::release(&layout).unwrap();
        destroy(&cgroup).await.unwrap();
    }
}

async fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited for nothing");
        sleep(PAUSE).await;
    }
}

async fn replies(connection: &mut Connection) -> (Vec<Reply>, Option<String>) {
    let mut replies = Vec::new();
    loop {
        match connection.next().await.unwrap() {
            Answer::Reply(reply) => replies.push(reply),
            Answer::Done => return (replies, None),
            Answer::Failed(failure) => return (replies, Some(failure.message)),
        }
    }
}

#[tokio::test]
async fn a_server_is_asked_for_started_and_leaves_nothing() {
    let daemon = Daemon::start("run").await;
    let (mut connection, mut output) = daemon.run("echo").await;
    let (replies, failure) = replies(&mut connection).await;
    assert_eq!(failure, None);
    let Some(Reply::Exited(exited)) = replies.last() else {
        panic!("{replies:?}")
    };
    assert_eq!(exited.status, ExitStatus::Code(7));
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "65534");
    assert!(
        text.contains(&format!("/{}/w/echo-1\n", daemon.name)),
        "{text}"
    );
    let workload = daemon.heard_of("workload").remove(0);
    assert_eq!(workload["number"], 1);
    let placeholder = workload["placeholders"][0]["value"].as_str().unwrap();
    assert!(lines.contains(&placeholder), "{text}");
    assert_eq!(lines.last(), Some(&"trusted"));
    until(|| daemon.heard_of("workload_gone").len() == 1).await;
    assert!(daemon.workloads().is_empty());
    daemon.stop().await;
}

#[tokio::test]
async fn who_waits_for_a_disconnection_is_answered_when_another_order_takes_over() {
    let daemon = Daemon::start("supersede").await;
    let name = || "sleeper".to_owned();
    let disconnect = || {
        Command::ServerDisconnect(ServerDisconnect {
            name: name(),
            reason: None,
            drain_seconds: None,
        })
    };
    // This gate never says that nothing is under way any more.
    let mut first = daemon.ask(disconnect()).await;
    until(|| daemon.heard_of("disconnect").len() == 1).await;
    let mut second = daemon.ask(disconnect()).await;
    superseded(&mut first).await;
    until(|| daemon.heard_of("disconnect").len() == 2).await;
    let reconnect = ServerReconnect {
        name: name(),
        reason: None,
    };
    let mut third = daemon.ask(Command::ServerReconnect(reconnect)).await;
    superseded(&mut second).await;
    let (told, failure) = replies(&mut third).await;
    assert_eq!(failure, None);
    assert!(
        matches!(&told[..], [Reply::Word(word)] if word.state == "connected" && word.problems.is_empty()),
        "{told:?}"
    );
    daemon.stop().await;
}

async fn superseded(connection: &mut Connection) {
    let (told, failure) = replies(connection).await;
    assert_eq!(failure, None);
    assert!(
        matches!(&told[..], [Reply::Word(word)] if word.problems.iter().any(|text| text.contains("took over"))),
        "{told:?}"
    );
}

#[tokio::test]
async fn the_gate_refuses_a_start_and_answers_clients_itself() {
    let daemon = Daemon::start("refuse").await;
    let mut connection = daemon.ask(run_command("forbidden")).await;
    assert_eq!(
        replies(&mut connection).await.1.as_deref(),
        Some("not for you")
    );
    let mut connection = daemon.ask(run_command("unknown")).await;
    let (_, failure) = replies(&mut connection).await;
    assert!(failure.unwrap().contains("`unknown`"));
    assert!(daemon.heard_of("workload").is_empty() && daemon.workloads().is_empty());
    let mut connection = daemon.ask(Command::Status).await;
    assert_eq!(
        replies(&mut connection).await.1.as_deref(),
        Some("said by the gate")
    );
    daemon.stop().await;
}

#[tokio::test]
async fn a_servers_life_is_its_clients() {
    let daemon = Daemon::start("life").await;
    let (mut connection, _output) = daemon.run("sleeper").await;
    assert!(matches!(
        connection.next().await.unwrap(),
        Answer::Reply(Reply::Started(_))
    ));
    connection.signal(Signal::Terminate).await.unwrap();
    let (ended, _) = replies(&mut connection).await;
    let Some(Reply::Exited(exited)) = ended.last() else {
        panic!("{ended:?}")
    };
    // Before the trap is set the signal itself ends the shell.
    assert!(matches!(
        exited.status,
        ExitStatus::Code(3) | ExitStatus::Signal(15)
    ));

    let (mut connection, _output) = daemon.run("sleeper").await;
    assert!(matches!(
        connection.next().await.unwrap(),
        Answer::Reply(Reply::Started(_))
    ));
    assert_eq!(daemon.workloads().len(), 1);
    drop(connection);
    until(|| daemon.heard_of("workload_gone").len() == 2).await;
    assert!(daemon.workloads().is_empty());

    let (mut connection, _output) = daemon.run("sleeper").await;
    assert!(matches!(
        connection.next().await.unwrap(),
        Answer::Reply(Reply::Started(_))
    ));
    daemon.stop().await;
}

#[tokio::test]
async fn a_good_policy_reaches_the_gate_at_once_and_a_bad_one_never() {
    let daemon = Daemon::start("policy").await;
    fs::write(daemon.at("draft"), "version: 1\nservers: [\n").unwrap();
    fs::rename(daemon.at("draft"), daemon.at("policy/a.yaml")).unwrap();
    let refused = |record: &Value| record["event"] == "policy_refused" && record["finding"] == true;
    until(|| daemon.heard_of("record").iter().any(refused)).await;
    assert!(daemon.heard_of("policy").is_empty());

    fs::write(daemon.at("draft"), POLICY.replace("exit 7", "exit 8")).unwrap();
    fs::rename(daemon.at("draft"), daemon.at("policy/a.yaml")).unwrap();
    until(|| daemon.heard_of("policy").len() == 1).await;
    assert_eq!(daemon.heard_of("policy")[0]["generation"], 2);

    let mut connection = daemon.ask(Command::Reload).await;
    let (answers, failure) = replies(&mut connection).await;
    assert_eq!(failure, None);
    let [Reply::Reloaded(state)] = &answers[..] else {
        panic!("{answers:?}")
    };
    assert_eq!((state.generation, state.servers), (2, 3));
    daemon.stop().await;
}

/// One finding for each server on a day: not one more by a restart.
#[tokio::test]
async fn an_overdue_review_is_a_finding_once_a_day() {
    let mut daemon = Daemon::start("overdue").await;
    let policy = POLICY.replace("  echo:\n", "  echo:\n    review_by: 2020-02-29\n");
    fs::write(daemon.at("draft"), policy).unwrap();
    fs::rename(daemon.at("draft"), daemon.at("policy/a.yaml")).unwrap();
    let said = |daemon: &Daemon| {
        let records = daemon.heard_of("record").into_iter();
        let overdue = records.filter(|record| record["event"] == "review_overdue");
        overdue.collect::<Vec<_>>()
    };
    until(|| !said(&daemon).is_empty()).await;
    let detail = "server `echo` was to be reviewed by 2020-02-29 (owner: test@example.com)";
    assert_eq!(said(&daemon)[0]["details"], serde_json::json!([detail]));
    assert_eq!(said(&daemon)[0]["finding"], true);

    let started = |daemon: &Daemon| daemon.heard_of("setup").len();
    daemon.stop.cancel();
    (&mut daemon.task).await.unwrap().unwrap();
    (daemon.stop, daemon.task) = Daemon::launch(daemon.directory.path()).await;
    until(|| started(&daemon) == 2).await;
    // Another server becomes overdue: by then the first was looked at again.
    let policy = POLICY.replace("owner: test@", "review_by: 2020-02-29\n    owner: test@");
    fs::write(daemon.at("draft"), policy).unwrap();
    fs::rename(daemon.at("draft"), daemon.at("policy/a.yaml")).unwrap();
    until(|| said(&daemon).len() == 3).await;
    let of = |name: &str| {
        let named = format!("server `{name}` ");
        let count = |record: &Value| record["details"][0].as_str().unwrap().starts_with(&named);
        said(&daemon).iter().filter(|record| count(record)).count()
    };
    assert_eq!((of("echo"), of("sleeper"), of("forbidden")), (1, 1, 1));
    daemon.stop().await;
}

#[tokio::test]
async fn a_dead_gate_is_replaced_and_told_everything() {
    let daemon = Daemon::start("gate").await;
    let (mut connection, _output) = daemon.run("sleeper").await;
    assert!(matches!(
        connection.next().await.unwrap(),
        Answer::Reply(Reply::Started(_))
    ));
    let gate = find_root().unwrap().join(&daemon.name).join("gate");
    let pids = cgroups::processes(&gate).unwrap();
    assert_eq!(pids.len(), 1);
    cgroups::signal(pids[0], rustix::process::Signal::KILL);
    until(|| daemon.heard_of("setup").len() == 2).await;
    let setup = daemon.heard_of("setup").remove(1);
    assert_eq!(
        setup["proxy_port"],
        daemon.heard_of("setup")[0]["proxy_port"]
    );
    until(|| {
        daemon
            .heard_of("record")
            .iter()
            .any(|r| r["event"] == "gate_restarted")
    })
    .await;
    // Its session went with the gate that read it.
    let (_, failure) = replies(&mut connection).await;
    let failure = failure.unwrap_or_default();
    assert!(failure.contains("start the server anew"), "{failure}");
    until(|| daemon.workloads().is_empty()).await;
    daemon.stop().await;
}

/// A program that policy names, and a policy that names it.
fn named_program(directory: &Path) -> (PathBuf, String) {
    let program = directory.join("agent");
    fs::copy("/bin/sleep", &program).unwrap();
    let policy = format!(
        "{POLICY}hosts:\n  agent:\n    match: {{ exe: {} }}\n    servers: [echo]\n",
        program.display()
    );
    (program, policy)
}

fn cgroup_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap()
}

fn state_of(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status
        .lines()
        .find_map(|line| line.strip_prefix("State:"))
        .unwrap()
        .trim()
        .to_owned()
}

#[tokio::test]
async fn a_daemon_that_comes_back_takes_over_what_runs() {
    let directory = tempfile::tempdir().unwrap();
    let (program, policy) = named_program(directory.path());
    let mut daemon = Daemon::start("adopt").await;
    fs::write(daemon.at("policy/a.yaml"), policy).unwrap();
    until(|| daemon.heard_of("policy").len() == 1).await;
    let mut child = std::process::Command::new(&program)
        .arg("600")
        .spawn()
        .unwrap();
    until(|| daemon.heard_of("workload").len() == 1).await;
    until(|| state_of(child.id()).starts_with('S')).await;
    let number = daemon.heard_of("workload")[0]["number"].clone();

    // As if killed: nothing is put away.
    daemon.task.abort();
    (&mut daemon.task).await.unwrap_err();
    daemon.stop.cancel();
    until(|| !daemon.at("run/control.sock").exists()).await;
    assert!(cgroup_of(child.id()).contains("/w/agent-"));

    (daemon.stop, daemon.task) = Daemon::launch(daemon.directory.path()).await;
    let setup = daemon.heard_of("setup").pop().unwrap();
    assert_eq!(setup["workloads"][0]["number"], number);
    assert_eq!(setup["workloads"][0]["name"], "agent");
    assert_eq!(setup["workloads"][0]["pid"], child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    until(|| daemon.workloads().is_empty()).await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_gate_that_asks_knows_of_every_process_until_then() {
    let daemon = Daemon::start("caught").await;
    fs::write(daemon.at("state/audit/catch"), "").unwrap();
    let name = format!("{}-foreign", daemon.name);
    let cgroup = find_root().unwrap().join(&name);
    fs::create_dir(&cgroup).unwrap();
    let place = format!(
        "{POLICY}  inventory:\n    listen: 127.0.0.1:3001\n    match: {{ cgroup: /{name} }}\n"
    );
    fs::write(daemon.at("policy/a.yaml"), place).unwrap();
    until(|| daemon.heard_of("workload").len() == 1).await;

    // A shell that executes a program for each line, which says its number and is gone.
    let script = "while read line; do /bin/cat /proc/self/stat; done";
    let mut shell = tokio::process::Command::new("/bin/sh")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    fs::write(cgroup.join("cgroup.procs"), shell.id().unwrap().to_string()).unwrap();
    let mut input = shell.stdin.take().unwrap();
    let mut output = BufReader::new(shell.stdout.take().unwrap()).lines();
    for _ in 0..30 {
        input.write_all(b"\n").await.unwrap();
        let said = output.next_line().await.unwrap().unwrap();
        let executed = clock::monotonic().nanoseconds();
        let pid = said.split(' ').next().unwrap().parse::<u32>().unwrap();
        let caught = |message: &Value| message["caught"]["until"].as_u64() >= Some(executed);
        until(|| daemon.heard().iter().any(caught)).await;
        let heard = daemon.heard();
        let before = heard.iter().take_while(|message| !caught(message));
        let known = |message: &Value| {
            let process = &message["process"];
            process["pid"] == pid
                && process["exe"]
                    .as_str()
                    .is_some_and(|exe| exe.ends_with("/cat"))
        };
        assert!(before.into_iter().any(known), "{pid} executed something");
    }
    drop(input);
    shell.wait().await.unwrap();
    fs::remove_dir(&cgroup).unwrap();
    daemon.stop().await;
}

#[tokio::test]
async fn a_cgroup_that_policy_names_is_managed_as_soon_as_it_is_there() {
    let daemon = Daemon::start("cgroup").await;
    let name = format!("{}-foreign", daemon.name);
    let cgroup = find_root().unwrap().join(&name);
    let policy = POLICY.to_owned()
        + &format!(
            "  inventory:\n    purpose: a\n    owner: b\n    listen: 127.0.0.1:3001\n    match: {{ cgroup: /{name} }}\n"
        );
    fs::write(daemon.at("policy/a.yaml"), policy).unwrap();
    until(|| daemon.heard_of("policy").len() == 1).await;
    fs::create_dir(&cgroup).unwrap();
    until(|| daemon.heard_of("workload").len() == 1).await;
    assert_eq!(daemon.heard_of("workload")[0]["name"], "inventory");
    fs::remove_dir(&cgroup).unwrap();
    until(|| daemon.heard_of("workload_gone").len() == 1).await;
    daemon.stop().await;
}
