//! What limits counted, in a directory of the gate's own: read at its start, and written as calls are counted.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, fsync, openat, renameat};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::audit::Text;
use crate::audit::record::{Finding, Kind};
use crate::decide::{Decider, Unwritten};
use crate::flow::Stages;
use crate::telemetry::clock;

const FILE: &str = "counters";
const ASIDE: &str = "counters.new";
/// The first line, before the machine's boot.
const HEAD: &str = "exeat-limits 1 ";
/// How soon what was counted is written.
const SOON: Duration = Duration::from_millis(100);
/// So many times that, what is written is on the disk.
const SYNC: u32 = 10;
/// More than is ever written: every counter and every call that is kept.
const MOST_BYTES: u64 = 512 << 20;

/// The file.
#[derive(Debug)]
pub(super) struct Kept {
    directory: OwnedFd,
    file: Option<File>,
    length: u64,
    boot: String,
    /// Why what an earlier gate counted is forgotten, if it is.
    forgotten: Option<String>,
}

impl Kept {
    /// Has `decider` go on with what an earlier gate counted. What cannot be read is forgotten, and that is said.
    pub(super) fn take_up(directory: OwnedFd, decider: &Decider) -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let mut kept = Self {
            directory,
            file: None,
            length: 0,
            boot: boot.unwrap_or_default().trim().to_owned(),
            forgotten: None,
        };
        let read = kept.read().and_then(|text| match text {
            None => Ok(0),
            Some(text) => {
                let (head, lines) = text.split_once('\n').unwrap_or_default();
                let boot = head.strip_prefix(HEAD).ok_or(io::ErrorKind::InvalidData)?;
                // Sessions are told apart by numbers that the next boot gives out again.
                let sessions = boot == kept.boot && !boot.is_empty();
                let taken = decider.take_up(lines, sessions);
                taken.map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))
            }
        });
        match read {
            Ok(counters) => tracing::info!(counters, "limits go on where they were"),
            Err(error) => {
                tracing::error!(%error, "what limits counted could not be read");
                kept.forgotten = Some(error.to_string());
            }
        }
        // The first thing that is written takes the place of what was read.
        decider.write_anew();
        kept
    }

    fn read(&self) -> io::Result<Option<String>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = match openat(&self.directory, FILE, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut text = String::new();
        file.take(MOST_BYTES).read_to_string(&mut text)?;
        Ok(Some(text))
    }

    fn write(&mut self, unwritten: &Unwritten, sync: bool) -> io::Result<()> {
        let Unwritten { text, anew } = unwritten;
        if *anew {
            return self.replace(text);
        }
        let Some(file) = &mut self.file else {
            return Err(io::ErrorKind::NotFound.into());
        };
        file.write_all(text.as_bytes())?;
        self.length = self.length.saturating_add(text.len() as u64);
        if sync { file.sync_data() } else { Ok(()) }
    }

    fn replace(&mut self, text: &str) -> io::Result<()> {
        self.file = None;
        let flags = OFlags::WRONLY
            | OFlags::CREATE
            | OFlags::TRUNC
            | OFlags::APPEND
            | OFlags::CLOEXEC
            | OFlags::NOFOLLOW;
        let file = openat(&self.directory, ASIDE, flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = File::from(file);
        let head = format!("{HEAD}{}\n", self.boot);
        file.write_all(head.as_bytes())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        renameat(&self.directory, ASIDE, &self.directory, FILE)?;
        fsync(&self.directory)?;
        self.length = (head.len() + text.len()) as u64;
        self.file = Some(file);
        Ok(())
    }
}

/// Writes what is counted until `over`, and then once more.
pub(super) async fn keep(stages: Arc<Stages>, mut kept: Kept, over: CancellationToken) {
    if let Some(why) = kept.forgotten.take() {
        finding(&stages, "limits_forgotten", &why).await;
    }
    let mut tick = interval(SOON);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failed = false;
    for round in 0_u32.. {
        let last = over.run_until_cancelled(tick.tick()).await.is_none();
        let unwritten = stages.decider.unwritten(kept.length);
        if !unwritten.text.is_empty() || unwritten.anew {
            let sync = last || round.is_multiple_of(SYNC);
            let written = spawn_blocking(move || {
                let written = kept.write(&unwritten, sync);
                (kept, written)
            });
            let Ok((back, written)) = written.await else {
                return tracing::error!("what limits count is not written any more");
            };
            kept = back;
            if let Err(error) = &written {
                stages.decider.write_anew();
                if !failed {
                    finding(&stages, "limits_not_kept", &error.to_string()).await;
                }
            }
            failed = written.is_err();
        }
        if last {
            return;
        }
    }
}

async fn finding(stages: &Stages, what: &'static str, why: &str) {
    let mut record = stages.log.record(Kind::Finding, clock::now());
    record.finding = Some(Finding {
        what: Text::fixed(what),
        detail: Some(Text::new(why)),
        count: None,
    });
    if let Err(error) = stages.log.event(record).await {
        tracing::error!(%error, what, "a finding could not be recorded");
    }
}
