//! As whom the caller of a record is known to two policies, where a token or a certificate spoke for it: claims and names are
//! not recorded, the identities that they showed are.

use std::sync::Arc;

use exeat_policy::{Identity, PolicySet, Proof};

use crate::audit::Record;

/// The identities of the caller in the old and in the new policy.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) old: Vec<Arc<str>>,
    pub(super) new: Vec<Arc<str>>,
}

/// Nobody of whom nothing is known but what is recorded; or why it cannot be said who the caller is.
pub(super) fn known(record: &Record, old: &PolicySet, new: &PolicySet) -> Result<Known, String> {
    let Some(who) = &record.identity else {
        return Ok(Known::default());
    };
    let issuer = who.issuer.as_deref().filter(|_| &*who.verified_by == "jwt");
    let certificate = who.certificate.as_ref();
    let authority = certificate.map(|shown| &*shown.authority);
    if issuer.is_none() && authority.is_none() {
        return Ok(Known::default());
    }
    if who.identities.is_empty() && !who.name.is_empty() {
        return Err("the record does not name all identities of its caller".to_owned());
    }
    let decided = record.decision.as_ref();
    let policy = decided.and_then(|decision| decision.policy.as_deref());
    if policy != Some(old.fingerprint()) {
        return Err(
            "the caller's identities are recorded under another policy than the old one".to_owned(),
        );
    }
    let has = |name: &str| who.identities.iter().any(|one| &**one == name);
    let about = |identity: &Identity| match &identity.proof {
        Proof::Token(test) if Some(&*test.issuer) == issuer => Some(test.claims.is_empty()),
        Proof::Certificate(test) if Some(&*test.authority) == authority => {
            Some(test.names.is_empty())
        }
        Proof::User(_) | Proof::Token(_) | Proof::Certificate(_) => None,
    };
    let mut known = Known {
        old: who
            .identities
            .iter()
            .map(|name| Arc::from(&**name))
            .collect(),
        new: Vec::new(),
    };
    for identity in new.identities() {
        // What asks for nothing more is shown by whatever was shown.
        let Some(false) = about(identity) else {
            continue;
        };
        let before = old.identity(&identity.name);
        if before.is_none_or(|before| before.proof != identity.proof) {
            let name = &identity.name;
            return Err(format!(
                "identity `{name}` asks for claims or names that are not recorded"
            ));
        }
        if has(&identity.name) {
            known.new.push(Arc::clone(&identity.name));
        }
    }
    Ok(known)
}
