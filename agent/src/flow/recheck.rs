//! What stands in the kernel and what is open, brought in step with what is decided now: after a change of policy,
//! and when a server may fetch no more.

use exeat_ebpf::{KernelError, Protocol};
use exeat_policy::{Caller, Name, Wire};

use super::Stages;
use crate::identify::live::Unread;
use crate::identify::peer::Peer;
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

    /// Whether what `caller` sends there is read, although a network that holds the address is passed on unread: a
    /// registered server is there, or the workload was given the address for a name whose messages are decided on.
    pub(super) fn is_read(
        &self,
        caller: Caller<'_>,
        workload: u32,
        peer: &Peer,
        port: u16,
    ) -> bool {
        let Peer::Address(address) = peer else {
            return false;
        };
        // By policy alone: a disconnected server's name is its name still.
        let decoded = |name: &Name| {
            let ports = self.decider.ports(caller, name);
            ports
                .iter()
                .any(|to| to.port == port && to.egress.wire == Wire::Http)
        };
        self.decider.serves(*address, port)
            || self
                .bindings
                .names_of(workload, *address)
                .iter()
                .any(decoded)
    }

    /// May what goes by unread on a connection to `peer` go on, as things are decided now?
    pub(super) fn goes_on(
        &self,
        caller: Caller<'_>,
        workload: u32,
        peer: &Peer,
        port: u16,
        unread: Option<&Unread>,
    ) -> bool {
        let bytes = matches!(unread, Some(Unread::Bytes { .. }));
        let target = peer.target();
        self.decider.goes_on(caller, target, port, unread)
            && !(bytes && self.is_read(caller, workload, peer, port))
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
                || (self.goes_on(caller, connected.workload, peer, port, unread)
                    && !(unasked && self.decider.asks_certificate(caller, target, port)))
        })
    }
}
