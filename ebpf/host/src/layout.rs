//! Where the daemon keeps its pins and cgroups, and that it alone does.

use crate::{KernelError, Missing};
use exeat_ebpf_abi::LAYOUT_VERSION;
use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Where bpf filesystems belong, by convention (and by systemd).
const BPFFS: &str = "/sys/fs/bpf";

/// The directories that one daemon owns. Two daemons with different layouts do not disturb each
/// other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Directory of the pins, on a bpf filesystem; `/sys/fs/bpf/exeat`.
    pub bpffs: PathBuf,
    /// The cgroup that connect and sendmsg programs attach to: the cgroup2 mount point.
    pub cgroup_root: PathBuf,
    /// Parent of the workloads' cgroups; `<root>/exeat/w`.
    pub managed: PathBuf,
    /// The gate's cgroup; `<root>/exeat/gate`. The gate's TCP listeners must be created by a
    /// process inside it.
    pub gate: PathBuf,
}

impl Layout {
    /// Pins of this version.
    pub(crate) fn version(&self) -> PathBuf {
        self.bpffs.join(format!("v{LAYOUT_VERSION}"))
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.version().join("maps").join(name)
    }

    pub(crate) fn links(&self) -> PathBuf {
        self.version().join("links")
    }
}

/// Creates a directory that nobody else may enter; no error if it exists.
pub(crate) fn make_directory(path: &Path) -> Result<(), KernelError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|cause| KernelError::path("create the directory", path, cause))
}

/// Creates a cgroup; no error if it exists.
pub(crate) fn make_cgroup(path: &Path) -> Result<(), KernelError> {
    fs::create_dir_all(path).map_err(|cause| KernelError::path("create the cgroup", path, cause))
}

/// Sees to it that `directory` lies on a bpf filesystem: where nothing is mounted at the usual
/// place yet, mounts one there, as systemd would.
pub(crate) fn ensure_bpffs(directory: &Path) -> Result<(), KernelError> {
    if on_bpffs(directory)? {
        return Ok(());
    }
    if !directory.starts_with(BPFFS) {
        return Err(Missing(format!(
            "`{}` is not on a bpf filesystem: choose a directory under {BPFFS}",
            directory.display()
        ))
        .into());
    }
    // Two daemons that start at once must not mount one over the other's.
    let place = Path::new(BPFFS);
    let handle = File::open(place).map_err(|cause| KernelError::path("open", place, cause))?;
    lock(&handle, libc::LOCK_EX).map_err(|cause| KernelError::path("lock", place, cause))?;
    if on_bpffs(directory)? {
        return Ok(());
    }
    mount_bpffs(place).map_err(|cause| {
        Missing(format!(
            "no bpf filesystem is mounted and mounting one failed ({cause}): run `mount -t bpf bpf {BPFFS}`"
        ))
        .into()
    })
}

fn mount_bpffs(place: &Path) -> io::Result<()> {
    let target = c_path(place)?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: all four strings are terminated and outlive the call.
    let result = unsafe {
        libc::mount(
            c"bpf".as_ptr(),
            target.as_ptr(),
            c"bpf".as_ptr(),
            flags,
            c"mode=0700".as_ptr().cast(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Whether the nearest existing ancestor is on a bpf filesystem.
fn on_bpffs(directory: &Path) -> Result<bool, KernelError> {
    for ancestor in directory.ancestors() {
        match file_system(ancestor) {
            Ok(kind) => return Ok(kind == libc::BPF_FS_MAGIC),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(KernelError::path("examine", ancestor, cause)),
        }
    }
    Ok(false)
}

/// The magic number of the filesystem that a path is on.
fn file_system(path: &Path) -> io::Result<libc::__fsword_t> {
    let path = c_path(path)?;
    let mut status = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the path is terminated, and `status` is writable and of the type that is filled.
    let result = unsafe { libc::statfs(path.as_ptr(), status.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded; and the type is valid as zeroes anyway.
    Ok(unsafe { status.assume_init() }.f_type)
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

fn lock(file: &File, operation: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open; the call touches no memory.
    let result = unsafe { libc::flock(file.as_raw_fd(), operation) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The right to change the pins; held while the value lives, and at most until the process ends.
#[derive(Debug)]
pub(crate) struct Claim {
    _directory: File,
}

impl Claim {
    /// Claims the pins of a layout, whose directory is created if needed.
    pub(crate) fn take(layout: &Layout) -> Result<Self, KernelError> {
        make_directory(&layout.bpffs)?;
        let path = &layout.bpffs;
        let directory = File::open(path).map_err(|cause| KernelError::path("open", path, cause))?;
        match lock(&directory, libc::LOCK_EX | libc::LOCK_NB) {
            Ok(()) => Ok(Self {
                _directory: directory,
            }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let holder = holder(&directory).map_or_else(
                    || "another process".to_owned(),
                    |process| format!("process {process}"),
                );
                Err(KernelError::Held {
                    path: path.clone(),
                    holder,
                })
            }
            Err(cause) => Err(KernelError::path("lock", path, cause)),
        }
    }
}

/// Who holds the lock, as far as /proc/locks tells.
fn holder(directory: &File) -> Option<u32> {
    let status = directory.metadata().ok()?;
    let device = status.dev();
    let place = format!(
        "{:02x}:{:02x}:{}",
        libc::major(device),
        libc::minor(device),
        status.ino()
    );
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields.as_slice() {
            [_, "FLOCK", _, "WRITE", process, at, ..] if *at == place => process.parse().ok(),
            _ => None,
        }
    })
}
