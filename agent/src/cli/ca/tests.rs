//! Where certificates go, and how they get there.

use tempfile::TempDir;

use super::*;

#[test]
fn the_store_is_the_one_that_is_there() {
    let root = TempDir::new().unwrap();
    let error = store(root.path()).unwrap_err();
    assert_eq!(error.kind, Kind::Usage);
    for expected in STORES.iter().rev() {
        let directory = root.path().join(expected.directory.trim_start_matches('/'));
        fs::create_dir_all(directory).unwrap();
        assert_eq!(store(root.path()).unwrap(), *expected);
    }
}

#[test]
fn what_will_be_done_is_said_with_the_fingerprint() {
    let mut plan = Plan {
        change: "write",
        file: PathBuf::from("/usr/local/share/ca-certificates/exeat.crt"),
        run: "update-ca-certificates".to_owned(),
        fingerprint: Some("ab12".to_owned()),
        done: false,
    };
    insta::assert_snapshot!(plan.sentence(), @"writes the certificate with SHA-256 ab12 to `/usr/local/share/ca-certificates/exeat.crt`, then runs `update-ca-certificates`: every program of this machine that reads the system's store will trust it");
    plan.fingerprint = None;
    insta::assert_snapshot!(plan.sentence(), @"removes `/usr/local/share/ca-certificates/exeat.crt`, then runs `update-ca-certificates`");
}

#[test]
fn a_certificate_is_replaced_whole_and_exported_only_to_a_new_file() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("exeat.crt");
    for text in ["one", "two"] {
        replace(&path, text).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    assert_eq!(
        write_new(&path, "three").unwrap_err().kind(),
        io::ErrorKind::AlreadyExists
    );
    remove(&path).unwrap();
    remove(&path).unwrap();
}
