//! Random policies of a small world, as values and as text.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

/// A policy as its reader would tell it.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) observe: bool,
    pub(crate) strict: bool,
    pub(crate) servers: Vec<GenServer>,
    /// What host `h` lists.
    pub(crate) listed: Vec<&'static str>,
    pub(crate) rules: Vec<GenRule>,
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
    pub(crate) allow: bool,
    pub(crate) observe: bool,
    pub(crate) expires: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum GenTools {
    Any,
    Names(Vec<&'static str>),
    Classes(Vec<&'static str>),
}

/// The identities of the world, and their users' patterns.
pub(crate) const IDENTITIES: [(&str, &[&str]); 3] =
    [("dave", &["dave"]), ("es", &["e*", "x"]), ("all", &["*"])];
pub(crate) const SERVERS: [&str; 3] = ["a", "b", "c"];
pub(crate) const CLASSES: [&str; 4] = ["read", "write", "destructive", "external"];
pub(crate) const METHODS: [&str; 8] = [
    "tools/call",
    "initialize",
    "tools/list",
    "resources/read",
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
    let servers = SERVERS.map(server);
    let listed = subsequence(SERVERS.to_vec(), 0..=3);
    (
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.2),
        servers,
        listed,
        rules,
    )
        .prop_map(|(observe, strict, servers, listed, mut rules)| {
            for (index, rule) in rules.iter_mut().enumerate() {
                rule.id = index;
            }
            World {
                observe,
                strict,
                servers: servers.into(),
                listed,
                rules,
            }
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

pub(crate) fn rule() -> impl Strategy<Value = GenRule> {
    let globs = vec![
        "get_*", "get_a", "*", "?et_a", "*_all", "set", "g*_a*", "get_??",
    ];
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
    (
        subsequence(vec!["dave", "es", "all", "h"], 0..=2),
        subsequence(SERVERS.to_vec(), 0..=2),
        prop::option::weighted(0.3, subsequence(methods, 1..=2)),
        tools,
        prop::bool::weighted(0.6),
        prop::bool::weighted(0.2),
        prop::option::weighted(0.3, select(vec!["2026-11-20", "2026-11-21"])),
    )
        .prop_map(
            |(who, servers, methods, tools, allow, observe, expires)| GenRule {
                id: 0,
                who,
                servers,
                methods,
                tools,
                allow,
                observe,
                expires,
            },
        )
}

fn quoted(words: &[&str]) -> String {
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
        let mut out = format!(
            "  - {{ id: r{}, effect: {}",
            self.id,
            if self.allow { "allow" } else { "deny" }
        );
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
        }
        if self.observe {
            put("mode", "observe".to_owned());
        }
        if let Some(date) = self.expires {
            put("expires", date.to_owned());
        }
        out + " }\n"
    }
}

impl World {
    /// The policy's text, and in which line each rule stands.
    pub(crate) fn text(&self) -> (String, Vec<u32>) {
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
        out.push_str("rules:\n");
        let mut lines = Vec::new();
        for rule in &self.rules {
            lines.push(u32::try_from(out.lines().count()).unwrap() + 1);
            out.push_str(&rule.text());
        }
        if self.rules.is_empty() {
            out.push_str("  []\n");
        }
        (out, lines)
    }
}
