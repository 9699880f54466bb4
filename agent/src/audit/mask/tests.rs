//! Tests of masking: what must go, and what must stay readable.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const LETTERS: &str = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6";

#[test]
fn of_claims_only_what_is_read_is_told() {
    let token = json!({
        "iss": "i", "sub": "s", "email": "ann@example.com",
        "appid": "x", "AppId": "y", "client_secret": "hunter2",
        "realm": { "roles": ["a", "b"], "name": "n" },
        "orgs": [{ "id": 1, "mail": "o@example.com" }, { "id": 2 }],
        "address": "Main Street 5",
        "note": format!("a ghp_{LETTERS}"),
    });
    let told = |read: &[&str]| claims(&token, read.iter().copied());
    let (found, read) = told(&["/appid", "/none", "/orgs/*/id", "/realm/roles"]);
    assert_eq!(
        found.unwrap(),
        json!({
            "appid": "x", "AppId": null,
            "orgs": [{ "id": 1 }, { "id": 2 }],
            "realm": { "roles": ["a", "b"] },
        })
    );
    assert_eq!(read, ["/appid", "/none", "/orgs/*/id", "/realm/roles"]);
    let (found, _) = told(&["/address/country", "/orgs/1/id", "/client_secret", "/note"]);
    assert_eq!(
        found.unwrap(),
        json!({ "address": null, "orgs": [null, { "id": 2 }], "client_secret": MASK, "note": format!("a {MASK}") })
    );
    assert_eq!(told(&["/none"]), (None, vec!["/none".into()]));
    let (found, _) = told(&[]);
    assert_eq!(found, None);
    // One that is too long is told to be, and of too much nothing is told.
    let groups: Vec<_> = (0..500).map(|number| format!("group {number}")).collect();
    let long = json!({ "groups": groups, "appid": "x" });
    let (found, _) = claims(&long, ["/appid", "/groups"]);
    let found = found.unwrap();
    assert_eq!(found["appid"], "x");
    let note = found["groups"].as_str().unwrap();
    assert!(
        note.ends_with(" bytes]") && !crate::audit::is_whole(note),
        "{note}"
    );
    let text = "x ".repeat(200);
    let many = json!(
        (0..40)
            .map(|number| (format!("c{number}"), json!(text)))
            .collect::<std::collections::BTreeMap<_, _>>()
    );
    assert_eq!(claims(&many, ["/*"]), (None, Vec::new()));
    let pointers: Vec<_> = (0..100).map(|number| format!("/p{number}")).collect();
    let (_, read) = claims(&token, pointers.iter().map(String::as_str));
    assert_eq!(read.len(), 64);
}

#[test]
fn private_keys_are_masked_to_their_end() {
    for (input, expected) in [
        (
            "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----",
            "[masked]",
        ),
        (
            "private_key=-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY----- b",
            "private_key=[masked] b",
        ),
        (
            "the key: '-----BEGIN PRIVATE KEY-----\nabc\n",
            "the key: '[masked]",
        ),
        (
            "-----BEGIN PRIVATE KEY-----\nabc\n-----END € b",
            "[masked]€ b",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nabc",
            "-----BEGIN CERTIFICATE-----\nabc",
        ),
        (
            "-----BEGIN PGP PRIVATE KEY BLOCK-----\nabc\n-----END PGP PRIVATE KEY BLOCK-----",
            "[masked]",
        ),
        (
            "x-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----y",
            "x[masked]y",
        ),
        (
            r"a\n-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\nb",
            r"a\n[masked]\nb",
        ),
        (
            "-----BEGIN PRIVATE KEY-----a-----END -----BEGIN PRIVATE KEY-----b",
            "[masked][masked]",
        ),
        (
            "cookie: -----BEGIN PRIVATE KEY-----a-----END A----- -----BEGIN PRIVATE KEY-----\nb",
            "cookie: [masked]",
        ),
    ] {
        assert_eq!(text(input), expected, "{input}");
        assert_eq!(text(expected), expected, "masking again changes nothing");
    }
}

/// A certificate or the parameters of a curve, then a key, with `end` between all lines.
fn bundle(first: &str, label: &str, end: &str) -> String {
    [
        &*format!("-----BEGIN {first}-----"),
        "publicpublic",
        &*format!("-----END {first}-----"),
        &*format!("-----BEGIN {label}-----"),
        BODY,
        BODY,
        &*format!("-----END {label}-----"),
        "after",
    ]
    .join(end)
}

#[test]
fn of_what_stands_before_a_private_key_all_is_left() {
    for (first, label) in [
        ("CERTIFICATE", "PRIVATE KEY"),
        ("EC PARAMETERS", "EC PRIVATE KEY"),
    ] {
        for end in ["\n", "\r\n", r"\n", r"\r\n", r"\\n", " ", "n", ""] {
            let pem = bundle(first, label, end);
            let public =
                format!("-----BEGIN {first}-----{end}publicpublic{end}-----END {first}-----");
            assert_eq!(text(&pem), format!("{public}{end}{MASK}{end}after"));
            // A tool that takes JSON in a string.
            let nested = json!({ "pem": pem }).to_string();
            let (told, _) = arguments::<&str>(&json!({ "a": pem, "b": nested }), &[]);
            let told = told.to_string();
            assert!(
                told.contains("publicpublic") && told.contains("after"),
                "{told}"
            );
            assert!(!told.contains(LEFT), "{told}");
        }
    }
}

/// Of a private key.
const BODY: &str = "bbbbbbbb/bbbbbbbb+bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
/// Too much of it.
const LEFT: &str = "bbbbbbbb";

/// What may change how a private key is read that stands beside it.
fn around() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY",
        "-----BEGIN CERTIFICATE-----",
        "-----BEGIN ",
        "-----END PRIVATE KEY-----",
        "-----END CERTIFICATE",
        "-----END ",
        "-----",
        "--",
        "a long label that is cut where no dashes end it: 59 letters",
        "MIIC",
        "x",
        "n",
        "\\n",
        "\n",
        "\r",
        " ",
        "\\",
        "\"",
        "'",
        ",",
        "\u{20ac}",
        "password=",
        "\"token\": \"",
        "\\\"key\\\":\\\"",
        "cookie: ",
        "bearer ",
        "https://u:p",
        "@",
        "ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6",
    ]);
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]
    #[test]
    fn what_leaves_a_private_key_open_is_masked_to_its_end(said in around()) {
        let masked = text(&said);
        prop_assert!(!leaves_key_open(&said) || masked.ends_with(MASK), "{masked}");
    }

    #[test]
    fn nothing_around_a_private_key_shows_it(
        before in around(),
        label in prop::sample::select(vec!["PRIVATE KEY", "EC PRIVATE KEY", "PGP PRIVATE KEY BLOCK"]),
        end in prop::sample::select(vec!["\n", "\r\n", "\\n", "\\\\n", " "]),
        after in around(),
    ) {
        let key = format!("-----BEGIN {label}-----{end}{BODY}{end}{BODY}{end}-----END {label}-----");
        let said = format!("{before}{key}{after}");
        let masked = text(&said);
        prop_assert!(!masked.contains(LEFT), "{said}: {masked}");
        let (told, _) = arguments::<&str>(&json!({ "a": said, "b": json!([said]).to_string() }), &[]);
        prop_assert!(!told.to_string().contains(LEFT), "{said}: {told}");
    }
}

#[test]
fn shapes_and_what_stands_after_telling_words_are_masked() {
    for (input, expected) in [
        ("nothing here", "nothing here"),
        (&*format!("token ghp_{LETTERS}."), "token [masked]"),
        (&*format!("(glpat-{LETTERS})"), "([masked])"),
        (&*format!("a_sk-{LETTERS}"), "a_[masked]"),
        (
            &*format!("\u{e9}ghp_{LETTERS}\u{e9}"),
            "\u{e9}[masked]\u{e9}",
        ),
        ("AKIAABCDEFGHIJKLMNOP", "[masked]"),
        ("AKIA short", "AKIA short"),
        ("Authorization: Bearer abcdef123", "Authorization: [masked]"),
        (
            "authorization: basic dXNlcjpwYXNz\nnext: line",
            "authorization: [masked]\nnext: line",
        ),
        ("got bearer abc123def from", "got bearer [masked] from"),
        ("basic authentication failed", "basic authentication failed"),
        ("cookie: a=b; c=d", "cookie: [masked]"),
        ("https://user:pass@host/x", "https://[masked]@host/x"),
        ("https://host/x@y", "https://host/x@y"),
        ("password=hunter2&x=1", "password=[masked]&x=1"),
        (
            r#"{"client_secret": "a b", "x": 1}"#,
            r#"{"client_secret": "[masked]", "x": 1}"#,
        ),
        (
            r#"{\"password\":\"ab\",\"x\":1}"#,
            r#"{\"password\":\"[masked]\",\"x\":1}"#,
        ),
        (
            r#"{"password":"a\"b","x":1}"#,
            r#"{"password":"[masked]","x":1}"#,
        ),
        ("DB_PASSWORD: 'x y'", "DB_PASSWORD: '[masked]'"),
        ("monkey=banana", "monkey=banana"),
        (
            "connect to 127.0.0.1:443: refused",
            "connect to 127.0.0.1:443: refused",
        ),
    ] {
        assert_eq!(text(input), expected, "{input}");
        assert_eq!(text(expected), expected, "masking again changes nothing");
    }
}

#[test]
fn paths_keep_their_form() {
    for (input, expected) in [
        ("/repos/acme/x?per_page=3", "/repos/acme/x?per_page=3"),
        ("/a%20b?q=c%20d", "/a%20b?q=c%20d"),
        ("/x?access_token=abc&y=1", "/x?access_token=[masked]&y=1"),
        ("/x?access%5Ftoken=abc", "/x?access%5Ftoken=[masked]"),
        ("/x?acce%2573s_token=abc", "/x?acce%2573s_token=[masked]"),
        ("/x?a=1;sig=abc#code=2", "/x?a=1;sig=[masked]#code=[masked]"),
        (
            "/x?X-Amz-Signature=ab&X-Amz-Date=1",
            "/x?X-Amz-Signature=[masked]&X-Amz-Date=1",
        ),
        ("/message?sessionId=0b1c", "/message?sessionId=[masked]"),
        ("http://me:pw@host/x?a=b", "http://[masked]@host/x?a=b"),
        (
            "/bot%67hp_a1B2c3D4e5F6g7H8i9J0/x",
            "/bot%67hp_a1B2c3D4e5F6g7H8i9J0/x",
        ),
        ("/%67hp_a1B2c3D4e5F6g7H8i9J0/x", "/[masked]/x"),
    ] {
        assert_eq!(path(input), expected, "{input}");
    }
}

#[test]
fn names_of_headers_that_carry_secrets_tell() {
    for name in [
        "Authorization",
        "authorization",
        "proxy-authorization",
        "Cookie",
        "set-cookie",
        "X-Api-Key",
        "api-key",
        "Mcp-Session-Id",
        "x-amz-security-token",
        "X-Auth-Token",
        "PRIVATE-TOKEN",
        "dpop",
        "x-csrf-token",
    ] {
        assert!(is_telling(name), "{name}");
    }
    assert!(!is_telling("content-type"));
}

#[test]
fn a_command_loses_what_follows_a_telling_flag() {
    let masked = command([
        "--token",
        "abc",
        "--port",
        "80",
        "--password=x",
        "-v",
        "file",
    ]);
    let masked: Vec<_> = masked.iter().map(Text::as_str).collect();
    assert_eq!(
        masked,
        [
            "--token",
            "[masked]",
            "--port",
            "80",
            "--password=[masked]",
            "-v",
            "file"
        ]
    );
    assert_eq!(command(vec!["x"; 100]).len(), 65);
}

#[test]
fn arguments_are_masked_by_key_shape_and_pointer() {
    let value = json!({
        "customer": {"email": "a@b", "name": "n", "max_tokens": 5, "pin": 1234},
        "list": [{"email": "c@d"}, "plain"],
        "password": {"old": "x", "new": ["y"]},
        "a/b": "hidden",
    });
    let (masked, cut) = arguments(&value, &["/customer/email", "/list/*/email", "/a~1b"]);
    assert!(!cut);
    assert_eq!(
        masked,
        json!({
            "customer": {"email": MASK, "name": "n", "max_tokens": 5, "pin": MASK},
            "list": [{"email": MASK}, "plain"],
            "password": {"old": MASK, "new": [MASK]},
            "a/b": MASK,
        })
    );
    let (masked, _) = arguments(&value, &["/CUSTOMER", "/list/*", "/none/*"]);
    assert_eq!(masked["customer"], MASK);
    assert_eq!(masked["list"], json!([MASK, MASK]));
    let large = json!({"items": vec!["some text"; 1_000], "n": null});
    let (masked, cut) = arguments(&large, &["/items", "/n"]);
    assert!(!cut, "what is left out needs no room");
    assert_eq!(masked, json!({"items": MASK, "n": MASK}));
}

#[test]
fn large_arguments_are_named_but_not_recorded() {
    let value = json!({"items": vec!["some text"; 1_000], "text": "x".repeat(9_000), "n": 1});
    let (masked, cut) = arguments::<&str>(&value, &[]);
    assert!(cut);
    let expected =
        json!({"items": "[array of 1000]", "text": "[string of 9000 bytes]", "n": "[number]"});
    assert_eq!(masked, expected);
    let long = json!({"text": format!("{} ghp_{LETTERS}", "word ".repeat(2_000))});
    let (masked, cut) = arguments::<&str>(&long, &[]);
    assert!(!cut && masked.to_string().len() < 600 && !masked.to_string().contains("ghp_"));
}

#[test]
fn texts_are_bounded_and_never_end_in_half_a_secret() {
    use crate::audit::MAX_TEXT;
    for padding in [MAX_TEXT - 10, 16 * 1_024 - 10, 16 * 1_024 - 40] {
        let input = format!("{} ghp_{LETTERS} tail", "x".repeat(padding));
        let text = Text::new(&input);
        assert!(text.len() < MAX_TEXT + 32);
        assert!(!text.contains("ghp_"), "{text}");
        // Many secrets shrink to few bytes, so that the bound of what is looked at is reached.
        let many = format!("ghp_{LETTERS} ").repeat(padding / 37) + &"ghp_a1B2".repeat(5_000);
        assert!(!Text::new(&many).contains("a1B2"));
    }
    assert!(Text::new(&"\u{20ac}".repeat(1_000)).ends_with(" bytes]"));
}
