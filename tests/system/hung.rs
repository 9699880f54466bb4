//! Disks that hang: what waits for them, and that nothing else does.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use exeat_tests::Lab;
use exeat_tests::cgroup::Cgroup;
use exeat_tests::daemon::Daemon;
use exeat_tests::process::must;
use exeat_tests::wait::wait_until;
use serde_json::Value;

use crate::place::LIMIT;

/// A directory on which whoever looks into it waits, until this is dropped.
struct Hung {
    path: PathBuf,
    server: Child,
}

impl Hung {
    fn mount(path: PathBuf) -> Self {
        fs::create_dir(&path).unwrap();
        let mut server = Command::new("python3")
            .args(["-c", include_str!("clients/hung.py")])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut output = BufReader::new(server.stdout.take().unwrap());
        output.read_line(&mut said).unwrap();
        assert_eq!(said, "mounted\n");
        Self { path, server }
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        // With its device closed, whoever waits gets an error.
        drop(self.server.stdin.take());
        self.server.wait().unwrap();
        must("umount", &[Path::new("-l"), &self.path]).unwrap();
    }
}

/// The state of a process or thread (`proc_pid_stat(5)`).
fn state(directory: &Path) -> Option<char> {
    let stat = fs::read_to_string(directory.join("stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn stopped(cgroup: &Cgroup) -> usize {
    let all = cgroup.processes().into_iter();
    let all = all.map(|pid| state(&Path::new("/proc").join(pid.to_string())));
    all.filter(|state| *state == Some('T')).count()
}

/// Threads that a disk keeps.
fn kept(daemon: &Daemon<'_>) -> usize {
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
    let threads = threads.map(|thread| state(&thread.unwrap().path()));
    threads.filter(|state| *state == Some('D')).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_whose_files_hang_keeps_nobody_elses_processes_waiting() {
    let lab = Lab::new().unwrap();
    let hung = Hung::mount(lab.directory().join("hung"));
    let project = lab.directory().join("project");
    fs::create_dir(&project).unwrap();
    symlink(hung.path.join("mcp.json"), project.join(".mcp.json")).unwrap();
    let [theirs, others] =
        ["theirs", "others"].map(|name| Cgroup::create(&format!("{}-{name}", lab.name())).unwrap());
    let matched = |cgroup: &Cgroup| {
        let name = cgroup.path().file_name().unwrap().to_str().unwrap();
        format!("match: {{ cgroup: /{name} }}")
    };
    let policy = format!(
        "version: 1
servers: {{ any: {{ purpose: none, owner: tests@lab.example, launch: {{ command: /bin/true }} }} }}
hosts: {{ theirs: {{ {} }}, others: {{ {} }} }}
",
        matched(&theirs),
        matched(&others)
    );
    let daemon = lab.daemon(&policy).await.unwrap();
    let start = |cgroup: &Cgroup, directory: &Path, uid: &str, script: &str| {
        let mut command = cgroup.launcher(lab.inside.command("env"));
        command
            .args([
                "setpriv",
                "--reuid",
                uid,
                "--clear-groups",
                "sh",
                "-c",
                script,
            ])
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command.spawn().unwrap()
    };
    // More than there are turns for all users together; of each three the one in the middle is judged.
    let many = "for one in $(seq 80); do sleep 1000 | sleep 1000 | sleep 1000 & done; wait";
    let mut hanging = start(&theirs, &project, "4711", many);
    wait_until("they wait to be judged", LIMIT, || stopped(&theirs) >= 80)
        .await
        .unwrap();
    let other = start(&others, lab.directory(), "4712", "echo judged | cat | cat");
    let said = tokio::task::spawn_blocking(|| other.wait_with_output());
    let said = said.await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), "judged\n");
    // Not because they had their time: they wait still.
    assert!(stopped(&theirs) >= 80);
    let unregistered = |record: &Value| record["finding"]["what"] == "unregistered_server";
    let found = daemon.audit().unwrap();
    let mut found = found.iter().filter(|record| unregistered(record));
    assert!(found.all(|record| record["workload"]["name"] != "others"));
    // What cannot be judged is isolated, one as the other.
    daemon.record("one of them", unregistered).await.unwrap();
    wait_until("none of them waits", LIMIT, || stopped(&theirs) == 0)
        .await
        .unwrap();
    hanging.kill().unwrap();
    hanging.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_whose_disk_hangs_keeps_one_thread() {
    let lab = Lab::new().unwrap();
    let hung = Hung::mount(lab.directory().join("hung"));
    let file = hung.path.join("key").display().to_string();
    let policy = format!(
        "version: 1
credentials:
  one: {{ file: {file}, refresh: 1s }}
  two: {{ file: {file}, refresh: 1s }}
  three: {{ file: {file} }}
"
    );
    let daemon = lab.daemon(&policy).await.unwrap();
    let said = async |what: &str| {
        daemon
            .record(what, |record| {
                let detail = record["finding"]["detail"].as_str().unwrap_or_default();
                record["finding"]["what"] == "credential_unavailable"
                    && detail.starts_with("credential `one`: file `")
                    && detail.contains(what)
            })
            .await
            .unwrap()
    };
    daemon.reload().unwrap();
    said("an earlier reading has not come back from its disk").await;
    assert_eq!(kept(&daemon), 1);
    // When the disk is back, so is the reading.
    drop(hung);
    wait_until("the thread is back", LIMIT, || kept(&daemon) == 0)
        .await
        .unwrap();
    daemon
        .record("it is read again", |record| {
            let detail = record["finding"]["detail"].as_str().unwrap_or_default();
            detail.starts_with("credential `one`: reading `")
        })
        .await
        .unwrap();
}
