//! The one table of MCP's methods: which follow from reaching the server, and which rules decide.
//!
//! All revisions from 2024-11-05 to 2026-07-28 and the tasks extension. What is not here is unknown:
//! denied unless a rule's `methods` names it.

use crate::glob::Glob;

/// How a method is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Governance {
    /// Part of the session itself, or of an exchange that was decided when it began: follows from
    /// being allowed to reach the server.
    Session,
    /// Decided by rules, over the name of a tool, prompt or resource.
    Named,
    /// Decided by rules; the request names nothing.
    Unnamed,
}

use Governance::{Named, Session, Unnamed};

/// A method, how it is decided, and which parameter is its name.
///
/// - `completion/complete` sends what a person types: it is decided like the prompt or resource it is about.
/// - `subscriptions/listen` only announces changes; each URI in its `resourceSubscriptions` is to be decided
///   as a `resources/subscribe` of its own.
/// - `tasks/*` continue a call that was decided when it was made.
/// - `sampling`, `elicitation` and `roots` go from server to client (in 2026-07-28 as values inside a result):
///   the caller is still the client, the server is the one that asks.
const METHODS: [(&str, Governance, Option<&str>); 36] = [
    (COMPLETE, Named, Some("ref.name or ref.uri")),
    ("elicitation/create", Unnamed, None),
    ("initialize", Session, None),
    ("logging/setLevel", Session, None),
    ("notifications/cancelled", Session, None),
    ("notifications/elicitation/complete", Session, None),
    ("notifications/initialized", Session, None),
    ("notifications/message", Session, None),
    ("notifications/progress", Session, None),
    ("notifications/prompts/list_changed", Session, None),
    ("notifications/resources/list_changed", Session, None),
    ("notifications/resources/updated", Session, None),
    ("notifications/roots/list_changed", Session, None),
    ("notifications/subscriptions/acknowledged", Session, None),
    ("notifications/tasks", Session, None),
    ("notifications/tasks/status", Session, None),
    ("notifications/tools/list_changed", Session, None),
    ("ping", Session, None),
    (PROMPTS_GET, Named, Some("name")),
    ("prompts/list", Session, None),
    ("resources/list", Session, None),
    ("resources/read", Named, Some("uri")),
    ("resources/subscribe", Named, Some("uri")),
    ("resources/templates/list", Session, None),
    ("resources/unsubscribe", Session, None),
    ("roots/list", Unnamed, None),
    ("sampling/createMessage", Unnamed, None),
    ("server/discover", Session, None),
    ("subscriptions/listen", Session, None),
    ("tasks/cancel", Session, None),
    ("tasks/get", Session, None),
    ("tasks/list", Session, None),
    ("tasks/result", Session, None),
    ("tasks/update", Session, None),
    (TOOLS_CALL, Named, Some("name")),
    ("tools/list", Session, None),
];

/// The method that calls a tool.
pub(crate) const TOOLS_CALL: &str = "tools/call";
/// The method that completes what is typed for a prompt or a resource.
const COMPLETE: &str = "completion/complete";
/// The method that gets a prompt.
pub(crate) const PROMPTS_GET: &str = "prompts/get";

/// How a method is decided; `None` for an unknown one.
#[must_use]
pub fn governance(method: &str) -> Option<Governance> {
    // One by one: lengths differ more often than not, and are compared faster than texts are ordered.
    let found = METHODS.iter().find(|(name, _, _)| *name == method);
    found.map(|(_, governance, _)| *governance)
}

/// The methods whose messages have arguments, the last one what is typed; those of every other have none.
pub(crate) const WITH_ARGUMENTS: [&str; 3] = [TOOLS_CALL, PROMPTS_GET, COMPLETE];

/// Whether messages of some method that the pattern is about have arguments.
pub(crate) fn may_have_arguments(methods: &Glob) -> bool {
    WITH_ARGUMENTS.iter().any(|method| methods.matches(method))
}

/// The methods that may name a resource, by its URI.
pub(crate) const NAME_URIS: [&str; 3] = ["resources/read", "resources/subscribe", COMPLETE];

/// Whether what a method names is a resource, by its URI: what `completion/complete` is about may be a prompt.
pub(crate) fn names_uri(method: &str, name: &str) -> bool {
    NAME_URIS.contains(&method) && (method != COMPLETE || name.contains(":/"))
}

/// Whether what is written about these methods may be about resources; `None`: about calls of tools.
pub(crate) fn name_uris(methods: Option<&[Glob]>) -> bool {
    let mut methods = methods.unwrap_or_default().iter();
    methods.any(|glob| NAME_URIS.iter().any(|method| glob.matches(method)))
}

/// Every known method: its name, how it is decided, and which parameter is its name.
pub fn methods() -> impl Iterator<Item = (&'static str, Governance, Option<&'static str>)> {
    METHODS.iter().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_found_whole() {
        for (name, how, parameter) in methods() {
            assert_eq!(governance(name), Some(how));
            assert_eq!(parameter.is_some(), how == Named, "{name}");
        }
        for unknown in [
            "",
            "tools",
            "tools/calls",
            "Tools/call",
            "notifications/x",
            "tools/call ",
        ] {
            assert_eq!(governance(unknown), None, "{unknown}");
        }
    }
}
