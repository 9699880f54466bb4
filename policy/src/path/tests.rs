//! Paths as attackers write them.

use super::*;

#[test]
fn what_servers_read_in_more_than_one_way_is_refused() {
    let long = format!("/{}", "a".repeat(PATH_MAX));
    for (raw, fault) in [
        ("", PathFault::NotAbsolute),
        ("repos", PathFault::NotAbsolute),
        ("*", PathFault::NotAbsolute),
        ("https://other.example/repos", PathFault::NotAbsolute),
        ("/a/../b", PathFault::DotSegment),
        ("/a/./b", PathFault::DotSegment),
        ("/..", PathFault::DotSegment),
        ("/a/..;x=1/b", PathFault::DotSegment),
        ("/a/.;/b", PathFault::DotSegment),
        ("/a/%2e%2e/b", PathFault::EscapedDot),
        ("/a/%2E./b", PathFault::EscapedDot),
        ("//a", PathFault::EmptySegment),
        ("/a//b", PathFault::EmptySegment),
        ("/a/;x/b", PathFault::EmptySegment),
        ("/a%2fb", PathFault::EscapedSlash),
        ("/a%5Cb", PathFault::EscapedSlash),
        ("/a\\b", PathFault::Backslash),
        ("/a%00", PathFault::Nul),
        ("/a%252e", PathFault::DoubleEscape),
        ("/a%", PathFault::BadEscape),
        ("/a%2", PathFault::BadEscape),
        ("/a%zz", PathFault::BadEscape),
        ("/a?b", PathFault::Query),
        ("/a#b", PathFault::Query),
        ("/a b", PathFault::BadCharacter),
        ("/a\u{e9}", PathFault::BadCharacter),
        ("/a\r\nhost: b", PathFault::BadCharacter),
        ("/a\0", PathFault::BadCharacter),
        (long.as_str(), PathFault::TooLong),
    ] {
        assert_eq!(normalise_path(raw), Err(fault), "{raw:?}");
    }
}

#[test]
fn equal_paths_get_one_form() {
    for (raw, normal) in [
        ("/", "/"),
        ("/a/", "/a/"),
        ("/%61%2D%5f%7e", "/a-_~"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a%20b", "/a%20b"),
        ("/a;v=1/b", "/a;v=1/b"),
        ("/...", "/..."),
        ("/.well-known/x", "/.well-known/x"),
        ("/a@b:c,d+e=f&g$h'i(j)k*l!m", "/a@b:c,d+e=f&g$h'i(j)k*l!m"),
    ] {
        assert_eq!(normalise_path(raw).unwrap(), normal);
    }
}

#[test]
fn patterns_stay_within_their_segments() {
    for (pattern, path, matches) in [
        ("/repos/acme/**", "/repos/acme", true),
        ("/repos/acme/**", "/repos/acme/", true),
        ("/repos/acme/**", "/repos/acme/x/y", true),
        ("/repos/acme/**", "/repos/acmeevil/x", false),
        ("/repos/acme/**", "/repos", false),
        ("/repos/*/issues", "/repos/x/issues", true),
        ("/repos/*/issues", "/repos/x/y/issues", false),
        ("/repos/*/issues", "/repos//issues", true),
        ("/**/issues", "/a/b/issues", true),
        ("/**/issues", "/issues", true),
        ("/v?/x", "/v1/x", true),
        ("/v?/x", "/v12/x", false),
        ("/search", "/search/", false),
        ("/search", "/Search", false),
        ("/", "/", true),
        ("/", "/a", false),
        ("/**", "/", true),
    ] {
        assert_eq!(
            PathGlob::parse(pattern).unwrap().matches(path),
            matches,
            "{pattern} {path}"
        );
    }
}
