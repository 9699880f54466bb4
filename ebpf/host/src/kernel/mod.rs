//! The supervisor's side.

use crate::{EventStream, GateMap, KernelError, Layout};
use std::os::fd::OwnedFd;
use std::path::Path;

/// What the programs must know of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Port of the gate's TCP listeners on 127.0.0.1 and `::1`.
    pub proxy_port: u16,
    /// Port of the gate's UDP listeners on 127.0.0.1 and `::1`.
    pub dns_port: u16,
}

/// The loaded programs. Dropping it leaves pins, and so enforcement, in place.
#[derive(Debug)]
pub struct Kernel {}

/// Messages of the programs themselves.
#[derive(Debug)]
pub struct Logs {}

impl Logs {
    /// Hands messages to `tracing` until the ring cannot be waited on. Safe to cancel.
    pub async fn relay(&mut self) -> Result<(), KernelError> {
        Ok(())
    }
}

impl Kernel {
    /// Loads the programs, adopts what an earlier daemon pinned, attaches and pins.
    pub fn start(_layout: &Layout, _settings: Settings) -> Result<Self, KernelError> {
        Ok(Self {})
    }

    /// An earlier daemon's pins were found and taken over.
    #[must_use]
    pub fn adopted(&self) -> bool {
        false
    }

    /// Makes a cgroup a workload. `workload` is not 0 and was never used before.
    pub fn manage(&mut self, _cgroup: &Path, _workload: u32) -> Result<(), KernelError> {
        Ok(())
    }

    /// Ends management of a cgroup and closes everything that was opened for its workload.
    pub fn unmanage(&mut self, _cgroup: &Path) -> Result<(), KernelError> {
        Ok(())
    }

    /// All managed cgroups: (cgroup id, workload).
    pub fn managed(&self) -> Result<Vec<(u64, u32)>, KernelError> {
        Ok(Vec::new())
    }

    /// Replaces the watched files, as (`st_dev`, `st_ino`).
    pub fn watch_executables(&mut self, _files: &[(u64, u64)]) -> Result<(), KernelError> {
        Ok(())
    }

    /// What the gate gets.
    pub fn gate_descriptors(&self) -> Result<Vec<(GateMap, OwnedFd)>, KernelError> {
        Ok(Vec::new())
    }

    /// The supervisor's ring: process events. One reader at a time.
    pub fn process_events(&mut self) -> Result<EventStream, KernelError> {
        Ok(EventStream {})
    }

    /// Records that the supervisor's ring had no room for, since the maps were made.
    pub fn lost(&self) -> Result<u64, KernelError> {
        Ok(0)
    }

    /// The programs' own messages. Once per `Kernel`.
    pub fn logs(&mut self) -> Result<Logs, KernelError> {
        Ok(Logs {})
    }

    /// Detaches and unpins everything under a layout; no error if there is nothing.
    pub fn release(_layout: &Layout) -> Result<(), KernelError> {
        Ok(())
    }
}
