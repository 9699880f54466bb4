//! Exeat: binds managed processes to a policy and records what leaves them.
//!
//! The path of a byte: `intake`, `identify`, `tls`, `decode`, `decide`, then `forward` or `refuse`, with `audit`
//! from the first to the last; `flow` is the whole path on one page. `supervisor` and `gate` put the two
//! processes together, `launch` starts workloads, `control` and `cli` are how people talk to them.

#![forbid(unsafe_code)]

pub mod audit;
pub mod bounded;
pub mod channel;
pub mod cli;
pub mod config;
pub mod control;
pub mod decide;
pub mod decode;
pub mod discover;
pub mod flow;
pub mod forward;
pub mod gate;
pub mod hosts;
pub mod http2;
pub mod identify;
pub mod intake;
pub mod launch;
pub mod refuse;
pub mod resolve;
pub mod secrets;
pub mod supervisor;
pub mod telemetry;
pub mod tls;
