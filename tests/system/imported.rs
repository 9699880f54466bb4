//! A host's configuration that `exeat hosts import` rewrote, started as its host would start it.

use std::fs;

use exeat_tests::Lab;
use exeat_tests::daemon::binary;
use exeat_tests::files::chmod;
use exeat_tests::stdio::Session;
use serde_json::{Value, json};

use crate::place::policy;

/// Has one tool, whose description says what the server was started with.
const SERVER: &str = r#"
import json, os, sys
told = {name: os.environ.get(name) for name in ("LEVEL", "API_TOKEN", "ORG", "SNEAKED")}
told["args"] = sys.argv[1:]
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    if asked["method"] == "initialize":
        version = asked["params"]["protocolVersion"]
        result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": {"name": "notes", "version": "1"}}
    else:
        result = {"tools": [{"name": "told", "description": json.dumps(told), "inputSchema": {"type": "object"}}]}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"#;
const TOKEN: &str = "hunter2-hunter2-hunter2";

/// The program that hosts call: with the lab's configuration, where an installed one has the machine's.
fn caller(lab: &Lab) -> String {
    let path = lab.directory().join("bin/exeat");
    fs::create_dir(path.parent().unwrap()).unwrap();
    let script = format!(
        "#!/bin/sh\nexec {} --config {} \"$@\"\n",
        binary().unwrap().display(),
        lab.directory().join("exeat.yaml").display()
    );
    fs::write(&path, script).unwrap();
    for path in [&path, path.parent().unwrap()] {
        chmod(path, 0o755).unwrap();
    }
    path.to_str().unwrap().to_owned()
}

/// What the proposed entry asks a person to do.
fn follow(lab: &Lab, entries: &str) -> String {
    let key = lab.keep("api-token", TOKEN).unwrap();
    let told = [
        "FILL IN: what it is for",
        "FILL IN: who answers for it",
        "FILL IN: ${input:org}",
    ];
    let mut text = entries.to_owned();
    for (fill_in, filled) in told.iter().zip(["notes", "tests@lab.example", "acme"]) {
        assert!(text.contains(fill_in), "{text}");
        text = text.replace(fill_in, filled);
    }
    format!(
        "{text}    egress: [{{ host: api.lab.example, credential: notes-api-token }}]
credentials: {{ notes-api-token: {{ file: {} }} }}
rules: [{{ id: all, methods: [\"*\"], effect: allow }}]
",
        key.display()
    )
}

/// The rewritten entry as its host starts it, which fills in what it has the host fill in; as an ordinary user.
fn start(lab: &Lab, entry: &Value) -> Session {
    let filled = |text: &Value| {
        let text = text.as_str().unwrap();
        text.replace("${workspaceFolder}", "/srv/work")
            .replace("${input:org}", "asked")
    };
    let mut command = lab.inside.command("setpriv");
    command.args(["--reuid", "games", "--clear-groups", "--"]);
    command.arg(filled(&entry["command"]));
    command.args(entry["args"].as_array().unwrap().iter().map(filled));
    for (name, value) in entry["env"].as_object().unwrap() {
        command.env(name, filled(value));
    }
    // What else a host has in its environment.
    command.env("SNEAKED", "yes").current_dir("/");
    Session::start(command, &lab.directory().join("host.err")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewritten_entry_starts_its_server() {
    let lab = Lab::new().unwrap();
    let script = lab.directory().join("notes.py");
    fs::write(&script, SERVER).unwrap();
    chmod(&script, 0o644).unwrap();
    let daemon = lab.daemon(&policy(&[])).await.unwrap();
    let host = lab.directory().join("host.json");
    let started = json!({
        "command": "/usr/bin/python3",
        "args": [script, "--root", "${workspaceFolder}"],
        "env": { "LEVEL": "debug", "API_TOKEN": TOKEN, "ORG": "${input:org}" },
    });
    fs::write(
        &host,
        json!({ "mcpServers": { "notes": started } }).to_string(),
    )
    .unwrap();
    let (path, new) = (host.to_str().unwrap(), lab.directory().join("new.yaml"));
    let exeat = caller(&lab);
    let import = ["hosts", "import", path, "--yes", "--exeat", &exeat];
    let import = [&import[..], &["--entries", new.to_str().unwrap()]].concat();
    let done = daemon.cli(&import).await.unwrap();
    assert!(done.status.success(), "{done:?}");
    let remains = done.json().unwrap()["files"][0]["changes"][0]["remains"].to_string();
    assert!(
        remains.contains("its `env` has no effect any more"),
        "{remains}"
    );

    // What cannot be carried over is said where it would stand, and no secret is.
    let entries = fs::read_to_string(&new).unwrap();
    assert!(!entries.contains(TOKEN), "{entries}");
    for said in [
        "LEVEL: \"debug\"",
        "# the server gets a placeholder",
        "API_TOKEN: { secret: notes-api-token }",
        "# its host filled this in",
        "ORG: \"FILL IN: ${input:org}\"",
    ] {
        assert!(entries.contains(said), "{said} in {entries}");
    }
    let followed = follow(&lab, &entries);
    daemon.put_in_force(&followed).await.unwrap();

    let rewritten: Value = serde_json::from_str(&fs::read_to_string(&host).unwrap()).unwrap();
    let entry = &rewritten["mcpServers"]["notes"];
    assert_eq!(entry["command"], exeat, "{entry}");
    let mut session = start(&lab, entry);
    session.initialize().await.unwrap();
    let list = session.request("tools/list", json!({})).await.unwrap();
    let told = list["result"]["tools"][0]["description"].as_str().unwrap();
    let told: Value = serde_json::from_str(told).unwrap();
    assert_eq!(told["LEVEL"], "debug", "{told}");
    assert_eq!(told["args"], json!(["--root", "/srv/work"]), "{told}");
    // The register's word, not its host's.
    assert_eq!(told["ORG"], "acme", "{told}");
    let token = told["API_TOKEN"].as_str().unwrap();
    assert!(token.starts_with("exeat-"), "{told}");
    assert_eq!(told["SNEAKED"], Value::Null, "{told}");
    assert_eq!(session.close().await.unwrap().code(), Some(0));

    // Once registered, what its register lacks of the variables is named.
    let lacking = followed.replace("        LEVEL: \"debug\"\n", "");
    daemon.put_in_force(&lacking).await.unwrap();
    fs::write(
        &host,
        json!({ "mcpServers": { "notes": started } }).to_string(),
    )
    .unwrap();
    let again = ["hosts", "import", path, "--dry-run"];
    let done = daemon.cli(&again).await.unwrap();
    let change = &done.json().unwrap()["files"][0]["changes"][0];
    assert_eq!(change["name"], "notes", "{change}");
    let remains = change["remains"].to_string();
    assert!(
        remains.contains("the register gives it no `LEVEL`"),
        "{remains}"
    );
    assert!(
        !remains.contains("`ORG`") && !remains.contains(TOKEN),
        "{remains}"
    );
}
