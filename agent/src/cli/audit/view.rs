//! Records for people: when, who, what, verdict, rule, and the record that led to it.
//!
//! Reads the lines as JSON and not as this version's types, so that records of other versions show too.

use jiff::tz::TimeZone;
use serde_json::Value;

use crate::cli::error::CliError;
use crate::cli::output::{self, Cell, Output, Table, Tone};

const HEADINGS: [&str; 7] = ["TIME", "ID", "WHO", "WHAT", "VERDICT", "RULE", "CAUSE"];

/// Widths that suit a stream, whose longest cells are not known beforehand.
const LIVE: [usize; 7] = [23, 10, 18, 48, 14, 20, 10];

/// Rows of a query that are aligned together; a longer answer repeats the headings.
const PAGE: usize = 1000;

/// Shows records one after the other.
#[derive(Debug)]
pub(super) struct View {
    zone: TimeZone,
    live: bool,
    headed: bool,
    page: Table,
    rows: usize,
}

impl View {
    /// Of an answer that ends: columns are as wide as they need to be.
    pub(super) fn new(zone: TimeZone) -> Self {
        Self {
            zone,
            live: false,
            headed: false,
            page: Table::new(&HEADINGS),
            rows: 0,
        }
    }

    /// Of a stream: each record shows at once.
    pub(super) fn live(zone: TimeZone) -> Self {
        Self {
            live: true,
            ..Self::new(zone)
        }
    }

    /// Shows a line of the log.
    pub(super) fn show(&mut self, line: &str, output: Output) -> Result<(), CliError> {
        if output.json() {
            // Byte for byte, so that whoever reads it can check its hash.
            return output::raw(&format!("{line}\n"));
        }
        let cells = row(line, &self.zone);
        if self.live {
            let headings = HEADINGS.map(|heading| Cell::new(Tone::Strong, heading));
            let heading = if self.headed { None } else { Some(headings) };
            self.headed = true;
            return output.fixed(heading.into_iter().chain([cells]), &LIVE);
        }
        self.page.row(cells);
        self.rows = self.rows.saturating_add(1);
        if self.rows < PAGE {
            Ok(())
        } else {
            self.end(output)
        }
    }

    /// Shows what is held back for alignment.
    pub(super) fn end(&mut self, output: Output) -> Result<(), CliError> {
        if output.json() || self.live {
            return Ok(());
        }
        if self.page.is_empty() && !self.headed {
            output::note("no record matches");
            return Ok(());
        }
        self.headed = true;
        self.rows = 0;
        let page = std::mem::replace(&mut self.page, Table::new(&HEADINGS));
        if page.is_empty() {
            Ok(())
        } else {
            output.table(&page)
        }
    }
}

fn row(line: &str, zone: &TimeZone) -> [Cell; 7] {
    let Ok(record) = serde_json::from_str::<Value>(line) else {
        let unreadable = Cell::new(Tone::Bad, "a line that is no JSON");
        let dash = || Cell::from("-");
        return [dash(), dash(), dash(), unreadable, dash(), dash(), dash()];
    };
    let record = Fields(&record);
    [
        record.when(zone).into(),
        Cell::new(Tone::Quiet, record.short("/id")),
        record.who().into(),
        record.what().into(),
        record.verdict(),
        record.text("/decision/rule").unwrap_or("-").into(),
        Cell::new(Tone::Quiet, record.cause()),
    ]
}

struct Fields<'a>(&'a Value);

impl<'a> Fields<'a> {
    fn text(&self, pointer: &str) -> Option<&'a str> {
        self.0
            .pointer(pointer)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    }

    fn number(&self, pointer: &str) -> Option<u64> {
        self.0.pointer(pointer).and_then(Value::as_u64)
    }

    fn when(&self, zone: &TimeZone) -> String {
        let Some(text) = self.text("/time") else {
            return "-".to_owned();
        };
        text.parse::<jiff::Timestamp>().map_or_else(
            |_| text.to_owned(),
            |time| {
                time.to_zoned(zone.clone())
                    .strftime("%Y-%m-%d %H:%M:%S%.3f")
                    .to_string()
            },
        )
    }

    /// Enough of an id to find the record by; its end, since ids that are near in time begin alike.
    fn short(&self, pointer: &str) -> String {
        self.text(pointer).map_or_else(|| "-".to_owned(), tail)
    }

    fn who(&self) -> String {
        let workload = self.text("/workload/name");
        let user = self
            .text("/identity/name")
            .or_else(|| self.text("/identity/user"));
        match (user, workload) {
            (Some(user), Some(workload)) => format!("{user} ({workload})"),
            (Some(one), None) | (None, Some(one)) => one.to_owned(),
            (None, None) => self
                .number("/workload/uid")
                .map_or_else(|| "-".to_owned(), |uid| format!("uid {uid}")),
        }
    }

    fn what(&self) -> String {
        let kind = self.text("/kind").unwrap_or("?");
        let words: Vec<String> = match kind {
            "mcp" => vec![
                self.text("/mcp/server")
                    .map(|server| format!("{server}:"))
                    .unwrap_or_default(),
                self.text("/mcp/method")
                    .unwrap_or("unreadable message")
                    .to_owned(),
                self.text("/mcp/name").unwrap_or_default().to_owned(),
            ],
            "http" => vec![
                self.text("/http/method").unwrap_or("HTTP").to_owned(),
                format!(
                    "{}{}",
                    self.place("http"),
                    self.text("/http/path").unwrap_or_default()
                ),
                self.number("/http/status")
                    .map(|status| status.to_string())
                    .unwrap_or_default(),
            ],
            "tcp" => {
                vec![
                    self.text("/tcp/protocol").unwrap_or("tcp").to_owned(),
                    self.place("tcp"),
                ]
            }
            "dns" => vec![
                "dns".to_owned(),
                self.text("/dns/name").unwrap_or_default().to_owned(),
                self.text("/dns/type").unwrap_or_default().to_owned(),
                self.text("/dns/code").unwrap_or_default().to_owned(),
            ],
            "exec" => {
                let exe = self.text("/exec/exe").unwrap_or("?").to_owned();
                let mut words = vec!["exec".to_owned(), exe];
                words.extend(self.about("", "/finding/what", "/finding/detail"));
                words
            }
            "policy" => {
                vec![
                    "policy".to_owned(),
                    self.text("/policy/action").unwrap_or_default().to_owned(),
                ]
            }
            "finding" => self.about("finding", "/finding/what", "/finding/detail"),
            "lifecycle" => self.about("", "/lifecycle/event", "/lifecycle/detail"),
            other => vec![other.to_owned()],
        };
        words
            .into_iter()
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn about(&self, kind: &str, what: &str, detail: &str) -> Vec<String> {
        let what = self.text(what).unwrap_or_default();
        let detail = self
            .text(detail)
            .map(|detail| format!("({detail})"))
            .unwrap_or_default();
        vec![kind.to_owned(), what.to_owned(), detail]
    }

    fn place(&self, section: &str) -> String {
        let field = |name: &str| self.text(&format!("/{section}/{name}"));
        let host = field("name")
            .or_else(|| field("sni"))
            .or_else(|| field("address"));
        let host = host.unwrap_or("?");
        match (section, self.number(&format!("/{section}/port"))) {
            ("http", Some(443 | 80) | None) | (_, None) => host.to_owned(),
            (_, Some(port)) if host.contains(':') => format!("[{host}]:{port}"),
            (_, Some(port)) => format!("{host}:{port}"),
        }
    }

    fn verdict(&self) -> Cell {
        let open = self.0.get("open").map(|_| "open");
        let status = self.text("/outcome/status").or(open);
        let Some(effect) = self.text("/decision/effect") else {
            let tone = match status {
                Some("refused") => Tone::Bad,
                Some("failed" | "abandoned" | "open") => Tone::Doubtful,
                _ => Tone::Plain,
            };
            return Cell::new(tone, status.unwrap_or("-"));
        };
        match (effect, self.text("/decision/would"), status) {
            ("allow", Some(would), _) if would != "allow" => {
                Cell::new(Tone::Doubtful, format!("would {would}"))
            }
            ("allow", _, Some(ended @ ("failed" | "abandoned" | "refused" | "open"))) => {
                Cell::new(Tone::Doubtful, format!("allow, {ended}"))
            }
            ("allow", ..) => Cell::new(Tone::Good, "allow"),
            ("deny", ..) => Cell::new(Tone::Bad, "deny"),
            (other, ..) => Cell::new(Tone::Doubtful, other),
        }
    }

    fn cause(&self) -> String {
        if let Some(id) = self.text("/cause/id") {
            return tail(id);
        }
        let candidates = self
            .0
            .pointer("/cause/candidates")
            .and_then(Value::as_array);
        candidates.map_or_else(|| "-".to_owned(), |ids| format!("one of {}", ids.len()))
    }
}

fn tail(id: &str) -> String {
    let skipped = id.chars().count().saturating_sub(10);
    id.chars().skip(skipped).collect()
}

/// The table of these lines, for tests.
#[cfg(test)]
pub(super) fn rows(lines: &[&str], now: &jiff::Zoned) -> String {
    let mut table = Table::new(&HEADINGS);
    for line in lines {
        table.row(row(line, now.time_zone()));
    }
    table.render(output::Painter::default())
}
