//! Questions in, requests out.

use super::*;
use crate::control::command::Call;

fn ask(action: Action) -> Result<Explanation, QuestionError> {
    let set = policy::compile(&[policy::Source {
        name: "p.yaml".to_owned(),
        text: "version: 1\n".to_owned(),
    }])
    .unwrap();
    let question = Question {
        caller: None,
        user: Some("dave".to_owned()),
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
        }),
        Action::Request(OutboundRequest {
            method: "GET".to_owned(),
            url: "https://api.example.com/x?y=z".to_owned(),
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

#[test]
fn what_cannot_be_asked_is_said() {
    let request = |url: &str| {
        Action::Request(OutboundRequest {
            method: "GET".to_owned(),
            url: url.to_owned(),
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
