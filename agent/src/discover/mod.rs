//! What MCP is on this machine: servers and hosts, and whether the register has them.
//!
//! Each source adds what it knows to what was found before: configuration files, processes,
//! listening sockets, the audit log. Nothing is changed; only [`ask_all`] sends anything.

mod asking;
mod found;
mod probe;
mod processes;
mod sockets;
mod survey;
#[cfg(test)]
mod tests;

pub use asking::{Heard, ask_all};
pub use found::{Found, Kind, Standing};
pub use probe::Spoken;
pub use processes::{Running, running};
pub use sockets::{Listening, listening};
pub use survey::{Inventory, Survey};
