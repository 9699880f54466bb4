//! When a server or tool that fails is left alone for a while.

/// The share of failing calls at which a server or a tool is called no more, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    /// The share, in percent: 1 to 100.
    pub error_rate: u8,
    /// Over how long calls are looked at, in milliseconds.
    pub window_ms: u64,
    /// How many calls there must have been in that time.
    pub min_calls: u32,
    /// How long calls are refused before one is let through again, in milliseconds.
    pub open_for_ms: u64,
}
