//! Exeat: binds managed processes to a policy and records what leaves them.
//!
//! The modules stand in the order in which a byte meets them; `flow` is the whole path on one page.

pub mod audit;
pub mod channel;
pub mod cli;
pub mod config;
pub mod control;
pub mod decode;
pub mod launch;
pub mod resolve;
pub mod supervisor;
pub mod telemetry;
