//! Arguments as policy looks at them: the decoder's own tree, lent and not copied.

use exeat_policy::{AsJson, Json, Members};

use crate::decode::json::{Object, Value};

impl AsJson for Value {
    fn as_json(&self) -> Json<'_> {
        match self {
            Value::Null => Json::Null,
            Value::Bool(truth) => Json::Bool(*truth),
            Value::Number(number) => Json::Number(number.text()),
            Value::String(text) => Json::Text(text),
            Value::Array(elements) => Json::List(elements),
            Value::Object(object) => Json::Map(object),
        }
    }
}

impl Members for Object {
    fn count(&self) -> usize {
        self.len()
    }

    fn at(&self, index: usize) -> Option<(&str, Json<'_>)> {
        let (key, value) = Object::at(self, index)?;
        Some((key, value.as_json()))
    }

    fn get(&self, key: &str) -> Option<Json<'_>> {
        Object::get(self, key).map(AsJson::as_json)
    }
}
