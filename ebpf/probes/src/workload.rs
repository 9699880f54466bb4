//! Which workload a process or a socket belongs to.

use crate::maps::{CUT, MANAGED, OWNER, Storage, config};
use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::{bpf_get_current_ancestor_cgroup_id, generated};
use exeat_ebpf_abi::{Config, MAX_LEVEL, Owner};

/// Looks through a cgroup's ancestors, given as level to id (0: no such ancestor).
///
/// `None`: not managed. `Some(0)`: below the workloads' parent, but no workload: may nothing.
#[inline(always)]
fn find(config: &Config, ancestor: impl Fn(u32) -> u64) -> Option<u32> {
    if config.managed != 0 && ancestor(config.managed_level) == config.managed {
        let id = ancestor(config.managed_level + 1);
        // SAFETY: the value is a `u32`, read whole at once; a writer in user space replaces it whole.
        return Some(unsafe { MANAGED.get(&id) }.copied().unwrap_or(0));
    }
    if config.levels == 0 {
        return None;
    }
    // Deepest first: a workload inside a workload is its own.
    let mut level = MAX_LEVEL;
    while level > 0 {
        if config.levels & (1 << level) != 0 {
            let id = ancestor(level);
            if id != 0
                // SAFETY: the value is a `u32`, read whole at once; a writer in user space replaces it whole.
                && let Some(workload) = unsafe { MANAGED.get(&id) }
            {
                return Some(*workload);
            }
        }
        level -= 1;
    }
    None
}

/// The workload of the running process, with the meaning of [`find`].
#[inline(always)]
pub fn current() -> Option<u32> {
    // Without a configuration nothing is managed yet.
    // SAFETY: a helper that takes a number; for a level that is not there it gives 0.
    find(config()?, |level| unsafe {
        bpf_get_current_ancestor_cgroup_id(level as i32)
    })
}

/// The workload that a socket belongs to, by its creator, else by the cgroup that it was created
/// in; 0 if there is none.
///
/// # Safety
/// `sk` is a full socket that the kernel gave this program.
#[inline(always)]
pub unsafe fn of_socket(config: &Config, sk: *mut bpf_sock) -> Owner {
    // SAFETY: the socket is what the kernel gave this program, and not null.
    let owner = unsafe { Storage(&OWNER).get(sk) };
    if !owner.is_null() {
        // SAFETY: not null, and plain data that lives as long as the socket.
        return unsafe { *owner };
    }
    // SAFETY: `sk` is a full socket, as the caller promises; for a level that is not there the helper gives 0.
    let workload = find(config, |level| unsafe {
        generated::bpf_sk_ancestor_cgroup_id(sk.cast(), level as i32)
    });
    Owner {
        workload: workload.unwrap_or(0),
        tgid: 0,
        uid: 0,
        pad: 0,
    }
}

/// The workload is cut off from everything.
#[inline(always)]
pub fn is_cut(workload: u32) -> bool {
    // SAFETY: the value is a `u32`, read whole at once; a writer in user space replaces it whole.
    unsafe { CUT.get(&workload) }.is_some()
}

/// Who makes a call on a socket.
pub enum Subject {
    /// Neither the process nor the socket is managed.
    Nobody,
    /// The workload whose rules hold.
    Workload(u32),
    /// A managed process uses a socket that its workload did not create.
    Foreign { workload: u32, owner: u32 },
}

/// Judges the running process together with the socket that it uses.
#[inline(always)]
pub fn subject(sa: *mut bpf_sock_addr) -> Subject {
    // SAFETY: a field of the context that the kernel called this program with, of one type in every variant of the union.
    let sk = unsafe { (*sa).__bindgen_anon_1.sk };
    let owner = if sk.is_null() {
        0
    } else {
        // SAFETY: the socket is what the kernel gave this program, and not null.
        let owner = unsafe { Storage(&OWNER).get(sk) };
        if owner.is_null() {
            0
        } else {
            // SAFETY: not null, and plain data that lives as long as the socket.
            unsafe { (*owner).workload }
        }
    };
    match current() {
        None if owner == 0 => Subject::Nobody,
        // A managed socket in an unmanaged process's hands stays its workload's.
        None => Subject::Workload(owner),
        Some(workload) if workload != 0 && workload == owner => Subject::Workload(workload),
        Some(workload) => Subject::Foreign { workload, owner },
    }
}
