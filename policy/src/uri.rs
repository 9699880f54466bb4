//! URIs of resources: what else a server may read in one than is written there.

use std::borrow::Cow;

/// How often escapes are resolved. Servers do it once, and some of what stands behind them once more.
const ROUNDS: usize = 3;

/// What a URI may be read as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reading {
    /// What it says.
    AsWritten,
    /// This, which is the same resource in other letters.
    Otherwise(Box<str>),
    /// Anything: it climbs out of the place that it names, or begins nowhere.
    Anywhere,
}

/// Reads a URI as the most lenient of servers does (RFC 3986, 6.2.2 and 5.2.4; WHATWG URL): escapes, `\`, repeated
/// slashes, upper case in scheme and authority, and the ways to write `file:`.
pub(crate) fn read(uri: &str) -> Reading {
    let Some(plain) = resolved(uri) else {
        return Reading::Anywhere;
    };
    // Readers drop what is invisible at the ends, and line ends anywhere.
    if plain.chars().any(char::is_control) || plain.trim() != plain {
        return Reading::Anywhere;
    }
    let plain = plain.replace('\\', "/");
    // `..;x` climbs where parameters of segments are known; whether a `?` ends the path is the server's to say.
    let climbs = |segment: &str| {
        let name = segment.split(';').next().unwrap_or_default();
        matches!(name, "." | "..")
    };
    if plain.split(['/', '?', '#']).any(climbs) {
        return Reading::Anywhere;
    }
    match normal(&plain) {
        Some(normal) if normal == uri => Reading::AsWritten,
        Some(normal) => Reading::Otherwise(normal.into()),
        None => Reading::Anywhere,
    }
}

/// The text without escapes; `None` where it still has some.
fn resolved(uri: &str) -> Option<Cow<'_, str>> {
    let mut text = Cow::Borrowed(uri);
    for _ in 0..ROUNDS {
        match unescaped(&text) {
            Some(other) => text = Cow::Owned(other),
            None => return Some(text),
        }
    }
    unescaped(&text).is_none().then_some(text)
}

/// The text with each escape resolved; `None` where there is none.
fn unescaped(text: &str) -> Option<String> {
    let digit = |byte: &u8| {
        char::from(*byte)
            .to_digit(16)
            .and_then(|it| u8::try_from(it).ok())
    };
    let (mut out, mut rest, mut found) = (Vec::new(), text.as_bytes(), false);
    while let [first, after @ ..] = rest {
        if let (b'%', [high, low, after @ ..]) = (first, after)
            && let (Some(high), Some(low)) = (digit(high), digit(low))
        {
            out.push(high << 4 | low);
            (rest, found) = (after, true);
            continue;
        }
        out.push(*first);
        rest = after;
    }
    found.then(|| String::from_utf8_lossy(&out).into_owned())
}

/// One way to write what can be written in several; `None` for a file whose path has no beginning.
fn normal(plain: &str) -> Option<String> {
    let is_scheme = |text: &str| {
        let mut letters = text.chars();
        letters
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic())
            && letters.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    let split = plain
        .split_once(':')
        .filter(|(scheme, _)| is_scheme(scheme));
    let Some((scheme, rest)) = split else {
        return Some(single_slashes(plain));
    };
    let scheme = scheme.to_ascii_lowercase();
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (authority, path) = rest.split_at_checked(end)?;
            (Some(authority.to_ascii_lowercase()), path)
        }
        None => (None, rest),
    };
    let authority = match authority {
        Some(authority) if scheme == "file" && authority == "localhost" => Some(String::new()),
        None if scheme == "file" => path.starts_with('/').then(|| Some(String::new()))?,
        authority => authority,
    };
    let path = single_slashes(path);
    Some(match authority {
        Some(authority) => format!("{scheme}://{authority}{path}"),
        None => format!("{scheme}:{path}"),
    })
}

/// The text with one slash for several.
fn single_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !out.ends_with('/') {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    /// What paths are made of, and what they are climbed out of by.
    const PARTS: &[&str] = &[
        "a", "etc", "/", "\\", ".", "..", "%2e", "%2E%2e", "%252e", "%2f", "%5c", "%5C..", "%25",
        "2e", ";x", "?", "#", "\t", "\n", " ", "\0", "%00", "ü", "\u{ff0e}", "@", ":", "~",
    ];

    #[test]
    fn ordinary_uris_say_what_they_say() {
        for uri in [
            "file:///srv/docs/a.md",
            "file:///srv/.hidden/a..b/...",
            "https://docs.example/a?x=1#y",
            "memo://insights",
            "note://internal/my note ü",
            "postgres://db.example:5432/main/table/schema",
            "urn:isbn:0451450523",
            "config",
            "100%",
            "file:///{path}",
        ] {
            assert_eq!(read(uri), Reading::AsWritten, "{uri}");
        }
    }

    #[test]
    fn other_ways_to_write_the_same_are_read() {
        for (uri, same) in [
            ("FILE:///etc/x", "file:///etc/x"),
            ("file:/etc/x", "file:///etc/x"),
            ("file://LocalHost/etc/x", "file:///etc/x"),
            ("file:////etc//x", "file:///etc/x"),
            ("file:///%65tc/x", "file:///etc/x"),
            ("file:///%2565tc/x", "file:///etc/x"),
            ("file:///etc%2fx", "file:///etc/x"),
            ("file:\\\\\\etc\\x", "file:///etc/x"),
            ("https://Docs.Example/A", "https://docs.example/A"),
            ("memo://100%25", "memo://100%"),
            ("a//b", "a/b"),
        ] {
            assert_eq!(read(uri), Reading::Otherwise(same.into()), "{uri}");
        }
    }

    #[test]
    fn what_climbs_may_be_anything() {
        for uri in [
            "file:///srv/docs/../../etc/shadow",
            "file:///srv/docs/%2e%2E/x",
            "file:///srv/docs/%252e%252e/x",
            "file:///srv/docs/.%2e%2fx",
            "file:///srv/docs/..\\x",
            "file:///srv/docs/..;a=b/x",
            "file:///srv/./x",
            "file:///srv/docs?/../x",
            "file:etc/x",
            "file:..",
            "..",
            " file:///etc/x",
            "file:///etc/x\n",
            "fi\tle:///etc/x",
            "file:///etc/x%00",
            "file:///%25252525252e/x",
        ] {
            assert_eq!(read(uri), Reading::Anywhere, "{uri}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_not_read_otherwise_again(uri in "(file:|FILE://|a:/)?[a./%25eE\\\\]{0,16}") {
            if let Reading::Otherwise(same) = read(&uri) {
                prop_assert_eq!(read(&same), Reading::AsWritten, "{}", same);
            }
        }

        /// As browsers read it, and servers that resolve what is escaped, and what climbs, after that.
        #[test]
        fn what_stays_within_its_place_does_so_for_others(parts in vec(select(PARTS), 0..8)) {
            let uri = format!("file:///srv/docs/{}", parts.concat());
            let Ok(other) = url::Url::parse(&uri) else {
                return Ok(());
            };
            let path = resolved(other.path()).unwrap_or_default().replace('\\', "/");
            let mut place = Vec::new();
            for segment in path.split('/').filter(|segment| !matches!(*segment, "" | ".")) {
                if segment == ".." {
                    place.pop();
                } else {
                    place.push(segment);
                }
            }
            let within = place.starts_with(&["srv", "docs"]);
            prop_assert!(within || read(&uri) == Reading::Anywhere, "{:?}: {:?}", uri, place);
        }
    }
}
