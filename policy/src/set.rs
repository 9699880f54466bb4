//! A policy that was read, checked and indexed.

use std::net::IpAddr;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::check::{called, check, in_part, redundant};
use crate::decide::{Caller, Token};
use crate::fault::{Fault, Place, Source};
use crate::index::{Id, Index, position};
use crate::load::{Draft, load, settle};
use crate::model::{
    Breaker, Credential, Effect, EnvValue, Host, Identity, Limit, Mask, Mode, Pointer, Proof,
    Responses, Role, Rule, Server, Written,
};
use crate::time::Timestamp;

/// A policy set: all files, checked as a whole. Made only by [`compile`].
#[derive(Debug)]
pub struct PolicySet {
    fingerprint: Arc<str>,
    servers: Vec<Server>,
    hosts: Vec<Host>,
    identities: Vec<Identity>,
    roles: Vec<Role>,
    rules: Vec<Rule>,
    limits: Vec<Limit>,
    masks: Vec<Mask>,
    breaker: Option<Breaker>,
    responses: Option<Responses>,
    mode: Mode,
    strict_review: bool,
    index: Index,
}

/// Reads and checks a set of files, in the order of their names; all faults of all files at once.
///
/// No file at all is a policy too: it allows nothing.
pub fn compile(sources: &[Source]) -> Result<PolicySet, Vec<Fault>> {
    let mut sources: Vec<&Source> = sources.iter().collect();
    sources.sort_by(|left, right| left.name.cmp(&right.name));
    let mut draft = Draft::default();
    let mut faults: Vec<Fault> = sources
        .iter()
        .flat_map(|source| load(source, &mut draft))
        .collect();
    settle(&mut draft);
    faults.extend(check(&draft));
    if !faults.is_empty() {
        faults.sort();
        faults.dedup();
        return Err(faults);
    }
    draft
        .servers
        .sort_by(|left, right| left.name.cmp(&right.name));
    draft
        .hosts
        .sort_by(|left, right| left.name.cmp(&right.name));
    draft
        .identities
        .sort_by(|left, right| left.name.cmp(&right.name));
    let index = Index::new(&draft);
    let Draft {
        servers,
        hosts,
        identities,
        roles,
        rules,
        limits,
        masks,
        breaker,
        responses,
        mode,
        strict_review,
        ..
    } = draft;
    let fingerprint = fingerprint(&sources);
    Ok(PolicySet {
        fingerprint,
        servers,
        hosts,
        identities,
        roles,
        rules,
        limits,
        masks,
        breaker,
        responses,
        mode,
        strict_review,
        index,
    })
}

/// These names in a sentence; `None` for none.
fn listed(names: &[&Arc<str>]) -> Option<String> {
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// SHA-256 over the texts, each after its length, so that moving text between files changes it.
fn fingerprint(sources: &[&Source]) -> Arc<str> {
    let mut hash = Sha256::new();
    for source in sources {
        hash.update(
            u64::try_from(source.text.len())
                .unwrap_or(u64::MAX)
                .to_be_bytes(),
        );
        hash.update(&source.text);
    }
    let digits = hash
        .finalize()
        .iter()
        .fold(String::with_capacity(64), |mut out, byte| {
            for digit in [byte >> 4, byte & 15] {
                out.extend(char::from_digit(digit.into(), 16));
            }
            out
        });
    digits.into()
}

impl PolicySet {
    /// SHA-256 over the files' texts in their order, in hexadecimal.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The registered servers, by name.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter()
    }

    /// The server of this name.
    #[must_use]
    pub fn server(&self, name: &str) -> Option<&Server> {
        self.server_at(self.index.server(name)?)
    }

    /// The hosts, by name.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter()
    }

    /// The host of this name.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.host_at(self.index.host(name)?)
    }

    /// The identities, by name.
    pub fn identities(&self) -> impl Iterator<Item = &Identity> {
        self.identities.iter()
    }

    /// Whether an identity asks for tokens of this issuer.
    #[must_use]
    pub fn names_issuer(&self, issuer: &str) -> bool {
        self.index.names_issuer(issuer)
    }

    /// Whether any identity asks for tokens.
    #[must_use]
    pub fn names_issuers(&self) -> bool {
        self.index.names_issuers()
    }

    /// Whether any identity asks for client certificates.
    #[must_use]
    pub fn asks_certificates(&self) -> bool {
        self.index.asks_certificates()
    }

    /// The names of the identities that a caller shows by token and certificate, ascending.
    #[must_use]
    pub fn identities_shown(&self, caller: &Caller<'_>) -> Vec<&Arc<str>> {
        let mut ids = Vec::new();
        self.index.of_shown(caller, &mut ids);
        ids.sort_unstable();
        ids.iter().filter_map(|id| self.identity_at(*id)).collect()
    }

    /// The names of the identities of which a recorded token does not tell whether it shows them, ascending: its record
    /// leaves out a claim that they ask for.
    #[must_use]
    pub fn identities_untold(&self, token: &Token<'_>) -> Vec<&Arc<str>> {
        let mut ids = Vec::new();
        self.index.untold(token, &mut ids);
        ids.sort_unstable();
        ids.iter().filter_map(|id| self.identity_at(*id)).collect()
    }

    /// The claims that identities and conditions read of tokens of this issuer, as JSON pointers with `*` for every element
    /// or member. Not among them is what a condition takes from the request, or asks of all claims together.
    pub fn claims_read(&self, issuer: &str) -> impl Iterator<Item = &str> {
        let read = self.index.claims_read(issuer);
        read.iter().map(|claim| &**claim)
    }

    /// The persons whose identities a caller has, in the order of the identities' names.
    #[must_use]
    pub fn persons(&self, caller: &Caller<'_>) -> Vec<&Arc<str>> {
        let mut ids = Vec::new();
        if let Some(user) = caller.user {
            self.index.of_user(user, &mut ids);
        }
        self.index.of_shown(caller, &mut ids);
        ids.sort_unstable();
        let names = ids.iter().filter_map(|id| self.identity_at(*id));
        let identities = names.filter_map(|name| self.identity(name));
        identities
            .filter_map(|identity| identity.person.as_ref())
            .collect()
    }

    /// The identity of this name.
    #[must_use]
    pub fn identity(&self, name: &str) -> Option<&Identity> {
        let found = self
            .identities
            .binary_search_by(|identity| (*identity.name).cmp(name));
        self.identities.get(found.ok()?)
    }

    /// The credential of this name.
    #[must_use]
    pub fn credential(&self, name: &str) -> Option<&Arc<Credential>> {
        self.index.credential(name)
    }

    /// The credentials, by name.
    #[must_use]
    pub fn credentials(&self) -> Vec<&Arc<Credential>> {
        let mut all: Vec<_> = self.index.credentials().collect();
        all.sort_by(|left, right| left.name.cmp(&right.name));
        all
    }

    /// Whether a registered server is at this address and port, as far as policy says where it is by address. What is sent
    /// there is never passed on unread.
    #[must_use]
    pub fn serves(&self, address: IpAddr, port: u16) -> bool {
        self.index.served.holds(address, port)
    }

    /// What the server of this name gets in the place of its callers' `Authorization`.
    #[must_use]
    pub fn replacement(&self, server: &str) -> Option<&Arc<Credential>> {
        self.credential(self.server(server)?.authorization.credential()?)
    }

    /// The roles, in the order of the files.
    #[must_use]
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// The rules, in the order of the files; then the grants of all roles.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rules that are written as such.
    pub fn written_rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules
            .iter()
            .filter(|rule| rule.written == Written::Rule)
    }

    /// The rule of this name.
    #[must_use]
    pub fn rule(&self, id: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| *rule.id == *id)
    }

    /// Whether this Unix user is among the approvers of the rule of this name.
    #[must_use]
    pub fn approves(&self, rule: &str, user: &str) -> bool {
        let asks = |rule: &&Rule| rule.effect == Effect::Approve;
        let Some(rule) = self.rule(rule).filter(asks) else {
            return false;
        };
        let mut identities = Vec::new();
        self.index.of_user(user, &mut identities);
        let mut names = identities.iter().filter_map(|id| self.identity_at(*id));
        names.any(|name| rule.approvers.contains(name))
    }

    /// The limits, in the order of the files; [`Reason::LimitReached`](crate::Reason) counts along it.
    #[must_use]
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }

    /// What records leave out, in the order of the files.
    #[must_use]
    pub fn masks(&self) -> &[Mask] {
        &self.masks
    }

    /// When servers and tools that fail are left alone.
    #[must_use]
    pub const fn breaker(&self) -> Option<Breaker> {
        self.breaker
    }

    /// What records leave out of the arguments of this server's calls.
    #[must_use]
    pub fn masked(&self, server: &str) -> &[Pointer] {
        self.index.masked(server)
    }

    /// What the server of this name may answer to tool calls, where anything is said of it.
    #[must_use]
    pub fn responses(&self, server: &str) -> Option<&Responses> {
        let own = self
            .server(server)
            .and_then(|server| server.responses.as_ref());
        own.or(self.responses.as_ref())
    }

    /// Whether denials of calls to this server are only observed.
    #[must_use]
    pub fn observes(&self, server: &str) -> bool {
        let server = self.server(server);
        self.mode == Mode::Observe || server.is_some_and(|server| server.mode == Mode::Observe)
    }

    /// Whether denials of calls are enforced at all.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether servers whose review is overdue are refused.
    #[must_use]
    pub const fn strict_review(&self) -> bool {
        self.strict_review
    }

    /// What is no fault and should be looked at: rules that have expired, rules and grants that change nothing, rules that
    /// ask for arguments where some of their methods have none, servers
    /// whose review is overdue, placeholders that nothing replaces, credentials that nothing sends.
    #[must_use]
    pub fn warnings(&self, now: Timestamp) -> Vec<Fault> {
        let warning = |place: &Place, message: String| Fault {
            file: place.file.to_string(),
            line: place.span.line,
            column: place.span.column,
            message,
            hint: None,
        };
        let expired = self.rules.iter().filter_map(|rule| {
            let date = rule.expires.filter(|date| date.is_past(now))?;
            let message = format!(
                "rule `{}` expired on {date} and means nothing since",
                rule.id
            );
            Some(warning(&rule.place, message))
        });
        let overdue = self.servers.iter().filter_map(|server| {
            let date = server.review_by.filter(|_| server.is_overdue(now))?;
            let message = format!("the review of server `{}` was due by {date}", server.name);
            Some(warning(&server.place, message))
        });
        let idle = self.placeholders_in_vain().chain(self.unsent_credentials());
        let idle = idle.map(|(place, message)| warning(place, message));
        let voiceless = self.rules.iter().filter_map(|rule| {
            let message = self.voiceless(rule)?;
            Some(warning(&rule.place, message))
        });
        let partial = self.rules.iter().filter_map(|rule| {
            let message = in_part(rule)?;
            Some(warning(&rule.place, message))
        });
        // What has expired is warned of as that.
        let redundant = redundant(&self.rules)
            .filter(|(rule, _)| rule.expires.is_none_or(|date| !date.is_past(now)))
            .map(|(rule, message)| warning(&rule.place, message));
        let mut warnings: Vec<Fault> = expired
            .chain(overdue)
            .chain(idle)
            .chain(voiceless)
            .chain(partial)
            .chain(redundant)
            .collect();
        warnings.sort();
        warnings
    }

    /// What a rule or grant says of those who show a token or a certificate, at servers where nobody can.
    fn voiceless(&self, rule: &Rule) -> Option<String> {
        let tells = |name: &&Arc<str>| {
            let identity = self.identity(name);
            identity.is_some_and(|identity| !matches!(identity.proof, Proof::User(_)))
        };
        let launched = |name: &&Arc<str>| self.server(name).is_some_and(|it| it.launch().is_some());
        let tellers: Vec<&Arc<str>> = rule.who.iter().filter(tells).collect();
        let started: Vec<&Arc<str>> = rule.servers.iter().filter(launched).collect();
        let (who, servers) = (listed(&tellers)?, listed(&started)?);
        Some(format!(
            "{} never matches for {who} at {servers}: over standard streams nobody shows a token or a certificate",
            called(rule)
        ))
    }

    /// Variables of servers whose placeholder stays what it is.
    fn placeholders_in_vain(&self) -> impl Iterator<Item = (&Place, String)> {
        self.servers.iter().flat_map(|server| {
            let env = server.launch().map(|launch| launch.env.as_slice());
            let in_vain = env.unwrap_or_default().iter().filter_map(|(_, value)| {
                let EnvValue::Secret(name) = value else {
                    return None;
                };
                let sends = |sent: &Arc<str>| **sent == **name;
                (!server.credentials().any(sends)).then(|| {
                    let message = format!(
                        "`{{ secret: {name} }}` of server `{}` is a placeholder that nothing replaces: \
                         no egress entry and no tool of the server has the credential `{name}`",
                        server.name
                    );
                    (&server.place, message)
                })
            });
            in_vain.collect::<Vec<_>>()
        })
    }

    /// Credentials that no egress entry and no tool names.
    fn unsent_credentials(&self) -> impl Iterator<Item = (&Place, String)> {
        let sent: Vec<&Arc<str>> = self
            .servers
            .iter()
            .flat_map(Server::credentials)
            .chain(self.hosts.iter().flat_map(Host::credentials))
            .collect();
        let unsent = move |credential: &&Arc<Credential>| !sent.contains(&&credential.name);
        self.index.credentials().filter(unsent).map(|credential| {
            let message = format!("nothing sends the credential `{}`", credential.name);
            (&credential.place, message)
        })
    }

    pub(crate) const fn index(&self) -> &Index {
        &self.index
    }

    pub(crate) fn server_at(&self, id: Id) -> Option<&Server> {
        self.servers.get(position(id))
    }

    pub(crate) fn host_at(&self, id: Id) -> Option<&Host> {
        self.hosts.get(position(id))
    }

    /// The name of the identity with this number among those that `who` may name: hosts come first.
    pub(crate) fn identity_id(&self, name: &str) -> Option<Id> {
        let found = self
            .identities
            .binary_search_by(|identity| (*identity.name).cmp(name));
        Id::try_from(self.hosts.len().checked_add(found.ok()?)?).ok()
    }

    /// The name of the identity of this number.
    pub(crate) fn identity_at(&self, id: Id) -> Option<&Arc<str>> {
        let index = position(id).checked_sub(self.hosts.len())?;
        self.identities.get(index).map(|identity| &identity.name)
    }
}
