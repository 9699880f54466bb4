//! What was seen: recorded exchanges that were allowed and still are, by what a rule can tell of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use exeat_policy::{
    Date, Effect, EgressRule, Glob, Governance, HostRule, Origin, PathGlob, PolicySet, Rule,
    Timestamp, Tls, Transport, Wire, Workload, governance, normalise_path,
};

use super::shape::Shape;
use super::who::{Who, asks, everybody, who};
use crate::audit::is_whole;
use crate::audit::record::{self, Record};
use crate::cli::policy::recorded::{Asked, NotReplayed, Peer, Question};

/// A message to a server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Message {
    pub(super) who: Who,
    pub(super) server: String,
    pub(super) method: String,
    /// Empty where the method names nothing.
    pub(super) name: String,
    pub(super) shape: Shape,
    /// The rule that allows it, where that asks for more than names.
    pub(super) rule: Option<Arc<str>>,
}

/// How often a server was reached.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) count: u64,
    /// The last day on which the policy lets it.
    pub(super) until: Option<Date>,
}

/// A workload whose traffic is seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    Server(String),
    Host(String),
}

/// Traffic by one entry of a workload's `egress`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Traffic {
    pub(super) owner: Owner,
    /// The entry of the policy that allows it.
    pub(super) entry: usize,
    /// A name, or a network of one address.
    pub(super) peer: String,
    pub(super) port: u16,
    /// Of a decoded connection: the method, and whether it was upgraded.
    pub(super) method: Option<(String, bool)>,
}

/// Why something is left out of the draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Left {
    /// A token or a certificate spoke for the caller, and the record does not say for whom.
    Caller,
    /// The record does not say what was asked.
    Unreadable,
    /// The policy as it is refuses it.
    Refused,
    /// No rule can tell it, and nothing else.
    Untellable,
    /// A name that was looked up, or a connection, without a request.
    Unused,
    /// Rules that the policy keeps leave nothing of it.
    Overruled,
}

/// All that was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) messages: BTreeMap<Message, u64>,
    /// With the paths of decoded requests.
    pub(super) traffic: BTreeMap<Traffic, BTreeMap<String, u64>>,
    /// Who reached a server at all.
    pub(super) reached: BTreeMap<(Who, String), Reached>,
    /// Classes of tools that were called.
    pub(super) classes: BTreeMap<(Who, String), BTreeSet<String>>,
    /// Servers of a host's list, and hosts of a launch's `fetch`, by their place.
    pub(super) listed: BTreeSet<(String, usize)>,
    pub(super) fetched: BTreeSet<(String, usize)>,
    /// What covers the arguments that were added where servers were started: as patterns.
    pub(super) added: BTreeMap<String, BTreeSet<String>>,
    /// Names that were looked up and destinations that were connected to, which only requests would tell more of.
    bare: BTreeMap<(Owner, String), u64>,
    pub(super) left: BTreeMap<Left, u64>,
    pub(super) exchanges: u64,
}

impl Seen {
    pub(super) fn leave(&mut self, why: Left) {
        *self.left.entry(why).or_default() += 1;
    }

    /// Takes one record, if it was allowed.
    pub(super) fn note(&mut self, set: &PolicySet, record: &Record, now: Timestamp) {
        let effect = record.decision.as_ref().map(|decision| decision.effect);
        if effect != Some(record::Effect::Allow) || record.open.is_some() {
            return;
        }
        let mut question = match Question::to(record, set) {
            Ok(question) => question,
            Err(NotReplayed::Undecided) => return,
            Err(NotReplayed::Unreadable) => return self.leave(Left::Unreadable),
            Err(NotReplayed::Caller) => return self.leave(Left::Caller),
        };
        self.exchanges += 1;
        question.infer_fetching(set, now);
        let kept = match &question.asked {
            Asked::Run { server, extra_args } => {
                self.start(set, &question, (server, extra_args), now)
            }
            Asked::Mcp { server, .. } => self.message(set, &question, server, now),
            Asked::Resolve(name) => {
                let peer = Peer::Name(name.clone());
                self.traffic(set, &question, (&peer, 0), None, now)
            }
            Asked::Http { peer, port, http } => {
                let upgraded = http.status == Some(101);
                let method = http.method.as_deref().unwrap_or_default();
                let path = http.path.as_deref().unwrap_or_default();
                let decoded = Some((method, upgraded, path));
                self.traffic(set, &question, (peer, *port), decoded, now)
            }
            Asked::Connect { peer, port, .. } => {
                self.traffic(set, &question, (peer, *port), None, now)
            }
        };
        if let Err(why) = kept {
            self.leave(why);
        }
    }

    /// Counts what came to no request.
    pub(super) fn end(&mut self) {
        let used: BTreeSet<(&Owner, &str)> = self
            .traffic
            .keys()
            .map(|traffic| (&traffic.owner, &*traffic.peer))
            .collect();
        let unused = self
            .bare
            .iter()
            .filter(|((owner, peer), _)| !used.contains(&(owner, peer.as_str())));
        let unused: u64 = unused.map(|(_, count)| count).sum();
        if unused > 0 {
            self.left.insert(Left::Unused, unused);
        }
    }

    /// Who starts a server may reach it, and so start it again.
    fn start(
        &mut self,
        set: &PolicySet,
        question: &Question<'_>,
        (server, extra_args): (&str, &[String]),
        now: Timestamp,
    ) -> Result<(), Left> {
        let (who, rule) = who(set, question, now)?;
        let added = extra_args.iter().map(|added| covering(set, server, added));
        let added: BTreeSet<String> = added
            .collect::<Option<Vec<_>>>()
            .ok_or(Left::Untellable)?
            .into_iter()
            .flatten()
            .collect();
        if !added.is_empty() {
            self.added
                .entry(server.to_owned())
                .or_default()
                .extend(added);
        }
        self.reach(who, server, rule);
        Ok(())
    }

    fn reach(&mut self, who: Who, server: &str, rule: Option<&Rule>) {
        let until = rule.and_then(|rule| rule.expires);
        let place = (who, server.to_owned());
        let seen = self
            .reached
            .entry(place)
            .or_insert(Reached { count: 0, until });
        seen.count += 1;
        seen.until = seen.until.zip(until).map(|(one, other)| one.max(other));
    }

    fn message(
        &mut self,
        set: &PolicySet,
        question: &Question<'_>,
        server: &str,
        now: Timestamp,
    ) -> Result<(), Left> {
        let Asked::Mcp { mcp, .. } = &question.asked else {
            return Ok(());
        };
        let (who, rule) = who(set, question, now)?;
        let governance = governance(&mcp.method);
        let name = match governance {
            Some(Governance::Session | Governance::Unnamed) => "",
            Some(Governance::Named) | None => mcp.name.as_deref().unwrap_or_default(),
        };
        let literal = Glob::parse(&mcp.method).is_ok_and(|glob| glob.literal().is_some());
        if !(is_whole(name) && is_whole(&mcp.method) && literal) || set.server(server).is_none() {
            return Err(Left::Untellable);
        }
        let message = Message {
            who: who.clone(),
            server: server.to_owned(),
            method: mcp.method.to_string(),
            name: name.to_owned(),
            shape: Shape::of(&question.arguments, mcp.arguments.as_ref())
                .ok_or(Left::Untellable)?,
            rule: rule
                .filter(|rule| asks(set, rule, server, name))
                .map(|rule| Arc::clone(&rule.id)),
        };
        if governance != Some(Governance::Session) {
            message.condition(set).ok_or(Left::Untellable)?;
            *self.messages.entry(message).or_default() += 1;
        }
        // As the register has it by now, where it names the tool.
        if let Some(class) = question.verdict(set, now).class {
            for known in everybody(set, question, now) {
                let classes = self.classes.entry((known, server.to_owned())).or_default();
                classes.extend(class.iter().map(|class| class.to_string()));
            }
        }
        self.reach(who, server, rule);
        Ok(())
    }

    fn traffic(
        &mut self,
        set: &PolicySet,
        question: &Question<'_>,
        (peer, port): (&Peer, u16),
        decoded: Option<(&str, bool, &str)>,
        now: Timestamp,
    ) -> Result<(), Left> {
        let verdict = question.verdict(set, now);
        let (Effect::Allow, Some(egress)) = (verdict.effect, &verdict.egress) else {
            return Err(Left::Refused);
        };
        let owner = match question.caller().workload {
            Some(Workload::Server(name)) => Owner::Server(name.to_owned()),
            Some(Workload::Host(name)) => Owner::Host(name.to_owned()),
            // A user who reaches a server that listens here needs no entry.
            Some(Workload::Unregistered(_)) | None => return Ok(()),
        };
        let (Owner::Server(name) | Owner::Host(name)) = &owner;
        let entry = match egress.origin {
            Origin::Egress(entry) => entry,
            Origin::Fetch(entry) => {
                self.fetched.insert((name.clone(), entry));
                return Ok(());
            }
            Origin::Server(entry) => {
                self.listed.insert((name.clone(), entry));
                return Ok(());
            }
        };
        let rule = rule(set, &owner, entry).ok_or(Left::Refused)?;
        let is_opaque = match rule {
            EgressRule::Range(_) => true,
            EgressRule::Host(HostRule { tls, wire, .. }) => {
                *wire != Wire::Http || *tls == Tls::Passthrough
            }
        };
        let (method, path) = match decoded {
            // The requests on it say more, or the connections to it.
            None if !is_opaque || port == 0 => {
                let bare = (owner, peer.to_string());
                *self.bare.entry(bare).or_default() += 1;
                return Ok(());
            }
            None => (None, None),
            Some((method, upgraded, path)) => {
                let path = plain(path).ok_or(Left::Untellable)?;
                (Some((method.to_owned(), upgraded)), Some(path))
            }
        };
        let peer = match (peer, rule) {
            (Peer::Name(name), EgressRule::Host(_)) => name.to_string(),
            (Peer::Address(address), EgressRule::Range(_)) => {
                format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
            }
            _ => return Err(Left::Untellable),
        };
        let traffic = Traffic {
            owner,
            entry,
            peer,
            port,
            method,
        };
        let paths = self.traffic.entry(traffic).or_default();
        *paths.entry(path.unwrap_or_default()).or_default() += 1;
        Ok(())
    }
}

/// The path as the policy compares it, where a pattern can mean it alone.
fn plain(path: &str) -> Option<String> {
    let path = normalise_path(path.split('?').next()?).ok()?;
    let alone = is_whole(&path) && !path.contains(['*', '?']) && PathGlob::parse(&path).is_ok();
    alone.then_some(path)
}

/// The entry of a workload's `egress`.
fn rule<'a>(set: &'a PolicySet, owner: &Owner, entry: usize) -> Option<&'a EgressRule> {
    match owner {
        Owner::Server(name) => set.server(name)?.egress.get(entry),
        Owner::Host(name) => set.host(name)?.egress.get(entry),
    }
}

/// The patterns that cover an argument that was added: itself, or of one that the record leaves out a part of those that the
/// policy has for it. `None`: a pattern that is it covers others as well.
fn covering(set: &PolicySet, server: &str, added: &str) -> Option<Vec<String>> {
    if is_whole(added) {
        let literal = Glob::parse(added).is_ok_and(|glob| glob.literal().is_some());
        return literal.then(|| vec![added.to_owned()]);
    }
    let Transport::Launch(launch) = &set.server(server)?.transport else {
        return None;
    };
    let patterns = launch
        .extra_args
        .iter()
        .filter(|pattern| pattern.matches(added));
    let patterns: Vec<_> = patterns
        .map(|pattern| pattern.as_str().to_owned())
        .collect();
    (!patterns.is_empty()).then_some(patterns)
}
