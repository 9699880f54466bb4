//! Working with the policy by commands: what they say of a running daemon's to root and to others, and as what CI runs.

use std::fs;
use std::path::Path;
use std::process::Command;

use exeat_tests::Lab;
use exeat_tests::daemon::{Daemon, binary};
use exeat_tests::process::{Finished, must, run};
use exeat_tests::stdio::Session;
use exeat_tests::wait::wait_for;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::place::LIMIT;

/// A server that lists three tools and answers each call.
const SERVER: &str = r#"
import json, sys
tools = [{"name": name, "inputSchema": {"type": "object"}} for name in ("show", "list_all", "drop")]
tools[2]["annotations"] = {"readOnlyHint": False, "destructiveHint": False, "openWorldHint": False}
results = {
    "initialize": {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "n", "version": "1"}},
    "tools/list": {"tools": tools},
    "tools/call": {"content": []},
}
for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        result = results.get(message["method"], {})
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"#;

pub(crate) fn policy() -> String {
    format!(
        "version: 1
servers:
  notes:
    launch: {{ command: python3, args: [-c, {}], user: nobody }}
    tools: {{ show: read, 'lst_*': read }}
identities:
  tester: {{ user: root }}
  guest: {{ user: daemon }}
  analysts: {{ jwt: {{ issuer: 'https://login.lab.example', claims: {{ groups: analysts }} }} }}
roles:
  reader: {{ members: [tester], grants: [{{ servers: [notes], tools: [show] }}, {{ servers: [notes], tools: ['list_*'] }}] }}
  visitor: {{ members: [guest], grants: [{{ servers: [notes], tools: [show] }}, {{ servers: [notes], tools: [list_all] }}] }}
rules:
  - {{ id: analysing, who: [analysts], servers: [notes], tools: [drop], effect: allow }}
  - {{ id: writing, who: [guest], servers: [notes], tools: {{ class: [write] }}, effect: allow }}
",
        // JSON is YAML.
        json!(SERVER)
    )
}

/// `exeat ARGUMENTS` as the Unix user `daemon`, who has no part in the server.
pub(crate) fn as_other(lab: &Lab, arguments: &[&str]) -> Command {
    let own = lab.directory().join("exeat-copy");
    if !own.exists() {
        fs::copy(binary().unwrap(), &own).unwrap();
    }
    let mut command = lab.inside.command("setpriv");
    command
        .args(["--reuid=daemon", "--regid=daemon", "--clear-groups"])
        .arg(own)
        .args(arguments)
        .arg("--config")
        .arg(lab.directory().join("exeat.yaml"));
    command
}

pub(crate) async fn other(lab: &Lab, arguments: &[&str]) -> Finished {
    let mut command = as_other(lab, arguments);
    run(command.arg("--json"), LIMIT).await.unwrap()
}

/// Two sessions, of root and of another user: the first sees the list and shows something, the second lists something.
pub(crate) async fn used(lab: &Lab, daemon: &Daemon<'_>) {
    let is_one = |record: &Value| {
        let tool = record["mcp"]["name"].as_str();
        matches!(tool, Some("show" | "list_all")) && record["outcome"]["status"] == "done"
    };
    let before = daemon.audit().unwrap();
    let before = before.iter().filter(|record| is_one(record)).count();
    let mut own = daemon.run("notes").unwrap();
    own.initialize().await.unwrap();
    own.request("tools/list", json!({})).await.unwrap();
    let answer = own.call("show", json!({})).await.unwrap();
    assert!(answer["result"].is_object(), "{answer}");
    assert!(own.close().await.unwrap().success());
    let log = lab.directory().join("run-other.err");
    let mut guest = Session::start(as_other(lab, &["run", "notes"]), &log).unwrap();
    guest.initialize().await.unwrap();
    let answer = guest.call("list_all", json!({})).await.unwrap();
    assert!(answer["result"].is_object(), "{answer}");
    assert!(guest.close().await.unwrap().success());
    let both = daemon.records("both calls", before + 2, is_one).await;
    assert_eq!(both.unwrap().len(), before + 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_daemon_explains_its_decisions_to_administrators() {
    let lab = Lab::new().unwrap();
    let daemon = lab.daemon(&policy()).await.unwrap();
    let question = [
        "policy", "explain", "--user", "root", "--server", "notes", "--tool", "show",
    ];
    let done = daemon.cli(&question).await.unwrap();
    assert!(done.status.success(), "{}", done.stderr);
    let said = done.json().unwrap();
    assert_eq!(
        (&said["effect"], &said["rule"], &said["identities"]),
        (&json!("allow"), &json!("reader/1"), &json!(["tester"])),
        "{said}"
    );
    let considered = said["considered"].as_array().unwrap();
    let visitor = considered
        .iter()
        .find(|item| item["subject"] == "grant `visitor/1`");
    assert_eq!(visitor.unwrap()["why"], "is about other callers", "{said}");

    // A token that nobody holds: what whoever shows it might do.
    for (group, effect) in [("analysts", "allow"), ("others", "deny")] {
        let claim = format!("groups={group}");
        let question = [
            "policy",
            "explain",
            "--issuer",
            "https://login.lab.example",
            "--subject",
            "ann",
            "--claim",
            &claim,
            "--server",
            "notes",
            "--tool",
            "drop",
        ];
        let said = daemon.cli(&question).await.unwrap();
        assert_eq!(said.json().unwrap()["effect"], effect, "{}", said.stdout);
    }
    let question = [
        "policy",
        "explain",
        "--issuer",
        "https://other.example",
        "--server",
        "notes",
        "--tool",
        "drop",
    ];
    let done = daemon.cli(&question).await.unwrap();
    assert_eq!(done.status.code(), Some(2), "{}", done.stdout);
    let known = "nothing in the policy is about tokens of `https://other.example`; it knows `https://login.lab.example`";
    assert!(done.stderr.contains(known), "{}", done.stderr);

    let question = [
        "policy", "explain", "--user", "daemon", "--server", "notes", "--tool", "show",
    ];
    let done = other(&lab, &question).await;
    assert_eq!(done.status.code(), Some(1), "{}", done.stdout);
    assert!(
        done.stderr
            .contains("`policy explain` is not for ordinary users"),
        "{}",
        done.stderr
    );
}

/// By what its server lists of a tool, where the register says nothing, as in a live call; or by what is stated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_daemon_explains_by_what_servers_list() {
    let lab = Lab::new().unwrap();
    let daemon = lab.daemon(&policy()).await.unwrap();
    let said = async |stated: &[&str]| {
        let question = [
            "policy", "explain", "--user", "daemon", "--server", "notes", "--tool", "drop",
        ];
        let done = daemon.cli(&[&question, stated].concat()).await.unwrap();
        let said = done.json().unwrap();
        (said["effect"].clone(), said["class"].clone())
    };
    assert_eq!(
        said(&[]).await,
        (json!("deny"), json!("destructive, external"))
    );
    used(&lab, &daemon).await;
    assert_eq!(said(&[]).await, (json!("allow"), json!("write")));
    assert_eq!(
        said(&["--hint", "destructiveHint=true"]).await,
        (json!("deny"), json!("destructive, external"))
    );
    let log = lab.directory().join("run-other.err");
    let mut guest = Session::start(as_other(&lab, &["run", "notes"]), &log).unwrap();
    guest.initialize().await.unwrap();
    // What was listed to another decides nothing for this one.
    let answer = guest.call("drop", json!({})).await.unwrap();
    assert!(answer["error"].is_object(), "{answer}");
    guest.request("tools/list", json!({})).await.unwrap();
    let answer = guest.call("drop", json!({})).await.unwrap();
    assert!(answer["result"].is_object(), "{answer}");
    assert!(guest.close().await.unwrap().success());
}

/// Root is told of all records and of all that was listed, an ordinary user of the own records alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_matrix_tells_each_what_is_theirs() {
    let lab = Lab::new().unwrap();
    let daemon = lab.daemon(&policy()).await.unwrap();
    used(&lab, &daemon).await;
    let matrix = ["servers", "matrix", "--unused", "--since", "1h"];
    let unused = |said: &Value| {
        let grants = said["unused"]["grants"].as_array().unwrap().iter();
        grants
            .map(|grant| grant["grant"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let cell = |said: &Value, role: &str| {
        let cells = said["cells"].as_array().unwrap().iter();
        let mut cells = cells.filter(|cell| cell["role"] == role);
        cells.next().unwrap().clone()
    };
    let done = daemon.cli(&matrix).await.unwrap();
    assert_eq!(done.status.code(), Some(1), "{}", done.stderr);
    let said = done.json().unwrap();
    assert_eq!(unused(&said), ["reader/2", "visitor/1"], "{said}");
    let reader = cell(&said, "reader");
    assert_eq!(reader["known"], 3, "{said}");
    assert_eq!(
        reader["tools"],
        json!({ "show": "reader/1", "list_all": "reader/2" }),
        "{said}"
    );

    let done = other(&lab, &matrix).await;
    assert_eq!(done.status.code(), Some(1), "{}", done.stderr);
    let said = done.json().unwrap();
    assert_eq!(
        unused(&said),
        ["reader/1", "reader/2", "visitor/1"],
        "root's calls are not theirs: {said}"
    );
    assert_eq!(cell(&said, "reader")["known"], 1, "{said}");
}

/// The policy with a server that is not for the user `daemon`, and the settings of an approver.
fn with_vault(lab: &Lab) -> (String, String) {
    lab.keep("links.key", &"5a".repeat(32)).unwrap();
    lab.keep("vault.key", "hush").unwrap();
    let directory = lab.directory().display();
    let servers = format!(
        "credentials: {{ vault-key: {{ file: {directory}/vault.key }} }}
servers:
  vault:
    purpose: keeps secrets
    launch: {{ command: /usr/bin/vault }}
    egress: [{{ host: vault.lab.example, credential: vault-key }}]"
    );
    let settings = format!(
        "approvals:
  listen: 127.0.0.1:8377
  console_url: https://console.lab.example
  secret_file: {directory}/links.key
  webhooks: [{{ approver: bin, url: \"https://hooks.lab.example/x\" }}]
"
    );
    (policy().replacen("servers:", &servers, 1), settings)
}

fn names(done: &Finished) -> Vec<String> {
    let servers = done.json().unwrap();
    let servers = servers.as_array().unwrap().iter();
    servers
        .map(|server| server["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Root is told of the whole register; an ordinary user of the servers that it may start, and that it is held to policy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_register_tells_each_what_is_theirs() {
    let lab = Lab::new().unwrap();
    let (policy, settings) = with_vault(&lab);
    let daemon = lab.daemon_with(&policy, &settings).await.unwrap();
    let cut = ["servers", "disconnect", "vault", "--reason", "it leaked"];
    let done = daemon.cli(&cut).await.unwrap();
    assert!(done.status.success(), "{}", done.stderr);
    daemon
        .replace_policy(&policy.replace("effect: allow", "effect: permit"))
        .unwrap();
    let whole = wait_for("the files are refused", LIMIT, async || {
        let status = daemon.status().await.ok()?;
        (!status["policy"]["rejected"].is_null()).then_some(status)
    })
    .await
    .unwrap();

    let own = other(&lab, &["servers"]).await;
    assert_eq!(names(&own), ["notes"], "{}", own.stdout);
    let all = daemon.cli(&["servers"]).await.unwrap();
    assert_eq!(names(&all), ["notes", "vault"], "{}", all.stdout);

    let shown = other(&lab, &["servers", "show", "notes"]).await;
    assert!(shown.status.success(), "{}", shown.stderr);
    for name in ["vault", "nothing"] {
        let shown = other(&lab, &["servers", "show", name]).await;
        let why = format!("there is no server `{name}` that you may start or call");
        assert!(shown.stderr.contains(&why), "{}", shown.stderr);
    }
    let shown = daemon.cli(&["servers", "show", "vault"]).await.unwrap();
    assert!(shown.stdout.contains("it leaked"), "{}", shown.stderr);

    let told = other(&lab, &["status", "--no-canary"]).await;
    let told = told.json().unwrap();
    let told = &told["status"];
    for section in ["credentials", "webhooks", "disconnected"] {
        assert_eq!(told[section], json!([]), "{told}");
        assert_eq!(whole[section].as_array().unwrap().len(), 1, "{whole}");
    }
    assert_eq!(
        told["policy"]["rejected"], "an administrator is told why",
        "{told}"
    );
    let mut policies = [told, &whole].map(|status| status["policy"].clone());
    for policy in &mut policies {
        policy["rejected"] = Value::Null;
    }
    assert_eq!(policies[0], policies[1], "health is everybody's");
    assert_eq!(told["policy"]["servers"], 2, "{told}");
    assert_eq!(told["audit"]["healthy"], true, "{told}");
    for secret in ["vault", "leaked", "hooks.lab.example", "permit"] {
        assert!(!told.to_string().contains(secret), "{secret}: {told}");
    }

    let doctor = ["doctor", "--no-runtimes"];
    let said = daemon.cli(&doctor).await.unwrap();
    assert!(said.stdout.contains("hooks.lab.example"), "{}", said.stdout);
    let said = other(&lab, &doctor).await;
    assert!(said.stdout.contains("standing"), "{}", said.stderr);
    assert!(!said.stdout.contains("hooks.lab"), "{}", said.stdout);
}

/// Names that fit no manifest: by what the daemon saw, and by files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_compared_with_what_was_listed() {
    let lab = Lab::new().unwrap();
    let daemon = lab.daemon(&policy()).await.unwrap();
    let check = ["policy", "check"];
    let before = daemon.cli(&check).await.unwrap();
    assert!(
        before
            .stderr
            .contains("tells of no tools that servers listed"),
        "{}",
        before.stderr
    );
    used(&lab, &daemon).await;
    let done = daemon.cli(&check).await.unwrap();
    assert!(done.status.success(), "{}", done.stdout);
    let said = done.json().unwrap();
    let told: Vec<&str> = said["warnings"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|warning| warning["message"].as_str())
        .collect();
    let lists = "`tools` of server `notes`: `lst_*` fits no tool that server `notes` lists";
    let voiceless = "rule `analysing` never matches for `analysts` at `notes`: \
                     over standard streams nobody shows a token or a certificate";
    assert_eq!(told, [lists, voiceless], "{said}");
    assert_eq!(done.stderr, "");

    let done = other(&lab, &check).await;
    assert!(done.status.success(), "{}", done.stdout);
    assert!(done.stderr.contains("tells of no tools"), "{}", done.stderr);

    let shown = daemon.cli(&["servers", "show", "notes"]).await.unwrap();
    let file = lab.directory().join("notes.json");
    fs::write(&file, &shown.stdout).unwrap();
    let done = daemon
        .cli(&["policy", "check", "--manifest", file.to_str().unwrap()])
        .await
        .unwrap();
    assert_eq!(done.status.code(), Some(2), "{}", done.stdout);
    let said = done.json().unwrap();
    assert_eq!(
        (&said["valid"], &said["faults"][0]["message"]),
        (&json!(false), &json!(lists)),
        "{said}"
    );
}

const CHECKED: &str = "version: 1
servers: { billing: { launch: { command: billing } } }
identities: { dave: { user: dave } }
rules:
  - { id: small, who: [dave], servers: [billing], tools: [pay], args: [{ field: /cents, max: 100 }], effect: allow }
";

/// The XML as another program reads it: tests, failures, and of each case its name and what failed.
fn junit(file: &Path) -> Value {
    const READ: &str = r"
import json, sys, xml.etree.ElementTree as tree
suite = tree.parse(sys.argv[1]).getroot()
cases = [[case.get('name'), [failure.get('message') for failure in case.findall('failure')]] for case in suite]
print(json.dumps([suite.tag, suite.get('tests'), suite.get('failures'), cases]))
";
    let said = must("python3", &["-c", READ, file.to_str().unwrap()]).unwrap();
    serde_json::from_str(&said).unwrap()
}

/// `policy test` as CI runs it, without a daemon: status, output and the file for the CI server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cases_are_run_for_ci() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("a.yaml"), CHECKED).unwrap();
    let test = async |cases: &str| {
        fs::write(at("a.test.yaml"), cases).unwrap();
        let _gone = fs::remove_file(at("report.xml"));
        let mut command = Command::new(binary().unwrap());
        command.args(["policy", "test"]).arg(folder.path());
        command.arg("--junit").arg(at("report.xml"));
        run(&mut command, LIMIT).await.unwrap()
    };
    let good = "version: 1
cases:
  - { name: a little, user: dave, server: billing, tool: pay, args: { cents: 100 }, expect: { effect: allow, rule: small } }
  - { name: nobody, server: billing, tool: pay, expect: deny }
";
    let done = test(good).await;
    assert_eq!(done.status.code(), Some(0), "{}", done.stderr);
    assert!(
        done.stdout.contains("2 passed, 0 failed"),
        "{}",
        done.stdout
    );
    assert_eq!(
        junit(&at("report.xml")),
        json!(["testsuite", "2", "0", [["a little", []], ["nobody", []]]])
    );

    // Names that XML would take for its own.
    let failing = format!(
        "{good}  - {{ name: '<b> & \"c\" ]]>', user: dave, server: billing, tool: pay, args: {{ cents: 101 }}, expect: allow }}\n"
    );
    let done = test(&failing).await;
    assert_eq!(done.status.code(), Some(1), "{}", done.stderr);
    assert!(
        done.stdout.contains("2 passed, 1 failed"),
        "{}",
        done.stdout
    );
    let report = junit(&at("report.xml"));
    assert_eq!((&report[1], &report[2]), (&json!("3"), &json!("1")));
    assert_eq!(report[3][2][0], "<b> & \"c\" ]]>");
    let message = report[3][2][1][0].as_str().unwrap();
    assert!(message.contains("expected allow, found deny"), "{message}");

    for cases in [
        good.replace("server: billing", "server: biling"),
        "version: 1\n".to_owned(),
    ] {
        let done = test(&cases).await;
        assert_eq!(done.status.code(), Some(2), "{cases}: {}", done.stdout);
        assert!(done.stderr.contains("a.test.yaml:"), "{}", done.stderr);
        assert!(!at("report.xml").exists(), "nothing was tested");
    }
    fs::write(
        at("a.yaml"),
        CHECKED.replace("effect: allow", "effect: permit"),
    )
    .unwrap();
    let done = test(good).await;
    assert_eq!(done.status.code(), Some(2), "{}", done.stdout);
    assert!(done.stderr.contains("a.yaml:5:"), "{}", done.stderr);
}
