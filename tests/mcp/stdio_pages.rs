//! Lists that never end, go round, or change from page to page, and servers that say without end that they have changed:
//! a page is a message as any other, of which nothing is kept, and nobody but the host asks for the next.

use std::fs;
use std::path::Path;

use exeat_tests::Lab;
use exeat_tests::daemon::Daemon;
use exeat_tests::process::{anonymous, must};
use exeat_tests::stdio::Session;
use serde_json::{Value, json};

use crate::stdio::policy;
use crate::stdio_faults::{Beside, ended};
use crate::stdio_floods::{meanwhile, processes};

/// Pages after which whatever is kept of tools has reached its bound, and pages after that.
const BEFORE: usize = 1000;
const AFTER: usize = 2000;
/// What the gate may hold more then, in bytes: a tenth of what those pages are.
const GROWN: u64 = 2 << 20;
/// How often a server says at once that its lists have changed.
const STORM: usize = 21_000;
/// Tools of an endless page that its host may see.
const EACH: usize = 20;
/// Pages of each other kind.
const FEW: usize = 25;

/// A policy with the servers `wire` and `pages`, of whose tools those that begin with `seen` are for the host.
fn hostile(lab: &Lab) -> String {
    let script = lab.directory().join("pages.py");
    fs::write(&script, include_str!("pages.py")).unwrap();
    must("chmod", &[Path::new("644"), &script]).unwrap();
    let server = format!(
        "  pages:
    purpose: lists without end
    owner: tests@lab.example
    launch: {{ command: /usr/bin/python3, args: [{}], user: nobody }}
rules: [{{ id: seen, tools: [\"seen*\"], effect: allow }}]",
        script.display()
    );
    policy(lab, &server)
}

/// A host that asks for one page after the other.
struct Reader {
    session: Session,
    asked: usize,
}

impl Reader {
    /// The page of `method` at `cursor`: what it lists, and the next cursor.
    async fn page(&mut self, method: &str, cursor: &str) -> (Vec<String>, String) {
        self.asked += 1;
        let params = if cursor.is_empty() {
            json!({})
        } else {
            json!({ "cursor": cursor })
        };
        let answer = self.session.request(method, params).await.unwrap();
        let result = &answer["result"];
        // Nobody else has asked it for anything.
        assert_eq!(result["_meta"]["heard"], self.asked, "{answer}");
        let member = match method {
            "resources/templates/list" => "resourceTemplates",
            other => other.trim_end_matches("/list"),
        };
        let listed = result[member].as_array().unwrap();
        let names = listed.iter().map(|entry| entry["name"].as_str().unwrap());
        let next = result["nextCursor"].as_str().unwrap();
        (names.map(str::to_owned).collect(), next.to_owned())
    }

    /// Follows the endless list for so many pages, from `cursor` on; the next cursor.
    async fn follow(&mut self, pages: usize, mut cursor: String) -> String {
        for _ in 0..pages {
            let (names, next) = self.page("tools/list", &cursor).await;
            let own = format!("seen-{}-", self.asked);
            assert_eq!(names.len(), EACH, "{names:?}");
            assert!(names.iter().all(|name| name.starts_with(&own)), "{names:?}");
            assert!(
                next.starts_with(&format!("endless {} y", self.asked)),
                "{next}"
            );
            cursor = next;
        }
        cursor
    }
}

/// What the gate holds, in bytes.
async fn held(daemon: &Daemon<'_>) -> u64 {
    let [gate, _] = processes(daemon).await;
    anonymous(gate).unwrap()
}

fn grew_little(before: u64, after: u64) {
    println!("held: {before}, then {after}");
    assert!(
        after.saturating_sub(before) < GROWN,
        "{before}, then {after}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_without_end_are_pages_like_others() {
    let lab = Lab::new().unwrap();
    let daemon = lab.daemon(&hostile(&lab)).await.unwrap();
    let mut beside = Beside::new(&lab).await;
    let session = daemon.run("pages").unwrap();
    let mut reader = Reader { session, asked: 0 };
    let cursor = reader.follow(BEFORE, String::new()).await;
    let before = held(&daemon).await;
    meanwhile(&mut beside, reader.follow(AFTER, cursor)).await;
    let after = held(&daemon).await;
    grew_little(before, after);
    for _ in 0..FEW {
        let (names, next) = reader.page("tools/list", "round").await;
        assert_eq!((names, next.as_str()), (vec!["seen".to_owned()], "round"));
    }
    for _ in 0..FEW {
        let (names, next) = reader.page("tools/list", "changes").await;
        let order = if reader.asked % 2 == 1 {
            ["seen", "seen-b"]
        } else {
            ["seen-b", "seen"]
        };
        assert_eq!(names, order);
        assert_eq!(next, "changes");
    }
    // What no list of tools is is not filtered.
    for method in ["resources/list", "resources/templates/list", "prompts/list"] {
        let mut cursor = String::new();
        for _ in 0..FEW {
            let (names, next) = reader.page(method, &cursor).await;
            assert_eq!(names.len(), 2 * EACH, "{names:?}");
            assert_ne!(next, cursor);
            cursor = next;
        }
    }
    // What was on many pages is no more there than before.
    let hidden = reader.session.call("hidden", json!({})).await.unwrap();
    assert_eq!(
        hidden["error"]["message"], "Unknown tool: hidden",
        "{hidden}"
    );
    beside.works().await;
    daemon
        .record("the call", |record| record["mcp"]["name"] == "hidden")
        .await
        .unwrap();
    let records = daemon.audit().unwrap();
    let pages: Vec<&Value> = records
        .iter()
        .filter(|record| {
            record["mcp"]["method"]
                .as_str()
                .is_some_and(|method| method.ends_with("/list"))
        })
        .collect();
    assert_eq!(pages.len(), reader.asked);
    for page in pages {
        assert_eq!(page["decision"]["effect"], "allow", "{page}");
        assert_eq!(page["outcome"]["status"], "done", "{page}");
        assert_eq!(page["mcp"]["server"], "pages", "{page}");
    }
    reader.session.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_without_end_that_lists_change_is_not_asked_for_them() {
    let lab = Lab::new().unwrap();
    let daemon = lab.daemon(&hostile(&lab)).await.unwrap();
    let mut beside = Beside::new(&lab).await;
    let session = daemon.run("pages").unwrap();
    let mut reader = Reader { session, asked: 0 };
    let begin = |times: usize| json!({ "jsonrpc": "2.0", "method": "notifications/roots/list_changed", "params": { "times": times } });
    let mut before = u64::MAX;
    for _ in 0..3 {
        let storm = async {
            reader.session.send(&begin(STORM)).await.unwrap();
            reader.asked += 1;
            for number in 0..STORM {
                let told = reader.session.receive().await.unwrap();
                let kind = ["tools", "prompts", "resources"][number % 3];
                assert_eq!(told["method"], format!("notifications/{kind}/list_changed"));
                assert_eq!(told["params"]["_meta"]["number"], number, "{told}");
            }
        };
        meanwhile(&mut beside, storm).await;
        let (names, _) = reader.page("tools/list", "changes").await;
        assert_eq!(names.len(), 2, "{names:?}");
        let after = held(&daemon).await;
        grew_little(before, after);
        before = after;
    }
    reader.session.close().await.unwrap();
    let end = ended(&daemon, "the server ended").await;
    let counts = end["lifecycle"]["counts"].as_array().unwrap();
    for kind in ["tools", "prompts", "resources"] {
        let method = format!("notifications/{kind}/list_changed");
        // Three times a third.
        let all = json!({ "what": method, "from": "server", "count": STORM });
        assert!(counts.contains(&all), "{end}");
    }
    let records = daemon.audit().unwrap();
    let own = records
        .iter()
        .filter(|record| record["workload"]["name"] == "pages");
    // Each kind's whenever its number had doubled.
    let doubled = 3 * (STORM.ilog2() as usize + 1);
    assert!(own.count() < 20 + doubled, "a storm fills no log");
}
