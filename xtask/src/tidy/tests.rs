//! The repository obeys the rules, and the rules see what they are for.

use super::rules::{faults, long};
use super::{Source, read};
use crate::shell;

fn source(path: &str, text: &str) -> Source {
    Source {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

/// A repository that obeys, with one file more.
fn with(path: &str, text: &str) -> Vec<String> {
    let sources = [
        source("Cargo.toml", "members = [\"agent\"]\n"),
        source("agent/Cargo.toml", "[lints]\nworkspace = true\n"),
        source(
            "agent/src/decide/mod.rs",
            "//! Decides.\nlet v = evaluate(&set);\n",
        ),
        source(path, text),
    ];
    faults(&sources)
}

#[test]
fn this_repository_is_tidy() {
    let sources = read(&shell::root().unwrap()).unwrap();
    let found = faults(&sources);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn what_obeys_is_let_through() {
    let text = "//! Reads.\nuse crate::controls;\n// crate::gate is elsewhere\nlet evaluated = re_evaluate(x);\n";
    assert_eq!(with("agent/src/decode/mod.rs", text), Vec::<String>::new());
    assert!(
        with(
            "README.md",
            "[a](agent/src/decide/mod.rs#x) [b](https://x.example)"
        )
        .is_empty()
    );
    assert!(
        with(
            "ebpf/host/src/a.rs",
            "//! Loads.\nlet a = unsafe { b() };\n"
        )
        .is_empty()
    );
    assert!(
        with(
            "ebpf/probes/src/a.rs",
            "//! Reads.\n// SAFETY: it is never null, and\n// it lives on.\nlet a = unsafe { b() };\n"
        )
        .is_empty()
    );
}

#[test]
fn a_member_without_the_lints_is_named() {
    let sources = [
        source("Cargo.toml", "members = [\"agent\"]\n"),
        source("agent/Cargo.toml", ""),
    ];
    let found = faults(&sources);
    assert!(found.iter().any(|fault| fault.contains("[lints]")));
}

#[test]
fn what_breaks_a_rule_is_named() {
    let unfinished = format!("//! A.\n// {}: later\n", concat!("TO", "DO"));
    for (path, text, wanted) in [
        ("agent/src/tls/a.rs", "fn a() {}\n", "first line"),
        ("agent/src/tls/a.rs", unfinished.as_str(), ":2: `"),
        (
            "agent/src/tls/a.rs",
            "//! A.\nuse crate::gate::X;\n",
            "must not know `gate`",
        ),
        (
            "agent/src/replay/a.rs",
            "//! A.\nuse crate::forward::X;\n",
            "must not know `forward`",
        ),
        (
            "agent/src/audit/a.rs",
            "//! A.\nuse crate::replay;\n",
            "must not know `replay`",
        ),
        (
            "agent/src/flow/a.rs",
            "//! A.\nlet a = unsafe { b() };\n",
            "unsafe code",
        ),
        (
            "ebpf/probes/src/a.rs",
            "//! A.\n// It is fine.\nlet a = unsafe { b() };\n",
            "without a `SAFETY` comment",
        ),
        (
            "agent/src/flow/a.rs",
            "//! A.\nlet a = Permit { b };\n",
            "only `decide`",
        ),
        (
            "agent/src/flow/a.rs",
            "//! A.\nlet a = evaluate(&s);\n",
            "called once",
        ),
        ("agent/src/flow/a.rs", "//! A. \n", "blank at the end"),
        ("README.md", "[a](docs/none.md)\n", "which is not there"),
        (
            "tests/package-lock.json",
            "\"resolved\": \"x\"\n",
            "one registry",
        ),
    ] {
        let found = with(path, text);
        assert!(
            found.iter().any(|fault| fault.contains(wanted)),
            "{path}: {found:?}"
        );
    }
}

#[test]
fn length_is_a_warning_first() {
    let lines = |count: usize| format!("//! A.\n{}", "x\n".repeat(count - 1));
    assert!(long(&[source("a.rs", &lines(400))]).is_empty());
    assert_eq!(long(&[source("a.rs", &lines(401))]), ["a.rs: 401 lines"]);
    assert!(with("agent/src/a.rs", &lines(700)).is_empty());
    assert_eq!(with("agent/src/a.rs", &lines(701)).len(), 1);
}
