//! How a caller shows who it is.

use std::fmt;
use std::sync::Arc;

use super::argument::{Pointer, PointerFault};
use crate::glob::Glob;

/// How a caller shows that it is an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// Its process runs under one of these Unix users, by patterns over the name.
    User(Vec<Glob>),
    /// It carries a verified token.
    Token(TokenTest),
    /// Its connection shows a verified client certificate.
    Certificate(CertificateTest),
}

/// What must hold of a verified token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenTest {
    /// Who issued it, exactly.
    pub issuer: Arc<str>,
    /// What it must claim, all of it; empty: every token of the issuer.
    pub claims: Vec<ClaimTest>,
}

/// What must hold of a verified client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateTest {
    /// The authority that vouches for it, as the daemon's configuration calls it.
    pub authority: Arc<str>,
    /// What it must name, all of it; empty: every certificate of the authority.
    pub names: Vec<NameTest>,
}

/// A kind of name, and the patterns of which one must fit one of the certificate's names of that kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameTest {
    /// Which names.
    pub kind: NameKind,
    /// Compared byte by byte, names of hosts in lower case; never empty.
    pub any: Vec<Glob>,
}

/// Where a name stands in a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NameKind {
    /// A URI of the subject's alternative names, such as a SPIFFE ID.
    Uri,
    /// A host's name of the subject's alternative names.
    Dns,
    /// An address of mail of the subject's alternative names.
    Email,
    /// The common name of the subject.
    CommonName,
}

/// A claim, and the texts of which one must stand there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimTest {
    /// Which.
    pub claim: Claim,
    /// The claim is one of these, or a list with one of these. Compared byte by byte; never empty.
    pub any: Vec<Arc<str>>,
}

/// Where a claim stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim(pub(crate) Pointer);

impl Claim {
    /// Reads the name of a claim, or a pointer that begins with `/`. A name may hold `/` elsewhere, as claims that
    /// are named by URLs do.
    pub fn parse(text: &str) -> Result<Self, PointerFault> {
        if text.starts_with('/') {
            Pointer::parse(text).map(Self)
        } else {
            Ok(Self(Pointer::to_member(text)))
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
