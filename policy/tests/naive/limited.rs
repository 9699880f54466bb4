//! Random limits, and the naive reading of them: every call that passed is kept, and counted anew each time.

use std::collections::{HashMap, HashSet};

use exeat_policy::{Count, Counter, LimitKey, Timestamp};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::arguments::{Tree, billionths, is_taken_for};
use super::uris::PATTERNS;
use super::world::{CLASSES, GLOBS, GenTools, SERVERS, quoted};

/// A limit as it is written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GenLimit {
    pub(crate) per: Vec<&'static str>,
    pub(crate) servers: Vec<&'static str>,
    pub(crate) methods: Option<Vec<&'static str>>,
    pub(crate) tools: GenTools,
    pub(crate) cap: GenCap,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum GenCap {
    Calls(usize),
    /// So many in a second.
    Rate(usize),
    /// So many billionths of `/n` in a second.
    Sum(i128),
}

/// A call that passed: when, by which limit's counter, and how much of its sum.
#[derive(Debug, Clone)]
pub(crate) struct Charged {
    limit: usize,
    counter: Vec<String>,
    at: i64,
    amount: i128,
}

/// A message, as far as limits look at it.
pub(crate) struct Call<'a> {
    pub(crate) server: &'a str,
    pub(crate) method: &'a str,
    pub(crate) tool: &'a str,
    /// Whether patterns that restrict are about it.
    pub(crate) is_named: &'a dyn Fn(&[&str]) -> bool,
    /// None but for tools.
    pub(crate) classes: &'a [&'static str],
    pub(crate) arguments: Option<&'a Tree>,
    /// Whose it is, in words of its own.
    pub(crate) caller: String,
    pub(crate) session: &'a str,
    pub(crate) at: i64,
}

pub(crate) fn limits() -> impl Strategy<Value = Vec<GenLimit>> {
    let tools = prop_oneof![
        3 => Just(GenTools::Any),
        1 => subsequence(GLOBS.to_vec(), 1..=2).prop_map(GenTools::Names),
        1 => subsequence(PATTERNS.map(|(pattern, _)| pattern).to_vec(), 1..=2).prop_map(GenTools::Names),
        1 => subsequence(CLASSES.to_vec(), 1..=2).prop_map(GenTools::Classes),
    ];
    let cap = prop_oneof![
        (1_usize..4).prop_map(GenCap::Calls),
        (1_usize..4).prop_map(GenCap::Rate),
        select(vec![0, 5_000_000_000, 11_500_000_000]).prop_map(GenCap::Sum),
    ];
    let methods = vec![
        "tools/call",
        "prompts/get",
        "resources/*",
        "*",
        "sampling/createMessage",
        "initialize",
        "x/?",
    ];
    let limit = (
        subsequence(vec!["session", "tool", "identity", "server"], 1..=3),
        subsequence(SERVERS.to_vec(), 0..=2),
        prop::option::of(subsequence(methods, 1..=3)),
        tools,
        cap,
    )
        .prop_map(|(per, servers, methods, tools, cap)| {
            let methods = methods.and_then(|methods| written(methods, &per, &tools, cap));
            GenLimit {
                per,
                servers,
                methods,
                tools,
                cap,
            }
        });
    // Some share a counter.
    let alike = (limit.clone(), select(vec![1, 3])).prop_map(|(limit, calls)| {
        let cap = match limit.cap {
            GenCap::Calls(_) => GenCap::Calls(calls),
            GenCap::Rate(_) => GenCap::Rate(calls),
            GenCap::Sum(_) => GenCap::Sum(5_000_000_000),
        };
        let other = GenLimit {
            cap,
            ..limit.clone()
        };
        vec![limit, other]
    });
    let limits = prop_oneof![4 => prop::collection::vec(limit, 1..3), 1 => alike];
    prop::option::weighted(0.4, limits).prop_map(Option::unwrap_or_default)
}

/// What of these methods may be written in a limit; `None`: nothing.
fn written(
    mut methods: Vec<&'static str>,
    per: &[&str],
    tools: &GenTools,
    cap: GenCap,
) -> Option<Vec<&'static str>> {
    if *tools != GenTools::Any && !methods.contains(&"tools/call") {
        methods.push("tools/call");
    }
    if per.contains(&"tool") {
        methods.retain(|method| ["tools/call", "prompts/get"].contains(method));
    }
    if matches!(cap, GenCap::Sum(_)) {
        methods.retain(|method| *method == "tools/call");
    }
    (!methods.is_empty()).then_some(methods)
}

impl GenLimit {
    pub(crate) fn text(&self) -> String {
        let mut out = format!("  - {{ per: [{}]", self.per.join(", "));
        if !self.servers.is_empty() {
            out.push_str(&format!(", servers: {}", quoted(&self.servers)));
        }
        if let Some(methods) = &self.methods {
            out.push_str(&format!(", methods: {}", quoted(methods)));
        }
        match &self.tools {
            GenTools::Names(names) => out.push_str(&format!(", tools: {}", quoted(names))),
            GenTools::Classes(classes) => {
                out.push_str(&format!(", tools: {{ class: {} }}", quoted(classes)));
            }
            GenTools::Any | GenTools::Both(..) => {}
        }
        out.push_str(&match self.cap {
            GenCap::Calls(calls) => format!(", calls: {calls}"),
            GenCap::Rate(calls) => format!(", rate: {calls}/s"),
            GenCap::Sum(most) => {
                format!(
                    ", sum: /n, max: {}.{:09}, window: 1s",
                    most / 1_000_000_000,
                    most % 1_000_000_000
                )
            }
        });
        out + " }\n"
    }

    fn is_about(&self, call: &Call<'_>, glob: fn(&str, &str) -> bool) -> bool {
        let tools = match &self.tools {
            GenTools::Any => true,
            GenTools::Names(names) => (call.is_named)(names),
            GenTools::Classes(classes) | GenTools::Both(_, classes) => {
                call.classes.iter().any(|class| classes.contains(class))
            }
        };
        let method = match &self.methods {
            None => call.method == "tools/call",
            Some(methods) => methods.iter().any(|method| glob(method, call.method)),
        };
        method && tools && (self.servers.is_empty() || self.servers.contains(&call.server))
    }

    fn counter(&self, call: &Call<'_>) -> Vec<String> {
        let part = |per: &&str| match *per {
            "session" => format!("{} {}", call.server, call.session),
            "tool" => format!("{} {} {}", call.server, call.method, call.tool),
            "server" => call.server.to_owned(),
            _ => call.caller.clone(),
        };
        self.per.iter().map(part).collect()
    }

    /// What the call adds; `None`: it cannot be summed.
    fn amount(&self, call: &Call<'_>) -> Option<i128> {
        let (GenCap::Sum(_), Some(Tree::Map(map))) = (self.cap, call.arguments) else {
            return Some(0);
        };
        if map.iter().any(|(key, _)| is_taken_for(key, "n")) {
            return None;
        }
        match map.iter().find(|(key, _)| *key == "n") {
            None => Some(0),
            Some((_, Tree::Number(text))) => billionths(text).filter(|n| *n >= 0),
            Some(_) => None,
        }
    }

    fn admits(&self, index: usize, call: &Call<'_>, passed: &[Charged]) -> bool {
        let Some(amount) = self.amount(call) else {
            return false;
        };
        let counter = self.counter(call);
        let mine = || {
            let same = |one: &&Charged| one.limit == index && one.counter == counter;
            passed.iter().filter(same)
        };
        let recent = || mine().filter(|one| call.at - one.at < 1_000);
        match self.cap {
            GenCap::Calls(most) => mine().count() < most,
            GenCap::Rate(most) => recent().count() < most,
            GenCap::Sum(most) => {
                amount == 0 || recent().map(|one| one.amount).sum::<i128>() + amount <= most
            }
        }
    }
}

/// The first limit that refuses the call.
pub(crate) fn refuses(
    limits: &[GenLimit],
    call: &Call<'_>,
    passed: &[Charged],
    glob: fn(&str, &str) -> bool,
) -> Option<usize> {
    let mut about = limits
        .iter()
        .enumerate()
        .filter(|(_, limit)| limit.is_about(call, glob));
    let refuses = |(index, limit): &(usize, &GenLimit)| !limit.admits(*index, call, passed);
    about.find(refuses).map(|(index, _)| index)
}

/// Keeps a call that passed.
pub(crate) fn charge(
    limits: &[GenLimit],
    call: &Call<'_>,
    passed: &mut Vec<Charged>,
    glob: fn(&str, &str) -> bool,
) {
    for (index, limit) in limits.iter().enumerate() {
        if limit.is_about(call, glob) {
            passed.push(Charged {
                limit: index,
                counter: limit.counter(call),
                at: call.at,
                amount: limit.amount(call).unwrap_or_default(),
            });
        }
    }
}

/// The engine's counters, as their keeper keeps them.
#[derive(Default)]
pub(crate) struct Kept(HashMap<String, Counter>);

impl Kept {
    pub(crate) fn counts(&mut self, keys: &[LimitKey], now: Timestamp) -> Vec<Count> {
        let count = |key: &LimitKey| {
            let counter = self
                .0
                .entry(key.key.clone())
                .or_insert_with(|| Counter::new(key.cap));
            counter.count(key, now)
        };
        keys.iter().map(count).collect()
    }

    pub(crate) fn charge(&mut self, keys: &[LimitKey], now: Timestamp) {
        let mut charged = HashSet::new();
        for key in keys.iter().filter(|key| charged.insert(&key.key)) {
            if let Some(counter) = self.0.get_mut(&key.key) {
                counter.charge(key, now);
            }
        }
    }
}
