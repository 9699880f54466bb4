//! Answers `policy explain`: turns a [`Question`] into the policy's own request and its explanation
//! into words. Nothing is decided here, and nothing follows from it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use exeat_policy::{
    self as policy, CertifiedName, Count, Endpoint, Hints, LimitKey, Name, NameFault, NameKind,
    Outcome, PolicySet, Protocol, Request, Target, Timestamp, Url, UrlFault, Workload,
};
use thiserror::Error;

use super::command::{
    Action, Arguments, Caller, OutboundConnection, OutboundRequest, Question, StatedCertificate,
    StatedToken, Transport,
};
use super::reply::{Considered, Explanation, Tested};
use crate::decode::json::{self, Limits, Object, Value};
use crate::identify::certificate::subject;

/// A question that cannot be put to the policy.
#[derive(Debug, Error)]
pub enum QuestionError {
    /// Not a URL.
    #[error("read `{url}` as a url")]
    Url {
        /// As given.
        url: String,
        /// What is wrong.
        #[source]
        source: UrlFault,
    },
    /// Neither a name nor an address.
    #[error("read `{host}` as a host")]
    Host {
        /// As given.
        host: String,
        /// What is wrong.
        #[source]
        source: NameFault,
    },
    /// Arguments that no client could send.
    #[error("read the arguments as JSON")]
    Json(#[source] json::Fault),
    /// Arguments of another type.
    #[error("the arguments are not a JSON object")]
    NoObject,
    /// Claims that no token could have.
    #[error("read the claims as a JSON object")]
    Claims(#[source] json::Fault),
    /// Claims of another type.
    #[error("the claims are not a JSON object")]
    NoClaims,
    /// A token that says one thing of itself and another in its claims.
    #[error("`{claim}` of the claims is not what is given beside them")]
    Contradicts {
        /// `iss` or `sub`.
        claim: &'static str,
    },
    /// An issuer that nothing in the policy is about.
    #[error("nothing in the policy is about tokens of `{issuer}`; it knows {known}")]
    Issuer {
        /// As given.
        issuer: String,
        /// Those that identities name.
        known: String,
    },
    /// An authority that nothing in the policy is about.
    #[error("nothing in the policy is about certificates of `{authority}`; it knows {known}")]
    Authority {
        /// As given.
        authority: String,
        /// Those that identities name.
        known: String,
    },
    /// A token or a certificate where none counts.
    #[error("a token or a certificate counts for messages to a server alone")]
    NotShown,
}

/// Puts `question` to `set` at `now`. `count` says what a limit's counter stands at.
pub fn answer(
    set: &PolicySet,
    question: &Question,
    now: Timestamp,
    count: impl Fn(&LimitKey) -> Count,
) -> Result<Explanation, QuestionError> {
    let parsed = Parsed::of(&question.action)?;
    let shown = Shown::of(set, question)?;
    let mut request = Request {
        caller: policy::Caller {
            workload: question.caller.as_ref().map(|caller| match caller {
                Caller::Server(name) => Workload::Server(name),
                Caller::Host(name) => Workload::Host(name),
            }),
            user: question.user.as_deref(),
            fetching: question.fetching,
            token: shown.token(),
            certificate: shown.certificate(),
            known_as: &[],
        },
        action: parsed.action(),
        now,
        counts: &[],
    };
    let counts: Vec<Count> = policy::limit_keys(set, &request)
        .iter()
        .map(count)
        .collect();
    request.counts = &counts;
    Ok(explanation(set, policy::explain(set, &request)))
}

/// The token and the certificate that are stated, in the form that policy judges.
struct Shown<'a> {
    token: Option<(&'a StatedToken, Object)>,
    certificate: Option<(&'a StatedCertificate, Vec<CertifiedName>, String)>,
}

impl<'a> Shown<'a> {
    fn of(set: &PolicySet, question: &'a Question) -> Result<Self, QuestionError> {
        let shows = question.token.is_some() || question.certificate.is_some();
        if shows && !matches!(question.action, Action::Call(_)) {
            return Err(QuestionError::NotShown);
        }
        let token = match &question.token {
            None => None,
            Some(token) => {
                known_issuer(set, &token.issuer)?;
                Some((token, claims(token)?))
            }
        };
        let certificate = match &question.certificate {
            None => None,
            Some(certificate) => {
                known_authority(set, &certificate.authority)?;
                let names = names(certificate);
                let subject = subject(&names);
                Some((certificate, names, subject))
            }
        };
        Ok(Self { token, certificate })
    }

    fn token(&self) -> Option<policy::Token<'_>> {
        let (token, claims) = self.token.as_ref()?;
        let of_claims = || claims.get("sub").and_then(Value::as_str);
        Some(policy::Token {
            issuer: &token.issuer,
            subject: of_claims().unwrap_or_default(),
            claims: policy::Json::Map(claims),
        })
    }

    fn certificate(&self) -> Option<policy::Certificate<'_>> {
        let (certificate, names, subject) = self.certificate.as_ref()?;
        Some(policy::Certificate {
            authority: &certificate.authority,
            subject,
            names,
        })
    }
}

/// All that the token claims: `iss` and `sub` as well, which each token has.
fn claims(token: &StatedToken) -> Result<Object, QuestionError> {
    let mut claims = match &token.claims {
        None => Object::default(),
        Some(Arguments(text)) => {
            let value =
                json::parse(text.as_bytes(), &Limits::REQUEST).map_err(QuestionError::Claims)?;
            value.as_object().ok_or(QuestionError::NoClaims)?.clone()
        }
    };
    let stated = [
        ("iss", Some(&token.issuer)),
        ("sub", token.subject.as_ref()),
    ];
    for (claim, stated) in stated {
        match (claims.get(claim), stated) {
            (Some(value), Some(stated)) if value.as_str() != Some(stated) => {
                return Err(QuestionError::Contradicts { claim });
            }
            (None, Some(stated)) => drop(claims.insert(claim, stated.as_str())),
            _ => {}
        }
    }
    Ok(claims)
}

fn names(certificate: &StatedCertificate) -> Vec<CertifiedName> {
    let named = |kind, texts: &[String]| {
        let name = |text: &String| CertifiedName {
            kind,
            text: if kind == NameKind::Dns {
                text.to_ascii_lowercase()
            } else {
                text.clone()
            },
        };
        texts.iter().map(name).collect::<Vec<_>>()
    };
    [
        named(NameKind::Uri, &certificate.uri),
        named(NameKind::Dns, &certificate.dns),
        named(NameKind::Email, &certificate.email),
        named(NameKind::CommonName, certificate.common_name.as_slice()),
    ]
    .concat()
}

/// Whether something in the policy is about tokens of the issuer. One that no identity names counts where a condition asks for what a token says.
pub fn known_issuer(set: &PolicySet, issuer: &str) -> Result<(), QuestionError> {
    const OF_TOKENS: [&str; 3] = ["caller.issuer", "caller.subject", "caller.claims"];
    let asks = |rule: &policy::Rule| {
        let when = rule.when.as_ref().map(ToString::to_string);
        when.is_some_and(|when| OF_TOKENS.iter().any(|asked| when.contains(asked)))
    };
    if set.names_issuer(issuer) || set.rules().iter().any(asks) {
        return Ok(());
    }
    let named = set
        .identities()
        .filter_map(|identity| match &identity.proof {
            policy::Proof::Token(test) => Some(&*test.issuer),
            policy::Proof::User(_) | policy::Proof::Certificate(_) => None,
        });
    Err(QuestionError::Issuer {
        issuer: issuer.to_owned(),
        known: joined(named),
    })
}

/// Whether something in the policy is about certificates of the authority.
pub fn known_authority(set: &PolicySet, authority: &str) -> Result<(), QuestionError> {
    let named = || {
        set.identities()
            .filter_map(|identity| match &identity.proof {
                policy::Proof::Certificate(test) => Some(&*test.authority),
                policy::Proof::User(_) | policy::Proof::Token(_) => None,
            })
    };
    if named().any(|name| name == authority) {
        return Ok(());
    }
    Err(QuestionError::Authority {
        authority: authority.to_owned(),
        known: joined(named()),
    })
}

/// Names in order, each once.
fn joined<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: BTreeSet<String> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        return "none".to_owned();
    }
    names.into_iter().collect::<Vec<_>>().join(", ")
}

/// The parts of an action that policy wants parsed.
enum Parsed<'a> {
    Run {
        server: &'a str,
    },
    Call {
        server: &'a str,
        method: &'a str,
        name: Option<&'a str>,
        arguments: Option<Value>,
        hints: Option<Hints>,
    },
    Request {
        url: Url,
        method: &'a str,
        upgrade: bool,
    },
    Connect {
        to: Destination,
        port: u16,
        protocol: Protocol,
    },
}

enum Destination {
    Name(Name),
    Address(IpAddr),
}

impl<'a> Parsed<'a> {
    fn of(action: &'a Action) -> Result<Self, QuestionError> {
        Ok(match action {
            Action::Run(run) => Self::Run { server: &run.name },
            Action::Call(call) => Self::Call {
                server: &call.server,
                method: &call.method,
                name: call.name.as_deref(),
                arguments: match &call.arguments {
                    None => None,
                    Some(Arguments(text)) => Some(read(text)?),
                },
                hints: call.hints.map(Hints::from),
            },
            Action::Request(OutboundRequest {
                method,
                url,
                upgrade,
            }) => {
                let error = |source| QuestionError::Url {
                    url: url.clone(),
                    source,
                };
                // The query is no part of what policy compares.
                let bare = url.split(['?', '#']).next().unwrap_or_default();
                Self::Request {
                    url: Url::parse(bare).map_err(error)?,
                    method,
                    upgrade: *upgrade,
                }
            }
            Action::Connect(OutboundConnection {
                host,
                port,
                protocol,
            }) => Self::Connect {
                to: destination(host)?,
                port: *port,
                protocol: match protocol {
                    Transport::Tcp => Protocol::Tcp,
                    Transport::Udp => Protocol::Udp,
                },
            },
        })
    }

    fn action(&self) -> policy::Action<'_> {
        match self {
            Self::Run { server } => policy::Action::Run {
                server,
                extra_args: &[],
            },
            Self::Call {
                server,
                method,
                name,
                arguments,
                hints,
            } => policy::Action::Mcp {
                server,
                method,
                name: *name,
                arguments: arguments.as_ref().map(policy::AsJson::as_json),
                hints: *hints,
                session: None,
            },
            Self::Request {
                url,
                method,
                upgrade,
            } => {
                let (target, port) = match &url.endpoint {
                    Endpoint::Name(name, port) => (Target::Name(name), *port),
                    Endpoint::Address(address, port) => (Target::Address(*address), *port),
                };
                let (path, tls) = (url.path.as_str(), url.tls);
                policy::Action::Http {
                    target,
                    port,
                    method,
                    path,
                    tls,
                    upgrade: *upgrade,
                    calls: &[],
                }
            }
            Self::Connect { to, port, protocol } => policy::Action::Connect {
                target: match to {
                    Destination::Name(name) => Target::Name(name),
                    Destination::Address(address) => Target::Address(*address),
                },
                port: *port,
                protocol: *protocol,
            },
        }
    }
}

/// Reads arguments as the gate reads them.
fn read(text: &str) -> Result<Value, QuestionError> {
    let value = json::parse(text.as_bytes(), &Limits::REQUEST).map_err(QuestionError::Json)?;
    match value.as_object() {
        Some(_) => Ok(value),
        None => Err(QuestionError::NoObject),
    }
}

fn destination(host: &str) -> Result<Destination, QuestionError> {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(address) = bare.parse() {
        return Ok(Destination::Address(address));
    }
    let error = |source| QuestionError::Host {
        host: host.to_owned(),
        source,
    };
    Name::parse(host).map(Destination::Name).map_err(error)
}

fn explanation(set: &PolicySet, explained: policy::Explanation) -> Explanation {
    let verdict = &explained.verdict;
    let rule = verdict.rule.as_deref();
    let said = rule.and_then(|id| set.rules().iter().find(|rule| *rule.id == *id));
    let said = said.and_then(|rule| rule.reason.as_deref());
    let why = verdict.reason.to_string();
    Explanation {
        effect: verdict.effect.to_string(),
        mode: verdict.mode.to_string(),
        would: verdict.would.as_ref().map(|would| {
            let rule = would
                .rule
                .as_deref()
                .map(|rule| format!(" by rule `{rule}`"));
            format!(
                "{}{}: {}",
                would.effect,
                rule.unwrap_or_default(),
                would.reason
            )
        }),
        rule: rule.map(str::to_owned),
        reason: said.map_or_else(|| why.clone(), |said| format!("{why}: {said}")),
        identities: verdict.identities.iter().map(ToString::to_string).collect(),
        class: verdict.class.map(|class| class.to_string()),
        fingerprint: set.fingerprint().to_owned(),
        considered: explained.considered.iter().map(considered).collect(),
    }
}

fn considered(item: &policy::Considered) -> Considered {
    Considered {
        subject: item.subject.to_string(),
        place: item.place.as_ref().map(ToString::to_string),
        matched: matches!(
            item.outcome,
            Outcome::Matched
                | Outcome::Observed
                | Outcome::Failed(_)
                | Outcome::FailedObserved(_)
                | Outcome::UsedUp
        ),
        why: item.outcome.to_string(),
        tests: item.trace.iter().map(tested).collect(),
    }
}

fn tested(test: &policy::Tested) -> Tested {
    Tested {
        test: test.test.clone(),
        holds: test.holds.ok(),
        why: match test.holds {
            Ok(true) => "holds".to_owned(),
            Ok(false) => "does not hold".to_owned(),
            Err(why) => why.to_string(),
        },
    }
}

#[cfg(test)]
mod tests;
