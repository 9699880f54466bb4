//! MCP hosts on this machine: what their configuration files say, and how such a file is changed.

mod entry;
mod files;
mod formats;
mod homes;
mod package;
mod place;
mod register;
mod rewrite;
#[cfg(test)]
mod tests;
mod tree;

pub use entry::{Entry, How, Stdio, entries};
pub use files::{FileFault, Listed, configured, open};
pub use formats::{Children, FORMATS, Format};
pub use homes::{Account, HomeFault, accounts, invoking, named};
pub use package::{Package, REGISTRIES};
pub use place::{MAX_FILE, Place, PlaceFault, Seen};
pub use register::{Proposal, Register, document, masked_arguments, masked_url};
pub use rewrite::{Change, RewriteFault, Rewritten, rewrite};
pub use tree::{Syntax, TreeFault, line_of};
