//! Safe access to the kernel programs.
//!
//! [`probe`] says whether this machine can carry them. [`Kernel`] is the supervisor's side: it
//! loads, attaches and pins, and says which cgroups are workloads. [`Gate`] is the side of the
//! unprivileged process that decides: it works with inherited descriptors alone.
//!
//! Without a [`Kernel`] in sight the pins keep enforcing: managed workloads reach nothing that the
//! gate does not let through.

mod bpf;
mod btf;
mod cgroup;
mod error;
mod event;
mod file;
mod gate;
mod kernel;
mod layout;
mod logs;
mod probe;
mod rights;
mod socket_diag;

pub use error::KernelError;
pub use event::{Event, EventKind, EventStream, Execution};
pub use exeat_ebpf_abi::{Address, File, Origin, kind};
pub use file::identify;
pub use gate::{Action, DnsSource, Gate, GateMap, Protocol};
pub use kernel::{Fill, Kernel, Settings, fill};
pub use layout::Layout;
pub use logs::Logs;
pub use probe::{Features, Missing, probe};
pub use rights::refuse_descriptors;
pub use socket_diag::{Waiting, destroy_connections, try_destroying};
