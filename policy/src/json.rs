//! JSON as policy looks at it: borrowed from whoever decoded it, numbers by their source text.

use std::fmt;

/// A JSON value. The decoder keeps its own tree and lends it: nothing is copied to be judged.
#[derive(Clone, Copy)]
pub enum Json<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, exactly as it was written (RFC 8259, 6).
    Number(&'a str),
    /// A string, escapes resolved.
    Text(&'a str),
    /// An array.
    List(&'a dyn List),
    /// An object with distinct keys.
    Map(&'a dyn Members),
    /// A value that is not known, as records leave out secrets: no test on it can be evaluated.
    Unknown,
}

/// A decoder's value, as policy looks at it.
pub trait AsJson: Sync {
    /// The value.
    fn as_json(&self) -> Json<'_>;
}

impl<T: AsJson> List for Vec<T> {
    fn count(&self) -> usize {
        self.len()
    }

    fn at(&self, index: usize) -> Option<Json<'_>> {
        self.get(index).map(AsJson::as_json)
    }
}

/// The elements of an array.
pub trait List: Sync {
    /// How many there are.
    fn count(&self) -> usize;
    /// The element at this place, from 0.
    fn at(&self, index: usize) -> Option<Json<'_>>;
}

/// The members of an object.
pub trait Members: Sync {
    /// How many there are.
    fn count(&self) -> usize;
    /// The member at this place, from 0, in the order in which they came.
    fn at(&self, index: usize) -> Option<(&str, Json<'_>)>;
    /// The value of the member with this key.
    fn get(&self, key: &str) -> Option<Json<'_>>;
    /// Whether there may be a member with this key (`None`: with any) that is not shown here, as records leave out claims
    /// that policy does not read.
    fn withholds(&self, key: Option<&str>) -> bool {
        let _ = key;
        false
    }
}

// Arguments hold what users say: their shape may be logged, their content not.
impl fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(_) => f.write_str("bool"),
            Self::Number(_) => f.write_str("number"),
            Self::Text(text) => write!(f, "string of {} bytes", text.len()),
            Self::List(list) => write!(f, "array of {}", list.count()),
            Self::Map(map) => write!(f, "object of {}", map.count()),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}
