//! The certificate authority: its key never leaves this process, and it signs server certificates
//! for the gate's own keys, for exact names, for days.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::ToSpan as _;
use jiff::civil::Date;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
    SignatureAlgorithm,
};

/// Days for which a server certificate is good, after the one on which it is made.
const LEAF_DAYS: i32 = 7;
/// Years for which the authority is good.
const AUTHORITY_YEARS: i32 = 10;
/// Names in one certificate.
const MAX_NAMES: usize = 8;

const KEY: &str = "ca.key";
const CERTIFICATE: &str = "ca.pem";

/// `SubjectPublicKeyInfo` of a P-256 key up to the point (RFC 5480): the one form that is signed, so
/// that no parser for foreign DER runs with privileges.
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// An uncompressed point on P-256: 4, x, y.
const P256_POINT: usize = 65;

/// Why there is no authority, or no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file of the authority.
    #[error("{attempt} `{}`", path.display())]
    File {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        cause: io::Error,
    },
    /// Others could read the key.
    #[error("key file `{}` has mode {mode:o} and owner {owner}; it must be 600 and root's", path.display())]
    Exposed {
        /// The key.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner.
        owner: u32,
    },
    /// A certificate without its key.
    #[error("`{}` exists but its key `{}` does not; restore the key, or remove the certificate to start a new authority", certificate.display(), key.display())]
    KeyLost {
        /// What is there.
        certificate: PathBuf,
        /// What is not.
        key: PathBuf,
    },
    /// The two files do not belong together.
    #[error("`{}` is not the certificate of the key beside it", .0.display())]
    Mismatch(PathBuf),
    /// Not a name that a server can have.
    #[error("refusing to sign for `{0}`: not a host name or address")]
    Name(String),
    /// No names, or too many.
    #[error("refusing to sign for {0} names")]
    Names(usize),
    /// Not a P-256 key.
    #[error("refusing to sign: not a P-256 public key")]
    Key,
    /// The certificate could not be made.
    #[error("{0}")]
    Make(&'static str, #[source] rcgen::Error),
    /// No randomness, or no calendar.
    #[error("{0}")]
    Unavailable(&'static str),
}

/// The authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// The authority kept in `directory`, made there if there is none. `today` is the date in UTC.
    pub fn open(directory: &Path, today: Date) -> Result<Self, CaError> {
        let key_path = directory.join(KEY);
        let certificate_path = directory.join(CERTIFICATE);
        let Some(key) = read_key(&key_path)? else {
            if certificate_path.exists() {
                return Err(CaError::KeyLost {
                    certificate: certificate_path,
                    key: key_path,
                });
            }
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
                .map_err(|e| CaError::Make("making the authority's key", e))?;
            write_new(directory, KEY, key.serialize_pem().as_bytes(), 0o600)?;
            return Self::with_new_certificate(directory, key, today);
        };
        let pem = match fs::read_to_string(&certificate_path) {
            Ok(pem) => pem,
            // The daemon ended between the two files; nobody trusts the certificate yet.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Self::with_new_certificate(directory, key, today);
            }
            Err(cause) => {
                return Err(CaError::File {
                    attempt: "reading",
                    path: certificate_path,
                    cause,
                });
            }
        };
        let der = rustls_pki_types::pem::PemObject::from_pem_slice(pem.as_bytes())
            .map(|der: rustls_pki_types::CertificateDer<'static>| der);
        let spki = key.subject_public_key_info();
        let belongs =
            der.is_ok_and(|der| der.windows(spki.len()).any(|part| part == spki.as_slice()));
        if !belongs {
            return Err(CaError::Mismatch(certificate_path));
        }
        let issuer = Issuer::from_ca_cert_pem(&pem, key)
            .map_err(|e| CaError::Make("reading the authority's certificate", e))?;
        Ok(Self { issuer, pem })
    }

    fn with_new_certificate(directory: &Path, key: KeyPair, today: Date) -> Result<Self, CaError> {
        let params = authority_params(today)?;
        let certificate = params
            .self_signed(&key)
            .map_err(|e| CaError::Make("making the authority's certificate", e))?;
        let pem = certificate.pem();
        write_new(directory, CERTIFICATE, pem.as_bytes(), 0o644)?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem,
        })
    }

    /// The authority's certificate, PEM: public.
    pub fn certificate(&self) -> &str {
        &self.pem
    }

    /// A server certificate in DER for `names` (exact host names in lower case, or addresses) and
    /// `key`, a `SubjectPublicKeyInfo` in DER; good from the day before `today`, for some days.
    pub fn sign(&self, names: &[String], key: &[u8], today: Date) -> Result<Vec<u8>, CaError> {
        let key = P256Key::new(key)?;
        let params = leaf_params(names, today)?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(|e| CaError::Make("making a server certificate", e))?;
        Ok(certificate.der().to_vec())
    }
}

fn authority_params(today: Date) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = validity(today, AUTHORITY_YEARS.years())?;
    params.serial_number = Some(serial()?);
    let mut name = DistinguishedName::new();
    // A host's name tells one machine's authority from another's in a store that holds both.
    let node = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    name.push(DnType::CommonName, format!("Exeat on {node}"));
    name.push(DnType::OrganizationName, "Exeat");
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf_params(names: &[String], today: Date) -> Result<CertificateParams, CaError> {
    if names.is_empty() || names.len() > MAX_NAMES {
        return Err(CaError::Names(names.len()));
    }
    let alternatives = names
        .iter()
        .map(|name| alternative(name))
        .collect::<Result<_, _>>()?;
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = validity(today, LEAF_DAYS.days())?;
    params.serial_number = Some(serial()?);
    let mut subject = DistinguishedName::new();
    // ub-common-name is 64 (RFC 5280, appendix A.1); longer names stand in the extension alone.
    if let Some(first) = names.first().filter(|first| first.len() <= 64) {
        subject.push(DnType::CommonName, first.as_str());
    }
    params.distinguished_name = subject;
    params.subject_alt_names = alternatives;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn alternative(name: &str) -> Result<SanType, CaError> {
    let refused = || CaError::Name(name.chars().take(64).collect());
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    if !is_host_name(name) {
        return Err(refused());
    }
    name.try_into()
        .map(SanType::DnsName)
        .map_err(|_e| refused())
}

/// Whether `name` is a host name in the one form that is signed: lower-case letters, digits,
/// hyphens and underscores in labels of 1 to 63 (RFC 1123, 2.1), no dot at the end, no wildcard,
/// and a last label that no resolver takes for a number (so not `127.1`, `0x7f.1`).
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'_')
    };
    let number = |label: &str| {
        label
            .strip_prefix("0x")
            .is_some_and(|hex| hex.bytes().all(|c| c.is_ascii_hexdigit()))
            || label.bytes().all(|c| c.is_ascii_digit())
    };
    name.len() <= 253
        && name.split('.').all(label)
        && name.rsplit('.').next().is_some_and(|last| !number(last))
}

/// First and last moment of a certificate.
type Validity = (time::OffsetDateTime, time::OffsetDateTime);

fn validity(today: Date, span: jiff::Span) -> Result<Validity, CaError> {
    const FAULT: &str = "computing a certificate's dates";
    let moment = |date: Date| {
        let part = |n: i8| u8::try_from(n).map_err(|_e| CaError::Unavailable(FAULT));
        let (month, day) = (part(date.month())?, part(date.day())?);
        Ok(rcgen::date_time_ymd(date.year().into(), month, day))
    };
    // A day back, for clients whose clock is behind or whose zone is misread.
    let first = today
        .checked_sub(1.day())
        .map_err(|_e| CaError::Unavailable(FAULT))?;
    let last = today
        .checked_add(span)
        .map_err(|_e| CaError::Unavailable(FAULT))?;
    let last = last
        .checked_add(1.day())
        .map_err(|_e| CaError::Unavailable(FAULT))?;
    Ok((moment(first)?, moment(last)?))
}

/// 16 random bytes, positive and of full length in DER.
fn serial() -> Result<SerialNumber, CaError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_e| CaError::Unavailable("drawing a serial number"))?;
    if let Some(first) = bytes.first_mut() {
        *first = *first & 0x3f | 0x40;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

/// The point of a P-256 key that somebody else holds.
struct P256Key(Vec<u8>);

impl P256Key {
    fn new(spki: &[u8]) -> Result<Self, CaError> {
        match spki.strip_prefix(P256_PREFIX.as_slice()) {
            Some(point) if point.len() == P256_POINT && point.first() == Some(&4) => {
                Ok(Self(point.to_vec()))
            }
            _ => Err(CaError::Key),
        }
    }
}

impl PublicKeyData for P256Key {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

fn read_key(path: &Path) -> Result<Option<KeyPair>, CaError> {
    let failed = |cause| CaError::File {
        attempt: "reading",
        path: path.to_owned(),
        cause,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let metadata = file.metadata().map_err(failed)?;
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    if mode & 0o077 != 0 || owner != rustix::process::geteuid().as_raw() {
        return Err(CaError::Exposed {
            path: path.to_owned(),
            mode,
            owner,
        });
    }
    let pem = io::read_to_string(file).map_err(failed)?;
    KeyPair::from_pem(&pem)
        .map(Some)
        .map_err(|e| CaError::Make("reading the authority's key", e))
}

/// Writes a file that is either absent or whole.
fn write_new(directory: &Path, name: &str, content: &[u8], mode: u32) -> Result<(), CaError> {
    let path = directory.join(name);
    let draft = directory.join(format!("{name}.new"));
    let write = || {
        match fs::remove_file(&draft) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&draft)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&draft, &path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|cause| CaError::File {
        attempt: "writing",
        path,
        cause,
    })
}

#[cfg(test)]
mod tests;
