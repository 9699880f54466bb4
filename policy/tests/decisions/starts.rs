//! Who starts which server, and with what; and what others start.

use exeat_policy::{
    Action, Caller, Effect, Reason, Request, Timestamp, Workload, evaluate, ports_for, ranges,
    reachable,
};

use super::BASE;
use crate::support::{NOW, ask, call, connect, host, http, name, policy, said, user};

#[test]
fn what_a_host_started_without_exeat_may_nothing() {
    for mode in ["enforce", "observe"] {
        let set = policy(&format!("mode: {mode}\n{BASE}"));
        let caller = Caller {
            workload: Some(Workload::Unregistered("claude")),
            user: Some("dave"),
            fetching: true,
            token: None,
            certificate: None,
            known_as: &[],
        };
        let github = name("api.github.com");
        let actions = [
            Action::Run {
                server: "github",
                extra_args: &[],
            },
            Action::Resolve { name: &github },
            connect(&github, 443),
            http(&github, "GET", "/"),
        ];
        for action in actions {
            let verdict = ask(&set, caller, action);
            assert_eq!(verdict.effect, Effect::Deny, "{action:?}");
            assert_eq!(verdict.reason, Reason::Unregistered, "{action:?}");
        }
        assert!(ranges(&set, Workload::Unregistered("claude")).is_empty());
        assert!(ports_for(&set, caller, &github).is_empty());
    }
    let set = policy(BASE);
    let caller = Caller {
        workload: Some(Workload::Unregistered("claude")),
        user: Some("dave"),
        fetching: false,
        token: None,
        certificate: None,
        known_as: &[],
    };
    let verdict = ask(&set, caller, call("github", "get_x"));
    assert_eq!(
        said(&verdict),
        "deny: an mcp server that its host started without exeat"
    );
}

#[test]
fn starting_servers() {
    let set = policy(BASE);
    let table = [
        (
            user("dave"),
            "github",
            "allow: follows from reaching the server",
        ),
        (
            host("claude"),
            "github",
            "allow: follows from reaching the server",
        ),
        (
            user("eve"),
            "github",
            "deny: the caller may not reach the server",
        ),
        // Observing lets calls pass, not processes start.
        (
            user("eve"),
            "trial",
            "deny: the caller may not reach the server",
        ),
    ];
    for (caller, server, expected) in table {
        assert_eq!(
            said(&ask(
                &set,
                caller,
                Action::Run {
                    server,
                    extra_args: &[]
                }
            )),
            expected,
            "{caller:?} {server}"
        );
    }
    let strict = policy(&format!("strict_review: true\n{BASE}"));
    let run = Action::Run {
        server: "github",
        extra_args: &[],
    };
    assert_eq!(
        ask(&strict, user("dave"), run).reason,
        Reason::ReviewOverdue
    );
    assert_eq!(
        ask(&strict, user("dave"), call("github", "get_x")).reason,
        Reason::ReviewOverdue
    );
    let early = Timestamp::from_seconds(1_795_219_200 - 86_401);
    let request = Request {
        caller: user("dave"),
        action: run,
        now: early,
        counts: &[],
    };
    assert_eq!(evaluate(&strict, &request).effect, Effect::Allow);
}

#[test]
fn what_is_added_to_a_server_is_what_its_register_covers() {
    let set = policy(
        "servers:
  closed: { launch: { command: a } }
  open: { launch: { command: a, extra_args: ['*'] } }
  some: { launch: { command: a, extra_args: ['/srv/*', '--level=?', --ro, '/opt/../srv/x'] } }
identities: { dave: { user: dave } }
rules: [{ id: all, effect: allow }]
",
    );
    let climbs = "/srv/../etc/shadow";
    let table: &[(&str, &[&str], bool)] = &[
        ("closed", &[], true),
        ("closed", &[""], false),
        ("closed", &["--ro"], false),
        ("open", &["", "--x", climbs, "a\nb"], true),
        ("some", &[], true),
        ("some", &["/srv/a", "--ro", "--level=3", "/srv/b"], true),
        ("some", &["/srv/a", "--rw"], false),
        ("some", &["--level=10"], false),
        ("some", &["--ro", climbs], false),
        ("some", &["/srv/.."], false),
        ("some", &["/srv/..hidden"], true),
        ("some", &["/opt/../srv/x"], true),
    ];
    for (server, added, allowed) in table {
        let extra_args: Vec<String> = added.iter().map(|&word| word.to_owned()).collect();
        let action = Action::Run {
            server,
            extra_args: &extra_args,
        };
        let expected = if *allowed {
            "allow: a rule allows it (all)"
        } else {
            "deny: the server's `extra_args` do not cover what is added"
        };
        let verdict = ask(&set, user("dave"), action);
        assert_eq!(said(&verdict), expected, "{server} {added:?}");
    }
}

#[test]
fn who_may_start_or_talk_to_a_server() {
    const POLICY: &str = "servers:
  run: { launch: { command: x } }
  shut: { launch: { command: x } }
  far: { url: 'https://far.example/mcp' }
hosts: { agent: { match: { exe: /usr/bin/agent }, servers: [run, far] } }
identities: { dave: { user: dave } }
rules:
  - { id: dave, who: [dave], servers: [run, shut], effect: allow }
  - { id: shut, servers: [shut], effect: deny }
";
    let set = policy(POLICY);
    let may = |set: &_, caller| {
        ["run", "shut", "far", "other"].map(|server| reachable(set, caller, server, NOW))
    };
    assert_eq!(may(&set, user("dave")), [true, false, false, false]);
    assert_eq!(may(&set, user("eve")), [false; 4]);
    assert_eq!(may(&set, host("agent")), [true, false, true, false]);
    // Where calls are only observed, nothing is started that may not be.
    let observed = policy(&format!("mode: observe\n{POLICY}"));
    assert_eq!(may(&observed, user("eve")), [false, false, true, true]);
}
