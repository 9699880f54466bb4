//! Names with a meaning of their own that must not reach a name server.
//!
//! | names | what happens | source |
//! |---|---|---|
//! | `localhost` and below | answered with loopback here | RFC 6761 section 6.3 |
//! | `invalid`, `onion`, `alt` and below, `*.arpa` but `home.arpa` | never asked | RFC 6761, 7686, 9476 |
//! | `local`, `internal`, `test`, `home.arpa` and below | asked only under `private: true`: sites do serve them by unicast, and their addresses are private | RFC 6762, 8375, ICANN 2024-07-29 |

use super::Name;

/// How a name is treated apart from policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    /// Asked upstream like any other.
    Ordinary,
    /// Answered with the loopback address.
    Loopback,
    /// Asked upstream only if the grant is for private addresses.
    PrivateOnly,
    /// Never asked.
    Never,
}

/// The treatment of a name.
pub(super) fn treatment(name: &Name) -> Treatment {
    let text = name.as_str();
    let under = |suffix: &str| {
        text.strip_suffix(suffix)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    if under("localhost") {
        Treatment::Loopback
    } else if under("home.arpa") || under("local") || under("internal") || under("test") {
        Treatment::PrivateOnly
    } else if under("invalid") || under("onion") || under("alt") || under("arpa") {
        Treatment::Never
    } else {
        Treatment::Ordinary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names_have_their_treatment() {
        let check = |text: &str, want: Treatment| {
            assert_eq!(treatment(&Name::parse(text).unwrap()), want, "{text}");
        };
        check("localhost", Treatment::Loopback);
        check("a.LocalHost", Treatment::Loopback);
        check("notlocalhost", Treatment::Ordinary);
        check("localhost.example.com", Treatment::Ordinary);
        check("printer.local", Treatment::PrivateOnly);
        check("metadata.google.internal", Treatment::PrivateOnly);
        check("nas.home.arpa", Treatment::PrivateOnly);
        check("1.0.0.127.in-addr.arpa", Treatment::Never);
        check("x.onion", Treatment::Never);
        check("x.invalid", Treatment::Never);
        check("wiki.corp.example", Treatment::Ordinary);
    }
}
