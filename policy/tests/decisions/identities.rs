//! Who a caller is: by its Unix user, by its token, by both at once.

use exeat_policy::{
    AsJson as _, Caller, Certificate, CertifiedName, NameKind, Token, callable, limit_keys,
};

use crate::naive::arguments::Tree::{self, List, Map, Number, Text};
use crate::support::{NOW, ask, call, policy, said};

const POLICY: &str = r#"
servers: { s: { url: "https://s.example/mcp" } }
identities:
  agent: { jwt: { issuer: "https://a.example", claims: { appid: 7f3c0a } } }
  analysts: { jwt: { issuer: "https://a.example", claims: { groups: [analysts, auditors], tenant: t1 } } }
  nested: { jwt: { issuer: "https://a.example", claims: { /realm/roles: admin, "https://a.example/kind": k } } }
  anyone: { jwt: { issuer: "https://b.example" } }
  dave: { user: dave }
rules:
  - { id: by-agent, who: [agent], tools: [t1], effect: allow }
  - { id: by-analysts, who: [analysts], tools: [t2], effect: allow }
  - { id: by-nested, who: [nested], tools: [t3], effect: allow }
  - { id: by-anyone, who: [anyone], tools: [t4], effect: allow }
  - { id: by-dave, who: [dave], tools: [t5], effect: allow }
  - { id: not-dave, who: [dave], tools: [t6], effect: deny }
  - { id: all-t6, tools: [t6], effect: allow }
"#;

fn text(text: &'static str) -> Tree {
    Text(text)
}

fn caller<'a>(user: Option<&'a str>, issuer: &'a str, claims: &'a Tree) -> Caller<'a> {
    Caller {
        user,
        token: Some(Token {
            issuer,
            subject: "sub",
            claims: claims.as_json(),
        }),
        ..Caller::default()
    }
}

#[test]
fn claims_are_matched_whole_and_byte_by_byte() {
    let set = policy(POLICY);
    let one = |claim, value| Map(vec![(claim, value)]);
    let groups = |groups: Tree| Map(vec![("groups", groups), ("tenant", text("t1"))]);
    let nested = |roles: Tree| {
        Map(vec![
            ("realm", Map(vec![("roles", roles)])),
            ("https://a.example/kind", text("k")),
        ])
    };
    let a = "https://a.example";
    let table = [
        ("t1", a, one("appid", text("7f3c0a")), true),
        ("t1", a, one("appid", text("7f3c0a ")), false),
        ("t1", a, one("appid", text("7F3C0A")), false),
        (
            "t1",
            a,
            one("appid", List(vec![text("x"), text("7f3c0a")])),
            true,
        ),
        (
            "t1",
            a,
            one("appid", List(vec![List(vec![text("7f3c0a")])])),
            false,
        ),
        ("t1", a, one("appid", Number("7")), false),
        ("t1", a, one("appid", one("7f3c0a", text("7f3c0a"))), false),
        ("t1", a, one("azp", text("7f3c0a")), false),
        (
            "t1",
            "https://b.example",
            one("appid", text("7f3c0a")),
            false,
        ),
        (
            "t1",
            "https://a.example/",
            one("appid", text("7f3c0a")),
            false,
        ),
        ("t2", a, groups(text("auditors")), true),
        ("t2", a, groups(List(vec![text("analysts")])), true),
        ("t2", a, groups(List(vec![text("analyst")])), false),
        ("t2", a, one("groups", text("analysts")), false),
        (
            "t3",
            a,
            nested(List(vec![text("user"), text("admin")])),
            true,
        ),
        ("t3", a, one("realm", text("admin")), false),
        ("t3", a, one("/realm/roles", text("admin")), false),
        ("t4", "https://b.example", Map(vec![]), true),
        ("t4", a, Map(vec![]), false),
        // A token adds no Unix user, whatever it claims.
        ("t5", a, one("user", text("dave")), false),
    ];
    for (tool, issuer, claims, allowed) in table {
        let told = said(&ask(&set, caller(None, issuer, &claims), call("s", tool)));
        assert_eq!(
            told.starts_with("allow"),
            allowed,
            "{tool} {issuer} {claims:?}: {told}"
        );
    }
}

#[test]
fn a_caller_is_everything_that_is_attested() {
    let set = policy(POLICY);
    let claims = Map(vec![("appid", text("7f3c0a"))]);
    let both = caller(Some("dave"), "https://a.example", &claims);
    for tool in ["t1", "t5"] {
        let verdict = ask(&set, both, call("s", tool));
        assert!(said(&verdict).starts_with("allow"), "{tool}");
        assert_eq!(
            verdict
                .identities
                .iter()
                .map(|name| &**name)
                .collect::<Vec<_>>(),
            ["agent", "dave"]
        );
    }
    // A token lifts nothing that holds of its bearer's user.
    let told = said(&ask(&set, both, call("s", "t6")));
    assert_eq!(told, "deny: a rule denies it (not-dave)");
}

/// Who has several identities is one person by whichever is shown.
#[test]
fn a_person_has_several_identities() {
    let set = policy(
        "servers: { s: { url: 'https://s.example/mcp' } }
identities:
  ann: { user: ann, person: ann }
  ann-token: { jwt: { issuer: i, claims: { sub: 7f3c } }, person: ann }
  ann-card: { certificate: { authority: corp, common_name: Ann }, person: ann }
  bob: { user: bob }
  both: { user: 'ann*', person: someone }
rules: [{ id: r, tools: [t], effect: allow }]
",
    );
    let persons = |caller: &Caller<'_>| {
        let persons = set.persons(caller);
        persons.into_iter().map(|name| &**name).collect::<Vec<_>>()
    };
    let claims = Map(vec![("sub", text("7f3c"))]);
    assert_eq!(persons(&caller(None, "i", &claims)), ["ann"]);
    assert_eq!(persons(&caller(Some("bob"), "i", &claims)), ["ann"]);
    assert_eq!(
        persons(&caller(Some("ann"), "j", &claims)),
        ["ann", "someone"]
    );
    let shown = names(&[(NameKind::CommonName, "Ann")]);
    assert_eq!(persons(&certified("corp", "CN=Ann", &shown)), ["ann"]);
    assert_eq!(persons(&certified("lab", "CN=Ann", &shown)), [""; 0]);
}

#[test]
fn a_tokens_subject_is_counted_by_its_issuer() {
    let set = policy(&format!(
        "{POLICY}limits: [{{ per: [identity], rate: 60/min }}]\n"
    ));
    let claims = Map(vec![("appid", text("7f3c0a"))]);
    let key = |caller| {
        let request = exeat_policy::Request {
            caller,
            action: call("s", "t1"),
            now: NOW,
            counts: &[],
        };
        limit_keys(&set, &request).remove(0).key
    };
    let of = |user, issuer, subject| {
        let mut caller = caller(user, issuer, &claims);
        if let Some(token) = &mut caller.token {
            token.subject = subject;
        }
        key(caller)
    };
    let a = of(None, "https://a.example", "x");
    assert_eq!(a, of(Some("dave"), "https://a.example", "x"));
    assert_ne!(a, of(None, "https://a.example", "y"));
    assert_ne!(a, of(None, "https://b.example", "x"));
    assert_ne!(
        of(None, "a", "b subject=1:c"),
        of(None, "a subject=1:b", "c")
    );
}

const CERTIFICATES: &str = r#"
servers: { s: { url: "https://s.example/mcp" } }
identities:
  agents: { certificate: { authority: corp, uri: ["spiffe://corp.example/agents/*", "spiffe://corp.example/bot"] } }
  ann: { certificate: { authority: corp, email: ann@corp.example, common_name: Ann } }
  build: { certificate: { authority: corp, dns: "Build-?.corp.example" } }
  anyone: { certificate: { authority: lab } }
  dave: { user: dave }
rules:
  - { id: by-agents, who: [agents], tools: [t1], effect: allow }
  - { id: by-ann, who: [ann], tools: [t2], effect: allow }
  - { id: by-build, who: [build], tools: [t3], effect: allow }
  - { id: by-anyone, who: [anyone], tools: [t4], effect: allow }
  - { id: by-dave, who: [dave], tools: [t5], effect: allow }
"#;

type Names<'a> = &'a [(NameKind, &'a str)];

fn names(names: Names<'_>) -> Vec<CertifiedName> {
    let name = |(kind, text): &(NameKind, &str)| CertifiedName {
        kind: *kind,
        text: (*text).to_owned(),
    };
    names.iter().map(name).collect()
}

fn certified<'a>(authority: &'a str, subject: &'a str, names: &'a [CertifiedName]) -> Caller<'a> {
    Caller {
        certificate: Some(Certificate {
            authority,
            subject,
            names,
        }),
        ..Caller::default()
    }
}

#[test]
fn names_of_certificates_are_matched_by_authority_kind_and_pattern() {
    use NameKind::{CommonName, Dns, Email, Uri};
    let set = policy(CERTIFICATES);
    assert!(set.asks_certificates() && !set.names_issuers());
    let agent = (Uri, "spiffe://corp.example/agents/a");
    let table: [(&str, &str, Names<'_>, bool); 16] = [
        ("t1", "corp", &[agent], true),
        ("t1", "corp", &[(Uri, "spiffe://corp.example/bot")], true),
        ("t1", "corp", &[(Uri, "spiffe://corp.example/bots")], false),
        ("t1", "corp", &[(Uri, "SPIFFE://corp.example/bot")], false),
        ("t1", "lab", &[agent], false),
        ("t1", "Corp", &[agent], false),
        ("t1", "corp", &[(CommonName, agent.1)], false),
        ("t1", "corp", &[(Dns, agent.1), (Email, agent.1)], false),
        // All of them, each by one of the certificate's.
        (
            "t2",
            "corp",
            &[(Email, "ann@corp.example"), (CommonName, "Ann")],
            true,
        ),
        ("t2", "corp", &[(Email, "ann@corp.example")], false),
        (
            "t2",
            "corp",
            &[(CommonName, "Ann"), (Email, "bob@corp.example")],
            false,
        ),
        ("t3", "corp", &[(Dns, "build-1.corp.example")], true),
        ("t3", "corp", &[(Dns, "build-12.corp.example")], false),
        ("t4", "lab", &[(CommonName, "x")], true),
        ("t4", "corp", &[(CommonName, "x")], false),
        (
            "t5",
            "corp",
            &[(CommonName, "dave"), (Email, "dave")],
            false,
        ),
    ];
    for (tool, authority, shown, allowed) in table {
        let shown = names(shown);
        let told = said(&ask(
            &set,
            certified(authority, "x", &shown),
            call("s", tool),
        ));
        assert_eq!(
            told.starts_with("allow"),
            allowed,
            "{tool} {authority} {shown:?}: {told}"
        );
    }
}

#[test]
fn a_certificates_subject_is_counted_by_its_authority() {
    let set = policy(&format!(
        "{CERTIFICATES}limits: [{{ per: [identity], rate: 60/min }}]\n"
    ));
    let key = |caller| {
        let request = exeat_policy::Request {
            caller,
            action: call("s", "t1"),
            now: NOW,
            counts: &[],
        };
        limit_keys(&set, &request).remove(0).key
    };
    let a = key(certified("corp", "x", &[]));
    assert_ne!(a, key(certified("corp", "y", &[])));
    assert_ne!(a, key(certified("lab", "x", &[])));
    let user = Caller {
        user: Some("dave"),
        ..certified("corp", "x", &[])
    };
    assert_eq!(a, key(user), "whoever shows it");
    let claims = Map(vec![]);
    let both = Caller {
        token: caller(None, "corp", &claims).token,
        ..user
    };
    let token = key(caller(None, "corp", &claims));
    assert_eq!(token, key(both), "a token's subject comes first");
    assert_ne!(token, key(certified("corp", "sub", &[])));
}

/// What a role may call: what all of its members may, by the role or by rules about everyone.
#[test]
fn what_all_of_a_role_may_call() {
    let set = policy(
        "servers:
  github: { url: 'https://g.example/', tools: { 'get_*': read, 'delete_*': destructive } }
  linear: { url: 'https://l.example/' }
hosts: { agent: { servers: [github] } }
identities: { ann: { user: ann }, bob: { user: bob } }
roles:
  reader: { members: [ann, bob], grants: [{ servers: [github, linear], classes: [read] }] }
  bots: { members: [ann, agent], grants: [{ servers: [linear, github], tools: ['*'] }] }
rules:
  - { id: nobody, servers: [github], tools: [get_secret], effect: deny }
  - { id: not-ann, who: [ann], servers: [github], tools: [get_a], effect: deny }
  - { id: not-readers, who: [reader], servers: [github], tools: [get_b], effect: deny }
  - { id: some, servers: [github], tools: [get_c], args: [{ field: /n, min: 5 }], effect: deny }
  - { id: own, servers: [linear], tools: [own], when: args.of == caller.user, effect: allow }
  - { id: asked, who: [reader], servers: [github], tools: [delete_x], effect: approve }
  - { id: trial, servers: [github], tools: [get_d], effect: deny, mode: observe }
",
    );
    let members = |role: &str| {
        let role = set.roles().iter().find(|one| &*one.name == role);
        role.unwrap().members.clone()
    };
    let by = |role, server, tool| {
        callable(&set, &members(role), server, tool, None, NOW).map_or("-", |rule| rule)
    };
    for (tool, reader, bots) in [
        ("get_x", "reader/1", "bots/1"),
        ("get_secret", "-", "-"),
        // What is denied to one of them is not what all may.
        ("get_a", "-", "-"),
        ("get_b", "-", "-"),
        ("get_c", "reader/1", "bots/1"),
        ("get_d", "reader/1", "bots/1"),
        ("delete_x", "asked", "asked"),
        ("delete_y", "-", "bots/1"),
    ] {
        assert_eq!(
            (by("reader", "github", tool), by("bots", "github", tool)),
            (reader, bots),
            "{tool}"
        );
    }
    assert_eq!(by("reader", "linear", "own"), "own");
    assert_eq!(
        by("reader", "linear", "get_x"),
        "-",
        "no hints, so not known to read"
    );
    assert_eq!(
        by("bots", "linear", "get_x"),
        "-",
        "the host does not list it"
    );
    assert_eq!(by("bots", "nowhere", "x"), "-");
}
