//! Values in expressions: lent by the request where they come from it.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::rc::Rc;

use super::number::Number;
use crate::decide::{Unevaluated, Work};
use crate::json::{Json, List, Members};
use crate::model::Scalar;
use crate::number::is_own_double;

/// The deepest nesting that two values are compared to.
const DEPTH_MAX: usize = 64;

/// A value.
#[derive(Clone)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Number(Number<'a>),
    /// In the reading that is asked for.
    Text(Cow<'a, str>),
    /// A list from the request.
    Lent(&'a dyn List),
    Map(&'a dyn Members),
    /// A list that the expression made.
    Made(Rc<[Value<'a>]>),
}

/// How texts that were sent are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// As they came.
    Sent,
    /// As a receiver may normalise them.
    Received,
    /// As a person reads them.
    Read,
}

/// How numbers are read, those of the expression as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rounding {
    /// As they are written.
    Exact,
    /// As the nearest doubles.
    Double,
}

/// Reads what was sent, and notes whether something reads otherwise than it came.
pub(super) struct Reader<'w> {
    pub(super) reading: Reading,
    pub(super) rounding: Rounding,
    pub(super) differs: Differs,
    pub(super) work: &'w mut Work,
}

/// What has another reading.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Differs {
    pub(super) texts: bool,
    pub(super) numbers: bool,
}

impl Reader<'_> {
    pub(super) fn value<'a>(&mut self, json: Json<'a>) -> Result<Value<'a>, Unevaluated> {
        Ok(match json {
            Json::Null => Value::Null,
            Json::Bool(truth) => Value::Bool(truth),
            Json::Number(text) => Value::Number(self.number(text)?),
            Json::Text(text) => Value::Text(self.text(text)?),
            Json::List(list) => Value::Lent(list),
            Json::Map(map) => Value::Map(map),
            Json::Unknown => return Err(Unevaluated::Unknown),
        })
    }

    /// What the expression writes down.
    pub(super) fn constant<'a>(&mut self, scalar: &'a Scalar) -> Result<Value<'a>, Unevaluated> {
        Ok(match scalar {
            Scalar::Null => Value::Null,
            Scalar::Bool(truth) => Value::Bool(*truth),
            Scalar::Number(text) => Value::Number(self.number(text)?),
            Scalar::Text(text) => Value::Text(Cow::Borrowed(text)),
        })
    }

    fn number<'a>(&mut self, text: &'a str) -> Result<Number<'a>, Unevaluated> {
        Ok(match self.rounding {
            Rounding::Exact => {
                self.differs.numbers = self.differs.numbers || !is_own_double(text);
                Number::Written(text)
            }
            Rounding::Double => Number::Double(text.parse().map_err(|_bad| Unevaluated::TooLarge)?),
        })
    }

    pub(super) fn text<'a>(&mut self, text: &'a str) -> Result<Cow<'a, str>, Unevaluated> {
        self.work.text(text)?;
        Ok(match self.reading {
            Reading::Sent => {
                self.differs.texts = self.differs.texts || !crate::text::is_plain(text);
                Cow::Borrowed(text)
            }
            Reading::Received => crate::text::compatible(text),
            Reading::Read => crate::text::readable(text),
        })
    }

    /// Whether two values are the same. Those of two types cannot be compared, but for null.
    pub(super) fn equal(
        &mut self,
        left: &Value<'_>,
        right: &Value<'_>,
        depth: usize,
    ) -> Result<bool, Unevaluated> {
        self.work.value()?;
        if depth > DEPTH_MAX {
            return Err(Unevaluated::TooDeep);
        }
        match (left, right) {
            (Value::Null, Value::Null) => Ok(true),
            (Value::Null, _) | (_, Value::Null) => Ok(false),
            (Value::Bool(left), Value::Bool(right)) => Ok(left == right),
            (Value::Number(left), Value::Number(right)) => {
                left.compare(*right).map(Ordering::is_eq)
            }
            (Value::Text(left), Value::Text(right)) => Ok(left == right),
            (Value::Map(left), Value::Map(right)) => self.equal_maps(*left, *right, depth),
            _ => self.equal_lists(&left.elements()?, &right.elements()?, depth),
        }
    }

    fn equal_lists(
        &mut self,
        left: &Elements<'_, '_>,
        right: &Elements<'_, '_>,
        depth: usize,
    ) -> Result<bool, Unevaluated> {
        if left.count() != right.count() {
            return Ok(false);
        }
        let mut all = All::default();
        for index in 0..left.count() {
            let equal = match (left.at(index, self), right.at(index, self)) {
                (Ok(left), Ok(right)) => self.equal(&left, &right, depth + 1),
                (Err(error), _) | (_, Err(error)) => Err(error),
            };
            if all.add(equal)? {
                return Ok(false);
            }
        }
        all.result()
    }

    fn equal_maps(
        &mut self,
        left: &dyn Members,
        right: &dyn Members,
        depth: usize,
    ) -> Result<bool, Unevaluated> {
        if left.withholds(None) || right.withholds(None) {
            return Err(Unevaluated::Unknown);
        }
        if left.count() != right.count() {
            return Ok(false);
        }
        let mut all = All::default();
        for (key, one) in (0..left.count()).filter_map(|index| left.at(index)) {
            let Some(other) = right.get(key) else {
                return Ok(false);
            };
            let equal = match (self.value(one), self.value(other)) {
                (Ok(left), Ok(right)) => self.equal(&left, &right, depth + 1),
                (Err(error), _) | (_, Err(error)) => Err(error),
            };
            if all.add(equal)? {
                return Ok(false);
            }
        }
        all.result()
    }
}

/// Whether all of several hold: one that does not outweighs those that cannot be told.
#[derive(Default)]
pub(super) struct All(Option<Unevaluated>);

impl All {
    /// `true` where one does not hold, which decides. Too much work ends it.
    pub(super) fn add(&mut self, held: Result<bool, Unevaluated>) -> Result<bool, Unevaluated> {
        match held {
            Ok(held) => Ok(!held),
            Err(Unevaluated::TooLarge) => Err(Unevaluated::TooLarge),
            Err(error) => {
                self.0 = Some(graver(self.0, error));
                Ok(false)
            }
        }
    }

    pub(super) fn result(self) -> Result<bool, Unevaluated> {
        self.0.map_or(Ok(true), Err)
    }
}

/// Of two reasons the one to tell: with the value that is not known, the other might not have come up.
pub(super) fn graver(first: Option<Unevaluated>, second: Unevaluated) -> Unevaluated {
    match first {
        Some(first) if second != Unevaluated::Unknown => first,
        _ => second,
    }
}

/// The elements of a list.
pub(super) enum Elements<'v, 'a> {
    Lent(&'a dyn List),
    Made(&'v [Value<'a>]),
}

impl<'a> Value<'a> {
    pub(super) fn boolean(&self) -> Result<bool, Unevaluated> {
        match self {
            Self::Bool(truth) => Ok(*truth),
            _ => Err(Unevaluated::OtherType),
        }
    }

    /// What a macro goes through, and `in` looks through. Not a map's keys, as in CEL: whoever sends a map where a list
    /// is meant would choose what the rule then asks of.
    pub(super) fn elements(&self) -> Result<Elements<'_, 'a>, Unevaluated> {
        match self {
            Self::Lent(list) => Ok(Elements::Lent(*list)),
            Self::Made(list) => Ok(Elements::Made(list)),
            _ => Err(Unevaluated::OtherType),
        }
    }
}

impl<'a> Elements<'_, 'a> {
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Lent(list) => list.count(),
            Self::Made(list) => list.len(),
        }
    }

    /// The element at this place.
    pub(super) fn at(
        &self,
        index: usize,
        reader: &mut Reader<'_>,
    ) -> Result<Value<'a>, Unevaluated> {
        match self {
            Self::Lent(list) => reader.value(list.at(index).ok_or(Unevaluated::Missing)?),
            Self::Made(list) => {
                let element = list.get(index).cloned().ok_or(Unevaluated::Missing)?;
                if let Value::Text(text) = &element {
                    reader.work.text(text)?;
                }
                Ok(element)
            }
        }
    }
}
