//! What records leave out.

use super::{Kind, Loader, tables};
use crate::model::{Mask, Pointer};
use crate::yaml::{Fields, Node};

impl Loader<'_> {
    pub(super) fn mask(&mut self, node: &Node) {
        let Some(fields) = self.reader.fields(node, &tables::MASK) else {
            return;
        };
        let servers = self.narrowing(fields, "servers", Kind::Server, "servers");
        let args = self.pointers(fields, "args");
        let results = self.pointers(fields, "results");
        if args.is_none() && results.is_none() {
            let message = "an entry of `mask` needs `args` or `results`";
            self.reader.fault(node.span, message);
        }
        let place = self.reader.place(node.span);
        self.draft.masks.push(Mask {
            servers,
            args: args.unwrap_or_default(),
            results: results.unwrap_or_default(),
            place,
        });
    }

    /// The pointers of a key, where it is written.
    fn pointers(&mut self, fields: Fields<'_>, key: &str) -> Option<Vec<Pointer>> {
        let node = fields.get(key)?;
        let items = self.reader.list(node, "pointers").unwrap_or_default();
        if items.is_empty() {
            let message = "an empty list of pointers masks nothing";
            self.reader.fault(node.span, message);
        }
        let read = items.iter().filter_map(|item| {
            let expected = "a pointer as `/customer/email`";
            self.reader.parsed(item, expected, Pointer::parse)
        });
        Some(read.collect())
    }
}
