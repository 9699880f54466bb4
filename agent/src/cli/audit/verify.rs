//! `exeat audit verify`: the proof over the whole chain.

use std::path::Path;

use serde::Serialize;

use crate::audit::{Fault, Head, ReadError, Segments, Verification, VerifyError};
use crate::cli::error::{CliError, Kind};
use crate::cli::output::{Output, Painter, Tone};

/// What was proved, or where the proof fails first.
#[derive(Debug, Serialize)]
struct Report {
    whole: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    segments: Option<u64>,
    /// Exchanges without an end: under way, or cut short by the end of the gate if none runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    open: Option<u64>,
    /// The newest record's number and hash: keep it elsewhere, to see later that nothing was cut off.
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<String>,
    /// Ends of segments without records, as the log itself says of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    cuts: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unfinished_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

/// Verifies the segments in `directory`.
pub(super) fn run(directory: &Path, known: &[String], output: Output) -> Result<(), CliError> {
    let known = known
        .iter()
        .map(|text| head(text))
        .collect::<Result<Vec<_>, _>>()?;
    let unread = |error: ReadError| CliError::from_error(Kind::Usage, &error);
    let segments = Segments::open(directory).map_err(unread)?;
    let report = match segments.verify(&known) {
        Ok(proved) => Report::whole(&proved),
        Err(VerifyError::Fault(fault)) => Report::broken(&fault),
        Err(VerifyError::Read(error)) => return Err(unread(error)),
    };
    output.document(&report, |painter| report.text(directory, painter))?;
    if report.whole {
        Ok(())
    } else {
        Err(CliError::found())
    }
}

/// Reads what an earlier proof printed as its head.
fn head(text: &str) -> Result<Head, CliError> {
    let parts = text
        .split_once(':')
        .and_then(|(seq, hash)| Some((seq.parse().ok()?, hash)));
    let head = parts.and_then(|(seq, hash)| {
        Some(Head {
            seq,
            hash: hash.parse().ok()?,
        })
    });
    head.ok_or_else(|| {
        CliError::new(
            Kind::Usage,
            format_args!("read `{text}` as a record's number and hash"),
        )
        .with_next("give what an earlier `exeat audit verify` printed after `head`")
    })
}

impl Report {
    fn whole(proved: &Verification) -> Self {
        Self {
            whole: true,
            records: Some(proved.records),
            segments: Some(proved.segments),
            open: Some(proved.open),
            head: Some(format!("{}:{}", proved.head.seq, proved.head.hash)),
            cuts: Some(proved.cuts.len()),
            unfinished_bytes: Some(proved.unfinished),
            fault: None,
        }
    }

    fn broken(fault: &Fault) -> Self {
        Self {
            whole: false,
            records: None,
            segments: None,
            open: None,
            head: None,
            cuts: None,
            unfinished_bytes: None,
            fault: Some(fault.to_string()),
        }
    }

    fn text(&self, directory: &Path, painter: Painter) -> String {
        let place = directory.display();
        if let Some(fault) = &self.fault {
            let verdict = painter.paint(Tone::Bad, "NOT WHOLE");
            return format!("{verdict}: {}\n", painter.paint(Tone::Plain, fault));
        }
        let verdict = painter.paint(Tone::Good, "whole");
        let [records, segments] = [self.records, self.segments].map(Option::unwrap_or_default);
        let mut lines = vec![
            format!("{verdict}: {records} records in {segments} segments of `{place}`"),
            format!("head {}", self.head.as_deref().unwrap_or_default()),
        ];
        if let Some(open) = self.open.filter(|open| *open > 0) {
            lines.push(format!("{open} exchanges are open"));
        }
        if let Some(cuts) = self.cuts.filter(|cuts| *cuts > 0) {
            lines.push(format!("{cuts} torn ends, as the log itself says"));
        }
        if let Some(bytes) = self.unfinished_bytes.filter(|bytes| *bytes > 0) {
            lines.push(format!(
                "{bytes} bytes after the last record, not sealed yet"
            ));
        }
        lines.push(String::new());
        lines.join("\n")
    }
}
