//! The pages of links, without scripts, styles or anything from elsewhere.

use std::fmt::Write as _;

use super::form::LETTERS;
use crate::channel::Approval;
use crate::decide::approvals::{Link, Shown, Verdict};
use crate::flow::facts;

/// A page that says one thing.
pub(super) fn told(text: &str) -> String {
    whole(&format!("<p>{}</p>", escaped(text)))
}

/// A page that shows a call, with the button that decides on it.
pub(super) fn question(
    link: &Link,
    approval: &Approval,
    shown: Option<&Shown>,
    reason: Option<&str>,
) -> String {
    let word = match link.verdict {
        Verdict::Approve => "Approve",
        Verdict::Deny => "Deny",
    };
    let mut body = String::from("<dl>");
    for (heading, text) in facts(approval, shown, reason) {
        // Writing to a string cannot fail.
        write!(
            body,
            "<dt>{heading}</dt><dd><pre>{}</pre></dd>",
            escaped(&text)
        )
        .unwrap_or_default();
    }
    let field = match link.verdict {
        Verdict::Approve => String::new(),
        Verdict::Deny => format!(
            "<p><label>Why, for the caller and the record: <input name=\"reason\" maxlength=\"{LETTERS}\" autocomplete=\"off\"></label></p>"
        ),
    };
    let approver = escaped(&link.approver);
    write!(
        body,
        "</dl><form method=\"post\"><input type=\"hidden\" name=\"confirm\" value=\"yes\">{field}<button>{word} as {approver}</button></form>"
    )
    .unwrap_or_default();
    whole(&body)
}

fn whole(body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Exeat: approval</title></head><body><h1>A call that waits for an approval</h1>{body}</body></html>\n"
    )
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_caller_wrote_is_no_markup() {
        let mut approval = Approval::for_tests("0123456789ab");
        approval.tool = "</pre><script>1</script>'".into();
        let shown = Shown {
            arguments: serde_json::json!({ "a": "<form action=//evil.example><button>\u{202e}" }),
            further: Vec::new(),
            subject: None,
            names: std::collections::BTreeSet::new(),
        };
        let link = Link {
            id: approval.id.clone(),
            verdict: Verdict::Deny,
            approver: "dana".into(),
        };
        let page = question(&link, &approval, Some(&shown), Some("it's <b>much</b>"));
        assert!(!page.contains("<script") && !page.contains("<b>"), "{page}");
        assert_eq!(page.matches("<form").count(), 1, "{page}");
        assert!(
            page.contains("&lt;/pre&gt;&lt;script&gt;1&lt;/script&gt;&#39;"),
            "{page}"
        );
        assert!(
            page.contains("<button>Deny as dana</button>") && page.contains("\\u{202e}"),
            "{page}"
        );
        // Whoever denies may say why.
        assert_eq!(page.matches("name=\"reason\"").count(), 1, "{page}");
        let link = Link {
            verdict: Verdict::Approve,
            ..link
        };
        let page = question(&link, &approval, Some(&shown), None);
        assert!(!page.contains("reason"), "{page}");
    }
}
