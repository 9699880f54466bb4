//! Which claims of tokens a policy reads, and what it says of those that a record leaves out.

use exeat_policy::{Json, List, Members, Token};

use crate::support::policy;

const POLICY: &str = r#"servers: { bank: { launch: { command: /b } } }
identities:
  bot: { jwt: { issuer: a, claims: { app: bot, 'https://corp.example/role': x } } }
  ops: { jwt: { issuer: a, claims: { /realm/*/name: ops, '*': x } } }
  any: { jwt: { issuer: b } }
  dave: { user: dave }
rules:
  - { id: r1, who: [bot], when: caller.claims.of_a == 1, effect: allow }
  - { id: r2, who: [any, dave], when: "has(caller.claims.x.y) && 'z' in caller.claims", effect: allow }
  - { id: r3, who: [any], when: "'g' in caller.claims.groups || caller.claims['a/b'][0] == 2", effect: deny }
  - { id: r4, when: "size(caller.claims) > 2 || caller.claims[tool] == 'x' || caller.claims.orgs.exists(o, o.name == 'y')", effect: deny }
"#;

#[test]
fn what_is_read_of_claims_is_known_beforehand() {
    let set = policy(POLICY);
    let read = |issuer: &str| set.claims_read(issuer).collect::<Vec<_>>();
    // What dave and whoever it may be may show counts for every issuer.
    assert_eq!(read("c"), ["/orgs", "/x/y", "/z"]);
    assert_eq!(
        read("a"),
        [
            "/app",
            "/https:~1~1corp.example~1role",
            "/of_a",
            "/orgs",
            "/realm/*/name",
            "/x/y",
            "/z",
        ]
    );
    assert_eq!(read("b"), ["/a~1b/0", "/groups", "/orgs", "/x/y", "/z"]);
}

/// An object that shows `app`, and may have more.
struct Withheld(Json<'static>);

impl Members for Withheld {
    fn count(&self) -> usize {
        1
    }

    fn at(&self, index: usize) -> Option<(&str, Json<'_>)> {
        (index == 0).then_some(("app", self.0))
    }

    fn get(&self, key: &str) -> Option<Json<'_>> {
        (key == "app").then_some(self.0)
    }

    fn withholds(&self, key: Option<&str>) -> bool {
        key != Some("app")
    }
}

struct Masked;

impl List for Masked {
    fn count(&self) -> usize {
        1
    }

    fn at(&self, _: usize) -> Option<Json<'_>> {
        Some(Json::Unknown)
    }
}

#[test]
fn whose_token_it_was_is_not_guessed() {
    let set = policy(
        "identities:
  all: { jwt: { issuer: a } }
  bot: { jwt: { issuer: a, claims: { app: bot } } }
  both: { jwt: { issuer: a, claims: { dept: x, app: bot } } }
",
    );
    let untold = |claims: Json<'_>| {
        let subject = "s";
        let names = set.identities_untold(&Token {
            issuer: "a",
            subject,
            claims,
        });
        names
            .into_iter()
            .map(|name| &**name)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(untold(Json::Unknown), "bot both");
    assert_eq!(untold(Json::Map(&Withheld(Json::Text("bot")))), "both");
    assert_eq!(
        untold(Json::Map(&Withheld(Json::Text("other")))),
        "",
        "one that is another decides"
    );
    assert_eq!(
        untold(Json::Map(&Withheld(Json::List(&Masked)))),
        "bot both",
        "an element that is masked"
    );
}
