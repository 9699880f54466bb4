//! URIs of resources: what else a server may read in one than is written there.

use std::borrow::Cow;

use url::Url;

use crate::glob::Glob;

/// How often escapes are resolved. Servers do it once, and some of what stands behind them once more.
const ROUNDS: usize = 3;

/// Of which a URI without two slashes is read as one with them (WHATWG URL, "special scheme"); `file` is its own case.
const SPECIAL: [&str; 5] = ["http", "https", "ws", "wss", "ftp"];

/// What a name may be read as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Whether it is one place; what climbs, or is divided otherwise by some servers, may be any.
    pub(crate) certain: bool,
    /// Other ways to say the same, and what is left of it for servers that read no query.
    pub(crate) also: Vec<String>,
}

impl Reading {
    /// Nothing but what it says.
    const PLAIN: Self = Self {
        certain: true,
        also: Vec::new(),
    };

    /// Whether it is nothing but what it says.
    pub(crate) fn is_plain(&self) -> bool {
        *self == Self::PLAIN
    }
}

/// Reads a URI in all the ways of servers (RFC 3986, 5.2.4 and 6.2.2; WHATWG URL): with escapes resolved, upper case in
/// scheme and authority, other hosts of `file:`, queries that are none.
pub(crate) fn read(uri: &str) -> Reading {
    let own = canonical(uri);
    let others = [own.clone(), Url::parse(uri).ok().and_then(by_browsers)];
    let mut also = Vec::new();
    for text in others.iter().flatten().map(String::as_str).chain([uri]) {
        let bare = without_tail(text);
        for text in [text, bare, bare.trim_end_matches('/')] {
            if text != uri && !also.iter().any(|it| it == text) {
                also.push(text.to_owned());
            }
        }
    }
    Reading {
        certain: own.is_some() && is_certain(uri),
        also,
    }
}

/// Other forms of patterns of URIs: what they come to as [`canonical`] has it.
pub(crate) fn forms(globs: &[Glob]) -> Box<[Glob]> {
    let other = |glob: &Glob| {
        let text = canonical(glob.as_str())?;
        (text != glob.as_str()).then(|| Glob::of(&text))
    };
    globs.iter().filter_map(other).collect()
}

/// The text without a query or fragment.
pub(crate) fn without_tail(uri: &str) -> &str {
    uri.split(['?', '#']).next().unwrap_or_default()
}

/// The text with its escapes resolved and its scheme and authority in one form; `None` where there are more escapes
/// than anybody resolves, or a file without a beginning.
fn canonical(uri: &str) -> Option<String> {
    let plain = resolved(uri)?;
    let Some((scheme, rest)) = scheme(&plain) else {
        return Some(plain.into_owned());
    };
    let scheme = scheme.to_ascii_lowercase();
    let Some(rest) = rest.strip_prefix("//") else {
        return match scheme.as_str() {
            "file" if rest.starts_with('/') => Some(format!("file://{rest}")),
            "file" => None,
            _ => Some(format!("{scheme}:{rest}")),
        };
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end)?;
    // Most readers of files take the path, whatever host stands before it.
    let authority = match scheme.as_str() {
        "file" => String::new(),
        _ => authority.to_ascii_lowercase(),
    };
    Some(format!("{scheme}://{authority}{path}"))
}

/// The same as browsers have it, whoever asks, with its escapes resolved.
fn by_browsers(mut url: Url) -> Option<String> {
    let host = url
        .host_str()
        .map(|host| host.trim_end_matches('.').to_owned());
    // What cannot have a user, a password or another host has none.
    let _user = url.set_username("");
    let _password = url.set_password(None);
    let _host = match url.scheme() {
        "file" => url.set_host(None),
        _ => url.set_host(host.as_deref()),
    };
    resolved(url.as_str()).map(Cow::into_owned)
}

/// Whether the URI is one place to every server.
fn is_certain(uri: &str) -> bool {
    // Readers drop blanks at the ends, and line ends and tabs anywhere.
    if uri.trim() != uri || uri.chars().any(char::is_control) {
        return false;
    }
    let (Some(plain), Some(path)) = (resolved(uri), resolved(without_tail(uri))) else {
        return false;
    };
    if path.contains('\\') || path.chars().any(char::is_control) {
        return false;
    }
    // `..;x` climbs where parameters of segments are known; whether a `?` ends the path is the server's to say.
    let climbs = |segment: &str| {
        let name = segment.split(';').next().unwrap_or_default();
        matches!(name, "." | "..")
    };
    if plain.split(['/', '\\', '?', '#', ':']).any(climbs) {
        return false;
    }
    // An escaped slash divides for some, and what follows an empty segment is a root for some.
    let slashes = |text: &str| text.bytes().filter(|byte| *byte == b'/').count();
    if slashes(&path) != slashes(without_tail(uri)) {
        return false;
    }
    let Some((scheme, rest)) = scheme(&path) else {
        return !path.contains("//");
    };
    let special = SPECIAL.iter().any(|it| scheme.eq_ignore_ascii_case(it));
    match rest.strip_prefix("//") {
        Some(rest) => !rest.contains("//"),
        None => !special && !rest.contains("//"),
    }
}

/// The scheme, and what follows its colon.
fn scheme(uri: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = uri.split_once(':')?;
    let mut letters = scheme.chars();
    let begins = letters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic());
    let goes_on = letters.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    (begins && goes_on).then_some((scheme, rest))
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
        let digit = char::from(*byte).to_digit(16);
        digit.and_then(|digit| u8::try_from(digit).ok())
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
            "https://docs.example/a",
            "memo://insights",
            "note://internal/my note ü",
            "postgres://db.example:5432/main/table/schema",
            "urn:isbn:0451450523",
            "config",
            "100%",
        ] {
            assert_eq!(read(uri), Reading::PLAIN, "{uri}");
        }
    }

    #[test]
    fn other_ways_to_say_the_same_are_read() {
        for (uri, same) in [
            ("FILE:///etc/x", "file:///etc/x"),
            ("file:/etc/x", "file:///etc/x"),
            ("file://LocalHost/etc/x", "file:///etc/x"),
            ("file://x.example/etc/x", "file:///etc/x"),
            ("file://\u{ff4c}ocalhost/etc/x", "file:///etc/x"),
            ("file:///%65tc/x", "file:///etc/x"),
            ("file:///%2565tc/x", "file:///etc/x"),
            ("file:///etc/x?y", "file:///etc/x"),
            ("file:///etc/x#y", "file:///etc/x"),
            ("file:///etc/x/", "file:///etc/x"),
            ("https://Docs.Example/A", "https://docs.example/A"),
            ("https://me@docs.example.:443/A", "https://docs.example/A"),
            ("http://2130706433/A", "http://127.0.0.1/A"),
            ("search://q?t=a%0Ab", "search://q"),
            ("memo://100%25", "memo://100%"),
        ] {
            let Reading { certain, also } = read(uri);
            assert!(certain, "{uri}");
            assert!(also.iter().any(|it| it == same), "{uri}: {also:?}");
        }
    }

    #[test]
    fn what_climbs_or_is_divided_otherwise_may_be_anything() {
        for uri in [
            "file:///srv/docs/../../etc/shadow",
            "file:///srv/docs/%2e%2E/x",
            "file:///srv/docs/%252e%252e/x",
            "file:///srv/docs/.%2e%2fx",
            "file:///srv/docs/..\\x",
            "file:///srv/docs/..;a=b/x",
            "file:///srv/./x",
            "file:///srv/docs?/../x",
            "file:///srv/docs//etc/x",
            "file:////etc/x",
            "file:\\\\\\etc\\x",
            "file:///etc%2fx",
            "notes://%2Fetc%2Fx",
            "file:etc/x",
            "file:..",
            "docs:../x",
            "docs:..",
            "..",
            "a//b",
            "https:/docs.example/x",
            "https:docs.example/x",
            " file:///etc/x",
            "file:///etc/x\n",
            "fi\tle:///etc/x",
            "file:///etc/x%00",
            "file:///%25252525252e/x",
        ] {
            assert!(!read(uri).certain, "{uri}");
        }
    }

    proptest! {
        /// As browsers read it, and servers that resolve what is escaped, and what climbs, after that.
        #[test]
        fn what_stays_within_its_place_does_so_for_others(parts in vec(select(PARTS), 0..8)) {
            let uri = format!("file:///srv/docs/{}", parts.concat());
            let Ok(other) = Url::parse(&uri) else {
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
            prop_assert!(within || !read(&uri).certain, "{:?}: {:?}", uri, place);
        }

        /// Whatever somebody takes for a file in a place is restricted as such.
        #[test]
        fn what_others_read_in_a_place_is_read_there(parts in vec(select(PARTS), 0..8), host in "(|localhost|x|X\\.Y)") {
            let uri = format!("file://{host}/etc/{}", parts.concat());
            let Ok(other) = Url::parse(&uri) else {
                return Ok(());
            };
            let Reading { certain, also } = read(&uri);
            if certain && other.path().starts_with("/etc/") {
                let of = |text: &str| text.starts_with("file:///etc");
                prop_assert!(of(&uri) || also.iter().any(|it| of(it)), "{:?}: {:?}", uri, also);
            }
        }
    }
}
