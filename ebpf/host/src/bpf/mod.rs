//! The parts of bpf(2) that aya lacks: links by number, replacing a link's program, pins, and maps
//! by descriptor.

mod table;

pub(crate) use table::{Table, per_cpu_sum};

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Commands of bpf(2); include/uapi/linux/bpf.h, `enum bpf_cmd`.
mod command {
    pub(super) const MAP_LOOKUP: libc::c_int = 1;
    pub(super) const MAP_UPDATE: libc::c_int = 2;
    pub(super) const MAP_DELETE: libc::c_int = 3;
    pub(super) const MAP_NEXT_KEY: libc::c_int = 4;
    pub(super) const PROG_LOAD: libc::c_int = 5;
    pub(super) const OBJ_PIN: libc::c_int = 6;
    pub(super) const OBJ_GET: libc::c_int = 7;
    pub(super) const INFO_BY_FD: libc::c_int = 15;
    pub(super) const RAW_TRACEPOINT_OPEN: libc::c_int = 17;
    pub(super) const MAP_TAKE: libc::c_int = 21;
    pub(super) const LINK_CREATE: libc::c_int = 28;
    pub(super) const LINK_UPDATE: libc::c_int = 29;
}

/// Where a program attaches to a cgroup; include/uapi/linux/bpf.h, `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Hook {
    Ingress = 0,
    Egress = 1,
    SockCreate = 2,
    SockOps = 3,
    Connect4 = 10,
    Connect6 = 11,
    Sendmsg4 = 14,
    Sendmsg6 = 15,
    Recvmsg4 = 19,
    Recvmsg6 = 20,
    Getpeername4 = 29,
    Getpeername6 = 30,
}

/// `union bpf_attr` for maps' elements.
#[repr(C)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `union bpf_attr` for `OBJ_PIN` and `OBJ_GET`.
#[repr(C)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

/// `union bpf_attr` for `LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    hook: u32,
    flags: u32,
}

/// `union bpf_attr` for `LINK_UPDATE`.
#[repr(C)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old: u32,
}

/// `union bpf_attr` for `RAW_TRACEPOINT_OPEN`.
#[repr(C)]
struct RawTracepoint {
    name: u64,
    program: u32,
    pad: u32,
}

/// `union bpf_attr` for `OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct InfoByFd {
    fd: u32,
    length: u32,
    info: u64,
}

/// The head of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MapInfo {
    kind: u32,
    id: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    flags: u32,
}

/// The part of `union bpf_attr` for `PROG_LOAD` that a probe needs.
#[repr(C)]
struct ProgramLoad {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_hook: u32,
}

fn bpf<T>(command: libc::c_int, attribute: &mut T) -> io::Result<RawFd> {
    let pointer = std::ptr::from_mut(attribute);
    // SAFETY: `pointer` covers `size_of::<T>()` writable bytes laid out as the command demands;
    // every address inside points to memory that the caller keeps alive over the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, pointer, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}

fn descriptor<T>(command: libc::c_int, attribute: &mut T) -> io::Result<OwnedFd> {
    let raw = bpf(command, attribute)?;
    // SAFETY: the command returned a new descriptor that nobody else knows of.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Attaches a program to a cgroup, beside whatever else is attached there.
pub(crate) fn attach(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    hook: Hook,
) -> io::Result<OwnedFd> {
    let mut attribute = LinkCreate {
        program: number(program),
        target: number(cgroup),
        hook: hook as u32,
        flags: 0,
    };
    descriptor(command::LINK_CREATE, &mut attribute)
}

/// Attaches a typed tracepoint program.
pub(crate) fn attach_tracepoint(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attribute = RawTracepoint {
        name: 0,
        program: number(program),
        pad: 0,
    };
    descriptor(command::RAW_TRACEPOINT_OPEN, &mut attribute)
}

/// Replaces a link's program; every packet and call sees the old one or the new one.
pub(crate) fn update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attribute = LinkUpdate {
        link: number(link),
        program: number(program),
        flags: 0,
        old: 0,
    };
    bpf(command::LINK_UPDATE, &mut attribute).map(drop)
}

/// Gives an object a name on a bpf filesystem.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attribute = Object {
        path: address(path.as_ptr()),
        fd: number(object),
        flags: 0,
    };
    bpf(command::OBJ_PIN, &mut attribute).map(drop)
}

/// Opens a pinned object.
pub(crate) fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attribute = Object {
        path: address(path.as_ptr()),
        fd: 0,
        flags: 0,
    };
    descriptor(command::OBJ_GET, &mut attribute)
}

/// A map's shape.
pub(crate) fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut info = MapInfo::default();
    let mut attribute = InfoByFd {
        fd: number(map),
        length: u32::try_from(size_of::<MapInfo>()).map_err(io::Error::other)?,
        info: address(&raw mut info),
    };
    bpf(command::INFO_BY_FD, &mut attribute)?;
    Ok(info)
}

/// Whether connect programs may choose the error of a refusal: `bpf_set_retval` there (Linux 6.1).
pub(crate) fn has_set_retval() -> bool {
    const SOCK_ADDR: u32 = 18;
    // mov r1, -ECONNREFUSED; call bpf_set_retval; mov r0, 0; exit
    let program: [u64; 4] = [
        0xffff_ff91_0000_01b7,
        0x0000_00bb_0000_0085,
        0x0000_0000_0000_00b7,
        0x95,
    ];
    let mut attribute = ProgramLoad {
        kind: SOCK_ADDR,
        instruction_count: 4,
        instructions: address(program.as_ptr()),
        license: address(c"GPL".as_ptr()),
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: [0; 16],
        interface: 0,
        expected_hook: Hook::Connect4 as u32,
    };
    descriptor(command::PROG_LOAD, &mut attribute).is_ok()
}
