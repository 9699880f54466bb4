//! What all of some callers may call: the table of roles and servers.

use std::sync::Arc;

use super::mcp::{Message, question};
use super::rules::callable_by_all;
use super::{Caller, Callers, Hints};
use crate::methods::TOOLS_CALL;
use crate::model::Effect;
use crate::set::PolicySet;
use crate::time::Timestamp;

/// The rule or grant by which every one of `members` (identities and hosts) may call a tool with some arguments, at
/// least with an approval or as a dry run. What a member may beyond that by other names of its own does not count, nor
/// does a limit, nor that denials are observed only.
#[must_use]
pub fn callable<'a>(
    set: &'a PolicySet,
    members: &[Arc<str>],
    server: &str,
    tool: &str,
    hints: Option<Hints>,
    now: Timestamp,
) -> Option<&'a Arc<str>> {
    let id = set.index().server(server)?;
    let registered = set.server_at(id)?;
    // A host reaches no server outside its own list.
    let lists = |member: &Arc<str>| {
        let host = set.host(member);
        host.is_none_or(|host| host.servers.contains(&registered.name))
    };
    if !members.iter().all(lists) || (set.strict_review() && registered.is_overdue(now)) {
        return None;
    }
    let message = Message {
        server,
        method: TOOLS_CALL,
        name: Some(tool),
        arguments: super::rules::Arguments::Open,
        hints,
        session: None,
    };
    let question = question(set, id, &message);
    let nobody = Callers::of(set, &Caller::default());
    let (rule, effect) = callable_by_all(set, members, &nobody, &question, now)?;
    (effect != Effect::Deny).then_some(&rule.id)
}
