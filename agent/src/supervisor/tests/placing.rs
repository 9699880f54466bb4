//! Processes that others start: which come into a workload, and which stay where they are.

use super::*;

#[tokio::test]
async fn a_process_that_policy_names_is_placed_before_it_runs_and_found_if_it_ran_before() {
    let directory = tempfile::tempdir().unwrap();
    let (program, policy) = named_program(directory.path());
    let mut older = std::process::Command::new(&program)
        .arg("600")
        .spawn()
        .unwrap();
    let daemon = Daemon::start("match").await;
    fs::write(daemon.at("policy/a.yaml"), policy).unwrap();
    until(|| cgroup_of(older.id()).contains("/w/agent-")).await;

    let mut newer = std::process::Command::new(&program)
        .arg("600")
        .spawn()
        .unwrap();
    until(|| daemon.workloads().len() == 2).await;
    until(|| cgroup_of(newer.id()).contains("/w/agent-")).await;
    until(|| state_of(newer.id()).starts_with('S')).await;
    let workloads = daemon.heard_of("workload");
    assert!(
        workloads
            .iter()
            .all(|w| w["name"] == "agent" && w["kind"] == "host"),
        "{workloads:?}"
    );
    assert_eq!(workloads[1]["pid"], newer.id());
    assert_eq!(workloads[1]["args"][1], "600");

    // Executed by something that is not named, it is nobody's.
    let copy = directory.path().join("other");
    fs::copy("/bin/sleep", &copy).unwrap();
    let mut other = std::process::Command::new(&copy)
        .arg("600")
        .spawn()
        .unwrap();
    assert!(!cgroup_of(other.id()).contains("/w/"));
    for child in [&mut older, &mut newer, &mut other] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    until(|| daemon.workloads().is_empty()).await;
    // The gate is told after the table has changed.
    until(|| daemon.heard_of("workload_gone").len() == 2).await;
    daemon.stop().await;
}

/// A server's process, which others started, may be called like a host, and be one by its file.
#[tokio::test]
async fn who_has_a_place_already_is_not_taken_from_it() {
    let directory = tempfile::tempdir().unwrap();
    let (program, policy) = named_program(directory.path());
    let daemon = Daemon::start("taken").await;
    let name = format!("{}-foreign", daemon.name);
    let cgroup = find_root().unwrap().join(&name);
    fs::create_dir(&cgroup).unwrap();
    let start = || {
        let mut command = std::process::Command::new(&program);
        command.arg("600").spawn().unwrap()
    };
    let mut servers = start();
    fs::write(cgroup.join("cgroup.procs"), servers.id().to_string()).unwrap();
    let mut hosts = start();
    let server = format!(
        "  inventory:\n    purpose: a\n    owner: b\n    listen: 127.0.0.1:3001\n    match: {{ cgroup: /{name} }}\nhosts:"
    );
    fs::write(
        daemon.at("policy/a.yaml"),
        policy.replacen("hosts:", &server, 1),
    )
    .unwrap();
    // Both were looked at in the order in which they began.
    until(|| cgroup_of(hosts.id()).contains("/w/agent-")).await;
    assert_eq!(
        cgroup_of(servers.id()).trim().rsplit("::").next(),
        Some(format!("/{name}").as_str())
    );
    for child in [&mut servers, &mut hosts] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    fs::remove_dir(&cgroup).unwrap();
    until(|| daemon.workloads().is_empty()).await;
    daemon.stop().await;
}
