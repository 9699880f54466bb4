//! How identities are shown: by the Unix user, by a token, or by a client certificate.

use std::sync::Arc;

use super::{Loader, tables};
use crate::glob::Glob;
use crate::model::{CertificateTest, Claim, ClaimTest, NameKind, NameTest, Proof, TokenTest};
use crate::yaml::{Entry, Fields, Node};

impl Loader<'_> {
    /// What an identity asks for; `None` after a fault.
    pub(super) fn proof(&mut self, fields: Fields<'_>) -> Option<Proof> {
        let ways = ["user", "jwt", "certificate"];
        let mut given = ways
            .into_iter()
            .filter_map(|way| Some((way, fields.get(way)?)));
        let Some((way, node)) = given.next() else {
            self.reader.fault(
                fields.span,
                "`user`, `jwt` or `certificate` is missing in an identity",
            );
            return None;
        };
        if let Some((_, second)) = given.next() {
            self.reader.fault(
                second.span,
                "an identity has one of `user`, `jwt` and `certificate`; a role can have all kinds of members",
            );
            return None;
        }
        match way {
            "user" => Some(Proof::User(self.one_or_more_globs(node, "a user"))),
            "jwt" => self.token(node).map(Proof::Token),
            _ => self.certificate(node).map(Proof::Certificate),
        }
    }

    fn certificate(&mut self, node: &Node) -> Option<CertificateTest> {
        let fields = self.reader.fields(node, &tables::CERTIFICATE)?;
        let authority = self
            .reader
            .required(fields, "authority", tables::CERTIFICATE.what)
            .and_then(|node| {
                self.reader.text(
                    node,
                    "the authority as `tls.client_authorities` in exeat.yaml names it",
                )
            });
        let names = tables::NAMES.iter().filter_map(|(key, kind)| {
            let node = fields.get(key)?;
            let mut any = self.one_or_more_globs(node, "a name");
            if *kind == NameKind::Dns {
                // Of what is a pattern already, the same in lower case is one.
                any = any
                    .iter()
                    .filter_map(|glob| Glob::parse(&glob.as_str().to_ascii_lowercase()).ok())
                    .collect();
            }
            Some(NameTest { kind: *kind, any })
        });
        let names = names.collect();
        Some(CertificateTest {
            authority: authority?.into(),
            names,
        })
    }

    fn token(&mut self, node: &Node) -> Option<TokenTest> {
        let fields = self.reader.fields(node, &tables::JWT)?;
        let issuer = self
            .reader
            .required(fields, "issuer", tables::JWT.what)
            .and_then(|node| self.reader.text(node, "the issuer as its tokens name it"));
        let claims = match fields.get("claims") {
            None => Some(Vec::new()),
            Some(node) => self.claims(node),
        };
        Some(TokenTest {
            issuer: issuer?.into(),
            claims: claims?,
        })
    }

    fn claims(&mut self, node: &Node) -> Option<Vec<ClaimTest>> {
        let before = self.reader.fault_count();
        let entries = self.reader.entries(node, "claims")?;
        if entries.is_empty() {
            self.reader.fault(
                node.span,
                "empty `claims` ask for nothing; leave them out to mean every token of the issuer",
            );
        }
        let tests: Vec<_> = entries
            .iter()
            .filter_map(|entry| self.claim(entry))
            .collect();
        (self.reader.fault_count() == before).then_some(tests)
    }

    fn claim(&mut self, entry: &Entry) -> Option<ClaimTest> {
        let claim = match Claim::parse(&entry.key) {
            Ok(claim) => Some(claim),
            Err(fault) => {
                self.reader.fault(entry.span, fault.to_string());
                None
            }
        };
        let values = self.reader.one_or_list(&entry.value);
        if values.is_empty() {
            self.reader.fault(
                entry.value.span,
                "expected a text or a list of texts, found an empty list",
            );
        }
        let any: Vec<Arc<str>> = values
            .iter()
            .filter_map(|node| self.reader.text(node, "a text").map(Arc::from))
            .collect();
        Some(ClaimTest { claim: claim?, any })
    }
}
