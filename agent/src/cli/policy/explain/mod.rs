//! `exeat policy explain`: how a call would be decided, and why.

mod shown;

use std::path::Path;

use super::files;
use crate::cli::args::ExplainArguments;
use crate::cli::ask::Daemon;
use crate::cli::error::{CliError, Kind};
use crate::cli::output::{Cell, Output, Painter, Table, Tone};
use crate::control::command::{
    Action, Arguments, Call, Caller, OutboundConnection, OutboundRequest, ServerShow, Transport,
};
use crate::control::reply::Explanation;
use crate::control::{Command, Question, Reply, explain};
use crate::decide::unused;
use crate::telemetry::clock;

/// Asks the running daemon's policy, or the files in `--policy`.
pub(super) async fn run(
    arguments: &ExplainArguments,
    daemon: &Daemon,
    output: Output,
) -> Result<(), CliError> {
    let question = question(arguments)?;
    let explanation = match &arguments.policy {
        None => ask(question.clone(), daemon).await?,
        Some(path) => judge(&question, path)?,
    };
    let stated = question.token.is_some() || question.certificate.is_some();
    output.document(&explanation, |painter| text(&explanation, stated, painter))?;
    // A refusal is an answer: the command has done what it was asked.
    Ok(())
}

async fn ask(question: Question, daemon: &Daemon) -> Result<Explanation, CliError> {
    daemon
        .one(
            &Command::PolicyExplain(Box::new(question)),
            |reply| match reply {
                Reply::Explanation(explanation) => Some(explanation),
                _ => None,
            },
        )
        .await
}

fn judge(question: &Question, path: &Path) -> Result<Explanation, CliError> {
    let set = files::compile(path)?;
    let now = exeat_policy::Timestamp::from_millis(clock::wall().microseconds().div_euclid(1000));
    explain::answer(&set, question, now, unused)
        .map_err(|error| CliError::from_error(Kind::Usage, &error))
}

/// What the options ask.
fn question(asked: &ExplainArguments) -> Result<Question, CliError> {
    let user = asked.user.clone();
    let (token, certificate) = (shown::token(asked)?, shown::certificate(asked));
    let host = asked.host.clone().map(Caller::Host);
    if let Some(action) = outbound(asked)? {
        if asked.args.is_some() {
            return Err(usage(
                "`--args` are those of a call: give `--tool` or `--method`",
            ));
        }
        // What leaves is judged by the workload that it leaves from.
        let caller = match (host, &asked.server) {
            (Some(_), Some(_)) => {
                return Err(usage(
                    "give `--host` or `--server`, not both: who sends it?",
                ));
            }
            (Some(host), None) => host,
            (None, Some(server)) => Caller::Server(server.clone()),
            (None, None) => return Err(usage("give `--server` or `--host`: who sends it?")),
        };
        return Ok(Question {
            caller: Some(caller),
            user,
            token,
            certificate,
            fetching: asked.fetching,
            action,
        });
    }
    if asked.fetching {
        return Err(usage(
            "`--fetching` is about what leaves: give `--request`, `--connect` or `--udp`",
        ));
    }
    Ok(Question {
        caller: host,
        user,
        token,
        certificate,
        fetching: false,
        action: called(asked)?,
    })
}

/// What is asked of a server.
fn called(asked: &ExplainArguments) -> Result<Action, CliError> {
    let Some(server) = asked.server.clone() else {
        return Err(usage("give `--server`: whom is it for?"));
    };
    let arguments = asked.args.clone().map(Arguments);
    Ok(match (&asked.tool, &asked.method) {
        (Some(tool), _) => Action::Call(Call {
            server,
            method: "tools/call".to_owned(),
            name: Some(tool.clone()),
            arguments,
            hints: shown::hints(&asked.hint)?,
        }),
        (None, Some(method)) => Action::Call(Call {
            server,
            method: method.clone(),
            name: asked.name.clone(),
            arguments,
            hints: None,
        }),
        (None, None) if arguments.is_some() => {
            return Err(usage(
                "give `--tool` or `--method`: whose arguments are these?",
            ));
        }
        (None, None) => Action::Run(ServerShow { name: server }),
    })
}

fn outbound(arguments: &ExplainArguments) -> Result<Option<Action>, CliError> {
    if let Some([method, url]) = arguments.request.as_deref() {
        let request = OutboundRequest {
            method: method.clone(),
            url: url.clone(),
            upgrade: arguments.upgrade,
        };
        return Ok(Some(Action::Request(request)));
    }
    let (destination, protocol) = match (&arguments.connect, &arguments.udp) {
        (Some(destination), _) => (destination, Transport::Tcp),
        (None, Some(destination)) => (destination, Transport::Udp),
        (None, None) => return Ok(None),
    };
    let wrong = || {
        usage(&format!(
            "read `{destination}` as a destination: write `host:port`"
        ))
    };
    let (host, port) = destination.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().ok().ok_or_else(wrong)?;
    if host.is_empty() {
        return Err(wrong());
    }
    Ok(Some(Action::Connect(OutboundConnection {
        host: host.to_owned(),
        port,
        protocol,
    })))
}

fn usage(message: &str) -> CliError {
    CliError::new(Kind::Usage, message)
        .with_next("see the examples in `exeat policy explain --help`")
}

/// `stated`: a token or a certificate was told.
fn text(explanation: &Explanation, stated: bool, painter: Painter) -> String {
    let mut text = verdict(explanation, painter);
    if stated {
        let line = "the token or certificate is taken as it was stated: nothing of it is verified";
        text.push_str(&painter.paint(Tone::Quiet, line));
        text.push('\n');
    }
    text.push('\n');
    if explanation.considered.is_empty() {
        text.push_str("nothing in the policy was considered\n");
        return text;
    }
    let mut table = Table::new(&["CONSIDERED", "", "WRITTEN AT"]);
    for item in &explanation.considered {
        let tone = if item.matched {
            Tone::Strong
        } else {
            Tone::Quiet
        };
        table.row([
            Cell::new(tone, &item.subject),
            Cell::new(tone, &item.why),
            Cell::new(Tone::Quiet, item.place.as_deref().unwrap_or("-")),
        ]);
        for test in &item.tests {
            table.row([
                Cell::new(Tone::Quiet, format!("  {}", test.test)),
                Cell::new(Tone::Quiet, &test.why),
                Cell::new(Tone::Quiet, ""),
            ]);
        }
    }
    text.push_str(&table.render(painter));
    text
}

fn verdict(explanation: &Explanation, painter: Painter) -> String {
    let Explanation {
        effect,
        mode,
        would,
        rule,
        reason,
        identities,
        class,
        ..
    } = explanation;
    let tone = match effect.as_str() {
        "allow" => Tone::Good,
        "approve" | "dry_run" => Tone::Doubtful,
        _ => Tone::Bad,
    };
    let by = rule
        .as_deref()
        .map(|rule| format!(" by rule `{rule}`"))
        .unwrap_or_default();
    let because = painter.paint(Tone::Plain, &format!("{by}: {reason}"));
    let mut text = format!("{}{because}\n", painter.paint(tone, effect));
    if let Some(would) = would {
        let line = format!("observed only ({mode}); enforced it would be: {would}");
        text.push_str(&painter.paint(Tone::Doubtful, &line));
        text.push('\n');
    }
    let identities =
        (!identities.is_empty()).then(|| format!("identities: {}", identities.join(", ")));
    let class = class.as_deref().map(|class| format!("class: {class}"));
    for line in [identities, class].into_iter().flatten() {
        text.push_str(&painter.paint(Tone::Plain, &line));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
