//! A record of the log as the question that it was to the policy.

mod json;
mod known;

use std::sync::Arc;

use exeat_policy::{
    Action, AsJson as _, Caller, Certificate, Considered, Effect, Explanation, Hints, Json, Name,
    Outcome, PolicySet, Protocol, Reason, Request, Subject, Target, Timestamp, Unevaluated,
    Verdict, Workload, explain,
};

pub(in crate::cli) use self::json::Recorded;
use crate::audit::is_whole;
use crate::audit::mask::{MASK, MORE};
use crate::audit::record::{self, Http, Kind, Mcp, Record, Tcp, WorkloadKind};
use crate::decide::{Tally, is_own, unused};

/// Whether a token or a certificate spoke for the caller.
pub(in crate::cli) fn shows(record: &Record) -> bool {
    let who = record.identity.as_ref();
    who.is_some_and(|who| ["jwt", "certificate"].contains(&&*who.verified_by))
}

/// Why a record cannot be put to a policy again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli) enum NotReplayed {
    /// Nothing was decided, or nothing that a policy is asked: what the gate does by itself, and what a host started
    /// without Exeat.
    Undecided,
    /// What was asked could not be read, or is not in the record.
    Unreadable,
    /// A token or a certificate spoke for the caller, and it cannot be said as whom the policy knows it.
    Caller,
}

/// What became of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Answer {
    /// It is decided.
    Decided {
        effect: Effect,
        /// By this rule, or for this reason.
        by: String,
    },
    /// A value that the record leaves out decides, in this rule.
    Untold(String),
}

/// A record's question.
#[derive(Debug)]
pub(in crate::cli) struct Question<'a> {
    pub(in crate::cli) record: &'a Record,
    pub(in crate::cli) arguments: Kept,
    pub(in crate::cli) asked: Asked<'a>,
    /// Of the claims of the caller's token what is recorded.
    claims: Recorded,
    /// The caller's identities that they do not show.
    known_as: Vec<Arc<str>>,
    /// Whether the server that acts could still fetch its own code; where known.
    fetching: Option<bool>,
}

#[derive(Debug)]
pub(in crate::cli) enum Asked<'a> {
    /// `exeat run` of this server, with what was to follow its arguments.
    Run {
        server: &'a str,
        extra_args: Vec<String>,
    },
    Mcp {
        server: &'a str,
        mcp: &'a Mcp,
    },
    Http {
        peer: Peer,
        port: u16,
        http: &'a Http,
    },
    Connect {
        peer: Peer,
        port: u16,
        protocol: Protocol,
    },
    Resolve(Name),
}

#[derive(Debug)]
pub(in crate::cli) enum Peer {
    Name(Name),
    Address(std::net::IpAddr),
}

/// Arguments as a record has them: without its secrets and what was too long.
#[derive(Debug)]
pub(in crate::cli) enum Kept {
    None,
    All(Recorded),
    Nothing,
}

impl<'a> Question<'a> {
    /// What `record` asked, to be put to `set` by a caller who is known to it.
    pub(in crate::cli) fn to(record: &'a Record, set: &PolicySet) -> Result<Self, NotReplayed> {
        let question = Self::of(record)?;
        let known_as = question.known(set, set);
        let known_as = known_as.map_err(|_why| NotReplayed::Caller)?;
        Ok(Self {
            known_as,
            ..question
        })
    }

    /// What `record` asked. Where a token or a certificate spoke for the caller, who puts it says as whom it is known.
    pub(in crate::cli) fn of(record: &'a Record) -> Result<Self, NotReplayed> {
        let decision = record.decision.as_ref();
        let decision = decision.filter(|_| record.open.is_none() && record.kind != Kind::Exec);
        if decision.is_none_or(is_own) {
            return Err(NotReplayed::Undecided);
        }
        let asked = Self::asked(record).ok_or(NotReplayed::Unreadable)?;
        let arguments = match &asked {
            Asked::Mcp { mcp, .. } if mcp.arguments_cut => Kept::Nothing,
            Asked::Mcp { mcp, .. } => match &mcp.arguments {
                None => Kept::None,
                Some(value) => Kept::All(Recorded::of(value)),
            },
            _ => Kept::None,
        };
        let who = record.identity.as_ref();
        let claims = who.map(|who| Recorded::claims(who.claims.as_ref(), &who.claims_read));
        Ok(Self {
            record,
            arguments,
            asked,
            claims: claims.unwrap_or(Recorded::Unknown),
            known_as: Vec::new(),
            fetching: None,
        })
    }

    /// Takes from the record whether the server could still fetch its own code: what was allowed could, if it is `set`'s
    /// fetch hosts alone that allow it. Of what was refused for other reasons, and of what else allows, nobody can tell.
    pub(in crate::cli) fn infer_fetching(&mut self, set: &PolicySet, now: Timestamp) {
        if let Asked::Run { .. } | Asked::Mcp { .. } = self.asked {
            return;
        }
        let Some(decision) = &self.record.decision else {
            return;
        };
        if decision.reason.as_deref() == Some(Reason::FetchOver.text()) {
            self.fetching = Some(false);
        } else if decision.effect == record::Effect::Allow
            && self.verdict(set, now).reason == Reason::FetchOver
        {
            self.fetching = Some(true);
        }
    }

    fn asked(record: &'a Record) -> Option<Asked<'a>> {
        if let Some(lifecycle) = &record.lifecycle {
            let server = lifecycle.detail.as_deref()?;
            let run = &*lifecycle.event == "run" && is_whole(server);
            let extra_args = lifecycle.extra_args.iter().map(ToString::to_string);
            return run.then(|| Asked::Run {
                server,
                extra_args: extra_args.collect(),
            });
        }
        if let Some(mcp) = &record.mcp {
            let server = mcp.server.as_deref()?;
            return (!mcp.method.is_empty()).then_some(Asked::Mcp { server, mcp });
        }
        if let Some(http) = &record.http {
            http.method.as_ref()?;
            let peer = peer(http.name.as_deref(), http.address)?;
            let port = http.port?;
            return Some(Asked::Http { peer, port, http });
        }
        if let Some(dns) = &record.dns {
            return Name::parse(&dns.name).ok().map(Asked::Resolve);
        }
        let Tcp {
            protocol,
            name,
            address,
            port,
            ..
        } = record.tcp.as_ref()?;
        let protocol = match &**protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return None,
        };
        Some(Asked::Connect {
            peer: peer(name.as_deref(), *address)?,
            port: (*port)?,
            protocol,
        })
    }

    /// Puts it to a policy. Limits count nothing here.
    pub(in crate::cli) fn put(&self, set: &PolicySet, now: Timestamp) -> Answer {
        self.put_by(self.showing(&self.known_as), set, now)
    }

    /// The identities that the caller showed, by name, and those of them that alone would do.
    pub(in crate::cli) fn identities(
        &self,
        set: &PolicySet,
        now: Timestamp,
    ) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        let shown = set.identities_shown(&self.showing(&[]));
        let mut names: Vec<_> = shown.into_iter().chain(&self.known_as).cloned().collect();
        names.sort();
        let does = |name: &Arc<str>| self.passes(std::slice::from_ref(name), set, now);
        let alone = names.iter().filter(|name| does(name)).cloned().collect();
        (names, alone)
    }

    /// Whether it would do without any token or certificate.
    pub(in crate::cli) fn needs_nothing(&self, set: &PolicySet, now: Timestamp) -> bool {
        self.passes(&[], set, now)
    }

    /// Whether it passes, as far as the record tells, where the caller has these identities and nothing to show.
    fn passes(&self, known_as: &[Arc<str>], set: &PolicySet, now: Timestamp) -> bool {
        let caller = Caller {
            known_as,
            ..self.caller()
        };
        match self.put_by(caller, set, now) {
            Answer::Decided { effect, .. } => effect == Effect::Allow,
            Answer::Untold(_) => true,
        }
    }

    fn put_by(&self, caller: Caller<'_>, set: &PolicySet, now: Timestamp) -> Answer {
        let request = Request {
            caller,
            action: self.action(),
            now,
            counts: &[],
        };
        let counts: Vec<_> = exeat_policy::limit_keys(set, &request)
            .iter()
            .map(unused)
            .collect();
        self.answer(
            set,
            &explain(
                set,
                &Request {
                    counts: &counts,
                    ..request
                },
            ),
        )
    }

    /// Puts it to a policy to which the caller is known so, with the limits of `tally` as they stand `at` then. The second:
    /// whether a limit is about it.
    pub(in crate::cli) fn replay(
        &self,
        set: &PolicySet,
        now: Timestamp,
        known_as: &[Arc<str>],
        tally: (&Tally, Timestamp),
    ) -> (Answer, bool) {
        let request = Request {
            caller: self.showing(known_as),
            action: self.action(),
            now,
            counts: &[],
        };
        let approval = self.record.approval.as_ref();
        let decision = approval.and_then(|approval| approval.decision.as_deref());
        let approved = decision == Some("approved");
        let (tally, at) = tally;
        tally.weigh(set, request, self.session(), (self.record, at), |request| {
            let explanation = explain(set, request);
            let answer = self.answer(set, &explanation);
            let passes = match &answer {
                Answer::Decided { effect, .. } => match effect {
                    Effect::Allow => true,
                    Effect::Approve => approved,
                    Effect::DryRun => explanation.verdict.dry_run.is_some(),
                    Effect::Deny => false,
                },
                Answer::Untold(_) => false,
            };
            (answer, passes)
        })
    }

    fn session(&self) -> Option<&str> {
        let session = self.record.session.as_ref();
        session
            .map(|session| &*session.id)
            .filter(|id| !id.is_empty())
    }

    /// What a policy says to it, and by which entry. Limits count nothing here.
    pub(in crate::cli) fn verdict(&self, set: &PolicySet, now: Timestamp) -> Verdict {
        self.explanation(set, now).verdict
    }

    /// The same, with all that was considered.
    pub(in crate::cli) fn explanation(&self, set: &PolicySet, now: Timestamp) -> Explanation {
        let request = Request {
            caller: self.showing(&self.known_as),
            action: self.action(),
            now,
            counts: &[],
        };
        let keys = exeat_policy::limit_keys(set, &request);
        let counts: Vec<_> = keys.iter().map(unused).collect();
        let counts = &counts;
        explain(set, &Request { counts, ..request })
    }

    /// The grants of a policy that are about it, if the caller has these identities besides.
    pub(in crate::cli) fn granted(
        &self,
        set: &PolicySet,
        now: Timestamp,
        known_as: &[Arc<str>],
    ) -> Vec<Arc<str>> {
        let request = Request {
            caller: self.showing(known_as),
            action: self.action(),
            now,
            counts: &[],
        };
        let considered = explain(set, &request).considered;
        let granted = considered
            .into_iter()
            .filter_map(|item| match item.subject {
                Subject::Grant(id) if item.outcome == Outcome::Matched => Some(id),
                _ => None,
            });
        granted.collect()
    }

    pub(in crate::cli) fn caller(&self) -> Caller<'_> {
        let workload = self.record.workload.as_ref();
        let identity = self.record.identity.as_ref();
        // A user who is no managed workload's acts without a name of the policy's.
        let runs = matches!(self.asked, Asked::Run { .. });
        let acts = |name: &str| {
            runs || shows(self.record) || identity.is_none_or(|who| &*who.name == name)
        };
        Caller {
            workload: workload
                .filter(|workload| !workload.name.is_empty() && acts(&workload.name))
                .and_then(|workload| match workload.kind {
                    WorkloadKind::Server => Some(Workload::Server(&workload.name)),
                    WorkloadKind::Host => Some(Workload::Host(&workload.name)),
                    WorkloadKind::Unregistered => Some(Workload::Unregistered(&workload.name)),
                    WorkloadKind::Unmanaged | WorkloadKind::Unknown => None,
                }),
            user: identity.and_then(|who| who.user.as_deref()),
            fetching: self.fetching == Some(true),
            token: None,
            certificate: None,
            known_as: &[],
        }
    }

    /// The caller with what it showed, as far as the record says, and with these identities.
    fn showing<'q>(&'q self, known_as: &'q [Arc<str>]) -> Caller<'q> {
        let identity = self.record.identity.as_ref();
        let certificate = identity.and_then(|who| who.certificate.as_ref());
        Caller {
            token: self.token(),
            certificate: certificate.map(|shown| Certificate {
                authority: &shown.authority,
                subject: &shown.subject,
                names: &[],
            }),
            known_as,
            ..self.caller()
        }
    }

    fn action(&self) -> Action<'_> {
        match &self.asked {
            Asked::Run { server, extra_args } => Action::Run { server, extra_args },
            Asked::Mcp { server, mcp } => Action::Mcp {
                server,
                method: &mcp.method,
                name: mcp.name.as_deref(),
                arguments: match &self.arguments {
                    Kept::None => None,
                    Kept::All(value) => Some(value.as_json()),
                    Kept::Nothing => Some(Json::Unknown),
                },
                hints: mcp.class.as_deref().and_then(hints),
                session: self.session(),
            },
            Asked::Http { peer, port, http } => Action::Http {
                target: peer.target(),
                port: *port,
                method: http.method.as_deref().unwrap_or_default(),
                path: http
                    .path
                    .as_deref()
                    .and_then(|path| path.split('?').next())
                    .unwrap_or_default(),
                tls: http.sni.is_some(),
                upgrade: self.is_upgrade(http),
                calls: &[],
            },
            Asked::Connect {
                peer,
                port,
                protocol,
            } => Action::Connect {
                target: peer.target(),
                port: *port,
                protocol: *protocol,
            },
            Asked::Resolve(name) => Action::Resolve { name },
        }
    }

    /// Whether the request asks for an upgrade, as far as what came of it tells.
    fn is_upgrade(&self, http: &Http) -> bool {
        let decision = self.record.decision.as_ref();
        let why = decision.and_then(|decision| decision.reason.as_deref());
        http.status == Some(101) || why == Some(Reason::UpgradeNotAllowed.text())
    }

    /// What an explanation comes to, where all that decides is known.
    fn answer(&self, set: &PolicySet, explanation: &Explanation) -> Answer {
        if explanation.verdict.reason == Reason::FetchOver && self.fetching.is_none() {
            return Answer::Untold("a fetch host".to_owned());
        }
        if explanation.verdict.reason == Reason::ExtraArgument
            && let Asked::Run { extra_args, .. } = &self.asked
            && !extra_args
                .iter()
                .all(|word| is_whole(word) && word != MORE && !word.contains(MASK))
        {
            return Answer::Untold("`extra_args`".to_owned());
        }
        answer(set, explanation)
    }

    /// Who asked, in words.
    pub(in crate::cli) fn who(&self) -> String {
        let caller = self.caller();
        let workload = caller.workload.map(|workload| match workload {
            Workload::Server(name) => format!("server {name}"),
            Workload::Host(name) => format!("host {name}"),
            Workload::Unregistered(host) => format!("an unregistered server of host {host}"),
        });
        let user = caller.user.map(|user| format!("user {user}"));
        let place = workload.or(user);
        match (place, self.shown_as()) {
            (Some(place), Some(shown)) => format!("{place} as {shown}"),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => "nobody known".to_owned(),
        }
    }

    /// As whom a token or a certificate showed the caller: its recorded identities, or else whom it names.
    fn shown_as(&self) -> Option<String> {
        let who = self.record.identity.as_ref();
        let who = who.filter(|_| shows(self.record))?;
        let identities: Vec<&str> = who.identities.iter().map(|name| &**name).collect();
        if !identities.is_empty() {
            return Some(identities.join(", "));
        }
        match (who.subject.as_deref(), who.issuer.as_deref()) {
            (Some(subject), Some(issuer)) => Some(format!("{subject} of {issuer}")),
            (Some(one), None) | (None, Some(one)) => Some(one.to_owned()),
            (None, None) => None,
        }
    }

    /// What for, in words; paths are left out, so that like stands with like.
    pub(in crate::cli) fn what(&self) -> String {
        match &self.asked {
            Asked::Run { server, .. } => format!("start of {server}"),
            Asked::Mcp { server, mcp } => match &mcp.name {
                Some(name) => format!("{} {name} of {server}", &*mcp.method),
                None => format!("{} of {server}", &*mcp.method),
            },
            Asked::Http { peer, port, http } => {
                let method = http.method.as_deref().unwrap_or_default();
                format!("{method} {peer}:{port}")
            }
            Asked::Connect {
                peer,
                port,
                protocol,
            } => format!("{protocol} {peer}:{port}"),
            Asked::Resolve(name) => format!("lookup of {name}"),
        }
    }
}

fn answer(set: &PolicySet, explanation: &Explanation) -> Answer {
    let Explanation {
        verdict,
        considered,
    } = explanation;
    let rule = |item: &Considered| match &item.subject {
        Subject::Rule(id) | Subject::Grant(id) => set.rules().iter().find(|rule| rule.id == *id),
        _ => None,
    };
    let matched = considered
        .iter()
        .filter(|item| item.outcome == Outcome::Matched);
    let mut matched = matched.filter_map(rule);
    let denied = matched.find(|rule| rule.effect == Effect::Deny);
    // What only observes has no say, and to what is not denied without it an allow rule adds nothing.
    let unknown = considered.iter().find(|item| {
        item.outcome == Outcome::Failed(Unevaluated::Unknown)
            && (verdict.effect == Effect::Deny
                || rule(item).is_none_or(|rule| rule.effect != Effect::Allow))
    });
    match (denied, unknown) {
        (None, Some(item)) => Answer::Untold(item.subject.to_string()),
        // Deny beats all: what another rule denies is denied whatever the value was.
        (Some(rule), Some(_)) => Answer::Decided {
            effect: Effect::Deny,
            by: format!("rule `{}`", rule.id),
        },
        (_, None) => Answer::Decided {
            effect: verdict.effect,
            by: match &verdict.rule {
                Some(rule) => format!("rule `{rule}`"),
                None => verdict.reason.to_string(),
            },
        },
    }
}

/// What a server must have said of a tool that was taken for `class`, where the register says nothing.
fn hints(class: &str) -> Option<Hints> {
    let has = |word: &str| class.split([',', ' ', '+']).any(|part| part == word);
    (!class.is_empty()).then(|| Hints {
        read_only: Some(has("read")),
        destructive: Some(has("destructive")),
        open_world: Some(has("external")),
    })
}

fn peer(name: Option<&str>, address: Option<std::net::IpAddr>) -> Option<Peer> {
    match name {
        Some(name) => match name.parse() {
            Ok(address) => Some(Peer::Address(address)),
            Err(_) => Name::parse(name).ok().map(Peer::Name),
        },
        None => address.map(Peer::Address),
    }
}

impl Peer {
    fn target(&self) -> Target<'_> {
        match self {
            Self::Name(name) => Target::Name(name),
            Self::Address(address) => Target::Address(*address),
        }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}
