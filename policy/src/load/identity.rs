//! How identities are shown: by the Unix user, or by a token.

use std::sync::Arc;

use super::{Loader, tables};
use crate::model::{Claim, ClaimTest, Proof, TokenTest};
use crate::yaml::{Entry, Fields, Node};

impl Loader<'_> {
    /// What an identity asks for; `None` after a fault.
    pub(super) fn proof(&mut self, fields: Fields<'_>) -> Option<Proof> {
        match (fields.get("user"), fields.get("jwt")) {
            (Some(node), None) => Some(Proof::User(self.one_or_more_globs(node, "a user"))),
            (None, Some(node)) => self.token(node).map(Proof::Token),
            (Some(_), Some(node)) => {
                self.reader.fault(
                    node.span,
                    "an identity has either `user` or `jwt`; a role can have both kinds of members",
                );
                None
            }
            (None, None) => {
                self.reader
                    .fault(fields.span, "`user` or `jwt` is missing in an identity");
                None
            }
        }
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
