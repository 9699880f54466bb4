//! Who calls, by the client certificate of its connection. The handshake proves that the client has the certificate's
//! key; that an authority of the configuration vouches for it is verified at each request.

mod fault;
mod names;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use exeat_policy::{Certificate, CertifiedName, NameKind};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    WebPkiSupportedAlgorithms, aws_lc_rs as provider, verify_tls12_signature,
    verify_tls13_signature,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::{Error as PemError, PemObject as _};
use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error;

pub use self::fault::CertificateFault;
use crate::channel::encode_hex;
use crate::identify::token::Expiry;
use crate::telemetry::clock;

/// How often what lasts is verified again.
const RECHECK: Duration = Duration::from_secs(10);
/// Certificates in a chain, the client's own included.
const CHAIN: usize = 8;

/// What is wrong with the certificates of an authority.
#[derive(Debug, Error)]
pub enum AuthorityFault {
    /// The file is no PEM.
    #[error("reading the certificates of the client authority `{authority}`")]
    Pem {
        /// Whose.
        authority: String,
        /// The PEM reader's error.
        #[source]
        source: PemError,
    },
    /// A certificate cannot be an authority's.
    #[error("using a certificate of the client authority `{authority}`")]
    Certificate {
        /// Whose.
        authority: String,
        /// rustls's error.
        #[source]
        source: Error,
    },
    /// There is none.
    #[error("the file of the client authority `{authority}` holds no certificate")]
    Empty {
        /// Whose.
        authority: String,
    },
    /// rustls makes no verifier of them.
    #[error("verifying by the client authority `{authority}`")]
    Verifier {
        /// Whose.
        authority: String,
        /// rustls's error.
        #[source]
        source: VerifierBuilderError,
    },
}

/// One authority, or several that are trusted as one.
struct Authority {
    name: Arc<str>,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// The authorities whose client certificates are verified. Also what asks for certificates in handshakes.
pub struct Authorities {
    each: Vec<Authority>,
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.each.iter().map(|authority| &authority.name);
        f.debug_list().entries(names).finish()
    }
}

impl Authorities {
    /// The authorities of these names, each with its certificates as PEM. Where two vouch for a certificate, the first
    /// counts.
    ///
    /// # Errors
    /// The first [`AuthorityFault`].
    pub fn new<'a>(
        given: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, AuthorityFault> {
        let each = given.into_iter().map(|(name, pem)| authority(name, pem));
        let each = each.collect::<Result<Vec<_>, _>>()?;
        let hints = each
            .iter()
            .flat_map(|authority| authority.verifier.root_hint_subjects().to_vec());
        Ok(Self {
            hints: hints.collect(),
            each,
            algorithms: provider::default_provider().signature_verification_algorithms,
        })
    }

    /// Who vouches for the first of `chain` at `now`.
    fn vouch(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<&Arc<str>, CertificateFault> {
        let (leaf, above) = chain.split_first().ok_or(CertificateFault::Unreadable)?;
        if chain.len() > CHAIN {
            return Err(CertificateFault::Chain);
        }
        let mut wrong = CertificateFault::Unknown;
        for authority in &self.each {
            match authority.verifier.verify_client_cert(leaf, above, now) {
                Ok(_) => return Ok(&authority.name),
                // Of several, what is wrong where its issuer is known says most.
                Err(error) => match CertificateFault::of(&error) {
                    CertificateFault::Unknown => {}
                    fault => wrong = fault,
                },
            }
        }
        Err(wrong)
    }
}

fn authority(name: &str, pem: &str) -> Result<Authority, AuthorityFault> {
    let authority = || name.to_owned();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|source| AuthorityFault::Pem {
            authority: authority(),
            source,
        })?;
        let added = roots.add(certificate);
        added.map_err(|source| AuthorityFault::Certificate {
            authority: authority(),
            source,
        })?;
    }
    if roots.is_empty() {
        return Err(AuthorityFault::Empty {
            authority: authority(),
        });
    }
    let provider = provider::default_provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.into())
        .build()
        .map_err(|source| AuthorityFault::Verifier {
            authority: authority(),
            source,
        })?;
    Ok(Authority {
        name: name.into(),
        verifier,
    })
}

// INVARIANT: a handshake proves that the client has the key of what it shows, and nothing else. Whoever acts on a shown
// certificate asks [`Presented::verified`]: at each request, so that what is wrong is answered in HTTP and recorded, in
// every version of TLS, and what becomes wrong later as well.
impl ClientCertVerifier for Authorities {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What a client showed in a handshake: it has the key, and nothing else is known of it.
pub struct Presented {
    chain: Vec<CertificateDer<'static>>,
    last: Mutex<Option<Last>>,
}

/// What verifying it came to. Certificates count by the second, so that within one it comes to the same.
struct Last {
    authorities: Arc<Authorities>,
    second: u64,
    verified: Result<Arc<Verified>, CertificateFault>,
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented").finish_non_exhaustive()
    }
}

impl Presented {
    /// The chain of a finished handshake, the client's own certificate first.
    pub fn new(chain: &[CertificateDer<'_>]) -> Self {
        let chain = chain.iter().map(|one| one.clone().into_owned());
        Self {
            chain: chain.collect(),
            last: Mutex::new(None),
        }
    }

    /// Whom it is about, if one of `authorities` vouches for it now.
    ///
    /// # Errors
    /// Whatever is wrong with it.
    pub fn verified(
        &self,
        authorities: &Arc<Authorities>,
    ) -> Result<Arc<Verified>, CertificateFault> {
        self.verified_at(authorities, now())
    }

    fn verified_at(
        &self,
        authorities: &Arc<Authorities>,
        now: UnixTime,
    ) -> Result<Arc<Verified>, CertificateFault> {
        let second = now.as_secs();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = &*last
            && last.second == second
            && Arc::ptr_eq(&last.authorities, authorities)
        {
            return last.verified.clone();
        }
        let verified = authorities
            .vouch(&self.chain, now)
            .and_then(|authority| Verified::new(authority, &self.chain))
            .map(Arc::new);
        *last = Some(Last {
            authorities: Arc::clone(authorities),
            second,
            verified: verified.clone(),
        });
        verified
    }
}

/// The present; a clock before 1970 makes everything expired.
fn now() -> UnixTime {
    let now = u64::try_from(clock::wall().microseconds()).map(Duration::from_micros);
    UnixTime::since_unix_epoch(now.unwrap_or(Duration::MAX))
}

/// A client certificate whose chain, time and purpose are verified.
pub struct Verified {
    authority: Arc<str>,
    names: Vec<CertifiedName>,
    subject: String,
    sha256: String,
    expiry: Expiry,
}

// Certificates say who people are.
impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified")
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

impl Verified {
    fn new(authority: &Arc<str>, chain: &[CertificateDer<'_>]) -> Result<Self, CertificateFault> {
        let leaf = chain.first().ok_or(CertificateFault::Unreadable)?;
        let names = names::read(leaf)?;
        Ok(Self {
            expiry: names::expiry(leaf)?,
            authority: Arc::clone(authority),
            subject: subject(&names),
            names,
            sha256: encode_hex(digest(&SHA256, leaf).as_ref()),
        })
    }

    /// The form that policy judges.
    pub fn judged(&self) -> Certificate<'_> {
        Certificate {
            authority: &self.authority,
            subject: &self.subject,
            names: &self.names,
        }
    }

    /// When it expires, whatever there is above it.
    pub const fn expiry(&self) -> Expiry {
        self.expiry
    }

    /// SHA-256 of the certificate, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

/// The first URI, else the first address of mail, else the first host's name, else the common name, which nobody may take
/// for any of these.
pub(crate) fn subject(names: &[CertifiedName]) -> String {
    let kinds = [
        NameKind::Uri,
        NameKind::Email,
        NameKind::Dns,
        NameKind::CommonName,
    ];
    let mut first = kinds
        .into_iter()
        .filter_map(|kind| names.iter().find(|name| name.kind == kind));
    match first.next() {
        Some(CertifiedName { kind, text }) if *kind == NameKind::CommonName => format!("CN={text}"),
        Some(name) => name.text.clone(),
        None => String::new(),
    }
}

/// A client certificate that spoke for a caller.
#[derive(Debug, Clone)]
pub struct Shown {
    presented: Arc<Presented>,
    verified: Arc<Verified>,
}

impl Shown {
    /// What `presented` comes to now.
    ///
    /// # Errors
    /// Whatever is wrong with it.
    pub fn of(
        presented: &Arc<Presented>,
        authorities: &Arc<Authorities>,
    ) -> Result<Self, CertificateFault> {
        Ok(Self {
            verified: presented.verified(authorities)?,
            presented: Arc::clone(presented),
        })
    }

    /// Whom it is about.
    pub fn verified(&self) -> &Verified {
        &self.verified
    }

    /// Waits until it does not: at once when the certificate expires, and within ten seconds where something above it
    /// does, or `authorities` change.
    pub async fn over(&self, authorities: &ArcSwap<Authorities>) {
        loop {
            self.verified.expiry.within(RECHECK).await;
            if !self.holds(&authorities.load_full()) {
                return;
            }
        }
    }

    /// Whether it still comes to the same: for what waited since it was verified.
    pub fn holds(&self, authorities: &Arc<Authorities>) -> bool {
        let now = self.presented.verified(authorities);
        now.is_ok_and(|now| now.authority == self.verified.authority)
    }
}
