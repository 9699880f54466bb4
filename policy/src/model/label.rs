//! Labels of containers, as a policy asks for them.

use std::collections::BTreeMap;

/// A label that a container must carry, as Docker's `--filter label=` has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    /// Its name, all of it.
    pub name: String,
    /// Its value, all of it; `None`: whatever it is.
    pub value: Option<String>,
}

impl Label {
    /// Reads `NAME` or `NAME=VALUE`; what follows the first `=` is the value, and may be empty.
    ///
    /// # Errors
    /// There is no name.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        if name.is_empty() {
            return Err("the name is missing before `=`");
        }
        Ok(Self {
            name: name.to_owned(),
            value,
        })
    }

    /// Whether it is among a container's labels, names and values.
    #[must_use]
    pub fn is_among(&self, labels: &BTreeMap<String, String>) -> bool {
        labels
            .get(&self.name)
            .is_some_and(|found| self.value.as_ref().is_none_or(|value| value == found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_carried_whole_or_not_at_all() {
        let carried = [
            ("app", "mcp"),
            ("app.team", "mcp"),
            ("e", ""),
            ("eq", "a=b"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        for (text, is_among) in [
            ("app", true),
            ("app=mcp", true),
            ("app=", false),
            ("app=mc", false),
            ("app=mcp2", false),
            ("app=MCP", false),
            ("ap", false),
            ("App", false),
            ("app.", false),
            ("app.team=mcp", true),
            ("e", true),
            ("e=", true),
            ("e==", false),
            ("eq=a=b", true),
            ("eq=a", false),
            ("*", false),
        ] {
            assert_eq!(
                Label::parse(text).unwrap().is_among(&carried),
                is_among,
                "{text}"
            );
        }
        Label::parse("=mcp").unwrap_err();
        Label::parse("").unwrap_err();
    }
}
