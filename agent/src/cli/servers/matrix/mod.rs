//! `exeat servers matrix`: roles and servers, how many tools each role may call, and which grants nobody used.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use exeat_policy::{Hints, PolicySet, Role, Server as Registered, Timestamp, callable};
use jiff::Zoned;
use serde::Serialize;

use crate::audit::record::Kind as RecordKind;
use crate::cli::args::{FilterArguments, MatrixArguments, QueryArguments};
use crate::cli::ask::Daemon;
use crate::cli::audit;
use crate::cli::error::{CliError, Kind};
use crate::cli::listed::listed;
use crate::cli::output::{Cell, Output, Painter, Table, Tone, note};
use crate::cli::policy::files;
use crate::cli::unused::{Unused, Use};
use crate::config::Config;

/// Tools of a server that are known, and how it describes them.
type Known = BTreeMap<String, Option<Hints>>;

#[derive(Debug, Serialize)]
struct Matrix {
    fingerprint: String,
    cells: Vec<Counted>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unused: Option<Unused>,
}

/// One role and one server.
#[derive(Debug, Serialize)]
struct Counted {
    role: String,
    server: String,
    /// How many tools of the server are known.
    known: usize,
    /// Those that the role may call, by what lets it.
    tools: BTreeMap<String, String>,
    /// Whether a grant of the role names the server, whatever is known of its tools.
    granted: bool,
}

/// Shows the matrix.
pub(super) async fn run(
    arguments: &MatrixArguments,
    config: &Config,
    daemon: &Daemon,
    now: &Zoned,
    output: Output,
) -> Result<(), CliError> {
    let set = files::compile(arguments.policy.as_ref().unwrap_or(&config.policy))?;
    let at = Timestamp::from_millis(now.timestamp().as_millisecond());
    let mut matrix = Matrix {
        fingerprint: set.fingerprint().to_owned(),
        cells: cells(&set, &known(&set, daemon).await?, at),
        unused: None,
    };
    if arguments.unused {
        matrix.unused = Some(unused(&set, arguments, config, daemon, now).await?);
    }
    output.document(&matrix, |painter| text(&matrix, &set, painter))?;
    let found = matrix
        .unused
        .is_some_and(|unused| !unused.grants.is_empty());
    if found {
        // The output has said it.
        return Err(CliError::new(Kind::Refused, ""));
    }
    Ok(())
}

/// The tools that the register names and, where the daemon tells, those that servers were seen to list.
async fn known(set: &PolicySet, daemon: &Daemon) -> Result<BTreeMap<Arc<str>, Known>, CliError> {
    let mut known: BTreeMap<Arc<str>, Known> = set
        .servers()
        .map(|server| (Arc::clone(&server.name), named(server)))
        .collect();
    match listed(set, daemon).await? {
        Some(listed) => {
            for (name, tools) in listed {
                let tools = tools.into_iter().map(|(tool, hints)| (tool, Some(hints)));
                known.entry(name).or_default().extend(tools);
            }
        }
        None => {
            note("the daemon does not answer, so only tools that the register names are counted");
        }
    }
    Ok(known)
}

/// The tools that the register names one by one.
fn named(server: &Registered) -> Known {
    let names = server.tools.iter().filter_map(|(glob, _)| glob.literal());
    names.map(|name| (name.to_owned(), None)).collect()
}

fn cells(set: &PolicySet, known: &BTreeMap<Arc<str>, Known>, now: Timestamp) -> Vec<Counted> {
    let mut cells = Vec::new();
    for role in set.roles() {
        for (server, known) in known {
            let by = |(tool, hints): (&String, &Option<Hints>)| {
                let rule = callable(set, &role.members, server, tool, *hints, now)?;
                Some((tool.clone(), rule.to_string()))
            };
            cells.push(Counted {
                role: role.name.to_string(),
                server: server.to_string(),
                known: known.len(),
                tools: known.iter().filter_map(by).collect(),
                granted: grants(role, server),
            });
        }
    }
    cells
}

fn grants(role: &Role, server: &Arc<str>) -> bool {
    let mut grants = role.grants.iter();
    grants.any(|grant| grant.servers.contains(server))
}

/// Puts what passed to the grants, and names those that nothing needed.
async fn unused(
    set: &PolicySet,
    arguments: &MatrixArguments,
    config: &Config,
    daemon: &Daemon,
    now: &Zoned,
) -> Result<Unused, CliError> {
    let asked = QueryArguments {
        filter: FilterArguments {
            kind: Some(RecordKind::Mcp),
            ..FilterArguments::default()
        },
        since: Some(arguments.since.clone()),
        until: None,
        limit: None,
        directory: arguments.directory.clone(),
    };
    let mut use_ = Use::new(Timestamp::from_millis(now.timestamp().as_millisecond()));
    audit::each(&asked, config, daemon, now, |line| {
        let record = serde_json::from_str(line)
            .map_err(|error| CliError::from_error(Kind::Usage, &error))?;
        use_.note(set, &record);
        Ok(())
    })
    .await?;
    Ok(use_.end(set, arguments.since.clone()))
}

fn text(matrix: &Matrix, set: &PolicySet, painter: Painter) -> String {
    if set.roles().is_empty() {
        return "the policy has no roles\n".to_owned();
    }
    let roles: Vec<&str> = set.roles().iter().map(|role| &*role.name).collect();
    let mut table = Table::new(&[["SERVER"].as_slice(), &roles].concat());
    for server in set.servers() {
        let mut row = vec![Cell::new(Tone::Strong, &*server.name)];
        for role in &roles {
            let mut cells = matrix.cells.iter();
            let cell = cells.find(|cell| cell.role == *role && cell.server == *server.name);
            row.push(cell.map_or_else(|| "-".into(), count));
        }
        table.row(row);
    }
    let mut text = table.render(painter);
    if let Some(unused) = &matrix.unused {
        text.push_str(&told(unused, painter));
    }
    text
}

fn count(cell: &Counted) -> Cell {
    match (cell.tools.len(), cell.known) {
        // Patterns over tools of which none is known yet.
        (0, 0) if cell.granted => Cell::new(Tone::Doubtful, "?/0"),
        (0, known) => Cell::new(Tone::Quiet, format!("0/{known}")),
        (some, known) => Cell::new(Tone::Plain, format!("{some}/{known}")),
    }
}

fn told(unused: &Unused, painter: Painter) -> String {
    let mut text = String::from("\n");
    for grant in &unused.grants {
        let word = painter.paint(Tone::Doubtful, "unused");
        let said = painter.paint(Tone::Plain, &grant.to_string());
        let place = painter.paint(Tone::Quiet, &grant.place);
        // Writing to a string cannot fail.
        writeln!(text, "{word}  {said}  {place}").unwrap_or_default();
    }
    let Unused {
        since,
        exchanges,
        with_token,
        unreadable,
        grants,
    } = unused;
    write!(
        text,
        "{} grants unused in {exchanges} exchanges since {since}",
        grants.len()
    )
    .unwrap_or_default();
    for (count, what) in [
        (
            with_token,
            "by token or certificate, judged by the identities and the grant that they name",
        ),
        (unreadable, "left out, since what was asked is not recorded"),
    ] {
        if *count > 0 {
            write!(text, ", {count} more {what}").unwrap_or_default();
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;
