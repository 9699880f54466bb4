//! `exeat policy diff`: what another policy would decide otherwise, of what was recorded.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use exeat_policy::{PolicySet, Timestamp};
use jiff::Zoned;
use serde::Serialize;

use super::files;
use super::recorded::{Answer, Asked, NotReplayed, Question};
use crate::audit::Record;
use crate::cli::args::DiffArguments;
use crate::cli::ask::Daemon;
use crate::cli::audit;
use crate::cli::error::{CliError, Kind};
use crate::cli::output::{Output, Painter, Tone};
use crate::config::Config;
use crate::decide::Tally;

/// Kinds of difference that are told apart; what goes beyond is counted.
const MOST: usize = 10_000;

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Exchanges that were put to both policies.
    replayed: u64,
    /// Those that the new one decides otherwise.
    changed: u64,
    /// Those of which it cannot be told, since a value that is not recorded decides.
    untold: u64,
    /// Those of which it cannot be said who called, since claims of tokens or names of certificates are not recorded.
    unknown: u64,
    /// Those that a limit of either policy is about. Limits are counted from the first record on.
    limited: u64,
    /// Those of them that cannot be told, and so are not counted.
    uncounted: u64,
    /// Requests that tool calls in flight may have caused, which are put without these.
    in_flight: u64,
    /// Whether either policy has a breaker, which is not replayed.
    breaker: bool,
    /// Those that could not be read when they were recorded, or whose question is not in the record.
    unreadable: u64,
    /// What changes, the most frequent first.
    changes: Vec<Change>,
    /// What cannot be told, the most frequent first.
    doubts: Vec<Doubt>,
    /// Why it cannot be said who called, the most frequent first.
    cannot_say: Vec<CannotSay>,
    /// Changes of further kinds, which are not listed.
    #[serde(skip_serializing_if = "is_none")]
    unlisted: u64,
}

/// Exchanges of one kind that are decided otherwise.
#[derive(Debug, Serialize)]
struct Change {
    who: String,
    what: String,
    old: Decided,
    new: Decided,
    count: u64,
    /// A record of it.
    example: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Decided {
    effect: String,
    by: String,
}

/// Exchanges of one kind of which it cannot be told.
#[derive(Debug, Serialize)]
struct Doubt {
    who: String,
    what: String,
    /// The rule that tests what is not recorded.
    rule: String,
    count: u64,
    /// A record of it.
    example: String,
}

/// Exchanges of which it cannot be said who called.
#[derive(Debug, Serialize)]
struct CannotSay {
    why: String,
    count: u64,
    /// A record of it.
    example: String,
}

/// How often something was, and where it was first.
#[derive(Debug)]
struct Seen {
    count: u64,
    example: String,
}

/// Collects while records are read.
#[derive(Debug)]
struct Comparison {
    old: PolicySet,
    new: PolicySet,
    now: Timestamp,
    report: Report,
    changes: BTreeMap<(String, String, Decided, Decided), Seen>,
    doubts: BTreeMap<(String, String, String), Seen>,
    cannot_say: BTreeMap<String, Seen>,
    /// What the limits of each policy stand at.
    tallies: [Tally; 2],
    /// The latest time of a record so far: none counts before one that was written before it.
    latest: Timestamp,
}

/// Puts every record that is asked for to both policies.
pub(super) async fn run(
    arguments: &DiffArguments,
    config: &Config,
    daemon: &Daemon,
    now: &Zoned,
    output: Output,
) -> Result<(), CliError> {
    let now_policy = Timestamp::from_millis(now.timestamp().as_millisecond());
    let mut comparison = Comparison::new(
        files::compile(&arguments.old)?,
        files::compile(&arguments.new)?,
        now_policy,
    );
    audit::each(&arguments.records, config, daemon, now, |line| {
        let record = serde_json::from_str(line)
            .map_err(|error| CliError::from_error(Kind::Usage, &error))?;
        comparison.compare(&record);
        Ok(())
    })
    .await?;
    let report = comparison.end();
    output.document(&report, |painter| text(&report, painter))
}

impl Comparison {
    fn new(old: PolicySet, new: PolicySet, now: Timestamp) -> Self {
        Self {
            report: Report {
                breaker: old.breaker().is_some() || new.breaker().is_some(),
                ..Report::default()
            },
            old,
            new,
            now,
            changes: BTreeMap::new(),
            doubts: BTreeMap::new(),
            cannot_say: BTreeMap::new(),
            tallies: <[Tally; 2]>::default(),
            latest: Timestamp::from_millis(0),
        }
    }

    fn compare(&mut self, record: &Record) {
        let mut question = match Question::of(record) {
            Ok(question) => question,
            Err(NotReplayed::Undecided) => return,
            Err(_) => return self.report.unreadable += 1,
        };
        let known = |set| question.known(set, &self.old);
        let (known_old, known_new) = match (known(&self.old), known(&self.new)) {
            (Ok(old), Ok(new)) => (old, new),
            (Err(why), _) | (_, Err(why)) => {
                self.report.unknown += 1;
                let told = count(&mut self.cannot_say, why, record.id.to_string());
                self.report.unlisted += u64::from(!told);
                return;
            }
        };
        self.report.replayed += 1;
        question.infer_fetching(&self.old, self.now);
        self.report.in_flight +=
            u64::from(record.cause.is_some() && matches!(question.asked, Asked::Http { .. }));
        let at = Timestamp::from_millis(record.time.microseconds() / 1000);
        self.latest = self.latest.max(at);
        let [old, new] = &self.tallies;
        let (old, before) = question.replay(&self.old, self.now, &known_old, (old, self.latest));
        let (new, after) = question.replay(&self.new, self.now, &known_new, (new, self.latest));
        if before || after {
            self.report.limited += 1;
            let untold = [&old, &new].map(|answer| matches!(answer, Answer::Untold(_)));
            self.report.uncounted += u64::from(untold.contains(&true));
        }
        let (who, what) = (question.who(), question.what());
        let example = record.id.to_string();
        match (old, new) {
            (Answer::Untold(rule), _) | (_, Answer::Untold(rule)) => {
                self.report.untold += 1;
                let told = count(&mut self.doubts, (who, what, rule), example);
                self.report.unlisted += u64::from(!told);
            }
            (Answer::Decided { effect: was, .. }, Answer::Decided { effect: is, .. })
                if was == is => {}
            (old, new) => {
                self.report.changed += 1;
                let (Some(old), Some(new)) = (Decided::of(old), Decided::of(new)) else {
                    return;
                };
                let told = count(&mut self.changes, (who, what, old, new), example);
                self.report.unlisted += u64::from(!told);
            }
        }
    }

    fn end(self) -> Report {
        let Self {
            mut report,
            changes,
            doubts,
            cannot_say,
            ..
        } = self;
        report.changes = changes
            .into_iter()
            .map(|((who, what, old, new), Seen { count, example })| Change {
                who,
                what,
                old,
                new,
                count,
                example,
            })
            .collect();
        report.doubts = doubts
            .into_iter()
            .map(|((who, what, rule), Seen { count, example })| Doubt {
                who,
                what,
                rule,
                count,
                example,
            })
            .collect();
        report.cannot_say = cannot_say
            .into_iter()
            .map(|(why, Seen { count, example })| CannotSay {
                why,
                count,
                example,
            })
            .collect();
        // Stable: those that were equally often stay in the order of their words.
        report
            .changes
            .sort_by_key(|change| std::cmp::Reverse(change.count));
        report
            .doubts
            .sort_by_key(|doubt| std::cmp::Reverse(doubt.count));
        report
            .cannot_say
            .sort_by_key(|one| std::cmp::Reverse(one.count));
        report
    }
}

/// Counts one more of a kind; `false` where too many kinds are known.
fn count<K: Ord>(seen: &mut BTreeMap<K, Seen>, kind: K, example: String) -> bool {
    if let Some(seen) = seen.get_mut(&kind) {
        seen.count += 1;
    } else if seen.len() < MOST {
        seen.insert(kind, Seen { count: 1, example });
    } else {
        return false;
    }
    true
}

impl Decided {
    fn of(answer: Answer) -> Option<Self> {
        match answer {
            Answer::Decided { effect, by } => Some(Self {
                effect: effect.to_string(),
                by,
            }),
            Answer::Untold(_) => None,
        }
    }
}

fn text(report: &Report, painter: Painter) -> String {
    let mut text = String::new();
    for change in &report.changes {
        let Change {
            who,
            what,
            old,
            new,
            count,
            example,
        } = change;
        let tone = if new.effect == "allow" {
            Tone::Doubtful
        } else {
            Tone::Bad
        };
        let effects = format!("{} -> {}", old.effect, new.effect);
        let effects = painter.paint(tone, &effects);
        let said = painter.paint(Tone::Plain, &format!("{who}: {what}"));
        let why = painter.paint(
            Tone::Quiet,
            &format!("{}; before: {}; for example {example}", new.by, old.by),
        );
        // Writing to a string cannot fail.
        writeln!(text, "{effects}  {count} x  {said}\n    {why}").unwrap_or_default();
    }
    for doubt in &report.doubts {
        let Doubt {
            who,
            what,
            rule,
            count,
            example,
        } = doubt;
        let said = painter.paint(Tone::Plain, &format!("{who}: {what}"));
        let why = format!("{rule} tests what the record leaves out; for example {example}");
        let why = painter.paint(Tone::Quiet, &why);
        let word = painter.paint(Tone::Doubtful, "cannot be told");
        writeln!(text, "{word}  {count} x  {said}\n    {why}").unwrap_or_default();
    }
    for CannotSay {
        why,
        count,
        example,
    } in &report.cannot_say
    {
        let word = painter.paint(Tone::Doubtful, "cannot say who called");
        let why = painter.paint(Tone::Quiet, &format!("{why}; for example {example}"));
        writeln!(text, "{word}  {count} x\n    {why}").unwrap_or_default();
    }
    text + &summary(report)
}

fn summary(report: &Report) -> String {
    let Report {
        replayed,
        changed,
        untold,
        unknown,
        limited,
        uncounted,
        in_flight,
        breaker,
        unreadable,
        unlisted,
        ..
    } = report;
    let mut text = format!("{replayed} exchanges: {changed} decided otherwise");
    for (count, what) in [
        (untold, "cannot be told"),
        (unknown, "left out, since it cannot be said who called"),
        (unreadable, "left out, since what was asked is not recorded"),
        (unlisted, "of further kinds, which are not listed"),
    ] {
        if *count > 0 {
            write!(text, ", {count} {what}").unwrap_or_default();
        }
    }
    text.push('\n');
    for (count, what) in [
        (
            limited,
            "under limits, which are counted from the first of these records on",
        ),
        (uncounted, "of these cannot be told, and are not counted"),
        (
            in_flight,
            "requests that tool calls in flight may have caused, which are put without these",
        ),
    ] {
        if *count > 0 {
            writeln!(text, "{count} {what}").unwrap_or_default();
        }
    }
    if *breaker {
        text.push_str("breakers are not replayed\n");
    }
    text
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_none(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests;
