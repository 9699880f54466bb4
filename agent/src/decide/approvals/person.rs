//! By which names a person is known: who calls and who approves must share none, whatever each of them showed.

use std::collections::BTreeSet;

use exeat_policy::{Caller, Json, NameKind, PolicySet};

use super::{Approver, Shown};
use crate::channel::ApprovalCaller;

/// Claims that name whom a token is about (`OpenID` Connect Core 1.0 section 5.1, and what issuers in use write).
const CLAIMS: [&str; 8] = [
    "sub",
    "preferred_username",
    "username",
    "user_name",
    "unique_name",
    "upn",
    "email",
    "login",
];
/// Who acts for the subject (RFC 8693 section 4.1).
const ACTOR: &str = "act";

/// The names of who calls: its user, what its token and its certificate name, and the identities and persons that the
/// policy takes it for.
pub fn names_of(caller: &Caller<'_>, set: &PolicySet) -> BTreeSet<String> {
    let mut names = Names::default();
    names.0.extend(caller.user.into_iter().flat_map(readings));
    if let Some(token) = &caller.token {
        names.add(token.subject);
        names.claimed(token.claims);
        if let Json::Map(claims) = token.claims {
            // However deep one acts for another, the present one counts; those before it did not call.
            names.claimed(claims.get(ACTOR).unwrap_or(Json::Null));
        }
    }
    for name in caller.certificate.iter().flat_map(|shown| shown.names) {
        match name.kind {
            NameKind::Uri | NameKind::Email | NameKind::CommonName => names.add(&name.text),
            // A machine's.
            NameKind::Dns => {}
        }
    }
    for name in set.identities_shown(caller) {
        names.add(name);
    }
    for person in set.persons(caller) {
        names.add(person);
    }
    names.0
}

/// Whether this user is who calls, or has a part in the call, by any name that is known. What a gate before this one left
/// has no names; it is looked at again as it is used ([`Approved::is_by`](super::Approved::is_by)).
pub fn takes_part(
    caller: &ApprovalCaller,
    shown: Option<&Shown>,
    approver: &Approver,
    set: &PolicySet,
) -> bool {
    caller.uids.contains(&approver.uid)
        || caller.user.as_deref() == Some(&*approver.user)
        || shown.is_some_and(|shown| shares(&shown.names, &approver.user, set))
}

/// Whether the user of this name has one of these.
pub(super) fn shares(names: &BTreeSet<String>, user: &str, set: &PolicySet) -> bool {
    let own = names_of(
        &Caller {
            user: Some(user),
            ..Caller::default()
        },
        set,
    );
    !own.is_disjoint(names)
}

#[derive(Default)]
struct Names(BTreeSet<String>);

impl Names {
    fn add(&mut self, name: &str) {
        self.0.extend(readings(name));
    }

    fn claimed(&mut self, claims: Json<'_>) {
        let Json::Map(claims) = claims else {
            return;
        };
        for claim in CLAIMS {
            if let Some(Json::Text(name)) = claims.get(claim) {
                self.add(name);
            }
        }
    }
}

/// A name, and what of it a Unix user may be called: without its domain (`ann@corp.example`, `CORP\ann`), its path
/// (`spiffe://corp.example/users/ann`) or its provider (`ldap|ann`). Case is none.
fn readings(name: &str) -> impl Iterator<Item = String> {
    let whole = name.trim().to_lowercase();
    let last = whole.rsplit(['\\', '/', '|', ':']).next();
    let last = last.unwrap_or_default().to_owned();
    let local = |name: &str| name.split('@').next().unwrap_or_default().to_owned();
    let readings = [local(&whole), local(&last), last, whole];
    readings.into_iter().filter(|reading| !reading.is_empty())
}

#[cfg(test)]
mod tests {
    use exeat_policy::{Certificate, CertifiedName, Source, Token, compile};

    use super::*;
    use crate::channel::Granted;
    use crate::decide::Admission;
    use crate::decide::approvals::Approved;
    use crate::decode::json::{Limits, parse};
    use crate::telemetry::clock;

    fn set() -> PolicySet {
        let text = "version: 1
servers: { bank: { url: 'https://bank.example/' } }
identities:
  boss: { user: 'b*' }
  robot: { jwt: { issuer: i, claims: { sub: 7f3c } } }
  bea-card: { jwt: { issuer: i, claims: { sub: '42' } }, person: bea }
  bea-shell: { user: b1234, person: bea }
rules: [{ id: ask, servers: [bank], tools: [pay], effect: approve, approvers: [boss] }]
";
        let source = Source {
            name: "p.yaml".into(),
            text: text.into(),
        };
        compile(&[source]).unwrap()
    }

    fn approved(user: &str) -> Approved {
        Approved {
            by: Granted {
                user: user.to_owned(),
                uid: 3,
                at: clock::wall(),
            },
            admitted: Admission::FREE,
        }
    }

    /// Whether who shows a token of this subject, with these claims, is the user `who`.
    fn is(subject: &str, claims: &str, who: &str) -> bool {
        let claims = parse(claims.as_bytes(), &Limits::REQUEST).unwrap();
        let caller = Caller {
            user: Some("mcp"),
            token: Some(Token {
                issuer: "i",
                subject,
                claims: Json::Map(claims.as_object().unwrap()),
            }),
            ..Caller::default()
        };
        approved(who).is_by(&caller, &set())
    }

    #[test]
    fn a_token_names_its_bearer_in_many_ways() {
        for (subject, claims, who) in [
            ("bob", "{}", "bob"),
            ("Bob@corp.example", "{}", "bob"),
            ("ldap|bob", "{}", "bob"),
            ("x", r#"{"preferred_username":"bob"}"#, "bob"),
            ("x", r#"{"upn":"CORP\\BOB"}"#, "bob"),
            ("x", r#"{"email":"bob@corp.example"}"#, "bob"),
            ("x", r#"{"unique_name":"live.com#x","login":"bob"}"#, "bob"),
            ("x", r#"{"act":{"sub":"bob"}}"#, "bob"),
            // As the policy calls it, and whose it says that it is.
            ("7f3c", r#"{"sub":"7f3c"}"#, "robot"),
            ("42", r#"{"sub":"42"}"#, "b1234"),
            ("42", r#"{"sub":"42"}"#, "bea"),
            // Its process's own user.
            ("x", "{}", "mcp"),
        ] {
            assert!(is(subject, claims, who), "{subject} {claims} {who}");
        }
        for (subject, claims, who) in [
            ("bob2", "{}", "bob"),
            ("bob.example", "{}", "bob"),
            ("42", r#"{"sub":"42"}"#, "bob"),
            ("7f3c", r#"{"sub":"7f3c"}"#, "bob"),
            ("x", r#"{"name":"bob","act":"bob","email":["bob"]}"#, "bob"),
        ] {
            assert!(!is(subject, claims, who), "{subject} {claims} {who}");
        }
    }

    #[test]
    fn a_certificate_names_its_bearer() {
        let named = |kind, text: &str, who: &str| {
            let names = [CertifiedName {
                kind,
                text: text.to_owned(),
            }];
            let caller = Caller {
                certificate: Some(Certificate {
                    authority: "corp",
                    subject: text,
                    names: &names,
                }),
                ..Caller::default()
            };
            approved(who).is_by(&caller, &set())
        };
        let uri = "spiffe://corp.example/users/bob";
        assert!(named(NameKind::Uri, uri, "bob"));
        assert!(named(NameKind::Email, "Bob@corp.example", "bob"));
        assert!(named(NameKind::CommonName, "bob", "bob"));
        assert!(!named(NameKind::Uri, uri, "users"));
        assert!(!named(NameKind::Dns, "bob", "bob"));
    }
}
