//! What `exeat servers` shows.

use std::collections::BTreeMap;

use super::*;

fn server(name: &str) -> Server {
    Server {
        name: name.to_owned(),
        purpose: "issues and pull requests".to_owned(),
        owner: "platform@example.com".to_owned(),
        reached: "stdio: npx".to_owned(),
        running: 1,
        mode: "enforce".to_owned(),
        review_by: Some("2027-02-01".to_owned()),
        disconnected: None,
        egress: vec!["https://api.github.com GET,POST /repos/acme/**".to_owned()],
        tools: BTreeMap::from([("get_*".to_owned(), "read".to_owned())]),
        listed: BTreeMap::new(),
    }
}

#[test]
fn a_list() {
    let bare = Server {
        purpose: String::new(),
        owner: String::new(),
        mode: "observe".to_owned(),
        review_by: None,
        ..server("a-much-longer-name")
    };
    insta::assert_snapshot!(list(&[server("github"), bare], Painter::default()));
    insta::assert_snapshot!(list(&[], Painter::default()), @"no server is registered");
}

#[test]
fn one_of_them() {
    insta::assert_snapshot!(one(&server("github"), Painter::default()));
}
