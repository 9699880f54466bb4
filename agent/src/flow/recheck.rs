//! What stands in the kernel and what is open, brought in step with what is decided now: after a change of policy,
//! and when a server may fetch no more.

use exeat_ebpf::{KernelError, Protocol};

use super::Stages;
use crate::identify::workloads::Known;
use crate::intake::Arrived;

impl Stages {
    /// Makes the doors of the names that `known` has asked for those that it may use now.
    ///
    /// # Errors
    /// The first [`KernelError`]; the others were tried.
    pub fn agree_names(&self, known: &Known) -> Result<(), KernelError> {
        let caller = known.caller();
        self.bindings.recheck(known.workload.number, |name| {
            let ports = self.decider.ports(caller, name);
            ports
                .iter()
                .map(|binding| (binding.port, Protocol::Tcp))
                .collect()
        })
    }

    /// Whether the workload that a connection came from has ended.
    pub(super) fn is_gone(&self, arrived: &Arrived) -> bool {
        let known = self.intake.workloads.get(arrived.actor.number());
        known.is_none()
    }

    /// Cuts the connections of the workloads that `whose` names, as far as they would not be allowed now. Returns how
    /// many.
    pub fn cut_disallowed(&self, whose: impl Fn(u32) -> bool) -> usize {
        self.intake.live.recheck(|connected| {
            let (Some(known), Some(peer)) = (
                self.intake.workloads.get(connected.workload),
                &connected.peer,
            ) else {
                // Not agreed on yet: it will be decided as things are now.
                return true;
            };
            let (caller, target, port) = (known.caller(), peer.target(), connected.port);
            let unread = connected.unread.as_ref();
            // A client that was not asked who it is would be nobody for as long as it stays.
            let unasked = connected.asked == Some(false);
            !whose(connected.workload)
                || (self.decider.goes_on(caller, target, port, unread)
                    && !(unasked && self.decider.asks_certificate(caller, target, port)))
        })
    }
}
