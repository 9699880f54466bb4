//! The interface as a whole: a listener and clients, friendly and hostile.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::client::Answer;
use super::command::{ServerDisconnect, ServerReconnect, ServerShow};
use super::peer::{CgroupRole, Cgroups};
use super::reply::{Certificate, ExitStatus, Exited, KernelState, Process, Started};
use super::server::Settings;
use super::slots::Limits;
use super::*;
use crate::telemetry::clock;

/// Far more than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

struct Fixed(CgroupRole);

impl Cgroups for Fixed {
    fn role(&self, path: &str) -> CgroupRole {
        assert!(path.starts_with('/'), "{path}");
        self.0
    }
}

struct Daemon {
    directory: TempDir,
    clients: mpsc::Receiver<Client>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Daemon {
    async fn start() -> Self {
        Self::with(CgroupRole::Other, Limits::default(), LIMIT).await
    }

    async fn with(role: CgroupRole, limits: Limits, request_deadline: Duration) -> Self {
        let directory = TempDir::new().unwrap();
        let listener = Listener::bind(settings(directory.path(), role, limits, request_deadline))
            .await
            .unwrap();
        let (sender, clients) = mpsc::channel(4);
        let stop = CancellationToken::new();
        let task = tokio::spawn(listener.serve(sender, stop.clone()));
        Self {
            directory,
            clients,
            stop,
            task,
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    async fn client(&mut self) -> Client {
        timeout(LIMIT, self.clients.recv()).await.unwrap().unwrap()
    }

    fn raw(&self) -> StdUnixStream {
        let stream = StdUnixStream::connect(self.path()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    async fn open(&self, command: &Command) -> Connection {
        Connection::open(&self.path(), command).await.unwrap()
    }
}

fn settings(
    directory: &Path,
    role: CgroupRole,
    limits: Limits,
    request_deadline: Duration,
) -> Settings {
    Settings {
        path: directory.join("control.sock"),
        limits,
        request_deadline,
        cgroups: Arc::new(Fixed(role)),
    }
}

/// What the daemon says to bytes that are no command.
async fn said(mut stream: StdUnixStream) -> String {
    tokio::task::spawn_blocking(move || {
        // To the frame's end and not to the stream's: unread bytes turn that into a reset.
        let mut prefix = [0; frame::PREFIX];
        stream.read_exact(&mut prefix).unwrap();
        let mut answer = vec![0; frame::length(prefix, frame::MAX_REPLY).unwrap()];
        stream.read_exact(&mut answer).unwrap();
        let Message::Failed(failure) = serde_json::from_slice(&answer).unwrap() else {
            panic!("{}", String::from_utf8_lossy(&answer))
        };
        format!("{:?}: {}", failure.code, failure.message)
    })
    .await
    .unwrap()
}

async fn said_to(bytes: &[u8]) -> String {
    let daemon = Daemon::start().await;
    let mut stream = daemon.raw();
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    said(stream).await
}

fn framed(json: &str) -> Vec<u8> {
    let length = u32::try_from(json.len()).unwrap();
    [&length.to_be_bytes(), json.as_bytes()].concat()
}

fn run(server: &str) -> Command {
    Command::Run(Run {
        server: server.to_owned(),
        arguments: vec!["--flag".to_owned()],
        directory: None,
        terminal: None,
    })
}

/// A pair whose reader ends once nobody holds its writer.
fn witness() -> (StdUnixStream, OwnedFd) {
    let (reader, writer) = StdUnixStream::pair().unwrap();
    (reader, writer.into())
}

/// Waits until nobody holds the other end any more: nothing was leaked.
async fn released(mut reader: StdUnixStream) {
    let read = tokio::task::spawn_blocking(move || reader.read(&mut [0]).unwrap());
    assert_eq!(timeout(LIMIT, read).await.unwrap().unwrap(), 0);
}

fn facts() -> Facts {
    let process = Process {
        pid: 1,
        started: clock::wall(),
    };
    Facts {
        supervisor: process.clone(),
        gate: Some(process),
        gate_restarts: 0,
        kernel: KernelState {
            adopted: false,
            degraded: Vec::new(),
            lost_events: 0,
        },
        rejected: None,
    }
}

#[tokio::test]
async fn a_client_is_who_the_kernel_says_and_gets_its_answer() {
    let mut daemon = Daemon::start().await;
    let mut connection = daemon.open(&Command::CaExport).await;
    let mut client = daemon.client().await;
    assert_eq!(client.command, Command::CaExport);
    assert_eq!(client.peer.pid, std::process::id());
    assert_eq!(client.peer.uid, rustix::process::geteuid().as_raw());
    assert_eq!(client.scope, Scope::All);

    let certificate = Certificate {
        pem: "p".to_owned(),
        fingerprint: "f".to_owned(),
    };
    client
        .responder
        .reply(Reply::Certificate(certificate.clone()))
        .await
        .unwrap();
    client.responder.done().await.unwrap();
    let Answer::Reply(reply) = connection.next().await.unwrap() else {
        panic!()
    };
    assert_eq!(reply, Reply::Certificate(certificate));
    for _ in 0..2 {
        assert!(matches!(connection.next().await.unwrap(), Answer::Done));
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error() {
    let mut daemon = Daemon::start().await;
    let mut connection = daemon.open(&Command::Doctor).await;
    drop(daemon.client().await);
    let error = connection.next().await.unwrap_err();
    assert!(matches!(error, ControlError::Closed { .. }), "{error}");
}

#[tokio::test]
async fn a_run_gets_its_streams_and_takes_signals() {
    let mut daemon = Daemon::start().await;
    let mut connection = daemon.open(&run("github")).await;
    let mut client = daemon.client().await;
    assert_eq!(client.scope, Scope::Policy);
    let (mut reader, writer) = witness();
    let ends = [writer.as_fd(); 3];
    client.responder.streams(&ends).await.unwrap();
    drop(writer);
    let (answer, ends) = connection.first().await.unwrap();
    assert!(
        matches!(answer, Answer::Reply(Reply::Streams)),
        "{answer:?}"
    );
    let [_, output, _]: [OwnedFd; 3] = ends.try_into().unwrap();
    assert!(
        rustix::io::fcntl_getfd(&output)
            .unwrap()
            .contains(rustix::io::FdFlags::CLOEXEC)
    );
    rustix::io::write(&output, b"hello").unwrap();
    drop(output);
    let mut hello = [0; 5];
    reader.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello");
    released(reader).await;

    client
        .responder
        .reply(Reply::Started(Started {
            pid: 7,
            workload: 3,
        }))
        .await
        .unwrap();
    assert!(matches!(
        connection.next().await.unwrap(),
        Answer::Reply(Reply::Started(_))
    ));
    connection.signal(Signal::Interrupt).await.unwrap();
    connection.signal(Signal::Terminate).await.unwrap();
    assert_eq!(
        client.responder.signal().await.unwrap(),
        Some(Signal::Interrupt)
    );
    assert_eq!(
        client.responder.signal().await.unwrap(),
        Some(Signal::Terminate)
    );
    let status = ExitStatus::Signal(15);
    assert_eq!(status.shell(), 143);
    client
        .responder
        .reply(Reply::Exited(Exited { status }))
        .await
        .unwrap();
    drop(connection);
    timeout(LIMIT, client.responder.gone()).await.unwrap();
}

#[tokio::test]
async fn a_client_can_be_handed_to_another_process() {
    let mut daemon = Daemon::start().await;
    let mut connection = daemon.open(&Command::Status).await;
    let client = daemon.client().await;
    let peer = client.peer.clone();
    let (socket, handover) = client.hand_over(facts()).unwrap();
    let text = serde_json::to_string(&handover).unwrap();
    let received: Handover = serde_json::from_str(&text).unwrap();
    assert_eq!((received.peer, received.command), (peer, Command::Status));

    let responder = Responder::adopt(socket, None).unwrap();
    responder
        .fail(Code::NotFound, "no such thing")
        .await
        .unwrap();
    let Answer::Failed(failure) = connection.next().await.unwrap() else {
        panic!()
    };
    assert_eq!(failure, Failure::new(Code::NotFound, "no such thing"));
}

#[tokio::test]
async fn what_is_no_command_is_answered() {
    for (bytes, expected) in no_commands() {
        assert_eq!(
            said_to(&bytes).await,
            expected,
            "{}",
            String::from_utf8_lossy(&bytes)
        );
    }
}

fn no_commands() -> Vec<(Vec<u8>, &'static str)> {
    vec![
        (
            vec![],
            "Invalid: read a command: the other side closed the connection",
        ),
        (
            vec![0, 0],
            "Invalid: read a command: the other side closed the connection",
        ),
        (
            vec![0, 0, 0, 9, b'"'],
            "Invalid: read a command: the other side closed the connection",
        ),
        (
            vec![0xff; 4],
            "Invalid: read a frame: 4294967295 bytes announced, 65536 allowed",
        ),
        (
            vec![0, 1, 0, 1],
            "Invalid: read a frame: 65537 bytes announced, 65536 allowed",
        ),
        (
            vec![0, 0, 0, 0],
            "Invalid: read a frame: EOF while parsing a value at line 1 column 0",
        ),
        (
            framed("status"),
            "Invalid: read a frame: expected value at line 1 column 1",
        ),
        (
            framed(r#""status" x"#),
            "Invalid: read a frame: trailing characters at line 1 column 10",
        ),
        (
            framed(r#"{"server_show":{"name":"a","name":"b"}}"#),
            "Invalid: read a frame: duplicate field `name` at line 1 column 33",
        ),
        (
            framed(r#"{"server_show":{"name":"a","nmae":"b"}}"#),
            "Invalid: read a frame: unknown field `nmae`, expected `name` at line 1 column 33",
        ),
        (
            framed(r#"{"server_show":{"name":"a\u001b[2J"}}"#),
            "Invalid: read a command: server: control characters are not allowed",
        ),
        (
            framed(r#"{"server_show":{"name":""}}"#),
            "Invalid: read a command: server: 1 to 256 bytes are allowed",
        ),
        (
            framed(r#"{"run":{"server":"a","arguments":["\u0000"]}}"#),
            "Invalid: read a command: argument: control characters are not allowed",
        ),
    ]
}

/// To close what is dropped unread can take for ever: a pipe whose lock somebody keeps.
#[tokio::test]
async fn nobody_can_send_the_daemon_descriptors() {
    let mut daemon = Daemon::start().await;
    let (reader, writer) = witness();
    let stream = daemon.raw();
    let mut connection = daemon.open(&run("a")).await;
    // Before and after it was accepted.
    let client = daemon.client().await;
    let status = frame::encode(&Command::Status, frame::MAX_REQUEST).unwrap();
    for socket in [stream.as_fd(), connection.stream.as_fd()] {
        assert_eq!(
            pass(socket, &status, &writer, 1),
            Err(rustix::io::Errno::PERM)
        );
    }
    drop(writer);
    released(reader).await;
    client.responder.done().await.unwrap();
    assert!(matches!(connection.next().await.unwrap(), Answer::Done));
}

/// Where the kernel refuses none.
#[tokio::test]
async fn descriptors_that_do_not_belong_are_closed_and_refused() {
    let status = frame::encode(&Command::Status, frame::MAX_REQUEST).unwrap();
    for (count, allowed) in [(1, 0), (3, 0), (4, 3), (8, 3), (200, 0)] {
        let (reader, writer) = witness();
        let (ours, theirs) = UnixStream::pair().unwrap();
        pass(ours.as_fd(), &status, &writer, count).unwrap();
        drop(writer);
        let received = descriptors::receive(&theirs, frame::MAX_REQUEST, allowed).await;
        let error = received.unwrap_err().to_string();
        assert!(
            error.contains(&format!("{count} descriptors came along")),
            "{error}"
        );
        released(reader).await;
    }
}

fn pass(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    passed: &OwnedFd,
    count: usize,
) -> rustix::io::Result<usize> {
    let descriptors: Vec<BorrowedFd<'_>> = vec![passed.as_fd(); count];
    rustix::net::sendmsg(
        socket,
        &[std::io::IoSlice::new(bytes)],
        &mut ancillary(&descriptors, &mut Vec::new()),
        rustix::net::SendFlags::empty(),
    )
}

/// Any number of descriptors, beyond what the product itself ever sends.
fn ancillary<'buffer, 'slice, 'fd>(
    descriptors: &'slice [BorrowedFd<'fd>],
    space: &'buffer mut Vec<std::mem::MaybeUninit<u8>>,
) -> rustix::net::SendAncillaryBuffer<'buffer, 'slice, 'fd> {
    let message = rustix::net::SendAncillaryMessage::ScmRights(descriptors);
    space.resize(message.size(), std::mem::MaybeUninit::uninit());
    let mut buffer = rustix::net::SendAncillaryBuffer::new(space);
    assert!(buffer.push(message));
    buffer
}

#[tokio::test]
async fn descriptors_one_by_one_are_counted_together() {
    let (reader, writer) = witness();
    let (ours, theirs) = UnixStream::pair().unwrap();
    for byte in 0_u8..4 {
        pass(ours.as_fd(), &[byte], &writer, 1).unwrap();
    }
    drop(writer);
    let received = descriptors::receive(&theirs, frame::MAX_REQUEST, 3).await;
    let error = received.unwrap_err().to_string();
    assert!(error.contains("4 descriptors came along"), "{error}");
    released(reader).await;
}

#[tokio::test]
async fn who_sends_too_slowly_is_let_go_and_holds_up_nobody() {
    let mut daemon = Daemon::with(
        CgroupRole::Other,
        Limits::default(),
        Duration::from_millis(200),
    )
    .await;
    let mut slow = daemon.raw();
    slow.write_all(&[0, 0, 0, 8, b'"', b's']).unwrap();
    let connection = daemon.open(&Command::Doctor).await;
    assert_eq!(daemon.client().await.command, Command::Doctor);
    drop(connection);
    assert_eq!(
        said(slow).await,
        "Invalid: read a command: the other side took longer than 0 s"
    );
}

#[tokio::test]
async fn the_places_are_bounded_and_come_back() {
    let limits = Limits {
        all: 1,
        each: 1,
        reserved: 0,
    };
    let mut daemon = Daemon::with(CgroupRole::Other, limits, LIMIT).await;
    let first = daemon.open(&Command::Doctor).await;
    let client = daemon.client().await;
    let mut second = daemon.open(&Command::Doctor).await;
    let Answer::Failed(failure) = second.next().await.unwrap() else {
        panic!()
    };
    assert_eq!(failure.code, Code::Busy);
    drop((client, first));
    let _third = daemon.open(&Command::Doctor).await;
    assert_eq!(daemon.client().await.command, Command::Doctor);
}

#[tokio::test]
async fn a_managed_process_may_only_run_whoever_its_user_is() {
    let mut daemon = Daemon::with(CgroupRole::Managed(9), Limits::default(), LIMIT).await;
    let mut status = daemon.open(&Command::Status).await;
    let Answer::Failed(failure) = status.next().await.unwrap() else {
        panic!()
    };
    assert_eq!(
        failure,
        Failure::new(Code::Refused, "`status` is not for processes under policy")
    );
    let _run = daemon.open(&run("github")).await;
    let client = daemon.client().await;
    assert_eq!(
        (client.scope, client.peer.workload),
        (Scope::Policy, Some(9))
    );
}

#[tokio::test]
async fn the_socket_is_open_to_all_and_goes_with_the_daemon() {
    let daemon = Daemon::start().await;
    let mode = fs::metadata(daemon.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
    daemon.stop.cancel();
    timeout(LIMIT, daemon.task).await.unwrap().unwrap();
    assert!(!daemon.directory.path().join("control.sock").exists());
}

#[tokio::test]
async fn a_second_daemon_is_told_of_the_first() {
    let daemon = Daemon::start().await;
    let again = settings(
        daemon.directory.path(),
        CgroupRole::Other,
        Limits::default(),
        LIMIT,
    );
    let error = Listener::bind(again).await.unwrap_err();
    let own = format!(
        "listen on `{}`: another daemon answers there (process {})",
        daemon.path().display(),
        std::process::id()
    );
    assert_eq!(error.to_string(), own);
    // And the first is unharmed.
    StdUnixStream::connect(daemon.path()).unwrap();
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_anything_else_is_left_alone() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("control.sock");
    drop(StdUnixListener::bind(&path).unwrap());
    let stale = fs::metadata(&path).unwrap().ino();
    let make = || {
        settings(
            directory.path(),
            CgroupRole::Other,
            Limits::default(),
            LIMIT,
        )
    };
    let listener = Listener::bind(make()).await.unwrap();
    assert_ne!(fs::metadata(&path).unwrap().ino(), stale);
    drop(listener);
    assert!(!path.exists());

    fs::write(&path, "precious").unwrap();
    let error = Listener::bind(make()).await.unwrap_err();
    assert!(matches!(error, ControlError::NotASocket { .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("nothing.sock");
    let error = Connection::open(&path, &Command::Status).await.unwrap_err();
    assert!(matches!(error, ControlError::Unreachable { .. }), "{error}");
}

/// The table of `access`, line by line.
#[test]
fn the_table_of_who_may_what() {
    use Scope::{All, Own, Policy, Refused};
    let show = || ServerShow {
        name: "x".to_owned(),
    };
    let filter = RecordFilter::default;
    let question = r#"{"action":{"run":{"name":"x"}}}"#;
    let question: Question = serde_json::from_str(question).unwrap();
    for (command, administrator, ordinary, managed, place) in [
        (Command::Status, All, Own, Refused, Place::Gate),
        (Command::Servers, All, Own, Refused, Place::Gate),
        (Command::ServerShow(show()), All, Own, Refused, Place::Gate),
        (
            Command::AuditQuery(filter()),
            All,
            Own,
            Refused,
            Place::Gate,
        ),
        (Command::AuditTail(filter()), All, Own, Refused, Place::Gate),
        (run("x"), Policy, Policy, Policy, Place::Supervisor),
        (
            Command::PolicyExplain(Box::new(question)),
            All,
            Refused,
            Refused,
            Place::Gate,
        ),
        (Command::Canary, All, Refused, Refused, Place::Supervisor),
        (Command::Reload, All, Refused, Refused, Place::Supervisor),
        (
            disconnect("x"),
            Refused,
            Refused,
            Refused,
            Place::Supervisor,
        ),
        (reconnect("x"), Refused, Refused, Refused, Place::Supervisor),
        (Command::CaExport, All, All, All, Place::Gate),
        (Command::Doctor, All, Own, Refused, Place::Gate),
    ] {
        assert_eq!(
            scopes(&command),
            [administrator, ordinary, managed, Refused],
            "{}",
            command.name()
        );
        assert_eq!(command.place(), place, "{}", command.name());
        let roots = access::scope(Standing::Root, &command);
        match command {
            Command::ServerDisconnect(_) | Command::ServerReconnect(_) => assert_eq!(roots, All),
            _ => assert_eq!(roots, administrator),
        }
    }
}

/// For an administrator, an ordinary user, a managed process and the gate.
fn scopes(command: &Command) -> [Scope; 4] {
    [
        Standing::Administrator,
        Standing::Ordinary,
        Standing::Managed,
        Standing::Gate,
    ]
    .map(|standing| access::scope(standing, command))
}

fn disconnect(name: &str) -> Command {
    Command::ServerDisconnect(ServerDisconnect {
        name: name.to_owned(),
        reason: None,
        drain_seconds: None,
    })
}

fn reconnect(name: &str) -> Command {
    Command::ServerReconnect(ServerReconnect {
        name: name.to_owned(),
        reason: None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is sent, in whatever pieces, the daemon answers or hands over, and lives.
    #[test]
    fn no_bytes_harm_the_daemon(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        cut in 0_usize..200,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut daemon = Daemon::start().await;
            let mut stream = daemon.raw();
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            stream.write_all(first).unwrap();
            tokio::task::yield_now().await;
            // The daemon may have answered and closed by now.
            stream.write_all(second).unwrap_or_default();
            stream.shutdown(Shutdown::Write).unwrap_or_default();
            let mut connection = daemon.open(&Command::Reload).await;
            let client = daemon.client().await;
            assert_eq!(client.command, Command::Reload);
            client.responder.done().await.unwrap();
            assert!(matches!(connection.next().await.unwrap(), Answer::Done));
        });
    }

    #[test]
    fn what_is_encoded_is_decoded(
        server in "[a-z]{1,20}",
        arguments in proptest::collection::vec("\\PC{0,20}", 0..8),
        rows in any::<u16>(),
    ) {
        let terminal = Some(Terminal { kind: "xterm".to_owned(), rows, columns: 80 });
        let command = Command::Run(Run { server, arguments, directory: None, terminal });
        let encoded = frame::encode(&command, frame::MAX_REQUEST).unwrap();
        let (prefix, body) = encoded.split_first_chunk().unwrap();
        prop_assert_eq!(frame::length(*prefix, frame::MAX_REQUEST).unwrap(), body.len());
        prop_assert_eq!(frame::decode::<Command>(body).unwrap(), command);
    }

    /// No text but a command's own is a command: nothing is taken leniently.
    #[test]
    fn a_changed_field_is_no_command(field in "[a-z_]{1,12}") {
        prop_assume!(!["since", "until", "kind", "server", "caller", "tool", "effect", "status", "cause", "text", "limit"]
            .contains(&field.as_str()));
        let text = format!(r#"{{"audit_query":{{"{field}":null}}}}"#);
        prop_assert!(frame::decode::<Command>(text.as_bytes()).is_err());
    }
}
