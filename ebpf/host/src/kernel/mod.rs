//! The supervisor's side: load, attach, pin, adopt; and say which cgroups are workloads.

mod fill;
mod links;
mod load;
mod state;

use crate::bpf::{Table, per_cpu_sum};
use crate::layout::{Claim, ensure_bpffs, make_cgroup};
use crate::logs::Logs;
use crate::{EventStream, GateMap, KernelError, Layout, bpf, cgroup, gate, probe};
use aya::Ebpf;
use exeat_ebpf_abi::{
    Config, Endpoint, File, LOST_PROCESS, MAX_GUARDED, MAX_LEVEL, MAX_MANAGED, MAX_WATCHED, guard,
    levels,
};
pub use fill::{Fill, fill};
use links::{GATE, Links, MANAGED, ROOT};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

/// What the programs must know of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Port of the gate's TCP listeners on 127.0.0.1 and `::1`.
    pub proxy_port: u16,
    /// Port of the gate's UDP listeners on 127.0.0.1 and `::1`.
    pub dns_port: u16,
}

/// The loaded programs. Dropping it leaves pins, and so enforcement, in place.
pub struct Kernel {
    ebpf: Ebpf,
    links: Links,
    layout: Layout,
    mount_point: PathBuf,
    config: Table<u32, Config>,
    managed: Table<u64, u32>,
    watched: Table<File, u32>,
    cut: Table<u32, u32>,
    judged: Table<u32, u32>,
    guarded: Table<Endpoint, u32>,
    adopted: bool,
    _claim: Claim,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Kernel")
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

impl Kernel {
    /// Loads the programs, adopts what an earlier daemon pinned, attaches and pins.
    ///
    /// Existing links get the new programs in place: there is no moment without enforcement. The
    /// calling process must be in the network namespace that the gate listens in.
    ///
    /// # Errors
    /// Something is missing ([`KernelError::Missing`]), another daemon is alive
    /// ([`KernelError::Held`]), or the kernel refuses. What was attached until then stays.
    pub fn start(layout: &Layout, settings: Settings) -> Result<Self, KernelError> {
        if settings.proxy_port == 0 || settings.dns_port == 0 {
            return Err(KernelError::Argument(
                "the gate's ports are not 0".to_owned(),
            ));
        }
        let features = probe().map_err(|missing| {
            KernelError::Argument(
                missing
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("; "),
            )
        })?;
        ensure_bpffs(&layout.bpffs)?;
        let claim = Claim::take(layout)?;
        let adopted = layout.links().exists();
        make_cgroup(&layout.managed)?;
        make_cgroup(&layout.gate)?;
        let ebpf = load::load(layout, features.refusal_errno)?;
        let kernel = Self {
            ebpf,
            links: Links::new(layout),
            layout: layout.clone(),
            mount_point: features.cgroup_root,
            config: state::open(layout, "CONFIG")?,
            managed: state::open(layout, "MANAGED")?,
            watched: state::open(layout, "WATCHED")?,
            cut: state::open(layout, "CUT")?,
            judged: state::open(layout, "JUDGED")?,
            guarded: state::open(layout, "GUARDED")?,
            adopted,
            _claim: claim,
        };
        kernel.inherit()?;
        kernel.configure(settings)?;
        kernel.attach()?;
        state::remove_other_versions(layout)?;
        Ok(kernel)
    }

    /// An earlier daemon's pins were found and taken over.
    #[must_use]
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Takes over the workloads of a daemon with another layout of maps.
    fn inherit(&self) -> Result<(), KernelError> {
        for (id, workload) in state::foreign_managed(&self.layout)? {
            self.managed
                .set(&id, &workload)
                .map_err(|cause| KernelError::map("write", "MANAGED", cause))?;
        }
        Ok(())
    }

    fn configure(&self, settings: Settings) -> Result<(), KernelError> {
        let mut bits = 0;
        for (id, _) in self.managed()? {
            if let Some(path) = cgroup::by_id(&self.mount_point, id)
                && !path.starts_with(&self.layout.managed)
            {
                bits |= levels(cgroup::level(&path, &self.mount_point)?);
            }
        }
        let managed_level = cgroup::level(&self.layout.managed, &self.mount_point)?;
        // Workloads sit one deeper.
        if managed_level >= MAX_LEVEL {
            return Err(KernelError::Argument(format!(
                "the cgroup `{}` is too deep",
                self.layout.managed.display()
            )));
        }
        let config = Config {
            netns: state::netns_cookie()?,
            managed: cgroup::id(&self.layout.managed)?,
            managed_level,
            levels: bits,
            proxy_port: settings.proxy_port,
            dns_port: settings.dns_port,
            pad: 0,
            gate: cgroup::id(&self.layout.gate)?,
            reserved: 0,
        };
        self.set_config(&config)
    }

    fn set_config(&self, config: &Config) -> Result<(), KernelError> {
        self.config
            .set(&0, config)
            .map_err(|cause| KernelError::map("write", "CONFIG", cause))
    }

    fn attach(&self) -> Result<(), KernelError> {
        let mut wanted = HashSet::new();
        let root = self.layout.cgroup_root.clone();
        let managed = self.layout.managed.clone();
        let gate = self.layout.gate.clone();
        // The backstop first, the redirection last: in between, less passes, not more.
        wanted.extend(self.links.attach_all(&self.ebpf, MANAGED, &managed)?);
        wanted.extend(self.links.attach_all(&self.ebpf, GATE, &gate)?);
        wanted.extend(self.links.attach_all(&self.ebpf, ROOT, &root)?);
        for (id, workload) in self.managed()? {
            if let Some(path) = cgroup::by_id(&self.mount_point, id) {
                if !path.starts_with(&managed) {
                    wanted.extend(self.links.attach_all(&self.ebpf, MANAGED, &path)?);
                }
            } else {
                // The cgroup went while no daemon was there. Once it is not listed, nothing keeps its number from
                // being used again: what was opened for it goes first.
                self.close(workload)?;
                self.managed
                    .remove(&id)
                    .map_err(|cause| KernelError::map("remove from", "MANAGED", cause))?;
            }
        }
        wanted.extend(self.links.attach_tracepoints(&self.ebpf)?);
        self.links.remove_others(&wanted)
    }

    /// Makes a cgroup a workload: a child of the layout's `managed`, or any other cgroup outside
    /// it. `workload` is not 0 and was never used before. A cgroup that is one already becomes this one without being
    /// none in between, and what was opened for the one before is closed.
    ///
    /// Sockets that exist already have no owner: processes there cannot connect with them, but
    /// what is connected stays so; see [`destroy_connections`](crate::destroy_connections).
    ///
    /// # Errors
    /// [`KernelError::Full`]: there are too many workloads. Else the argument makes no sense, or
    /// the kernel refuses.
    pub fn manage(&mut self, cgroup: &Path, workload: u32) -> Result<(), KernelError> {
        if workload == 0 {
            return Err(KernelError::Argument("workload 0 means none".to_owned()));
        }
        let level = cgroup::level(cgroup, &self.mount_point)?;
        let id = cgroup::id(cgroup)?;
        if cgroup.starts_with(&self.layout.managed) {
            if cgroup.parent() != Some(&*self.layout.managed) {
                return Err(KernelError::Argument(format!(
                    "`{}` is not directly below `{}`",
                    cgroup.display(),
                    self.layout.managed.display()
                )));
            }
        } else {
            self.manage_elsewhere(cgroup, level)?;
        }
        let before = self
            .managed
            .get(&id)
            .map_err(|cause| KernelError::map("read", "MANAGED", cause))?;
        self.managed
            .set(&id, &workload)
            .map_err(|cause| KernelError::map("write", "MANAGED", cause))?;
        before
            .filter(|before| *before != workload)
            .map_or(Ok(()), |before| self.close(before))
    }

    /// Forgets all that is said of a workload.
    fn close(&self, workload: u32) -> Result<(), KernelError> {
        self.mend(workload)?;
        self.spare(workload)?;
        self.shut(workload)
    }

    /// Closes everything that was opened for a workload, which stays managed, and cut off if it was.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn shut(&self, workload: u32) -> Result<(), KernelError> {
        gate::forget(
            &state::open(&self.layout, GateMap::Allow.name())?,
            &state::open(&self.layout, GateMap::Ranges.name())?,
            &state::open(&self.layout, GateMap::Listen.name())?,
            workload,
        )
    }

    fn manage_elsewhere(&self, cgroup: &Path, level: u32) -> Result<(), KernelError> {
        let ours = [&self.layout.gate, &self.layout.cgroup_root];
        if level == 0 || level > MAX_LEVEL || ours.iter().any(|path| path.starts_with(cgroup)) {
            return Err(KernelError::Argument(format!(
                "`{}` cannot be a workload: it is too deep, or holds the daemon itself",
                cgroup.display()
            )));
        }
        self.links.attach_all(&self.ebpf, MANAGED, cgroup)?;
        let mut config = state::config(&self.config)?;
        config.levels |= levels(level);
        self.set_config(&config)
    }

    /// Ends management of a cgroup and closes everything that was opened for its workload. A
    /// cgroup that no longer exists is no error; see also [`Kernel::unmanage_id`].
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn unmanage(&mut self, cgroup: &Path) -> Result<(), KernelError> {
        if cgroup.exists() {
            return self.unmanage_id(cgroup::id(cgroup)?);
        }
        for (id, _) in self.managed()? {
            if cgroup::by_id(&self.mount_point, id).is_none() {
                self.unmanage_id(id)?;
            }
        }
        Ok(())
    }

    /// As [`Kernel::unmanage`], by the kernel's id of the cgroup; no error if it is not managed.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn unmanage_id(&mut self, id: u64) -> Result<(), KernelError> {
        let failed = |cause| KernelError::map("remove from", "MANAGED", cause);
        let workload = self.managed.get(&id).map_err(failed)?;
        self.managed.remove(&id).map_err(failed)?;
        if let Some(workload) = workload {
            self.close(workload)?;
        }
        if state::config(&self.config)?.managed == id {
            return Ok(());
        }
        self.links.remove_of(id)
    }

    /// All managed cgroups: (the kernel's id of the cgroup, workload).
    ///
    /// # Errors
    /// The kernel refuses the question.
    pub fn managed(&self) -> Result<Vec<(u64, u32)>, KernelError> {
        state::entries(&self.managed, MAX_MANAGED)
            .map_err(|cause| KernelError::map("list", "MANAGED", cause))
    }

    /// Replaces the watched files, as [`identify`](crate::identify) names them. An unmanaged process that executes
    /// one is stopped (SIGSTOP) before its first instruction, and an event tells of it.
    ///
    /// The file that counts is the one that the kernel maps: for a script, its interpreter. btrfs numbers its files
    /// in each subvolume anew: of two with one number, both are watched.
    ///
    /// # Errors
    /// [`KernelError::Full`]: too many files; the first ones are watched.
    pub fn watch_executables(&mut self, files: &[File]) -> Result<(), KernelError> {
        let failed = |cause| KernelError::map("write", "WATCHED", cause);
        let wanted: HashSet<File> = files.iter().copied().collect();
        for key in self.watched.keys(MAX_WATCHED).map_err(failed)? {
            if !wanted.contains(&key) {
                self.watched.remove(&key).map_err(failed)?;
            }
        }
        wanted
            .iter()
            .try_for_each(|file| self.watched.set(file, &1))
            .map_err(failed)
    }

    /// Cuts a workload off: from the return of this call on none of its processes sends or gets a packet, and
    /// its connects and sends are refused. May come before [`Kernel::manage`].
    ///
    /// What is connected stays so, mute; see [`destroy_connections`](crate::destroy_connections).
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn cut(&self, workload: u32) -> Result<(), KernelError> {
        self.cut
            .set(&workload, &1)
            .map_err(|cause| KernelError::map("write", "CUT", cause))
    }

    /// Takes that back; no error if there was nothing to take back.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn mend(&self, workload: u32) -> Result<(), KernelError> {
        self.cut
            .remove(&workload)
            .map(drop)
            .map_err(|cause| KernelError::map("remove from", "CUT", cause))
    }

    /// Has processes of a workload judged: one that executes something with pipes or sockets as its standard input and
    /// output is stopped (SIGSTOP) before its first instruction, and its event says so. Not while the gate gives no
    /// sign of life. May come before [`Kernel::manage`].
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn judge(&self, workload: u32) -> Result<(), KernelError> {
        self.judged
            .set(&workload, &1)
            .map_err(|cause| KernelError::map("write", "JUDGED", cause))
    }

    /// Takes that back; no error if there was nothing to take back. What was stopped stays so.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn spare(&self, workload: u32) -> Result<(), KernelError> {
        self.judged
            .remove(&workload)
            .map(drop)
            .map_err(|cause| KernelError::map("remove from", "JUDGED", cause))
    }

    /// The workloads that are cut off.
    ///
    /// # Errors
    /// The kernel refuses the question.
    pub fn severed(&self) -> Result<Vec<u32>, KernelError> {
        self.cut
            .keys(MAX_MANAGED)
            .map_err(|cause| KernelError::map("list", "CUT", cause))
    }

    /// Replaces the guarded places. At each of `servers` whoever connects is sent to the gate, managed or not,
    /// whatever listens there; at `ports` of the addresses in `local`, and of all of loopback, whoever connects
    /// to a socket of a managed workload. The ports of `servers` are among `ports`.
    ///
    /// # Errors
    /// [`KernelError::Full`]: too many places; those of `servers` come first.
    pub fn guard(
        &self,
        servers: &[SocketAddr],
        ports: &[u16],
        local: &[IpAddr],
    ) -> Result<(), KernelError> {
        let failed = |cause| KernelError::map("write", "GUARDED", cause);
        let place = |address: IpAddr, port: u16| Endpoint {
            address: address.into(),
            port: port.into(),
        };
        let mut wanted: HashMap<Endpoint, u32> = HashMap::new();
        let mut order = Vec::new();
        let mut want = |key: Endpoint, value| {
            if let Entry::Vacant(place) = wanted.entry(key) {
                place.insert(value);
                order.push((key, value));
            }
        };
        for server in servers {
            want(place(server.ip(), server.port()), guard::SERVER);
        }
        for port in ports {
            for address in local.iter().filter(|address| !address.is_unspecified()) {
                want(place(*address, *port), guard::LOCAL);
            }
        }
        // A port comes after its addresses and goes before them: without it they do not count.
        for port in ports {
            want(Endpoint::any(*port), guard::PORT);
        }
        let held = self.guarded.keys(MAX_GUARDED).map_err(failed)?;
        let is_port = |key: &Endpoint| {
            *key == Endpoint {
                address: Endpoint::any(0).address,
                ..*key
            }
        };
        let gone = held.iter().filter(|key| !wanted.contains_key(key));
        let (ports, places): (Vec<&Endpoint>, Vec<&Endpoint>) = gone.partition(|key| is_port(key));
        for key in ports.into_iter().chain(places) {
            self.guarded.remove(key).map_err(failed)?;
        }
        order
            .iter()
            .try_for_each(|(key, value)| self.guarded.set(key, value))
            .map_err(failed)
    }

    /// What the gate gets.
    ///
    /// # Errors
    /// A pin is gone.
    pub fn gate_descriptors(&self) -> Result<Vec<(GateMap, OwnedFd)>, KernelError> {
        GateMap::ALL
            .into_iter()
            .map(|map| Ok((map, state::open_raw(&self.layout, map.name())?)))
            .collect()
    }

    /// The supervisor's ring: process events. One reader at a time. Needs a tokio runtime.
    ///
    /// # Errors
    /// The ring cannot be mapped or waited on.
    pub fn process_events(&mut self) -> Result<EventStream, KernelError> {
        EventStream::new(state::open_raw(&self.layout, "PROCESSES")?, "PROCESSES")
    }

    /// Records that the supervisor's ring had no room for, since the maps were made.
    ///
    /// # Errors
    /// The kernel refuses the question.
    pub fn lost(&self) -> Result<u64, KernelError> {
        let map = state::open_raw(&self.layout, GateMap::Lost.name())?;
        per_cpu_sum(&map, LOST_PROCESS).map_err(|cause| KernelError::map("read", "LOST", cause))
    }

    /// The programs' own messages. Once per `Kernel`. Needs a tokio runtime.
    ///
    /// # Errors
    /// They were taken already, or their ring cannot be waited on.
    pub fn logs(&mut self) -> Result<Logs, KernelError> {
        Logs::new(&mut self.ebpf)
    }

    /// Detaches and unpins everything under a layout; no error if there is nothing.
    ///
    /// # Errors
    /// Another daemon is alive ([`KernelError::Held`]), or a pin cannot be removed.
    pub fn release(layout: &Layout) -> Result<(), KernelError> {
        if !layout.bpffs.exists() {
            return Ok(());
        }
        let claim = Claim::take(layout)?;
        state::remove_tree(&layout.bpffs)?;
        drop(claim);
        Ok(())
    }

    /// Whether the pinned link of a program at a cgroup is what it should be: alive, and running
    /// the program that this daemon loaded. Names every link that is not.
    ///
    /// # Errors
    /// The pins cannot be listed.
    pub fn missing_links(&self) -> Result<Vec<String>, KernelError> {
        self.links.dead()
    }
}

/// A descriptor of one of the loaded programs.
fn program(ebpf: &Ebpf, name: &str) -> Result<OwnedFd, KernelError> {
    let failed = |cause: Box<dyn std::error::Error + Send + Sync>| KernelError::Load {
        program: name.to_owned(),
        cause,
    };
    let program = ebpf
        .program(name)
        .ok_or_else(|| failed("not in the object".into()))?;
    let fd = program.fd().map_err(|error| failed(error.into()))?;
    fd.as_fd()
        .try_clone_to_owned()
        .map_err(|error| failed(error.into()))
}

/// Attaches a program to the cgroup at a path.
fn link(ebpf: &Ebpf, name: &str, path: &Path, hook: bpf::Hook) -> Result<OwnedFd, KernelError> {
    let cgroup = std::fs::File::open(path)
        .map_err(|cause| KernelError::path("open the cgroup", path, cause))?;
    bpf::attach(program(ebpf, name)?.as_fd(), cgroup.as_fd(), hook)
        .map_err(|cause| KernelError::path("attach a program to", path, cause))
}
