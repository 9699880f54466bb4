//! What servers may answer to tool calls.

use super::words::size;
use super::{Loader, tables};
use crate::model::{Content, Responses};
use crate::yaml::Node;

impl Loader<'_> {
    pub(super) fn responses(&mut self, node: &Node) -> Option<Responses> {
        let fields = self.reader.fields(node, &tables::RESPONSES)?;
        let max_bytes = fields
            .get("max_bytes")
            .map(|node| self.reader.parsed(node, "a size as `1MiB`", size));
        let content = fields.get("content").map(|node| self.content(node));
        let structured = fields
            .get("structured")
            .map(|node| self.reader.choice(node, &tables::STRUCTURED, &[]));
        if max_bytes.is_none() && content.is_none() && structured.is_none() {
            let message = "`responses` needs one of `max_bytes`, `content` and `structured`";
            self.reader.fault(node.span, message);
        }
        Some(Responses {
            max_bytes: max_bytes.flatten(),
            content: content.map(Vec::into_boxed_slice),
            structured: structured.flatten().unwrap_or_default(),
        })
    }

    fn content(&mut self, node: &Node) -> Vec<Content> {
        let items = self.reader.list(node, "types of content");
        if items.is_some_and(<[_]>::is_empty) {
            let message = "an empty list of types of content permits no result";
            self.reader.fault(node.span, message);
        }
        let items = items.unwrap_or_default().iter();
        items
            .filter_map(|item| self.reader.choice(item, &Content::ALL, &[]))
            .collect()
    }
}
