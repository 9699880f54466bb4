//! Taking up the chain where an earlier process left it.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _};

use aws_lc_rs::digest::{Context, SHA256};

use super::directory::Directory;
use crate::audit::chain::{self, Digest, Head, Link};
use crate::audit::id::RecordId;
use crate::audit::read::{AtEnd, Exchanges, MAX_LINE, Standing};
use crate::audit::record::{Cut, Finding, Kind, Outcome, Record};
use crate::audit::text::Text;
use crate::telemetry::clock::{Moment, Monotonic, Timestamp};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The newest good record.
    pub(super) head: Head,
    /// The number of the newest segment, 0 if there is none.
    pub(super) newest: u64,
    /// Ends of segments that hold no good record, oldest first.
    pub(super) cuts: Vec<Cut>,
    /// Whether the newest record says that the log was ended in order.
    pub(super) ended: bool,
    /// Exchanges that the log says are open, and the bodies of the records that say so.
    pub(super) open: BTreeMap<RecordId, Vec<u8>>,
}

/// Finds the newest record that the chain vouches for, from the newest segment backwards, and what was open there.
pub(super) fn recover(directory: &Directory) -> io::Result<Found> {
    let numbers = directory.segments()?;
    let mut found = Found {
        newest: numbers.last().copied().unwrap_or(0),
        ..Found::default()
    };
    let mut at_end = AtEnd::default();
    // Where older segments end, as newer ones say.
    let mut limits = BTreeMap::new();
    // The first record of what follows: an older segment counts up to the one before it.
    let mut next = None;
    for number in numbers.into_iter().rev() {
        let segment = scan(directory, number, limits.get(&number).copied(), next)?;
        // Also of an older segment: the line that said where it ends may itself be lost.
        found.cuts.extend(segment.cut);
        next = segment.first.or(next);
        if found.head.seq == 0 {
            found.head = segment.head.unwrap_or_default();
            found.ended = segment.ended && found.cuts.is_empty();
        }
        limits.extend(segment.exchanges.limits.clone());
        at_end.take(segment.exchanges);
        if at_end.whole {
            break;
        }
    }
    found.open = at_end.open;
    found.cuts.reverse();
    Ok(found)
}

/// The record with which an exchange ends whose gate ended before it.
pub(super) fn outlived(id: RecordId, intent: &[u8]) -> Record {
    let mut record = serde_json::from_slice(intent).unwrap_or_else(|error| {
        // Of another version, whose kinds are unknown here.
        let millis = i64::try_from(id.milliseconds()).unwrap_or_default();
        let at = Moment {
            wall: Timestamp::from_microseconds(millis.saturating_mul(1_000)),
            mono: Monotonic::default(),
        };
        let mut record = Record::new(id, at, Kind::Finding);
        record.finding = Some(Finding {
            what: Text::fixed("unreadable_intent"),
            detail: Some(Text::error(&error)),
            count: None,
        });
        record
    });
    record.outcome = Some(Outcome {
        stage: record.open.take().map(|open| open.stage),
        error: Some(Text::fixed(
            "the gate ended before the exchange; what became of it is not known",
        )),
        ..Outcome::default()
    });
    record
}

/// What one segment holds.
#[derive(Default)]
struct Scanned {
    /// Number of its first record.
    first: Option<u64>,
    head: Option<Head>,
    cut: Option<Cut>,
    /// Its newest record says that the log was ended in order.
    ended: bool,
    exchanges: Exchanges<Vec<u8>>,
}

/// Reads a segment up to `limit`, in bytes, and up to the record with the number `before`.
fn scan(
    directory: &Directory,
    number: u64,
    limit: Option<u64>,
    before: Option<u64>,
) -> io::Result<Scanned> {
    let file = directory.read(number)?;
    // What is sealed must not come out differently after the next crash.
    file.sync_data()?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut line = Vec::new();
    let mut scanned = Scanned::default();
    let mut offset = 0_u64;
    loop {
        line.clear();
        if limit.is_some_and(|limit| offset >= limit) {
            return Ok(scanned);
        }
        let read = reader
            .by_ref()
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(scanned);
        }
        let next = line
            .strip_suffix(b"\n")
            .and_then(|line| Some((Link::read(line).ok()?, line)));
        let follows = |next: &Link| {
            scanned.head.is_none_or(|head| head.precedes(next))
                && before.is_none_or(|before| next.seq < before)
        };
        let Some((next, whole)) = next.filter(|(next, _)| follows(next)) else {
            break;
        };
        // Of a version without such members it is no concern of ours; the chain vouches for it.
        if let Ok(standing) = Standing::read(whole) {
            let body = || chain::body(whole).unwrap_or_default();
            scanned.exchanges.take(&standing, body);
        }
        scanned.first = scanned.first.or(Some(next.seq));
        scanned.head = Some(next.head());
        scanned.ended = is_ending(&line);
        offset = offset.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
    }
    let mut hashed = Context::new(&SHA256);
    let mut bytes = 0_u64;
    loop {
        hashed.update(&line);
        bytes = bytes.saturating_add(u64::try_from(line.len()).unwrap_or(u64::MAX));
        line.clear();
        if reader.by_ref().take(1 << 16).read_to_end(&mut line)? == 0 {
            break;
        }
    }
    let sha256 = Text::from(Digest::finish(hashed).to_string());
    scanned.cut = Some(Cut {
        segment: number,
        offset,
        bytes,
        sha256,
    });
    scanned.ended = false;
    Ok(scanned)
}

fn is_ending(line: &[u8]) -> bool {
    const ENDING: &[u8] = b"\"lifecycle\":{\"event\":\"log_stopped\"";
    line.windows(ENDING.len()).any(|window| window == ENDING)
}
