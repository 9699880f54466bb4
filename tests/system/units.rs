//! Servers and hosts that are units of the service manager: known by the cgroup that it gives them, whether they run
//! before the daemon or come after it. The cgroups here are made as systemd makes them.

use std::fs;
use std::net::SocketAddr;

use exeat_tests::Lab;
use exeat_tests::cgroup::{Cgroup, mount};
use exeat_tests::lab::{WORLD, WORLD_OTHER};
use exeat_tests::process::{Process, run};
use exeat_tests::wait::wait_for;
use serde_json::{Value, json};

use crate::place::LIMIT;
use crate::serving::{Told, call, curl, user};

const URL: &str = "http://127.0.0.1:3001/mcp";
const SERVER: &str = include_str!("clients/plain.py");

/// A unit's cgroup below `system.slice`, which goes with the last unit where no systemd made it.
struct Unit {
    name: String,
    cgroup: Option<Cgroup>,
}

impl Unit {
    fn create(lab: &Lab, kind: &str) -> Self {
        let name = format!("{}-{kind}.service", lab.name());
        let cgroup = Cgroup::create(&format!("system.slice/{name}")).unwrap();
        Self {
            name,
            cgroup: Some(cgroup),
        }
    }

    fn cgroup(&self) -> &Cgroup {
        self.cgroup.as_ref().unwrap()
    }

    /// A request by a process of the unit.
    async fn curl(&self, lab: &Lab, arguments: &[&str]) -> Told {
        curl(self.cgroup().launcher(lab.direct()), arguments).await
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        self.cgroup = None;
        // Fails while another unit is in it.
        let _left = mount().and_then(|root| Ok(fs::remove_dir(root.join("system.slice"))?));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_are_servers_and_hosts() {
    let lab = Lab::new().unwrap();
    let _api = lab
        .https(&["api.lab.example"], SocketAddr::new(WORLD, 443))
        .unwrap();
    let other = lab
        .https(&["other.lab.example"], SocketAddr::new(WORLD_OTHER, 443))
        .unwrap();
    let (server, stranger) = (
        Unit::create(&lab, "inventory"),
        Unit::create(&lab, "stranger"),
    );
    let host = format!("{}-agent.service", lab.name());
    let policy = format!(
        "version: 1
servers:
  inventory:
    purpose: stock levels
    owner: tests@lab.example
    listen: 127.0.0.1:3001
    match: {{ unit: {} }}
    egress: [{{ host: api.lab.example }}]
hosts: {{ agent: {{ match: {{ unit: {host} }}, servers: [inventory] }} }}
identities: {{ staff: {{ user: root }} }}
rules: [{{ id: work, who: [agent, staff], servers: [inventory], tools: [work], effect: allow }}]
",
        server.name
    );
    let daemon = lab.daemon(&policy).await.unwrap();
    let managed = async |name: &str| {
        let what = format!("{name} is managed");
        wait_for(&what, LIMIT, async || {
            let status = daemon.status().await.ok()?;
            let found = status["workloads"].as_array()?.iter();
            found
                .clone()
                .find(|workload| workload["name"] == name)
                .cloned()
        })
        .await
        .unwrap()
    };

    // The server's unit was there before the daemon.
    let workload = managed("inventory").await;
    assert!(
        workload["cgroup"].as_str().unwrap().ends_with(&server.name),
        "{workload}"
    );
    let mut command = server.cgroup().launcher(lab.inside.command("env"));
    command
        .args(["/usr/bin/python3", "-c", SERVER, "127.0.0.1", "3001"])
        .arg(lab.directory().join("requests"));
    let mut process = Process::start("plain", lab.directory(), &mut command).unwrap();
    process.ready(LIMIT).await.unwrap();
    let answer = call(user(&lab, "root"), URL, json!({})).await;
    assert!(answer.json()["result"].is_object(), "{answer:?}");
    let guest = call(user(&lab, "bin"), URL, json!({})).await;
    assert_eq!(guest.status, "403", "{guest:?}");
    // What it sends is a server's.
    let allowed = server
        .curl(&lab, &["https://api.lab.example/echo?unit"])
        .await;
    assert_eq!(
        (allowed.exit, allowed.status.as_str()),
        (0, "200"),
        "{allowed:?}"
    );
    let denied = server.curl(&lab, &["https://other.lab.example/"]).await;
    assert_ne!(denied.exit, 0, "{denied:?}");
    assert_eq!(other.seen().len(), 0);
    let record = daemon
        .record("the unit's request", |record| {
            record["http"]["path"] == "/echo?unit"
        })
        .await
        .unwrap();
    assert_eq!(record["workload"]["name"], "inventory", "{record}");
    assert_eq!(record["workload"]["kind"], "server", "{record}");

    // The host's unit is started later, as a service manager does: the cgroup, then its processes.
    let agent = Unit::create(&lab, "agent");
    assert_eq!(agent.name, host);
    managed("agent").await;
    let answer = call(
        agent.cgroup().launcher(lab.inside.command("env")),
        URL,
        json!({}),
    )
    .await;
    assert!(answer.json()["result"].is_object(), "{answer:?}");
    let denied = agent.curl(&lab, &["https://other.lab.example/"]).await;
    assert_ne!(denied.exit, 0, "{denied:?}");
    let record = daemon
        .record("the host's call", |record| {
            record["mcp"]["name"] == "work" && record["workload"]["name"] == "agent"
        })
        .await
        .unwrap();
    assert_eq!(record["workload"]["kind"], "host", "{record}");

    // A unit of another name is nobody's.
    let free = stranger
        .curl(&lab, &["https://other.lab.example/echo"])
        .await;
    assert_eq!((free.exit, free.status.as_str()), (0, "200"), "{free:?}");
    let about = |record: &Value| {
        record["workload"]["cgroup"]
            .to_string()
            .contains("stranger")
    };
    assert!(!daemon.audit().unwrap().iter().any(about));
    let done = run(&mut lab.exeat(&["status", "--no-canary"]).unwrap(), LIMIT)
        .await
        .unwrap();
    assert!(!done.stdout.contains(&stranger.name), "{done:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_a_cgroup_cannot_be_managed_is_said_once() {
    let lab = Lab::new().unwrap();
    // Deeper than the kernel's programs look.
    let top = format!("{}-deep", lab.name());
    let deep = format!("{top}{}", "/x".repeat(16));
    let _top = Cgroup::create(&top).unwrap();
    fs::create_dir_all(mount().unwrap().join(&deep)).unwrap();
    let later = format!("{}-later", lab.name());
    let policy = format!(
        "version: 1
servers:
  deep: {{ purpose: x, owner: a@b.example, listen: '127.0.0.1:3001', match: {{ cgroup: /{deep} }} }}
  later: {{ purpose: x, owner: a@b.example, listen: '127.0.0.1:3002', match: {{ cgroup: /{later} }} }}
"
    );
    let mut daemon = lab.daemon(&policy).await.unwrap();
    let is_failure = |record: &Value| record["finding"]["what"] == "match_failed";
    daemon.record("it is said", is_failure).await.unwrap();
    // What is managed now was looked for after that.
    let _later = Cgroup::create(&later).unwrap();
    wait_for("the other one is managed", LIMIT, async || {
        let status = daemon.status().await.ok()?;
        let mut workloads = status["workloads"].as_array()?.iter();
        workloads.any(|of| of["name"] == "later").then_some(())
    })
    .await
    .unwrap();
    daemon.stop().await.unwrap();
    let records = daemon.audit().unwrap();
    let said: Vec<&Value> = records.iter().filter(|record| is_failure(record)).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    let detail = said[0]["finding"]["detail"].as_str().unwrap();
    assert!(detail.contains("is not managed as `deep`"), "{detail}");
}
