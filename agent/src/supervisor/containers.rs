//! Servers whose launcher is Docker: what is started in its client's place, and what looks for what a client that was
//! ended in the middle left to Docker's daemon.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::Group;

use super::runs::file_name;
use crate::channel::encode_hex;
use crate::launch::stage::{Account, Start};

/// The group that may use Docker, as its packages make it.
const GROUP: &str = "docker";
/// Where Docker's daemon listens.
const SOCKET: &str = "/run/docker.sock";

/// A container that is going to be started.
#[derive(Debug)]
pub(super) struct Planned {
    /// By what Docker knows it; of no other, now or ever.
    name: String,
}

impl Planned {
    /// One for this server.
    pub(super) fn new(server: &str) -> Result<Self, String> {
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_e| "no randomness for a container's name".to_owned())?;
        Ok(Self {
            name: format!("exeat-{}-{}", file_name(server), encode_hex(&random)),
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
        let own = ["internal", "container", &cgroup, &self.name, "--", command];
        let all = own.into_iter().map(str::to_owned).chain(arguments);
        ("/proc/self/exe".into(), all.collect())
    }

    /// What removes the container if it is there, as the same user and in the same cgroup.
    pub(super) fn remover(&self, start: &Start) -> Start {
        Start {
            program: "/proc/self/exe".into(),
            arguments: ["internal", "uncontain", &self.name]
                .map(str::to_owned)
                .into(),
            ..start.clone()
        }
    }
}

/// The account without what lets it use Docker: by its daemon a server would be root, and elsewhere.
pub(super) fn without_docker(account: Account) -> Result<Account, String> {
    let named = Group::from_name(GROUP)
        .map_err(|error| format!("looking up the group `{GROUP}`: {error}"))?;
    let socket = fs::metadata(SOCKET).ok();
    let socket = socket.filter(|metadata| metadata.file_type().is_socket());
    let owner = socket.map(|metadata| metadata.gid());
    let named = named.map(|group| group.gid.as_raw());
    without(account, &[owner, named])
}

fn without(mut account: Account, groups: &[Option<u32>]) -> Result<Account, String> {
    if groups.contains(&Some(account.gid)) {
        return Err("the server's user has the group that may use Docker as its own group".into());
    }
    account.groups.retain(|&gid| !groups.contains(&Some(gid)));
    Ok(account)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_a_name_of_its_own_and_its_cgroup_is_below_the_root() {
        let planned = Planned::new("a.b").unwrap();
        assert!(planned.name.starts_with("exeat-a_b-"), "{planned:?}");
        assert_ne!(planned.name, Planned::new("a.b").unwrap().name);
        let (_, all) = planned.program(Path::new("exeat/w/a_b-7"), "docker", Vec::new());
        assert_eq!(all[2], "/exeat/w/a_b-7");
    }

    #[test]
    fn other_servers_may_not_use_docker() {
        let account = |gid, groups: &[u32]| Account {
            uid: 7,
            gid,
            groups: groups.to_vec(),
        };
        let docker = [None, Some(9)];
        let left = without(account(7, &[7, 9, 8]), &docker).unwrap();
        assert_eq!(left.groups, [7, 8]);
        without(account(9, &[7]), &docker).unwrap_err();
        without_docker(account(u32::MAX, &[])).unwrap();
    }
}
