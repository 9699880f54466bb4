//! The cases, in rounds in which the ways take turns.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};

use crate::report::median;
use crate::ways::{Open, Site, Way};
use crate::{Arguments, say};

/// What is asked for.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    arguments: &'static [&'static str],
}

pub(crate) const CASES: [Case; 7] = [
    Case {
        name: "call_1",
        what: "200-byte call, 1 kept connection",
        arguments: &["--connections", "1"],
    },
    Case {
        name: "call_16",
        what: "200-byte call, 16 kept connections",
        arguments: &["--connections", "16"],
    },
    Case {
        name: "paced",
        what: "200-byte call, 16 kept connections, 8,000 requests/s whatever is between",
        arguments: &["--connections", "16", "--rate", "8000"],
    },
    Case {
        name: "call_256",
        what: "200-byte call, 256 kept connections",
        arguments: &["--connections", "256"],
    },
    Case {
        name: "new",
        what: "200-byte call, a new connection each, 16 at once",
        arguments: &["--connections", "16", "--new"],
    },
    Case {
        name: "big",
        what: "answer of 1 MiB, 4 kept connections",
        arguments: &["--connections", "4", "--tool", "big", "--n", "1048576"],
    },
    Case {
        name: "stream",
        what: "stream of 1,000 events, 4 kept connections",
        arguments: &["--connections", "4", "--tool", "stream", "--n", "1000"],
    },
];

/// What is kept of each round: (name, where it stands in the client's report).
const KEPT: [(&str, &str); 3] = [
    ("requests_per_second", "/requests_per_second"),
    ("p50_us", "/latency_us/p50"),
    ("p99_us", "/latency_us/p99"),
];

pub(crate) async fn measure(arguments: &Arguments, site: &Site) -> Result<Value> {
    let cases: Vec<&Case> = CASES
        .iter()
        .filter(|case| arguments.wants(case.name))
        .collect();
    let mut rounds: Vec<(&str, &str, Value)> = Vec::new();
    for round in 1..=arguments.rounds() {
        for way in arguments.ways() {
            if cases.is_empty() {
                continue;
            }
            let open = site.open(arguments, way).await?;
            for case in &cases {
                say(&format!("round {round}: {}: {}", way.name(), case.what));
                let figures = one(arguments, &open, case)
                    .await
                    .with_context(|| format!("{}: {}", way.name(), case.what))?;
                rounds.push((case.name, way.name(), figures));
            }
        }
    }
    let mut result = Map::new();
    for case in cases {
        let of = |way: Way| -> Vec<&Value> {
            rounds
                .iter()
                .filter(|(name, of, _)| *name == case.name && *of == way.name())
                .map(|(_, _, figures)| figures)
                .collect()
        };
        let mut ways = Map::new();
        for way in arguments.ways() {
            let mut figures = medians(of(way).into_iter());
            let ratio = beside(&of(way), &of(Way::Haproxy));
            if let Some((figures, ratio)) = figures.as_object_mut().zip(ratio) {
                figures.insert("cpu_beside_haproxy".to_owned(), json!(ratio));
            }
            ways.insert(way.name().to_owned(), figures);
        }
        result.insert(
            case.name.to_owned(),
            json!({ "what": case.what, "ways": ways }),
        );
    }
    Ok(Value::Object(result))
}

/// The median of what one way took beside the other in the same round: what else the machine did meanwhile is in both.
fn beside(own: &[&Value], other: &[&Value]) -> Option<f64> {
    let cpu = |figures: &Value| figures.get("cpu_us")?.as_f64();
    let mut ratios = own
        .iter()
        .zip(other)
        .map(|(own, other)| Some(cpu(own)? / cpu(other)?))
        .collect::<Option<Vec<f64>>>()?;
    (!ratios.is_empty()).then(|| median(&mut ratios))
}

async fn one(arguments: &Arguments, open: &Open<'_>, case: &Case) -> Result<Value> {
    let seconds = arguments.seconds().to_string();
    let mut client = open
        .client("run", &[case.arguments, &["--seconds", &seconds]].concat())
        .await?;
    let limit = Duration::from_secs(arguments.seconds() + 60);
    let status = client.wait(limit).await.with_context(|| client.report())?;
    ensure!(status.success(), "{}", client.report());
    let report: Value = serde_json::from_str(client.stdout().trim()).context("read a report")?;
    let said = |name: &str| report.get(name).cloned().unwrap_or_default();
    ensure!(
        said("errors") == 0,
        "{} requests failed, the first: {}",
        said("errors"),
        said("error")
    );
    let mut figures = Map::new();
    for (name, pointer) in KEPT {
        figures.insert(
            name.to_owned(),
            report.pointer(pointer).cloned().unwrap_or_default(),
        );
    }
    let watched = said("watched");
    let watched = watched.as_array().map(Vec::as_slice).unwrap_or_default();
    if !watched.is_empty() {
        let each = watched
            .iter()
            .filter_map(|process| process.get("cpu_us_per_request")?.as_f64());
        figures.insert("cpu_us".to_owned(), json!(each.sum::<f64>()));
    }
    Ok(Value::Object(figures))
}

/// The median of each figure.
pub(crate) fn medians<'a>(rounds: impl Iterator<Item = &'a Value>) -> Value {
    let mut all: Map<String, Value> = Map::new();
    let mut samples: Vec<(String, Vec<f64>)> = Vec::new();
    for (name, value) in rounds.filter_map(Value::as_object).flatten() {
        let Some(number) = value.as_f64() else {
            continue;
        };
        match samples.iter_mut().find(|(known, _)| known == name) {
            Some((_, numbers)) => numbers.push(number),
            None => samples.push((name.clone(), vec![number])),
        }
    }
    for (name, mut numbers) in samples {
        all.insert(name, json!(median(&mut numbers)));
    }
    Value::Object(all)
}
