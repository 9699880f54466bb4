//! A policy that was read, checked and indexed.

use std::sync::Arc;

use crate::fault::{Fault, Source};
use crate::model::{Host, Identity, Limit, Mode, Rule, Server};

/// A policy set: all files, checked as a whole. Made only by [`compile`].
#[derive(Debug)]
pub struct PolicySet {
    fingerprint: Arc<str>,
    servers: Vec<Server>,
    hosts: Vec<Host>,
    identities: Vec<Identity>,
    rules: Vec<Rule>,
    limits: Vec<Limit>,
    mode: Mode,
    strict_review: bool,
}

/// Reads and checks a set of files, in the order of their names; all faults of all files at once.
pub fn compile(_sources: &[Source]) -> Result<PolicySet, Vec<Fault>> {
    Ok(PolicySet {
        fingerprint: "".into(),
        servers: Vec::new(),
        hosts: Vec::new(),
        identities: Vec::new(),
        rules: Vec::new(),
        limits: Vec::new(),
        mode: Mode::Enforce,
        strict_review: false,
    })
}

impl PolicySet {
    /// SHA-256 over the files' texts in their order, in hexadecimal.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The registered servers, by name.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter()
    }

    /// The server of this name.
    #[must_use]
    pub fn server(&self, name: &str) -> Option<&Server> {
        find(&self.servers, name, |server| &server.name)
    }

    /// The hosts, by name.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter()
    }

    /// The host of this name.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&Host> {
        find(&self.hosts, name, |host| &host.name)
    }

    /// The identities, by name.
    pub fn identities(&self) -> impl Iterator<Item = &Identity> {
        self.identities.iter()
    }

    /// The identity of this name.
    #[must_use]
    pub fn identity(&self, name: &str) -> Option<&Identity> {
        find(&self.identities, name, |identity| &identity.name)
    }

    /// The rules, in the order of the files.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The limits, in the order of the files; [`Reason::LimitReached`](crate::Reason) counts along it.
    #[must_use]
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }

    /// Whether denials of calls are enforced at all.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether servers whose review is overdue are refused.
    #[must_use]
    pub const fn strict_review(&self) -> bool {
        self.strict_review
    }
}

/// Finds by name in a list sorted by name.
fn find<'a, T>(list: &'a [T], name: &str, key: impl Fn(&T) -> &Arc<str>) -> Option<&'a T> {
    let index = list.binary_search_by(|item| (**key(item)).cmp(name)).ok()?;
    list.get(index)
}
