//! The privileged composition root: kernel, cgroups, keys, workloads, and the gate's life.
//!
//! [`start`] says in which order it comes to be, [`core`] how what happens is handled, one thing after the other,
//! and [`occurrences`] what can happen. Each of the other files handles one kind of happening.

pub(crate) mod accounts;
mod approvals;
mod authorities;
mod beginning;
pub mod ca;
mod callers;
mod canary;
pub mod cgroups;
mod clients;
mod configurations;
mod containers;
mod core;
mod credentials;
mod error;
mod fetched;
mod gate;
mod gate_life;
mod guarding;
mod judging;
mod kept;
pub(crate) mod labelled;
mod lives;
pub(crate) mod matching;
mod notify;
mod occurrences;
mod placing;
mod policy_files;
pub(crate) mod processes;
mod recognising;
mod recording;
mod reload;
mod reviews;
pub(crate) mod runs;
mod serving;
mod settle;
mod severing;
mod signing;
mod start;
mod stopping;
mod streams;
#[cfg(test)]
mod tests;
mod trust;
mod turns;
pub(crate) mod unregistered;
mod workloads;

pub use accounts::AccountError;
pub use error::DaemonError;
pub use gate_life::GateError;
pub use policy_files::PolicyError;
pub use start::{Options, Programs};

/// Runs the daemon until it is told to stop, or cannot go on.
///
/// # Errors
/// Nothing was put into force where the error comes from starting; the exit status is 2 then.
pub async fn daemon(options: Options, programs: Programs) -> Result<(), DaemonError> {
    start::prepare(options, programs).await?.run().await
}
