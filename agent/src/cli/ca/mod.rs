//! `exeat ca`: the certificate that managed processes have to trust.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process;

use serde::Serialize;

use super::args::{CaCommand, ExportArguments, InstallArguments};
use super::ask::Daemon;
use super::error::{CliError, Kind};
use super::output::{self, Output};
use crate::control::reply::Certificate;
use crate::control::{Command, Reply};

/// A program and its arguments.
type Program = &'static [&'static str];

/// How a family of systems keeps what it trusts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Store {
    /// Where certificates are dropped.
    directory: &'static str,
    /// The file that we drop.
    file: &'static str,
    /// What makes the bundle anew.
    refresh: Program,
    /// The same once a file is gone.
    withdraw: Program,
}

/// Debian, Ubuntu, Alpine; then Fedora, RHEL and their like; then Arch; then SUSE.
const STORES: [Store; 4] = [
    Store {
        directory: "/usr/local/share/ca-certificates",
        file: "exeat.crt",
        refresh: &["update-ca-certificates"],
        // Without that, Debian's leaves the links to what is gone.
        withdraw: &["update-ca-certificates", "--fresh"],
    },
    Store {
        directory: "/etc/pki/ca-trust/source/anchors",
        file: "exeat.pem",
        refresh: &["update-ca-trust", "extract"],
        withdraw: &["update-ca-trust", "extract"],
    },
    Store {
        directory: "/etc/ca-certificates/trust-source/anchors",
        file: "exeat.crt",
        refresh: &["trust", "extract-compat"],
        withdraw: &["trust", "extract-compat"],
    },
    Store {
        directory: "/etc/pki/trust/anchors",
        file: "exeat.pem",
        refresh: &["update-ca-certificates"],
        withdraw: &["update-ca-certificates"],
    },
];

/// What is done, or was.
#[derive(Debug, Serialize)]
struct Plan {
    /// `write` or `remove`.
    change: &'static str,
    /// The file.
    file: PathBuf,
    /// What is run after it.
    run: String,
    /// SHA-256 of the certificate, where it is known.
    fingerprint: Option<String>,
    /// Whether it was done.
    done: bool,
}

/// Exports or installs.
pub(super) async fn run(
    command: &CaCommand,
    daemon: &Daemon,
    output: Output,
) -> Result<(), CliError> {
    match command {
        CaCommand::Export(arguments) => export(arguments, daemon, output).await,
        CaCommand::Install(arguments) => install(arguments, daemon, output).await,
    }
}

async fn certificate(daemon: &Daemon) -> Result<Certificate, CliError> {
    daemon
        .one(&Command::CaExport, |reply| match reply {
            Reply::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .await
}

async fn export(
    arguments: &ExportArguments,
    daemon: &Daemon,
    output: Output,
) -> Result<(), CliError> {
    let certificate = certificate(daemon).await?;
    if let Some(file) = &arguments.output {
        write_new(file, &certificate.pem)
            .map_err(|error| CliError::io(format_args!("write `{}`", file.display()), &error))?;
        output::note(&format!(
            "SHA-256 {} is in `{}`",
            certificate.fingerprint,
            file.display()
        ));
        return Ok(());
    }
    if output.json() {
        return output.document(&certificate, |_| String::new());
    }
    output::raw(&certificate.pem)
}

async fn install(
    arguments: &InstallArguments,
    daemon: &Daemon,
    output: Output,
) -> Result<(), CliError> {
    let store = store(Path::new("/"))?;
    let file = Path::new(store.directory).join(store.file);
    let (certificate, then) = if arguments.undo {
        (None, store.withdraw)
    } else {
        (Some(certificate(daemon).await?), store.refresh)
    };
    let mut plan = Plan {
        change: if arguments.undo { "remove" } else { "write" },
        file,
        run: then.join(" "),
        fingerprint: certificate
            .as_ref()
            .map(|certificate| certificate.fingerprint.clone()),
        done: false,
    };
    // Said before it is done: it changes whom this machine trusts.
    output::note(&plan.sentence());
    if !arguments.dry_run {
        apply(&plan, certificate.as_ref(), then)?;
        plan.done = true;
    }
    output.document(&plan, |_| match (plan.done, arguments.undo) {
        (false, _) => "nothing was changed\n".to_owned(),
        (true, false) => "done; undo it with `exeat ca install --undo`\n".to_owned(),
        (true, true) => "done\n".to_owned(),
    })
}

fn apply(plan: &Plan, certificate: Option<&Certificate>, then: Program) -> Result<(), CliError> {
    let file = plan.file.display();
    let changed = match certificate {
        Some(certificate) => replace(&plan.file, &certificate.pem),
        None => remove(&plan.file),
    };
    changed.map_err(|error| CliError::io(format_args!("{} `{file}`", plan.change), &error))?;
    run_tool(then)
}

impl Plan {
    fn sentence(&self) -> String {
        let file = self.file.display();
        match &self.fingerprint {
            Some(fingerprint) => format!(
                "writes the certificate with SHA-256 {fingerprint} to `{file}`, then runs `{}`: \
                 every program of this machine that reads the system's store will trust it",
                self.run
            ),
            None => format!("removes `{file}`, then runs `{}`", self.run),
        }
    }
}

/// The store of the system below `root`.
fn store(root: &Path) -> Result<Store, CliError> {
    let present = |store: &&Store| {
        store
            .directory
            .strip_prefix('/')
            .is_some_and(|path| root.join(path).is_dir())
    };
    STORES.iter().find(present).copied().ok_or_else(|| {
        CliError::new(
            Kind::Usage,
            "find the system's certificate store: none of the known is here",
        )
        .with_next("install the package `ca-certificates`, or use `exeat ca export`")
    })
}

fn run_tool(tool: Program) -> Result<(), CliError> {
    let Some((program, arguments)) = tool.split_first() else {
        return Ok(());
    };
    let run = tool.join(" ");
    let ended = process::Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| CliError::io(format_args!("run `{run}`"), &error))?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    let said = said.lines().last().unwrap_or("it said nothing");
    Err(CliError::new(
        Kind::Usage,
        format_args!("run `{run}`: {}: {said}", ended.status),
    ))
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// In one step, so that nobody reads half a certificate.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    remove(&fresh)?;
    write_new(&fresh, text)?;
    fs::rename(&fresh, path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests;
