//! `exeat hosts`: hosts' configuration, made to start servers through Exeat.

mod report;

use std::env;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use self::report::{FileReport, Report};
use super::args::{HostsCommand, ImportArguments};
use super::ask::Daemon;
use super::error::{CliError, Kind};
use super::output::{Output, agreed, note};
use super::register;
use crate::config::Config;
use crate::hosts::{
    self, Account, How, Listed, Register, Rewritten, UndoFault, configured, document, plan, write,
};

/// A file and what would be written over it.
struct Planned {
    listed: Listed,
    rewritten: Rewritten,
}

/// Rewrites, or undoes it.
pub(super) async fn run(
    command: &HostsCommand,
    config: &Config,
    daemon: &Daemon,
    output: Output,
) -> Result<(), CliError> {
    let HostsCommand::Import(arguments) = command;
    let account = match &arguments.user {
        Some(name) => hosts::named(name),
        None => hosts::invoking(),
    }
    .map_err(|error| CliError::from_error(Kind::Usage, &error))?;
    if arguments.undo {
        return undo(arguments, &account, output);
    }
    let known = register::known(arguments.policy.as_deref(), config, daemon).await;
    // Without a register, everything is proposed.
    let known = known.or_else(|error| match (&arguments.policy, error.kind) {
        (None, Kind::Unreachable) => Ok(register::Known {
            notes: vec![error.message],
            ..register::Known::default()
        }),
        _ => Err(error),
    })?;
    import(arguments, &account, &known, output)
}

fn import(
    arguments: &ImportArguments,
    account: &Account,
    known: &register::Known,
    output: Output,
) -> Result<(), CliError> {
    let mut notes = known.notes.clone();
    let exeat = called(arguments)?;
    let mut register = Register::new(known.set.as_ref()).finding_in(own_path(arguments, account));
    let mut planned = Vec::new();
    for path in paths(arguments, account) {
        let made = prepare(&path, account, &exeat, &mut register);
        match made {
            Ok(plan) => planned.push(plan),
            // One file that cannot be read is no reason to leave the others.
            Err(error) if arguments.files.is_empty() => notes.push(error.message),
            Err(error) => return Err(error),
        }
    }
    let mut report = Report {
        files: planned
            .iter()
            .map(|of| FileReport::of(&of.listed, &of.rewritten, &register))
            .collect(),
        entries: document(&register.proposals(), &[]),
        notes,
    };
    let changing = planned.iter().any(|of| !of.rewritten.changes.is_empty());
    let writing = changing && !arguments.dry_run;
    if writing {
        agreeable(arguments, output)?;
    }
    if !output.json() {
        output.document(&report, |painter| report.text(painter))?;
        if writing && !arguments.yes && !agreed("Write these files?")? {
            return Err(CliError::new(Kind::Refused, "nothing was written"));
        }
    }
    let entries = if report.entries.is_empty() {
        None
    } else {
        arguments.entries.as_deref()
    };
    if let Some(path) = entries.filter(|_| !arguments.dry_run) {
        keep(path, &report.entries)?;
    }
    if writing {
        for (of, file) in planned.iter().zip(&mut report.files) {
            file.write(of)?;
            if let Some(backup) = file.backup.as_deref().filter(|_| !output.json()) {
                note(&format!(
                    "rewrote `{}`; the backup is `{backup}`",
                    file.path
                ));
            }
        }
    }
    if output.json() {
        return output.document(&report, |_| String::new());
    }
    Ok(())
}

/// Whether somebody can agree, or has.
fn agreeable(arguments: &ImportArguments, output: Output) -> Result<(), CliError> {
    if arguments.yes || (!output.json() && io::stdin().is_terminal()) {
        return Ok(());
    }
    let message = "write the hosts' files: nobody is there to agree";
    Err(CliError::new(Kind::Usage, message)
        .with_next("say `--yes`, or `--dry-run` to see what would be done"))
}

impl FileReport {
    fn write(&mut self, of: &Planned) -> Result<(), CliError> {
        if of.rewritten.changes.is_empty() {
            return Ok(());
        }
        let backup = write(&of.listed, &of.rewritten)
            .map_err(|error| CliError::from_error(Kind::Refused, &error))?;
        self.written = true;
        self.backup = Some(backup.display().to_string());
        Ok(())
    }
}

fn prepare(
    path: &Path,
    account: &Account,
    exeat: &str,
    register: &mut Register<'_>,
) -> Result<Planned, CliError> {
    let listed = hosts::open(path, account.uid)
        .map_err(|error| CliError::from_error(Kind::Usage, &error))?;
    let rewritten = plan(&listed, exeat, register).map_err(|error| {
        let error = CliError::from_error(Kind::Usage, &error);
        CliError::new(
            Kind::Usage,
            format_args!("rewrite `{}`: {}", path.display(), error.message),
        )
    })?;
    for entry in &listed.entries {
        if let How::Remote(url) = &entry.how {
            drop(register.remote(&entry.name, url));
        }
    }
    Ok(Planned { listed, rewritten })
}

/// The files that were named, or all that are known.
fn paths(arguments: &ImportArguments, account: &Account) -> Vec<PathBuf> {
    if !arguments.files.is_empty() {
        return arguments.files.clone();
    }
    let here = env::current_dir().ok().filter(|_| arguments.user.is_none());
    configured(account, here.as_deref())
}

/// Where the user's hosts find programs: by this `PATH`, or where others' shells have their own.
fn own_path(arguments: &ImportArguments, account: &Account) -> Vec<PathBuf> {
    if arguments.user.is_some() {
        return [".local/bin", "bin"]
            .map(|own| account.home.join(own))
            .into();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).collect()
}

/// What hosts call.
fn called(arguments: &ImportArguments) -> Result<String, CliError> {
    let Some(path) = &arguments.exeat else {
        return Ok("exeat".to_owned());
    };
    let own = path.file_name().is_some_and(|name| name == "exeat");
    let text = path.to_str().filter(|_| own && path.is_absolute());
    text.map(str::to_owned).ok_or_else(|| {
        CliError::new(
            Kind::Usage,
            format_args!(
                "call `{}`: it is no absolute path that ends in `/exeat`",
                path.display()
            ),
        )
    })
}

/// Writes the proposed entries where nothing is yet.
fn keep(path: &Path, entries: &str) -> Result<(), CliError> {
    let mut options = OpenOptions::new();
    let made = options.write(true).create_new(true).mode(0o600).open(path);
    made.and_then(|mut file| file.write_all(entries.as_bytes()))
        .map_err(|error| CliError::io(format_args!("write `{}`", path.display()), &error))
}

fn undo(arguments: &ImportArguments, account: &Account, output: Output) -> Result<(), CliError> {
    let mut restored = Vec::new();
    let mut failed = Vec::new();
    for path in paths(arguments, account) {
        let path = if path.is_absolute() {
            path
        } else {
            let here = env::current_dir();
            here.map_err(|error| CliError::io("find the working directory", &error))?
                .join(path)
        };
        match hosts::undo(&path, account.uid) {
            Ok(path) => restored.push(path.display().to_string()),
            // Of all the known files, those that were never rewritten are no failure.
            Err(UndoFault::Nothing(_)) if arguments.files.is_empty() => {}
            Err(error) => failed.push(CliError::from_error(Kind::Refused, &error).message),
        }
    }
    output.document(&restored, |_| {
        let lines = restored.iter().map(|path| format!("restored `{path}`\n"));
        if restored.is_empty() && failed.is_empty() {
            return "nothing to undo\n".to_owned();
        }
        lines.collect()
    })?;
    if failed.is_empty() {
        return Ok(());
    }
    Err(CliError::new(Kind::Refused, failed.join("\nexeat: ")))
}

#[cfg(test)]
mod tests;
