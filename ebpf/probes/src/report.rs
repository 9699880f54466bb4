//! Puts refusals and drops into the gate's ring.

use crate::address::{Words, address, family_of};
use crate::maps::{EVENTS, LOST};
use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid,
    bpf_get_current_uid_gid, bpf_ktime_get_ns,
};
use exeat_ebpf_abi::{Address, Event, LOST_GATE, Owner};

/// What is known of a refusal.
pub struct Refusal {
    pub kind: u32,
    pub workload: u32,
    pub words: Words,
    pub port: u16,
    pub protocol: u8,
    pub detail: u32,
}

/// Counts a record that found no room.
#[inline(always)]
pub fn lost(ring: u32) {
    if let Some(count) = LOST.get_ptr_mut(ring) {
        // SAFETY: a value of this CPU's own; the program is not preempted by itself.
        unsafe { *count += 1 };
    }
}

#[inline(always)]
fn event(refusal: &Refusal) -> Event {
    Event {
        kind: refusal.kind,
        workload: refusal.workload,
        tgid: 0,
        tid: 0,
        ppid: 0,
        uid: 0,
        port: refusal.port,
        protocol: refusal.protocol,
        family: if refusal.words[2] == 0 && refusal.words[3] == 0 && refusal.words[0] == 0 {
            0
        } else {
            family_of(refusal.words)
        },
        detail: refusal.detail,
        address: Address(address(refusal.words).0),
        cgroup: 0,
        // SAFETY: a helper without arguments.
        at_ns: unsafe { bpf_ktime_get_ns() },
        comm: [0; 16],
        started_ns: 0,
        reserved: 0,
    }
}

/// Reports what the running process was refused.
#[inline(always)]
pub fn by_process(refusal: Refusal) {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        lost(LOST_GATE);
        return;
    };
    let task = bpf_get_current_pid_tgid();
    let mut event = event(&refusal);
    event.tgid = (task >> 32) as u32;
    event.tid = task as u32;
    event.uid = bpf_get_current_uid_gid() as u32;
    // SAFETY: a helper without arguments.
    event.cgroup = unsafe { bpf_get_current_cgroup_id() };
    event.comm = bpf_get_current_comm().unwrap_or([0; 16]);
    entry.write(event);
    entry.submit(0);
}

/// Reports a packet that was dropped; the running process is not its sender.
#[inline(always)]
pub fn by_packet(refusal: Refusal, owner: Owner) {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        lost(LOST_GATE);
        return;
    };
    let mut event = event(&refusal);
    event.tgid = owner.tgid;
    event.uid = owner.uid;
    entry.write(event);
    entry.submit(0);
}
