//! What the tests leave behind: nothing, also where one of them panics.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use exeat_tests::wait::wait_until;

use crate::world::{PATIENCE, World, runtime};

const VARIABLE: &str = "EXEAT_TEST_REMAINS";

/// Not a test of its own: what panics, when the test starts it with the variable.
#[test]
fn panicking() {
    if env::var_os(VARIABLE).is_none() {
        return;
    }
    // The second is made by a member of the first one's cgroup.
    let worlds = [World::new("first"), World::new("second")];
    let workload = worlds[1].workload("a");
    let deep = workload.cgroup.join("deep/deeper");
    fs::create_dir_all(&deep).unwrap();
    // One that goes on afterwards, so that the second is not removed at the first attempt.
    let script = r#"echo $$ > "$1/cgroup.procs" && echo there && exec sleep 60"#;
    let mut straggler = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(&deep)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = straggler.stdout.take().unwrap();
    // Whoever removes its cgroup ends it.
    Box::leak(Box::new(straggler));
    let said = BufReader::new(out).lines().next();
    assert_eq!(said.unwrap().unwrap(), "there");
    println!("{}", worlds[0].layout.cgroup_root.display());
    println!("{}", worlds[1].layout.cgroup_root.display());
    println!("{}", worlds[1].layout.bpffs.display());
    panic!("as a test that fails");
}

#[test]
fn a_test_that_panics_leaves_no_cgroup() {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "remains::panicking", "--nocapture"])
        .env(VARIABLE, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    let places: Vec<PathBuf> = said
        .lines()
        .filter(|line| line.starts_with("/sys/"))
        .map(PathBuf::from)
        .collect();
    assert_eq!(places.len(), 3, "{said}");
    let left = || places.iter().find(|place| place.exists());
    runtime()
        .block_on(wait_until("all of it is removed", PATIENCE, || {
            left().is_none()
        }))
        .unwrap_or_else(|error| panic!("{error}: {:?}", left()));
}
