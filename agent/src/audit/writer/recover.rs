//! Taking up the chain where an earlier process left it.

use std::io::{self, BufRead as _, BufReader, Read as _};

use aws_lc_rs::digest::{Context, SHA256};

use super::directory::Directory;
use crate::audit::chain::{Digest, Head, Link};
use crate::audit::read::MAX_LINE;
use crate::audit::record::Cut;
use crate::audit::text::Text;

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
}

/// Finds the newest record that the chain vouches for, from the newest segment backwards.
pub(super) fn recover(directory: &Directory) -> io::Result<Found> {
    let numbers = directory.segments()?;
    let mut found = Found {
        newest: numbers.last().copied().unwrap_or(0),
        ..Found::default()
    };
    for number in numbers.into_iter().rev() {
        let end = scan(directory, number)?;
        found.cuts.extend(end.cut);
        if let Some(head) = end.head {
            found.head = head;
            found.ended = end.ended && found.cuts.is_empty();
            break;
        }
    }
    found.cuts.reverse();
    Ok(found)
}

struct End {
    head: Option<Head>,
    cut: Option<Cut>,
    ended: bool,
}

fn scan(directory: &Directory, number: u64) -> io::Result<End> {
    let file = directory.read(number)?;
    // What is sealed must not come out differently after the next crash.
    file.sync_data()?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut line = Vec::new();
    let mut end = End {
        head: None,
        cut: None,
        ended: false,
    };
    let mut offset = 0_u64;
    loop {
        line.clear();
        let read = reader
            .by_ref()
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(end);
        }
        let next = line
            .strip_suffix(b"\n")
            .and_then(|line| Link::read(line).ok());
        let follows = |next: &Link| end.head.is_none_or(|head| head.precedes(next));
        let Some(next) = next.filter(follows) else {
            break;
        };
        end.head = Some(next.head());
        end.ended = is_ending(&line);
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
    end.cut = Some(Cut {
        segment: number,
        offset,
        bytes,
        sha256,
    });
    end.ended = false;
    Ok(end)
}

fn is_ending(line: &[u8]) -> bool {
    const ENDING: &[u8] = b"\"lifecycle\":{\"event\":\"log_stopped\"";
    line.windows(ENDING.len()).any(|window| window == ENDING)
}
