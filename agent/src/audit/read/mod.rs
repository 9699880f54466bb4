//! Reading the log back.

/// No line of the log is longer, its line feed included.
pub(super) const MAX_LINE: u64 = 512 * 1_024;
