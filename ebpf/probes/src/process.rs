//! The process table: executions, forks and exits of managed processes. Stopped before their first
//! instruction are executions of watched files by others, and in judged workloads those of what may be
//! a stdio server.

use crate::kernel::{field, pointer};
use crate::maps::{self, JUDGED, PROCESSES, WATCHED};
use crate::report::lost;
use crate::rule::gate_lives;
use crate::workload::current;
use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid,
    bpf_get_current_uid_gid, bpf_ktime_get_ns, bpf_probe_read_kernel_str_bytes, generated,
};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use core::ptr;
use exeat_ebpf_abi::{
    ARGV_LENGTH, Address, EXE_LENGTH, Event, Execution, File, LOST_PROCESS, kind,
};

const SIGSTOP: u32 = 19;

// include/uapi/linux/stat.h
const S_IFMT: u16 = 0xf000;
const S_IFIFO: u16 = 0x1000;
const S_IFSOCK: u16 = 0xc000;

#[inline(always)]
fn event(kind: u32, workload: u32, task: *const u8, detail: u32) -> Event {
    let id = bpf_get_current_pid_tgid();
    let leader = pointer(task, maps::task_leader());
    Event {
        kind,
        workload,
        tgid: (id >> 32) as u32,
        tid: id as u32,
        ppid: field(pointer(task, maps::task_parent()), maps::task_tgid(), 0),
        uid: bpf_get_current_uid_gid() as u32,
        port: 0,
        protocol: 0,
        family: 0,
        detail,
        address: Address([0; 16]),
        // SAFETY: a helper without arguments.
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        // SAFETY: a helper without arguments.
        at_ns: unsafe { bpf_ktime_get_ns() },
        comm: bpf_get_current_comm().unwrap_or([0; 16]),
        started_ns: field(leader, maps::task_start(), 0),
        reserved: 0,
    }
}

#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(ctx: BtfTracePointContext) -> i32 {
    let task: *const u8 = ctx.arg(0);
    let bprm: *const u8 = ctx.arg(2);
    let inode = pointer(pointer(bprm, maps::bprm_file()), maps::file_inode());
    let file = File {
        device: u64::from(field::<u32>(
            pointer(inode, maps::inode_sb()),
            maps::sb_dev(),
            0,
        )),
        inode: field(inode, maps::inode_number(), 0),
    };
    match current() {
        Some(workload) => {
            // While the gate is dead nothing leaves, and whoever would judge may be dead as well: nobody waits then.
            // SAFETY: the value is a `u32`, read whole at once; a writer in user space replaces it whole.
            let judged = unsafe { JUDGED.get(&workload) }.is_some() && gate_lives();
            let held = judged && is_piped(task) && stop(&ctx);
            let detail = if held { kind::HELD } else { 0 };
            execution(kind::EXEC, workload, task, bprm, file, detail);
        }
        // SAFETY: the value is a `u32`, read whole at once; a writer in user space replaces it whole.
        None if unsafe { WATCHED.get(&file) }.is_some() => {
            stop(&ctx);
            execution(kind::WATCHED_EXEC, 0, task, bprm, file, 0);
        }
        None => {}
    }
    0
}

/// Stops the running process: pending before the new image runs, so it stops on its way to user space.
#[inline(always)]
fn stop(ctx: &BtfTracePointContext) -> bool {
    // SAFETY: a helper that takes a number; the signal goes to the running process.
    let stopped = unsafe { generated::bpf_send_signal(SIGSTOP) } == 0;
    if !stopped {
        aya_log_ebpf::warn!(ctx, "a process could not be stopped at its execution");
    }
    stopped
}

/// Standard input and output are pipes or sockets, as a stdio server's are.
#[inline(always)]
fn is_piped(task: *const u8) -> bool {
    let table = pointer(pointer(task, maps::task_files()), maps::files_table());
    let files = pointer(table, maps::table_files());
    is_stream(pointer(files, 0)) && is_stream(pointer(files, size_of::<usize>() as u32))
}

#[inline(always)]
fn is_stream(file: *const u8) -> bool {
    let inode = pointer(file, maps::file_inode());
    let mode: u16 = field(inode, maps::inode_mode(), 0);
    matches!(mode & S_IFMT, S_IFIFO | S_IFSOCK)
}

#[inline(always)]
fn execution(
    kind: u32,
    workload: u32,
    task: *const u8,
    bprm: *const u8,
    file: File,
    detail: u32,
) {
    let Some(mut entry) = PROCESSES.reserve::<Execution>(0) else {
        lost(LOST_PROCESS);
        return;
    };
    let out = entry.as_mut_ptr();
    // SAFETY: `out` is the reservation's own room, of this size, and nobody else sees it before `submit`; the helpers that fill it fail
    // instead of faulting. `exe` and `argv` are arrays of bytes, valid whatever they hold.
    unsafe {
        (*out).event = event(kind, workload, task, detail);
        (*out).file = file;
        (*out).exe[0] = 0;
        let name = pointer(bprm, maps::bprm_filename());
        if !name.is_null() {
            let exe = core::slice::from_raw_parts_mut((&raw mut (*out).exe).cast(), EXE_LENGTH);
            let _ = bpf_probe_read_kernel_str_bytes(name, exe);
        }
        let mm = pointer(task, maps::task_mm());
        let start: u64 = field(mm, maps::mm_arg_start(), 0);
        let end: u64 = field(mm, maps::mm_arg_end(), 0);
        let total = end.wrapping_sub(start);
        let length = if total >= ARGV_LENGTH as u64 {
            ARGV_LENGTH as u64 - 1
        } else {
            total
        };
        let wanted = (length & (ARGV_LENGTH as u64 - 1)) as u32;
        let read = generated::bpf_probe_read_user(
            (&raw mut (*out).argv).cast(),
            wanted,
            ptr::with_exposed_provenance(start as usize),
        );
        (*out).argv_length = if read == 0 { wanted } else { 0 };
        (*out).argv_total = if total > u64::from(u32::MAX) {
            u32::MAX
        } else {
            total as u32
        };
    }
    entry.submit(0);
}

#[btf_tracepoint(function = "sched_process_fork")]
pub fn process_fork(ctx: BtfTracePointContext) -> i32 {
    let Some(workload) = current() else { return 0 };
    let parent: *const u8 = ctx.arg(0);
    let child: *const u8 = ctx.arg(1);
    let own: u32 = field(parent, maps::task_tgid(), 0);
    let new: u32 = field(child, maps::task_tgid(), 0);
    // A thread is not a process.
    if own != new {
        submit(event(kind::FORK, workload, parent, new));
    }
    0
}

#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(ctx: BtfTracePointContext) -> i32 {
    let Some(workload) = current() else { return 0 };
    let task: *const u8 = ctx.arg(0);
    // The kernel has counted this thread off. Threads that end together may each see zero: a
    // second record of one exit does no harm.
    let live: i32 = field(pointer(task, maps::task_signal()), maps::signal_live(), 0);
    if live == 0 {
        let code: u32 = field(task, maps::task_exit_code(), 0);
        submit(event(kind::EXIT, workload, task, code));
    }
    0
}

#[inline(always)]
fn submit(event: Event) {
    match PROCESSES.reserve::<Event>(0) {
        Some(mut entry) => {
            entry.write(event);
            entry.submit(0);
        }
        None => lost(LOST_PROCESS),
    }
}
