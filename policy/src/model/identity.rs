//! How a caller shows who it is.

use std::fmt;
use std::sync::Arc;

use super::argument::{Pointer, PointerFault};
use crate::glob::Glob;

/// How a caller shows that it is an identity.
#[derive(Debug, Clone)]
pub enum Proof {
    /// Its process runs under one of these Unix users, by patterns over the name.
    User(Vec<Glob>),
    /// It carries a verified token.
    Token(TokenTest),
}

/// What must hold of a verified token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenTest {
    /// Who issued it, exactly.
    pub issuer: Arc<str>,
    /// What it must claim, all of it; empty: every token of the issuer.
    pub claims: Vec<ClaimTest>,
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
