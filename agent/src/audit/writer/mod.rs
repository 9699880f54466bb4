//! The one writer of the log: a thread that chains, writes and confirms.

mod directory;
mod journal;
mod recover;
#[cfg(test)]
mod tests;

use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{PoisonError, Weak};
use std::thread;
use std::time::Duration;

use aws_lc_rs::error::Unspecified;
use tokio::sync::oneshot;
use tokio::time::timeout;

pub(super) use directory::{open_segment, segment_name, segments};

use self::directory::{Directory, Lock, LockError, Store};
use self::journal::{About, Entry, Journal};
use self::recover::Found;
use super::id::RecordId;
use super::log::{AuditUnavailable, Closed, Ending, Log, SyncPolicy, Taken};
use super::open::Running;
use super::record::{Cut, Finding, Kind, Lifecycle, Record};
use super::text::Text;
use crate::telemetry::clock::{self, Monotonic};

/// How long the writer waits for company when it is woken by a record.
const LINGER: Duration = Duration::from_millis(2);

/// How long it waits before it tries a failing disk again.
const RETRY: Duration = Duration::from_millis(200);

/// How long an ending past its deadline waits for what is already closed.
const GIVE_UP: Duration = Duration::from_secs(1);

/// Why the log could not be taken up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process keeps this log.
    #[error("lock the audit log: {}", holder(*.0))]
    Held(Option<u32>),
    /// The directory does not let itself be locked.
    #[error("lock the audit log's directory")]
    Lock(#[source] io::Error),
    /// What is there cannot be read.
    #[error("find the end of the audit log")]
    Recover(#[source] io::Error),
    /// No randomness for the records' names.
    #[error("draw random numbers for the audit log")]
    Random(#[source] Unspecified),
    /// No thread.
    #[error("start the audit log's writer")]
    Thread(#[source] io::Error),
}

fn holder(process: Option<u32>) -> String {
    process.map_or_else(
        || "another process holds it".to_owned(),
        |process| format!("process {process} holds it"),
    )
}

/// The writer's life.
#[derive(Debug)]
#[must_use = "the log is ended in order by `finish`"]
pub struct Writer {
    log: Log,
    ended: oneshot::Receiver<()>,
}

/// How the log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// Every record is on the disk and the last one says so.
    Complete,
    /// At the deadline, so many records were open or not on the disk.
    Incomplete(usize),
}

impl Writer {
    /// Ends the log: no record can be opened from now on, those that are open have until
    /// `deadline` to be closed, and everything that was closed is written.
    pub async fn finish(mut self, deadline: Duration) -> Finished {
        let state = &self.log.0.state;
        state.send_if_modified(|state| {
            let alive = !matches!(
                state,
                Some(AuditUnavailable::Dead | AuditUnavailable::Ended)
            );
            if alive {
                *state = Some(AuditUnavailable::Ending);
            }
            alive
        });
        let all = u32::try_from(self.log.0.options.places).unwrap_or(u32::MAX);
        let in_order = async {
            let Ok(places) = self.log.0.places.acquire_many(all).await else {
                return false;
            };
            // Whoever still waits for a place must not get one of these.
            places.forget();
            self.log.end(Ending::Written);
            (&mut self.ended).await.is_ok()
        };
        if timeout(deadline, in_order).await == Ok(true) {
            return Finished::Complete;
        }
        let free = self.log.0.places.available_permits();
        self.log.end(Ending::Now);
        let written = timeout(GIVE_UP, &mut self.ended).await;
        tracing::warn!(
            written = written.is_ok(),
            "end the audit log with records open"
        );
        Finished::Incomplete(self.log.0.options.places.saturating_sub(free))
    }
}

pub(super) fn start(directory: OwnedFd, log: &Log) -> Result<Writer, StartError> {
    let directory = Directory::new(directory);
    let lock = directory.lock().map_err(|error| match error {
        LockError::Held(process) => StartError::Held(process),
        LockError::Io(error) => StartError::Lock(error),
    })?;
    let found = recover::recover(&directory).map_err(StartError::Recover)?;
    let journal = take_up(log, Box::new(directory), found);
    spawn(log, journal, lock)
}

/// The journal after what was found: what was open there ends first of all.
fn take_up(log: &Log, store: Box<dyn Store>, found: Found) -> Journal {
    let cut_body = {
        let log = log.clone();
        Box::new(move |cut| cut_record(&log, cut).body())
    };
    let cuts = found.cuts.into_iter();
    let start = journal::Start {
        head: found.head,
        newest: found.newest,
        cuts: cuts.map(|cut| cut_record(log, cut).body()).collect(),
        open: found.open.clone(),
    };
    let segment_bytes = log.0.options.segment_bytes;
    let mut journal = Journal::new(store, segment_bytes, start, cut_body);
    for (id, intent) in &found.open {
        journal.add(Entry {
            body: recover::outlived(*id, intent).body(),
            about: About::Ends(*id),
        });
    }
    let detail = match (found.head.seq, found.ended, found.open.len()) {
        (0, ..) => Text::fixed("a new log"),
        (_, true, _) => Text::fixed("the log was ended in order before"),
        (_, false, 0) => Text::fixed("the log was not ended in order before; nothing was open"),
        (_, false, open) => Text::from(format!(
            "the log was not ended in order before; what was open then is closed as abandoned: {open}"
        )),
    };
    journal.add(whole(&lifecycle(log, "log_started", detail)));
    journal
}

fn whole(record: &Record) -> Entry {
    Entry {
        body: record.body(),
        about: About::Whole,
    }
}

fn spawn(log: &Log, journal: Journal, lock: Lock) -> Result<Writer, StartError> {
    let (ended, on_end) = oneshot::channel();
    let mut thread = WriterThread {
        log: log.clone(),
        journal,
        intents: Vec::new(),
        taken: 0,
        places: 0,
        due: None,
        failing_since: None,
        ended: false,
        _lock: lock,
    };
    // A full disk does not stop the start: the log is unavailable until there is room.
    thread.confirm();
    thread::Builder::new()
        .name("audit-writer".to_owned())
        .spawn(move || {
            thread.run();
            if ended.send(()).is_err() {
                tracing::debug!("nobody waited for the end of the audit log");
            }
        })
        .map_err(StartError::Thread)?;
    Ok(Writer {
        log: log.clone(),
        ended: on_end,
    })
}

fn lifecycle(log: &Log, event: &'static str, detail: Text) -> Record {
    let mut record = log.record(Kind::Lifecycle, clock::now());
    record.lifecycle = Some(Lifecycle {
        event: Text::fixed(event),
        detail: Some(detail),
        cut: None,
    });
    record
}

fn cut_record(log: &Log, cut: Cut) -> Record {
    let detail = format!(
        "segment {} counts up to byte {}; {} bytes after it are no records",
        cut.segment, cut.offset, cut.bytes
    );
    let mut record = lifecycle(log, "log_cut", Text::from(detail));
    if let Some(lifecycle) = &mut record.lifecycle {
        lifecycle.cut = Some(cut);
    }
    record
}

/// The line that says that an exchange is open. A short one has ended by now, and costs nothing but its end.
fn still_open(running: Weak<Running>) -> Option<(RecordId, Vec<u8>)> {
    running.upgrade()?.intent()
}

/// Says how the thread ended, even in a panic.
struct LastWords(Log);

impl Drop for LastWords {
    fn drop(&mut self) {
        let dead = thread::panicking();
        let state = if dead {
            AuditUnavailable::Dead
        } else {
            AuditUnavailable::Ended
        };
        self.0.0.state.send_replace(Some(state));
        self.0.0.places.close();
    }
}

struct WriterThread {
    log: Log,
    journal: Journal,
    /// Exchanges to be written as open with the next confirmation, if they still are.
    intents: Vec<Weak<Running>>,
    /// What was taken from the queue and is not confirmed.
    taken: usize,
    /// Places of records among that.
    places: usize,
    /// When what is not confirmed has to be.
    due: Option<Monotonic>,
    failing_since: Option<Monotonic>,
    /// The last record is in the journal.
    ended: bool,
    _lock: Lock,
}

impl WriterThread {
    fn run(mut self) {
        let _last_words = LastWords(self.log.clone());
        loop {
            let over = if self.failing_since.is_some() {
                self.repair()
            } else {
                self.turn()
            };
            if over {
                return;
            }
        }
    }

    /// One round on a disk that works. Says whether it was the last.
    fn turn(&mut self) -> bool {
        let now = clock::monotonic();
        let limit = self.due.map(|due| due.since(now));
        let linger = if self.each_record() {
            Duration::ZERO
        } else {
            LINGER
        };
        let Taken {
            closed,
            intents,
            urgent,
            ending,
        } = self.log.take(limit, linger);
        let nothing = closed.is_empty() && intents.is_empty();
        self.taken += closed.len() + intents.len();
        self.places += closed.len();
        self.intents.extend(intents);
        for Closed { body, ends } in closed {
            let about = ends.map_or(About::Whole, About::Ends);
            self.journal.add(Entry { body, about });
        }
        if ending.is_some() && nothing {
            // What stays open is closed by the next start, which must not take this for an end in order.
            let waited = ending == Some(Ending::Written);
            if waited || self.log.queued() <= u64::try_from(self.places).unwrap_or(u64::MAX) {
                let detail = Text::fixed("every record is written");
                let stopped = lifecycle(&self.log, "log_stopped", detail);
                self.journal.add(whole(&stopped));
            }
            self.ended = true;
        }
        let now = clock::monotonic();
        let reached = self.due.is_some_and(|due| now >= due);
        if self.ended || urgent || reached || self.each_record() {
            let confirmed = self.confirm();
            return (self.ended && confirmed) || (ending == Some(Ending::Now) && !confirmed);
        }
        if !nothing {
            self.due = self.due.or_else(|| Some(now.after(self.sync_interval())));
            if let Err(error) = self.journal.write() {
                self.fail(&error);
            }
        }
        false
    }

    /// One attempt on a disk that failed. Says whether it was the last.
    fn repair(&mut self) -> bool {
        let given_up = self.log.pause(RETRY) == Some(Ending::Now);
        if self.confirm() {
            return self.ended;
        }
        given_up
    }

    /// Makes everything safe that was taken, and gives the places back.
    fn confirm(&mut self) -> bool {
        for (id, body) in self.intents.drain(..).filter_map(still_open) {
            let about = About::Begins(id);
            self.journal.add(Entry { body, about });
        }
        if let Err(error) = self.journal.confirm() {
            self.fail(&error);
            return false;
        }
        let inner = &self.log.0;
        *inner.head.lock().unwrap_or_else(PoisonError::into_inner) = self.journal.confirmed();
        let taken = mem::take(&mut self.taken);
        inner.durable.send_modify(|durable| {
            *durable = durable.saturating_add(u64::try_from(taken).unwrap_or(u64::MAX));
        });
        inner.places.add_permits(mem::take(&mut self.places));
        self.due = None;
        self.recovered();
        true
    }

    fn fail(&mut self, error: &io::Error) {
        if self.failing_since.is_none() {
            self.failing_since = Some(clock::monotonic());
            tracing::error!(%error, "write the audit log: new exchanges are refused");
        }
        let reason = AuditUnavailable::Failing(error.to_string().into());
        self.log.0.state.send_if_modified(|state| {
            let changed = matches!(state, None | Some(AuditUnavailable::Failing(_)))
                && state.as_ref() != Some(&reason);
            if changed {
                *state = Some(reason);
            }
            changed
        });
    }

    fn recovered(&mut self) {
        let Some(since) = self.failing_since.take() else {
            return;
        };
        let mut reason = None;
        self.log.0.state.send_if_modified(|state| {
            reason = state.take_if(|state| matches!(state, AuditUnavailable::Failing(_)));
            reason.is_some()
        });
        let now = clock::monotonic();
        let refused = self.log.0.refused.swap(0, Ordering::Relaxed);
        let reason = reason.map(|reason| reason.to_string()).unwrap_or_default();
        let detail = format!(
            "{reason}; for {} ms new exchanges were refused, nothing recorded was lost",
            now.since(since).as_millis()
        );
        tracing::warn!(refused, "the audit log is written again");
        let mut record = self.log.record(Kind::Finding, clock::now());
        record.finding = Some(Finding {
            what: Text::fixed("audit_unavailable"),
            detail: Some(Text::from(detail)),
            count: Some(refused),
        });
        self.journal.add(whole(&record));
        self.due = Some(now);
    }

    fn each_record(&self) -> bool {
        self.log.syncs_each()
    }

    fn sync_interval(&self) -> Duration {
        match self.log.0.options.sync {
            SyncPolicy::Within(interval) => interval.saturating_sub(LINGER),
            SyncPolicy::EachRecord => Duration::ZERO,
        }
    }
}
