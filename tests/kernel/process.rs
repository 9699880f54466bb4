//! Process events, and executables that are stopped before they run.

use crate::world::{SHARED, World};
use exeat_ebpf::{Event, EventKind, File, identify, kind};
use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::thread;

#[test]
fn processes_are_followed() {
    let workload = SHARED.workload("process");
    let said = workload.run(
        "import subprocess; p = subprocess.Popen(['/bin/sh', '-c', 'exit 3', 'an argument', '']); p.wait(); say([os.getpid(), p.pid])",
    );
    let parent = u32::try_from(said[0].as_u64().unwrap()).unwrap();
    let child = u32::try_from(said[1].as_u64().unwrap()).unwrap();
    let events = &SHARED.processes;
    let fork = events.wait("fork", |event| {
        event.kind == EventKind::Fork && event.detail == child
    });
    assert_eq!((fork.workload, fork.tgid), (workload.number, parent));
    let exec = events.wait("exec", |event| {
        event.kind == EventKind::Exec && event.tgid == child
    });
    assert_eq!((exec.workload, exec.ppid), (workload.number, parent));
    let execution = exec.execution.unwrap();
    assert_eq!(execution.path.to_str(), Some("/bin/sh"));
    let argv: Vec<&[u8]> = vec![b"/bin/sh", b"-c", b"exit 3", b"an argument", b""];
    assert_eq!(execution.argv, argv);
    assert!(!execution.argv_cut);
    assert_eq!(execution.file, identify(Path::new("/bin/sh")).unwrap());
    let exit = events.wait("exit", |event| {
        event.kind == EventKind::Exit && event.tgid == child
    });
    assert_eq!((exit.workload, exit.detail >> 8), (workload.number, 3));
    assert!(exit.started_ns == exec.started_ns && exec.started_ns > 0);
}

#[test]
fn long_arguments_are_cut_and_scripts_show_their_interpreter() {
    let workload = SHARED.workload("script");
    let script = std::env::temp_dir().join(format!("exeat-kernel-{}.sh", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(&script)
        .unwrap();
    file.write_all(b"#!/bin/sh\nexit 0\n").unwrap();
    drop(file);
    workload.run(&format!(
        "import subprocess; subprocess.run(['{}', 'x' * 2000]); say(1)",
        script.display()
    ));
    let exec = SHARED.processes.wait("exec of the script", |event| {
        event
            .execution
            .as_ref()
            .is_some_and(|execution| execution.path == script)
    });
    fs::remove_file(&script).unwrap();
    let execution = exec.execution.unwrap();
    assert!(execution.argv_cut);
    assert_eq!(
        execution.argv.iter().map(Vec::len).sum::<usize>() + execution.argv.len(),
        512
    );
    assert_eq!(execution.file, identify(Path::new("/bin/sh")).unwrap());
}

#[test]
fn watched_files_are_stopped_before_their_first_instruction() {
    let directory = std::env::temp_dir().join(format!("exeat-kernel-{}", std::process::id()));
    let (plain, memory, overlay) = (
        directory.join("plain"),
        directory.join("memory"),
        directory.join("overlay"),
    );
    for made in [&plain, &memory, &overlay] {
        fs::create_dir_all(made).unwrap();
    }
    fs::copy("/usr/bin/touch", plain.join("touch")).unwrap();
    is_stopped(&plain);
    // Layers of two filesystems: what stat(2) says of the device is made up there.
    let tmpfs = Mount::new("tmpfs", "", &memory);
    let (upper, work) = (memory.join("upper"), memory.join("work"));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        plain.display(),
        upper.display(),
        work.display()
    );
    let mount = Mount::new("overlay", &layers, &overlay);
    is_stopped(&overlay);
    drop(mount);
    drop(tmpfs);
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn what_may_be_a_stdio_server_is_stopped_in_judged_workloads_alone() {
    let world = World::new("judged");
    let workload = world.workload("host");
    // Starts what it is told, each with standard streams of one kind, and says how it ended.
    let mut host = world.spawn_in(
        &workload.cgroup,
        "import subprocess as s
ours, theirs = socketpair()
kinds = {'pipes': (s.PIPE, s.PIPE), 'sockets': (theirs, theirs), 'null': (s.DEVNULL, s.PIPE), 'file': (s.PIPE, s.DEVNULL)}
say('ready')
for line in sys.stdin:
    i, o = kinds[line.split()[0]]
    say(s.Popen(['/bin/sh', '-c', 'exit 7', line.strip()], stdin=i, stdout=o).wait())",
    );
    let mut orders_to = host.stdin.take().unwrap();
    let mut lines = BufReader::new(host.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "\"ready\"");
    // Whether it was stopped; it goes on, and ends as it would have.
    let mut held = |order: &str| {
        orders_to
            .write_all(format!("{order}\n").as_bytes())
            .unwrap();
        let exec = world.processes.wait(order, |event| {
            event.kind == EventKind::Exec && named(event, order.as_bytes())
        });
        let held = exec.detail == kind::HELD;
        if held {
            assert!(stops(exec.tgid), "{order}");
            let pid = exec.tgid.to_string();
            let go_on = Command::new("kill").args(["-CONT", &pid]).status();
            assert!(go_on.unwrap().success());
        }
        assert_eq!(lines.next().unwrap().unwrap(), "7", "{order}");
        held
    };
    assert!(!held("pipes unjudged"));
    world.kernel.lock().unwrap().judge(workload.number).unwrap();
    for (order, stopped) in [
        ("pipes", true),
        ("sockets", true),
        ("null", false),
        ("file", false),
    ] {
        assert_eq!(held(order), stopped, "{order}");
    }
    // With the gate dead nobody is stopped, for nobody may be there to let it go.
    world.beating.store(false, Ordering::Relaxed);
    let mut orders = (0..1_000_000).map(|number| format!("pipes dead {number}"));
    assert!(orders.any(|order| !held(&order)));
    world.beating.store(true, Ordering::Relaxed);
    assert!(orders.any(|order| held(&order)));
    world.kernel.lock().unwrap().spare(workload.number).unwrap();
    assert!(!held("pipes spared"));
    drop(orders_to);
    assert!(host.wait().unwrap().success());
}

/// The last argument is this.
fn named(event: &Event, name: &[u8]) -> bool {
    let execution = event.execution.as_ref();
    execution.is_some_and(|execution| execution.argv.last().is_some_and(|arg| arg == name))
}

/// Comes to be in state T: stopped.
fn stops(pid: u32) -> bool {
    (0..1_000_000).any(|_| {
        let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let state = status.rsplit(')').next();
        state.is_some_and(|rest| rest.starts_with(" T"))
    })
}

/// A mount that ends with this.
struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn new(kind: &str, options: &str, at: &'a Path) -> Self {
        let mut mount = Command::new("mount");
        mount.args(["-t", kind, kind]).arg(at);
        if !options.is_empty() {
            mount.args(["-o", options]);
        }
        assert!(mount.status().unwrap().success());
        Self(at)
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0).status();
        assert!(unmounted.unwrap().success() || thread::panicking());
    }
}

/// `touch` in `directory` is stopped when it is executed, and goes on managed.
fn is_stopped(directory: &Path) {
    let (watched, trace) = (directory.join("touch"), directory.join("trace"));
    let file = identify(&watched).unwrap();
    watch(&[file]);
    let mut child = Command::new(&watched).arg(&trace).spawn().unwrap();
    let event = SHARED
        .processes
        .wait("watched exec", |event| event.tgid == child.id());
    assert_eq!(event.kind, EventKind::WatchedExec);
    assert_eq!(event.execution.unwrap().file, file);
    // State T: stopped, and nothing was done.
    assert!(stops(child.id()) && !trace.exists());
    // What the supervisor does: place it, let it go on. Its sockets are born managed.
    let workload = SHARED.workload(&format!("watched-{}", file.device));
    fs::write(workload.cgroup.join("cgroup.procs"), child.id().to_string()).unwrap();
    let go_on = Command::new("kill")
        .args(["-CONT", &child.id().to_string()])
        .status();
    assert!(go_on.unwrap().success());
    assert!(child.wait().unwrap().success() && trace.exists());
    watch(&[]);
    let again = Command::new(&watched).arg(&trace).status();
    assert!(again.unwrap().success());
    fs::remove_file(&trace).unwrap();
}

fn watch(files: &[File]) {
    let mut kernel = SHARED.kernel.lock().unwrap();
    kernel.watch_executables(files).unwrap();
}
