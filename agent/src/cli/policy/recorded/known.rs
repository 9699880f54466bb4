//! As whom the caller of a record is known to a policy, where a token or a certificate spoke for it: by the recorded claims,
//! or else by the identities that it was recorded as.

use std::sync::Arc;

use exeat_policy::{Identity, PolicySet, Proof, Token};

use super::Question;

impl Question<'_> {
    /// The identities of the caller in `set` that its recorded claims do not show by themselves, where `old` is the policy
    /// of the time; or why it cannot be said who the caller is.
    pub(in crate::cli) fn known(
        &self,
        set: &PolicySet,
        old: &PolicySet,
    ) -> Result<Vec<Arc<str>>, String> {
        let token = self.token();
        let certificate = self.record.identity.as_ref();
        let certificate = certificate.and_then(|who| who.certificate.as_ref());
        let mut asked: Vec<&Identity> = Vec::new();
        if let Some(token) = &token {
            let untold = set.identities_untold(token);
            asked.extend(untold.into_iter().filter_map(|name| set.identity(name)));
        }
        if let Some(shown) = certificate {
            // What asks for no name is shown by whatever was shown.
            asked.extend(set.identities().filter(|identity| {
                matches!(&identity.proof, Proof::Certificate(test) if *test.authority == *shown.authority && !test.names.is_empty())
            }));
        }
        let mut known = Vec::new();
        for identity in asked {
            if self.was(identity, old)? {
                known.push(Arc::clone(&identity.name));
            }
        }
        Ok(known)
    }

    /// Whether the caller was recorded as this identity, as `old` has it as well.
    fn was(&self, identity: &Identity, old: &PolicySet) -> Result<bool, String> {
        let Some(who) = &self.record.identity else {
            return Ok(false);
        };
        if who.identities.is_empty() && !who.name.is_empty() {
            return Err("the record does not name all identities of its caller".to_owned());
        }
        let decided = self.record.decision.as_ref();
        let policy = decided.and_then(|decision| decision.policy.as_deref());
        if policy != Some(old.fingerprint()) {
            return Err(
                "the caller's identities are recorded under another policy than the old one"
                    .to_owned(),
            );
        }
        let before = old.identity(&identity.name);
        if before.is_none_or(|before| before.proof != identity.proof) {
            return Err(format!(
                "identity `{}` asks for claims or names that are not recorded",
                identity.name
            ));
        }
        Ok(who.identities.iter().any(|one| **one == *identity.name))
    }

    /// The token that spoke for the caller, as far as it is recorded.
    pub(in crate::cli) fn token(&self) -> Option<Token<'_>> {
        let who = self.record.identity.as_ref()?;
        (&*who.verified_by == "jwt").then(|| Token {
            issuer: who.issuer.as_deref().unwrap_or_default(),
            subject: who.subject.as_deref().unwrap_or_default(),
            claims: exeat_policy::AsJson::as_json(&self.claims),
        })
    }
}
