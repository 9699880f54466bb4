//! Files as careless and as hostile people write them.

use proptest::prelude::*;

use super::*;

fn source(text: &str) -> Source {
    Source {
        name: "f.yaml".to_owned(),
        text: text.to_owned(),
    }
}

fn faults(text: &str) -> Vec<String> {
    read(&source(text)).map_or_else(
        |faults| faults.iter().map(ToString::to_string).collect(),
        |_| Vec::new(),
    )
}

#[test]
fn what_reads_differently_than_it_looks_is_refused() {
    for (text, message) in [
        ("a: 1\na: 2\n", "f.yaml:2:1: `a` stands here twice"),
        ("a: 1\n\"a\": 2\n", "f.yaml:2:1: `a` stands here twice"),
        ("{a: 1, b: 2, a: 3}", "f.yaml:1:14: `a` stands here twice"),
        ("a: &x 1\n", "f.yaml:1:4: anchors (`&name`) are not allowed"),
        ("a: !!str 1\n", "f.yaml:1:4: tags (`!name`) are not allowed"),
        (
            "<<: {a: 1}\n",
            "f.yaml:1:1: merge keys (`<<`) are not allowed",
        ),
        (
            "[a]: 1\n",
            "f.yaml:1:1: a key must be a plain word or a quoted text",
        ),
        (
            "? {a: 1}\n: 2\n",
            "f.yaml:1:3: a key must be a plain word or a quoted text",
        ),
        (": 1\n", "f.yaml:1:1: a key is missing before `:`"),
        (
            "a: 1\n---\nb: 2\n",
            "f.yaml:2:1: only one document may stand in a file",
        ),
        ("", "f.yaml:1:1: the file is empty"),
        ("# only a comment\n", "f.yaml:1:1: the file is empty"),
        (
            "a: 1\nb: \u{7}\n",
            "f.yaml:2:4: the file holds a control character",
        ),
        ("a: \0", "f.yaml:1:4: the file holds a control character"),
    ] {
        assert_eq!(faults(text), [message], "{text:?}");
    }
}

#[test]
fn a_name_that_stands_twice_is_found_in_mappings_of_any_size() {
    let text = |names: &[usize]| {
        let lines: Vec<String> = names.iter().map(|name| format!("k{name}: 1")).collect();
        lines.join("\n")
    };
    for last in 1..40 {
        for first in 0..last {
            let mut names: Vec<usize> = (0..last).collect();
            assert_eq!(faults(&text(&names)), [""; 0]);
            names.push(first);
            let expected = format!("f.yaml:{}:1: `k{first}` stands here twice", last + 1);
            assert_eq!(faults(&text(&names)), [expected], "{names:?}");
        }
    }
}

#[test]
fn several_faults_are_reported_at_once() {
    assert_eq!(
        faults("a: &x 1\nb: *x\nb: !t 2\n"),
        [
            "f.yaml:1:4: anchors (`&name`) are not allowed",
            "f.yaml:2:4: aliases (`*name`) are not allowed",
            "f.yaml:3:1: `b` stands here twice",
            "f.yaml:3:4: tags (`!name`) are not allowed",
        ]
    );
}

#[test]
fn json_is_yaml() {
    let node = read(&source(
        r#"{"a": ["x", 1, true, null], "b": {"c": "\u00e9\n"}}"#,
    ))
    .unwrap();
    let Value::Map(entries) = node.value else {
        panic!("not a mapping")
    };
    assert_eq!(entries[0].key, "a");
    let Value::List(items) = &entries[0].value.value else {
        panic!("not a list")
    };
    assert_eq!(
        items.iter().map(Node::kind).collect::<Vec<_>>(),
        ["a text", "a number", "true or false", "nothing"]
    );
}

#[test]
fn plain_scalars_have_the_types_of_yaml_1_2() {
    for (text, kind) in [
        ("no", "a text"),
        ("1.10", "a number"),
        ("7f3c0a", "a text"),
        ("1e3", "a number"),
        ("0x1F", "a number"),
        ("0o17", "a number"),
        ("-5", "a number"),
        (".5", "a number"),
        ("-.inf", "a number"),
        ("2027-01-01", "a text"),
        ("10:30", "a text"),
        ("infinity", "a text"),
        ("nan", "a text"),
        ("'12'", "a text"),
        ("True", "true or false"),
        ("~", "nothing"),
        ("", "nothing"),
    ] {
        let node = read(&source(&format!("a: {text}\n"))).unwrap();
        let Value::Map(entries) = node.value else {
            panic!("not a mapping")
        };
        assert_eq!(entries[0].value.kind(), kind, "{text}");
    }
}

#[test]
fn bombs_do_not_go_off() {
    for hostile in ["[", "{a: ", "- ", "? ", "{", "[{"] {
        assert!(!faults(&hostile.repeat(100_000)).is_empty(), "{hostile}");
    }
    let deep = format!("{}1{}", "[".repeat(33), "]".repeat(33));
    assert_eq!(faults(&deep), ["f.yaml:1:33: nested deeper than 32 levels"]);
    let deep = format!("{}1{}", "[".repeat(32), "]".repeat(32));
    assert_eq!(faults(&deep), [""; 0]);
    let laughs = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n";
    assert_eq!(faults(laughs).len(), 6);
    let wide = format!("[{}]", "1,".repeat(NODES_MAX));
    assert_eq!(faults(&wide).len(), 1);
    let large = "#".repeat(SIZE_MAX + 1);
    assert_eq!(
        faults(&large),
        ["f.yaml:1:1: the file is larger than 8388608 bytes"]
    );
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        let _outcome = read(&source(&text)).is_ok();
    }

    #[test]
    fn any_mix_of_yaml_is_read_or_refused(
        parts in proptest::collection::vec(
            prop::sample::select(vec![
                "a", ": ", "- ", "\n", "  ", "[", "]", "{", "}", ",", "&x ", "*x", "!t ", "|", ">", "'", "\"",
                "#", "? ", "---\n", "...\n", "%YAML 1.2\n", "<<", "\\", "\t", "\r\n", "é", "\u{2028}", "0", "~",
            ]),
            0..40,
        )
    ) {
        let _outcome = read(&source(&parts.concat())).is_ok();
    }
}
