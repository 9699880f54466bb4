//! What the register says of a server's tools.

use super::Map;
use crate::decide::Hints;
use crate::glob::Glob;
use crate::model::{Class, ClassSet, Tool};

/// The `tools` of one server.
#[derive(Debug)]
pub(crate) struct ToolTable {
    exact: Map<Box<str>, Tool>,
    /// The most specific pattern first.
    patterns: Vec<(Glob, Tool)>,
}

impl ToolTable {
    pub(super) fn new(tools: &[(Glob, Tool)]) -> Self {
        let mut exact = Map::default();
        let mut patterns = Vec::new();
        for (glob, tool) in tools {
            match glob.literal() {
                Some(name) => drop(exact.insert(name.into(), tool.clone())),
                None => patterns.push((glob.clone(), tool.clone())),
            }
        }
        // The longest literal beginning, then the longest pattern, then the first written (stable).
        patterns
            .sort_by_key(|(glob, _)| std::cmp::Reverse((glob.prefix().len(), glob.as_str().len())));
        Self { exact, patterns }
    }

    /// The classes of a tool: as the policy says, else as its hints say.
    pub(crate) fn classes(&self, tool: &str, hints: Option<Hints>) -> ClassSet {
        self.named(tool).map_or_else(
            || classify(hints.unwrap_or_default()),
            |tool| ClassSet::of(&[tool.class]),
        )
    }

    /// All that the policy says of tools, in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Tool> {
        let patterns = self.patterns.iter().map(|(_, tool)| tool);
        self.exact.values().chain(patterns)
    }

    /// What the policy says of a tool.
    pub(crate) fn named(&self, tool: &str) -> Option<&Tool> {
        self.exact.get(tool).or_else(|| {
            let of = self.patterns.iter().find(|(glob, _)| glob.matches(tool));
            of.map(|(_, tool)| tool)
        })
    }
}

/// Hints read with the specification's defaults: what is not said is destructive and external.
fn classify(hints: Hints) -> ClassSet {
    let change = match (
        hints.read_only.unwrap_or(false),
        hints.destructive.unwrap_or(true),
    ) {
        (true, _) => Class::Read,
        (false, true) => Class::Destructive,
        (false, false) => Class::Write,
    };
    if hints.open_world.unwrap_or(true) {
        ClassSet::of(&[change, Class::External])
    } else {
        ClassSet::of(&[change])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_hints_are_the_worst() {
        let hints = |read_only, destructive, open_world| Hints {
            read_only,
            destructive,
            open_world,
        };
        for (given, classes) in [
            (Hints::default(), "destructive, external"),
            (hints(Some(true), None, None), "read, external"),
            (hints(Some(true), Some(true), Some(false)), "read"),
            (hints(None, Some(false), Some(false)), "write"),
            (hints(Some(false), None, Some(false)), "destructive"),
        ] {
            assert_eq!(classify(given).to_string(), classes, "{given:?}");
        }
    }

    #[test]
    fn the_most_specific_pattern_names_the_class() {
        let tool = |pattern: &str, class| {
            let tool = Tool {
                class,
                dry_run: None,
                credential: None,
            };
            (Glob::parse(pattern).unwrap(), tool)
        };
        let table = ToolTable::new(&[
            tool("*", Class::External),
            tool("get_*", Class::Read),
            tool("get_secret_*", Class::Destructive),
            tool("get_secret_x", Class::Write),
            tool("*_all", Class::Destructive),
        ]);
        for (name, class) in [
            ("get_x", Class::Read),
            ("get_all", Class::Read),
            ("get_secret_y", Class::Destructive),
            ("get_secret_x", Class::Write),
            ("drop_all", Class::Destructive),
            ("other", Class::External),
        ] {
            assert_eq!(table.classes(name, None), ClassSet::of(&[class]), "{name}");
        }
    }
}
