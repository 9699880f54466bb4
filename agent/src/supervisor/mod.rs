//! The privileged composition root: kernel, cgroups, keys, workloads, and the gate's life.

mod accounts;
pub mod ca;
pub mod cgroups;
mod gate_life;
mod matching;
mod notify;
mod policy_files;
mod processes;
mod signing;
mod trust;
mod workloads;
