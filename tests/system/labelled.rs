//! Containers that others start with Docker, known as servers by their labels: whether they run before the daemon or
//! come after it.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use exeat_tests::cgroup::{mount, remove};
use exeat_tests::daemon::Daemon;
use exeat_tests::docker::Docker;
use exeat_tests::lab::{Lab, WORLD, WORLD_OTHER};
use exeat_tests::process::must;
use exeat_tests::upstream::Upstream;
use exeat_tests::wait::{wait_for, wait_until};
use serde_json::Value;

use crate::place::LIMIT;

/// curl in a container, as whoever does not know Exeat's certificates.
const CURL: &str = "curl --silent --insecure --max-time 20 --output /dev/null --write-out '%{http_code} %{exitcode}'";
const POLICY: &str = "version: 1
servers:
  inventory:
    purpose: stock levels
    owner: tests@lab.example
    listen: 127.0.0.1:3001
    match: { container: { label: [org.example.mcp=inventory, org.example.team] } }
    egress: [{ host: api.lab.example }]
";
/// How often a container is started whose first act is to connect.
const STARTS: u32 = 5;

/// A lab with Docker's daemon, an image that has this machine's programs, and two servers.
struct Place {
    lab: Lab,
    docker: Docker,
    _api: Upstream,
    other: Upstream,
}

impl Place {
    async fn new() -> Self {
        let lab = Lab::new().unwrap();
        let docker = Docker::start(&lab, "cgroupfs").await.unwrap();
        let api = lab
            .https(&["api.lab.example"], SocketAddr::new(WORLD, 443))
            .unwrap();
        let other = lab
            .https(&["other.lab.example"], SocketAddr::new(WORLD_OTHER, 443))
            .unwrap();
        let image = lab.directory().join("image");
        fs::create_dir(&image).unwrap();
        for name in ["bin", "lib", "lib64"] {
            symlink(format!("usr/{name}"), image.join(name)).unwrap();
        }
        let archive = lab.directory().join("image.tar");
        let (from, to) = (image.to_str().unwrap(), archive.to_str().unwrap());
        must("tar", &["-C", from, "-cf", to, "."]).unwrap();
        let done = docker.run(&["import", to, "machine:1"]).await.unwrap();
        assert!(done.status.success(), "{}", done.stderr);
        Self {
            lab,
            docker,
            _api: api,
            other,
        }
    }

    async fn daemon(&self) -> Daemon<'_> {
        let root = self.lab.directory().join("docker");
        let settings = format!("docker: {{ data_root: {} }}", root.display());
        self.lab.daemon_with(POLICY, &settings).await.unwrap()
    }

    /// Starts a container as somebody who knows nothing of Exeat; its id.
    async fn start(&self, options: &[&str], script: &str) -> String {
        let resolving = format!(
            "{}:/etc/resolv.conf:ro",
            self.lab.directory().join("resolv.conf").display()
        );
        let fixed = [
            "run",
            "--detach",
            "--volume=/usr:/usr:ro",
            "--volume",
            &resolving,
        ];
        let command = ["machine:1", "/bin/sh", "-c", script];
        let arguments = [&fixed[..], options, &command].concat();
        let done = self.docker.run(&arguments).await.unwrap();
        assert!(done.status.success(), "{}", done.stderr);
        done.stdout.trim().to_owned()
    }

    /// What a request of a container that runs comes to: HTTP's status and curl's.
    async fn curl(&self, id: &str, url: &str) -> String {
        let script = format!("{CURL} {url}");
        let arguments = ["exec", id, "/bin/sh", "-c", &script];
        self.docker.run(&arguments).await.unwrap().stdout
    }

    /// What a container said when it ended.
    async fn said(&self, id: &str) -> String {
        let done = self.docker.run(&["wait", id]).await.unwrap();
        assert!(done.status.success(), "{}", done.stderr);
        self.docker.run(&["logs", id]).await.unwrap().stdout
    }

    /// Whether `exeat discover` takes a container's process for the managed server.
    async fn discovers(&self, daemon: &Daemon<'_>, id: &str) -> bool {
        let arguments = ["inspect", "--format", "{{.State.Pid}}", id];
        let pid = self.docker.run(&arguments).await.unwrap().stdout;
        let pid: u32 = pid.trim().parse().unwrap();
        let done = daemon.cli(&["discover"]).await.unwrap();
        let inventory: Value = serde_json::from_str(&done.stdout).unwrap();
        let mut found = inventory["found"].as_array().unwrap().iter();
        found.any(|found| {
            let pids = found["pids"].as_array().unwrap();
            found["registered"] == "inventory"
                && found["standing"] == "managed"
                && pids.contains(&pid.into())
        })
    }

    async fn remove(&self, id: &str) {
        let done = self.docker.run(&["rm", "--force", id]).await.unwrap();
        assert!(done.status.success(), "{}", done.stderr);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Ok(parent) = mount().map(|root| root.join("docker")) else {
            return;
        };
        // What a test that failed left running; Docker's daemon does not end it when it ends.
        let kept = self.lab.directory().join("docker/containers");
        for kept in fs::read_dir(kept).into_iter().flatten().flatten() {
            let _left = remove(&parent.join(kept.file_name()));
        }
        // Fails while another's container is in it.
        let _left = fs::remove_dir(parent);
    }
}

/// The workloads whose cgroup is a container's.
async fn of_container(daemon: &Daemon<'_>, id: &str) -> Vec<Value> {
    let status = daemon.status().await.unwrap();
    let all = status["workloads"].as_array().unwrap().clone();
    let is_its = |workload: &Value| workload["cgroup"].as_str().unwrap().contains(id);
    all.into_iter().filter(is_its).collect()
}

async fn managed(daemon: &Daemon<'_>, id: &str, name: &str) {
    wait_for("the container is managed", LIMIT, async || {
        let found = of_container(daemon, id).await;
        (found.len() == 1 && found[0]["name"] == name).then_some(())
    })
    .await
    .unwrap();
}

const LABELS: [&str; 4] = [
    "--network=host",
    "--label=org.example.mcp=inventory",
    "--label=org.example.team=a",
    "--label=other=x",
];
const ALLOWED: &str = "https://api.lab.example/echo";
const CLOSED: &str = "https://other.lab.example/";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_the_server_that_its_labels_name() {
    let place = Place::new().await;
    let before = place.start(&LABELS, "exec sleep 600").await;
    let daemon = place.daemon().await;
    managed(&daemon, &before, "inventory").await;
    let after = place.start(&LABELS, "exec sleep 600").await;
    managed(&daemon, &after, "inventory").await;
    for (id, path) in [(&before, "before"), (&after, "after")] {
        let allowed = place.curl(id, &format!("{ALLOWED}?{path}")).await;
        assert_eq!(allowed, "200 0", "{path}");
        let record = daemon
            .record("the container's request", |record| {
                record["http"]["path"] == format!("/echo?{path}")
            })
            .await
            .unwrap();
        assert_eq!(record["workload"]["name"], "inventory", "{record}");
        assert_eq!(record["workload"]["kind"], "server", "{record}");
        assert_eq!(record["decision"]["effect"], "allow", "{record}");
    }
    // What is not allowed is refused in the kernel, by name and by address.
    let wire = place.lab.wire().unwrap();
    assert_eq!(place.curl(&after, CLOSED).await, "000 6");
    assert_eq!(
        place.curl(&after, &format!("https://{WORLD_OTHER}/")).await,
        "000 7"
    );
    daemon
        .record("the refused connect", |record| {
            record["workload"]["name"] == "inventory"
                && record["kind"] == "tcp"
                && record["outcome"]["status"] == "refused"
        })
        .await
        .unwrap();
    // One in a network of its own reaches nothing, and one without its labels is left alone.
    let labels = [&["--network=none"][..], &LABELS[1..]].concat();
    let apart = place.start(&labels, "exec sleep 600").await;
    managed(&daemon, &apart, "inventory").await;
    assert_ne!(place.curl(&apart, ALLOWED).await, "200 0");
    assert_eq!(wire.to(WORLD_OTHER), [], "nothing leaves");
    for options in [
        &["--network=host"][..],
        &["--network=host", "--label=org.example.mcp=inventory"],
        &[
            "--network=host",
            "--label=org.example.mcp=inventory2",
            "--label=org.example.team",
        ],
        &[
            "--network=host",
            "--label=org.example.mcp=invent",
            "--label=org.example.team",
        ],
        &[
            "--network=host",
            "--label=org.example.mcp",
            "--label=org.example.team",
        ],
        &[
            "--network=host",
            "--label=org.example.mcp2=inventory",
            "--label=org.example.team",
        ],
        &[
            "--network=host",
            "--env=org.example.mcp=inventory",
            "--name=inventory",
        ],
    ] {
        let free = place.start(options, "exec sleep 600").await;
        assert_eq!(place.curl(&free, CLOSED).await, "404 0", "{options:?}");
        assert_eq!(
            of_container(&daemon, &free).await,
            [Value::Null; 0],
            "{options:?}"
        );
        place.remove(&free).await;
    }
    assert!(place.discovers(&daemon, &after).await);
    // What ends, and is started again, is the same server.
    place
        .docker
        .run(&["restart", "--time=0", &after])
        .await
        .unwrap();
    managed(&daemon, &after, "inventory").await;
    assert_eq!(
        place.curl(&after, &format!("{ALLOWED}?again")).await,
        "200 0"
    );
    assert_eq!(place.curl(&after, CLOSED).await, "000 6");
    for id in [&before, &after, &apart] {
        place.remove(id).await;
        wait_for("the workload ends", LIMIT, async || {
            of_container(&daemon, id).await.is_empty().then_some(())
        })
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_reaches_nothing_before_it_is_a_server() {
    let place = Place::new().await;
    let daemon = place.daemon().await;
    let wire = place.lab.wire().unwrap();
    let script = format!("exec {CURL} https://{WORLD_OTHER}/");
    for start in 0..STARTS {
        // Wherever its cgroup is made.
        let parent = format!("--cgroup-parent=/{}-parent/{start}", place.lab.name());
        let options = match start % 2 {
            0 => LABELS.to_vec(),
            _ => [&LABELS[..], &[&parent]].concat(),
        };
        let id = place.start(&options, &script).await;
        assert_eq!(place.said(&id).await, "000 7", "{start}");
        place.remove(&id).await;
    }
    assert_eq!(wire.to(WORLD_OTHER), [], "nothing leaves");
    assert_eq!(place.other.seen().len(), 0);
    drop(daemon);
    let parent = mount()
        .unwrap()
        .join(format!("{}-parent", place.lab.name()));
    remove(&parent).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_whose_labels_are_not_known_reaches_nothing() {
    let place = Place::new().await;
    let id = place.start(&["--network=host"], "exec sleep 600").await;
    let config = place.lab.directory().join("docker/containers").join(&id);
    let config: PathBuf = config.join("config.v2.json");
    let aside = place.lab.directory().join("aside.json");
    fs::rename(&config, &aside).unwrap();
    symlink(&aside, &config).unwrap();
    let daemon = place.daemon().await;
    let short: String = id.chars().take(12).collect();
    let name = format!("container {short}");
    managed(&daemon, &id, &name).await;
    assert_eq!(place.curl(&id, CLOSED).await, "000 6");
    daemon
        .record("it is said", |record| {
            record["finding"]["what"] == "match_incomplete"
                && record["finding"]["detail"].as_str().is_some_and(|detail| {
                    detail.contains(&short) && detail.contains("reaches nothing")
                })
        })
        .await
        .unwrap();
    // It is no server once that is known.
    fs::rename(&aside, &config).unwrap();
    wait_for("the container is let go", LIMIT, async || {
        of_container(&daemon, &id).await.is_empty().then_some(())
    })
    .await
    .unwrap();
    assert_eq!(place.curl(&id, CLOSED).await, "404 0");
    place.remove(&id).await;
    wait_until("its cgroup is gone", LIMIT, || {
        !mount().unwrap().join("docker").join(&id).exists()
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_runs_is_what_the_policy_says_now() {
    let place = Place::new().await;
    let daemon = place.daemon().await;
    // Its cgroup is not where one would look for it.
    let odd = format!("{}-odd", place.lab.name());
    let parent = format!("--cgroup-parent=/{odd}/../{odd}");
    let options = [&LABELS[..], &[&parent]].concat();
    let id = place.start(&options, "exec sleep 600").await;
    managed(&daemon, &id, "inventory").await;
    assert_eq!(place.curl(&id, ALLOWED).await, "200 0");
    let stock = |label: &str| {
        format!(
            "  stock:
    purpose: stock levels
    owner: tests@lab.example
    listen: 127.0.0.1:3002
    match: {{ container: {{ label: {label} }} }}
    egress: [{{ host: other.lab.example }}]
"
        )
    };
    let other = POLICY.replace("org.example.mcp=inventory", "org.example.mcp=other");
    let policy = format!("{other}{}", stock("org.example.mcp=inventory"));
    daemon.replace_policy(&policy).unwrap();
    managed(&daemon, &id, "stock").await;
    assert_eq!(place.curl(&id, CLOSED).await, "404 0");
    assert_eq!(place.curl(&id, ALLOWED).await, "000 6");
    // It would be both.
    daemon
        .replace_policy(&format!("{POLICY}{}", stock("org.example.mcp=inventory")))
        .unwrap();
    let short: String = id.chars().take(12).collect();
    managed(&daemon, &id, &format!("container {short}")).await;
    assert_eq!(place.curl(&id, CLOSED).await, "000 6");
    assert_eq!(place.curl(&id, ALLOWED).await, "000 6");
    daemon.replace_policy(POLICY).unwrap();
    managed(&daemon, &id, "inventory").await;
    assert_eq!(place.curl(&id, ALLOWED).await, "200 0");
    assert_eq!(place.curl(&id, CLOSED).await, "000 6");
    place.remove(&id).await;
    remove(&mount().unwrap().join(odd)).unwrap();
}
