//! From a file's tree to the model: shapes, words and numbers. References are checked later, over all files.

mod argument;
mod breaker;
mod contradiction;
mod credential;
mod egress;
mod identity;
mod mask;
mod responses;
mod role;
mod rule;
mod server;
pub(crate) mod tables;
mod when;
mod words;

use std::collections::BTreeSet;
use std::sync::Arc;

pub(crate) use self::role::settle;

use crate::fault::{Fault, Place, Source};
use crate::model::{
    Breaker, Credential, Host, Identity, Limit, Mask, Mode, Responses, Role, Rule, Server,
};
use crate::yaml::{self, Node, Reader, Span};

/// What kind of thing a name names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Server,
    Host,
    Identity,
    Role,
    Credential,
    Rule,
    /// A key of the whole policy that only one file may set.
    Setting,
    /// Whom a rule may be about: an identity, a host or a role.
    Who,
    /// Who may belong to a role: an identity or a host.
    Member,
}

/// A name, and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Mention {
    pub(crate) kind: Kind,
    pub(crate) name: Arc<str>,
    pub(crate) place: Place,
}

/// All files, read but not yet checked against each other.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) servers: Vec<Server>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) identities: Vec<Identity>,
    pub(crate) roles: Vec<Role>,
    pub(crate) credentials: Vec<Credential>,
    /// As written; once [settled](settle), the grants of all roles too.
    pub(crate) rules: Vec<Rule>,
    pub(crate) limits: Vec<Limit>,
    pub(crate) masks: Vec<Mask>,
    pub(crate) breaker: Option<Breaker>,
    pub(crate) responses: Option<Responses>,
    pub(crate) mode: Mode,
    pub(crate) strict_review: bool,
    /// Names given, also those of things that were not read because of a fault.
    pub(crate) defined: Vec<Mention>,
    /// Names used.
    pub(crate) used: Vec<Mention>,
}

/// Reads one file into the draft.
pub(crate) fn load(source: &Source, draft: &mut Draft) -> Vec<Fault> {
    let root = match yaml::read(source) {
        Ok(root) => root,
        Err(faults) => return faults,
    };
    let mut loader = Loader {
        reader: Reader::new(&source.name),
        text: &source.text,
        draft,
    };
    loader.file(&root);
    loader.reader.into_faults()
}

/// Reads one file.
struct Loader<'a> {
    reader: Reader,
    /// The file's text.
    text: &'a str,
    draft: &'a mut Draft,
}

impl Loader<'_> {
    fn file(&mut self, root: &Node) -> Option<()> {
        let fields = self.reader.fields(root, &tables::FILE)?;
        if let Some(version) = self.reader.required(fields, "version", "the file") {
            self.reader.integer(version, "the version", 1..=1);
        }
        for (key, read) in [
            ("servers", Self::server as fn(&mut Self, &str, Span, &Node)),
            ("hosts", Self::host),
            ("identities", Self::identity),
            ("roles", Self::role),
            ("credentials", Self::credential),
        ] {
            let Some(node) = fields.get(key) else {
                continue;
            };
            for entry in self
                .reader
                .entries(node, &format!("`{key}`"))
                .unwrap_or_default()
            {
                read(self, &entry.key, entry.span, &entry.value);
            }
        }
        for (key, read) in [
            ("rules", Self::rule as fn(&mut Self, &Node)),
            ("limits", Self::limit),
            ("mask", Self::mask),
        ] {
            let Some(node) = fields.get(key) else {
                continue;
            };
            for item in self.reader.list(node, key).unwrap_or_default() {
                read(self, item);
            }
        }
        if let Some(node) = fields.get("breaker") {
            self.breaker(node);
        }
        if let Some(node) = fields.get("responses") {
            self.define(Kind::Setting, "responses", node.span);
            self.draft.responses = self.responses(node);
        }
        if let Some(node) = fields.get("mode") {
            self.define(Kind::Setting, "mode", node.span);
            self.draft.mode = self
                .reader
                .choice(node, &tables::MODES, &[])
                .unwrap_or_default();
        }
        if let Some(node) = fields.get("strict_review") {
            self.define(Kind::Setting, "strict_review", node.span);
            self.draft.strict_review = self.reader.flag(node).unwrap_or_default();
        }
        Some(())
    }

    /// Notes a name that is given here.
    fn define(&mut self, kind: Kind, name: &str, span: Span) -> Arc<str> {
        let name: Arc<str> = name.into();
        let place = self.reader.place(span);
        self.draft.defined.push(Mention {
            kind,
            name: Arc::clone(&name),
            place,
        });
        name
    }

    /// Takes a list of names that are given elsewhere.
    fn mentions(&mut self, kind: Kind, node: &Node, what: &str) -> Vec<Arc<str>> {
        let (mut names, mut seen) = (Vec::new(), BTreeSet::new());
        for item in self.reader.list(node, what).unwrap_or_default() {
            let Some(name) = self.reader.text(item, what) else {
                continue;
            };
            let name: Arc<str> = name.into();
            if !seen.insert(Arc::clone(&name)) {
                self.reader
                    .fault(item.span, format!("`{name}` stands here twice"));
                continue;
            }
            let place = self.reader.place(item.span);
            self.draft.used.push(Mention {
                kind,
                name: Arc::clone(&name),
                place,
            });
            names.push(name);
        }
        names
    }
}
