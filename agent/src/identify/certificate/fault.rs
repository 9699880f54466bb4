//! Why a client certificate is refused: for the record in full, for the caller without a word about policy.

use rustls::{CertificateError, Error};
use thiserror::Error;

/// Why a client certificate is refused. No variant holds a part of the certificate.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CertificateFault {
    /// It is no X.509 certificate, or not one that has one reading only.
    #[error("a client certificate that cannot be read")]
    Unreadable,
    /// More certificates than are looked at.
    #[error("a client certificate with more than eight certificates in its chain")]
    Chain,
    /// No authority of the configuration vouches for it.
    #[error("a client certificate of no authority in `tls.client_authorities`")]
    Unknown,
    /// Its time, or that of a certificate above it, is over.
    #[error("a client certificate that has expired")]
    Expired,
    /// Its time has not begun.
    #[error("a client certificate that is not valid yet")]
    Early,
    /// It is for something else than clients.
    #[error("a client certificate that is not for clients")]
    Purpose,
    /// It was not signed by the authority that it names.
    #[error("a client certificate with a wrong signature")]
    Signature,
    /// Whatever else the verification finds: a constraint on names, an authority in the client's place.
    #[error("a client certificate that is not verified: {0}")]
    Unverified(String),
    /// A name with characters that readers read differently, or longer than any that is looked at.
    #[error("a client certificate with a name that is not plain text")]
    Name,
    /// More names than are looked at.
    #[error("a client certificate with more than 64 names")]
    Names,
    /// A SPIFFE ID beside another URI, which X.509-SVIDs may not have.
    #[error("a client certificate with a SPIFFE ID and another URI")]
    Svid,
    /// No URI, address of mail, host's name, or single common name.
    #[error("a client certificate that names nobody")]
    Nameless,
}

impl CertificateFault {
    /// What `error` of rustls, from verifying a certificate, means.
    pub(super) fn of(error: &Error) -> Self {
        let Error::InvalidCertificate(kind) = error else {
            return Self::Unreadable;
        };
        match kind {
            CertificateError::BadEncoding => Self::Unreadable,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::Early
            }
            CertificateError::UnknownIssuer => Self::Unknown,
            CertificateError::BadSignature => Self::Signature,
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Self::Purpose
            }
            other => Self::Unverified(other.to_string()),
        }
    }
}
