//! A section that many records have in common.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

/// A section that is built once and put into many records: cloning it costs a counter, and it is written as JSON
/// once.
#[derive(Debug, Default)]
pub struct Shared<T>(Arc<Held<T>>);

#[derive(Debug, Default)]
struct Held<T> {
    value: T,
    json: OnceLock<Box<RawValue>>,
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.value == other.0.value
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(Held {
            value,
            json: OnceLock::new(),
        }))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: Serialize> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Held { value, json } = &*self.0;
        match json.get() {
            Some(json) => json.serialize(serializer),
            None => match to_raw_value(value) {
                Ok(made) => json.get_or_init(|| made).serialize(serializer),
                // The serializer says what is wrong with it.
                Err(_) => value.serialize(serializer),
            },
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::from)
    }
}
