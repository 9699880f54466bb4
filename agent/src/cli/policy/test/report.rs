//! What came of the cases: for people, for scripts, and as the XML that CI servers read.

use std::fmt::Write as _;

use serde::Serialize;

use crate::cli::output::{Painter, Tone};

/// All cases.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) cases: Vec<Judged>,
}

/// One case.
#[derive(Debug, Serialize)]
pub(super) struct Judged {
    pub(super) place: String,
    pub(super) name: String,
    pub(super) passed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) failure: Option<String>,
}

impl Report {
    pub(super) fn new(cases: Vec<Judged>) -> Self {
        let failed = cases.iter().filter(|case| !case.passed).count();
        Self {
            passed: cases.len().saturating_sub(failed),
            failed,
            cases,
        }
    }

    /// The failed ones, and the numbers.
    pub(super) fn text(&self, painter: Painter) -> String {
        let mut text = String::new();
        for case in &self.cases {
            let Some(failure) = &case.failure else {
                continue;
            };
            let place = painter.paint(Tone::Strong, &case.place);
            let name = painter.paint(Tone::Plain, &case.name);
            let failure = painter.paint(Tone::Bad, failure);
            // Writing to a string cannot fail.
            writeln!(text, "{place}: {name}\n   {failure}").unwrap_or_default();
        }
        let tone = if self.failed == 0 {
            Tone::Good
        } else {
            Tone::Bad
        };
        let numbers = format!("{} passed, {} failed", self.passed, self.failed);
        text.push_str(&painter.paint(tone, &numbers));
        text.push('\n');
        text
    }

    /// The form that CI servers read (Jenkins' junit-10.xsd): one suite.
    pub(super) fn junit(&self) -> String {
        let mut xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"exeat policy\" tests=\"{}\" failures=\"{}\" errors=\"0\">\n",
            self.cases.len(),
            self.failed,
        );
        for case in &self.cases {
            let (name, place) = (escape(&case.name), escape(&case.place));
            let head = format!("  <testcase name=\"{name}\" classname=\"{place}\"");
            let written = match &case.failure {
                None => writeln!(xml, "{head}/>"),
                Some(failure) => writeln!(
                    xml,
                    "{head}>\n    <failure message=\"{}\"/>\n  </testcase>",
                    escape(failure)
                ),
            };
            written.unwrap_or_default();
        }
        xml.push_str("</testsuite>\n");
        xml
    }
}

/// Text within an attribute; what XML 1.0 cannot hold becomes U+FFFD.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\r' | '\t' => out.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
