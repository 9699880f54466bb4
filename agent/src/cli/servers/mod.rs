//! `exeat servers`: the register.

mod matrix;

use jiff::Zoned;

use super::args::{ServersArguments, ServersCommand};
use super::ask::{Daemon, unexpected};
use super::error::CliError;
use super::output::{Cell, Output, Painter, Table, Tone};
use crate::config::Config;
use crate::control::command::{ServerDisconnect, ServerReconnect, ServerShow};
use crate::control::reply::{Disconnected, Server};
use crate::control::{Command, Reply};

/// Lists the register, or shows one server of it.
pub(super) async fn run(
    arguments: &ServersArguments,
    config: &Config,
    daemon: &Daemon,
    now: &Zoned,
    output: Output,
) -> Result<(), CliError> {
    let command = match &arguments.command {
        Some(ServersCommand::Disconnect {
            name,
            drain,
            within,
            reason,
        }) => {
            let order = ServerDisconnect {
                name: name.clone(),
                reason: reason.clone(),
                drain_seconds: drain.then_some(*within),
            };
            return word(&Command::ServerDisconnect(order), daemon, output).await;
        }
        Some(ServersCommand::Reconnect { name, reason }) => {
            let order = ServerReconnect {
                name: name.clone(),
                reason: reason.clone(),
            };
            return word(&Command::ServerReconnect(order), daemon, output).await;
        }
        Some(ServersCommand::Matrix(arguments)) => {
            return matrix::run(arguments, config, daemon, now, output).await;
        }
        None => Command::Servers,
        Some(ServersCommand::Show { name }) => {
            Command::ServerShow(ServerShow { name: name.clone() })
        }
    };
    let mut servers = Vec::new();
    daemon
        .each(&command, |reply| match reply {
            Reply::Server(server) => {
                servers.push(*server);
                Ok(())
            }
            other => Err(unexpected(&command, other.name())),
        })
        .await?;
    match (&arguments.command, servers.as_slice()) {
        (Some(_), [server]) => output.document(server, |painter| one(server, painter)),
        _ => output.document(&servers, |painter| list(&servers, painter)),
    }
}

/// Gives the daemon an order about one server, and says what became of it.
async fn word(command: &Command, daemon: &Daemon, output: Output) -> Result<(), CliError> {
    let mut told = None;
    daemon
        .each(command, |reply| match reply {
            Reply::Word(word) => {
                told = Some(word);
                Ok(())
            }
            other => Err(unexpected(command, other.name())),
        })
        .await?;
    let Some(told) = told else {
        return Err(unexpected(command, "nothing"));
    };
    output.document(&told, |painter| {
        let tone = if told.state == "connected" {
            Tone::Good
        } else {
            Tone::Doubtful
        };
        let mut text = format!("{} is {}\n", told.server, painter.paint(tone, &told.state));
        for problem in &told.problems {
            text.push_str(&painter.paint(Tone::Bad, problem));
            text.push('\n');
        }
        text
    })
}

fn list(servers: &[Server], painter: Painter) -> String {
    if servers.is_empty() {
        return "no server is registered\n".to_owned();
    }
    let mut table = Table::new(&[
        "NAME",
        "REACHED",
        "RUNNING",
        "MODE",
        "REVIEW BY",
        "OWNER",
        "PURPOSE",
    ]);
    for server in servers {
        table.row([
            Cell::new(Tone::Strong, &server.name),
            server.reached.as_str().into(),
            server.running.to_string().into(),
            mode(server),
            server.review_by.as_deref().unwrap_or("-").into(),
            or_dash(&server.owner),
            or_dash(&server.purpose),
        ]);
    }
    table.render(painter)
}

fn one(server: &Server, painter: Painter) -> String {
    let mut table = Table::new(&["", ""]);
    let rows = [
        ("name", Cell::new(Tone::Strong, &server.name)),
        ("purpose", or_dash(&server.purpose)),
        ("owner", or_dash(&server.owner)),
        ("reached", server.reached.as_str().into()),
        ("running", server.running.to_string().into()),
        ("mode", mode(server)),
        (
            "review by",
            server.review_by.as_deref().unwrap_or("-").into(),
        ),
    ];
    for (heading, cell) in rows {
        table.row([heading.into(), cell]);
    }
    if let Some(disconnected) = &server.disconnected {
        let text = told(disconnected);
        table.row(["disconnected".into(), Cell::new(Tone::Bad, &text)]);
    }
    let mut text = table.render(painter);
    section(&mut text, "may reach", &server.egress, painter);
    let tools: Vec<String> = server
        .tools
        .iter()
        .map(|(tool, class)| format!("{tool}: {class}"))
        .collect();
    section(&mut text, "tools", &tools, painter);
    text
}

fn section(text: &mut String, heading: &str, lines: &[String], painter: Painter) {
    text.push('\n');
    text.push_str(&painter.paint(Tone::Strong, heading));
    text.push('\n');
    if lines.is_empty() {
        text.push_str("  nothing\n");
    }
    for line in lines {
        text.push_str("  ");
        text.push_str(&painter.paint(Tone::Plain, line));
        text.push('\n');
    }
}

/// Since when, by whom and why a server is disconnected.
pub(super) fn told(disconnected: &Disconnected) -> String {
    let mut text = format!("since {} by {}", disconnected.since, disconnected.by);
    if let Some(reason) = &disconnected.reason {
        text.push_str(": ");
        text.push_str(reason);
    }
    text
}

fn mode(server: &Server) -> Cell {
    match (&server.disconnected, server.mode.as_str()) {
        (Some(_), _) => Cell::new(Tone::Bad, "disconnected"),
        (None, mode @ "enforce") => Cell::new(Tone::Good, mode),
        (None, mode) => Cell::new(Tone::Doubtful, mode),
    }
}

fn or_dash(text: &str) -> Cell {
    if text.is_empty() {
        Cell::new(Tone::Quiet, "-")
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests;
