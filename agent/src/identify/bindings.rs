//! What the kernel lets each workload connect to, and why: the names it was given addresses for, the
//! addresses that stand in policy, and the synthetic addresses that mean exactly one name.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use exeat_ebpf::{Action, KernelError, Protocol};
use exeat_policy::Name;
use thiserror::Error;

use crate::bounded::Bounded;

/// Names one workload may have asked for and still be served under.
const NAMES: usize = 1024;
/// Addresses one name may have been answered with; rotating answers push the oldest out.
const ADDRESSES: usize = 64;
/// Synthetic addresses: the hosts of 198.18.0.0/15 (RFC 2544), less the first.
const SYNTHETIC: u32 = (1 << 17) - 2;
/// Names that have such an address for one workload: an eighth of them, so that none keeps the others from theirs.
const SYNTHETIC_NAMES: usize = 1 << 14;
const SYNTHETIC_BASE: u32 = u32::from_be_bytes([198, 18, 0, 0]);
/// `fd65:7865:6174::/64`, "exeat" in the global id of a unique local prefix (RFC 4193).
const SYNTHETIC_PREFIX: u128 = 0xfd65_7865_6174_0000_u128 << 64;

/// An address, a port and a protocol that the kernel lets through to the gate.
pub type Door = (IpAddr, u16, Protocol);

/// The kernel's table, as far as bindings need it.
pub trait Table: Send + Sync {
    /// Lets `workload` connect to `door`; the connection goes to the gate.
    ///
    /// # Errors
    /// [`KernelError`] when the table is full or the kernel refuses.
    fn open(&self, workload: u32, door: Door) -> Result<(), KernelError>;
    /// Takes that back.
    ///
    /// # Errors
    /// [`KernelError`] when the kernel refuses.
    fn shut(&self, workload: u32, door: Door) -> Result<(), KernelError>;
    /// Takes everything back.
    ///
    /// # Errors
    /// [`KernelError`] when the kernel refuses.
    fn forget(&self, workload: u32) -> Result<(), KernelError>;
}

impl Table for Arc<exeat_ebpf::Gate> {
    fn open(&self, workload: u32, (address, port, protocol): Door) -> Result<(), KernelError> {
        self.allow(workload, address, port, protocol, Action::Redirect)
    }

    fn shut(&self, workload: u32, (address, port, protocol): Door) -> Result<(), KernelError> {
        self.disallow(workload, address, port, protocol)
    }

    fn forget(&self, workload: u32) -> Result<(), KernelError> {
        exeat_ebpf::Gate::forget(self, workload)
    }
}

/// Why a name could not be bound.
#[derive(Debug, Error)]
pub enum BindFault {
    /// The kernel's table did not take the entry.
    #[error("letting workload {workload} connect to `{name}`")]
    Kernel {
        /// The workload's number.
        workload: u32,
        /// The name whose address it is.
        name: String,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
    /// No synthetic address is left.
    #[error("all synthetic addresses are in use")]
    Exhausted,
    /// The workload has as many as one may have.
    #[error("workload {0} has synthetic addresses for as many names as it may")]
    TooManyNames(u32),
}

#[derive(Debug, Default)]
struct Doors {
    /// How many reasons each open door has; it shuts with the last.
    reasons: HashMap<Door, usize>,
}

#[derive(Debug)]
struct Asked {
    addresses: Bounded<IpAddr, ()>,
    ports: Vec<(u16, Protocol)>,
}

#[derive(Debug)]
struct Workload {
    doors: Doors,
    names: Bounded<Name, Asked>,
    fixed: HashSet<Door>,
}

#[derive(Debug, Default)]
struct State {
    workloads: HashMap<u32, Workload>,
    synthetic: HashMap<u32, (u32, Name)>,
    given: HashMap<u32, HashMap<Name, u32>>,
    /// The highest number that was ever given.
    last: u32,
    /// Numbers of workloads that have ended, the longest ago first.
    free: VecDeque<u32>,
}

impl State {
    /// A number that means nothing to any workload that lives: one that never did, as long as there is one.
    fn number(&mut self) -> Option<u32> {
        let next = self.last.checked_add(1).filter(|next| *next <= SYNTHETIC);
        let Some(next) = next else {
            return self.free.pop_front();
        };
        self.last = next;
        Some(next)
    }
}

/// The bindings of every workload, mirrored in the kernel's table.
#[derive(Debug)]
pub struct Bindings<T> {
    table: T,
    state: Mutex<State>,
}

impl<T: Table> Bindings<T> {
    /// No bindings; `table` is the kernel's.
    pub fn new(table: T) -> Self {
        Self {
            table,
            state: Mutex::new(State::default()),
        }
    }

    /// The kernel's table.
    pub fn table(&self) -> &T {
        &self.table
    }

    /// `workload` was answered `addresses` for `name`: opens each of them at each of `ports`.
    ///
    /// # Errors
    /// [`BindFault::Kernel`]; what was opened before the fault stays open and is known here.
    pub fn bind(
        &self,
        workload: u32,
        name: &Name,
        addresses: &[IpAddr],
        ports: &[(u16, Protocol)],
    ) -> Result<(), BindFault> {
        let mut state = self.lock();
        let held = state
            .workloads
            .entry(workload)
            .or_insert_with(Workload::new);
        held.bind(&self.table, workload, name, addresses, ports)
            .map_err(|source| BindFault::Kernel {
                workload,
                name: name.to_string(),
                source,
            })
    }

    /// Whether `workload` has asked for `name`.
    pub fn asked(&self, workload: u32, name: &Name) -> bool {
        self.lock()
            .workloads
            .get_mut(&workload)
            .is_some_and(|held| held.names.get(name).is_some())
    }

    /// The names for which `workload` was given `address`.
    pub fn names_of(&self, workload: u32, address: IpAddr) -> Vec<Name> {
        let state = self.lock();
        let held = state.workloads.get(&workload);
        let asked = held.into_iter().flat_map(|held| held.names.iter());
        asked
            .filter(|(_, asked)| asked.addresses.contains(&address))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// The one name that a synthetic address means for `workload`.
    pub fn synthetic_name(&self, workload: u32, address: IpAddr) -> Option<Name> {
        let number = synthetic_number(address)?;
        let state = self.lock();
        let (owner, name) = state.synthetic.get(&number)?;
        (*owner == workload).then(|| name.clone())
    }

    /// Whether `name` has synthetic addresses for `workload`.
    pub fn is_synthetic(&self, workload: u32, name: &Name) -> bool {
        let state = self.lock();
        let given = state.given.get(&workload);
        given.is_some_and(|given| given.contains_key(name))
    }

    /// The synthetic addresses that mean `name` for `workload`; the same at each call.
    ///
    /// # Errors
    /// [`BindFault::TooManyNames`], [`BindFault::Exhausted`]: numbers are not used twice while their workload lives, since
    /// clients keep addresses.
    pub fn synthetic(&self, workload: u32, name: &Name) -> Result<(Ipv4Addr, Ipv6Addr), BindFault> {
        let mut state = self.lock();
        let given = state.given.get(&workload);
        let known = given.and_then(|given| given.get(name)).copied();
        let number = if let Some(number) = known {
            number
        } else {
            if given.is_some_and(|given| given.len() >= SYNTHETIC_NAMES) {
                return Err(BindFault::TooManyNames(workload));
            }
            let number = state.number().ok_or(BindFault::Exhausted)?;
            state.synthetic.insert(number, (workload, name.clone()));
            let given = state.given.entry(workload).or_default();
            given.insert(name.clone(), number);
            number
        };
        let v4 = Ipv4Addr::from_bits(SYNTHETIC_BASE | number);
        Ok((
            v4,
            Ipv6Addr::from_bits(SYNTHETIC_PREFIX | u128::from(number)),
        ))
    }

    /// Makes the doors that stand in policy by address exactly `wanted`.
    ///
    /// # Errors
    /// The first [`KernelError`]; the others were tried.
    pub fn fix(&self, workload: u32, wanted: HashSet<Door>) -> Result<(), KernelError> {
        let mut state = self.lock();
        let held = state
            .workloads
            .entry(workload)
            .or_insert_with(Workload::new);
        held.fix(&self.table, workload, wanted)
    }

    /// After a change of policy: each name of `workload` keeps the ports that `ports` says, or leaves.
    ///
    /// # Errors
    /// The first [`KernelError`]; the others were tried.
    pub fn recheck(
        &self,
        workload: u32,
        ports: impl Fn(&Name) -> Vec<(u16, Protocol)>,
    ) -> Result<(), KernelError> {
        let mut state = self.lock();
        let Some(held) = state.workloads.get_mut(&workload) else {
            return Ok(());
        };
        held.recheck(&self.table, workload, ports)
    }

    /// Forgets a workload that is gone.
    ///
    /// # Errors
    /// [`KernelError`] when the kernel's entries could not be removed.
    pub fn forget(&self, workload: u32) -> Result<(), KernelError> {
        let mut state = self.lock();
        state.workloads.remove(&workload);
        for number in state.given.remove(&workload).into_iter().flatten() {
            let (_, number) = number;
            state.synthetic.remove(&number);
            state.free.push_back(number);
        }
        self.table.forget(workload)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Workload {
    fn new() -> Self {
        Self {
            doors: Doors::default(),
            names: Bounded::new(NAMES),
            fixed: HashSet::new(),
        }
    }

    fn bind<T: Table>(
        &mut self,
        table: &T,
        workload: u32,
        name: &Name,
        addresses: &[IpAddr],
        ports: &[(u16, Protocol)],
    ) -> Result<(), KernelError> {
        let Self { doors, names, .. } = self;
        if names.get(name).is_none() {
            let asked = Asked {
                addresses: Bounded::new(ADDRESSES),
                ports: ports.to_vec(),
            };
            if let Some((_, gone)) = names.insert(name.clone(), asked) {
                for (address, ()) in gone.addresses.iter() {
                    doors.shut_all(table, workload, *address, &gone.ports)?;
                }
            }
        }
        let Some(asked) = names.get(name) else {
            return Ok(());
        };
        for address in addresses {
            if asked.addresses.get(address).is_some() {
                continue;
            }
            doors.open_all(table, workload, *address, &asked.ports)?;
            if let Some((old, ())) = asked.addresses.insert(*address, ()) {
                doors.shut_all(table, workload, old, &asked.ports)?;
            }
        }
        Ok(())
    }

    fn fix<T: Table>(
        &mut self,
        table: &T,
        workload: u32,
        wanted: HashSet<Door>,
    ) -> Result<(), KernelError> {
        let mut result = Ok(());
        for door in self.fixed.difference(&wanted) {
            let shut = self.doors.shut(table, workload, *door);
            result = result.and(shut);
        }
        for door in wanted.difference(&self.fixed) {
            let opened = self.doors.open(table, workload, *door);
            result = result.and(opened);
        }
        self.fixed = wanted;
        result
    }

    fn recheck<T: Table>(
        &mut self,
        table: &T,
        workload: u32,
        ports: impl Fn(&Name) -> Vec<(u16, Protocol)>,
    ) -> Result<(), KernelError> {
        let Self { doors, names, .. } = self;
        let mut result = Ok(());
        names.retain(|name, asked| {
            let wanted = ports(name);
            if wanted == asked.ports {
                return true;
            }
            for (address, ()) in asked.addresses.iter() {
                let opened = doors.open_all(table, workload, *address, &wanted);
                let shut = doors.shut_all(table, workload, *address, &asked.ports);
                if let (Ok(()), Err(error)) = (&result, opened.and(shut)) {
                    result = Err(error);
                }
            }
            asked.ports = wanted;
            !asked.ports.is_empty()
        });
        result
    }
}

impl Doors {
    fn open<T: Table>(&mut self, table: &T, workload: u32, door: Door) -> Result<(), KernelError> {
        let reasons = self.reasons.entry(door).or_insert(0);
        if *reasons == 0 {
            table.open(workload, door)?;
        }
        *reasons = reasons.saturating_add(1);
        Ok(())
    }

    fn shut<T: Table>(&mut self, table: &T, workload: u32, door: Door) -> Result<(), KernelError> {
        let Some(reasons) = self.reasons.get_mut(&door) else {
            return Ok(());
        };
        *reasons = reasons.saturating_sub(1);
        if *reasons > 0 {
            return Ok(());
        }
        self.reasons.remove(&door);
        table.shut(workload, door)
    }

    fn open_all<T: Table>(
        &mut self,
        table: &T,
        workload: u32,
        address: IpAddr,
        ports: &[(u16, Protocol)],
    ) -> Result<(), KernelError> {
        ports.iter().try_for_each(|(port, protocol)| {
            self.open(table, workload, (address, *port, *protocol))
        })
    }

    fn shut_all<T: Table>(
        &mut self,
        table: &T,
        workload: u32,
        address: IpAddr,
        ports: &[(u16, Protocol)],
    ) -> Result<(), KernelError> {
        ports.iter().try_for_each(|(port, protocol)| {
            self.shut(table, workload, (address, *port, *protocol))
        })
    }
}

/// The prefix of synthetic IPv6 addresses.
pub fn synthetic_prefix() -> Ipv6Addr {
    Ipv6Addr::from_bits(SYNTHETIC_PREFIX)
}

/// The number behind a synthetic address of either family.
fn synthetic_number(address: IpAddr) -> Option<u32> {
    match address {
        IpAddr::V4(v4) => {
            let number = v4.to_bits() ^ SYNTHETIC_BASE;
            (1..=SYNTHETIC).contains(&number).then_some(number)
        }
        IpAddr::V6(v6) => {
            let number = u32::try_from(v6.to_bits() ^ SYNTHETIC_PREFIX).ok()?;
            (1..=SYNTHETIC).contains(&number).then_some(number)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::IpAddr;

    use exeat_ebpf::{KernelError, Protocol};
    use exeat_policy::Name;

    use super::{BindFault, Bindings, Door, SYNTHETIC, SYNTHETIC_NAMES, Table};

    struct Nowhere;

    impl Table for Nowhere {
        fn open(&self, _workload: u32, _door: Door) -> Result<(), KernelError> {
            Ok(())
        }

        fn shut(&self, _workload: u32, _door: Door) -> Result<(), KernelError> {
            Ok(())
        }

        fn forget(&self, _workload: u32) -> Result<(), KernelError> {
            Ok(())
        }
    }

    fn name(number: usize) -> Name {
        Name::parse(&format!("n{number}.example")).expect("a name")
    }

    #[test]
    fn a_workload_cannot_use_up_the_synthetic_addresses_of_the_others() {
        let bindings = Bindings::new(Nowhere);
        let give = |workload, number| bindings.synthetic(workload, &name(number));
        for number in 0..SYNTHETIC_NAMES {
            give(1, number).expect("a number");
        }
        let full = give(1, SYNTHETIC_NAMES).expect_err("too many");
        assert!(matches!(full, BindFault::TooManyNames(1)), "{full}");
        give(1, 0).expect("what it has stays");
        let (v4, _) = give(2, 0).expect("another's own");
        assert_eq!(bindings.synthetic_name(2, v4.into()), Some(name(0)));
        assert_eq!(bindings.synthetic_name(1, v4.into()), None);
    }

    #[test]
    fn numbers_of_ended_workloads_are_given_again_and_those_of_living_ones_never() {
        let bindings = Bindings::new(Nowhere);
        let give = |workload| bindings.synthetic(workload, &name(0)).map(|(v4, _)| v4);
        let living = give(0).expect("a number");
        let mut seen = BTreeSet::from([living]);
        // Each number once, while some were never given.
        for workload in 1..SYNTHETIC {
            assert!(seen.insert(give(workload).expect("a number")), "{workload}");
            if workload < 3 {
                bindings.forget(workload).expect("no kernel");
            }
        }
        let again = give(SYNTHETIC).expect("a number of the first that ended");
        assert!(seen.contains(&again) && again != living);
        // What the ended workload's late connection dials is nobody's, or another's own: not its.
        assert_eq!(bindings.synthetic_name(1, again.into()), None);
        assert_eq!(
            bindings.synthetic_name(SYNTHETIC, again.into()),
            Some(name(0))
        );
        give(SYNTHETIC + 1).expect("the second that ended");
        let none = give(SYNTHETIC + 2).expect_err("all are of workloads that live");
        assert!(matches!(none, BindFault::Exhausted), "{none}");
        assert_eq!(bindings.synthetic_name(0, living.into()), Some(name(0)));
    }

    #[test]
    fn an_address_tells_the_names_that_it_was_given_for() {
        let bindings = Bindings::new(Nowhere);
        let [first, second] =
            ["10.0.0.1", "10.0.0.2"].map(|text| text.parse::<IpAddr>().expect("one"));
        let ports = [(443, Protocol::Tcp)];
        for (number, addresses) in [(0, [first, second]), (1, [second, second])] {
            let bound = bindings.bind(7, &name(number), &addresses, &ports);
            bound.expect("no kernel");
        }
        assert_eq!(bindings.names_of(7, first), [name(0)]);
        assert_eq!(bindings.names_of(7, second).len(), 2);
        assert!(bindings.names_of(8, first).is_empty());
    }
}
