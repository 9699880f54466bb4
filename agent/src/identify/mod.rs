//! Who calls, and whom: workloads, users, peers, and what the kernel was told about them.

pub mod account;
pub mod agree;
pub mod bindings;
pub mod calls;
pub mod certificate;
pub mod fetching;
pub mod live;
pub mod peer;
pub mod room;
pub mod share;
pub mod tasks;
pub mod together;
pub mod token;
pub mod told;
pub mod users;
pub mod workloads;
