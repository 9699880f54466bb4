//! The workloads that are alive, and the numbers that they have.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use crate::channel::{FIRST_USER, Workload};
use crate::control::peer::{CgroupRole, Cgroups};

/// Workloads at once.
pub(super) const MAX_WORKLOADS: usize = 4096;

/// A workload with what the supervisor alone knows of it.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub(super) record: Workload,
    /// Who made the cgroup.
    pub(super) origin: Origin,
}

/// Who made a workload's cgroup, and so who removes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// `exeat run`, in this daemon's life: a task waits for its end.
    Run,
    /// Exeat: for a process that matched, or in an earlier life.
    Own,
    /// Somebody else, such as systemd.
    Foreign,
}

/// The workloads that are alive.
#[derive(Debug)]
pub(super) struct Workloads {
    live: BTreeMap<u32, Live>,
    next: u32,
    roles: Roles,
}

impl Workloads {
    /// With none alive; numbers start above `used`.
    pub(super) fn new(used: u32, root: &Path, gate: &Path) -> Self {
        Self {
            live: BTreeMap::new(),
            next: used.saturating_add(1),
            roles: Roles::new(root, gate),
        }
    }

    /// A number that was never used; `None`: there are too many workloads, or no numbers left.
    pub(super) fn number(&mut self) -> Option<u32> {
        if self.live.len() >= MAX_WORKLOADS {
            return None;
        }
        let number = self.next;
        if number >= FIRST_USER {
            return None;
        }
        self.next = number.checked_add(1)?;
        Some(number)
    }

    pub(super) fn add(&mut self, live: Live) {
        self.roles
            .set(&live.record.cgroup, Some(live.record.number));
        self.live.insert(live.record.number, live);
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<Live> {
        let live = self.live.remove(&number)?;
        // Another's by now, where it was taken as something else.
        let other = self.of(&live.record.cgroup);
        self.roles.set(&live.record.cgroup, other);
        Some(live)
    }

    pub(super) fn get(&self, number: u32) -> Option<&Live> {
        self.live.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Live> {
        self.live.get_mut(&number)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Live> {
        self.live.values()
    }

    /// Whether a cgroup is a workload's.
    pub(super) fn has(&self, cgroup: &Path) -> bool {
        self.of(cgroup).is_some()
    }

    /// The workload whose cgroup it is.
    pub(super) fn of(&self, cgroup: &Path) -> Option<u32> {
        let mut live = self.live.values();
        let found = live.find(|live| live.record.cgroup == cgroup)?;
        Some(found.record.number)
    }

    pub(super) fn records(&self) -> Vec<Workload> {
        self.live.values().map(|live| live.record.clone()).collect()
    }

    /// For the control socket.
    pub(super) fn roles(&self) -> Arc<dyn Cgroups> {
        Arc::new(self.roles.clone())
    }
}

/// What cgroups are, shared with the tasks that greet control clients.
#[derive(Debug, Clone)]
struct Roles {
    root: PathBuf,
    table: Arc<RwLock<BTreeMap<String, CgroupRole>>>,
}

impl Roles {
    fn new(root: &Path, gate: &Path) -> Self {
        let roles = Self {
            root: root.to_owned(),
            table: Arc::default(),
        };
        roles.put(gate, Some(CgroupRole::Gate));
        roles
    }

    fn set(&self, cgroup: &Path, number: Option<u32>) {
        self.put(cgroup, number.map(CgroupRole::Managed));
    }

    fn put(&self, cgroup: &Path, role: Option<CgroupRole>) {
        let key = format!(
            "/{}",
            cgroup.strip_prefix(&self.root).unwrap_or(cgroup).display()
        );
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        match role {
            Some(role) => table.insert(key, role),
            None => table.remove(&key),
        };
    }
}

impl Cgroups for Roles {
    fn role(&self, path: &str) -> CgroupRole {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let mut path = Some(Path::new(path));
        while let Some(here) = path {
            if let Some(role) = here.to_str().and_then(|here| table.get(here)) {
                return *role;
            }
            path = here.parent();
        }
        CgroupRole::Other
    }
}

/// The name in the register and the number in the name of one of our cgroups.
pub(super) fn parse_name(cgroup: &Path) -> Option<(&str, u32)> {
    let (name, number) = cgroup.file_name()?.to_str()?.rsplit_once('-')?;
    Some((name, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Kind;

    fn live(number: u32, cgroup: &str) -> Live {
        let record = Workload {
            number,
            name: "a".into(),
            kind: Kind::Server,
            cgroup: cgroup.into(),
            cgroup_id: 1,
            pid: None,
            uid: 1,
            exe: PathBuf::new(),
            args: Vec::new(),
            started_by: None,
            placeholders: Vec::new(),
        };
        Live {
            record,
            origin: Origin::Own,
        }
    }

    #[test]
    fn a_process_below_a_workloads_cgroup_is_managed() {
        let root = Path::new("/sys/fs/cgroup");
        let mut workloads = Workloads::new(0, root, &root.join("exeat/gate"));
        workloads.add(live(3, "/sys/fs/cgroup/exeat/w/a-3"));
        let roles = workloads.roles();
        assert_eq!(roles.role("/exeat/w/a-3"), CgroupRole::Managed(3));
        assert_eq!(roles.role("/exeat/w/a-3/below/it"), CgroupRole::Managed(3));
        assert_eq!(roles.role("/exeat/gate"), CgroupRole::Gate);
        for other in [
            "/exeat/w/a-33",
            "/exeat/w",
            "/",
            "/user.slice",
            "",
            "exeat/gate",
        ] {
            assert_eq!(roles.role(other), CgroupRole::Other, "{other}");
        }
        // One that was taken as something else is that, and not nobody's.
        workloads.add(live(4, "/sys/fs/cgroup/exeat/w/a-3"));
        workloads.remove(3);
        assert_eq!(roles.role("/exeat/w/a-3"), CgroupRole::Managed(4));
        workloads.remove(4);
        assert_eq!(roles.role("/exeat/w/a-3"), CgroupRole::Other);
    }

    #[test]
    fn numbers_are_never_used_again() {
        let mut workloads = Workloads::new(7, Path::new("/"), Path::new("/g"));
        assert_eq!(workloads.number(), Some(8));
        workloads.add(live(8, "/w/a-8"));
        workloads.remove(8);
        assert_eq!(workloads.number(), Some(9));
        let mut last = Workloads::new(u32::MAX, Path::new("/"), Path::new("/g"));
        assert_eq!(last.number(), None);
    }

    #[test]
    fn our_cgroups_names_are_read_back() {
        assert_eq!(
            parse_name(Path::new("/w/my-server-12")),
            Some(("my-server", 12))
        );
        assert_eq!(parse_name(Path::new("/w/server")), None);
        assert_eq!(parse_name(Path::new("/w/server-x")), None);
    }
}
