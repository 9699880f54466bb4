//! What an import says of servers that would start otherwise than before.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;

use exeat_policy::{PolicySet, Source, compile};
use nix::unistd::geteuid;
use serde_json::Value;
use tempfile::TempDir;

use super::*;

/// The report on a file with one server that is started so, by a user with a program `ledger-mcp` of the own.
fn imported(folder: &TempDir, entry: &str, set: Option<&PolicySet>) -> (Value, String) {
    let bin = folder.path().join("bin");
    fs::create_dir_all(&bin).unwrap();
    let mut program = OpenOptions::new();
    program.write(true).create(true).truncate(true).mode(0o755);
    drop(program.open(bin.join("ledger-mcp")).unwrap());
    fs::write(bin.join("no-program"), "").unwrap();
    let file = folder.path().join(".mcp.json");
    fs::write(&file, format!(r#"{{"mcpServers":{{"ledger":{entry}}}}}"#)).unwrap();
    let account = Account {
        name: "dave".to_owned(),
        uid: geteuid().as_raw(),
        home: folder.path().to_owned(),
    };
    let mut register = Register::new(set).finding_in(vec!["relative".into(), bin]);
    let made = prepare(&file, &account, "exeat", &mut register).unwrap();
    let report = FileReport::of(&made.listed, &made.rewritten, &register);
    let report = serde_json::to_value(report).unwrap();
    let remains = report["changes"][0]["remains"].clone();
    (remains, document(&register.proposals(), &[]))
}

#[test]
fn a_program_of_the_users_own_is_proposed_by_its_path() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("bin/ledger-mcp").display().to_string();
    let (remains, entries) = imported(&folder, r#"{"command":"ledger-mcp","args":["-v"]}"#, None);
    assert!(entries.contains(&format!("command: {path}\n")), "{entries}");
    let said = remains[0].as_str().unwrap();
    assert!(
        said.starts_with(
            "`ledger-mcp` is not where `exeat run` looks (/usr/local/bin:/usr/bin:/bin)"
        ),
        "{said}"
    );
    assert!(
        said.contains(&format!("the proposed entry names `{path}`")),
        "{said}"
    );

    // Once it is registered so, there is nothing to say.
    let text = format!(
        "version: 1\nservers: {{ ledger: {{ launch: {{ command: {path}, args: [-v] }} }} }}\n"
    );
    let source = Source {
        name: "p.yaml".into(),
        text,
    };
    let set = compile(&[source]).unwrap();
    let told = imported(
        &folder,
        r#"{"command":"ledger-mcp","args":["-v"]}"#,
        Some(&set),
    );
    assert_eq!(told, (Value::Array(Vec::new()), String::new()));
}

#[test]
fn what_is_found_nowhere_is_said_and_what_is_found_is_left() {
    let folder = TempDir::new().unwrap();
    for command in ["no-program", "not-there-at-all"] {
        let (remains, entries) = imported(&folder, &format!(r#"{{"command":"{command}"}}"#), None);
        assert!(
            remains[0]
                .as_str()
                .unwrap()
                .ends_with("write its whole path into the register"),
            "{remains}"
        );
        assert!(
            entries.contains(&format!("command: {command}\n")),
            "{entries}"
        );
    }
    for command in ["sh", "/opt/ledger/run"] {
        let (remains, entries) = imported(&folder, &format!(r#"{{"command":"{command}"}}"#), None);
        assert_eq!(remains, Value::Array(Vec::new()));
        assert!(
            entries.contains(&format!("command: {command}\n")),
            "{entries}"
        );
    }
}

#[test]
fn what_a_host_adds_is_proposed_and_said_where_the_register_lacks_it() {
    let folder = TempDir::new().unwrap();
    let added = r#"["./x","--in=${workspaceFolder}","--ro","--token","hunter2"]"#;
    let entry = format!(r#"{{"command":"sh","args":{added}}}"#);
    let (remains, entries) = imported(&folder, &entry, None);
    assert_eq!(remains, Value::Array(Vec::new()));
    let proposed = "extra_args: [\"*\", \"--in=*\", \"--ro\", \"--token\"]";
    assert!(entries.contains(proposed), "{entries}");
    for (extra_args, lacks) in [
        ("", true),
        (", extra_args: ['--in=*']", true),
        (", extra_args: ['*']", false),
    ] {
        let text = format!(
            "version: 1\nservers: {{ ledger: {{ launch: {{ command: sh, args: [./x], directory: caller{extra_args} }} }} }}\n"
        );
        let source = Source {
            name: "p.yaml".into(),
            text,
        };
        let set = compile(&[source]).unwrap();
        let remains = imported(&folder, &entry, Some(&set)).0;
        assert_eq!(
            remains.to_string().contains("extra_args"),
            lacks,
            "{remains}"
        );
    }
}

#[test]
fn where_a_server_begins_is_proposed_as_it_is_and_said_where_it_changes() {
    let folder = TempDir::new().unwrap();
    let entry = r#"{"command":"sh","args":["./x"],"cwd":"/srv/ledger"}"#;
    let (remains, entries) = imported(&folder, entry, None);
    assert_eq!(remains, Value::Array(Vec::new()));
    assert!(entries.contains("directory: caller\n"), "{entries}");
    let registered = |directory: &str| {
        let launch = format!("{{ command: sh, args: [./x]{directory} }}");
        let text = format!("version: 1\nservers: {{ ledger: {{ launch: {launch} }} }}\n");
        let source = Source {
            name: "p.yaml".into(),
            text,
        };
        let set = compile(&[source]).unwrap();
        imported(&folder, entry, Some(&set)).0
    };
    assert_eq!(registered(", directory: caller"), Value::Array(Vec::new()));
    for elsewhere in ["", ", directory: /srv"] {
        let remains = registered(elsewhere);
        let said = remains.as_array().unwrap().iter();
        let said: Vec<&str> = said.filter_map(Value::as_str).collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[1].contains("elsewhere than in `/srv/ledger`"),
            "{said:?}"
        );
    }
}
