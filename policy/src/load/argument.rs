//! `args`: tests on the arguments of a call.

use std::sync::Arc;

use super::{Loader, contradiction, tables};
use crate::decide::{Quantity, quantity};
use crate::model::{ArgumentPlace, ArgumentTest, Bound, Effect, Pattern, Pointer, Scalar, Test};
use crate::number::Decimal;
use crate::yaml::{Fields, Node, Value};

/// The most values that `in` lists.
const LISTED_MAX: usize = 10_000;
/// The longest length that is asked for: no request holds more.
const LENGTH_MAX: u64 = 1 << 32;

impl Loader<'_> {
    /// The `args` of a rule; `None` after a fault.
    pub(super) fn arguments(
        &mut self,
        fields: Fields<'_>,
        effect: Option<Effect>,
    ) -> Option<Vec<ArgumentTest>> {
        let Some(node) = fields.get("args") else {
            return Some(Vec::new());
        };
        let before = self.reader.fault_count();
        let items = self.reader.list(node, "tests on arguments")?;
        if items.is_empty() {
            self.reader.fault(
                node.span,
                "an empty `args` tests nothing; leave it out to mean any arguments",
            );
        }
        crate::text::prepare();
        let tests: Vec<_> = items
            .iter()
            .filter_map(|item| self.argument(item, effect))
            .collect();
        // Of tests that are right by themselves, and which are all that is written.
        if self.reader.fault_count() == before
            && let Some(effect) = effect
            && let Some((place, why)) = contradiction::between(&tests, quantity(effect))
            && let Some(item) = items.get(place)
        {
            self.reader.fault(item.span, why);
        }
        (self.reader.fault_count() == before).then_some(tests)
    }

    fn argument(&mut self, node: &Node, effect: Option<Effect>) -> Option<ArgumentTest> {
        let fields = self.reader.fields(node, &tables::ARGUMENT)?;
        let place = match (fields.get("field"), fields.get("any")) {
            (Some(node), None) => self
                .reader
                .parsed(node, "a pointer as `/customer/email`", Pointer::parse)
                .map(ArgumentPlace::Field),
            (None, Some(node)) => self.only_true(node).then_some(ArgumentPlace::Any),
            (Some(_), Some(node)) => {
                self.reader
                    .fault(node.span, "a test has either `field` or `any`");
                None
            }
            (None, None) => {
                self.reader.fault(
                    fields.span,
                    "a test needs `field`, which says where, or `any: true`",
                );
                None
            }
        };
        if let Some(node) = fields.get("any")
            && effect == Some(Effect::Allow)
        {
            self.reader.fault(
                node.span,
                "a rule that allows names each argument by `field`: with `any` it would be the same for all values, whatever they are for",
            );
        }
        let keys = fields.get("keys").is_some_and(|node| self.only_true(node));
        let tests = self.tests(fields);
        self.check_argument(fields, keys, &tests, effect);
        Some(ArgumentTest {
            place: place?,
            keys,
            tests,
        })
    }

    /// Takes `true`; `false` would say nothing.
    fn only_true(&mut self, node: &Node) -> bool {
        match self.reader.flag(node) {
            Some(true) => true,
            Some(false) => {
                self.reader
                    .fault(node.span, "expected `true`; leave it out otherwise");
                false
            }
            None => false,
        }
    }

    fn tests(&mut self, fields: Fields<'_>) -> Vec<Test> {
        let mut tests = Vec::new();
        if let Some(node) = fields.get("type") {
            tests.extend(
                self.reader
                    .choice(node, &tables::TYPES, &[])
                    .map(Test::Type),
            );
        }
        if let Some(node) = fields.get("absent") {
            tests.extend(self.reader.flag(node).map(Test::Absent));
        }
        if let Some(node) = fields.get("matches") {
            let pattern = self
                .reader
                .parsed(node, "a regular expression", Pattern::matches);
            tests.extend(pattern.map(Test::Matches));
        }
        if let Some(node) = fields.get("glob") {
            let pattern = self.reader.parsed(node, "a pattern", Pattern::glob);
            tests.extend(pattern.map(Test::Glob));
        }
        for (key, bound) in [
            ("min", Bound::Min),
            ("max", Bound::Max),
            ("above", Bound::Above),
            ("below", Bound::Below),
        ] {
            if let Some(node) = fields.get(key) {
                tests.extend(self.number(node).map(|number| Test::Bound(bound, number)));
            }
        }
        if let Some(node) = fields.get("in") {
            let values = self.scalars(node);
            tests.push(Test::In(values));
        }
        if let Some(node) = fields.get("length") {
            tests.extend(self.length(node));
        }
        tests
    }

    /// What is written and could never hold, or says nothing.
    fn check_argument(
        &mut self,
        fields: Fields<'_>,
        keys: bool,
        tests: &[Test],
        effect: Option<Effect>,
    ) {
        const KEYS: [&str; 10] = [
            "matches", "glob", "min", "max", "above", "below", "in", "length", "type", "absent",
        ];
        let given: Vec<&str> = KEYS
            .into_iter()
            .filter(|key| fields.get(key).is_some())
            .collect();
        let message = match given.as_slice() {
            [] => Some(
                "a test needs one of `matches`, `glob`, `min`, `max`, `above`, `below`, `in`, `length`, `type` and `absent`"
                    .to_owned(),
            ),
            [_, _, ..] if given.contains(&"absent") => {
                Some("`absent` stands alone: what is not there cannot be tested further".to_owned())
            }
            ["absent"] if keys || fields.get("any").is_some() => {
                Some("`absent` needs `field`, and no `keys`".to_owned())
            }
            _ => {
                // What holds for every effect, where the effect is a fault itself.
                let quantity = effect.map_or(Quantity::Some, quantity);
                let tests: Vec<&Test> = tests.iter().collect();
                contradiction::within(keys, &tests, quantity)
            }
        };
        if let Some(message) = message {
            self.reader.fault(fields.span, message);
        }
    }

    /// A number of the JSON grammar.
    pub(super) fn number(&mut self, node: &Node) -> Option<Arc<str>> {
        match &node.value {
            Value::Scalar { text, plain: true } if Decimal::parse(text).is_some() => {
                Some(text.as_str().into())
            }
            _ => {
                self.reader
                    .expected(node, "a number as JSON writes it (`100`, `-1.5`, `1e6`)");
                None
            }
        }
    }

    fn scalars(&mut self, node: &Node) -> Vec<Scalar> {
        let items = self.reader.list(node, "values").unwrap_or_default();
        if items.is_empty() && matches!(node.value, Value::List(_)) {
            self.reader
                .fault(node.span, "an empty list of values matches nothing");
        }
        if items.len() > LISTED_MAX {
            self.reader
                .fault(node.span, format!("more than {LISTED_MAX} values"));
            return Vec::new();
        }
        items.iter().filter_map(|item| self.scalar(item)).collect()
    }

    pub(super) fn scalar(&mut self, node: &Node) -> Option<Scalar> {
        let Value::Scalar { text, plain } = &node.value else {
            self.reader
                .expected(node, "a text, a number, `true`, `false` or `null`");
            return None;
        };
        match (text.as_str(), plain) {
            (text, false) => Some(Scalar::Text(text.into())),
            ("null", true) => Some(Scalar::Null),
            ("true", true) => Some(Scalar::Bool(true)),
            ("false", true) => Some(Scalar::Bool(false)),
            (text, true) if Decimal::parse(text).is_some() => Some(Scalar::Number(text.into())),
            (text, true) if node.kind() == "a text" => Some(Scalar::Text(text.into())),
            // Words that YAML's versions and readers take for different things.
            (_, true) => {
                self.reader.hinted(
                    node.span,
                    format!("expected a value as JSON writes it, found {}", node.kind()),
                    Some("put a text in quotes".to_owned()),
                );
                None
            }
        }
    }

    /// `length: 64`, or `{ min: 1, max: 64 }`.
    fn length(&mut self, node: &Node) -> Option<Test> {
        if let Value::Scalar { .. } = &node.value {
            let exact = self.reader.integer(node, "a length", 0..=LENGTH_MAX)?;
            let exact = usize::try_from(exact).ok()?;
            return Some(Test::Length(exact, exact));
        }
        let fields = self.reader.fields(node, &tables::LENGTH)?;
        let mut bound = |key: &str| {
            let node = fields.get(key)?;
            self.reader
                .integer(node, "a length", 0..=LENGTH_MAX)
                .and_then(|length| usize::try_from(length).ok())
        };
        let (least, most) = (bound("min"), bound("max"));
        if fields.get("min").is_none() && fields.get("max").is_none() {
            self.reader
                .fault(fields.span, "`length` needs `min`, `max` or a number");
        }
        Some(Test::Length(least.unwrap_or(0), most.unwrap_or(usize::MAX)))
    }
}
