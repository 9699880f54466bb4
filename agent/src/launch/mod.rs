//! Children of the supervisor: how a process gets from root in no particular place to an
//! unprivileged program in its cgroup.

pub mod client;
pub mod container;
pub mod environment;
pub mod stage;
mod streams;
