//! From who calls to the identities that the caller is.

use std::sync::Arc;

use super::{Id, Map};
use crate::decide::{Certificate, Token, claims};
use crate::glob::Glob;
use crate::model::{CertificateTest, Identity, Proof, TokenTest};

/// From a Unix user to identities.
#[derive(Debug, Default)]
pub(super) struct Users {
    exact: Map<Box<str>, Vec<Id>>,
    patterns: Vec<(Glob, Id)>,
}

impl Users {
    /// Identities are numbered after the hosts.
    pub(super) fn new(identities: &[Identity], hosts: usize) -> Self {
        let first = Id::try_from(hosts).unwrap_or(Id::MAX);
        let mut users = Self::default();
        for (id, identity) in (first..).zip(identities) {
            let Proof::User(globs) = &identity.proof else {
                continue;
            };
            for glob in globs {
                match glob.literal() {
                    Some(user) => users.exact.entry(user.into()).or_default().push(id),
                    None => users.patterns.push((glob.clone(), id)),
                }
            }
        }
        users
    }

    pub(super) fn find(&self, user: &str, out: &mut Vec<Id>) {
        out.extend(self.exact.get(user).into_iter().flatten());
        out.extend(
            self.patterns
                .iter()
                .filter(|(glob, _)| glob.matches(user))
                .map(|(_, id)| id),
        );
        out.sort_unstable();
        out.dedup();
    }
}

/// From a token to identities.
#[derive(Debug, Default)]
pub(super) struct Tokens(Map<Arc<str>, Vec<(TokenTest, Id)>>);

impl Tokens {
    /// Identities are numbered after the hosts.
    pub(super) fn new(identities: &[Identity], hosts: usize) -> Self {
        let first = Id::try_from(hosts).unwrap_or(Id::MAX);
        let mut tokens = Self::default();
        for (id, identity) in (first..).zip(identities) {
            if let Proof::Token(test) = &identity.proof {
                let of_issuer = tokens.0.entry(Arc::clone(&test.issuer)).or_default();
                of_issuer.push((test.clone(), id));
            }
        }
        tokens
    }

    pub(super) fn find(&self, token: &Token<'_>, out: &mut Vec<Id>) {
        let of_issuer = self.0.get(token.issuer).into_iter().flatten();
        out.extend(
            of_issuer
                .filter(|(test, _)| test.claims.iter().all(|test| claims(test, token.claims)))
                .map(|(_, id)| id),
        );
    }

    pub(super) fn any(&self) -> bool {
        !self.0.is_empty()
    }

    pub(super) fn names(&self, issuer: &str) -> bool {
        self.0.contains_key(issuer)
    }
}

/// From a client certificate to identities.
#[derive(Debug, Default)]
pub(super) struct Certificates(Map<Arc<str>, Vec<(CertificateTest, Id)>>);

impl Certificates {
    /// Identities are numbered after the hosts.
    pub(super) fn new(identities: &[Identity], hosts: usize) -> Self {
        let first = Id::try_from(hosts).unwrap_or(Id::MAX);
        let mut certificates = Self::default();
        for (id, identity) in (first..).zip(identities) {
            if let Proof::Certificate(test) = &identity.proof {
                let of_authority = certificates.0.entry(Arc::clone(&test.authority));
                of_authority.or_default().push((test.clone(), id));
            }
        }
        certificates
    }

    pub(super) fn find(&self, certificate: &Certificate<'_>, out: &mut Vec<Id>) {
        let shows = |test: &CertificateTest| {
            test.names.iter().all(|test| {
                certificate.names.iter().any(|name| {
                    name.kind == test.kind && test.any.iter().any(|glob| glob.matches(&name.text))
                })
            })
        };
        let of_authority = self.0.get(certificate.authority).into_iter().flatten();
        out.extend(
            of_authority
                .filter(|(test, _)| shows(test))
                .map(|(_, id)| id),
        );
    }

    pub(super) fn any(&self) -> bool {
        !self.0.is_empty()
    }
}
