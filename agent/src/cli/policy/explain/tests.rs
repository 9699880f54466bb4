//! What the options ask, and how the answer looks.

use clap::Parser as _;

use super::*;
use crate::cli::args::{Cli, Command as Commands, PolicyCommand};
use crate::control::reply::{Considered, Tested};

fn asked(line: &str) -> Result<Question, String> {
    let words = ["exeat", "policy", "explain"]
        .into_iter()
        .chain(line.split_whitespace());
    let Commands::Policy(PolicyCommand::Explain(arguments)) =
        Cli::try_parse_from(words).unwrap().command
    else {
        panic!("{line}")
    };
    question(&arguments).map_err(|error| error.message)
}

#[test]
fn options_are_questions() {
    let json = |line: &str| serde_json::to_string(&asked(line).unwrap()).unwrap();
    for (line, expected) in [
        (
            "--user dave --server github --tool create_issue",
            r#"{"user":"dave","action":{"call":{"server":"github","method":"tools/call","name":"create_issue"}}}"#,
        ),
        (
            "--host claude --server github --method resources/read --name file:///x",
            r#"{"caller":{"host":"claude"},"action":{"call":{"server":"github","method":"resources/read","name":"file:///x"}}}"#,
        ),
        (
            r#"--server github --tool pay --args {"amount":9007199254740993}"#,
            r#"{"action":{"call":{"server":"github","method":"tools/call","name":"pay","arguments":"{\"amount\":9007199254740993}"}}}"#,
        ),
        (
            "--server github --tool look --hint readOnlyHint=true --hint openWorldHint=false",
            r#"{"action":{"call":{"server":"github","method":"tools/call","name":"look","hints":{"read_only":true,"open_world":false}}}}"#,
        ),
        (
            "--server github --fetching --request GET https://packages.example/x --upgrade",
            r#"{"caller":{"server":"github"},"fetching":true,"action":{"request":{"method":"GET","url":"https://packages.example/x","upgrade":true}}}"#,
        ),
        (
            "--user dave --server github",
            r#"{"user":"dave","action":{"run":{"name":"github"}}}"#,
        ),
        (
            "--server github --request GET https://api.github.com/user",
            r#"{"caller":{"server":"github"},"action":{"request":{"method":"GET","url":"https://api.github.com/user"}}}"#,
        ),
        (
            "--host claude --connect [::1]:5432",
            r#"{"caller":{"host":"claude"},"action":{"connect":{"host":"[::1]","port":5432,"protocol":"tcp"}}}"#,
        ),
        (
            "--server github --udp 10.0.0.1:53",
            r#"{"caller":{"server":"github"},"action":{"connect":{"host":"10.0.0.1","port":53,"protocol":"udp"}}}"#,
        ),
        (
            "--issuer https://i.example --subject ann --claim groups=a --claim tenant=x=y --claim groups=b --server s --tool t",
            r#"{"token":{"issuer":"https://i.example","subject":"ann","claims":"{\"groups\":[\"a\",\"b\"],\"tenant\":\"x=y\"}"},"action":{"call":{"server":"s","method":"tools/call","name":"t"}}}"#,
        ),
        (
            "--authority corp --uri spiffe://a --uri spiffe://b --common-name c --server s --tool t",
            r#"{"certificate":{"authority":"corp","uri":["spiffe://a","spiffe://b"],"common_name":"c"},"action":{"call":{"server":"s","method":"tools/call","name":"t"}}}"#,
        ),
    ] {
        assert_eq!(json(line), expected, "{line}");
    }
}

#[test]
fn what_is_left_open_is_asked_for() {
    for (line, expected) in [
        ("--user dave", "give `--server`: whom is it for?"),
        (
            "--request GET https://x.example/",
            "give `--server` or `--host`: who sends it?",
        ),
        (
            "--host a --server b --connect x:1",
            "give `--host` or `--server`, not both: who sends it?",
        ),
        (
            "--server b --args {}",
            "give `--tool` or `--method`: whose arguments are these?",
        ),
        (
            "--server b --connect x:1 --args {}",
            "`--args` are those of a call: give `--tool` or `--method`",
        ),
        (
            "--subject ann --server b --tool x",
            "give `--issuer`: whose token is it?",
        ),
        (
            "--issuer i --claim x --server b --tool x",
            "read `x` as a claim: write `NAME=VALUE`",
        ),
        (
            "--server b --tool x --hint readOnly=true",
            "read `readOnly=true` as a hint: write `readOnlyHint=true`, or `destructiveHint`, or `openWorldHint`",
        ),
        (
            "--server b --tool x --hint readOnlyHint=yes",
            "read `readOnlyHint=yes` as a hint: write `readOnlyHint=true`, or `destructiveHint`, or `openWorldHint`",
        ),
        (
            "--server b --tool x --fetching",
            "`--fetching` is about what leaves: give `--request`, `--connect` or `--udp`",
        ),
        (
            "--server b --connect x",
            "read `x` as a destination: write `host:port`",
        ),
        (
            "--server b --connect x:99999",
            "read `x:99999` as a destination: write `host:port`",
        ),
    ] {
        assert_eq!(asked(line).unwrap_err(), expected, "{line}");
    }
}

/// The whole of a token's claims out of a file, which says whose it is.
#[test]
fn claims_out_of_a_file() {
    let folder = tempfile::TempDir::new().unwrap();
    let asked = |claims: &str, more: &str| {
        let file = folder.path().join("claims.json");
        std::fs::write(&file, claims).unwrap();
        let file = file.display();
        asked(&format!("--token-claims {file} {more} --server s --tool t"))
    };
    let claims = r#"{"iss":"i","sub":"ann","roles":{"x":[9007199254740993]}}"#;
    let token = asked(claims, "").unwrap().token.unwrap();
    assert_eq!(
        (&*token.issuer, token.subject.as_deref()),
        ("i", Some("ann"))
    );
    assert_eq!(token.claims.unwrap().0, claims);
    let given = asked("{}", "--issuer j").unwrap().token.unwrap();
    assert_eq!((&*given.issuer, given.subject), ("j", None));
    for (claims, why) in [
        ("[]", "no JSON object"),
        ("{", "as claims: "),
        ("{}", "give `--issuer`"),
    ] {
        let error = asked(claims, "").unwrap_err();
        assert!(error.contains(why), "{claims}: {error}");
    }
}

#[test]
fn an_answer() {
    let explanation = Explanation {
        effect: "deny".to_owned(),
        mode: "enforce".to_owned(),
        would: None,
        rule: Some("no-shell-tricks".to_owned()),
        reason: "a rule denies it: destructive command in an argument".to_owned(),
        identities: vec!["dave".to_owned()],
        class: Some("write".to_owned()),
        fingerprint: "ab".to_owned(),
        considered: vec![
            Considered {
                subject: "rule `no-shell-tricks`".to_owned(),
                place: Some("policy.d/a.yaml:12:5".to_owned()),
                matched: true,
                why: "matched".to_owned(),
                tests: vec![Tested {
                    test: "any: true, matches: 'rm'".to_owned(),
                    holds: Some(true),
                    why: "holds".to_owned(),
                }],
            },
            Considered {
                subject: "rule `readers`".to_owned(),
                place: Some("policy.d/b.yaml:3:5".to_owned()),
                matched: false,
                why: "is about other callers".to_owned(),
                tests: Vec::new(),
            },
        ],
    };
    insta::assert_snapshot!(text(&explanation, false, Painter::default()));
    let observed = Explanation {
        effect: "allow".to_owned(),
        mode: "observe".to_owned(),
        would: Some("deny by rule `no-shell-tricks`: a rule denies it".to_owned()),
        rule: None,
        considered: Vec::new(),
        ..explanation
    };
    insta::assert_snapshot!(text(&observed, true, Painter::default()));
}
