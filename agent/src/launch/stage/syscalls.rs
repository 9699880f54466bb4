//! What a server that `exeat run` starts, and the gate, may not ask of the kernel, whatever they execute later.
//!
//! The programs in the kernel refuse sockets of families that carry bytes past them by the cgroup of whoever
//! makes them; this refuses the same without a security layer, and the ways to another process's sockets or to a
//! name space of one's own. A list of what is refused, not of what is allowed: servers are any program.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter, sock_filter,
};

use serde_json::{Value, json};

use super::StageError;

/// Set in the numbers of the x32 interface (`__X32_SYSCALL_BIT`), which reaches the same functions, some of them by
/// numbers of its own.
const X32: u32 = 0x4000_0000;

/// A system call's number, and its name.
macro_rules! call {
    ($name:ident) => {
        (libc::$name, stringify!($name))
    };
}

/// Refused whatever the arguments are, each with its reason.
const REFUSED: &[((i64, &str), &str)] = &[
    (
        call!(SYS_io_uring_setup),
        "sends and connects without a call that a hook sees in this process",
    ),
    (
        call!(SYS_io_uring_enter),
        "the same, of a ring that somebody else made",
    ),
    (
        call!(SYS_io_uring_register),
        "the same, of a ring that somebody else made",
    ),
    (call!(SYS_ptrace), "drives another process of the same user"),
    (
        call!(SYS_process_vm_readv),
        "reads another process of the same user",
    ),
    (
        call!(SYS_process_vm_writev),
        "writes into another process of the same user",
    ),
    (
        call!(SYS_pidfd_getfd),
        "takes another process's connected socket",
    ),
    (call!(SYS_kcmp), "compares another process's descriptors"),
    (call!(SYS_bpf), "loads programs and reads maps"),
    (call!(SYS_perf_event_open), "watches other processes"),
    (
        call!(SYS_userfaultfd),
        "holds the kernel in the middle of a copy: of use to exploits",
    ),
    (call!(SYS_setns), "enters another name space"),
    (call!(SYS_mount), "changes what is where"),
    (call!(SYS_umount2), "uncovers what was laid over"),
    (call!(SYS_pivot_root), "changes what is where"),
    (call!(SYS_open_tree), "mounts by the newer interface"),
    (call!(SYS_move_mount), "mounts by the newer interface"),
    (call!(SYS_fsopen), "mounts by the newer interface"),
    (call!(SYS_fsconfig), "mounts by the newer interface"),
    (call!(SYS_fsmount), "mounts by the newer interface"),
    (call!(SYS_fspick), "mounts by the newer interface"),
    (call!(SYS_mount_setattr), "mounts by the newer interface"),
    (
        call!(SYS_add_key),
        "keys are kept for users, not for workloads",
    ),
    (
        call!(SYS_request_key),
        "keys are kept for users, not for workloads",
    ),
    (
        call!(SYS_keyctl),
        "keys are kept for users, not for workloads",
    ),
    (call!(SYS_kexec_load), "replaces the kernel"),
    (call!(SYS_kexec_file_load), "replaces the kernel"),
    (call!(SYS_init_module), "adds to the kernel"),
    (call!(SYS_finit_module), "adds to the kernel"),
    (call!(SYS_delete_module), "takes from the kernel"),
    (
        call!(SYS_open_by_handle_at),
        "opens files past their directories",
    ),
    (call!(SYS_fanotify_init), "watches other processes' files"),
];

/// Address families of sockets; everything else is refused (packet, VSOCK, XDP, ALG, TIPC, SMC, Bluetooth, CAN ..).
const FAMILIES: [i32; 4] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    // Of these the routing protocol alone: C libraries list addresses by it.
    libc::AF_NETLINK,
];

/// The highest that is listed one by one where there is no rule for all others (`AF_MAX` is 46 since Linux 5.13).
const LAST_FAMILY: i32 = 64;

/// Name spaces that nobody makes for themselves: in a user name space a process has every capability, in a
/// network name space it has sockets that no policy is bound to.
const NAMESPACES: [i32; 4] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
];

/// What the gate asks of bpf(2): elements of the maps that it was handed (`MAP_LOOKUP_ELEM`, `MAP_UPDATE_ELEM`,
/// `MAP_DELETE_ELEM`, `MAP_GET_NEXT_KEY`, `MAP_LOOKUP_AND_DELETE_ELEM`) and what those are (`OBJ_GET_INFO_BY_FD`).
const ELEMENTS: [i32; 6] = [1, 2, 3, 4, 21, 15];

/// Leaves to this process, and all that it becomes, of bpf(2) what [`ELEMENTS`] says: where
/// `kernel.unprivileged_bpf_disabled` is 0, anybody may load programs and make maps.
pub(super) fn refuse_programs() -> Result<(), StageError> {
    let others: Result<Vec<_>, _> = ELEMENTS
        .iter()
        .map(|command| argument(0, SeccompCmpOp::Ne, *command))
        .collect();
    let rules = BTreeMap::from([(libc::SYS_bpf, vec![rule(others?)?])]);
    apply_filter(&program(rules, libc::EPERM)?).map_err(failed)
}

/// Puts the filters on this process and all that it becomes. There is no way back.
pub(super) fn refuse() -> Result<(), StageError> {
    for program in programs()? {
        apply_filter(&program).map_err(failed)?;
    }
    Ok(())
}

/// The same refusals for a container, as Docker takes them (a profile for seccomp in its JSON). What asks by another
/// architecture's interface is ended by whoever makes the filter of it.
pub(crate) fn container_profile() -> String {
    let names: Vec<&str> = REFUSED
        .iter()
        .filter_map(|((_number, name), _why)| name.strip_prefix("SYS_"))
        .collect();
    // The filter compares all 64 bits, of which the kernel reads the lower half: whatever has more is refused.
    let argument =
        |index: u32, value: i32, op: &str| json!({ "index": index, "value": value, "op": op });
    let masked = |flag: i32| json!({ "index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ" });
    let refused = |names: &[&str], args: Vec<Value>| json!({ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EPERM, "args": args });
    let mut all = vec![refused(&names, Vec::new())];
    // Conditions on one argument are each a rule of their own.
    let others = (0..=LAST_FAMILY).filter(|family| !FAMILIES.contains(family));
    all.extend(others.map(|family| refused(&["socket"], vec![argument(0, family, "SCMP_CMP_EQ")])));
    all.push(refused(
        &["socket"],
        vec![argument(0, LAST_FAMILY, "SCMP_CMP_GT")],
    ));
    let netlink = vec![
        argument(0, libc::AF_NETLINK, "SCMP_CMP_EQ"),
        argument(2, libc::NETLINK_ROUTE, "SCMP_CMP_NE"),
    ];
    all.push(refused(&["socket"], netlink));
    all.push(refused(
        &["socketpair"],
        vec![argument(0, libc::AF_UNIX, "SCMP_CMP_NE")],
    ));
    all.extend(NAMESPACES.map(|flag| refused(&["clone", "unshare"], vec![masked(flag)])));
    all.push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS }));
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": all,
    });
    profile.to_string()
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> StageError {
    StageError::Syscalls(Box::new(error))
}

fn programs() -> Result<[BpfProgram; 3], StageError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED
        .iter()
        .map(|((number, _name), _why)| (*number, Vec::new()))
        .collect();
    let mut foreign = Vec::new();
    for family in FAMILIES {
        foreign.push(argument(0, SeccompCmpOp::Ne, family)?);
    }
    let netlink = vec![
        argument(0, SeccompCmpOp::Eq, libc::AF_NETLINK)?,
        argument(2, SeccompCmpOp::Ne, libc::NETLINK_ROUTE)?,
    ];
    rules.insert(libc::SYS_socket, vec![rule(foreign)?, rule(netlink)?]);
    let pair = vec![argument(0, SeccompCmpOp::Ne, libc::AF_UNIX)?];
    rules.insert(libc::SYS_socketpair, vec![rule(pair)?]);
    for number in [libc::SYS_clone, libc::SYS_unshare] {
        let mut made = Vec::new();
        for flag in NAMESPACES {
            let bit = SeccompCmpOp::MaskedEq(u64::from(flag.cast_unsigned()));
            made.push(rule(vec![argument(0, bit, flag)?])?);
        }
        rules.insert(number, made);
    }
    // Its flags lie in memory, where no filter sees them. C libraries that are told that there is no such call
    // use the older one.
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    Ok([
        program(rules, libc::EPERM)?,
        program(clone3, libc::ENOSYS)?,
        x32(),
    ])
}

/// Refuses whatever is asked by the x32 interface: nothing that is in use needs it, and no list of its numbers can
/// then be short of one. By i386's interface a process does not live long enough: the other programs end what asks
/// by another architecture's.
fn x32() -> BpfProgram {
    // The number is the first word of what a filter sees (`struct seccomp_data`).
    let load = statement(0x20, 0);
    let is_x32 = sock_filter {
        code: 0x45,
        jt: 0,
        jf: 1,
        k: X32,
    };
    let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
    let answers = [refused, libc::SECCOMP_RET_ALLOW].map(|answer| statement(0x06, answer));
    [load, is_x32].into_iter().chain(answers).collect()
}

/// An instruction without jumps; codes are those of `linux/bpf_common.h`: 0x20 loads a word, 0x45 tests bits, 0x06
/// ends.
fn statement(code: u16, k: u32) -> sock_filter {
    sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

fn program(rules: BTreeMap<i64, Vec<SeccompRule>>, error: i32) -> Result<BpfProgram, StageError> {
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(error.cast_unsigned()),
        TargetArch::x86_64,
    )
    .map_err(failed)?;
    filter.try_into().map_err(failed)
}

fn argument(index: u8, is: SeccompCmpOp, value: i32) -> Result<SeccompCondition, StageError> {
    // The kernel reads these arguments as 32 bits, whatever stands above them.
    let value = u64::from(value.cast_unsigned());
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, is, value).map_err(failed)
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, StageError> {
    SeccompRule::new(conditions).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_a_reason_and_fits() {
        assert!(REFUSED.iter().all(|(_, why)| !why.is_empty()));
        let mut numbers: Vec<i64> = REFUSED.iter().map(|((number, _), _)| *number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), REFUSED.len());
        let programs = programs().unwrap();
        // BPF_MAXINSNS of the kernel.
        assert!(programs.iter().all(|program| program.len() < 4096));
    }
}
