//! What a daemon of these tests pins, removed however its test ends.

use std::fs;
use std::path::PathBuf;

/// A daemon's directory of pins. Pinned programs outlive a daemon that a failed test did not stop, and stop what they
/// watch for ever: whatever file gets that inode next.
pub(super) struct Pins(pub(super) PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        // Nothing is left of a daemon that was stopped in order.
        let _gone = fs::remove_dir_all(&self.0);
    }
}
