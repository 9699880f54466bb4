//! What the kernel lets each workload reach, kept in step with the policy.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use exeat_ebpf::{Action, KernelError, Protocol};
use exeat_policy::{Protocol as PolicyProtocol, Transport};

use crate::flow::Stages;
use crate::identify::bindings::Door;
use crate::identify::workloads::Known;

/// A range in the kernel's table.
type Span = (IpAddr, u8, u16, Protocol);

/// What stands in the kernel for each workload beside names.
#[derive(Debug, Default)]
pub(super) struct Openings {
    spans: HashMap<u32, HashSet<Span>>,
    listeners: HashMap<u32, HashSet<(IpAddr, u16)>>,
}

impl Openings {
    /// Makes the kernel's tables say of `known` what the policy in force says.
    ///
    /// # Errors
    /// The first [`KernelError`]; everything else was tried.
    pub(super) fn agree(&mut self, stages: &Stages, known: &Known) -> Result<(), KernelError> {
        let number = known.workload.number;
        let (doors, spans) = wanted(stages, known);
        let fixed = stages.bindings.fix(number, doors);
        let spanned = self.span(stages, number, spans);
        let listening = self.listen(stages, known);
        let names = stages.agree_names(known);
        fixed.and(spanned).and(listening).and(names)
    }

    /// The workload is gone.
    ///
    /// # Errors
    /// [`KernelError`] when its entries could not be removed.
    pub(super) fn forget(&mut self, stages: &Stages, number: u32) -> Result<(), KernelError> {
        self.spans.remove(&number);
        self.listeners.remove(&number);
        stages.observed.forget(number);
        stages.calls.forget(number);
        stages.bindings.forget(number)
    }

    fn span(
        &mut self,
        stages: &Stages,
        number: u32,
        wanted: HashSet<Span>,
    ) -> Result<(), KernelError> {
        let kernel = &stages.intake.kernel;
        let held = self.spans.entry(number).or_default();
        let mut result = Ok(());
        for (net, prefix, port, protocol) in held.difference(&wanted) {
            let shut = kernel.disallow_range(number, *net, *prefix, Some(*port), *protocol);
            result = result.and(shut);
        }
        for (net, prefix, port, protocol) in wanted.difference(held) {
            let action = match protocol {
                Protocol::Tcp => Action::Redirect,
                Protocol::Udp => Action::Direct,
            };
            let opened = kernel.allow_range(number, *net, *prefix, Some(*port), *protocol, action);
            result = result.and(opened);
        }
        *held = wanted;
        result
    }

    /// A server that listens may answer those who connect to it, and nothing else from that port.
    fn listen(&mut self, stages: &Stages, known: &Known) -> Result<(), KernelError> {
        let number = known.workload.number;
        let kernel = &stages.intake.kernel;
        let state = stages.decider.in_force();
        let server = known.server().and_then(|name| state.set.server(name));
        let wanted: HashSet<(IpAddr, u16)> = match server.map(|server| &server.transport) {
            Some(Transport::Listen(endpoint)) => {
                let port = endpoint.port();
                endpoint
                    .addresses()
                    .into_iter()
                    .map(|address| (address, port))
                    .collect()
            }
            _ => HashSet::new(),
        };
        let held = self.listeners.entry(number).or_default();
        let mut result = Ok(());
        for (address, port) in held.difference(&wanted) {
            let forbidden = kernel.forbid_listener(number, *address, *port);
            result = result.and(forbidden);
        }
        for (address, port) in wanted.difference(held) {
            let permitted = kernel.permit_listener(number, *address, *port);
            result = result.and(permitted);
        }
        *held = wanted;
        result
    }
}

/// The single addresses and the ranges that policy names for `known`.
fn wanted(stages: &Stages, known: &Known) -> (HashSet<Door>, HashSet<Span>) {
    let (mut doors, mut spans) = (HashSet::new(), HashSet::new());
    let ranges = known
        .judged()
        .map(|workload| stages.decider.ranges(workload));
    for range in ranges.into_iter().flatten() {
        let (net, prefix) = (range.net.net(), range.net.prefix());
        let whole = prefix == if net.is_ipv4() { 32 } else { 128 };
        for port in range.ports {
            match range.protocol {
                PolicyProtocol::Tcp if whole => {
                    doors.insert((net, port, Protocol::Tcp));
                }
                PolicyProtocol::Tcp => {
                    spans.insert((net, prefix, port, Protocol::Tcp));
                }
                PolicyProtocol::Udp => {
                    spans.insert((net, prefix, port, Protocol::Udp));
                }
            }
        }
    }
    (doors, spans)
}
