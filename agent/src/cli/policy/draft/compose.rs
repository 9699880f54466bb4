//! From what was seen to a policy's text: pieces with their lines, and those that do not pass taken out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use exeat_policy::yaml::{self, Entry, Node, Value};
use exeat_policy::{Effect, Governance, PolicySet, Proof, Source, compile, governance};

use super::LeftOut;
use super::seen::{Left, Message, Owner, Reached, Seen, Traffic};
use super::shape::yaml as text;
use super::who::Who;
use super::write::{flow, key, line, pair};
use crate::cli::error::{CliError, Kind};
use crate::cli::output::safe;
use crate::cli::unused::UnusedGrant;

/// All classes.
const CLASSES: [&str; 4] = ["read", "write", "destructive", "external"];
/// Keys of an egress entry that are written anew.
const ANEW: [&str; 6] = ["host", "cidr", "ports", "methods", "paths", "upgrade"];
/// Keys of a file that are written anew, or not at all.
const OWN: [&str; 7] = [
    "version",
    "mode",
    "servers",
    "hosts",
    "identities",
    "roles",
    "rules",
];

/// The parts of the policy's files.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    set: &'a PolicySet,
    roots: Vec<Node>,
    seen: Seen,
    /// Grants that a comment names: nothing needed them.
    pub(super) unused: Vec<UnusedGrant>,
    /// The identity that is one user alone.
    users: BTreeMap<String, String>,
    /// Those of them that the policy does not have.
    added: BTreeMap<String, String>,
}

/// A draft that compiles.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) text: String,
    pub(super) seen: Seen,
}

/// Text with the lines of its pieces.
#[derive(Debug, Default)]
struct Page {
    text: String,
    lines: u32,
    /// Number of the next piece.
    next: usize,
    /// Number, first and last line, and how many exchanges it is for.
    pieces: Vec<(usize, u32, u32, u64)>,
    without: BTreeSet<usize>,
}

impl Page {
    fn put(&mut self, text: &str) {
        self.text.push_str(text);
        let lines = text.bytes().filter(|byte| *byte == b'\n').count();
        self.lines = self
            .lines
            .saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
    }

    /// A piece that may be taken out again; whether it is in.
    fn piece(&mut self, text: &str, count: u64) -> bool {
        let number = self.next;
        self.next += 1;
        if self.without.contains(&number) {
            return false;
        }
        let first = self.lines + 1;
        self.put(text);
        self.pieces.push((number, first, self.lines, count));
        true
    }
}

impl<'a> Draft<'a> {
    pub(super) fn new(
        set: &'a PolicySet,
        sources: &[Source],
        seen: Seen,
    ) -> Result<Self, CliError> {
        let mut sources: Vec<&Source> = sources.iter().collect();
        sources.sort_by(|left, right| left.name.cmp(&right.name));
        let roots = sources
            .into_iter()
            .map(yaml::read)
            .collect::<Result<_, _>>();
        let roots = roots.map_err(|faults: Vec<_>| {
            // They were compiled just now.
            let count = faults.len();
            CliError::new(
                Kind::Usage,
                format!("the policy changed meanwhile: {count} faults"),
            )
        })?;
        let mut draft = Self {
            set,
            roots,
            seen,
            unused: Vec::new(),
            users: BTreeMap::new(),
            added: BTreeMap::new(),
        };
        draft.name_users();
        Ok(draft)
    }

    /// Finds or makes an identity for each user.
    fn name_users(&mut self) {
        let seen = self.seen.reached.keys();
        let seen = seen.filter_map(|(who, _)| who.as_user().map(str::to_owned));
        for user in seen.collect::<BTreeSet<_>>() {
            let alone = self
                .set
                .identities()
                .find(|identity| match &identity.proof {
                    Proof::User(globs) => globs.iter().all(|glob| glob.literal() == Some(&user)),
                    Proof::Token(_) | Proof::Certificate(_) => false,
                });
            if let Some(identity) = alone {
                self.users.insert(user, identity.name.to_string());
                continue;
            }
            let letters = user
                .chars()
                .filter(|c| c.is_ascii_alphanumeric() || *c == '-');
            let base: String = format!("user-{}", letters.take(40).collect::<String>());
            let taken = |name: &str| {
                self.added.contains_key(name)
                    || self.set.identity(name).is_some()
                    || self.set.host(name).is_some()
                    || self.set.roles().iter().any(|role| &*role.name == name)
            };
            let mut name = base.clone();
            let mut number = 1_u32;
            while taken(&name) {
                number = number.saturating_add(1);
                name = format!("{base}-{number}");
            }
            self.added.insert(name.clone(), user.clone());
            self.users.insert(user, name);
        }
    }

    /// The draft without what does not pass.
    pub(super) fn policy(mut self) -> Result<Policy, CliError> {
        let mut without = BTreeSet::new();
        let mut lost = 0;
        loop {
            let page = self.page(&without);
            let source = Source {
                name: "draft".to_owned(),
                text: page.text.clone(),
            };
            let Err(faults) = compile(&[source]) else {
                if lost > 0 {
                    self.seen.left.insert(Left::Overruled, lost);
                }
                return Ok(Policy {
                    text: page.text,
                    seen: self.seen,
                });
            };
            // One at a time: taking one out may clear another.
            let accused = page.pieces.iter().find(|(_, first, last, _)| {
                faults
                    .iter()
                    .any(|fault| (*first..=*last).contains(&fault.line))
            });
            let Some((number, _, _, count)) = accused else {
                let first = faults.first().map(ToString::to_string).unwrap_or_default();
                let message = format!("the draft does not pass: {first}");
                return Err(CliError::new(Kind::Usage, message));
            };
            without.insert(*number);
            lost += count;
        }
    }

    fn entries(&self, key: &str) -> Vec<&Entry> {
        let entries = self
            .values(key)
            .into_iter()
            .filter_map(|node| match &node.value {
                Value::Map(entries) => Some(entries),
                Value::Scalar { .. } | Value::List(_) => None,
            });
        entries.flatten().collect()
    }

    fn values(&self, key: &str) -> Vec<&Node> {
        let roots = self.roots.iter().filter_map(|root| match &root.value {
            Value::Map(entries) => Some(entries),
            Value::Scalar { .. } | Value::List(_) => None,
        });
        let of_key = roots.flatten().filter(|entry| entry.key == key);
        of_key.map(|entry| &entry.value).collect()
    }

    fn page(&self, without: &BTreeSet<usize>) -> Page {
        let mut page = Page {
            without: without.clone(),
            ..Page::default()
        };
        page.put(&format!(
            "# Drafted from {} recorded exchanges: nothing wider than what was seen.\n",
            self.seen.exchanges
        ));
        for grant in &self.unused {
            let said = safe(&format!("{grant} ({})", grant.place));
            page.put(&format!("# Unused grant, left out: {said}\n"));
        }
        page.put("version: 1\n");
        self.others(&mut page);
        for (key, workloads) in [("servers", true), ("hosts", false)] {
            let entries = self.entries(key);
            if !entries.is_empty() {
                page.put(&format!("{key}:\n"));
            }
            for entry in entries {
                self.workload(&mut page, entry, workloads);
            }
        }
        self.identities(&mut page);
        self.rules(&mut page);
        page
    }

    /// What the draft has no say in: limits, and whatever else is written at the top.
    fn others(&self, page: &mut Page) {
        let mut keys = BTreeSet::new();
        for root in &self.roots {
            if let Value::Map(entries) = &root.value {
                let others = entries.iter().map(|entry| entry.key.as_str());
                keys.extend(others.filter(|key| !OWN.contains(key)));
            }
        }
        for key in keys {
            let mut items = Vec::new();
            for node in self.values(key) {
                match &node.value {
                    Value::List(list) => {
                        items.extend(list.iter().map(|item| format!("  - {}\n", flow(item))));
                    }
                    Value::Map(entries) => {
                        items.extend(entries.iter().map(|entry| format!("  {}\n", pair(entry))));
                    }
                    Value::Scalar { .. } => page.put(&format!("{key}: {}\n", flow(node))),
                }
            }
            if !items.is_empty() {
                page.put(&format!("{key}:\n{}", items.concat()));
            }
        }
    }

    /// A server or a host, with the egress that was seen.
    fn workload(&self, page: &mut Page, entry: &Entry, server: bool) {
        let mut kept = String::new();
        let mut egress: &[Node] = &[];
        let fields = match &entry.value.value {
            Value::Map(fields) => fields.as_slice(),
            Value::Scalar { .. } | Value::List(_) => &[],
        };
        for field in fields {
            match (field.key.as_str(), &field.value.value) {
                ("egress", Value::List(items)) => egress = items,
                ("mode" | "egress", _) => {}
                ("servers", Value::List(items)) if !server => {
                    let items = self.listed(&entry.key, items);
                    if !items.is_empty() {
                        writeln!(kept, "    servers: [{}]", items.join(", ")).unwrap_or_default();
                    }
                }
                ("launch", Value::Map(launch)) => self.launch(&mut kept, &entry.key, launch),
                _ => line(&mut kept, 4, field),
            }
        }
        let owner = if server {
            Owner::Server(entry.key.clone())
        } else {
            Owner::Host(entry.key.clone())
        };
        let traffic: Vec<_> = self
            .seen
            .traffic
            .iter()
            .filter(|(traffic, _)| traffic.owner == owner)
            .collect();
        let name = key(&entry.key);
        if kept.is_empty() && traffic.is_empty() {
            page.put(&format!("  {name}: {{}}\n"));
            return;
        }
        page.put(&format!("  {name}:\n{kept}"));
        if traffic.is_empty() {
            return;
        }
        page.put("    egress:\n");
        let mut any = false;
        for (traffic, paths) in traffic {
            let base = egress.get(traffic.entry);
            let count = paths.values().sum();
            any |= page.piece(&destination(traffic, paths, base, count), count);
        }
        if !any {
            page.put("      []\n");
        }
    }

    /// The servers of a host's list that it used.
    fn listed(&self, host: &str, items: &[Node]) -> Vec<String> {
        let mut listed = Vec::new();
        for (place, item) in items.iter().enumerate() {
            let Value::Scalar { text: name, .. } = &item.value else {
                continue;
            };
            let reached = self.seen.reached.keys();
            if reached
                .into_iter()
                .any(|(who, server)| server == name && who.host.as_deref() == Some(host))
                || self.seen.listed.contains(&(host.to_owned(), place))
            {
                listed.push(flow(item));
            }
        }
        listed
    }

    /// How a server is started, with the hosts that it did fetch from and the arguments that were added.
    fn launch(&self, out: &mut String, server: &str, launch: &[Entry]) {
        out.push_str("    launch:\n");
        for field in launch {
            let used: Vec<String> = match (field.key.as_str(), &field.value.value) {
                ("fetch", Value::List(items)) => {
                    let fetched = |place| self.seen.fetched.contains(&(server.to_owned(), place));
                    let items = items.iter().enumerate();
                    items
                        .filter(|(place, _)| fetched(*place))
                        .map(|(_, item)| flow(item))
                        .collect()
                }
                ("extra_args", Value::List(_)) => {
                    let added = self.seen.added.get(server).into_iter().flatten();
                    added.map(|pattern| text(pattern)).collect()
                }
                _ => {
                    line(out, 6, field);
                    continue;
                }
            };
            if !used.is_empty() {
                writeln!(out, "      {}: [{}]", field.key, used.join(", ")).unwrap_or_default();
            }
        }
    }

    fn identities(&self, page: &mut Page) {
        let entries = self.entries("identities");
        if !entries.is_empty() || !self.added.is_empty() {
            page.put("identities:\n");
        }
        for entry in entries {
            page.put(&format!("  {}\n", pair(entry)));
        }
        for (name, user) in &self.added {
            page.put(&format!("  {}: {{ user: {} }}\n", key(name), text(user)));
        }
    }

    /// Rules that restrict stay, with the roles that they name; then what was seen is allowed.
    fn rules(&self, page: &mut Page) {
        let kept: Vec<&Node> = self
            .values("rules")
            .into_iter()
            .filter_map(|node| match &node.value {
                Value::List(items) => Some(items),
                Value::Scalar { .. } | Value::Map(_) => None,
            })
            .flatten()
            .filter(|rule| {
                word(rule, "effect").is_some_and(|effect| effect != Effect::Allow.to_string())
            })
            .collect();
        let named = |role: &Entry| {
            let names = |field| kept.iter().any(|rule| mentions(rule, field, &role.key));
            names("who") || names("approvers")
        };
        let roles: Vec<&Entry> = self
            .entries("roles")
            .into_iter()
            .filter(|role| named(role))
            .collect();
        if !roles.is_empty() {
            page.put("roles:\n");
        }
        for role in roles {
            if let Some(members) = field(&role.value, "members") {
                page.put(&format!(
                    "  {}: {{ members: {} }}\n",
                    key(&role.key),
                    flow(members)
                ));
            }
        }
        page.put("rules:\n");
        let mut any = false;
        for rule in &kept {
            any |= page.piece(&format!("  - {}\n", flow(rule)), 0);
        }
        let mut ids = Ids {
            taken: kept
                .iter()
                .filter_map(|rule| word(rule, "id"))
                .map(str::to_owned)
                .collect(),
            next: 1,
        };
        for (message, count) in &self.seen.messages {
            any |= page.piece(&self.allowed(message, *count, &mut ids), *count);
        }
        for ((who, server), reached) in &self.seen.reached {
            any |= self.reached(page, (who, server), reached, &mut ids);
        }
        if !any {
            page.put("  []\n");
        }
    }

    fn name<'b>(&'b self, who: &'b Who) -> &'b str {
        let user = |user: &'b str| self.users.get(user).map_or(user, String::as_str);
        let shown = who.identity.as_deref();
        let named = shown.or_else(|| who.as_user().map(user));
        named.or(who.host.as_deref()).unwrap_or_default()
    }

    /// The rule that allows one kind of message, with the tests of the policy's own.
    fn allowed(&self, message: &Message, count: u64, ids: &mut Ids) -> String {
        let mut out = head(ids, count, self.name(&message.who), &message.server);
        let put = |out: &mut String, key: &str, value: &str| {
            writeln!(out, "    {key}: {value}").unwrap_or_default();
        };
        if message.method != "tools/call" {
            put(&mut out, "methods", &format!("[{}]", text(&message.method)));
        }
        let names = !matches!(governance(&message.method), Some(Governance::Unnamed));
        if let Some(classes) = message.classes(self.set) {
            put(&mut out, "tools", &format!("{{ class: [{classes}] }}"));
        } else if names && message.is_named(self.set) {
            put(&mut out, "tools", &format!("[{}]", text(&message.name)));
        }
        let mut args = message.shape.tests().unwrap_or_default().args;
        let rule = message.rule(self.set);
        for asked in rule.into_iter().flat_map(|rule| self.asked(&rule.id)) {
            if !args.contains(&asked) {
                args.push(asked);
            }
        }
        if !args.is_empty() {
            out.push_str("    args:\n");
            for test in &args {
                writeln!(out, "      - {test}").unwrap_or_default();
            }
        }
        let when = message.condition(self.set).unwrap_or_default();
        put(&mut out, "when", &text(&when));
        if let Some(date) = rule.and_then(|rule| rule.expires) {
            put(&mut out, "expires", &date.to_string());
        }
        put(&mut out, "effect", "allow");
        out
    }

    /// The tests on arguments that a rule of the policy asks for, as they are written.
    fn asked(&self, id: &str) -> Vec<String> {
        let lists = self.values("rules").into_iter();
        let lists = lists.filter_map(|node| match &node.value {
            Value::List(items) => Some(items),
            Value::Scalar { .. } | Value::Map(_) => None,
        });
        let rule = lists.flatten().find(|rule| word(rule, "id") == Some(id));
        match rule
            .and_then(|rule| field(rule, "args"))
            .map(|args| &args.value)
        {
            Some(Value::List(items)) => items.iter().map(flow).collect(),
            _ => Vec::new(),
        }
    }

    /// Lets who is on no host reach a server that it only opened sessions with; and refuses classes that nobody saw called.
    fn reached(
        &self,
        page: &mut Page,
        (who, server): (&Who, &str),
        reached: &Reached,
        ids: &mut Ids,
    ) -> bool {
        let mut any = false;
        let of = |message: &&Message| message.who == *who && message.server == server;
        if who.host.is_none() && self.seen.messages.keys().find(of).is_none() {
            let Reached { count, until } = reached;
            let mut out = head(ids, *count, self.name(who), server);
            let when = who.alone().unwrap_or_default();
            writeln!(out, "    methods: [initialize]\n    when: {}", text(&when))
                .unwrap_or_default();
            if let Some(until) = until {
                writeln!(out, "    expires: {until}").unwrap_or_default();
            }
            out.push_str("    effect: allow\n");
            any |= page.piece(&out, *count);
        }
        // Of one identity, calls that need more of the token than that are others'.
        if who.is_one_token() {
            return any;
        }
        let place = (who.clone(), server.to_owned());
        let Some(seen) = self.seen.classes.get(&place) else {
            return any;
        };
        let unseen: Vec<_> = CLASSES
            .into_iter()
            .filter(|class| !seen.contains(*class))
            .collect();
        if unseen.is_empty() {
            return any;
        }
        let mut out = format!("  - id: {}\n", ids.next());
        writeln!(
            out,
            "    who: [{}]\n    servers: [{}]",
            key(self.name(who)),
            key(server)
        )
        .unwrap_or_default();
        writeln!(out, "    tools: {{ class: [{}] }}", unseen.join(", ")).unwrap_or_default();
        if let Some(when) = who.alone() {
            writeln!(out, "    when: {}", text(&when)).unwrap_or_default();
        }
        out.push_str("    effect: deny\n    reason: no tool of this class was called\n");
        page.piece(&out, 0) || any
    }
}

fn head(ids: &mut Ids, count: u64, who: &str, server: &str) -> String {
    let (id, who, server) = (ids.next(), key(who), key(server));
    format!("  - id: {id}  # {count} x\n    who: [{who}]\n    servers: [{server}]\n")
}

/// One entry of an egress list.
fn destination(
    traffic: &Traffic,
    paths: &BTreeMap<String, u64>,
    base: Option<&Node>,
    count: u64,
) -> String {
    let peer = if traffic.peer.contains('/') {
        "cidr"
    } else {
        "host"
    };
    let mut out = format!(
        "{{ {peer}: {}, ports: [{}]",
        text(&traffic.peer),
        traffic.port
    );
    if let Some((method, upgraded)) = &traffic.method {
        let paths: Vec<_> = paths.keys().map(|path| text(path)).collect();
        write!(
            out,
            ", methods: [{}], paths: [{}]",
            text(method),
            paths.join(", ")
        )
        .unwrap_or_default();
        if *upgraded {
            out.push_str(", upgrade: true");
        }
    }
    if let Some(Value::Map(fields)) = base.map(|base| &base.value) {
        let kept = fields
            .iter()
            .filter(|field| !ANEW.contains(&field.key.as_str()));
        out.extend(kept.map(|field| format!(", {}", pair(field))));
    }
    format!("      - {out} }}  # {count} x\n")
}

/// Names for rules that are not taken.
#[derive(Debug)]
struct Ids {
    taken: BTreeSet<String>,
    next: u32,
}

impl Ids {
    fn next(&mut self) -> String {
        loop {
            let id = format!("seen-{}", self.next);
            self.next = self.next.saturating_add(1);
            if !self.taken.contains(&id) {
                return id;
            }
        }
    }
}

fn field<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    let Value::Map(fields) = &node.value else {
        return None;
    };
    fields
        .iter()
        .find(|field| field.key == key)
        .map(|field| &field.value)
}

fn word<'n>(node: &'n Node, key: &str) -> Option<&'n str> {
    match &field(node, key)?.value {
        Value::Scalar { text, .. } => Some(text),
        Value::List(_) | Value::Map(_) => None,
    }
}

fn mentions(rule: &Node, key: &str, name: &str) -> bool {
    let Some(Value::List(items)) = field(rule, key).map(|node| &node.value) else {
        return false;
    };
    let is = |item: &Node| matches!(&item.value, Value::Scalar { text, .. } if text == name);
    items.iter().any(is)
}

impl Policy {
    /// What is left out, by why.
    pub(super) fn left_out(&self) -> Vec<LeftOut> {
        let left = self.seen.left.iter();
        left.map(|(why, count)| LeftOut {
            why: why.words(),
            count: *count,
        })
        .collect()
    }
}
