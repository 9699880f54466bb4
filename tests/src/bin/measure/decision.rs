//! What one decision costs, by the number of rules.

use std::fmt::Write as _;
use std::hint::black_box;

use anyhow::{Result, anyhow};
use exeat_policy::{Action, Caller, PolicySet, Request, Source, Timestamp, compile, evaluate};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Decisions in one sample.
const SAMPLE: u32 = 20_000;
/// As many as a large site has; each rule is about one of each.
pub(crate) const SERVERS: usize = 8;
pub(crate) const IDENTITIES: usize = 20;
/// Samples, of which the median counts.
const SAMPLES: usize = 15;

/// So many rules as people write them, the last of which allows what the cases call; `about` names the identity and
/// the server of each.
pub(crate) fn rules(count: usize, about: impl Fn(usize) -> (String, String)) -> String {
    let mut out = String::from("rules:\n");
    for rule in 1..count {
        let (who, server) = about(rule);
        let (tools, effect) = match rule % 10 {
            9 => (format!("never_{rule}"), "deny"),
            0..3 => (format!("\"family_{rule}_*\""), "allow"),
            3..5 => (format!("\"*_{rule}\""), "allow"),
            _ => (format!("tool_{rule}, other_{rule}"), "allow"),
        };
        // Writing to a String cannot fail.
        let _infallible = writeln!(
            out,
            "  - {{ id: r{rule}, who: [{who}], servers: [{server}], tools: [{tools}], effect: {effect} }}"
        );
    }
    let (who, server) = about(0);
    let _infallible = writeln!(
        out,
        "  - {{ id: bench, who: [{who}], servers: [{server}], tools: [echo, big, stream], effect: allow }}"
    );
    out
}

pub(crate) fn measure() -> Result<Value> {
    let figures = [100, 1_000]
        .into_iter()
        .map(|count| Ok((count.to_string(), json!(nanoseconds(count)?))))
        .collect::<Result<serde_json::Map<_, _>>>()?;
    Ok(json!({ "ns_by_rules": figures }))
}

fn nanoseconds(count: usize) -> Result<f64> {
    let mut text = String::from("version: 1\nservers:\n");
    text.extend((0..SERVERS).map(|n| format!("  s{n}: {{ url: \"https://s{n}.example/mcp\" }}\n")));
    text.push_str("identities:\n");
    text.extend((0..IDENTITIES).map(|n| format!("  i{n}: {{ user: u{n} }}\n")));
    text.push_str(&rules(count, |rule| {
        (
            format!("i{}", rule / SERVERS % IDENTITIES),
            format!("s{}", rule % SERVERS),
        )
    }));
    let name = "bench.yaml".to_owned();
    let set: PolicySet = compile(&[Source { name, text }]).map_err(|faults| {
        anyhow!(
            "compile the policy: {}",
            faults.first().map_or_else(String::new, ToString::to_string)
        )
    })?;
    let request = Request {
        caller: Caller {
            workload: None,
            user: Some("u0"),
            fetching: false,
            token: None,
            certificate: None,
            known_as: &[],
        },
        action: Action::Mcp {
            server: "s0",
            method: "tools/call",
            name: Some("echo"),
            arguments: None,
            hints: None,
            session: None,
        },
        now: Timestamp::from_seconds(1_795_219_200),
        counts: &[],
    };
    let mut samples: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let began = Instant::now();
            for _ in 0..SAMPLE {
                drop(black_box(evaluate(black_box(&set), black_box(&request))));
            }
            began.elapsed().as_secs_f64() * 1e9 / f64::from(SAMPLE)
        })
        .collect();
    Ok(crate::report::median(&mut samples))
}
