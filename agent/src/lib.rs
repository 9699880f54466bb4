//! Exeat: binds managed processes to a policy and records what leaves them.
//!
//! The modules stand in the order in which a byte meets them; `flow` is the whole path on one page.

pub mod telemetry;
pub mod config;
pub mod audit;
pub mod decode;
pub mod refuse;
pub mod resolve;
pub mod control;
pub mod launch;
pub mod supervisor;
pub mod cli;
