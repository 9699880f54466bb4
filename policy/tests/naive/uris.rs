//! URIs of the small world, with what servers read in them: written by hand, not computed.

use super::evaluator::{glob, name};
use super::question::Question;

/// A URI, and what else it may be read as; `None`: any place.
pub(crate) type Read = (&'static str, Option<&'static [&'static str]>);

pub(crate) const URIS: [Read; 11] = [
    ("file:///d/a", Some(&[])),
    ("FILE:///d/a", Some(&["file:///d/a"])),
    (
        "file:///d/%61?x",
        Some(&["file:///d/a?x", "file:///d/a", "file:///d/%61"]),
    ),
    ("file:///d/a/", Some(&["file:///d/a"])),
    ("file:///d/b", Some(&[])),
    ("file:///d/b#a", Some(&["file:///d/b"])),
    ("file:///d/../b", None),
    ("file:///d//b", None),
    ("file:d/a", None),
    ("https://h.x/a", Some(&[])),
    ("https://H.x/a", Some(&["https://h.x/a"])),
];

/// Patterns of URIs, and what else they are where they restrict.
pub(crate) const PATTERNS: [(&str, Option<&str>); 12] = [
    ("file:///d/*", None),
    ("FILE:/d/*", Some("file:///d/*")),
    ("FILE:*", None),
    ("file:///d/a", None),
    ("file:///d/%61", Some("file:///d/a")),
    ("file:///d/?", None),
    ("*/a", None),
    ("file:///d/b#*", None),
    ("file:///d/b#a", None),
    ("file:///d/../b", None),
    ("https://H.x/*", Some("https://h.x/*")),
    ("*", None),
];

/// What is read in the question's name, if it is a URI.
fn read(question: &Question) -> Option<Read> {
    let name = name(question);
    let is_uri = match question.method {
        Some("resources/read") => true,
        Some("completion/complete") => name.contains(":/"),
        _ => false,
    };
    let known = URIS.into_iter().find(|(uri, _)| *uri == name);
    is_uri.then(|| known.unwrap_or((name, Some(&[]))))
}

/// Whether the patterns are about the question's name, in a rule that allows or in one that restricts.
pub(crate) fn is_named(patterns: &[&str], allows: bool, question: &Question) -> bool {
    let name = name(question);
    let Some((_, others)) = read(question) else {
        return patterns.iter().any(|pattern| glob(pattern, name));
    };
    if allows {
        return patterns.iter().any(|pattern| {
            let (bare, wild) = (name.find(['?', '#']), pattern.find(['*', '?']));
            let bare = &name[..bare.unwrap_or(name.len())];
            let begins = &pattern[..wild.unwrap_or(pattern.len())];
            let says_so = *pattern == "*" || (*pattern == name && wild.is_none());
            let holds = glob(pattern, name) && (glob(pattern, bare) || begins == bare);
            says_so || (others.is_some() && holds)
        });
    }
    let Some(others) = others else {
        return true;
    };
    patterns.iter().any(|pattern| {
        let other = PATTERNS.iter().find(|(written, _)| written == pattern);
        let forms = [Some(*pattern), other.and_then(|(_, form)| *form)];
        let texts = [name].into_iter().chain(others.iter().copied());
        let is_one = |text: &str| forms.into_iter().flatten().any(|form| glob(form, text));
        texts.into_iter().any(is_one)
    })
}

/// Whether a condition that asks for the name holds of all that may be meant, to allow, or of any, to restrict.
/// `holds`: of one name.
pub(crate) fn holds(
    allows: bool,
    question: &Question,
    holds: impl Fn(&str) -> Option<bool>,
) -> Option<bool> {
    let said = holds(name(question));
    match read(question) {
        Some((_, None)) if said == Some(allows) => Some(!allows),
        Some((_, Some(others))) if said == Some(allows) => {
            let mut others = others.iter().map(|name| holds(name));
            others.find(|other| *other != said).unwrap_or(said)
        }
        _ => said,
    }
}
