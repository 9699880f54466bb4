//! Answers `policy explain`: turns a [`Question`] into the policy's own request and its explanation
//! into words. Nothing is decided here, and nothing follows from it.

use std::net::IpAddr;

use exeat_policy::{
    self as policy, Count, Counter, Endpoint, LimitKey, Name, NameFault, Outcome, PolicySet,
    Protocol, Request, Target, Timestamp, Url, UrlFault, Workload,
};
use thiserror::Error;

use super::command::{
    Action, Arguments, Caller, OutboundConnection, OutboundRequest, Question, Transport,
};
use super::reply::{Considered, Explanation, Tested};
use crate::decode::json::{self, Limits, Value};

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
}

/// Puts `question` to `set` at `now`. `count` says what a limit's counter stands at.
pub fn answer(
    set: &PolicySet,
    question: &Question,
    now: Timestamp,
    count: impl Fn(&LimitKey) -> Count,
) -> Result<Explanation, QuestionError> {
    let parsed = Parsed::of(&question.action)?;
    let mut request = Request {
        caller: policy::Caller {
            workload: question.caller.as_ref().map(|caller| match caller {
                Caller::Server(name) => Workload::Server(name),
                Caller::Host(name) => Workload::Host(name),
            }),
            user: question.user.as_deref(),
            fetching: false,
            token: None,
            certificate: None,
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

/// The count of a limit that nothing was charged to: for a policy that is not in force.
pub fn unused(key: &LimitKey) -> Count {
    // What nothing was charged to stands the same at every time.
    Counter::new(key.cap).count(key, Timestamp::default())
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
    },
    Request {
        url: Url,
        method: &'a str,
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
            },
            Action::Request(OutboundRequest { method, url }) => {
                let error = |source| QuestionError::Url {
                    url: url.clone(),
                    source,
                };
                // The query is no part of what policy compares.
                let bare = url.split(['?', '#']).next().unwrap_or_default();
                Self::Request {
                    url: Url::parse(bare).map_err(error)?,
                    method,
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
            Self::Run { server } => policy::Action::Run { server },
            Self::Call {
                server,
                method,
                name,
                arguments,
            } => policy::Action::Mcp {
                server,
                method,
                name: *name,
                arguments: arguments.as_ref().map(policy::AsJson::as_json),
                hints: None,
                session: None,
            },
            Self::Request { url, method } => {
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
                    upgrade: false,
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
