//! What the log tells those who ask: as it is written, and each user of the own records alone.

use std::process::Command;

use exeat_tests::Lab;
use exeat_tests::daemon::Daemon;
use exeat_tests::process::Process;
use exeat_tests::wait::{wait_for, wait_until};
use serde_json::Value;

use crate::place::LIMIT;
use crate::working::{as_other, other, policy, used};

fn parsed(text: &str) -> Vec<Value> {
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// The ids of the calls of `tool` that the log has.
fn calls(daemon: &Daemon<'_>, tool: &str) -> Vec<String> {
    let records = daemon.audit().unwrap();
    let of = records
        .iter()
        .filter(|record| record["mcp"]["name"] == tool);
    of.map(|record| record["id"].as_str().unwrap().to_owned())
        .collect()
}

/// Whether a line of a log is of what the user `daemon` did.
fn is_others(record: &Value) -> bool {
    record["identity"]["user"] == "daemon"
}

/// `exeat audit tail` as root and as another user, for programs and for people.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_is_told_to_those_who_follow() {
    let lab = Lab::new().unwrap();
    let daemon = lab.daemon(&policy()).await.unwrap();
    used(&lab, &daemon).await;
    let early = daemon.audit().unwrap();
    let follow = ["audit", "tail"];
    let start = |name: &str, mut command: Command, options: &[&str]| {
        Process::start(name, lab.directory(), command.args(options)).unwrap()
    };
    let as_root = || lab.exeat(&follow).unwrap();
    let mut all = start("tail", as_root(), &["--json"]);
    let mut table = start("tail-table", as_root(), &[]);
    let mut own = start("tail-other", as_other(&lab, &follow), &["--json"]);
    // Each has begun once it tells of anything.
    wait_for("all three follow", LIMIT, async || {
        used(&lab, &daemon).await;
        let begun = [&all, &table, &own].map(|process| process.stdout().contains("list_all"));
        (begun == [true; 3]).then_some(())
    })
    .await
    .unwrap();
    let known = ["show", "list_all"].map(|tool| calls(&daemon, tool));
    used(&lab, &daemon).await;
    let [roots, others] = ["show", "list_all"].map(|tool| {
        let mut fresh = calls(&daemon, tool);
        fresh.retain(|id| !known.iter().flatten().any(|known| known == id));
        assert_eq!(fresh.len(), 1, "{tool}");
        fresh.remove(0)
    });
    for (process, id) in [(&all, &roots), (&all, &others), (&own, &others)] {
        wait_until("what comes is told", LIMIT, || {
            let told = parsed(&process.stdout());
            told.iter().any(|record| record["id"] == **id)
        })
        .await
        .unwrap_or_else(|error| panic!("{error}: {}", process.report()));
    }
    // As it is written, and nothing of what was before.
    let told = parsed(&all.stdout());
    let log = daemon.audit_lines().unwrap();
    assert!(told.iter().all(|record| log.contains(record)), "{told:?}");
    assert!(told.iter().all(|record| !early.contains(record)));
    // Nothing of what others did.
    let told = parsed(&own.stdout());
    assert!(told.iter().all(is_others), "{told:?}");
    assert!(told.iter().all(|record| !early.contains(record)));

    // For people: a heading, and a line for each.
    let end = |id: &str| id.split_at(id.len() - 10).1.to_owned();
    for id in [&roots, &others] {
        wait_until("it is in the table", LIMIT, || {
            let table = table.stdout();
            table.lines().any(|line| line.contains(&end(id)))
        })
        .await
        .unwrap_or_else(|error| panic!("{error}: {}", table.report()));
    }
    let text = table.stdout();
    assert!(text.starts_with("TIME "), "{text}");
    let row = text.lines().find(|line| line.contains(&end(&roots)));
    let row = row.unwrap();
    for word in ["root (notes)", "tools/call show", "allow", "reader/1"] {
        assert!(row.contains(word), "{row}");
    }
    for process in [&mut all, &mut table, &mut own] {
        assert!(process.ended().unwrap().is_none(), "{}", process.report());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordinary_user_finds_the_own_records() {
    let lab = Lab::new().unwrap();
    let daemon = lab.daemon(&policy()).await.unwrap();
    used(&lab, &daemon).await;
    let query = ["audit", "query"];
    let whole = parsed(&daemon.cli(&query).await.unwrap().stdout);
    let tools = |records: &[Value]| -> Vec<String> {
        let tools = records
            .iter()
            .filter_map(|record| record["mcp"]["name"].as_str());
        tools.map(str::to_owned).collect()
    };
    assert_eq!(tools(&whole), ["show", "list_all"], "{whole:?}");
    let done = other(&lab, &query).await;
    assert!(done.status.success(), "{}", done.stderr);
    let own = parsed(&done.stdout);
    assert_eq!(tools(&own), ["list_all"], "{own:?}");
    assert!(own.iter().all(is_others), "{own:?}");
    let all: Vec<&Value> = whole.iter().filter(|record| is_others(record)).collect();
    assert_eq!(own.iter().collect::<Vec<_>>(), all, "all of them");
    // A filter does not widen it.
    let asked = ["audit", "query", "--tool", "show"];
    let found = parsed(&daemon.cli(&asked).await.unwrap().stdout);
    assert_eq!(tools(&found), ["show"], "{found:?}");
    let done = other(&lab, &asked).await;
    assert_eq!(parsed(&done.stdout), [] as [Value; 0], "{}", done.stdout);
    // The files themselves are not theirs to read.
    let directory = lab.directory().join("state/audit");
    let asked = ["audit", "query", "--dir", directory.to_str().unwrap()];
    let done = other(&lab, &asked).await;
    assert!(!done.status.success(), "{}", done.stdout);
    assert_eq!(done.stdout, "");
}
