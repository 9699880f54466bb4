//! Answers `audit query` and `audit tail` from the log's segments, for the daemon and for `--dir`.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::command::RecordFilter;
use super::error::ControlError;
use super::reply::{Code, Record, Reply};
use super::{Responder, Scope, chain};
use crate::audit::record::Record as Recorded;
use crate::audit::{Entry, Filter, ReadError, Segments, Tail, TailFrom};

/// Lines on their way from the disk to a client.
const AHEAD: usize = 64;

/// Whose records a client may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Everybody's.
    Anybody,
    /// Those in which this Unix user called, or one of its processes acted.
    User(u32),
}

impl Owner {
    /// What `scope` means for a client of this user.
    pub const fn of(scope: Scope, uid: u32) -> Self {
        match scope {
            Scope::All => Self::Anybody,
            Scope::Own | Scope::Policy | Scope::Refused => Self::User(uid),
        }
    }

    /// Whether the record is one that they may see.
    pub fn owns(self, record: &Recorded) -> bool {
        let Self::User(uid) = self else { return true };
        let called = record.identity.as_ref().and_then(|identity| identity.uid);
        let acted = record.workload.as_ref().and_then(|workload| workload.uid);
        called == Some(uid) || acted == Some(uid)
    }
}

/// Which records are asked for, by whom.
#[derive(Clone, Debug)]
struct Wanted {
    filter: Filter,
    /// In lower case.
    text: Option<Vec<u8>>,
    owner: Owner,
}

impl Wanted {
    fn new(filter: &RecordFilter, owner: Owner) -> Self {
        let filter = filter.clone();
        let text = filter
            .text
            .map(|text| text.to_ascii_lowercase().into_bytes());
        Self {
            filter: Filter {
                since: filter.since,
                until: filter.until,
                kind: filter.kind,
                workload: None,
                identity: filter.caller,
                server: filter.server,
                tool: filter.tool,
                effect: filter.effect,
                status: filter.status,
                text: None,
                cause: filter.cause,
                limit: None,
            },
            text: text.filter(|text| !text.is_empty()),
            owner,
        }
    }

    /// What is shown of an entry, if that is wanted.
    fn shown(&self, entry: Entry) -> Option<String> {
        if !self.owner.owns(&entry.record) || !self.filter.matches(&entry.record) {
            return None;
        }
        let line = match self.owner {
            Owner::Anybody => entry.line,
            Owner::User(_) => without_others(entry.line)?,
        };
        let text = self.text.as_ref();
        text.is_none_or(|text| contains(line.as_bytes(), text))
            .then_some(line)
    }
}

/// A line without what its owner's record tells of others: what limits stand at counts everybody's calls, and what is on
/// trial is not for who it is about. `None`: it cannot be read.
fn without_others(line: String) -> Option<String> {
    let mut record: serde_json::Value = serde_json::from_str(&line).ok()?;
    let decision = record.get_mut("decision");
    let Some(decision) = decision.and_then(serde_json::Value::as_object_mut) else {
        return Some(line);
    };
    let hidden = ["counters", "would_rule", "would_reason"];
    let removed = hidden.map(|key| decision.remove(key).is_some());
    if removed.contains(&true) {
        Some(record.to_string())
    } else {
        Some(line)
    }
}

fn contains(line: &[u8], lower_case: &[u8]) -> bool {
    line.windows(lower_case.len())
        .any(|window| window.eq_ignore_ascii_case(lower_case))
}

/// Hands the lines that match to `each`, oldest first, until it breaks. Blocks on the disk.
pub fn select(
    segments: &Segments,
    filter: &RecordFilter,
    owner: Owner,
    mut each: impl FnMut(String) -> ControlFlow<()>,
) -> Result<(), ReadError> {
    let wanted = Wanted::new(filter, owner);
    let limit = filter
        .limit
        .map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    // With a limit the newest are wanted, which are known only at the end.
    let mut newest = VecDeque::new();
    for entry in segments.records() {
        let Some(line) = wanted.shown(entry?) else {
            continue;
        };
        let Some(limit) = limit else {
            if each(line).is_break() {
                return Ok(());
            }
            continue;
        };
        newest.push_back(line);
        if newest.len() > limit {
            newest.pop_front();
        }
    }
    for line in newest {
        if each(line).is_break() {
            break;
        }
    }
    Ok(())
}

/// Answers `audit query`.
pub async fn query(
    mut responder: Responder,
    segments: Segments,
    filter: RecordFilter,
    owner: Owner,
) -> Result<(), ControlError> {
    let (sender, mut lines) = mpsc::channel(AHEAD);
    let reading = spawn_blocking(move || {
        select(&segments, &filter, owner, |line| {
            match sender.blocking_send(line) {
                Ok(()) => ControlFlow::Continue(()),
                // The client has gone.
                Err(_closed) => ControlFlow::Break(()),
            }
        })
    });
    while let Some(line) = lines.recv().await {
        responder.reply(Reply::Record(Record { line })).await?;
    }
    match reading.await {
        Ok(Ok(())) => responder.done().await,
        Ok(Err(error)) => responder.fail(Code::Internal, chain(&error)).await,
        Err(error) => responder.fail(Code::Internal, chain(&error)).await,
    }
}

/// Answers `audit tail`: what is written from now on, until the client goes.
pub async fn tail(
    mut responder: Responder,
    segments: Segments,
    filter: RecordFilter,
    owner: Owner,
) -> Result<(), ControlError> {
    let wanted = Wanted::new(&filter, owner);
    let mut written = match Tail::new(segments, TailFrom::Now) {
        Ok(written) => written,
        Err(error) => return responder.fail(Code::Internal, chain(&error)).await,
    };
    loop {
        let entry = tokio::select! {
            () = responder.gone() => return Ok(()),
            entry = written.next() => entry,
        };
        match entry {
            Ok(entry) => {
                if let Some(line) = wanted.shown(entry) {
                    responder.reply(Reply::Record(Record { line })).await?;
                }
            }
            Err(error) => return responder.fail(Code::Internal, chain(&error)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_limits_stand_at_and_what_is_on_trial_is_for_administrators() {
        let line = r#"{"decision":{"effect":"allow","counters":[{"name":"a sum","value":7,"limit":9}],"would":"deny","would_rule":"x","would_reason":"y"},"id":"1"}"#;
        let shown = without_others(line.into()).unwrap();
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let wanted =
            serde_json::json!({ "decision": { "effect": "allow", "would": "deny" }, "id": "1" });
        assert_eq!(shown, wanted);
        for plain in [r#"{"id":"1"}"#, r#"{ "decision": {} }"#] {
            assert_eq!(without_others(plain.into()).as_deref(), Some(plain));
        }
        assert_eq!(without_others("{".into()), None);
    }
}
