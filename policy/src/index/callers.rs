//! From who calls to the identities that the caller is.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Id, Map};
use crate::cel::Condition;
use crate::decide::{Certificate, Token, Unevaluated, claims};
use crate::glob::Glob;
use crate::model::{CertificateTest, Identity, Pointer, Proof, Rule, TokenTest};

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
                .filter(|(test, _)| shows(test, token) == Ok(true))
                .map(|(_, id)| id),
        );
    }

    /// The identities of which a recorded token does not tell whether it shows them.
    pub(super) fn untold(&self, token: &Token<'_>, out: &mut Vec<Id>) {
        let of_issuer = self.0.get(token.issuer).into_iter().flatten();
        out.extend(
            of_issuer
                .filter(|(test, _)| shows(test, token).is_err())
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

/// Whether a token of its issuer passes a test. One claim that is another decides, whatever is not known of others.
fn shows(test: &TokenTest, token: &Token<'_>) -> Result<bool, Unevaluated> {
    let mut shown = Ok(true);
    for test in &test.claims {
        match claims(test, token.claims) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) => shown = Err(error),
        }
    }
    shown
}

/// Which claims of an issuer's tokens the policy reads, as pointers in their order.
#[derive(Debug, Default)]
pub(super) struct Claims {
    of: Map<Arc<str>, BTreeSet<Box<str>>>,
    /// Of issuers that no identity names.
    of_any: BTreeSet<Box<str>>,
}

impl Claims {
    pub(super) fn new(identities: &[Identity], rules: &[Rule]) -> Self {
        let mut read = Self::default();
        let mut proofs: Map<&str, &Proof> = Map::default();
        for identity in identities {
            proofs.insert(&identity.name, &identity.proof);
            if let Proof::Token(test) = &identity.proof {
                let of = read.of.entry(Arc::clone(&test.issuer)).or_default();
                of.extend(test.claims.iter().filter_map(|test| written(&test.claim.0)));
            }
        }
        for rule in rules {
            let asked = rule.when.iter().flat_map(Condition::claims);
            let asked: Vec<Box<str>> = asked.filter_map(|claim| written(&claim)).collect();
            if asked.is_empty() {
                continue;
            }
            // Who has another identity, or is on a host, may show any token with it.
            let issuer = |name: &Arc<str>| match proofs.get(&**name) {
                Some(Proof::Token(test)) => Some(&test.issuer),
                _ => None,
            };
            let of: Option<Vec<_>> = rule.who.iter().map(issuer).collect();
            if let Some(of) = of.filter(|of| !of.is_empty()) {
                for issuer in of {
                    let of = read.of.entry(Arc::clone(issuer)).or_default();
                    of.extend(asked.iter().cloned());
                }
            } else {
                let every = read.of.values_mut().chain([&mut read.of_any]);
                every.for_each(|of| of.extend(asked.iter().cloned()));
            }
        }
        read
    }

    pub(super) fn of(&self, issuer: &str) -> &BTreeSet<Box<str>> {
        self.of.get(issuer).unwrap_or(&self.of_any)
    }
}

fn written(claim: &Pointer) -> Option<Box<str>> {
    claim.written().map(Into::into)
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
