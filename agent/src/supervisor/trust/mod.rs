//! The certificates that servers are given, the system's roots and Exeat's: as a bundle of PEM, and as a store for Java.

mod java;

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::launch::stage::{Cover, Trust};

/// Where systems keep their bundle: Debian, Fedora, SUSE, Alpine and older ones.
const SYSTEM: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/var/lib/ca-certificates/ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Where systems keep Java's store: Debian, Fedora, SUSE.
const JAVA: [&str; 4] = [
    "/etc/ssl/certs/java/cacerts",
    "/etc/pki/ca-trust/extracted/java/cacerts",
    "/etc/pki/java/cacerts",
    "/var/lib/ca-certificates/java-cacerts",
];

/// Writes `RUN_DIR/trust/ca-bundle.pem` and `java.jks`, and says which files of the system they cover.
pub(super) fn write(run_dir: &Path, authority: &str) -> io::Result<Trust> {
    let directory = run_dir.join("trust");
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&directory)?;
    let bundles = existing(&SYSTEM);
    let mut text = if let Some(path) = bundles.first() {
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
    replace(&bundle, text.as_bytes())?;
    let java = directory.join("java.jks");
    replace(&java, &java::store(&certificates(&text))?)?;
    let covers = |laid: &Path, over: Vec<PathBuf>| -> Vec<Cover> {
        let cover = |over| Cover {
            laid: laid.to_owned(),
            over,
        };
        over.into_iter().map(cover).collect()
    };
    let mut covered = covers(&bundle, bundles);
    covered.extend(covers(&java, existing(&JAVA)));
    Ok(Trust {
        bundle,
        java,
        covers: covered,
    })
}

/// Those of `paths` that are there; several names of one file once.
fn existing(paths: &[&str]) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for path in paths {
        if let Ok(path) = fs::canonicalize(path)
            && !found.contains(&path)
        {
            found.push(path);
        }
    }
    found
}

/// What can be read of a bundle. What cannot is a root less for Java, and no reason not to start.
fn certificates(bundle: &str) -> Vec<CertificateDer<'static>> {
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        match certificate {
            Ok(certificate) => certificates.push(certificate),
            Err(error) => {
                tracing::warn!(%error, "a root certificate was left out of Java's store");
            }
        }
    }
    certificates
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    match fs::remove_file(&draft) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&draft)?;
    file.write_all(content)?;
    drop(file);
    fs::rename(&draft, path)
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
        assert!(trust.covers.iter().all(|cover| cover.over.is_file()));
    }

    #[test]
    fn javas_store_has_what_the_bundle_has() {
        let directory = tempfile::tempdir().unwrap();
        let key = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let trust = write(directory.path(), &key.cert.pem()).unwrap();
        let bundle = fs::read_to_string(&trust.bundle).unwrap();
        let store = fs::read(&trust.java).unwrap();
        let der = key.cert.der();
        assert!(store.windows(der.len()).any(|part| part == &der[..]));
        let count = u32::from_be_bytes(store[8..12].try_into().unwrap());
        let wanted = bundle.matches("BEGIN CERTIFICATE").count();
        assert_eq!(usize::try_from(count).unwrap(), wanted);
    }
}
