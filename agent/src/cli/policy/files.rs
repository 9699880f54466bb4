//! The policy's files: one, or those of a directory in name order.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use exeat_policy::{PolicySet, Source};

use crate::cli::error::{CliError, Kind};

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 16 * 1024 * 1024;
/// Most files of one directory.
const MAX_FILES: usize = 4096;

/// Reads every policy file that `paths` name.
pub(in crate::cli) fn read(paths: &[PathBuf]) -> Result<Vec<Source>, CliError> {
    let mut sources = Vec::new();
    for path in paths {
        for file in expand(path, &|file| is_policy(file))? {
            sources.push(source(&file)?);
        }
    }
    Ok(sources)
}

/// Reads every file of policy, and every file of cases, that `paths` name.
pub(super) fn read_with_cases(paths: &[PathBuf]) -> Result<(Vec<Source>, Vec<Source>), CliError> {
    let (mut policy, mut cases) = (Vec::new(), Vec::new());
    for path in paths {
        for file in expand(path, &|file| is_policy(file) || is_cases(file))? {
            let into = if is_cases(&file) {
                &mut cases
            } else {
                &mut policy
            };
            into.push(source(&file)?);
        }
    }
    Ok((policy, cases))
}

/// The policy that `path` names, for what needs one without faults.
pub(in crate::cli) fn compile(path: &Path) -> Result<PolicySet, CliError> {
    compiled(path, &read(&[path.to_owned()])?)
}

/// The same, of what was read of it.
pub(super) fn compiled(path: &Path, sources: &[Source]) -> Result<PolicySet, CliError> {
    exeat_policy::compile(sources).map_err(|faults| {
        let first = faults.first().map(ToString::to_string).unwrap_or_default();
        let message = format!(
            "load `{}`: {} faults, the first: {first}",
            path.display(),
            faults.len()
        );
        CliError::new(Kind::Usage, message).with_next(format_args!(
            "see all of them with `exeat policy check {}`",
            path.display()
        ))
    })
}

/// Reads one file.
pub(super) fn source(file: &Path) -> Result<Source, CliError> {
    let text = text(file)
        .map_err(|error| CliError::io(format_args!("read `{}`", file.display()), &error))?;
    Ok(Source {
        name: file.display().to_string(),
        text,
    })
}

/// A file is itself; a directory is those of its files that are `wanted`.
fn expand(path: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<Vec<PathBuf>, CliError> {
    let failed = |error: &io::Error| CliError::io(format_args!("read `{}`", path.display()), error);
    if !fs::metadata(path).map_err(|error| failed(&error))?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| failed(&error))? {
        let file = entry.map_err(|error| failed(&error))?.path();
        if wanted(&file) {
            files.push(file);
        }
        if files.len() > MAX_FILES {
            let message = format!("read `{}`: more than {MAX_FILES} files", path.display());
            return Err(CliError::new(Kind::Usage, message));
        }
    }
    if files.is_empty() {
        let message = format!("read `{}`: there is no *.yaml file in it", path.display());
        return Err(CliError::new(Kind::Usage, message));
    }
    files.sort();
    Ok(files)
}

fn is_policy(path: &Path) -> bool {
    is_yaml(path) && !is_cases(path)
}

fn is_cases(path: &Path) -> bool {
    let stem = path.file_stem().map(Path::new);
    is_yaml(path) && stem.and_then(Path::extension) == Some(OsStr::new("test"))
}

fn is_yaml(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    path.extension() == Some(OsStr::new("yaml")) && !hidden
}

fn text(path: &Path) -> io::Result<String> {
    let file = fs::File::open(path)?;
    let mut text = String::new();
    let read = file
        .take(MAX_FILE.saturating_add(1))
        .read_to_string(&mut text)?;
    if u64::try_from(read).is_ok_and(|read| read <= MAX_FILE) {
        return Ok(text);
    }
    Err(io::Error::new(
        io::ErrorKind::FileTooLarge,
        format!("more than {MAX_FILE} bytes"),
    ))
}
