//! Which records a question is about.

use super::lines::Line;
use super::{Entry, ReadError};
use crate::audit::id::RecordId;
use crate::audit::record::{Cause, Effect, Kind, Record, Status, WorkloadKind};
use crate::audit::text::Text;
use crate::telemetry::clock::Timestamp;

/// What a record must be to be shown: all that is given here. Names may hold `*` for any letters.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Began then or later.
    pub since: Option<Timestamp>,
    /// Began before.
    pub until: Option<Timestamp>,
    /// Is of this kind.
    pub kind: Option<Kind>,
    /// Acted: the workload's name.
    pub workload: Option<String>,
    /// Called: the identity's name, or its Unix user.
    pub identity: Option<String>,
    /// The MCP server: called, or acting.
    pub server: Option<String>,
    /// The tool, prompt or resource.
    pub tool: Option<String>,
    /// What was decided.
    pub effect: Option<Effect>,
    /// How it ended.
    pub status: Option<Status>,
    /// Stands anywhere in the line, letters' case aside.
    pub text: Option<String>,
    /// Is this record, or may have been caused by it.
    pub cause: Option<RecordId>,
    /// The newest so many.
    pub limit: Option<usize>,
}

/// A filter with its text ready for comparison.
pub(super) struct Prepared<'f> {
    filter: &'f Filter,
    text: Option<Vec<u8>>,
}

impl Filter {
    pub(super) fn prepare(&self) -> Prepared<'_> {
        let text = self.text.as_ref().filter(|text| !text.is_empty());
        Prepared {
            filter: self,
            text: text.map(|text| text.to_ascii_lowercase().into_bytes()),
        }
    }

    /// Whether a record is one of those asked for, [`Filter::text`] and [`Filter::limit`] aside.
    pub fn matches(&self, record: &Record) -> bool {
        self.since.is_none_or(|since| record.time >= since)
            && self.until.is_none_or(|until| record.time < until)
            && self.kind.is_none_or(|kind| record.kind == kind)
            && self
                .effect
                .is_none_or(|effect| effect_of(record) == Some(effect))
            && self
                .status
                .is_none_or(|status| status_of(record) == Some(status))
            && self.cause.is_none_or(|cause| is_caused_by(record, cause))
            && named(self.workload.as_deref(), workload_of(record))
            && named(self.identity.as_deref(), identities_of(record))
            && named(self.server.as_deref(), servers_of(record))
            && named(self.tool.as_deref(), tool_of(record))
    }
}

impl Prepared<'_> {
    /// The line's record, if it is asked for.
    pub(super) fn select(&self, segment: u64, line: &Line) -> Result<Option<Entry>, ReadError> {
        if self
            .text
            .as_ref()
            .is_some_and(|text| !contains(&line.bytes, text))
        {
            return Ok(None);
        }
        Entry::read(segment, line)
            .map(|entry| Some(entry).filter(|e| self.filter.matches(&e.record)))
    }
}

fn contains(line: &[u8], lower_case: &[u8]) -> bool {
    line.windows(lower_case.len())
        .any(|window| window.eq_ignore_ascii_case(lower_case))
}

fn effect_of(record: &Record) -> Option<Effect> {
    record.decision.as_ref().map(|decision| decision.effect)
}

fn status_of(record: &Record) -> Option<Status> {
    record.outcome.as_ref().map(|outcome| outcome.status)
}

fn is_caused_by(record: &Record, id: RecordId) -> bool {
    record.id == id
        || match &record.cause {
            Some(Cause::Id(cause)) => *cause == id,
            Some(Cause::Candidates(candidates)) => candidates.contains(&id),
            None => false,
        }
}

fn workload_of(record: &Record) -> [Option<&Text>; 2] {
    [
        record.workload.as_ref().map(|workload| &workload.name),
        None,
    ]
}

fn identities_of(record: &Record) -> [Option<&Text>; 2] {
    let identity = record.identity.as_ref();
    [
        identity.map(|identity| &identity.name),
        identity.and_then(|identity| identity.user.as_ref()),
    ]
}

fn servers_of(record: &Record) -> [Option<&Text>; 2] {
    let acting = record
        .workload
        .as_ref()
        .filter(|workload| workload.kind == WorkloadKind::Server);
    let called = record.mcp.as_ref().and_then(|mcp| mcp.server.as_ref());
    [acting.map(|workload| &workload.name), called]
}

fn tool_of(record: &Record) -> [Option<&Text>; 2] {
    [record.mcp.as_ref().and_then(|mcp| mcp.name.as_ref()), None]
}

fn named(pattern: Option<&str>, names: [Option<&Text>; 2]) -> bool {
    pattern.is_none_or(|pattern| names.into_iter().flatten().any(|name| fits(pattern, name)))
}

/// Whether `name` is `pattern`, in which `*` stands for any letters.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut name) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return name.ends_with(part);
        }
        // The leftmost place leaves the most for the rest.
        let Some((_, after)) = name.split_once(part) else {
            return false;
        };
        name = after;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_stands_for_any_letters() {
        for (pattern, name, expected) in [
            ("github", "github", true),
            ("github", "github2", false),
            ("*", "", true),
            ("get_*", "get_issue", true),
            ("get_*", "forget_issue", false),
            ("*_issue", "get_issue", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("ab*ba", "aba", false),
            ("a**b", "ab", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}
