//! Rules and limits.

use std::sync::Arc;

use super::words::{check_name, date, duration, rate};
use super::{Kind, Loader, tables};
use crate::glob::Glob;
use crate::methods::{PROMPTS_GET, TOOLS_CALL, name_uris};
use crate::model::{Cap, Class, ClassSet, Effect, Limit, Per, Pointer, Rule, Selector, Written};
use crate::number::{Amount, Decimal};
use crate::uri;
use crate::yaml::{Fields, Node, Value};

impl Loader<'_> {
    pub(super) fn rule(&mut self, node: &Node) {
        let Some(fields) = self.reader.fields(node, &tables::RULE) else {
            return;
        };
        let id = self.rule_id(fields);
        let who = self.narrowing(fields, "who", Kind::Who, "identities, hosts or roles");
        let servers = self.narrowing(fields, "servers", Kind::Server, "servers");
        let methods = fields
            .get("methods")
            .map(|node| self.globs(node, "patterns of methods"));
        let tools = self.selector(fields);
        let effect = self
            .reader
            .required(fields, "effect", "a rule")
            .and_then(|node| self.reader.choice(node, &tables::EFFECTS, &[]));
        let conditions = self.conditions(fields, effect);
        let approvers =
            self.narrowing(fields, "approvers", Kind::Who, "identities, hosts or roles");
        let timeout_ms = fields
            .get("timeout")
            .and_then(|node| self.reader.parsed(node, "a time as `10m`", duration));
        self.check_approval(fields, effect);
        let mode = fields
            .get("mode")
            .and_then(|node| self.reader.choice(node, &tables::MODES, &[]));
        let reason = fields
            .get("reason")
            .and_then(|node| self.reader.text(node, "a reason"))
            .map(str::to_owned);
        let expires = fields
            .get("expires")
            .and_then(|node| self.reader.parsed(node, "a day as `2027-02-01`", date));
        let (Some(id), Some(tools), Some((args, when)), Some(effect)) =
            (id, tools, conditions, effect)
        else {
            return;
        };
        let place = self.reader.place(fields.span);
        let also = forms(effect, methods.as_deref(), &tools);
        let mode = mode.unwrap_or_default();
        self.draft.rules.push(Rule {
            id,
            written: Written::Rule,
            who,
            servers,
            methods,
            tools,
            also,
            args,
            when,
            effect,
            mode,
            reason,
            approvers,
            timeout_ms,
            expires,
            place,
        });
    }

    fn rule_id(&mut self, fields: Fields<'_>) -> Option<Arc<str>> {
        let node = self.reader.required(fields, "id", "a rule")?;
        let parse = |text: &str| check_name(text).map(|()| text.to_owned());
        let id = self.reader.parsed(node, "a name", parse)?;
        Some(self.define(Kind::Rule, &id, node.span))
    }

    /// What only an approval has.
    fn check_approval(&mut self, fields: Fields<'_>, effect: Option<Effect>) {
        for key in ["approvers", "timeout"] {
            if let Some(node) = fields.get(key)
                && effect.is_some_and(|effect| effect != Effect::Approve)
            {
                self.reader
                    .fault(node.span, format!("`{key}` needs `effect: approve`"));
            }
        }
    }

    pub(super) fn limit(&mut self, node: &Node) {
        let Some(fields) = self.reader.fields(node, &tables::LIMIT) else {
            return;
        };
        let per = self.per(fields);
        let servers = self.narrowing(fields, "servers", Kind::Server, "servers");
        let methods = fields
            .get("methods")
            .map(|node| self.globs(node, "patterns of methods"));
        self.check_counted(fields, &per, methods.as_deref());
        let tools = self.selector(fields);
        let sum = fields.get("sum").and_then(|node| {
            self.reader
                .parsed(node, "a pointer as `/amountCents`", Pointer::parse)
        });
        let cap = self.cap(fields);
        let refund = fields.get("refund").and_then(|node| self.reader.flag(node));
        let (Some(tools), Some(cap)) = (tools, cap) else {
            return;
        };
        let place = self.reader.place(fields.span);
        let also = forms(Effect::Deny, methods.as_deref(), &tools);
        self.draft.limits.push(Limit {
            per,
            servers,
            methods,
            tools,
            also,
            sum,
            cap,
            refund: refund.unwrap_or_default(),
            place,
        });
    }

    fn per(&mut self, fields: Fields<'_>) -> Vec<Per> {
        let mut per = Vec::new();
        let Some(node) = self.reader.required(fields, "per", "a limit") else {
            return per;
        };
        let items = self
            .reader
            .list(node, "`session`, `tool`, `identity` and `server`")
            .unwrap_or_default();
        // What is no list is reported as that.
        if items.is_empty() && matches!(node.value, Value::List(_)) {
            self.reader.fault(
                node.span,
                "`per` needs at least one of `session`, `tool`, `identity`, `server`",
            );
        }
        for item in items {
            let Some(word) = self.reader.choice(item, &tables::PER, &[]) else {
                continue;
            };
            if per.contains(&word) {
                self.reader.fault(item.span, "the word stands here twice");
            }
            per.push(word);
        }
        per.sort_unstable();
        per
    }

    /// What a limit counts by that messages of its methods may not have. A URI is nothing to count by: who asks can
    /// write the same in any number of ways.
    fn check_counted(&mut self, fields: Fields<'_>, per: &[Per], methods: Option<&[Glob]>) {
        let only = |known: &[&str]| {
            let mut literals = methods.unwrap_or_default().iter().map(Glob::literal);
            literals.all(|literal| literal.is_some_and(|method| known.contains(&method)))
        };
        if let Some(node) = fields.get("per")
            && per.contains(&Per::Tool)
            && !only(&[TOOLS_CALL, PROMPTS_GET])
        {
            let message = "`tool` counts by names of tools and prompts: `methods` beside it holds `tools/call` and `prompts/get` alone";
            self.reader.fault(node.span, message);
        }
        if let Some(node) = fields.get("sum")
            && !only(&[TOOLS_CALL])
        {
            let message =
                "`sum` adds up arguments of tools: `methods` beside it holds `tools/call` alone";
            self.reader.fault(node.span, message);
        }
    }

    fn cap(&mut self, fields: Fields<'_>) -> Option<Cap> {
        let kinds = ["calls", "rate", "sum"];
        let given: Vec<&str> = kinds
            .into_iter()
            .filter(|key| fields.get(key).is_some())
            .collect();
        let [kind] = given.as_slice() else {
            let message = match given.as_slice() {
                [] => "a limit needs one of `calls`, `rate` and `sum`",
                _ => "a limit has only one of `calls`, `rate` and `sum`",
            };
            let second = given.get(1).and_then(|key| fields.get(key));
            self.reader
                .fault(second.map_or(fields.span, |node| node.span), message);
            return None;
        };
        if *kind != "sum" {
            for key in ["max", "window"] {
                if let Some(node) = fields.get(key) {
                    self.reader
                        .fault(node.span, format!("`{key}` needs `sum` beside it"));
                }
            }
        }
        match *kind {
            "calls" => self
                .reader
                .integer(fields.get("calls")?, "a number of calls", 1..=1_000_000_000)
                .map(Cap::Calls),
            "rate" => self
                .reader
                .parsed(fields.get("rate")?, "a rate as `60/min`", rate),
            _ => {
                let max = self.reader.required(fields, "max", "a limit with `sum`");
                let max = max.and_then(|node| self.amount(node));
                let window = self.reader.required(fields, "window", "a limit with `sum`");
                let window_ms =
                    window.and_then(|node| self.reader.parsed(node, "a time as `24h`", duration));
                Some(Cap::Sum {
                    max: max?,
                    window_ms: window_ms?,
                })
            }
        }
    }

    fn amount(&mut self, node: &Node) -> Option<Amount> {
        let number = self.number(node)?;
        let amount = Decimal::parse(&number).and_then(Decimal::amount);
        if amount.is_none() {
            self.reader.fault(
                node.span,
                "a sum is between 0 and 10^19, with at most nine digits behind the point",
            );
        }
        amount
    }

    /// A list of names that narrows; left out it means everything, so it may not be empty.
    pub(super) fn narrowing(
        &mut self,
        fields: Fields<'_>,
        key: &str,
        kind: Kind,
        what: &str,
    ) -> Vec<Arc<str>> {
        let Some(node) = fields.get(key) else {
            return Vec::new();
        };
        if matches!(&node.value, Value::List(items) if items.is_empty()) {
            let message = match key {
                "members" | "approvers" => format!("an empty `{key}` names nobody"),
                _ => format!("an empty `{key}` can never match; leave it out to mean all"),
            };
            self.reader.fault(node.span, message);
        }
        self.mentions(kind, node, what)
    }

    /// One class or a list of them, never empty.
    pub(super) fn classes(&mut self, node: &Node) -> ClassSet {
        let items = self.reader.one_or_list(node);
        if items.is_empty() {
            self.reader
                .fault(node.span, "an empty list of classes matches nothing");
        }
        let classes: Vec<Class> = items
            .iter()
            .filter_map(|item| self.reader.choice(item, &tables::CLASSES, &[]))
            .collect();
        ClassSet::of(&classes)
    }

    /// `tools`: patterns, or `{ class: … }`. `None` after a fault.
    fn selector(&mut self, fields: Fields<'_>) -> Option<Selector> {
        let Some(node) = fields.get("tools") else {
            return Some(Selector::Any);
        };
        let before = self.reader.fault_count();
        let selector = match &node.value {
            Value::Map(_) => {
                let fields = self.reader.fields(node, &tables::SELECTOR)?;
                let node = self.reader.required(fields, "class", "`tools`")?;
                Selector::Classes(self.classes(node))
            }
            Value::Scalar { .. } | Value::List(_) => {
                Selector::Names(self.globs(node, "patterns of tools"))
            }
        };
        (self.reader.fault_count() == before).then_some(selector)
    }
}

/// The forms in which patterns of resources restrict beside their own.
fn forms(effect: Effect, methods: Option<&[Glob]>, tools: &Selector) -> Box<[Glob]> {
    let names = tools
        .names()
        .filter(|_| effect != Effect::Allow && name_uris(methods));
    names.map(uri::forms).unwrap_or_default()
}
