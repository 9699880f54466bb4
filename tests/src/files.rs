//! Files of a lab whose mode matters: secrets of root's, programs that servers read.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::Mode;

use crate::lab::Lab;

impl Lab {
    /// Puts a file into the lab's directory, whole and with this mode, in the place of any that is there.
    pub fn put(&self, name: &str, text: &str, mode: u32) -> Result<PathBuf> {
        let path = self.directory().join(name);
        let draft = self.directory().join(format!("{name}.draft"));
        fs::write(&draft, text).with_context(|| format!("write {}", draft.display()))?;
        chmod(&draft, mode)?;
        fs::rename(&draft, &path).with_context(|| format!("replace {}", path.display()))?;
        Ok(path)
    }

    /// Puts a secret there, as a line of a file that is root's alone.
    pub fn keep(&self, name: &str, secret: &str) -> Result<PathBuf> {
        self.put(name, &format!("{secret}\n"), 0o600)
    }
}

/// Gives a file this mode, whatever the umask is.
pub fn chmod(path: &Path, mode: u32) -> Result<()> {
    let mode = Mode::from_raw_mode(mode);
    rustix::fs::chmod(path, mode).with_context(|| format!("change the mode of {}", path.display()))
}
