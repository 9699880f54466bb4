//! The network: names, connections and HTTP requests of managed workloads.
//!
//! How a connection is treated (TLS, private addresses, synthetic answers) follows the most specific
//! entry for its host and port; whether a request is allowed, any entry for them that agrees on that.

use std::sync::Arc;

use super::explain::{Outcome, Subject};
use super::watch::Watch;
use super::{
    Caller, Callers, Egress, Origin, Reason, Request, Target, Underway, Verdict, Workload, deny,
    observed,
};
use crate::fault::Place;
use crate::index::{EgressTable, Entry, position};
use crate::model::{Cidr, Credential, Effect, Mode, Protocol, Tls, Tool, Wire};
use crate::name::Name;
use crate::path::normalise_path;
use crate::set::PolicySet;
use crate::time::Timestamp;

/// One HTTP request.
pub(super) struct Http<'a> {
    pub(super) target: Target<'a>,
    pub(super) port: u16,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) tls: bool,
    pub(super) upgrade: bool,
    pub(super) calls: &'a [Underway],
}

/// The table of a workload, where its entries are written, and whether its HTTP denials are observed.
struct Outbound<'a> {
    table: &'a EgressTable,
    place: Option<&'a Place>,
    fetching: bool,
    observes: bool,
}

impl<'a> Outbound<'a> {
    fn of(set: &'a PolicySet, caller: &Caller<'_>) -> Option<Self> {
        let index = set.index();
        let observes = set.mode() == Mode::Observe;
        let (table, place, observes) = match caller.workload? {
            Workload::Server(name) => {
                let id = index.server(name)?;
                let server = set.server_at(id)?;
                let observes = observes || server.mode == Mode::Observe;
                (
                    index.server_egress.get(position(id))?,
                    Some(&server.place),
                    observes,
                )
            }
            Workload::Host(name) => {
                let id = index.host(name)?;
                (
                    index.host_egress.get(position(id))?,
                    Some(&set.host_at(id)?.place),
                    observes,
                )
            }
            Workload::Unregistered(_) => return None,
        };
        Some(Self {
            table,
            place,
            fetching: caller.fetching,
            observes,
        })
    }

    /// Of a caller that is no workload: the servers that listen on this machine, to the processes of a user.
    fn of_user(set: &'a PolicySet, caller: &Caller<'_>) -> Option<Self> {
        (caller.workload.is_none() && caller.user.is_some()).then(|| Self {
            table: &set.index().listening,
            place: None,
            fetching: false,
            observes: set.mode() == Mode::Observe,
        })
    }

    /// Every entry about the target that is in force, the most specific first.
    fn entries(&self, target: Target<'a>) -> impl Iterator<Item = &'a Entry> {
        let fetching = self.fetching;
        self.written(target)
            .filter(move |entry| fetching || !entry.is_fetch())
    }

    /// Every entry about the target, fetch hosts of a server that has spoken included.
    fn written(&self, target: Target<'a>) -> impl Iterator<Item = &'a Entry> {
        let (name, address) = match target {
            Target::Name(name) => (Some(name), None),
            Target::Address(address) => (None, Some(address)),
        };
        name.into_iter()
            .flat_map(|name| self.table.named(name))
            .chain(
                address
                    .into_iter()
                    .flat_map(|address| self.table.covering(address)),
            )
    }

    /// Notes the fetch hosts that are not in force, and returns why a target without another entry is refused.
    fn absent(&self, target: Target<'a>, watch: &mut impl Watch) -> Reason {
        let mut reason = match target {
            Target::Name(_) => Reason::HostNotAllowed,
            Target::Address(_) => Reason::AddressNotAllowed,
        };
        if !self.fetching {
            for entry in self.written(target).filter(|entry| entry.is_fetch()) {
                self.note(watch, entry, Outcome::FetchOver);
                reason = Reason::FetchOver;
            }
        }
        reason
    }

    fn note(&self, watch: &mut impl Watch, entry: &Entry, outcome: Outcome) {
        let subject = || match (entry.origin, &entry.server) {
            (_, Some((server, _))) => Subject::Server(Arc::clone(server)),
            (Origin::Fetch(index), None) => Subject::Fetch(index),
            (Origin::Egress(index) | Origin::Server(index), None) => Subject::Egress(index),
        };
        watch.note(subject, self.place, outcome);
    }
}

/// How a connection is treated whose first entry this is.
fn egress(entry: &Entry, server: Option<Arc<str>>) -> Egress {
    Egress {
        tls: entry.tls,
        wire: entry.wire,
        private: entry.private,
        synthetic: entry.synthetic,
        upgrade: entry.upgrade,
        kind: entry.kind,
        origin: entry.origin,
        server,
        asks_certificate: false,
        credential: None,
    }
}

/// How a request is treated that `granted` grants, on a connection whose first entry is `first`.
fn treated(first: &Entry, granted: Option<&Entry>, server: Option<Arc<str>>) -> Egress {
    let entry = granted.unwrap_or(first);
    Egress {
        upgrade: entry.upgrade,
        origin: entry.origin,
        ..egress(first, server)
    }
}

/// The only server there: what is meant before a path is known.
fn only_server<'a>(entries: impl Iterator<Item = &'a Entry>) -> Option<Arc<str>> {
    let mut servers = entries.filter_map(|entry| entry.server.as_ref());
    let (name, _) = servers.next()?;
    servers.next().is_none().then(|| Arc::clone(name))
}

/// The server meant by a path: the one whose URL covers it most closely, else the one that only listens and
/// so has no path of its own.
fn server_at<'a>(entries: impl Iterator<Item = &'a Entry>, path: &str) -> Option<Arc<str>> {
    let mut best: Option<(Option<usize>, &Arc<str>)> = None;
    for (name, url) in entries.filter_map(|entry| entry.server.as_ref()) {
        let length = match url {
            Some(url) if !url.covers(path) => continue,
            url => url.as_ref().map(|url| url.path.len()),
        };
        if best.is_none_or(|(longest, _)| length > longest) {
            best = Some((length, name));
        }
    }
    best.map(|(_, name)| Arc::clone(name))
}

/// Where clients learn how to log in to a server (RFC 9728, RFC 8414, `OpenID` Connect Discovery): on its
/// origin, below a path that nothing else may use (RFC 8615).
fn is_discovery(method: &str, path: &str) -> bool {
    const BELOW: &str = "/.well-known/";
    matches!(method, "GET" | "HEAD" | "OPTIONS")
        && path
            .strip_prefix(BELOW)
            .is_some_and(|what| what.starts_with("oauth-") || what.starts_with("openid-"))
}

/// Decides on a look-up.
pub(super) fn resolve(
    set: &PolicySet,
    request: &Request<'_>,
    name: &Name,
    watch: &mut impl Watch,
) -> Verdict {
    let Some(outbound) = Outbound::of(set, &request.caller) else {
        return deny(nobody(&request.caller));
    };
    let target = Target::Name(name);
    outbound
        .entries(target)
        .for_each(|entry| outbound.note(watch, entry, Outcome::Matched));
    let absent = outbound.absent(target, watch);
    let Some(first) = outbound.entries(target).next() else {
        return deny(absent);
    };
    // One answer serves all ports, so it is as wide, and as opaque, as any of them needs.
    let private = bindings(&outbound, name)
        .iter()
        .any(|binding| binding.egress.private);
    let synthetic = bindings(&outbound, name)
        .iter()
        .any(|binding| binding.egress.synthetic);
    let egress = Egress {
        private,
        synthetic,
        ..egress(first, None)
    };
    Verdict {
        egress: Some(egress),
        ..Verdict::of(Effect::Allow, Reason::EgressAllowed)
    }
}

/// Decides on a connection, or on sending a datagram.
pub(super) fn connect(
    set: &PolicySet,
    request: &Request<'_>,
    target: Target<'_>,
    port: u16,
    protocol: Protocol,
    watch: &mut impl Watch,
) -> Verdict {
    let caller = &request.caller;
    let outbound = Outbound::of(set, caller).or_else(|| Outbound::of_user(set, caller));
    let Some(outbound) = outbound else {
        return deny(nobody(caller));
    };
    let mut reason = outbound.absent(target, watch);
    let mut found = None;
    for entry in outbound.entries(target) {
        let outcome = fits(entry, port, protocol);
        outbound.note(watch, entry, outcome);
        match outcome {
            Outcome::Matched => found = found.or(Some(entry)),
            Outcome::OtherProtocol => reason = Reason::ProtocolNotAllowed,
            _ if reason == Reason::ProtocolNotAllowed => {}
            _ => reason = Reason::PortNotAllowed,
        }
    }
    let Some(entry) = found else {
        return deny(reason);
    };
    let here = || {
        outbound
            .entries(target)
            .filter(|entry| fits(entry, port, protocol) == Outcome::Matched)
    };
    let egress = Egress {
        asks_certificate: set.asks_certificates() && here().any(|entry| entry.server.is_some()),
        ..egress(entry, only_server(here()))
    };
    Verdict {
        egress: Some(egress),
        ..Verdict::of(Effect::Allow, Reason::EgressAllowed)
    }
}

/// Decides on an HTTP request.
pub(super) fn http(
    set: &PolicySet,
    request: &Request<'_>,
    callers: &Callers<'_>,
    http: &Http<'_>,
    watch: &mut impl Watch,
) -> Verdict {
    let caller = &request.caller;
    let outbound = Outbound::of(set, caller).or_else(|| Outbound::of_user(set, caller));
    let Some(outbound) = outbound else {
        return deny(nobody(caller));
    };
    let here = || {
        outbound
            .entries(http.target)
            .filter(|entry| fits(entry, http.port, Protocol::Tcp) == Outcome::Matched)
    };
    let Some(first) = here().next() else {
        return connect(set, request, http.target, http.port, Protocol::Tcp, watch);
    };
    outbound.absent(http.target, watch);
    if let Some(mismatch) = mismatch(first, http.tls) {
        return deny(mismatch);
    }
    let path = normalise_path(http.path);
    let mut granted = None;
    let mut nearest = (0_u8, Reason::MethodNotAllowed);
    for entry in outbound.entries(http.target) {
        let (outcome, near) = match fits(entry, http.port, Protocol::Tcp) {
            Outcome::Matched => grants(entry, first, http, path.as_deref()),
            other => (other, None),
        };
        outbound.note(watch, entry, outcome);
        // What a fetch host grants is a fetch, whatever else grants it: it is to be told apart.
        if outcome == Outcome::Matched && (granted.is_none() || entry.is_fetch()) {
            granted = Some(entry);
        }
        nearest = near.filter(|near| near.0 > nearest.0).unwrap_or(nearest);
    }
    // Servers at one origin are told apart by the path, so there it must have one reading.
    if let Err(fault) = path
        && here().any(Entry::is_at_path)
    {
        return deny(Reason::PathRefused(fault));
    }
    let server = server_at(here(), path.as_deref().unwrap_or_default());
    // What a host reaches is written down; what a user does, follows from the rules.
    if caller.workload.is_none() && !reaches(set, callers, server.as_deref(), request.now) {
        return deny(Reason::NotReachable);
    }
    let treated = treated(first, granted, server);
    if let Some(entry) = granted {
        return allowed(set, caller, http, entry, treated);
    }
    let verdict = deny(nearest.1);
    if outbound.observes {
        Verdict {
            egress: Some(treated),
            ..observed(verdict)
        }
    } else {
        verdict
    }
}

/// Allows a request that `entry` grants, with its credential.
fn allowed(
    set: &PolicySet,
    caller: &Caller<'_>,
    http: &Http<'_>,
    entry: &Entry,
    mut treated: Egress,
) -> Verdict {
    // None is put into messages to a registered server.
    if treated.server.is_none() {
        match credential(set, caller, http, entry) {
            Ok(credential) => treated.credential = credential.map(Arc::clone),
            Err(unclear) => return deny(unclear),
        }
    }
    Verdict {
        egress: Some(treated),
        ..Verdict::of(Effect::Allow, Reason::EgressAllowed)
    }
}

/// What is put into a request that `entry` grants: the credential of the call that caused it, where its tool has one
/// for this host, else the entry's.
fn credential<'a>(
    set: &'a PolicySet,
    caller: &Caller<'_>,
    http: &Http<'_>,
    entry: &Entry,
) -> Result<Option<&'a Arc<Credential>>, Reason> {
    let Target::Name(name) = http.target else {
        return Ok(None);
    };
    // Never in clear text, nor where it is read back to who asked.
    if !http.tls || matches!(http.method, "TRACE" | "CONNECT") || entry.is_fetch() {
        return Ok(None);
    }
    let index = set.index();
    let named = |named: &Arc<str>| index.credential(named).filter(|own| own.is_for(name));
    let own = entry.credential.as_ref().and_then(named);
    let tools = match caller.workload {
        Some(Workload::Server(server)) => index.server(server),
        _ => None,
    };
    let Some(tools) = tools.and_then(|id| index.tools.get(position(id))) else {
        return Ok(own);
    };
    let of_tool = |tool: &'a Tool| tool.credential.as_ref().and_then(named).or(own);
    let of_calls = http.calls.iter().map(|underway| match underway {
        Underway::Call(tool) => tools.named(tool).map_or(own, of_tool),
        Underway::Other | Underway::Unknown => own,
    });
    let unknown = http.calls.contains(&Underway::Unknown);
    let mut all = of_calls.chain(tools.all().filter(|_| unknown).map(of_tool));
    let Some(first) = all.next() else {
        return Ok(own);
    };
    if all.all(|other| other == first) {
        Ok(first)
    } else {
        Err(Reason::CredentialUnclear)
    }
}

/// Why a caller without a table of its own may nothing.
const fn nobody(caller: &Caller<'_>) -> Reason {
    match caller.workload {
        Some(Workload::Unregistered(_)) => Reason::Unregistered,
        Some(Workload::Server(_) | Workload::Host(_)) | None => Reason::UnknownWorkload,
    }
}

/// Why a request that came over TLS or in the clear is not one of the form that `entry` is about.
fn mismatch(entry: &Entry, tls: bool) -> Option<Reason> {
    match (entry.wire, entry.tls) {
        (Wire::Tcp | Wire::Udp, _) | (Wire::Http, Tls::Passthrough) => Some(Reason::NotDecoded),
        (Wire::Http, Tls::Intercept) => (!tls).then_some(Reason::TlsMismatch),
        (Wire::Http, Tls::Off) => tls.then_some(Reason::TlsMismatch),
    }
}

/// Whether some rule in force lets the caller use the server.
fn reaches(set: &PolicySet, callers: &Callers<'_>, server: Option<&str>, now: Timestamp) -> bool {
    let Some(id) = server.and_then(|name| set.index().server(name)) else {
        return false;
    };
    let mut slots = set.index().rules.slots(id);
    slots.any(|slots| slots.reaches(&callers.ids, now))
}

/// Whether an entry for the connection grants the request; if not, how near it came and why.
fn grants(
    entry: &Entry,
    first: &Entry,
    http: &Http<'_>,
    path: Result<&str, &crate::path::PathFault>,
) -> (Outcome, Option<(u8, Reason)>) {
    if entry.wire != first.wire || entry.tls != first.tls {
        return (Outcome::OtherProtocol, None);
    }
    let method = if entry.methods.is_empty() {
        // A tunnel never, an echo of what the proxy put in only where it is named.
        !matches!(http.method, "CONNECT" | "TRACE")
    } else {
        entry.methods.iter().any(|method| **method == *http.method)
    };
    if !method {
        return (Outcome::OtherMethod, Some((1, Reason::MethodNotAllowed)));
    }
    if let Some((_, Some(url))) = &entry.server {
        match path {
            Err(fault) => return (Outcome::OtherPath, Some((2, Reason::PathRefused(*fault)))),
            Ok(path) if !url.covers(path) && !is_discovery(http.method, path) => {
                return (Outcome::OtherPath, Some((3, Reason::PathNotAllowed)));
            }
            Ok(_) => {}
        }
    }
    if !entry.paths.is_empty() {
        match path {
            Err(fault) => return (Outcome::OtherPath, Some((2, Reason::PathRefused(*fault)))),
            Ok(path) if !entry.paths.iter().any(|glob| glob.matches(path)) => {
                return (Outcome::OtherPath, Some((3, Reason::PathNotAllowed)));
            }
            Ok(_) => {}
        }
    }
    if http.upgrade && !entry.upgrade {
        return (Outcome::NoUpgrade, Some((4, Reason::UpgradeNotAllowed)));
    }
    (Outcome::Matched, None)
}

/// Whether an entry about the host is about the port and protocol too.
fn fits(entry: &Entry, port: u16, protocol: Protocol) -> Outcome {
    if !entry.ports.contains(&port) {
        Outcome::OtherPort
    } else if entry.wire.transport() != protocol {
        Outcome::OtherProtocol
    } else {
        Outcome::Matched
    }
}

/// A port on which a workload may reach a name, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The port.
    pub port: u16,
    /// How; its transport is always TCP, since UDP is allowed by address only.
    pub egress: Egress,
}

/// The ports on which a workload may reach a name, ascending: what to bind the name's addresses to.
#[must_use]
pub fn ports_for(set: &PolicySet, caller: Caller<'_>, name: &Name) -> Vec<Binding> {
    Outbound::of(set, &caller)
        .map(|outbound| bindings(&outbound, name))
        .unwrap_or_default()
}

fn bindings(outbound: &Outbound<'_>, name: &Name) -> Vec<Binding> {
    let target = Target::Name(name);
    let mut ports: Vec<u16> = outbound
        .entries(target)
        .flat_map(|entry| entry.ports.iter().copied())
        .collect();
    ports.sort_unstable();
    ports.dedup();
    let bind = |port: u16| {
        let here = || {
            outbound
                .entries(target)
                .filter(move |entry| entry.ports.contains(&port))
        };
        let first = here().next()?;
        Some(Binding {
            port,
            egress: egress(first, only_server(here())),
        })
    };
    ports.into_iter().filter_map(bind).collect()
}

/// Addresses that a workload may reach without asking for a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The network.
    pub net: Cidr,
    /// The ports, never empty.
    pub ports: Vec<u16>,
    /// Over what.
    pub protocol: Protocol,
    /// How.
    pub egress: Egress,
}

/// The addresses that a workload may reach without asking for a name, for the kernel.
#[must_use]
pub fn ranges(set: &PolicySet, workload: Workload<'_>) -> Vec<Range> {
    let caller = Caller {
        workload: Some(workload),
        ..Caller::default()
    };
    let Some(outbound) = Outbound::of(set, &caller) else {
        return Vec::new();
    };
    let range = |(net, entry): &(Cidr, Entry)| Range {
        net: *net,
        ports: entry.ports.to_vec(),
        protocol: entry.wire.transport(),
        egress: egress(entry, server_of(entry)),
    };
    outbound.table.ranges.iter().map(range).collect()
}

fn server_of(entry: &Entry) -> Option<Arc<str>> {
    entry.server.as_ref().map(|(name, _)| Arc::clone(name))
}
