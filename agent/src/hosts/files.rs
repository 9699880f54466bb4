//! The configuration files of a user, and one that is opened.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::entry::{Entry, entries};
use super::formats::{FORMATS, Format, fits};
use super::homes::Account;
use super::place::{Place, PlaceFault, Seen, absolute, names};
use super::tree::{Syntax, TreeFault};

/// A configuration file and the servers in it.
pub struct Listed {
    /// Where, links resolved.
    pub place: Place,
    /// Whose configuration it is.
    pub format: &'static Format,
    /// What it is written in.
    pub syntax: Syntax,
    /// The file as it was read.
    pub seen: Seen,
    /// The servers.
    pub entries: Vec<Entry>,
}

impl fmt::Debug for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listed")
            .field("path", &self.place.path)
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    /// It cannot be had.
    #[error(transparent)]
    Place(#[from] PlaceFault),
    /// It cannot be read.
    #[error("read `{path}`")]
    Tree {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: TreeFault,
    },
    /// There is no working directory.
    #[error("find the working directory")]
    Directory(#[source] io::Error),
}

/// Opens the file at `path` on behalf of `owner`; which host's it is, its path says.
pub fn open(path: &Path, owner: u32) -> Result<Listed, FileFault> {
    let path = absolute(path).map_err(FileFault::Directory)?;
    let format = Format::of(&path);
    let place = Place::find(&path, owner)?;
    let seen = place.read()?;
    let syntax = Syntax::of(&path);
    let root = syntax.parse(&seen.text).map_err(|cause| FileFault::Tree {
        path: place.path.clone(),
        cause,
    })?;
    let entries = entries(format, &seen.text, &root);
    Ok(Listed {
        place,
        format,
        syntax,
        seen,
        entries,
    })
}

/// Every file that a known host keeps in a user's home, and in the project at `project`, and that
/// may exist. Nothing in them is read.
pub fn configured(account: &Account, project: Option<&Path>) -> Vec<PathBuf> {
    let mut found = in_home(&account.home);
    found.extend(project.map(in_project).unwrap_or_default());
    // A home may be the project.
    let mut seen = std::collections::HashSet::new();
    found.retain(|path| seen.insert(path.clone()));
    found
}

/// The projects that a host's file remembers by their directories: the keys of its `projects`.
pub fn projects(listed: &Listed) -> Vec<PathBuf> {
    // It was parsed a moment ago, to list its servers.
    let Ok(root) = listed.syntax.parse(&listed.seen.text) else {
        return Vec::new();
    };
    let named = root.get("projects").into_iter();
    let named = named.flat_map(|member| member.node.members());
    named
        .map(|member| PathBuf::from(&member.key))
        .filter(|path| path.is_absolute())
        .collect()
}

/// Those in a user's home.
pub fn in_home(home: &Path) -> Vec<PathBuf> {
    kept(home, |format| format.home)
}

/// Those in a project's directory.
pub fn in_project(project: &Path) -> Vec<PathBuf> {
    kept(project, |format| format.project)
}

fn kept(base: &Path, files: impl Fn(&Format) -> &'static [&'static str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for format in FORMATS {
        for file in files(format) {
            expand(base.to_owned(), file, &mut found);
        }
    }
    found
}

/// Whether nothing is there for sure.
fn is_absent(path: &Path) -> bool {
    let absent = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
    path.symlink_metadata()
        .is_err_and(|error| absent.contains(&error.kind()))
}

fn expand(base: PathBuf, pattern: &str, out: &mut Vec<PathBuf>) {
    let (first, rest) = match pattern.split_once('/') {
        Some((first, rest)) => (first, Some(rest)),
        None => (pattern, None),
    };
    let parts: Vec<OsString> = if first.starts_with('*') {
        let mut listed = names(&base);
        listed.retain(|name| name.to_str().is_some_and(|name| fits(first, name)));
        listed.sort();
        listed
    } else {
        vec![first.into()]
    };
    for part in parts {
        let path = base.join(part);
        match rest {
            Some(rest) => expand(path, rest, out),
            None if is_absent(&path) => {}
            None => out.push(path),
        }
    }
}
