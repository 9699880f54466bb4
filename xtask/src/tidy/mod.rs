//! `cargo xtask tidy`: the rules of this repository that no compiler checks.

mod rules;
#[cfg(test)]
mod tests;

use crate::shell;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::Path;

/// Directories that are not ours, or not sources.
const PASSED_OVER: [&str; 5] = [".git", "target", "node_modules", "__pycache__", "corpus"];

/// A file: its path below the root, with `/`, and its text.
#[derive(Debug)]
pub(crate) struct Source {
    path: String,
    text: String,
}

pub(crate) fn run() -> Result<()> {
    let sources = read(&shell::root()?)?;
    for long in rules::long(&sources) {
        shell::say(&format!("warning: {long}"));
    }
    let faults = rules::faults(&sources);
    if faults.is_empty() {
        return Ok(());
    }
    for fault in &faults {
        shell::say(fault);
    }
    bail!("{} faults", faults.len())
}

/// Every text file that is ours.
fn read(root: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    walk(root, root, &mut sources)?;
    sources.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(sources)
}

fn walk(root: &Path, directory: &Path, sources: &mut Vec<Source>) -> Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("list {}", directory.display()))?;
        let kind = entry.file_type().context("examine a file")?;
        let path = entry.path();
        if kind.is_dir() {
            if !PASSED_OVER.iter().any(|name| entry.file_name() == *name) {
                walk(root, &path, sources)?;
            }
        } else if let Ok(text) = fs::read_to_string(&path) {
            // What is no text has no rules.
            let below = path.strip_prefix(root).context("name a file")?;
            sources.push(Source {
                path: below.display().to_string(),
                text,
            });
        }
    }
    Ok(())
}
