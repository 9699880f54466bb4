//! Loads the object that travels in this crate.

use super::state;
use crate::btf::Btf;
use crate::layout::make_directory;
use crate::{KernelError, Layout, Missing};
use aya::programs::Program;
use aya::{Ebpf, EbpfLoader};
use std::path::PathBuf;

/// The programs, compiled by this crate's build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/exeat.o"));

/// Maps that outlive the daemon.
pub(super) const PINNED: &[&str] = &[
    "CONFIG",
    "MANAGED",
    "CUT",
    "JUDGED",
    "GUARDED",
    "ALLOW",
    "RANGES",
    "LISTEN",
    "WATCHED",
    "OWNER",
    "CLIENT",
    "ACCEPTED",
    "TUPLE",
    "DNS_SOURCE",
    "HEARTBEAT",
    "EVENTS",
    "PROCESSES",
    "LOST",
];

/// Constants of the programs: offsets in the running kernel's structures.
const OFFSETS: &[(&str, &str, &str)] = &[
    ("SOCK_CGROUP", "sock", "sk_cgrp_data"),
    ("CGROUP_NODE", "cgroup", "kn"),
    ("NODE_ID", "kernfs_node", "id"),
    ("BPRM_FILENAME", "linux_binprm", "filename"),
    ("BPRM_FILE", "linux_binprm", "file"),
    ("FILE_INODE", "file", "f_inode"),
    ("INODE_NUMBER", "inode", "i_ino"),
    ("INODE_MODE", "inode", "i_mode"),
    ("INODE_SB", "inode", "i_sb"),
    ("SB_DEV", "super_block", "s_dev"),
    ("TASK_MM", "task_struct", "mm"),
    ("TASK_FILES", "task_struct", "files"),
    ("FILES_TABLE", "files_struct", "fdt"),
    ("TABLE_FILES", "fdtable", "fd"),
    ("TASK_TGID", "task_struct", "tgid"),
    ("TASK_PARENT", "task_struct", "real_parent"),
    ("TASK_LEADER", "task_struct", "group_leader"),
    ("TASK_START", "task_struct", "start_boottime"),
    ("TASK_EXIT_CODE", "task_struct", "exit_code"),
    ("TASK_SIGNAL", "task_struct", "signal"),
    ("SIGNAL_LIVE", "signal_struct", "live"),
    ("MM_ARG_START", "mm_struct", "arg_start"),
    ("MM_ARG_END", "mm_struct", "arg_end"),
];

/// Typed tracepoints, by the programs' names.
pub(super) const TRACEPOINTS: &[(&str, &str)] = &[
    ("process_exec", "sched_process_exec"),
    ("process_fork", "sched_process_fork"),
    ("process_exit", "sched_process_exit"),
];

/// Loads every program; maps that are pinned already are used as they are.
pub(super) fn load(layout: &Layout, set_retval: bool) -> Result<Ebpf, KernelError> {
    let btf = Btf::running()?;
    let offsets = OFFSETS
        .iter()
        .map(|(name, structure, member)| Ok((*name, btf.offset(structure, member)?)))
        .collect::<Result<Vec<_>, Missing>>()?;
    drop(btf);
    make_directory(&layout.version().join("maps"))?;
    state::check_shapes(layout)?;
    let set_retval = u32::from(set_retval);
    let paths: Vec<(&str, PathBuf)> = PINNED
        .iter()
        .map(|name| (*name, layout.map(name)))
        .collect();
    let mut loader = EbpfLoader::new();
    loader.override_global("SET_RETVAL", &set_retval, true);
    for (name, offset) in &offsets {
        loader.override_global(name, offset, true);
    }
    for (name, path) in &paths {
        loader.map_pin_path(name, path.as_path());
    }
    let mut ebpf = loader.load(OBJECT).map_err(|error| KernelError::Load {
        program: "object".to_owned(),
        cause: error.into(),
    })?;
    load_programs(&mut ebpf)?;
    Ok(ebpf)
}

fn load_programs(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    let btf = aya::Btf::from_sys_fs().map_err(|error| KernelError::Load {
        program: "object".to_owned(),
        cause: error.into(),
    })?;
    for (name, program) in ebpf.programs_mut() {
        let result = match program {
            Program::CgroupSock(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            Program::CgroupSkb(program) => program.load(),
            Program::SockOps(program) => program.load(),
            Program::BtfTracePoint(program) => {
                let tracepoint = TRACEPOINTS.iter().find(|(known, _)| *known == name);
                program.load(tracepoint.map_or("", |(_, tracepoint)| tracepoint), &btf)
            }
            _ => Ok(()),
        };
        result.map_err(|error| KernelError::Load {
            program: name.to_owned(),
            cause: error.into(),
        })?;
    }
    Ok(())
}
