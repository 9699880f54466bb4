//! The bundle of certificates that servers are given: the system's roots and Exeat's.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::launch::stage::Trust;

/// Where systems keep their bundle: Debian, Fedora, SUSE, Alpine and older ones.
const SYSTEM: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/var/lib/ca-certificates/ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Writes `RUN_DIR/trust/ca-bundle.pem`, and says which files of the system it covers.
pub(super) fn write(run_dir: &Path, authority: &str) -> io::Result<Trust> {
    let directory = run_dir.join("trust");
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&directory)?;
    let mut covers: Vec<PathBuf> = Vec::new();
    for path in SYSTEM {
        // Several names of one file are covered once.
        if let Ok(path) = fs::canonicalize(path)
            && !covers.contains(&path)
        {
            covers.push(path);
        }
    }
    let mut text = if let Some(path) = covers.first() {
        fs::read_to_string(path)?
    } else {
        tracing::warn!("no bundle of root certificates was found on this system");
        String::new()
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(authority);
    let bundle = directory.join("ca-bundle.pem");
    let draft = directory.join("ca-bundle.pem.new");
    match fs::remove_file(&draft) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&draft)?;
    file.write_all(text.as_bytes())?;
    drop(file);
    fs::rename(&draft, &bundle)?;
    Ok(Trust { bundle, covers })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_ends_with_the_authority_and_can_be_written_again() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "one\n").unwrap();
        let trust = write(directory.path(), "two\n").unwrap();
        let text = fs::read_to_string(&trust.bundle).unwrap();
        assert!(text.ends_with("two\n") && !text.contains("one\n"));
        assert!(trust.covers.iter().all(|path| path.is_file()));
    }
}
