//! Looks up what a workload may reach.

use crate::address::{Words, address, family_of};
use crate::maps::{ALLOW, HEARTBEAT, RANGES, range_key};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use exeat_ebpf_abi::{Destination, HEARTBEAT_NS, action, protocol};

/// The action for a destination, 0 if it is not allowed.
#[inline(always)]
pub fn action_for(workload: u32, words: Words, port: u16, protocol: u8) -> u32 {
    let exact = Destination {
        workload,
        port,
        protocol,
        family: family_of(words),
        address: address(words),
    };
    // SAFETY: the value is a `u32`, read whole at once; a writer in user space replaces it whole.
    if let Some(action) = unsafe { ALLOW.get(&exact) } {
        return *action;
    }
    if let Some(action) = RANGES.get(range_key(exact)) {
        return *action;
    }
    if let Some(action) = RANGES.get(range_key(Destination { port: 0, ..exact })) {
        return *action;
    }
    0
}

/// A datagram may pass: its peer is allowed, and the gate, which allowed it, lives.
#[inline(always)]
pub fn may_pass_directly(workload: u32, words: Words, port: u16) -> bool {
    action_for(workload, words, port, protocol::UDP) == action::DIRECT && gate_lives()
}

/// The gate gave a sign of life a moment ago.
#[inline(always)]
pub fn gate_lives() -> bool {
    let Some(beat) = HEARTBEAT.get(0) else {
        return false;
    };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    *beat != 0 && now.wrapping_sub(*beat) < HEARTBEAT_NS
}
