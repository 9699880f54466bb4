//! Roles, approvals, dry runs, and rules that are only observed.

use exeat_policy::{Action, AsJson as _, Caller, PolicySet, listable};

use crate::naive::arguments::Tree;
use crate::support::{NOW, ask, call, host, mcp, policy, said, user};

const SET: &str = "
servers:
  bank: { url: 'https://bank.example/', tools: { 'get_*': read, 'set_*': write, pay: destructive } }
  other: { url: 'https://other.example/' }
  trial: { url: 'https://trial.example/', mode: observe }
hosts: { claude: { servers: [bank] } }
identities: { ann: { user: ann }, bob: { user: bob }, eve: { user: eve } }
roles:
  clerk: { members: [ann, claude], grants: [{ servers: [bank], tools: ['*_account', pay], classes: [read, destructive] }, { servers: [other] }] }
  boss: { members: [bob] }
rules:
  - { id: pay-asks, tools: [pay], effect: approve, approvers: [boss], timeout: 5m }
  - { id: set-runs-dry, who: [boss], servers: [bank], tools: ['set_*'], effect: dry_run }
  - { id: set-is-allowed, who: [boss], servers: [bank], tools: ['set_*', 'get_*'], effect: allow }
  - { id: not-secret, tools: [get_secret_account], effect: deny }
  - { id: try-asking, who: [bob], tools: [get_account], effect: approve, mode: observe }
  - { id: old, who: [eve], effect: allow, expires: 2026-11-20 }
";

#[test]
fn the_strongest_effect_counts() {
    let set = policy(SET);
    for (caller, action, expected) in [
        (
            user("ann"),
            call("bank", "get_account"),
            "allow: a role grants it (clerk/1)",
        ),
        (
            user("ann"),
            call("bank", "set_account"),
            "deny: no rule matched",
        ),
        (
            user("ann"),
            call("bank", "get_secret_account"),
            "deny: a rule denies it (not-secret)",
        ),
        (
            user("ann"),
            call("bank", "pay"),
            "approve: a rule asks for an approval (pay-asks)",
        ),
        (
            user("ann"),
            call("other", "anything"),
            "allow: a role grants it (clerk/2)",
        ),
        (
            user("ann"),
            mcp("other", "resources/read", Some("x:")),
            "allow: a role grants it (clerk/2)",
        ),
        (
            user("ann"),
            mcp("bank", "initialize", None),
            "allow: follows from reaching the server",
        ),
        (
            user("eve"),
            call("bank", "get_account"),
            "deny: no rule matched",
        ),
        (
            user("eve"),
            mcp("other", "initialize", None),
            "deny: the caller may not reach the server",
        ),
        (
            host("claude"),
            call("bank", "get_account"),
            "allow: a role grants it (clerk/1)",
        ),
        // A grant reaches no further than the host's list.
        (
            host("claude"),
            call("other", "x"),
            "deny: the host does not list the server",
        ),
        (
            user("bob"),
            call("bank", "set_x"),
            "dry_run: a rule asks for a dry run (set-runs-dry)",
        ),
        (
            user("bob"),
            call("bank", "get_account"),
            "allow: a rule allows it (set-is-allowed); would approve: a rule asks for an approval",
        ),
        (
            user("ann"),
            call("trial", "pay"),
            "allow: a rule asks for an approval (pay-asks); would approve: a rule asks for an approval",
        ),
        (
            Caller::default(),
            call("bank", "get_account"),
            "deny: no rule matched",
        ),
    ] {
        assert_eq!(
            said(&ask(&set, caller, action)),
            expected,
            "{caller:?} {action:?}"
        );
    }
}

#[test]
fn what_waits_for_a_person_is_shown() {
    let set = policy(SET);
    let shown = |caller, tool| listable(&set, caller, "bank", tool, None, NOW);
    assert!(shown(user("ann"), "pay") && shown(user("bob"), "set_x"));
    assert!(!shown(user("ann"), "set_account") && !shown(user("ann"), "get_secret_account"));
}

#[test]
fn what_has_expired_is_warned_of() {
    let set = policy(&SET.replace(
        "'https://other.example/'",
        "'https://other.example/', review_by: 2026-11-01",
    ));
    let warnings: Vec<_> = set.warnings(NOW).iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "p.yaml:5:3: the review of server `other` was due by 2026-11-01",
            "p.yaml:18:5: rule `old` expired on 2026-11-20 and means nothing since",
        ]
    );
}

/// Of rules that ask for an approval all in force are named, wherever they stand; of another effect none.
#[test]
fn every_rule_that_asks_for_an_approval_is_named() {
    let text = "
servers: { bank: { url: 'https://bank.example/' } }
identities: { ann: { user: ann }, bob: { user: bob } }
rules:
  - { id: dry, tools: [pay, look], effect: dry_run }
  - { id: two, who: [ann], tools: [pay, 'p*'], args: [{ field: /n, above: 2 }], effect: approve }
  - { id: tried, tools: [pay], effect: approve, mode: observe }
  - { id: old, tools: [pay], effect: approve, expires: 2026-11-20 }
  - { id: one, tools: ['p*', '*y'], effect: approve, approvers: [ann] }
  - { id: three, tools: [pay], when: args.n > 3, effect: approve }
  - { id: four, tools: [pay, '*y'], effect: approve, approvers: [bob] }
LIMIT";
    let asking = |set: &PolicySet, tool, n: &str| -> Vec<String> {
        let arguments = Tree::Map(vec![("n", Tree::Number(n.to_owned().leak()))]);
        let action = Action::Mcp {
            server: "bank",
            method: "tools/call",
            name: Some(tool),
            arguments: Some(arguments.as_json()),
            hints: None,
            session: None,
        };
        let asked = ask(set, user("ann"), action);
        asked.asking.iter().map(ToString::to_string).collect()
    };
    let set = policy(&text.replace("LIMIT", ""));
    assert_eq!(asking(&set, "pay", "1"), ["one", "four"]);
    assert_eq!(asking(&set, "pay", "3"), ["two", "one", "four"]);
    assert_eq!(asking(&set, "pay", "4"), ["two", "one", "three", "four"]);
    assert!(asking(&set, "look", "4").is_empty());
    // What is denied or only observed asks nobody.
    let full = "limits: [{ per: [server], calls: 1 }]";
    let full = policy(&text.replace("LIMIT", full));
    assert!(asking(&full, "pay", "4").is_empty(), "no count was given");
    let observed = policy(&text.replace("LIMIT", "mode: observe"));
    assert!(asking(&observed, "pay", "4").is_empty());
}
