//! A host's file rewritten on the disk, with a backup beside it, and that undone.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::files::Listed;
use super::place::{Place, PlaceFault};
use super::register::Register;
use super::rewrite::{RewriteFault, Rewritten, rewrite};
use crate::channel::encode_hex;

/// Between a file's name and the digest in its backup's.
const BACKUP: &str = ".exeat-backup-";
/// Bytes of the digest in a backup's name.
const DIGEST: usize = 8;

/// Why a file's rewriting is not undone.
#[derive(Debug, thiserror::Error)]
pub enum UndoFault {
    /// The file or its backup cannot be had.
    #[error(transparent)]
    Place(#[from] PlaceFault),
    /// There is no backup.
    #[error("`{0}` has no backup of Exeat's beside it: there is nothing to undo")]
    Nothing(PathBuf),
    /// Undoing would lose what was written since.
    #[error(
        "`{path}` was changed after Exeat had rewritten it, and undoing would lose that; compare it with `{backup}` and change it by hand"
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// Its newest backup, by name.
        backup: PathBuf,
    },
}

/// What would be written over a file.
pub fn plan(
    listed: &Listed,
    exeat: &str,
    register: &mut Register<'_>,
) -> Result<Rewritten, RewriteFault> {
    rewrite(
        listed.format,
        listed.syntax,
        &listed.seen.text,
        exeat,
        |entry, stdio| register.name(&entry.name, stdio),
    )
}

/// Writes it, after a backup; returns the backup's path.
pub fn write(listed: &Listed, rewritten: &Rewritten) -> Result<PathBuf, PlaceFault> {
    let backup = beside(&listed.place, backup_name(&listed.place, &rewritten.text))?;
    backup.write(&listed.seen.text, &listed.seen)?;
    let written = listed.place.replace(&listed.seen, &rewritten.text);
    if written.is_err() {
        // A backup of what was not replaced would be taken for one of what was.
        backup.remove()?;
    }
    written.map(|()| backup.path)
}

/// Puts back what a file was before it was rewritten, unless it changed since; returns its path.
pub fn undo(path: &Path, owner: u32) -> Result<PathBuf, UndoFault> {
    let place = Place::find(path, owner)?;
    let now = place.read()?;
    let wanted = backup_name(&place, &now.text);
    let mut prefix = place.name().as_bytes().to_vec();
    prefix.extend_from_slice(BACKUP.as_bytes());
    let backups = place.siblings(&prefix)?;
    let Some(newest) = backups.last() else {
        return Err(UndoFault::Nothing(place.path));
    };
    if !backups.contains(&wanted) {
        let backup = place.path.with_file_name(newest);
        let path = place.path;
        return Err(UndoFault::Changed { path, backup });
    }
    let backup = beside(&place, wanted)?;
    let before = backup.read()?;
    place.replace(&now, &before.text)?;
    backup.remove()?;
    Ok(place.path)
}

/// The backup of what was replaced by `text`: its name says by what, so that a file which changed
/// since has none.
fn backup_name(place: &Place, text: &str) -> OsString {
    let digest = Sha256::digest(text.as_bytes());
    let digest = encode_hex(digest.get(..DIGEST).unwrap_or_default());
    let mut name = place.name().clone();
    name.push(format!("{BACKUP}{digest}"));
    name
}

fn beside(place: &Place, name: OsString) -> Result<Place, PlaceFault> {
    place.beside(name).map_err(|cause| PlaceFault::System {
        attempt: "open the directory of",
        path: place.path.clone(),
        cause,
    })
}
