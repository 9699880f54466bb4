//! The figures as a table, with the goals beside what was reached.

use std::fmt::Write as _;

use serde_json::Value;

use crate::cases::CASES;
use crate::ways::Way;

/// The middle of `numbers`; of an even count the upper one, of none zero.
pub(crate) fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

/// A document in Markdown.
pub(crate) fn table(figures: &Value) -> String {
    let mut out = String::new();
    head(&mut out, figures);
    cases(&mut out, figures);
    goals(&mut out, figures);
    out
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn head(out: &mut String, figures: &Value) {
    let machine = &figures["machine"];
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    line(
        out,
        &format!(
            "{}, {} cores, {} GiB, Linux {}; medians of {} rounds of {} s in which the ways take turns; load before {}, after {}.",
            text(&machine["processor"]),
            machine["cores"],
            machine["memory_gib"],
            text(&machine["kernel"]),
            figures["rounds"],
            figures["seconds"],
            machine["load_before"],
            figures["load_after"],
        ),
    );
    line(
        out,
        if machine["pinned"] == true {
            "Client and upstream share the first core, the proxy has the second to itself (HAProxy: one thread; Exeat: gate, supervisor and audit writer). Processor time is the proxy's, user and system."
        } else {
            "One core for everything."
        },
    );
}

fn cases(out: &mut String, figures: &Value) {
    line(
        out,
        "\n| case | way | requests/s | median | p99 | CPU per request | CPU beside HAProxy |",
    );
    line(out, "|---|---|---:|---:|---:|---:|---:|");
    for case in &CASES {
        let ways = &figures["cases"][case.name]["ways"];
        for way in Way::ALL {
            let Some(of) = ways.get(way.name()) else {
                continue;
            };
            let cpu = of["cpu_us"].as_f64();
            let ratio = cpu
                .zip(ways["haproxy"]["cpu_us"].as_f64())
                .map_or_else(String::new, |(own, other)| format!("{:.2} x", own / other));
            line(
                out,
                &format!(
                    "| {} | {} | {:.0} | {} | {} | {} | {ratio} |",
                    if way == Way::ALL[0] { case.what } else { "" },
                    way.name(),
                    of["requests_per_second"].as_f64().unwrap_or_default(),
                    time(of["p50_us"].as_f64()),
                    time(of["p99_us"].as_f64()),
                    time(cpu),
                ),
            );
        }
    }
}

fn time(microseconds: Option<f64>) -> String {
    match microseconds {
        None => String::new(),
        Some(long) if long >= 10_000.0 => format!("{:.1} ms", long / 1000.0),
        Some(short) if short < 100.0 => format!("{short:.1} µs"),
        Some(other) => format!("{other:.0} µs"),
    }
}

fn goals(out: &mut String, figures: &Value) {
    let of = |case: &str, way: Way, figure: &str| {
        figures["cases"][case]["ways"][way.name()][figure].as_f64()
    };
    let ratio = |case: &str, other: Way, figure: &str| {
        of(case, Way::Exeat, figure)
            .zip(of(case, other, figure))
            .map(|(own, other)| own / other)
    };
    let times = |value: Option<f64>| value.map(|value| format!("{value:.2} x"));
    let unit = |value: Option<f64>, unit: &str| value.map(|value| format!("{value:.2} {unit}"));
    let added = |way: Way| {
        of("call_1", way, "p50_us")
            .zip(of("call_1", Way::Direct, "p50_us"))
            .map(|(way, direct)| way - direct)
    };
    let connect = |figure: &str| figures["connect"][figure].as_f64();
    let memory = |way: Way| figures["memory"][way.name()]["kib_per_connection"].as_f64();
    let rows = [
        (
            "CPU per request, 16 connections",
            "at most 1.1 x HAProxy",
            times(ratio("call_16", Way::Haproxy, "cpu_us")),
        ),
        (
            "CPU per request, 256 connections",
            "at most 1.1 x HAProxy",
            times(ratio("call_256", Way::Haproxy, "cpu_us")),
        ),
        (
            "requests/s, 16 connections",
            "at least 30 x mitmproxy",
            times(ratio("call_16", Way::Mitmproxy, "requests_per_second")),
        ),
        (
            "added median latency, 1 connection",
            "no more than HAProxy",
            added(Way::Exeat)
                .zip(added(Way::Haproxy))
                .map(|(own, other)| format!("{own:.0} µs (HAProxy {other:.0} µs)")),
        ),
        (
            "new connections/s",
            "at least 1.0 x HAProxy",
            times(ratio("new", Way::Haproxy, "requests_per_second")),
        ),
        (
            "idle intercepted connection",
            "at most 40 KiB",
            memory(Way::Exeat).map(|own| {
                format!(
                    "{own:.1} KiB (HAProxy {:.1} KiB)",
                    memory(Way::Haproxy).unwrap_or_default()
                )
            }),
        ),
        (
            "connect, unmanaged process",
            "at most 0.3 µs more",
            unit(connect("unmanaged_more_us"), "µs more"),
        ),
        (
            "connect, managed process",
            "at most 4 µs more",
            unit(connect("managed_more_us"), "µs more"),
        ),
        (
            "decision with 1,000 rules",
            "under 1 µs",
            unit(
                figures["decision"]["ns_by_rules"]["1000"]
                    .as_f64()
                    .map(|ns| ns / 1000.0),
                "µs",
            ),
        ),
    ];
    line(out, "\n| goal | | reached |\n|---|---|---|");
    for (what, goal, reached) in rows {
        if let Some(reached) = reached {
            // Writing to a String cannot fail.
            let _infallible = writeln!(out, "| {what} | {goal} | {reached} |");
        }
    }
}
