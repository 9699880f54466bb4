//! Servers whose launcher is Docker: what is started in its client's place, and what looks for what a client that was
//! ended in the middle left to Docker's daemon.

use std::fs;
use std::iter;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use exeat_policy::{Container, EnvValue, PolicySet};
use nix::unistd::Group;

use super::accounts::{self, AccountError};
use super::runs::file_name;
use super::workloads::Live;
use crate::channel::{Kind, encode_hex};
use crate::launch::stage::{Account, Start, chain};

/// The group that may use Docker, as its packages make it.
const GROUP: &str = "docker";
/// Where Docker's daemon listens.
const SOCKET: &str = "/run/docker.sock";

/// A container that is going to be started.
#[derive(Debug)]
pub(super) struct Planned {
    /// By what Docker knows it; of no other, now or ever.
    name: String,
    /// Time to fetch the image in (`limits.fetch_deadline`).
    deadline: Duration,
}

impl Planned {
    /// One for this server.
    pub(super) fn new(server: &str, deadline: Duration) -> Result<Self, String> {
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_e| "no randomness for a container's name".to_owned())?;
        Ok(Self {
            name: format!("exeat-{}-{}", file_name(server), encode_hex(&random)),
            deadline,
        })
    }

    /// The program in place of `command` (Docker's client), and its arguments; `cgroup` is the workload's, below the
    /// root.
    pub(super) fn program(
        &self,
        cgroup: &Path,
        command: &str,
        arguments: Vec<String>,
    ) -> (PathBuf, Vec<String>) {
        let cgroup = format!("/{}", cgroup.display());
        let deadline = self.deadline.as_secs().to_string();
        let own = [
            "internal",
            "container",
            &cgroup,
            &self.name,
            &deadline,
            "--",
            command,
        ];
        let all = own.into_iter().map(str::to_owned).chain(arguments);
        ("/proc/self/exe".into(), all.collect())
    }

    /// What removes the container, as the same user and in the same cgroup.
    pub(super) fn remover(&self, start: &Start) -> Remover {
        Remover(Start {
            program: "/proc/self/exe".into(),
            arguments: ["internal", "uncontain", &self.name]
                .map(str::to_owned)
                .into(),
            ..start.clone()
        })
    }
}

/// What removes a container if it is there.
#[derive(Debug)]
pub(super) struct Remover(Start);

impl Remover {
    /// Its start; with `waits` it looks for some time whether the container is made yet.
    pub(super) fn start(self, waits: bool) -> Start {
        let Self(mut start) = self;
        start.arguments.extend(waits.then(|| "--wait".to_owned()));
        start
    }
}

/// Refuses a server with Docker as the user of one without it, and the other way round: a process writes to the memory
/// of another of its user, and so to that of Docker's client.
pub(super) fn apart<'a>(
    uid: u32,
    is_docker: bool,
    set: &PolicySet,
    live: impl IntoIterator<Item = &'a Live>,
) -> Result<(), String> {
    let shared = |other: &str| {
        format!(
            "`{other}` has the same user ({uid}), and of the two only one is started by Docker: give it its own"
        )
    };
    let differs = |command: &str| Container::is_started_by(command) != is_docker;
    for server in set.servers() {
        let launch = server.launch().filter(|launch| differs(&launch.command));
        let Some(user) = launch.and_then(|launch| launch.user.as_ref()) else {
            continue;
        };
        match accounts::find(user) {
            Ok(user) if user.account.uid == uid => return Err(shared(&server.name)),
            // As somebody who is not there, or as root, it never starts.
            Ok(_) | Err(AccountError::Unknown(_) | AccountError::Root(_)) => {}
            Err(error) => return Err(chain(&error)),
        }
    }
    // Those that are started as who asks.
    let record = live.into_iter().map(|live| &live.record).find(|record| {
        let command = record.exe.to_string_lossy();
        record.kind == Kind::Server && record.uid == uid && differs(&command)
    });
    record.map_or(Ok(()), |record| Err(shared(&record.name)))
}

/// Where a Docker's daemon may listen that servers of the register use.
fn sockets(set: &PolicySet) -> impl Iterator<Item = &str> {
    let launches = set.servers().filter_map(|server| server.launch());
    let docker = launches.filter(|launch| Container::is_started_by(&launch.command));
    docker
        .flat_map(|launch| &launch.env)
        .filter_map(|(name, value)| match value {
            EnvValue::Text(host) if name == "DOCKER_HOST" => Container::socket(Some(host)).ok(),
            EnvValue::Text(_) | EnvValue::Secret(_) => None,
        })
}

/// The account without what lets it use Docker: by its daemon a server would be root, and elsewhere.
pub(super) fn without_docker(account: Account, set: &PolicySet) -> Result<Account, String> {
    let named = Group::from_name(GROUP)
        .map_err(|error| format!("looking up the group `{GROUP}`: {error}"))?;
    let named = named.map(|group| group.gid.as_raw());
    let owners = iter::once(SOCKET).chain(sockets(set)).filter_map(|path| {
        let socket = fs::metadata(path).ok();
        let socket = socket.filter(|metadata| metadata.file_type().is_socket())?;
        Some(socket.gid())
    });
    without(account, &owners.chain(named).collect::<Vec<_>>())
}

fn without(mut account: Account, groups: &[u32]) -> Result<Account, String> {
    if groups.contains(&account.gid) {
        return Err("the server's user has the group that may use Docker as its own group".into());
    }
    account.groups.retain(|&gid| !groups.contains(&gid));
    Ok(account)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;
    use std::os::unix::net::UnixListener;

    use exeat_policy::Source;

    use super::*;
    use crate::channel::Workload;
    use crate::supervisor::workloads::Origin;

    #[test]
    fn a_container_has_a_name_of_its_own_and_its_cgroup_is_below_the_root() {
        let planned = Planned::new("a.b", Duration::from_secs(90)).unwrap();
        assert!(planned.name.starts_with("exeat-a_b-"), "{planned:?}");
        assert_ne!(
            planned.name,
            Planned::new("a.b", Duration::from_secs(90)).unwrap().name
        );
        let (_, all) = planned.program(Path::new("exeat/w/a_b-7"), "docker", Vec::new());
        assert_eq!(all[2], "/exeat/w/a_b-7");
        assert_eq!(all[4], "90");
    }

    #[test]
    fn a_container_is_removed_and_waited_for_where_it_may_be_made_yet() {
        let planned = Planned::new("a", Duration::from_secs(1)).unwrap();
        let start = Start {
            cgroup: "/x".into(),
            account: Account {
                uid: 7,
                gid: 7,
                groups: Vec::new(),
            },
            directory: "/".into(),
            program: "docker".into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            trust: None,
        };
        let all = |waits| planned.remover(&start).start(waits).arguments;
        assert_eq!(all(false), ["internal", "uncontain", &planned.name]);
        assert_eq!(
            all(true),
            ["internal", "uncontain", &planned.name, "--wait"]
        );
    }

    #[test]
    fn other_servers_may_not_use_docker() {
        let account = |gid, groups: &[u32]| Account {
            uid: 7,
            gid,
            groups: groups.to_vec(),
        };
        let docker = [9];
        let left = without(account(7, &[7, 9, 8]), &docker).unwrap();
        assert_eq!(left.groups, [7, 8]);
        without(account(9, &[7]), &docker).unwrap_err();
        without_docker(account(u32::MAX, &[]), &set("")).unwrap();
    }

    #[test]
    fn nor_one_that_listens_where_the_register_says() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        chown(&socket, None, Some(4711)).unwrap();
        let docker = |command: &str| {
            let host = socket.display();
            set(&format!(
                "  a: {{ launch: {{ command: {command}, args: [run, -i, x], env: {{ DOCKER_HOST: 'unix://{host}' }} }} }}\n"
            ))
        };
        let account = || Account {
            uid: 7,
            gid: 7,
            groups: vec![7, 4711],
        };
        let left = without_docker(account(), &docker("docker")).unwrap();
        assert_eq!(left.groups, [7]);
        let left = without_docker(account(), &docker("other")).unwrap();
        assert_eq!(left.groups, [7, 4711]);
    }

    #[test]
    fn no_user_is_that_of_servers_with_docker_and_of_others() {
        let set = set(
            "  docked: { launch: { command: docker, args: [run, -i, x], user: nobody } }
  plain: { launch: { command: x, user: daemon } }
  absent: { launch: { command: x, user: no-such-user } }
  root: { launch: { command: x, user: toor } }
",
        );
        let uid = |name: &str| accounts::find(name).unwrap().account.uid;
        let (nobody, daemon) = (uid("nobody"), uid("daemon"));
        apart(nobody, true, &set, []).unwrap();
        apart(daemon, false, &set, []).unwrap();
        // By its number, from who asks.
        let said = apart(nobody, false, &set, []).unwrap_err();
        assert!(said.starts_with("`docked` has the same user"), "{said}");
        let said = apart(daemon, true, &set, []).unwrap_err();
        assert!(said.starts_with("`plain` has the same user"), "{said}");
        // One that runs.
        let live = |command: &str| Live {
            record: Workload {
                number: 1,
                name: "running".into(),
                kind: Kind::Server,
                cgroup: "/x".into(),
                cgroup_id: 1,
                pid: None,
                uid: 4711,
                exe: command.into(),
                args: Vec::new(),
                started_by: Some(4711),
                placeholders: Vec::new(),
            },
            origin: Origin::Run,
        };
        for (running, is_docker, fits) in [
            ("x", false, true),
            ("docker", true, true),
            ("x", true, false),
            ("/usr/bin/docker", false, false),
        ] {
            let answer = apart(4711, is_docker, &set, [&live(running)]);
            assert_eq!(answer.is_ok(), fits, "{running}: {answer:?}");
            apart(4712, is_docker, &set, [&live(running)]).unwrap();
        }
    }

    fn set(servers: &str) -> PolicySet {
        let text =
            format!("version: 1\nservers:\n  first: {{ url: 'https://a.example/mcp' }}\n{servers}");
        exeat_policy::compile(&[Source {
            name: "p.yaml".into(),
            text,
        }])
        .unwrap()
    }
}
