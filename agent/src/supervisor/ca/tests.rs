//! The authority: what it keeps, what it signs, what it refuses to open.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use jiff::civil::date;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::*;

const TODAY: Date = date(2026, 11, 21);
/// Noon of that day.
const NOON: u64 = 1_795_262_400;
const DAY: u64 = 86_400;

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

fn verify(authority: &Authority, leaf: Vec<u8>, name: &str, at: u64) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
    verifier
        .verify_server_cert(&leaf.into(), &[], &name, &[], at)
        .map(drop)
}

#[test]
fn a_leaf_verifies_for_its_name_and_days_alone() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::open(directory.path(), TODAY).unwrap();
    let names = [
        "api.example.com".to_owned(),
        "192.0.2.7".to_owned(),
        "2001:db8::7".to_owned(),
    ];
    let leaf = authority
        .sign(&names, &key().subject_public_key_info(), TODAY)
        .unwrap();
    for name in &names {
        verify(&authority, leaf.clone(), name, NOON).unwrap();
    }
    verify(&authority, leaf.clone(), "api.example.com", NOON + 6 * DAY).unwrap();
    verify(&authority, leaf.clone(), "api.example.com", NOON + 9 * DAY).unwrap_err();
    verify(&authority, leaf.clone(), "api.example.com", NOON - 3 * DAY).unwrap_err();
    verify(&authority, leaf.clone(), "www.example.com", NOON).unwrap_err();
    verify(&authority, leaf, "192.0.2.8", NOON).unwrap_err();
}

#[test]
fn the_authority_is_kept_and_its_key_is_private() {
    let directory = tempfile::tempdir().unwrap();
    let first = Authority::open(directory.path(), TODAY).unwrap();
    let again = Authority::open(directory.path(), TODAY).unwrap();
    assert_eq!(first.certificate(), again.certificate());
    let leaf = again
        .sign(
            &["a.example".into()],
            &key().subject_public_key_info(),
            TODAY,
        )
        .unwrap();
    verify(&first, leaf, "a.example", NOON).unwrap();

    let path = directory.path().join(KEY);
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o600);
    let text = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(matches!(
        Authority::open(directory.path(), TODAY),
        Err(CaError::KeyLost { .. })
    ));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o640)
        .open(&path)
        .unwrap();
    file.write_all(&text).unwrap();
    assert!(matches!(
        Authority::open(directory.path(), TODAY),
        Err(CaError::Exposed { mode: 0o640, .. })
    ));
}

#[test]
fn a_certificate_of_another_key_is_not_used() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Authority::open(one.path(), TODAY).unwrap();
    Authority::open(two.path(), TODAY).unwrap();
    fs::copy(two.path().join(CERTIFICATE), one.path().join(CERTIFICATE)).unwrap();
    assert!(matches!(
        Authority::open(one.path(), TODAY),
        Err(CaError::Mismatch(_))
    ));
}

#[test]
fn what_is_no_host_name_is_not_signed() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::open(directory.path(), TODAY).unwrap();
    let key = key().subject_public_key_info();
    let long = format!("{}.example", "a".repeat(64));
    let longer = ["abcdefgh"; 32].join(".");
    for name in [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "*.example.com",
        "*",
        "A.example",
        "a b",
        "a\0b",
        "a/b",
        "a@b",
        "https://a",
        "a:443",
        "127.1",
        "1.2.3",
        "2130706433",
        "0x7f.1",
        "a.0x7f",
        "0x",
        "127.0.0.1.",
        "[::1]",
        "fe80::1%eth0",
        "1.2.3.4/8",
        "-a.example",
        "a-.example",
        "ä.example",
        "a\u{3002}b",
        "a\r\nb",
        &long,
        &longer,
    ] {
        let signed = authority.sign(&[name.to_owned()], &key, TODAY);
        assert!(matches!(signed, Err(CaError::Name(_))), "{name:?}");
    }
    for name in [
        "localhost",
        "a.example",
        "xn--bcher-kva.example",
        "_a.b-c.example",
        "1a.e2e",
    ] {
        authority.sign(&[name.to_owned()], &key, TODAY).unwrap();
    }
    assert!(matches!(
        authority.sign(&[], &key, TODAY),
        Err(CaError::Names(0))
    ));
    let many = vec!["a.example".to_owned(); 9];
    assert!(matches!(
        authority.sign(&many, &key, TODAY),
        Err(CaError::Names(9))
    ));
}

#[test]
fn only_p256_keys_in_their_one_form_are_signed() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::open(directory.path(), TODAY).unwrap();
    let names = ["a.example".to_owned()];
    let good = key().subject_public_key_info();
    let mut long = good.clone();
    long.push(0);
    let mut compressed = good.clone();
    compressed[26] = 2;
    let other = KeyPair::generate_for(&rcgen::PKCS_ED25519)
        .unwrap()
        .subject_public_key_info();
    for key in [&[][..], &good[..90], &long, &compressed, &other] {
        assert!(matches!(
            authority.sign(&names, key, TODAY),
            Err(CaError::Key)
        ));
    }
}

#[test]
fn a_leaf_cannot_sign() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::open(directory.path(), TODAY).unwrap();
    let leaf_key = key();
    let names = ["a.example".to_owned()];
    let leaf = authority
        .sign(&names, &leaf_key.subject_public_key_info(), TODAY)
        .unwrap();
    let issuer = Issuer::from_ca_cert_der(&leaf.clone().into(), leaf_key).unwrap();
    let forged = leaf_params(&["b.example".into()], TODAY).unwrap();
    let forged = forged.signed_by(&key(), &issuer).unwrap();
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap();
    let name = ServerName::try_from("b.example").unwrap();
    let at = UnixTime::since_unix_epoch(Duration::from_secs(NOON));
    verifier
        .verify_server_cert(forged.der(), &[leaf.into()], &name, &[], at)
        .unwrap_err();
}
