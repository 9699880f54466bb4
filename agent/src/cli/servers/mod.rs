//! `exeat servers`: the register.

use super::args::{ServersArguments, ServersCommand};
use super::ask::{Daemon, unexpected};
use super::error::CliError;
use super::output::{Cell, Output, Painter, Table, Tone};
use crate::control::command::ServerShow;
use crate::control::reply::Server;
use crate::control::{Command, Reply};

/// Lists the register, or shows one server of it.
pub(super) async fn run(
    arguments: &ServersArguments,
    daemon: &Daemon,
    output: Output,
) -> Result<(), CliError> {
    let command = match &arguments.command {
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
            mode(&server.mode),
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
        ("mode", mode(&server.mode)),
        (
            "review by",
            server.review_by.as_deref().unwrap_or("-").into(),
        ),
    ];
    for (heading, cell) in rows {
        table.row([heading.into(), cell]);
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

fn mode(mode: &str) -> Cell {
    Cell::new(
        if mode == "enforce" {
            Tone::Good
        } else {
            Tone::Doubtful
        },
        mode,
    )
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
