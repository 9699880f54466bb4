//! Servers that listen on this machine: whoever connects to one meets the gate in its place.

use crate::address::{Words, address};
use crate::connect::{Call, PASS, refuse};
use crate::lookup::waits_managed;
use crate::maps::GUARDED;
use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::bpf_get_current_cgroup_id;
use exeat_ebpf_abi::{Endpoint, guard, kind};

const IPV4_LOOPBACK: u8 = 127;

/// A connect of a process that is not managed. One look-up, where nothing is guarded at the port.
#[inline(always)]
pub fn unmanaged<const V6: bool>(call: &Call<'_>) -> i32 {
    // SAFETY: the value is a `u32`, read whole at once; a writer in user space replaces it whole.
    if unsafe { GUARDED.get(&Endpoint::any(call.port)) }.is_none() {
        return PASS;
    }
    // The gate alone reaches what stands behind it.
    // SAFETY: a helper without arguments.
    if call.config.gate != 0 && unsafe { bpf_get_current_cgroup_id() } == call.config.gate {
        return PASS;
    }
    let ctx = call.ctx.as_ptr();
    if !call.is_at_home() {
        // Addresses of another namespace are other places; a workload that went there is the same.
        if is_loopback_net(call.words) && waits_managed(ctx, call.words, call.port) {
            return call.refuse(kind::FOREIGN_NETNS, 0);
        }
        return PASS;
    }
    let exact = Endpoint {
        address: address(call.words),
        port: u32::from(call.port),
    };
    // SAFETY: the value is a `u32`, read whole at once; a writer in user space replaces it whole.
    let guarded = match unsafe { GUARDED.get(&exact) } {
        Some(&guard::SERVER) => true,
        Some(&guard::LOCAL) => waits_managed(ctx, call.words, call.port),
        Some(_) => return refuse(),
        None => is_loopback_net(call.words) && waits_managed(ctx, call.words, call.port),
    };
    if guarded {
        call.redirect::<V6>(call.config.proxy_port)
    } else {
        PASS
    }
}

/// Any address of loopback, and none of another machine.
#[inline(always)]
fn is_loopback_net(words: Words) -> bool {
    if crate::address::is_mapped(words) {
        return words[3].to_ne_bytes()[0] == IPV4_LOOPBACK;
    }
    crate::address::is_loopback(words)
}
