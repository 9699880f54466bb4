//! What must hold for every expression and every request; run by the fuzz target, and by tests over its corpus.

use super::{Condition, Facts, hold};
use crate::decide::{Quantity, Unevaluated};
use crate::json::{AsJson, Json, List, Members};

/// A request's value, which some of the tests make partly unknown.
#[derive(Debug, Clone)]
pub(crate) enum Tree {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
    Unknown,
}

/// The first line of `bytes` as an expression, the rest as arguments: nothing panics, a fault stands in the
/// expression, the same gives the same, and a value that is not known leaves the result as it is or unknown.
pub fn expression(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (expression, arguments) = text.split_once('\n').unwrap_or((&text, ""));
    let condition = match Condition::parse(expression) {
        Ok(condition) => condition,
        Err(faults) => {
            assert!(!faults.is_empty(), "refused without a fault");
            let length = expression.chars().count();
            let within = faults.iter().all(|fault| fault.at <= length);
            assert!(within, "a fault beside the expression");
            return;
        }
    };
    let arguments: Option<serde_json::Value> = serde_json::from_str(arguments).ok();
    let arguments = arguments.as_ref().map(Tree::of);
    for quantity in [Quantity::Some, Quantity::All] {
        let result = ask(&condition, arguments.as_ref(), quantity);
        let again = ask(&condition, arguments.as_ref(), quantity);
        assert!(result == again, "the same request, another result");
        let Some(arguments) = &arguments else {
            continue;
        };
        assert!(
            result != Err(Unevaluated::Unknown),
            "something is unknown, and nothing was"
        );
        for place in 0..arguments.count().min(32) {
            let mut partly = arguments.clone();
            partly.forget(&mut { place });
            let partly = ask(&condition, Some(&partly), quantity);
            assert!(
                partly == result || partly == Err(Unevaluated::Unknown),
                "what is not known decides"
            );
        }
    }
}

fn ask(
    condition: &Condition,
    arguments: Option<&Tree>,
    quantity: Quantity,
) -> Result<bool, Unevaluated> {
    let facts = Facts {
        arguments: arguments.map(Tree::as_json),
        tool: "pay",
        server: "bank",
        method: "tools/call",
        user: Some("dave"),
        host: None,
        issuer: Some("https://i.example"),
        subject: Some("dave"),
        // What is asked of arguments can be asked of claims.
        claims: arguments.map(Tree::as_json),
    };
    hold(condition, &facts, quantity)
}

impl Tree {
    pub(crate) fn of(value: &serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(truth) => Self::Bool(*truth),
            serde_json::Value::Number(number) => Self::Number(number.to_string()),
            serde_json::Value::String(text) => Self::Text(text.clone()),
            serde_json::Value::Array(list) => Self::List(list.iter().map(Self::of).collect()),
            serde_json::Value::Object(map) => {
                let members = map
                    .iter()
                    .map(|(key, value)| (key.clone(), Self::of(value)));
                Self::Map(members.collect())
            }
        }
    }

    /// How many values there are.
    fn count(&self) -> usize {
        let below: usize = match self {
            Self::List(list) => list.iter().map(Self::count).sum(),
            Self::Map(map) => map.iter().map(|(_, value)| value.count()).sum(),
            _ => 0,
        };
        below.saturating_add(1)
    }

    /// Makes the value at this place, in the order of reading, unknown.
    fn forget(&mut self, place: &mut usize) {
        let Some(before) = place.checked_sub(1) else {
            *self = Self::Unknown;
            *place = usize::MAX;
            return;
        };
        *place = before;
        match self {
            Self::List(list) => list.iter_mut().for_each(|value| value.forget(place)),
            Self::Map(map) => map.iter_mut().for_each(|(_, value)| value.forget(place)),
            _ => {}
        }
    }

    fn members(&self) -> &[(String, Self)] {
        match self {
            Self::Map(members) => members,
            _ => &[],
        }
    }
}

impl AsJson for Tree {
    fn as_json(&self) -> Json<'_> {
        match self {
            Self::Null => Json::Null,
            Self::Bool(truth) => Json::Bool(*truth),
            Self::Number(text) => Json::Number(text),
            Self::Text(text) => Json::Text(text),
            Self::List(list) => Json::List(list as &dyn List),
            Self::Map(_) => Json::Map(self as &dyn Members),
            Self::Unknown => Json::Unknown,
        }
    }
}

impl Members for Tree {
    fn count(&self) -> usize {
        self.members().len()
    }

    fn at(&self, index: usize) -> Option<(&str, Json<'_>)> {
        let (key, value) = self.members().get(index)?;
        Some((key, value.as_json()))
    }

    fn get(&self, key: &str) -> Option<Json<'_>> {
        let found = self.members().iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_json())
    }
}
