//! What an approver is told of a call: a message as Slack's incoming webhooks take it, in which nothing that the caller
//! wrote is more than text.

use exeat_policy::PolicySet;
use serde_json::{Value, json};

use super::{Approving, Webhook};
use crate::channel::Approval;
use crate::decide::approvals::{Shown, Verdict};

/// Letters of one text; Slack takes 2000 in a field, and 3000 in a section.
const LONGEST: usize = 1900;

/// What is shown of a call, each under its heading. What the caller wrote is ASCII alone.
pub fn facts(
    approval: &Approval,
    shown: Option<&Shown>,
    reason: Option<&str>,
) -> Vec<(&'static str, String)> {
    let caller = &approval.caller;
    let uids: Vec<String> = caller.uids.iter().map(u32::to_string).collect();
    let user = caller.user.as_deref().unwrap_or("no name");
    let mut who = format!("{user} ({})", uids.join(", "));
    if let Some(workload) = &caller.workload {
        who = format!("{workload}, {who}");
    }
    if let Some(subject) = shown.and_then(|shown| shown.subject.as_deref()) {
        who = format!("{who}, shown to be {subject}");
    }
    let arguments = match shown {
        Some(shown) => shown.arguments.to_string(),
        None => "not known: the daemon was started anew since".to_owned(),
    };
    let mut facts = vec![
        ("Caller", plain(&who)),
        ("Server", plain(&approval.server)),
        ("Tool", plain(&approval.tool)),
        ("Arguments, masked", plain(&arguments)),
    ];
    let further = shown.map_or(&[][..], |shown| &shown.further);
    if !further.is_empty() {
        facts.push(("Further parameters", plain(&further.join(", "))));
    }
    facts.push(("Rule", plain(&rules(approval))));
    if let Some(reason) = reason {
        facts.push(("Reason", cut(reason.to_owned())));
    }
    facts.push(("Until", approval.until.to_string()));
    facts.push(("SHA-256 of the arguments", approval.arguments.clone()));
    facts.push(("Id", approval.id.clone()));
    facts
}

/// The rules that ask.
fn rules(approval: &Approval) -> String {
    approval.rules().collect::<Vec<_>>().join(", ")
}

/// Why they do, as they say themselves.
pub fn why_asked(set: &PolicySet, approval: &Approval) -> Option<String> {
    let rules = approval.rules().filter_map(|rule| set.rule(rule));
    let reasons: Vec<&str> = rules.filter_map(|rule| rule.reason.as_deref()).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// Letters that everybody reads alike, and no more of them than fit.
fn plain(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        match letter {
            ' '..='~' => out.push(letter),
            other => out.extend(other.escape_unicode()),
        }
    }
    cut(out)
}

fn cut(text: String) -> String {
    match text.char_indices().nth(LONGEST) {
        None => text,
        Some((end, _)) => {
            let kept = text.get(..end).unwrap_or_default();
            format!("{kept} ... CUT; `exeat approvals` shows more")
        }
    }
}

/// The message.
pub(super) fn write(
    approving: &Approving,
    webhook: &Webhook,
    approval: &Approval,
    shown: &Shown,
    reason: Option<&str>,
) -> String {
    let link = |verdict| {
        let token = approving
            .links
            .token(approval, verdict, &webhook.approver.user);
        format!("{}/approvals/{token}", approving.console)
    };
    let (approve, deny) = (link(Verdict::Approve), link(Verdict::Deny));
    let facts = facts(approval, Some(shown), reason);
    let sections = facts.iter().map(|(heading, text)| {
        json!({ "type": "section", "text": text_of(&format!("{heading}: {text}")) })
    });
    let mut blocks =
        vec![json!({ "type": "header", "text": text_of("A call waits for an approval") })];
    blocks.extend(sections);
    blocks.push(json!({ "type": "actions", "elements": [
        { "type": "button", "text": text_of("Approve"), "style": "primary", "url": approve },
        { "type": "button", "text": text_of("Deny"), "style": "danger", "url": deny },
    ] }));
    // For notifications, and for receivers that show no blocks.
    let text = format!(
        "A call of {} of {} waits for an approval until {} (rule {}): <{approve}|approve>, <{deny}|deny>",
        code(&approval.tool),
        code(&approval.server),
        approval.until,
        code(&rules(approval)),
    );
    json!({ "text": text, "blocks": blocks }).to_string()
}

/// A text in which no letter means anything else.
fn text_of(text: &str) -> Value {
    json!({ "type": "plain_text", "text": text, "emoji": false })
}

/// A name where letters have meanings: no mention, no link, no emphasis.
fn code(name: &str) -> String {
    let name = name
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('`', "'");
    format!("`{name}`")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::config::HttpsUrl;
    use crate::decide::approvals::{Approver, Links};

    fn approving() -> Approving {
        let approver = Approver {
            uid: 7,
            user: "dana".into(),
        };
        let url = HttpsUrl::parse("https://hooks.example/services/SECRET").unwrap();
        let webhook = Webhook::new(approver, url, false, Duration::from_secs(1));
        assert!(!format!("{webhook:?}").contains("SECRET"), "{webhook:?}");
        Approving {
            links: Links::new(&[1; 32]),
            console: "https://console.example".into(),
            webhooks: vec![webhook],
        }
    }

    #[test]
    fn nothing_that_the_caller_wrote_is_more_than_text() {
        let approving = approving();
        let mut approval = Approval::for_tests("0123456789ab");
        approval.tool = "<!channel>`*pay*&".into();
        let long = "x".repeat(5000);
        let shown = Shown {
            arguments: json!({ "note": "<https://evil.example|ok> \u{202e}@channel", "z": long }),
            further: vec!["requestState".into()],
            subject: Some("a\u{430}gent".into()),
            names: BTreeSet::new(),
        };
        let text = write(
            &approving,
            &approving.webhooks[0],
            &approval,
            &shown,
            Some("too much"),
        );
        let message: Value = serde_json::from_str(&text).unwrap();
        let plainly = message["text"].as_str().unwrap();
        assert!(
            plainly.contains("`&lt;!channel&gt;'*pay*&amp;`"),
            "{plainly}"
        );
        assert_eq!(plainly.matches('<').count(), 2, "{plainly}");
        let blocks = message["blocks"].as_array().unwrap();
        let mut buttons = Vec::new();
        for block in blocks {
            if block["type"] == "actions" {
                buttons.extend(block["elements"].as_array().unwrap().clone());
                continue;
            }
            let text = &block["text"];
            assert_eq!(text["type"], "plain_text", "{block}");
            let text = text["text"].as_str().unwrap();
            assert!(text.is_ascii() && text.len() < 3000, "{text}");
        }
        let all = message["blocks"].to_string();
        for part in [
            "alice (1000)",
            "shown to be a\\\\u{430}gent",
            "bank",
            "ask",
            "too much",
            "CUT",
            "\\\\u{202e}",
        ] {
            assert!(all.contains(part), "{part}: {all}");
        }
        let start = "https://console.example/approvals/0123456789ab/";
        for (button, verdict) in buttons.iter().zip(["approve", "deny"]) {
            let url = button["url"].as_str().unwrap();
            assert!(url.starts_with(&format!("{start}{verdict}/dana/")), "{url}");
        }
        assert!(!text.contains("SECRET"));
    }
}
