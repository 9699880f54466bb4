//! Files in, tools by servers out; and what is no list.

use std::path::PathBuf;

use exeat_policy::{Source, compile};
use serde_json::json;
use tempfile::TempDir;

use super::*;

fn set() -> PolicySet {
    let text = "version: 1
servers: { github: { url: 'https://g.example/' }, linear: { url: 'https://l.example/' } }
";
    compile(&[Source {
        name: "p.yaml".to_owned(),
        text: text.to_owned(),
    }])
    .unwrap()
}

/// A server as `servers show --json` shows it.
fn shown(name: &str, listed: &Value) -> Value {
    let server = Server {
        name: name.to_owned(),
        purpose: String::new(),
        owner: String::new(),
        reached: "stdio".to_owned(),
        running: 0,
        mode: "enforce".to_owned(),
        review_by: None,
        disconnected: None,
        egress: Vec::new(),
        tools: BTreeMap::new(),
        listed: serde_json::from_value(listed.clone()).unwrap(),
    };
    serde_json::to_value(server).unwrap()
}

struct Files(TempDir);

impl Files {
    fn put(&self, name: &str, content: &Value) -> String {
        let path: PathBuf = self.0.path().join(name);
        std::fs::write(&path, content.to_string()).unwrap();
        path.display().to_string()
    }
}

#[test]
fn what_servers_list_is_read_in_each_form() {
    let files = Files(TempDir::new().unwrap());
    let answer = json!({ "jsonrpc": "2.0", "id": 1, "result":
        { "tools": [{ "name": "a", "inputSchema": {} }], "nextCursor": "2" } });
    let given = [
        format!("github={}", files.put("1.json", &answer)),
        format!(
            "github={}",
            files.put("2.json", &json!({ "tools": [{ "name": "b" }] }))
        ),
        files.put(
            "l.json",
            &shown("linear", &json!({ "c": { "read_only": true } })),
        ),
    ];
    let read = read(&given, &set()).unwrap();
    let tools = |server: &str| read[server].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(
        (tools("github"), tools("linear")),
        (vec!["a", "b"], vec!["c"])
    );
}

#[test]
fn what_is_no_whole_list_of_a_known_server_is_refused() {
    let files = Files(TempDir::new().unwrap());
    let page = files.put("page.json", &json!({ "tools": [] }));
    let more = files.put("more.json", &json!({ "tools": [], "nextCursor": "x" }));
    let linear = files.put("linear.json", &shown("linear", &json!({ "c": {} })));
    let untold = files.put("untold.json", &shown("linear", &json!({})));
    let other = files.put("other.json", &json!({ "prompts": [] }));
    for (given, why) in [
        (page.clone(), "does not say which server"),
        (format!("githib={page}"), "no server `githib`"),
        (format!("github={more}"), "the list goes on"),
        (format!("github={linear}"), "what server `linear` lists"),
        (untold, "had seen no list"),
        (format!("github={other}"), "neither a result"),
        (format!("github={page}.gone"), "read `"),
    ] {
        let error = read(std::slice::from_ref(&given), &set()).unwrap_err();
        assert!(
            error.kind == Kind::Usage && error.message.contains(why),
            "{given}: {}",
            error.message
        );
    }
}
