//! Servers that Docker starts: what is fetched for them, what they reach, what is left of them.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use exeat_tests::daemon::Daemon;
use exeat_tests::docker::{CLIENT, Docker};
use exeat_tests::lab::{Lab, WORLD, WORLD_OTHER};
use exeat_tests::process::must;
use exeat_tests::stdio::Session;
use exeat_tests::upstream::Upstream;
use exeat_tests::wait::{wait_for, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::place::{registering, told};

const REGISTRY: &str = "registry.lab.example";
const NAME: &str = "org/mcp";
const LIMIT: Duration = Duration::from_mins(1);

/// What `image.py` made.
#[derive(Deserialize)]
struct Image {
    files: BTreeMap<String, (String, PathBuf)>,
    digest: String,
    config: String,
}

/// A lab with Docker's daemon, a registry and another server.
struct Place {
    lab: Lab,
    docker: Docker,
    registry: Upstream,
    _other: Upstream,
}

impl Place {
    async fn new() -> Self {
        Self::with("cgroupfs").await
    }

    async fn with(driver: &str) -> Self {
        let lab = Lab::new().unwrap();
        let docker = Docker::start(&lab, driver).await.unwrap();
        let registry = lab.https(&[REGISTRY], SocketAddr::new(WORLD, 443)).unwrap();
        let names = ["api.lab.example", "closed.lab.example"];
        let other = lab
            .https(&names, SocketAddr::new(WORLD_OTHER, 443))
            .unwrap();
        Self {
            lab,
            docker,
            registry,
            _other: other,
        }
    }

    /// Publishes an image, whose server ends with this line.
    fn publish(&self, line: &str) -> Image {
        let directory = self.lab.directory();
        let script = directory.join("contained.py");
        let text = format!("{}{line}\n", include_str!("clients/contained.py"));
        fs::write(&script, text).unwrap();
        let maker = directory.join("image.py");
        fs::write(&maker, include_str!("clients/image.py")).unwrap();
        let blobs = directory.join("blobs");
        fs::create_dir_all(&blobs).unwrap();
        let arguments = [
            maker.as_os_str(),
            blobs.as_os_str(),
            NAME.as_ref(),
            "1".as_ref(),
            script.as_os_str(),
        ];
        let made = must("/usr/bin/python3", &arguments).unwrap();
        let image: Image = serde_json::from_str(&made).unwrap();
        for (path, (kind, file)) in &image.files {
            let kind = [
                "application/octet-stream",
                "application/vnd.oci.image.index.v1+json",
            ]
            .into_iter()
            .find(|known| known == kind)
            .unwrap_or("application/vnd.oci.image.manifest.v1+json");
            self.registry.put(path, kind, fs::read(file).unwrap());
        }
        image
    }

    fn server(&self, name: &str, fetch: &str, arguments: &[&str]) -> String {
        format!(
            "  {name}:
    purpose: runs in a container
    owner: tests@lab.example
    launch:
      command: {CLIENT}
      args: {arguments:?}
      user: nobody
      env: {{ DOCKER_HOST: \"{}\", TOKEN: given }}
      fetch: {fetch}
    egress: [{{ host: api.lab.example }}]
",
            self.docker.host()
        )
    }

    /// The daemon with the one server `contained`, which is the image.
    async fn contained(&self) -> Daemon<'_> {
        let fetch = format!("[{REGISTRY}]");
        let server = self.server("contained", &fetch, &["run", "-i", &pinned()]);
        self.lab.daemon(&registering(&[server])).await.unwrap()
    }

    /// The cgroups of the servers that run.
    fn workloads(&self) -> Vec<PathBuf> {
        let all = self.lab.cgroup().unwrap().join("w");
        let entries = fs::read_dir(&all).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.is_dir()).collect()
    }

    /// Starts a server that does not come to speak; what is said of it.
    async fn fails(&self, daemon: &Daemon<'_>, name: &str) -> String {
        let mut session = daemon.run(name).unwrap();
        let answer = session.initialize().await;
        let is_started = answer.is_ok_and(|answer| answer["result"].is_object());
        assert!(!is_started, "{name}");
        assert!(!session.close().await.unwrap().success(), "{name}");
        self.said(name)
    }

    /// What a server that was started wrote to its standard error.
    fn said(&self, name: &str) -> String {
        let log = self.lab.directory().join(format!("run-{name}.err"));
        fs::read_to_string(log).unwrap()
    }

    /// Nothing is left of any server.
    async fn nothing_is_left(&self) {
        wait_for("no container is left", LIMIT, async || {
            let left = self.docker.containers().await.ok()?;
            left.is_empty().then_some(())
        })
        .await
        .unwrap();
        wait_until("no cgroup is left", LIMIT, || self.workloads().is_empty())
            .await
            .unwrap();
    }
}

fn pinned() -> String {
    format!("{REGISTRY}/{NAME}:1")
}

async fn initialized(place: &Place, daemon: &Daemon<'_>, name: &str) -> Session {
    let mut session = daemon.run(name).unwrap();
    let answer = session.initialize().await;
    if !answer
        .as_ref()
        .is_ok_and(|answer| answer["result"].is_object())
    {
        let said = place.said(name);
        panic!("{answer:?}: {said}\n{}", place.docker.report());
    }
    session
}

async fn asked(session: &mut Session, tool: &str, of: &str) -> Value {
    let told = told(session, tool, json!({ "of": of })).await;
    serde_json::from_str(&told).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_fetched_and_runs_within_its_workload() {
    let place = Place::new().await;
    let image = place.publish("");
    let name = pinned();
    let fetch = format!("[{REGISTRY}]");
    let arguments = ["run", "-i", "--rm", "-e", "TOKEN", &name, "--privileged"];
    let text = registering(&[place.server("contained", &fetch, &arguments)]);
    let daemon = place.lab.daemon(&text).await.unwrap();
    let mut session = initialized(&place, &daemon, "contained").await;
    let tools = session.request("tools/list", json!({})).await.unwrap();
    assert_eq!(
        tools["result"]["tools"].as_array().unwrap().len(),
        3,
        "{tools}"
    );

    // What it is: nobody, with nothing, in the workload's cgroup. What follows the image is the server's.
    let told = asked(&mut session, "tell", "").await;
    let expected = json!({
        "CapEff": "0000000000000000", "CapBnd": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2",
        "Uid": "65534\t65534\t65534\t65534", "Gid": "65534\t65534\t65534\t65534", "Groups": "65534",
        "arguments": ["--privileged"], "token": "given",
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(told[key], *value, "{key}: {told}");
    }
    let [own] = place.workloads().try_into().unwrap();
    let [container] = place.docker.containers().await.unwrap().try_into().unwrap();
    let procs = fs::read_to_string(own.join(&container).join("cgroup.procs")).unwrap();
    assert_eq!(procs.lines().count(), 1, "{procs}");

    // Its egress is decided like any process's, and recorded.
    let allowed = asked(&mut session, "get", "https://api.lab.example/echo").await;
    assert_eq!(allowed["status"], 200, "{allowed}");
    let record = daemon
        .record("what it reached", |record| {
            record["http"]["path"] == "/echo"
        })
        .await
        .unwrap();
    assert_eq!(record["workload"]["name"], "contained", "{record}");
    assert_eq!(record["decision"]["effect"], "allow", "{record}");
    assert!(record["cause"].is_object(), "{record}");
    let registry = format!("https://{REGISTRY}/v2/");
    for url in ["https://closed.lab.example/echo", &registry] {
        let refused = asked(&mut session, "get", url).await;
        assert_eq!(refused["error"], "URLError", "{url}: {refused}");
    }
    daemon
        .record("the look-up is refused", |record| {
            record["workload"]["name"] == "contained"
                && record["dns"]["name"] == REGISTRY
                && record["decision"]["effect"] == "deny"
        })
        .await
        .unwrap();

    // What was fetched stands in the session's record.
    let record = daemon
        .record("what it fetched", |record| {
            record["lifecycle"]["event"] == "session_fetched"
        })
        .await
        .unwrap();
    assert!(record["session"]["id"].is_string(), "{record}");
    let things = record["lifecycle"]["fetched"].as_array().unwrap();
    assert_eq!(
        things.len(),
        5,
        "index, manifest, configuration, layers: {record}"
    );
    assert_eq!(things[0]["package"], format!("oci:{NAME}"), "{record}");
    assert_eq!(things[0]["version"], "1", "{record}");
    let digest = image.digest.strip_prefix("sha256:").unwrap();
    assert_eq!(things[0]["sha256"], digest, "{record}");
    let seen = place
        .docker
        .run(&["inspect", "--format", "{{.Image}}", &container])
        .await;
    assert_eq!(seen.unwrap().stdout.trim(), image.config);

    assert!(session.close().await.unwrap().success());
    place.nothing_is_left().await;

    // It is there now: nothing is fetched again.
    place.registry.forget();
    let mut session = initialized(&place, &daemon, "contained").await;
    assert_eq!(place.registry.seen().len(), 0);
    session.close().await.unwrap();
    place.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_leads_out_of_a_container() {
    let place = Place::new().await;
    place.publish("");
    let daemon = place.contained().await;
    let mut session = initialized(&place, &daemon, "contained").await;
    let wire = place.lab.wire().unwrap();
    let said = asked(&mut session, "attack", &WORLD_OTHER.to_string()).await;
    let said: BTreeMap<String, String> = serde_json::from_value(said).unwrap();
    for (what, answer) in &said {
        let expected: &[&str] = match &**what {
            "clone3" => &["ENOSYS"],
            "cgroup" | "sysctl" | "trust" => &["EROFS", "EACCES", "EPERM"],
            "docker" => &["ENOENT"],
            "address" | "datagram" => &["ECONNREFUSED", "EPERM"],
            _ => &["EPERM"],
        };
        assert!(expected.contains(&answer.as_str()), "{what}: {said:?}");
    }
    assert_eq!(said.len(), 28, "{said:?}");
    assert_eq!(wire.to(WORLD_OTHER), [], "nothing leaves");
    session.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_is_not_named_is_not_fetched_from() {
    let place = Place::new().await;
    place.publish("");
    let name = pinned();
    let absent = format!("{REGISTRY}/{NAME}:2");
    let fetch = format!("[{REGISTRY}]");
    // A link that leads elsewhere than policy says, and where it leads.
    let link = place.lab.directory().join("link");
    symlink("/run", &link).unwrap();
    let volume = format!("{}:/run", link.display());
    let text = registering(&[
        place.server("linked", &fetch, &["run", "-i", "-v", &volume, &name]),
        place.server("other", "[api.lab.example]", &["run", "-i", &name]),
        place.server("absent", &fetch, &["run", "-i", &absent]),
    ]);
    let daemon = place.lab.daemon(&text).await.unwrap();
    let said = place.fails(&daemon, "linked").await;
    assert!(said.contains("behind a link"), "{said}");
    let said = place.fails(&daemon, "other").await;
    let expected = format!("reaching `{REGISTRY}`, which `launch.fetch` has to name");
    assert!(said.contains(&expected), "{said}");
    assert_eq!(place.registry.seen().len(), 0);
    let said = place.fails(&daemon, "absent").await;
    let expected = format!("`{REGISTRY}` answered 404 Not Found to /v2/{NAME}/manifests/2");
    assert!(said.contains(&expected), "{said}");

    // A layer that is not what the manifest says.
    let image = place.publish("");
    let (path, _) = image
        .files
        .iter()
        .rfind(|(path, _)| path.contains("/blobs/"))
        .unwrap();
    place
        .registry
        .put(path, "application/octet-stream", "other");
    let text = registering(&[place.server("spoilt", &fetch, &["run", "-i", &name])]);
    daemon.put_in_force(&text).await.unwrap();
    let said = place.fails(&daemon, "spoilt").await;
    assert!(said.contains("than the manifest says"), "{said}");
    assert_eq!(place.docker.images().await.unwrap(), [""; 0]);
    place.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_takes_too_long_is_given_up_with_what_bounds_it() {
    let place = Place::new().await;
    place.publish("");
    let says = format!("Bearer realm=\"https://{REGISTRY}/slow?ms=60000\",service=\"lab\"");
    place.registry.challenge("Bearer lab", &says);
    let fetch = format!("[{REGISTRY}]");
    let text = registering(&[place.server("late", &fetch, &["run", "-i", &pinned()])]);
    let settings = "limits: { fetch_deadline: 5s }";
    let daemon = place.lab.daemon_with(&text, settings).await.unwrap();
    let said = place.fails(&daemon, "late").await;
    let expected = "it did not come by within 5 s: raise `limits.fetch_deadline`";
    assert!(said.contains(expected), "{said}");
    assert_eq!(place.docker.images().await.unwrap(), [""; 0]);
    place.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_image_behind_the_same_tag_is_a_finding() {
    let place = Place::new().await;
    let first = place.publish("");
    let challenge = |number: u32| {
        let says = format!(
            "Bearer realm=\"https://{REGISTRY}/token\",service=\"lab\",scope=\"repository:{NAME}:pull\""
        );
        place
            .registry
            .challenge(&format!("Bearer lab-{number}"), &says);
        let token = json!({ "token": format!("lab-{number}") }).to_string();
        place.registry.put("/token", "application/json", token);
    };
    // Anybody gets a token, and everybody needs one.
    challenge(1);
    let daemon = place.contained().await;
    let mut session = initialized(&place, &daemon, "contained").await;
    session.close().await.unwrap();
    place.nothing_is_left().await;
    let second = place.publish("# Another.");
    challenge(2);
    assert_ne!(first.digest, second.digest);
    let done = place
        .docker
        .run(&["rmi", "--force", &pinned()])
        .await
        .unwrap();
    assert!(done.status.success(), "{}", done.stderr);
    let mut session = initialized(&place, &daemon, "contained").await;
    let hex = |image: &Image| image.digest.strip_prefix("sha256:").unwrap().to_owned();
    let expected = format!(
        "`contained`: `oci:{NAME} 1 1` has other bytes: sha256 {}, before {}",
        hex(&second),
        hex(&first)
    );
    daemon
        .record(&expected, |record| {
            record["finding"]["what"] == "fetched_changed"
                && record["finding"]["detail"] == expected
        })
        .await
        .unwrap();
    let all = daemon.audit().unwrap();
    let found = all.iter().filter(|record| record["kind"] == "finding");
    let details: Vec<String> = found.map(|record| record["finding"].to_string()).collect();
    assert!(
        details.iter().all(|detail| !detail.contains("token")),
        "{details:?}"
    );
    session.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_ends_with_its_session_whatever_ends_that() {
    let place = Place::new().await;
    place.publish("");
    let mut daemon = place.contained().await;
    // Its host is killed.
    let session = initialized(&place, &daemon, "contained").await;
    let mut host = session.abandon();
    host.start_kill().unwrap();
    host.wait().await.unwrap();
    place.nothing_is_left().await;
    // Docker's client is.
    let session = initialized(&place, &daemon, "contained").await;
    let [own] = place.workloads().try_into().unwrap();
    let client = fs::read_to_string(own.join("cgroup.procs")).unwrap();
    let client = Pid::from_raw(client.trim().parse().unwrap()).unwrap();
    kill_process(client, Signal::KILL).unwrap();
    place.nothing_is_left().await;
    drop(session);
    // It is killed while it starts, at many moments.
    for moment in 0..12 {
        let mut session = daemon.run("contained").unwrap();
        let pause = Duration::from_millis(40 * moment);
        let _answer = tokio::time::timeout(pause, session.initialize()).await;
        let mut host = session.abandon();
        host.start_kill().unwrap();
        host.wait().await.unwrap();
    }
    place.nothing_is_left().await;
    // The daemon ends.
    let _session = initialized(&place, &daemon, "contained").await;
    daemon.stop().await.unwrap();
    place.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_docker_that_makes_its_containers_elsewhere_is_refused() {
    let place = Place::with("systemd").await;
    let name = pinned();
    let text = registering(&[place.server("contained", "[]", &["run", "-i", &name])]);
    let daemon = place.lab.daemon(&text).await.unwrap();
    let said = place.fails(&daemon, "contained").await;
    assert!(said.contains("native.cgroupdriver=cgroupfs"), "{said}");
}
