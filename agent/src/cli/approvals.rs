//! `exeat approvals`: calls that wait for a person.

use std::fmt::Write as _;

use super::args::{ApprovalsArguments, ApprovalsCommand};
use super::ask::{Daemon, unexpected};
use super::error::CliError;
use super::output::{Output, Painter, Tone};
use crate::control::command::{ApprovalDecision, ApprovalLink, Verdict};
use crate::control::reply::Waiting;
use crate::control::{Command, Reply};

/// Lists what waits, or decides on one call.
pub(super) async fn run(
    arguments: &ApprovalsArguments,
    daemon: &Daemon,
    output: Output,
) -> Result<(), CliError> {
    let decision = |id: &str, verdict, reason: &Option<String>| {
        Command::ApprovalDecide(ApprovalDecision {
            id: id.to_owned(),
            verdict,
            reason: reason.clone(),
        })
    };
    let command = match &arguments.command {
        Some(ApprovalsCommand::Approve { id, reason }) => decision(id, Verdict::Approve, reason),
        Some(ApprovalsCommand::Deny { id, reason }) => decision(id, Verdict::Deny, reason),
        Some(ApprovalsCommand::Decide { token }) => {
            let behind = token.rsplit_once("/approvals/");
            let token = behind.map_or(token.as_str(), |(_, token)| token);
            Command::ApprovalLink(ApprovalLink {
                token: token.to_owned(),
            })
        }
        None => return list(daemon, output).await,
    };
    let decided = daemon
        .one(&command, |reply| match reply {
            Reply::Decided(decided) => Some(decided),
            _ => None,
        })
        .await?;
    output.document(&decided, |painter| {
        let (tone, word) = match decided.decision {
            Verdict::Approve => (Tone::Good, "approved"),
            Verdict::Deny => (Tone::Bad, "denied"),
        };
        let word = painter.paint(tone, word);
        format!(
            "{}: {} of {} is {word}\n",
            decided.id, decided.tool, decided.server
        )
    })
}

async fn list(daemon: &Daemon, output: Output) -> Result<(), CliError> {
    let mut waiting = Vec::new();
    let command = Command::Approvals;
    daemon
        .each(&command, |reply| match reply {
            Reply::Waiting(one) => {
                waiting.push(*one);
                Ok(())
            }
            other => Err(unexpected(&command, other.name())),
        })
        .await?;
    output.document(&waiting, |painter| shown(&waiting, painter))
}

fn shown(waiting: &[Waiting], painter: Painter) -> String {
    if waiting.is_empty() {
        return "no call waits for an approval\n".to_owned();
    }
    let mut text = String::new();
    for one in waiting {
        let what = format!("{} of {}", one.tool, one.server);
        text.push_str(&painter.paint(Tone::Strong, &one.id));
        text.push_str("  ");
        text.push_str(&painter.paint(Tone::Plain, &what));
        text.push('\n');
        for (heading, value) in lines(one) {
            let value = painter.paint(Tone::Plain, &value);
            // Writing to a string cannot fail.
            writeln!(text, "  {heading:<10} {value}").unwrap_or_default();
        }
    }
    text
}

fn lines(one: &Waiting) -> Vec<(&'static str, String)> {
    let uids: Vec<String> = one.uids.iter().map(u32::to_string).collect();
    let user = one.user.as_deref().unwrap_or("no name");
    let user = format!("{user} ({})", uids.join(", "));
    let caller = match &one.host {
        Some(host) => format!("{host}, {user}"),
        None => user,
    };
    let arguments = match &one.arguments {
        Some(arguments) => arguments.to_string(),
        None => format!("SHA-256 {}", one.arguments_sha256),
    };
    let caller = match &one.subject {
        Some(subject) => format!("{caller}, shown to be {subject}"),
        None => caller,
    };
    let rules = std::iter::once(&one.rule).chain(&one.other_rules);
    let rules: Vec<&str> = rules.map(String::as_str).collect();
    let mut lines = vec![
        ("caller", caller),
        ("rule", rules.join(", ")),
        ("asked", one.asked.to_string()),
        ("until", one.until.to_string()),
        ("arguments", arguments),
    ];
    if !one.further.is_empty() {
        lines.push(("further", one.further.join(", ")));
    }
    if !one.connected {
        let text = "the daemon was started anew since: the caller has to repeat the call";
        lines.push(("waits", text.to_owned()));
    }
    if let Some(by) = &one.approved_by {
        lines.push(("approved", format!("by {by}")));
    }
    lines.push(("record", one.record.clone()));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::clock::Timestamp;

    #[test]
    fn what_waits_is_shown_with_what_is_to_be_judged() {
        let mut one = Waiting {
            id: "0123456789ab".into(),
            server: "bank".into(),
            tool: "pay".into(),
            rule: "ask".into(),
            other_rules: vec!["finance".into()],
            host: Some("agent".into()),
            user: Some("dave".into()),
            uids: vec![1000, 1001],
            subject: Some("agent-7".into()),
            asked: Timestamp::from_microseconds(0),
            until: Timestamp::from_microseconds(600_000_000),
            connected: true,
            arguments: Some(serde_json::json!({ "note": "\u{202e}a\u{1b}[2J" })),
            further: vec!["requestState".into()],
            arguments_sha256: "00".into(),
            record: "r".into(),
            approved_by: None,
        };
        let live = shown(std::slice::from_ref(&one), Painter::default());
        assert_eq!(
            live,
            "0123456789ab  pay of bank
  caller     agent, dave (1000, 1001), shown to be agent-7
  rule       ask, finance
  asked      1970-01-01T00:00:00.000000Z
  until      1970-01-01T00:10:00.000000Z
  arguments  {\"note\":\"\\u{202e}a\\u001b[2J\"}
  further    requestState
  record     r
"
        );
        one.connected = false;
        one.arguments = None;
        one.approved_by = Some("olga".into());
        let left = shown(&[one], Painter::default());
        assert!(
            left.contains("SHA-256 00") && left.contains("by olga"),
            "{left}"
        );
        assert!(left.contains("has to repeat the call"), "{left}");
        assert_eq!(
            shown(&[], Painter::default()),
            "no call waits for an approval\n"
        );
    }
}
