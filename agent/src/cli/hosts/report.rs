//! What an import does, as people and programs see it; nothing secret is in it.

use std::borrow::Cow;

use serde::Serialize;

use crate::audit::mask;
use crate::cli::output::{Painter, Tone};
use crate::hosts::{Change, How, Listed, Register, Rewritten, is_found, masked_arguments};
use crate::launch::environment::PATH;

/// The whole import.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Each file that was looked at.
    pub(super) files: Vec<FileReport>,
    /// A policy file with the proposed register entries; empty where there are none.
    pub(super) entries: String,
    /// What a person should know.
    pub(super) notes: Vec<String>,
}

/// A file.
#[derive(Debug, Serialize)]
pub(super) struct FileReport {
    pub(super) path: String,
    host: &'static str,
    format: &'static str,
    changes: Vec<ChangeReport>,
    /// Servers that stay as they are, and why.
    kept: Vec<Kept>,
    pub(super) written: bool,
    pub(super) backup: Option<String>,
}

/// A server that is started otherwise.
#[derive(Debug, Serialize)]
struct ChangeReport {
    at: String,
    line: usize,
    name: String,
    before: Vec<String>,
    after: Vec<String>,
    /// What stays to be done in the file.
    remains: Vec<String>,
}

/// A server that stays as it is.
#[derive(Debug, Serialize)]
struct Kept {
    at: String,
    why: String,
}

impl FileReport {
    pub(super) fn of(listed: &Listed, rewritten: &Rewritten, register: &Register<'_>) -> Self {
        let kept = listed.entries.iter().filter_map(|entry| {
            let why = match &entry.how {
                How::Stdio(_) => return None,
                How::Exeat(name) => format!("it is `exeat run {name}` already"),
                How::Remote(_) => "it is reached at a URL".to_owned(),
                How::Other(why) => (*why).to_owned(),
            };
            let at = entry.at.clone();
            Some(Kept { at, why })
        });
        Self {
            path: listed.place.path.display().to_string(),
            host: listed.format.host,
            format: listed.format.id,
            changes: rewritten
                .changes
                .iter()
                .map(|change| ChangeReport::of(change, register))
                .collect(),
            kept: kept.collect(),
            written: false,
            backup: None,
        }
    }
}

impl ChangeReport {
    fn of(change: &Change, register: &Register<'_>) -> Self {
        let line = |command: &str, args: &[String]| {
            let words = [command.to_owned()].into_iter().chain(args.iter().cloned());
            masked_arguments(&words.collect::<Vec<_>>())
        };
        Self {
            at: change.at.clone(),
            line: change.line,
            name: change.name.clone(),
            before: line(&change.before.command, &change.before.args),
            after: line(&change.after.0, &change.after.1),
            remains: remains(change, register),
        }
    }
}

/// What stays to be done, since the register starts the server otherwise than the host did.
fn remains(change: &Change, register: &Register<'_>) -> Vec<String> {
    let mut remains = Vec::new();
    if !change.before.env.is_empty() {
        remains.push(
            "its `env` has no effect any more, the register's has: take secrets out of the file"
                .to_owned(),
        );
    }
    let lacking = register.lacks_variables(&change.name, &change.before);
    if !lacking.is_empty() {
        let names: Vec<String> = lacking.iter().map(|name| format!("`{name}`")).collect();
        remains.push(format!(
            "the register gives it no {}: what it needs has to stand in its `launch.env`",
            masked(&names.join(", "))
        ));
    }
    if register.lacks_extra_args(&change.name, &change.before) {
        remains.push(
            "the register's `extra_args` do not cover what follows `--` as it stands here: see to it that they cover what its host makes of it"
                .to_owned(),
        );
    }
    if register.begins_elsewhere(&change.name) {
        let relative = |word: &String| word.starts_with("./") || word.starts_with("../");
        let mut words = change.before.args.iter().chain([&change.before.command]);
        if words.any(relative) {
            remains.push("the register has it begin elsewhere than its host: say `directory: caller` there, or make relative paths absolute".to_owned());
        }
        if let Some(cwd) = &change.cwd {
            remains.push(format!(
                "its `cwd` has no effect any more: the register has it begin elsewhere than in `{}`, unless it says `directory: caller`",
                masked(cwd)
            ));
        }
    }
    let command = &change.before.command;
    match register.program(&change.name) {
        Some(proposed) if !is_found(proposed) => remains.push(format!(
            "`{}` is not where `exeat run` looks ({PATH}): write its whole path into the register",
            masked(command)
        )),
        Some(proposed) if proposed != command => remains.push(format!(
            "`{}` is not where `exeat run` looks ({PATH}): the proposed entry names `{}`; give it a `PATH` in `env` where it starts programs from there too",
            masked(command),
            masked(proposed)
        )),
        Some(_) | None => {}
    }
    remains
}

fn masked(text: &str) -> Cow<'_, str> {
    mask::text(text)
}

impl Report {
    /// The difference, what stays, and the entries.
    pub(super) fn text(&self, painter: Painter) -> String {
        let mut text = String::new();
        let mut line = |tone, line: &str| {
            text.push_str(&painter.paint(tone, line));
            text.push('\n');
        };
        for file in &self.files {
            line(Tone::Strong, &format!("{} ({})", file.path, file.host));
            for change in &file.changes {
                line(
                    Tone::Quiet,
                    &format!("@@ line {}: {} @@", change.line, change.at),
                );
                line(Tone::Bad, &format!("- {}", words(&change.before)));
                line(Tone::Good, &format!("+ {}", words(&change.after)));
                for remains in &change.remains {
                    line(Tone::Doubtful, &format!("  {remains}"));
                }
            }
            for kept in &file.kept {
                line(Tone::Plain, &format!("  {} stays: {}", kept.at, kept.why));
            }
            if file.changes.is_empty() && file.kept.is_empty() {
                line(Tone::Plain, "  no server");
            }
        }
        if self.files.iter().all(|file| file.changes.is_empty()) {
            line(Tone::Plain, "nothing to change");
        }
        for note in &self.notes {
            line(Tone::Doubtful, note);
        }
        if !self.entries.is_empty() {
            line(Tone::Strong, "proposed register entries:");
            for entry in self.entries.lines() {
                line(Tone::Plain, entry);
            }
        }
        text
    }
}

/// Words as a shell would be given them.
pub(super) fn words(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./@+:=,[]".contains(c);
    let shown = words.iter().map(|word| {
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    });
    shown.collect::<Vec<_>>().join(" ")
}
