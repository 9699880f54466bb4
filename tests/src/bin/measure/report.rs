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
    let figures = Figures(figures);
    let mut out = String::new();
    figures.head(&mut out);
    figures.cases(&mut out);
    figures.goals(&mut out);
    out
}

struct Figures<'a>(&'a Value);

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

impl Figures<'_> {
    fn text(&self, pointer: &str) -> String {
        match self.0.pointer(pointer) {
            None | Some(Value::Null) => "?".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    }

    fn number(&self, pointer: &str) -> Option<f64> {
        self.0.pointer(pointer)?.as_f64()
    }

    /// One figure of one way in one case.
    fn of(&self, case: &str, way: Way, figure: &str) -> Option<f64> {
        self.number(&format!("/cases/{case}/ways/{}/{figure}", way.name()))
    }

    /// Exeat's beside another way's.
    fn ratio(&self, case: &str, other: Way, figure: &str) -> Option<f64> {
        Some(self.of(case, Way::Exeat, figure)? / self.of(case, other, figure)?)
    }

    fn head(&self, out: &mut String) {
        let text = |pointer: &str| self.text(pointer);
        line(
            out,
            &format!(
                "{}, {} cores, {} GiB, Linux {}. Medians of {} rounds of {} s in which the ways take turns. \
                 Load average before {}, after {}.",
                text("/machine/processor"),
                text("/machine/cores"),
                text("/machine/memory_gib"),
                text("/machine/kernel"),
                text("/rounds"),
                text("/seconds"),
                text("/machine/load_before"),
                text("/load_after"),
            ),
        );
        let pinned = self.0.pointer("/machine/pinned") == Some(&Value::Bool(true));
        line(
            out,
            if pinned {
                "Client and upstream share the first core; the proxy has the second (HAProxy: one thread; Exeat: \
                 supervisor, gate and the writer of its log). CPU is the proxy's, user and system."
            } else {
                "One core for everything. CPU is the proxy's, user and system."
            },
        );
    }

    fn cases(&self, out: &mut String) {
        line(
            out,
            "\n| case | way | requests/s | median | p99 | CPU per request | beside HAProxy |",
        );
        line(out, "|---|---|---:|---:|---:|---:|---:|");
        for case in &CASES {
            let mut what = case.what;
            for way in Way::ALL {
                let of = |figure: &str| self.of(case.name, way, figure);
                let Some(rate) = of("requests_per_second") else {
                    continue;
                };
                let row = format!(
                    "| {what} | {} | {rate:.0} | {} | {} | {} | {} |",
                    way.name(),
                    time(of("p50_us")),
                    time(of("p99_us")),
                    time(of("cpu_us")),
                    times(of("cpu_beside_haproxy")).unwrap_or_default(),
                );
                line(out, &row);
                what = "";
            }
        }
    }

    fn goals(&self, out: &mut String) {
        line(out, "\n| goal | | reached |\n|---|---|---|");
        let all = self.proxied().into_iter().chain(self.beside());
        for (what, goal, reached) in all.chain(self.stdio()) {
            if let Some(reached) = reached {
                // Writing to a String cannot fail.
                let _infallible = writeln!(out, "| {what} | {goal} | {reached} |");
            }
        }
    }

    fn proxied(&self) -> [Goal; 7] {
        let added = |way: Way| {
            let of = |way: Way| self.of("call_1", way, "p50_us");
            Some(of(way)? - of(Way::Direct)?)
        };
        let latency = added(Way::Exeat).map(|own| match added(Way::Haproxy) {
            Some(other) => format!("{own:.0} µs (HAProxy {other:.0} µs)"),
            None => format!("{own:.0} µs"),
        });
        let held = |way: Way| self.number(&format!("/memory/{}/kib_per_connection", way.name()));
        let memory = held(Way::Exeat).map(|own| match held(Way::Haproxy) {
            Some(other) => format!("{own:.1} KiB (HAProxy {other:.1} KiB)"),
            None => format!("{own:.1} KiB"),
        });
        let cpu = |case: &str| times(self.of(case, Way::Exeat, "cpu_beside_haproxy"));
        let rate = |case: &str, other: Way| times(self.ratio(case, other, "requests_per_second"));
        [
            (
                "CPU per call, 16 connections",
                "at most 1.1 x HAProxy",
                cpu("call_16"),
            ),
            (
                "CPU per call, 16 connections, 8,000/s",
                "at most 1.1 x HAProxy",
                cpu("paced"),
            ),
            (
                "CPU per call, 256 connections",
                "at most 1.1 x HAProxy",
                cpu("call_256"),
            ),
            (
                "calls/s, 16 connections",
                "at least 30 x mitmproxy",
                rate("call_16", Way::Mitmproxy),
            ),
            (
                "added median latency, 1 connection",
                "no more than HAProxy",
                latency,
            ),
            (
                "new connections/s",
                "at least 1.0 x HAProxy",
                rate("new", Way::Haproxy),
            ),
            ("idle intercepted connection", "at most 40 KiB", memory),
        ]
    }

    /// What no proxy has part in.
    fn beside(&self) -> [Goal; 5] {
        let more = |figure: &str| {
            let more = self.number(&format!("/connect/{figure}"))?;
            Some(format!("{more:.2} µs more"))
        };
        let decision = self.number("/decision/ns_by_rules/1000");
        let reload = |rules: usize| {
            let of = |way: &str, figure: &str| {
                self.number(&format!("/reload/{rules}/{way}_ms/{figure}"))
            };
            let slower = |figure: &str| Some(of("http", figure)?.max(of("stdio", figure)?));
            let (last, median) = (slower("max")?, slower("median")?);
            Some(format!("{last:.0} ms ({median:.0} ms)"))
        };
        [
            (
                "connect, unmanaged process",
                "at most 0.3 µs more",
                more("unmanaged_more_us"),
            ),
            (
                "connect, managed process",
                "at most 4 µs more",
                more("managed_more_us"),
            ),
            (
                "decision with 1,000 rules",
                "under 1 µs",
                decision.map(|ns| format!("{:.2} µs", ns / 1000.0)),
            ),
            (
                "rename of 1,000 rules to the verdict, last (median)",
                "under 100 ms",
                reload(1_000),
            ),
            ("the same of 10,000 rules", "", reload(10_000)),
        ]
    }
}

impl Figures<'_> {
    /// Over standard streams.
    fn stdio(&self) -> [Goal; 3] {
        let of = |way: Way, figure: &str| self.number(&format!("/stdio/{}/{figure}", way.name()));
        let pair = |figure: &str| Some((of(Way::Exeat, figure)?, of(Way::Direct, figure)?));
        [
            (
                "stdio call, added median (99th percentile)",
                "at most 60 µs",
                pair("p50_us").zip(pair("p99_us")).map(|(median, last)| {
                    format!(
                        "{:.0} µs ({:.0} µs); {:.1} x ({:.1} x) of a bare server's",
                        median.0 - median.1,
                        last.0 - last.1,
                        median.0 / median.1,
                        last.0 / last.1
                    )
                }),
            ),
            (
                "stdio messages/s through one session",
                "at least 50,000",
                pair("messages_per_second").map(|(own, bare)| format!("{own:.0} (bare {bare:.0})")),
            ),
            (
                "gate's memory after a million messages",
                "flat",
                of(Way::Exeat, "grown_kib").map(|grown| format!("{grown:+.0} KiB")),
            ),
        ]
    }
}

/// What, what was aimed at, what was reached.
type Goal = (&'static str, &'static str, Option<String>);

fn times(ratio: Option<f64>) -> Option<String> {
    ratio.map(|ratio| format!("{ratio:.2} x"))
}

fn time(microseconds: Option<f64>) -> String {
    match microseconds {
        None => String::new(),
        Some(long) if long >= 10_000.0 => format!("{:.1} ms", long / 1000.0),
        Some(short) if short < 100.0 => format!("{short:.1} µs"),
        Some(other) => format!("{other:.0} µs"),
    }
}
