//! Look-up tables over a checked policy, so that a decision costs the same with ten rules and ten thousand.

mod callers;
mod egress;
mod rules;
mod tools;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::FixedState;

use self::callers::{Certificates, Claims, Tokens, Users};
pub(crate) use self::egress::{EgressTable, Entry, Reached, Served, reached};
pub(crate) use self::rules::RuleTable;
pub(crate) use self::tools::ToolTable;
use crate::decide::{Caller, Token};
use crate::load::Draft;
use crate::model::{Credential, Mask, Pointer, Server};

/// A hash map without a random key: the crate draws no randomness. What is kept in it is the policy's own, and who asks
/// adds nothing: there is no chain that he could make longer.
pub(crate) type Map<K, V> = HashMap<K, V, FixedState>;

/// A position in one of the policy's lists.
pub(crate) type Id = u32;

/// The tables.
#[derive(Debug)]
pub(crate) struct Index {
    servers: Map<Arc<str>, Id>,
    hosts: Map<Arc<str>, Id>,
    users: Users,
    tokens: Tokens,
    certificates: Certificates,
    claims: Claims,
    pub(crate) rules: RuleTable,
    /// For each server its limits, in the order of the files.
    pub(crate) limits: Vec<Vec<Id>>,
    /// For each server what records leave out of its calls' arguments.
    masks: Vec<Box<[Pointer]>>,
    /// The same of any server.
    all_masks: Box<[Pointer]>,
    /// For each server its tools' classes.
    pub(crate) tools: Vec<ToolTable>,
    /// For each server what its processes may reach.
    pub(crate) server_egress: Vec<EgressTable>,
    /// For each host what its processes may reach.
    pub(crate) host_egress: Vec<EgressTable>,
    /// The servers that listen on this machine, for users whose processes are no workload.
    pub(crate) listening: EgressTable,
    pub(crate) served: Served,
    credentials: Map<Arc<str>, Arc<Credential>>,
}

impl Index {
    /// Builds the tables. The lists of servers, hosts and identities are in their final order.
    pub(crate) fn new(draft: &Draft) -> Self {
        let servers = numbered(draft.servers.iter().map(|server| &server.name));
        let hosts = numbered(draft.hosts.iter().map(|host| &host.name));
        let by_id = |name: &Arc<str>| {
            servers
                .get(name)
                .and_then(|id| draft.servers.get(position(*id)))
        };
        let limits = draft
            .servers
            .iter()
            .map(|server| limits_of(draft, server))
            .collect();
        Self {
            users: Users::new(&draft.identities, hosts.len()),
            tokens: Tokens::new(&draft.identities, hosts.len()),
            certificates: Certificates::new(&draft.identities, hosts.len()),
            claims: Claims::new(&draft.identities, &draft.rules),
            rules: RuleTable::new(draft, &servers, &hosts),
            limits,
            masks: draft
                .servers
                .iter()
                .map(|server| masked(draft, |mask| is_about(&mask.servers, server)))
                .collect(),
            all_masks: masked(draft, |_| true),
            tools: draft
                .servers
                .iter()
                .map(|server| ToolTable::new(&server.tools))
                .collect(),
            server_egress: draft.servers.iter().map(EgressTable::of_server).collect(),
            listening: EgressTable::of_users(&draft.servers),
            served: Served::new(&draft.servers),
            host_egress: draft
                .hosts
                .iter()
                .map(|host| EgressTable::of_host(host, by_id))
                .collect(),
            credentials: draft
                .credentials
                .iter()
                .map(|credential| (Arc::clone(&credential.name), Arc::new(credential.clone())))
                .collect(),
            servers,
            hosts,
        }
    }

    /// The server of this name.
    pub(crate) fn server(&self, name: &str) -> Option<Id> {
        self.servers.get(name).copied()
    }

    /// What records leave out of the arguments of calls of this server; of one that is not known, what they leave out of
    /// any.
    pub(crate) fn masked(&self, server: &str) -> &[Pointer] {
        let own = self
            .server(server)
            .and_then(|id| self.masks.get(position(id)));
        own.unwrap_or(&self.all_masks)
    }

    /// The credential of this name.
    pub(crate) fn credential(&self, name: &str) -> Option<&Arc<Credential>> {
        self.credentials.get(name)
    }

    /// The credentials, in no order.
    pub(crate) fn credentials(&self) -> impl Iterator<Item = &Arc<Credential>> {
        self.credentials.values()
    }

    /// The host of this name; also its number among those that `who` may name.
    pub(crate) fn host(&self, name: &str) -> Option<Id> {
        self.hosts.get(name).copied()
    }

    /// The identities of a user, ascending, as numbers among those that `who` may name.
    pub(crate) fn of_user(&self, user: &str, out: &mut Vec<Id>) {
        self.users.find(user, out);
    }

    /// The identities of a caller's token and certificate, in the same numbers.
    pub(crate) fn of_shown(&self, caller: &Caller<'_>, out: &mut Vec<Id>) {
        if let Some(token) = &caller.token {
            self.tokens.find(token, out);
        }
        if let Some(certificate) = &caller.certificate {
            self.certificates.find(certificate, out);
        }
    }

    /// Those of which it does not tell whether its token shows them, in the same numbers.
    pub(crate) fn untold(&self, token: &Token<'_>, out: &mut Vec<Id>) {
        self.tokens.untold(token, out);
    }

    /// The claims of tokens of this issuer that the policy reads.
    pub(crate) fn claims_read(&self, issuer: &str) -> &BTreeSet<Box<str>> {
        self.claims.of(issuer)
    }

    /// Whether any identity asks for certificates.
    pub(crate) fn asks_certificates(&self) -> bool {
        self.certificates.any()
    }

    /// Whether any identity asks for tokens.
    pub(crate) fn names_issuers(&self) -> bool {
        self.tokens.any()
    }

    /// Whether an identity asks for tokens of this issuer.
    pub(crate) fn names_issuer(&self, issuer: &str) -> bool {
        self.tokens.names(issuer)
    }
}

/// The limits that are about a server.
fn limits_of(draft: &Draft, server: &Server) -> Vec<Id> {
    (0..)
        .zip(&draft.limits)
        .filter(|(_, limit)| is_about(&limit.servers, server))
        .map(|(id, _)| id)
        .collect()
}

/// What those entries of `mask` point to in arguments.
fn masked(draft: &Draft, is_meant: impl Fn(&Mask) -> bool) -> Box<[Pointer]> {
    let masks = draft.masks.iter().filter(|mask| is_meant(mask));
    masks.flat_map(|mask| mask.args.iter().cloned()).collect()
}

/// Whether what is written about `servers` (empty: all) is about this one.
fn is_about(servers: &[Arc<str>], server: &Server) -> bool {
    servers.is_empty() || servers.contains(&server.name)
}

/// Names with their positions.
fn numbered<'a>(names: impl Iterator<Item = &'a Arc<str>>) -> Map<Arc<str>, Id> {
    (0..)
        .zip(names)
        .map(|(id, name)| (Arc::clone(name), id))
        .collect()
}

/// A position as an index.
pub(crate) fn position(id: Id) -> usize {
    usize::try_from(id).unwrap_or(usize::MAX)
}
