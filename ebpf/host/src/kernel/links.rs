//! Links: each is pinned under `<program>@<cgroup id>`, and gets new programs in place.

use super::load::TRACEPOINTS;
use super::{link, program};
use crate::bpf::{self, Hook};
use crate::layout::make_directory;
use crate::{KernelError, Layout, cgroup};
use aya::Ebpf;
use std::collections::HashSet;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// At the root of cgroup2: these judge the calling process as well as the socket, and show who was sent to the
/// gate, managed or not, the peer that it asked for.
pub(super) const ROOT: &[(&str, Hook)] = &[
    ("connect4", Hook::Connect4),
    ("connect6", Hook::Connect6),
    ("sendmsg4", Hook::Sendmsg4),
    ("sendmsg6", Hook::Sendmsg6),
    ("getpeername4", Hook::Getpeername4),
    ("getpeername6", Hook::Getpeername6),
];

/// At workloads' parent, and at each workload outside it.
pub(super) const MANAGED: &[(&str, Hook)] = &[
    ("egress", Hook::Egress),
    ("ingress", Hook::Ingress),
    ("sock_create", Hook::SockCreate),
    ("recvmsg4", Hook::Recvmsg4),
    ("recvmsg6", Hook::Recvmsg6),
];

/// At the gate's cgroup.
pub(super) const GATE: &[(&str, Hook)] = &[("sock_ops", Hook::SockOps), ("arrival", Hook::Ingress)];

/// What stands for a cgroup's id in the names of tracepoints' pins.
const EVERYWHERE: &str = "all";

pub(super) struct Links {
    directory: PathBuf,
}

impl Links {
    pub(super) fn new(layout: &Layout) -> Self {
        Self {
            directory: layout.links(),
        }
    }

    /// Attaches programs to a cgroup, or renews those that are attached. Returns the pins' names.
    pub(super) fn attach_all(
        &self,
        ebpf: &Ebpf,
        hooks: &[(&str, Hook)],
        cgroup: &Path,
    ) -> Result<Vec<String>, KernelError> {
        make_directory(&self.directory)?;
        let id = cgroup::id(cgroup)?;
        hooks
            .iter()
            .map(|(name, hook)| {
                let pin = format!("{name}@{id}");
                self.attach(ebpf, name, *hook, cgroup, &pin)?;
                Ok(pin)
            })
            .collect()
    }

    fn attach(
        &self,
        ebpf: &Ebpf,
        name: &str,
        hook: Hook,
        cgroup: &Path,
        pin: &str,
    ) -> Result<(), KernelError> {
        let path = self.directory.join(pin);
        match bpf::open(&path) {
            Ok(existing) => match bpf::update(existing.as_fd(), program(ebpf, name)?.as_fd()) {
                Ok(()) => return Ok(()),
                // The cgroup that it was attached to is gone.
                Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => remove(&path)?,
                Err(cause) => {
                    return Err(KernelError::path("replace the program of", &path, cause));
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(KernelError::path("open the pin", &path, cause)),
        }
        let link = link(ebpf, name, cgroup, hook)?;
        bpf::pin(link.as_fd(), &path).map_err(|cause| KernelError::path("pin", &path, cause))
    }

    /// Attaches the tracepoints. Their links cannot be updated: the new one is attached before the
    /// old one goes, so that no event is missed; some may be told twice.
    pub(super) fn attach_tracepoints(&self, ebpf: &Ebpf) -> Result<Vec<String>, KernelError> {
        TRACEPOINTS
            .iter()
            .map(|(name, _)| {
                let pin = format!("{name}@{EVERYWHERE}");
                let path = self.directory.join(&pin);
                let aside = self.directory.join(format!("{name}@new"));
                if aside.exists() {
                    remove(&aside)?;
                }
                let link = bpf::attach_tracepoint(program(ebpf, name)?.as_fd())
                    .map_err(|cause| KernelError::path("attach the tracepoint of", &path, cause))?;
                bpf::pin(link.as_fd(), &aside)
                    .map_err(|cause| KernelError::path("pin", &aside, cause))?;
                if path.exists() {
                    remove(&path)?;
                }
                fs::rename(&aside, &path)
                    .map_err(|cause| KernelError::path("rename", &aside, cause))?;
                Ok(pin)
            })
            .collect()
    }

    fn names(&self) -> Result<Vec<String>, KernelError> {
        let failed = |cause| KernelError::path("list", &self.directory, cause);
        fs::read_dir(&self.directory)
            .map_err(failed)?
            .map(|entry| {
                Ok(entry
                    .map_err(failed)?
                    .file_name()
                    .to_string_lossy()
                    .into_owned())
            })
            .collect()
    }

    /// Detaches whatever is not wanted.
    pub(super) fn remove_others(&self, wanted: &HashSet<String>) -> Result<(), KernelError> {
        let names = self.names()?;
        let others = names.iter().filter(|name| !wanted.contains(*name));
        others
            .map(|name| self.directory.join(name))
            .try_for_each(|path| remove(&path))
    }

    /// Detaches everything from one cgroup.
    pub(super) fn remove_of(&self, id: u64) -> Result<(), KernelError> {
        let suffix = format!("@{id}");
        let names = self.names()?;
        let its = names.iter().filter(|name| name.ends_with(&suffix));
        its.map(|name| self.directory.join(name))
            .try_for_each(|path| remove(&path))
    }

    /// Links that are detached though pinned.
    pub(super) fn dead(&self) -> Result<Vec<String>, KernelError> {
        self.names().map(|names| {
            names
                .into_iter()
                .filter(|name| bpf::open(&self.directory.join(name)).is_err())
                .collect()
        })
    }
}

fn remove(path: &Path) -> Result<(), KernelError> {
    fs::remove_file(path).map_err(|cause| KernelError::path("remove the pin", path, cause))
}
