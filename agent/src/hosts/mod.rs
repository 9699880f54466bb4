//! MCP hosts on this machine: what their configuration files say, and how such a file is changed.

mod entry;
mod files;
mod formats;
mod homes;
mod import;
mod package;
mod place;
mod readable;
mod register;
mod rewrite;
mod started;
#[cfg(test)]
mod tests;
mod tree;

pub use entry::{Entry, How, Stdio};
pub use files::{FileFault, Listed, configured, in_home, in_project, open, projects};
pub use formats::{Children, FORMATS, Format};
pub use homes::{Account, HomeFault, accounts, invoking, named, numbered};
pub use import::{UndoFault, plan, undo, write};
pub use package::{Package, REGISTRIES};
pub use place::{MAX_FILE, Place, PlaceFault, Seen};
pub use readable::{Readable, Stamp};
pub use register::{Matched, Proposal, Register, document, is_found, masked_arguments, masked_url};
pub use rewrite::{Change, RewriteFault, Rewritten};
pub use started::{Extent, Ran, Started, started};
pub use tree::{Syntax, TreeFault};
