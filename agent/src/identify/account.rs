//! Whose is what is remembered of a conversation with a server: what was listed to one caller, and the tasks that its
//! calls became, say nothing to another.

use std::fmt::Write as _;
use std::sync::Arc;

use exeat_policy::{Caller, Workload};

use super::calls::Callee;

/// Who calls, as one that starts anew is known again: by its name in the policy, its user's number (a name may be had at one
/// time and not at another), and whom its token and certificate are about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Whose(Arc<str>);

/// What one caller has with one callee.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Account {
    /// Who carries out what is asked.
    pub callee: Callee,
    /// Who asks.
    pub whose: Whose,
}

impl Whose {
    /// `caller`, whose process is this user's.
    pub fn new(caller: &Caller<'_>, uid: u32) -> Self {
        let mut all = format!("uid={uid}");
        let mut part = |word: &str, text: &str| {
            // Writing to a string cannot fail. The length keeps one text from being taken for several parts.
            let _written = write!(all, " {word}={}:{text}", text.len());
        };
        match caller.workload {
            Some(Workload::Server(name)) => part("server", name),
            Some(Workload::Host(name)) => part("host", name),
            Some(Workload::Unregistered(name)) => part("unregistered", name),
            None => {}
        }
        if let Some(token) = &caller.token {
            part("issuer", token.issuer);
            part("subject", token.subject);
        }
        if let Some(certificate) = &caller.certificate {
            part("authority", certificate.authority);
            part("name", certificate.subject);
        }
        Self(all.into())
    }

    /// The same as a text, no two callers'.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Of whom nothing but the user is attested.
    #[cfg(test)]
    pub fn of_user(uid: u32) -> Self {
        Self(format!("uid={uid}").into())
    }

    /// Of whom nothing is attested.
    #[cfg(test)]
    pub fn nobody() -> Self {
        Self(Arc::from(""))
    }
}

#[cfg(test)]
mod tests {
    use exeat_policy::{Certificate, Json, Token};

    use super::*;

    const NOBODY: Caller<'_> = Caller {
        workload: None,
        user: None,
        fetching: false,
        token: None,
        certificate: None,
        known_as: &[],
    };

    fn shows(issuer: &'static str, subject: &'static str, claims: Json<'static>) -> Whose {
        let token = Some(Token {
            issuer,
            subject,
            claims,
        });
        Whose::new(&Caller { token, ..NOBODY }, 1)
    }

    #[test]
    fn callers_are_told_apart_by_all_that_is_attested_of_them() {
        let works = |workload| {
            let workload = Some(workload);
            Whose::new(&Caller { workload, ..NOBODY }, 1)
        };
        let certified = Caller {
            certificate: Some(Certificate {
                authority: "a",
                subject: "b",
                names: &[],
            }),
            ..NOBODY
        };
        let callers = [
            Whose::new(&NOBODY, 0),
            Whose::new(&NOBODY, 1),
            works(Workload::Host("a")),
            works(Workload::Server("a")),
            shows("a", "b subject=1:c", Json::Null),
            shows("a subject=1:b", "c", Json::Null),
            Whose::new(&certified, 1),
        ];
        for (at, one) in callers.iter().enumerate() {
            let same = callers.iter().filter(|other| *other == one);
            assert_eq!(same.count(), 1, "{at}");
        }
        let named = Caller {
            user: Some("a"),
            ..NOBODY
        };
        assert_eq!(Whose::new(&named, 1), Whose::new(&NOBODY, 1));
        let other_claims = Json::Text("other");
        assert_eq!(shows("a", "b", Json::Null), shows("a", "b", other_claims));
    }
}
