//! The tree: what a text means, without loss and without freedom of spelling.

use std::borrow::Cow;
use std::fmt;

/// A key. The keys that every MCP message carries are not allocated.
pub type Key = Cow<'static, str>;

/// A JSON value. Equality is of content: numbers by their source text, objects in their order.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number with its source text.
    Number(Number),
    /// A string, decoded.
    String(String),
    /// An array.
    Array(Vec<Value>),
    /// An object with distinct keys, in the order in which they came.
    Object(Object),
}

/// A number as it was written, so that writing it again changes no digit (`2^53 + 1`, `1.0`, `1e2`).
#[derive(Clone, PartialEq, Eq)]
pub struct Number(Box<str>);

/// An object: distinct keys in the order in which they came.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Object {
    entries: Vec<(Key, Value)>,
}

impl Value {
    /// Roughly the memory that it takes, in bytes.
    pub fn weight(&self) -> usize {
        let below = match self {
            Value::Null | Value::Bool(_) => 0,
            Value::Number(number) => number.0.len(),
            Value::String(text) => text.len(),
            Value::Array(items) => {
                let unused = items.capacity().saturating_sub(items.len());
                let unused = unused.saturating_mul(size_of::<Value>());
                let items = items.iter().map(Value::weight).sum::<usize>();
                unused.saturating_add(items)
            }
            Value::Object(object) => object.weight(),
        };
        size_of::<Value>().saturating_add(below)
    }

    /// The member `key` of an object; `None` for other values.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.as_object()?.get(key)
    }

    /// The object, if it is one.
    pub fn as_object(&self) -> Option<&Object> {
        if let Value::Object(object) = self {
            Some(object)
        } else {
            None
        }
    }

    /// The object for changing, if it is one.
    pub fn as_object_mut(&mut self) -> Option<&mut Object> {
        if let Value::Object(object) = self {
            Some(object)
        } else {
            None
        }
    }

    /// The elements, if it is an array.
    pub fn as_array(&self) -> Option<&[Value]> {
        if let Value::Array(elements) = self {
            Some(elements)
        } else {
            None
        }
    }

    /// The decoded text, if it is a string.
    pub fn as_str(&self) -> Option<&str> {
        if let Value::String(text) = self {
            Some(text)
        } else {
            None
        }
    }

    /// The truth value, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(truth) = self {
            Some(*truth)
        } else {
            None
        }
    }

    /// The number, if it is one.
    pub fn as_number(&self) -> Option<&Number> {
        if let Value::Number(number) = self {
            Some(number)
        } else {
            None
        }
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The canonical text: no whitespace, no raw control character, one line.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    /// The same value in `serde_json`'s tree, for rules that were written against it. A number that neither a
    /// 64-bit integer nor a double holds exactly becomes the nearest double there; what is forwarded keeps its digits.
    pub fn to_serde(&self) -> serde_json::Value {
        match self {
            Value::Null => serde_json::Value::Null,
            Value::Bool(truth) => serde_json::Value::Bool(*truth),
            Value::Number(number) => number.to_serde(),
            Value::String(text) => serde_json::Value::String(text.clone()),
            Value::Array(elements) => {
                serde_json::Value::Array(elements.iter().map(Value::to_serde).collect())
            }
            Value::Object(object) => object.to_serde(),
        }
    }
}

impl Object {
    /// As [`Value::to_serde`].
    pub fn to_serde(&self) -> serde_json::Value {
        let members = self
            .iter()
            .map(|(key, value)| (key.to_owned(), value.to_serde()));
        serde_json::Value::Object(members.collect())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::String(text.to_owned())
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Value {
        Value::Bool(truth)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Number(Number::from(number))
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Value {
        Value::Object(object)
    }
}

impl Number {
    /// `text` has passed the grammar and the limits.
    pub(super) fn checked(text: &str) -> Number {
        Number(Box::from(text))
    }

    /// The digits as they were written.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The nearest double; finite, because nothing else is accepted.
    pub fn as_f64(&self) -> Option<f64> {
        self.0
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite())
    }

    /// The integer, if it is written as one (no fraction, no exponent, not `-0`) and fits.
    pub fn as_i64(&self) -> Option<i64> {
        if &*self.0 == "-0" {
            return None;
        }
        self.0.parse().ok()
    }

    fn to_serde(&self) -> serde_json::Value {
        if let Some(small) = self.as_i64() {
            return serde_json::Value::from(small);
        }
        if let Ok(large) = self.0.parse::<u64>() {
            return serde_json::Value::from(large);
        }
        self.as_f64()
            .map_or(serde_json::Value::Null, serde_json::Value::from)
    }
}

impl From<i64> for Number {
    fn from(number: i64) -> Number {
        Number(number.to_string().into_boxed_str())
    }
}

impl Object {
    /// Roughly the memory that its members take, in bytes.
    pub fn weight(&self) -> usize {
        let weight = |(key, value): &(Key, Value)| {
            let name = size_of::<Key>().saturating_add(key.len());
            name.saturating_add(value.weight())
        };
        let unused = self.entries.capacity().saturating_sub(self.entries.len());
        let unused = unused.saturating_mul(size_of::<(Key, Value)>());
        let members = self.entries.iter().map(weight).sum::<usize>();
        unused.saturating_add(members)
    }

    /// An object without members.
    pub const fn new() -> Object {
        Object {
            entries: Vec::new(),
        }
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    }

    /// The value of `key`, for changing.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.entries
            .iter_mut()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    }

    /// Puts `value` under `key`, in the old place if there is one, else last. Gives back what stood there.
    pub fn insert(&mut self, key: impl Into<Key>, value: impl Into<Value>) -> Option<Value> {
        let key = key.into();
        let value = value.into();
        if let Some(place) = self.get_mut(&key) {
            return Some(std::mem::replace(place, value));
        }
        self.entries.push((key, value));
        None
    }

    /// Takes `key` out; the order of the rest stays.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let place = self.entries.iter().position(|(name, _)| name == key)?;
        Some(self.entries.remove(place).1)
    }

    /// The member at this place, from 0.
    pub fn at(&self, index: usize) -> Option<(&str, &Value)> {
        self.entries.get(index).map(|(key, value)| (&**key, value))
    }

    /// Members in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (&**key, value))
    }

    /// Keys in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries.iter().map(|(key, _)| &**key)
    }

    /// How many members.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a key of which the caller knows that it is new.
    pub(super) fn push_distinct(&mut self, key: Key, value: Value) {
        self.entries.push((key, value));
    }

    pub(super) fn into_entries(self) -> Vec<(Key, Value)> {
        self.entries
    }
}

impl IntoIterator for Object {
    type Item = (Key, Value);
    type IntoIter = std::vec::IntoIter<(Key, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.into_entries().into_iter()
    }
}

// Values hold what users and servers say: their shape may be logged, their content not.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(_) => f.write_str("bool"),
            Value::Number(_) => f.write_str("number"),
            Value::String(text) => write!(f, "string of {} bytes", text.len()),
            Value::Array(elements) => write!(f, "array of {}", elements.len()),
            Value::Object(object) => write!(f, "object of {}", object.len()),
        }
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("number")
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "object of {}", self.len())
    }
}
