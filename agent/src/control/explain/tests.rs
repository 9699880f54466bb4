//! Questions in, requests out.

use super::*;
use crate::control::command::{Call, ServerShow};
use crate::control::listed::ListedTool;
use crate::decide::unused;

fn ask(action: Action) -> Result<Explanation, QuestionError> {
    let set = policy::compile(&[policy::Source {
        name: "p.yaml".to_owned(),
        text: "version: 1\n".to_owned(),
    }])
    .unwrap();
    let question = Question {
        caller: None,
        user: Some("dave".to_owned()),
        token: None,
        certificate: None,
        fetching: false,
        action,
    };
    answer(
        &set,
        &question,
        Timestamp::from_seconds(1_795_224_773),
        unused,
    )
}

#[test]
fn a_policy_that_says_nothing_denies_everything() {
    for action in [
        Action::Call(Call {
            server: "github".to_owned(),
            method: "tools/call".to_owned(),
            name: Some("create_issue".to_owned()),
            arguments: None,
            hints: None,
        }),
        Action::Request(OutboundRequest {
            method: "GET".to_owned(),
            url: "https://api.example.com/x?y=z".to_owned(),
            upgrade: false,
        }),
        Action::Connect(OutboundConnection {
            host: "[::1]".to_owned(),
            port: 53,
            protocol: Transport::Udp,
        }),
    ] {
        let explained = ask(action).unwrap();
        assert_eq!(explained.effect, "deny");
        assert_eq!(explained.rule, None);
    }
}

const SHOWN: &str = "version: 1
servers: { s: { url: 'https://s.example/' } }
identities:
  analysts: { jwt: { issuer: i, claims: { groups: analysts, sub: ann, iss: i } } }
  robots: { certificate: { authority: corp, dns: '*.bots.example' } }
rules: [{ id: both, who: [analysts, robots], servers: [s], effect: allow }]
";

/// The effect and the identities of ann's token with these claims, and of a certificate for this host.
fn stated(
    token: Option<(&str, &str)>,
    certificate: Option<(&str, &str)>,
    action: Action,
) -> Result<(String, Vec<String>), String> {
    let set = policy::compile(&[policy::Source {
        name: "p.yaml".to_owned(),
        text: SHOWN.to_owned(),
    }])
    .unwrap();
    let question = Question {
        caller: None,
        user: None,
        token: token.map(|(issuer, claims)| StatedToken {
            issuer: issuer.to_owned(),
            subject: Some("ann".to_owned()),
            claims: Some(Arguments(claims.to_owned())),
        }),
        certificate: certificate.map(|(authority, dns)| StatedCertificate {
            authority: authority.to_owned(),
            dns: vec![dns.to_owned()],
            ..StatedCertificate::default()
        }),
        fetching: false,
        action,
    };
    answer(&set, &question, Timestamp::from_seconds(0), unused)
        .map(|explained| (explained.effect, explained.identities))
        .map_err(|error| error.to_string())
}

fn call() -> Action {
    Action::Call(Call {
        server: "s".to_owned(),
        method: "tools/call".to_owned(),
        name: Some("t".to_owned()),
        arguments: None,
        hints: None,
    })
}

#[test]
fn what_a_caller_would_show() {
    let allowed = |who: &str| Ok(("allow".to_owned(), vec![who.to_owned()]));
    let analysts = Some(("i", r#"{"groups":["analysts"]}"#));
    assert_eq!(stated(analysts, None, call()), allowed("analysts"));
    let robot = Some(("corp", "A.bots.example"));
    assert_eq!(stated(None, robot, call()), allowed("robots"));
    assert_eq!(
        stated(Some(("i", "{}")), Some(("corp", "a.example")), call()),
        Ok(("deny".to_owned(), Vec::new()))
    );
}

#[test]
fn what_nobody_could_show_is_said() {
    let run = Action::Run(ServerShow {
        name: "s".to_owned(),
    });
    let other = r#"{"sub":"bob"}"#;
    for (token, certificate, action, why) in [
        (
            Some(("j", "{}")),
            None,
            call(),
            "tokens of `j`; it knows `i`",
        ),
        (Some(("i", "[]")), None, call(), "not a JSON object"),
        (Some(("i", "{")), None, call(), "read the claims"),
        (Some(("i", other)), None, call(), "`sub` of the claims"),
        (
            None,
            Some(("crop", "a")),
            call(),
            "of `crop`; it knows `corp`",
        ),
        (
            Some(("i", "{}")),
            None,
            run,
            "for messages to a server alone",
        ),
    ] {
        let error = stated(token, certificate, action).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn what_cannot_be_asked_is_said() {
    let request = |url: &str| {
        Action::Request(OutboundRequest {
            method: "GET".to_owned(),
            url: url.to_owned(),
            upgrade: false,
        })
    };
    let connect = |host: &str| {
        Action::Connect(OutboundConnection {
            host: host.to_owned(),
            port: 1,
            protocol: Transport::Tcp,
        })
    };
    for action in [
        request("ftp://x"),
        request(""),
        request("https://a b/"),
        connect("a b"),
    ] {
        assert!(ask(action.clone()).is_err(), "{action:?}");
    }
}

/// What a server lists of a tool counts where the register says nothing, as in a live call.
#[test]
fn hints_upgrades_and_fetching_are_what_is_stated() {
    let text = "version: 1
servers:
  s:
    launch: { command: s, fetch: [packages.example] }
    egress: [{ host: ws.example, upgrade: true }, { host: api.example }]
identities: { dave: { user: dave } }
rules: [{ id: reading, who: [dave], servers: [s], tools: { class: [read, external] }, effect: allow }]
";
    let set = policy::compile(&[policy::Source {
        name: "p.yaml".to_owned(),
        text: text.to_owned(),
    }])
    .unwrap();
    let ask = |caller: Option<Caller>, fetching, action| {
        let question = Question {
            caller,
            user: Some("dave".to_owned()),
            token: None,
            certificate: None,
            fetching,
            action,
        };
        let explained = answer(&set, &question, Timestamp::from_seconds(0), unused).unwrap();
        (explained.effect, explained.class)
    };
    let tool = |read_only| {
        let Action::Call(call) = call() else {
            panic!("a call")
        };
        let hints = ListedTool {
            read_only,
            ..ListedTool::default()
        };
        let hints = Some(hints);
        ask(None, false, Action::Call(Call { hints, ..call }))
    };
    let said = |effect: &str, class: &str| (effect.to_owned(), Some(class.to_owned()));
    assert_eq!(tool(Some(true)), said("allow", "read, external"));
    assert_eq!(tool(None), said("deny", "destructive, external"));

    let server = || Some(Caller::Server("s".to_owned()));
    let request = |url: &str, upgrade| {
        Action::Request(OutboundRequest {
            method: "GET".to_owned(),
            url: url.to_owned(),
            upgrade,
        })
    };
    let outcome = |fetching, url, upgrade| ask(server(), fetching, request(url, upgrade)).0;
    assert_eq!(outcome(false, "https://ws.example/", true), "allow");
    assert_eq!(outcome(false, "https://api.example/", false), "allow");
    assert_eq!(outcome(false, "https://api.example/", true), "deny");
    assert_eq!(outcome(false, "https://packages.example/x", false), "deny");
    assert_eq!(outcome(true, "https://packages.example/x", false), "allow");
}
