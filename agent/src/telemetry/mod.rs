//! What the daemon knows of itself: the clocks, and its own diagnostics.
//!
//! Diagnostics are plumbing; decisions and what was done go to [`crate::audit`].

pub mod clock;
pub mod logging;
