//! Roles and their grants, and what becomes of both: callers and allow rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Draft, Kind, Loader, tables};
use crate::model::{Effect, Grant, Mode, Role, Rule, Selector, Written};
use crate::yaml::{Fields, Node, Span, Value};

impl Loader<'_> {
    pub(super) fn role(&mut self, name: &str, span: Span, node: &Node) {
        let name = self.named(Kind::Role, name, span);
        let Some(fields) = self.reader.fields(node, &tables::ROLE) else {
            return;
        };
        let members = match self.reader.required(fields, "members", "a role") {
            Some(_) => self.narrowing(fields, "members", Kind::Member, "identities or hosts"),
            None => Vec::new(),
        };
        let grants = match fields.get("grants") {
            None => Vec::new(),
            Some(node) => {
                let items = self.reader.list(node, "grants").unwrap_or_default();
                items.iter().filter_map(|item| self.grant(item)).collect()
            }
        };
        let place = self.reader.place(span);
        self.draft.roles.push(Role {
            name,
            members,
            grants,
            place,
        });
    }

    fn grant(&mut self, node: &Node) -> Option<Grant> {
        let fields = self.reader.fields(node, &tables::GRANT)?;
        let listed = self.reader.required(fields, "servers", "a grant")?;
        let servers = self.mentions(Kind::Server, listed, "servers");
        if matches!(&listed.value, Value::List(items) if items.is_empty()) {
            self.reader
                .fault(listed.span, "an empty `servers` grants nothing");
        }
        let names = fields
            .get("tools")
            .map(|node| self.globs(node, "patterns of tools"));
        let classes = self.granted_classes(fields);
        let tools = match (names, classes) {
            (None, None) => Selector::Any,
            (Some(names), None) => Selector::Names(names),
            (None, Some(classes)) => Selector::Classes(classes),
            (Some(names), Some(classes)) => Selector::Both(names, classes),
        };
        let place = self.reader.place(node.span);
        Some(Grant {
            servers,
            tools,
            place,
        })
    }

    fn granted_classes(&mut self, fields: Fields<'_>) -> Option<crate::model::ClassSet> {
        let node = fields.get("classes")?;
        self.reader.list(node, "classes")?;
        Some(self.classes(node))
    }
}

/// Puts members in the place of roles, and appends each grant as the allow rule that it is.
pub(crate) fn settle(draft: &mut Draft) {
    let mut members: BTreeMap<&str, &[Arc<str>]> = BTreeMap::new();
    for role in &draft.roles {
        // A role without members is a fault; its name stays, because nobody in a list means everyone.
        if !role.members.is_empty() {
            members.entry(&role.name).or_insert(&role.members);
        }
    }
    for rule in &mut draft.rules {
        spread(&mut rule.who, &members);
        spread(&mut rule.approvers, &members);
    }
    for role in &draft.roles {
        for (number, grant) in (1_u32..).zip(&role.grants) {
            draft.rules.push(granted(role, number, grant));
        }
    }
}

fn spread(names: &mut Vec<Arc<str>>, members: &BTreeMap<&str, &[Arc<str>]>) {
    if !names.iter().any(|name| members.contains_key(&**name)) {
        return;
    }
    let mut all = Vec::new();
    for name in std::mem::take(names) {
        match members.get(&*name) {
            Some(members) => all.extend_from_slice(members),
            None => all.push(name),
        }
    }
    all.sort_unstable();
    all.dedup();
    *names = all;
}

fn granted(role: &Role, number: u32, grant: &Grant) -> Rule {
    let who = if role.members.is_empty() {
        vec![Arc::clone(&role.name)]
    } else {
        role.members.clone()
    };
    Rule {
        id: format!("{}/{number}", role.name).into(),
        written: Written::Grant,
        who,
        servers: grant.servers.clone(),
        methods: None,
        tools: grant.tools.clone(),
        also: Box::default(),
        args: Vec::new(),
        when: None,
        effect: Effect::Allow,
        mode: Mode::Enforce,
        reason: None,
        approvers: Vec::new(),
        timeout_ms: None,
        expires: None,
        place: grant.place.clone(),
    }
}
