//! Random policies of a small world, as values and as text.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::arguments::{GenArg, argument};
use super::conditions::{Condition, condition};
use super::limited::{GenLimit, limits};
use super::uris::PATTERNS;

/// A policy as its reader would tell it.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) observe: bool,
    pub(crate) strict: bool,
    pub(crate) servers: Vec<GenServer>,
    /// What host `h` lists.
    pub(crate) listed: Vec<&'static str>,
    pub(crate) rules: Vec<GenRule>,
    /// What each of the [`ROLES`] grants: allow rules without an own `who`.
    pub(crate) grants: Vec<GenRule>,
    pub(crate) limits: Vec<GenLimit>,
}

#[derive(Debug, Clone)]
pub(crate) struct GenServer {
    pub(crate) name: &'static str,
    pub(crate) url: bool,
    pub(crate) observe: bool,
    pub(crate) overdue: bool,
    pub(crate) tools: Vec<(&'static str, &'static str)>,
}

#[derive(Debug, Clone)]
pub(crate) struct GenRule {
    pub(crate) id: usize,
    pub(crate) who: Vec<&'static str>,
    pub(crate) servers: Vec<&'static str>,
    pub(crate) methods: Option<Vec<&'static str>>,
    pub(crate) tools: GenTools,
    pub(crate) args: Vec<GenArg>,
    pub(crate) when: Option<Condition>,
    pub(crate) effect: GenEffect,
    /// Of a rule that asks for an approval.
    pub(crate) approvers: Vec<&'static str>,
    pub(crate) observe: bool,
    pub(crate) expires: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum GenTools {
    Any,
    Names(Vec<&'static str>),
    Classes(Vec<&'static str>),
    Both(Vec<&'static str>, Vec<&'static str>),
}

/// From the weakest to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum GenEffect {
    Allow,
    DryRun,
    Approve,
    Deny,
}

/// Roles and their members. A role that grants nothing and that no rule names is left out of the text.
pub(crate) const ROLES: [(&str, &[&str]); 2] =
    [("team", &["dave", "h", "staff"]), ("crew", &["es", "bots"])];

/// The identities of the world, and their users' patterns.
pub(crate) const IDENTITIES: [(&str, &[&str]); 3] =
    [("dave", &["dave"]), ("es", &["e*", "x"]), ("all", &["*"])];
/// A claim, and the texts of which it has to be one.
pub(crate) type Claim = (&'static str, &'static [&'static str]);

/// Identities by token: the issuer, and which of some texts a claim has to be; without a claim, any token.
pub(crate) const TOKENS: [(&str, &str, Option<Claim>); 2] = [
    (
        "staff",
        "https://i.example",
        Some(("group", &["ops", "dev"])),
    ),
    ("guests", "https://j.example", None),
];
/// The names that a certificate has to show: their key, and the patterns of which one has to fit.
pub(crate) type Names = &'static [(&'static str, &'static [&'static str])];

/// Identities by certificate: the authority, and the names.
pub(crate) const CERTIFICATES: [(&str, &str, Names); 3] = [
    (
        "bots",
        "corp",
        &[("uri", &["spiffe://x/*", "spiffe://y/b"])],
    ),
    (
        "named",
        "corp",
        &[("common_name", &["a"]), ("dns", &["?.x"])],
    ),
    ("labs", "lab", &[]),
];
pub(crate) const SERVERS: [&str; 3] = ["a", "b", "c"];
pub(crate) const CLASSES: [&str; 4] = ["read", "write", "destructive", "external"];
pub(crate) const METHODS: [&str; 9] = [
    "tools/call",
    "initialize",
    "tools/list",
    "resources/read",
    "completion/complete",
    "prompts/get",
    "sampling/createMessage",
    "x/y",
    "notifications/z",
];
pub(crate) const NAMES: [&str; 8] = [
    "",
    "get_a",
    "get_b",
    "get_",
    "del_all",
    "set",
    "xet_a",
    "get_a_all",
];

pub(crate) fn world() -> impl Strategy<Value = World> {
    let rules = prop::collection::vec(rule(), 0..8);
    let grants = prop::collection::vec(grant(), 0..4);
    (frame(), rules, grants).prop_map(|(frame, rules, grants)| frame.with(rules, grants))
}

/// A world without rules and grants.
pub(crate) fn frame() -> impl Strategy<Value = World> {
    let servers = SERVERS.map(server);
    let listed = subsequence(SERVERS.to_vec(), 0..=3);
    (
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.2),
        servers,
        listed,
        limits(),
    )
        .prop_map(|(observe, strict, servers, listed, limits)| World {
            observe,
            strict,
            servers: servers.into(),
            listed,
            rules: Vec::new(),
            grants: Vec::new(),
            limits,
        })
}

fn server(name: &'static str) -> impl Strategy<Value = GenServer> {
    let tools = vec![
        ("get_*", "read"),
        ("get_a", "write"),
        ("*_all", "destructive"),
        ("*", "external"),
        ("get_a*", "destructive"),
        ("?et", "write"),
    ];
    let tools = subsequence(tools, 0..=4);
    (
        any::<bool>(),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.3),
        tools,
    )
        .prop_map(move |(url, observe, overdue, tools)| GenServer {
            name,
            url,
            observe,
            overdue,
            tools,
        })
}

/// Grants are numbered from here.
pub(crate) const GRANTED: usize = 1_000;
pub(crate) const GLOBS: [&str; 8] = [
    "get_*", "get_a", "*", "?et_a", "*_all", "set", "g*_a*", "get_??",
];

pub(crate) fn grant() -> impl Strategy<Value = GenRule> {
    let names = prop::option::weighted(0.5, subsequence(GLOBS.to_vec(), 1..=2));
    let classes = prop::option::weighted(0.5, subsequence(CLASSES.to_vec(), 1..=3));
    let tools = (names, classes).prop_map(|tools| match tools {
        (None, None) => GenTools::Any,
        (Some(names), None) => GenTools::Names(names),
        (None, Some(classes)) => GenTools::Classes(classes),
        (Some(names), Some(classes)) => GenTools::Both(names, classes),
    });
    (
        select(ROLES.to_vec()),
        subsequence(SERVERS.to_vec(), 1..=2),
        tools,
    )
        .prop_map(|((role, _), servers, tools)| GenRule {
            id: 0,
            who: vec![role],
            servers,
            methods: None,
            tools,
            args: Vec::new(),
            when: None,
            effect: GenEffect::Allow,
            approvers: Vec::new(),
            observe: false,
            expires: None,
        })
}

pub(crate) fn rule() -> impl Strategy<Value = GenRule> {
    let globs = GLOBS.to_vec();
    let methods = vec![
        "tools/call",
        "resources/*",
        "*",
        "sampling/createMessage",
        "x/*",
        "initialize",
        "tools/*",
    ];
    let tools = prop_oneof![
        2 => Just(GenTools::Any),
        3 => subsequence(globs, 1..=2).prop_map(GenTools::Names),
        1 => subsequence(CLASSES.to_vec(), 1..=3).prop_map(GenTools::Classes),
    ];
    let any = (
        prop::option::weighted(0.3, subsequence(methods, 1..=2)),
        tools,
    );
    let resources = vec!["resources/*", "completion/complete", "*"];
    let resources = (
        subsequence(resources, 1..=2).prop_map(Some),
        subsequence(PATTERNS.map(|(pattern, _)| pattern).to_vec(), 1..=2).prop_map(GenTools::Names),
    );
    (
        subsequence(
            vec![
                "dave", "es", "all", "h", "team", "crew", "staff", "guests", "bots", "named",
                "labs",
            ],
            0..=2,
        ),
        subsequence(SERVERS.to_vec(), 0..=2),
        prop_oneof![3 => any, 1 => resources],
        prop::option::weighted(0.4, prop::collection::vec(argument(), 1..=2)),
        prop::option::weighted(0.3, condition()),
        prop_oneof![
            6 => Just((GenEffect::Allow, Vec::new())),
            1 => Just((GenEffect::DryRun, Vec::new())),
            2 => subsequence(vec!["dave", "es", "all"], 0..=2)
                .prop_map(|approvers| (GenEffect::Approve, approvers)),
            2 => Just((GenEffect::Deny, Vec::new())),
        ],
        prop::bool::weighted(0.2),
        prop::option::weighted(0.3, select(vec!["2026-11-20", "2026-11-21"])),
    )
        .prop_map(
            |(
                who,
                servers,
                (methods, tools),
                args,
                when,
                (effect, approvers),
                observe,
                expires,
            )| {
                GenRule {
                    id: 0,
                    who,
                    servers,
                    methods,
                    tools,
                    // A rule that allows may not say `any`.
                    args: args
                        .unwrap_or_default()
                        .into_iter()
                        .filter(|arg| effect != GenEffect::Allow || arg.field.is_some())
                        .collect(),
                    when,
                    effect,
                    approvers,
                    observe,
                    expires,
                }
            },
        )
}

pub(crate) fn quoted(words: &[&str]) -> String {
    format!(
        "[{}]",
        words
            .iter()
            .map(|word| format!("\"{word}\""))
            .collect::<Vec<_>>()
            .join(", ")
    )
}

impl GenRule {
    fn text(&self) -> String {
        let effect = match self.effect {
            GenEffect::Allow => "allow",
            GenEffect::DryRun => "dry_run",
            GenEffect::Approve => "approve",
            GenEffect::Deny => "deny",
        };
        let mut out = format!("  - {{ id: r{}, effect: {effect}", self.id);
        let mut put = |key: &str, value: String| out.push_str(&format!(", {key}: {value}"));
        if !self.who.is_empty() {
            put("who", quoted(&self.who));
        }
        if !self.servers.is_empty() {
            put("servers", quoted(&self.servers));
        }
        if let Some(methods) = &self.methods {
            put("methods", quoted(methods));
        }
        match &self.tools {
            GenTools::Any => {}
            GenTools::Names(names) => put("tools", quoted(names)),
            GenTools::Classes(classes) => put("tools", format!("{{ class: {} }}", quoted(classes))),
            GenTools::Both(..) => panic!("only grants name both"),
        }
        if !self.args.is_empty() {
            let args: Vec<_> = self.args.iter().map(GenArg::text).collect();
            put("args", format!("[{}]", args.join(", ")));
        }
        if let Some(when) = &self.when {
            put("when", format!("\"{}\"", when.text()));
        }
        if self.effect == GenEffect::Approve && !self.approvers.is_empty() {
            put("approvers", quoted(&self.approvers));
        }
        if self.observe {
            put("mode", "observe".to_owned());
        }
        if let Some(date) = self.expires {
            put("expires", date.to_owned());
        }
        out + " }\n"
    }

    fn grant_text(&self) -> String {
        let mut out = format!("      - {{ servers: {}", quoted(&self.servers));
        if let GenTools::Names(names) | GenTools::Both(names, _) = &self.tools {
            out.push_str(&format!(", tools: {}", quoted(names)));
        }
        if let GenTools::Classes(classes) | GenTools::Both(_, classes) = &self.tools {
            out.push_str(&format!(", classes: {}", quoted(classes)));
        }
        out + " }\n"
    }
}

impl World {
    pub(crate) fn with(self, mut rules: Vec<GenRule>, mut grants: Vec<GenRule>) -> Self {
        for (index, rule) in rules.iter_mut().enumerate() {
            rule.id = index;
        }
        // The grants of the first role stand before those of the second.
        grants.sort_by_key(|grant| ROLES.iter().position(|(role, _)| grant.who == [*role]));
        for (index, grant) in grants.iter_mut().enumerate() {
            grant.id = GRANTED + index;
        }
        Self {
            rules,
            grants,
            ..self
        }
    }

    /// The policy's text, and in which line each rule and grant stands.
    pub(crate) fn text(&self) -> (String, Vec<(u32, usize)>) {
        let mut out = format!(
            "version: 1\nmode: {}\nstrict_review: {}\nservers:\n",
            if self.observe { "observe" } else { "enforce" },
            self.strict
        );
        for server in &self.servers {
            let way = if server.url {
                "url: \"https://s.example/\""
            } else {
                "launch: { command: x }"
            };
            let tools: Vec<_> = server
                .tools
                .iter()
                .map(|(glob, class)| format!("\"{glob}\": {class}"))
                .collect();
            let mode = if server.observe { "observe" } else { "enforce" };
            let review = if server.overdue {
                ", review_by: 2026-11-20"
            } else {
                ""
            };
            out.push_str(&format!(
                "  {}: {{ {way}, mode: {mode}, tools: {{ {} }}{review} }}\n",
                server.name,
                tools.join(", ")
            ));
        }
        out.push_str(&format!(
            "hosts: {{ h: {{ servers: {} }} }}\nidentities:\n",
            quoted(&self.listed)
        ));
        for (name, users) in IDENTITIES {
            out.push_str(&format!("  {name}: {{ user: {} }}\n", quoted(users)));
        }
        for (name, issuer, claim) in TOKENS {
            let claims =
                claim.map(|(claim, any)| format!(", claims: {{ {claim}: {} }}", quoted(any)));
            let claims = claims.unwrap_or_default();
            out.push_str(&format!(
                "  {name}: {{ jwt: {{ issuer: \"{issuer}\"{claims} }} }}\n"
            ));
        }
        for (name, authority, names) in CERTIFICATES {
            let mut all = String::new();
            for (key, any) in names {
                all.push_str(&format!(", {key}: {}", quoted(any)));
            }
            out.push_str(&format!(
                "  {name}: {{ certificate: {{ authority: {authority}{all} }} }}\n"
            ));
        }
        let mut lines = Vec::new();
        let next = |out: &str| u32::try_from(out.lines().count()).unwrap() + 1;
        out.push_str("roles:\n");
        let mut any = false;
        for (role, members) in ROLES {
            let grants = || self.grants.iter().filter(|grant| grant.who == [role]);
            if grants().next().is_none() && !self.rules.iter().any(|rule| rule.who.contains(&role))
            {
                continue;
            }
            any = true;
            out.push_str(&format!(
                "  {role}:\n    members: {}\n    grants:\n",
                quoted(members)
            ));
            for grant in grants() {
                lines.push((next(&out), grant.id));
                out.push_str(&grant.grant_text());
            }
            if grants().next().is_none() {
                out.push_str("      []\n");
            }
        }
        if !any {
            out.push_str("  {}\n");
        }
        out.push_str("rules:\n");
        for rule in &self.rules {
            lines.push((next(&out), rule.id));
            out.push_str(&rule.text());
        }
        if self.rules.is_empty() {
            out.push_str("  []\n");
        }
        out.push_str("limits:\n");
        for limit in &self.limits {
            out.push_str(&limit.text());
        }
        if self.limits.is_empty() {
            out.push_str("  []\n");
        }
        (out, lines)
    }
}
