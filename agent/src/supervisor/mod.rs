//! The privileged composition root: kernel, cgroups, keys, workloads, and the gate's life.

pub mod ca;
pub mod cgroups;
