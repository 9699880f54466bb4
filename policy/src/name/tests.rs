//! Names as attackers write them.

use super::*;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

#[test]
fn hostile_forms_are_not_names() {
    let long_label = format!("{}.example", "a".repeat(64));
    let long_name = format!("{}example", "abcdefg.".repeat(31));
    let cases = [
        ("", NameFault::Empty),
        (".", NameFault::Empty),
        ("..", NameFault::EmptyLabel),
        ("a..b", NameFault::EmptyLabel),
        (".a", NameFault::EmptyLabel),
        ("a.example..", NameFault::EmptyLabel),
        ("a\0.example", NameFault::BadCharacter),
        ("a%2eexample", NameFault::BadCharacter),
        ("a.example\r\nhost: b", NameFault::BadCharacter),
        ("a .example", NameFault::BadCharacter),
        ("a.example:443", NameFault::BadCharacter),
        ("user@a.example", NameFault::BadCharacter),
        ("a.example/", NameFault::BadCharacter),
        ("a\\b.example", NameFault::BadCharacter),
        ("[::1]", NameFault::BadCharacter),
        ("::1", NameFault::BadCharacter),
        ("fe80::1%eth0", NameFault::BadCharacter),
        ("*.example", NameFault::BadCharacter),
        ("127.0.0.1", NameFault::Numeric),
        ("127.0.0.1.", NameFault::Numeric),
        ("127.1", NameFault::Numeric),
        ("0x7f.1", NameFault::Numeric),
        ("0x7f000001", NameFault::Numeric),
        ("0X7F000001", NameFault::Numeric),
        ("0x", NameFault::Numeric),
        ("2130706433", NameFault::Numeric),
        ("0177.0.0.01", NameFault::Numeric),
        ("example.1", NameFault::Numeric),
        ("ｅxample.com", NameFault::NotAscii),
        ("bücher.example", NameFault::NotAscii),
        ("example。com", NameFault::NotAscii),
        ("-a.example", NameFault::Hyphen),
        ("a-.example", NameFault::Hyphen),
        (long_label.as_str(), NameFault::LabelTooLong),
        (long_name.as_str(), NameFault::TooLong),
    ];
    for (text, fault) in cases {
        assert_eq!(Name::parse(text), Err(fault), "{text:?}");
    }
}

#[test]
fn names_are_folded_once() {
    for (text, folded) in [
        ("API.GitHub.com", "api.github.com"),
        ("api.github.com.", "api.github.com"),
        ("_dmarc.example.com", "_dmarc.example.com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("localhost", "localhost"),
        ("r3---sn-x.example", "r3---sn-x.example"),
        ("1.2.3.example", "1.2.3.example"),
        ("0x7f.example", "0x7f.example"),
    ] {
        assert_eq!(name(text).as_str(), folded);
        assert_eq!(name(folded), name(text));
    }
    assert_eq!(name(&"a.".repeat(126)).as_str().len(), 251);
}

#[test]
fn a_wildcard_covers_what_is_below_and_nothing_else() {
    let pattern = HostPattern::parse("*.X.example").unwrap();
    for below in ["a.x.example", "a.b.x.example", "A.X.EXAMPLE."] {
        assert!(pattern.matches(&name(below)), "{below}");
    }
    for outside in [
        "x.example",
        "evilx.example",
        "x.example.evil.com",
        "example",
        "a.x.example.co",
    ] {
        assert!(!pattern.matches(&name(outside)), "{outside}");
    }
}

#[test]
fn wide_wildcards_are_refused() {
    for (text, fault) in [
        ("*", HostFault::Everything),
        ("*.com", HostFault::Registry),
        ("*.co.uk", HostFault::Registry),
        ("*.com.au", HostFault::Registry),
        ("*.*.example.com", HostFault::Star),
        ("api-*.example.com", HostFault::Star),
        ("*example.com", HostFault::Star),
        ("a.*.com", HostFault::Star),
        ("**.example.com", HostFault::Star),
        ("*.", HostFault::Name(NameFault::Empty)),
        ("*.127.1", HostFault::Name(NameFault::Numeric)),
    ] {
        assert_eq!(HostPattern::parse(text), Err(fault), "{text}");
    }
    assert!(matches!(
        HostPattern::parse("*.example.co.uk"),
        Ok(HostPattern::Below(_))
    ));
    assert!(matches!(
        HostPattern::parse("*.githubusercontent.com"),
        Ok(HostPattern::Below(_))
    ));
}
