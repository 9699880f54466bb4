//! Hostile texts first: every disagreement that was measured between parsers, then the properties.

use proptest::prelude::*;

use super::{FaultKind, Limits, Object, Value, parse};
use crate::decode::oracle;

fn fault(text: impl AsRef<[u8]>) -> FaultKind {
    parse(text.as_ref(), &Limits::REQUEST)
        .expect_err("must be refused")
        .kind
}

fn rewritten(text: &str) -> String {
    parse(text.as_bytes(), &Limits::REQUEST)
        .expect("must be accepted")
        .to_text()
}

#[test]
fn what_parsers_disagree_about_is_refused() {
    use FaultKind as F;
    let rows: &[(&[u8], F)] = &[
        (
            br#"{"method":"tools/list","method":"tools/call"}"#,
            F::DuplicateKey,
        ),
        (
            br#"{"params":{"name":"a","n\u0061me":"b"}}"#,
            F::DuplicateKey,
        ),
        (
            br#"{"params":{"name":"a"},"params":{"arguments":{}}}"#,
            F::DuplicateKey,
        ),
        (b"{\"\":1,\"\":2}", F::DuplicateKey),
        (b"{\"a\":NaN}", F::Syntax),
        (b"[Infinity]", F::Syntax),
        (b"[-Infinity]", F::NumberSyntax),
        (b"[1e400]", F::NotFinite),
        (b"[-1e999]", F::NotFinite),
        (b"\xEF\xBB\xBF{}", F::ByteOrderMark),
        (b"\xFF\xFE{\0}\0", F::NotUtf8),
        (b"{\0}\0", F::Syntax),
        (b"\0{\0}", F::Syntax),
        (b"[\"\xFF\"]", F::NotUtf8),
        (b"[\"\xC0\xAF\"]", F::NotUtf8),
        // CESU-8: a surrogate pair as two three-byte sequences.
        (b"[\"\xED\xA0\xBD\xED\xB8\x80\"]", F::NotUtf8),
        (br#"["\ud800"]"#, F::LoneSurrogate),
        (br#"["\ud800\ud800"]"#, F::LoneSurrogate),
        (br#"["\udc00\ud800"]"#, F::LoneSurrogate),
        (br#"["\ud800x"]"#, F::LoneSurrogate),
        (br#"["\ud800\n"]"#, F::LoneSurrogate),
        (br#"{"m\ud800":1,"m\ud801":2}"#, F::LoneSurrogate),
        (b"{} x", F::TrailingData),
        (b"{}{}", F::TrailingData),
        (b"{}\0", F::TrailingData),
        (b"[\"a\nb\"]", F::ControlCharacter),
        (b"[\"a\0b\"]", F::ControlCharacter),
        (b"[\"\x1f\"]", F::ControlCharacter),
    ];
    for (text, kind) in rows {
        assert_eq!(fault(text), *kind, "{}", String::from_utf8_lossy(text));
    }
}

/// The `n_` files of `JSONTestSuite` in kind.
#[test]
fn what_is_not_json_is_refused() {
    use FaultKind as F;
    let rows: &[(&str, F)] = &[
        ("", F::Empty),
        (" \t\r\n", F::Empty),
        ("[1,]", F::Syntax),
        ("[,1]", F::Syntax),
        ("[1,,2]", F::Syntax),
        ("[1 2]", F::Syntax),
        ("[1", F::UnexpectedEnd),
        ("[", F::UnexpectedEnd),
        ("{", F::UnexpectedEnd),
        ("{\"a\"", F::UnexpectedEnd),
        ("{\"a\":", F::UnexpectedEnd),
        ("{\"a\":1", F::UnexpectedEnd),
        ("{\"a\":1,}", F::Syntax),
        ("{,}", F::Syntax),
        ("{a:1}", F::Syntax),
        ("{'a':1}", F::Syntax),
        ("{\"a\" 1}", F::Syntax),
        ("{\"a\"::1}", F::Syntax),
        ("{1:1}", F::Syntax),
        ("[\"a", F::UnexpectedEnd),
        ("[\"\\", F::UnexpectedEnd),
        ("[\"\\u00", F::UnexpectedEnd),
        ("[\"\\u00g0\"]", F::BadEscape),
        ("[\"\\x41\"]", F::BadEscape),
        ("[\"\\a\"]", F::BadEscape),
        ("[\"\\U0041\"]", F::BadEscape),
        ("['a']", F::Syntax),
        ("[01]", F::NumberSyntax),
        ("[-01]", F::NumberSyntax),
        ("[+1]", F::Syntax),
        ("[.5]", F::Syntax),
        ("[1.]", F::NumberSyntax),
        ("[1.e1]", F::NumberSyntax),
        ("[1e]", F::NumberSyntax),
        ("[1e+]", F::NumberSyntax),
        ("[-]", F::NumberSyntax),
        ("-", F::UnexpectedEnd),
        ("[0x1]", F::Syntax),
        ("[1_000]", F::Syntax),
        ("[nul]", F::Syntax),
        ("nul", F::UnexpectedEnd),
        ("[True]", F::Syntax),
        ("[truex]", F::Syntax),
        ("[\u{a0}1]", F::Syntax),
        ("[\u{c}1]", F::Syntax),
        ("\u{feff}[]", F::ByteOrderMark),
        ("[1]//", F::TrailingData),
        ("/**/[1]", F::Syntax),
        ("[1]]", F::TrailingData),
        ("]", F::Syntax),
        ("{\"a\":1]", F::Syntax),
        ("[\u{ff11}]", F::Syntax),
    ];
    for (text, kind) in rows {
        assert_eq!(fault(text), *kind, "{text:?}");
    }
}

#[test]
fn what_all_read_alike_is_written_in_one_form() {
    let rows = [
        (" { \"a\" :\r[ 1 ,\t2 ]\n} ", r#"{"a":[1,2]}"#),
        (r#""tools\/call""#, r#""tools/call""#),
        (r#""d\u0061nger""#, r#""danger""#),
        (r#""\ud83d\ude00""#, "\"\u{1f600}\""),
        (
            r#""\u0000\u001f\b\f\n\r\t\"\\""#,
            r#""\u0000\u001f\b\f\n\r\t\"\\""#,
        ),
        (
            "\"\u{85}\u{2028}\u{2029}\u{7f}\"",
            "\"\\u0085\\u2028\\u2029\u{7f}\"",
        ),
        ("\"\u{c2}\u{e2}\u{2027}\"", "\"\u{c2}\u{e2}\u{2027}\""),
        ("9007199254740993", "9007199254740993"),
        ("1.0", "1.0"),
        ("-0", "-0"),
        ("1E+2", "1E+2"),
        ("1e-400", "1e-400"),
        ("0.1e1", "0.1e1"),
        ("null", "null"),
        ("true", "true"),
        ("false", "false"),
        ("[]", "[]"),
        ("{}", "{}"),
        ("\"\"", "\"\""),
        (r#"{"":0}"#, r#"{"":0}"#),
        (r#"{"b":1,"a":2}"#, r#"{"b":1,"a":2}"#),
    ];
    for (text, canonical) in rows {
        assert_eq!(rewritten(text), canonical, "{text:?}");
        assert_eq!(rewritten(canonical), canonical);
    }
}

#[test]
fn limits_hold_exactly() {
    let depth = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    parse(depth(64).as_bytes(), &Limits::REQUEST).unwrap();
    assert_eq!(fault(depth(65)), FaultKind::TooDeep { limit: 64 });
    assert_eq!(fault(depth(1_000_000)), FaultKind::TooDeep { limit: 64 });
    assert_eq!(
        fault("{\"a\":".repeat(65)),
        FaultKind::TooDeep { limit: 64 }
    );

    let small = Limits {
        bytes: 4,
        ..Limits::REQUEST
    };
    parse(b"1234", &small).unwrap();
    assert_eq!(
        parse(b"12345", &small).unwrap_err().kind,
        FaultKind::TooLarge { limit: 4 }
    );

    let few = Limits {
        values: 3,
        ..Limits::REQUEST
    };
    parse(b"[1,2]", &few).unwrap();
    assert_eq!(
        parse(b"[1,2,3]", &few).unwrap_err().kind,
        FaultKind::TooMany { limit: 3 }
    );

    parse("1".repeat(300).as_bytes(), &Limits::REQUEST).unwrap();
    assert_eq!(
        fault("1".repeat(513)),
        FaultKind::NumberTooLong { limit: 512 }
    );
    assert_eq!(fault("9".repeat(310)), FaultKind::NotFinite);
    parse(
        format!("0.{}", "9".repeat(400)).as_bytes(),
        &Limits::REQUEST,
    )
    .unwrap();
}

#[test]
fn a_fault_names_the_place_and_nothing_else() {
    let fault = parse(br#"{"secret":"s3cr3t","secret":1}"#, &Limits::REQUEST).unwrap_err();
    assert_eq!(fault.offset, 19);
    assert_eq!(fault.to_string(), "duplicate key at byte 19");
    let value = parse(br#"{"password":"s3cr3t"}"#, &Limits::REQUEST).unwrap();
    assert!(!format!("{value:?}").contains("s3cr3t"));
}

#[test]
fn many_keys_are_checked_in_linear_time() {
    let member = |place: usize| format!("\"k{place}\":0");
    let keys: Vec<String> = (0..100_000).map(member).collect();
    let text = format!("{{{}}}", keys.join(","));
    let value = parse(text.as_bytes(), &Limits::REQUEST).unwrap();
    assert_eq!(value.as_object().unwrap().len(), 100_000);
    for place in [0, 11, 12, 13, 99_999] {
        let text = format!("{{{},{}}}", keys.join(","), member(place));
        assert_eq!(fault(text), FaultKind::DuplicateKey);
    }
}

#[test]
fn objects_keep_their_order_when_changed() {
    let mut object = Object::new();
    assert!(object.insert("b", 1).is_none());
    assert!(object.insert("a", "x").is_none());
    assert!(object.insert("b", true).is_some());
    assert_eq!(
        Value::from(object.clone()).to_text(),
        r#"{"b":true,"a":"x"}"#
    );
    assert!(object.remove("b").is_some());
    assert!(object.remove("b").is_none());
    assert_eq!(object.keys().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn integers_are_those_written_as_such() {
    let number = |text: &str| {
        parse(text.as_bytes(), &Limits::REQUEST)
            .unwrap()
            .as_number()
            .unwrap()
            .as_i64()
    };
    assert_eq!(number("-5"), Some(-5));
    assert_eq!(number("9223372036854775807"), Some(i64::MAX));
    for text in ["-0", "1.0", "1e1", "9223372036854775808"] {
        assert_eq!(number(text), None, "{text}");
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>()
            .prop_filter("finite", |f| f.is_finite())
            .prop_map(|f| format!("{f:e}")),
        "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?",
    ]
    .prop_map(|text| parse(text.as_bytes(), &Limits::REQUEST).unwrap());
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        number,
        any::<String>().prop_map(Value::String),
        "[\\x00-\\x1f\"\\\\\u{85}\u{2028}\u{2029}a]{0,12}".prop_map(Value::String),
    ];
    leaf.prop_recursive(6, 48, 16, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..16).prop_map(Value::Array),
            proptest::collection::vec((any::<String>(), inner), 0..20).prop_map(|members| {
                let mut object = Object::new();
                for (key, value) in members {
                    object.insert(key, value);
                }
                Value::Object(object)
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn written_values_read_as_themselves(value in any_value()) {
        let text = value.to_text();
        prop_assert!(!text.contains(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']), "a line end");
        let again = parse(text.as_bytes(), &Limits::REQUEST);
        prop_assert!(again == Ok(value), "{text}");
        oracle::json(text.as_bytes());
    }

    #[test]
    fn bytes_never_divide_the_readers(text in "[\\[\\]{}:,\"\\\\u0-9a-f.eE+\\- ntr]{0,40}") {
        oracle::json(text.as_bytes());
    }

    #[test]
    fn damage_never_divides_the_readers(
        value in any_value(), place in any::<prop::sample::Index>(), byte in any::<u8>()
    ) {
        let mut bytes = value.to_text().into_bytes();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        oracle::json(&bytes);
    }
}
