//! `exeat discover`: every MCP server and host of this machine, registered or not.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use exeat_policy::PolicySet;
use jiff::Zoned;
use nix::unistd::geteuid;

use super::args::DiscoverArguments;
use super::ask::{Daemon, unexpected};
use super::error::{CliError, Kind};
use super::output::{Cell, Output, Painter, Table, Tone};
use super::register;
use super::when;
use crate::audit::{ReadError, Segments};
use crate::config::Config;
use crate::control::records::{self, Owner};
use crate::control::{Command, RecordFilter, Reply};
use crate::discover::{self, Found, Inventory, Listening, Running, Standing, Survey};
use crate::hosts::{self, Account, configured, in_project};
use crate::supervisor::labelled;
use crate::supervisor::matching::subjects;
use crate::telemetry::clock::Timestamp;

/// What the log says of MCP that was refused because the register does not have it, and of servers that hosts started
/// without Exeat.
const TELLING: [&str; 2] = ["not registered", "unregistered_server"];
/// Most records of each kind that are looked at.
const MAX_RECORDS: u32 = 10_000;
/// Most projects of one user that are looked into.
const MAX_PROJECTS: usize = 256;
/// Most bytes of one user's files that are read.
const MAX_BYTES: usize = 64 << 20;
/// Letters of a command line in the table.
const WIDTH: usize = 72;

/// Looks everywhere; fails where something is not registered, or is started around Exeat.
pub(super) async fn run(
    arguments: &DiscoverArguments,
    config: &Config,
    daemon: &Daemon,
    now: &Zoned,
    output: Output,
) -> Result<(), CliError> {
    let known = register::known(arguments.policy.as_deref(), config, daemon).await;
    let known = known.or_else(|error| match (&arguments.policy, error.kind) {
        (None, Kind::Unreachable) => Ok(register::Known {
            notes: vec![error.message],
            ..register::Known::default()
        }),
        _ => Err(error),
    })?;
    let mut survey = Survey::new(known.set.as_ref(), &known.names);
    for note in &known.notes {
        survey.note(note.clone());
    }
    // First, so that a listener's process is among those that are looked at after it.
    let mut sockets = discover::listening();
    let all = discover::running();
    files(&mut survey, &all)?;
    if let Some(set) = &known.set {
        match containers(set, config) {
            Ok(found) => survey.containers(found),
            Err(note) => survey.note(format!("containers are not matched by label: {note}")),
        }
    }
    survey.processes(&all, &config.cgroup);
    sockets.retain(|socket| !is_own(socket, &all));
    survey.listeners(&all, &sockets);
    if arguments.probe {
        ask(&mut survey, &all, &sockets).await;
    }
    traffic(&mut survey, arguments, config, daemon, now).await?;
    let inventory = survey.finish();
    output.document(&inventory, |painter| text(&inventory, painter))?;
    let managed = |found: &Found| found.standing == Standing::Managed;
    if inventory.found.iter().all(managed) {
        Ok(())
    } else {
        Err(CliError::found())
    }
}

/// The servers that containers are, by the containers' cgroups.
fn containers(set: &PolicySet, config: &Config) -> Result<BTreeMap<String, String>, String> {
    labelled::servers(&subjects(set), config.docker.data_root.as_deref())
}

/// The files of everybody for root, else one's own, and those of projects: the one here, those that hosts' files name, and
/// those that hosts work in.
fn files(survey: &mut Survey<'_>, all: &[Running]) -> Result<(), CliError> {
    let own = hosts::invoking().map_err(|error| CliError::from_error(Kind::Usage, &error))?;
    let mut accounts: Vec<Account> = if geteuid().is_root() {
        hosts::accounts()
    } else {
        Vec::new()
    };
    accounts.retain(|account| account.uid != own.uid);
    accounts.insert(0, own);
    let here = env::current_dir().ok();
    for (index, account) in accounts.iter().enumerate() {
        let project = here.as_deref().filter(|_| index == 0);
        let mut read = Read::default();
        for path in configured(account, project) {
            read.file(survey, account, path);
        }
        let hosts = all
            .iter()
            .filter(|running| running.process.uid == account.uid && running.host().is_some());
        // Those that hosts work in first: whoever writes a file may name any number.
        let worked_in = hosts.filter_map(|running| running.works_in.clone());
        let named: Vec<PathBuf> = worked_in.chain(read.projects.drain(..)).collect();
        let mut seen = BTreeSet::new();
        let projects: Vec<&PathBuf> = named.iter().filter(|path| seen.insert(*path)).collect();
        if projects.len() > MAX_PROJECTS {
            survey.note(format!(
                "{} has {} projects; the first {MAX_PROJECTS} were looked into",
                account.name,
                projects.len()
            ));
        }
        for project in projects.into_iter().take(MAX_PROJECTS) {
            for path in in_project(project) {
                read.file(survey, account, path);
            }
        }
        if read.bytes > MAX_BYTES {
            survey.note(format!(
                "{} has more than {} MiB of configuration: the rest was not looked into",
                account.name,
                MAX_BYTES >> 20
            ));
        }
    }
    Ok(())
}

/// What was read of a user's.
#[derive(Default)]
struct Read {
    files: BTreeSet<PathBuf>,
    /// Projects that are named in them.
    projects: Vec<PathBuf>,
    /// How much that was.
    bytes: usize,
}

impl Read {
    /// Each file once, as the user's: what others have arranged on the way is refused.
    fn file(&mut self, survey: &mut Survey<'_>, account: &Account, path: PathBuf) {
        if self.files.contains(&path) || self.bytes > MAX_BYTES {
            return;
        }
        match hosts::open(&path, account.uid) {
            Ok(listed) => {
                self.bytes = self.bytes.saturating_add(listed.seen.text.len());
                self.projects.extend(hosts::projects(&listed));
                survey.file(account, &listed);
            }
            Err(error) => survey.note(CliError::from_error(Kind::Usage, &error).message),
        }
        self.files.insert(path);
    }
}

/// Exeat's own listeners are no servers.
fn is_own(socket: &Listening, all: &[Running]) -> bool {
    let running = all
        .iter()
        .find(|running| running.sockets.contains(&socket.inode));
    running.is_some_and(|running| {
        Path::new(&running.process.exe)
            .file_name()
            .is_some_and(|name| name == "exeat")
    })
}

async fn ask(survey: &mut Survey<'_>, all: &[Running], sockets: &[Listening]) {
    let heard = discover::ask_all(sockets).await;
    if heard.unasked > 0 {
        survey.note(format!(
            "{} sockets listen; {} of them were not asked, or not to the end",
            sockets.len(),
            heard.unasked
        ));
    }
    for (socket, spoken) in &heard.spoken {
        survey.spoken(all, socket, spoken);
    }
}

/// What the audit log tells of the unregistered; without a log there is a note.
async fn traffic(
    survey: &mut Survey<'_>,
    arguments: &DiscoverArguments,
    config: &Config,
    daemon: &Daemon,
    now: &Zoned,
) -> Result<(), CliError> {
    let since = when::parse(&arguments.since, now)
        .map_err(|error| CliError::from_error(Kind::Usage, &error))?;
    let filters = TELLING.map(|telling| RecordFilter {
        since: Some(Timestamp::from_microseconds(since.start.as_microsecond())),
        text: Some(telling.to_owned()),
        limit: Some(MAX_RECORDS),
        ..RecordFilter::default()
    });
    for filter in &filters {
        told(survey, arguments, config, daemon, filter).await?;
    }
    Ok(())
}

/// The records that a filter lets through.
async fn told(
    survey: &mut Survey<'_>,
    arguments: &DiscoverArguments,
    config: &Config,
    daemon: &Daemon,
    filter: &RecordFilter,
) -> Result<(), CliError> {
    if let Some(directory) = &arguments.dir {
        return read(survey, directory, filter)
            .map_err(|error| CliError::from_error(Kind::Usage, &error));
    }
    let command = Command::AuditQuery(filter.clone());
    let asked = daemon
        .each(&command, |reply| match reply {
            Reply::Record(record) => {
                survey.record(&record.line);
                Ok(())
            }
            other => Err(unexpected(&command, other.name())),
        })
        .await;
    let Err(error) = asked else { return Ok(()) };
    if error.kind != Kind::Unreachable {
        return Err(error);
    }
    survey.note(format!(
        "{}: nothing is held to the policy now, and the log is read directly",
        error.message
    ));
    if let Err(error) = read(survey, &config.state_dir.join("audit"), filter) {
        survey.note(CliError::from_error(Kind::Usage, &error).message);
    }
    Ok(())
}

fn read(survey: &mut Survey<'_>, directory: &Path, filter: &RecordFilter) -> Result<(), ReadError> {
    let segments = Segments::open(directory)?;
    records::select(&segments, filter, Owner::Anybody, |line| {
        survey.record(&line);
        ControlFlow::Continue(())
    })
}

fn text(inventory: &Inventory, painter: Painter) -> String {
    let mut text = String::new();
    if inventory.found.is_empty() {
        text.push_str("no MCP server or host was found\n");
    } else {
        text.push_str(&table(&inventory.found).render(painter));
    }
    for note in &inventory.notes {
        text.push_str(&painter.paint(Tone::Doubtful, note));
        text.push('\n');
    }
    if !inventory.entries.is_empty() {
        text.push('\n');
        text.push_str(&painter.paint(Tone::Strong, "proposed register entries:"));
        text.push('\n');
        for line in inventory.entries.lines() {
            text.push_str(&painter.paint(Tone::Plain, line));
            text.push('\n');
        }
    }
    text
}

fn table(found: &[Found]) -> Table {
    let mut table = Table::new(&[
        "STANDING",
        "KIND",
        "NAME",
        "OWNER",
        "PIDS",
        "COMMAND OR URL",
        "REACHES",
        "SEEN",
    ]);
    for found in found {
        let (tone, standing) = match found.standing {
            Standing::Unregistered => (Tone::Bad, "unregistered"),
            Standing::Around => (Tone::Bad, "around"),
            Standing::Managed => (Tone::Good, "managed"),
        };
        let kind = match found.kind {
            discover::Kind::Server => "server",
            discover::Kind::Host => "host",
        };
        let pids: Vec<String> = found.pids.iter().take(3).map(ToString::to_string).collect();
        let more = if found.pids.len() > 3 { ",.." } else { "" };
        let command = found.url.clone().unwrap_or_else(|| found.command.join(" "));
        table.row([
            Cell::new(tone, standing),
            kind.into(),
            Cell::new(Tone::Strong, &found.name),
            or_dash(found.owner.clone().unwrap_or_default()),
            or_dash(pids.join(",") + more),
            or_dash(shortened(command)),
            or_dash(shortened(reached(found))),
            or_dash(found.seen.join("; ")),
        ]);
    }
    table
}

/// What it may reach at any time, then what only at its beginning; nothing is said of what is not known.
fn reached(found: &Found) -> String {
    let fetches = found
        .fetches
        .iter()
        .map(|host| format!("{host} (to fetch)"));
    let reaches = found.reaches.iter().flatten().cloned();
    let all: Vec<String> = reaches.chain(fetches).collect();
    if all.is_empty() && found.reaches.is_some() {
        return "nothing".to_owned();
    }
    all.join("; ")
}

fn or_dash(text: String) -> Cell {
    if text.is_empty() {
        Cell::new(Tone::Quiet, "-")
    } else {
        text.into()
    }
}

fn shortened(text: String) -> String {
    if text.chars().count() <= WIDTH {
        return text;
    }
    text.chars()
        .take(WIDTH.saturating_sub(2))
        .chain("..".chars())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_not_what_is_unknown() {
        let mut found = Found::new(discover::Kind::Server, "x", Standing::Managed);
        assert_eq!(reached(&found), "");
        found.reaches = Some(Vec::new());
        assert_eq!(reached(&found), "nothing");
        found.fetches = vec!["registry.npmjs.org".into()];
        assert_eq!(reached(&found), "registry.npmjs.org (to fetch)");
        found.reaches = Some(vec!["api.example.com:443".into()]);
        let both = "api.example.com:443; registry.npmjs.org (to fetch)";
        assert_eq!(reached(&found), both);
        let shown = table(&[found]).render(Painter::default());
        assert!(shown.contains(both), "{shown}");
    }
}
