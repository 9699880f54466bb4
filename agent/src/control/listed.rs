//! What a server lists of a tool, as it is told and stated.

use exeat_policy::Hints;
use serde::{Deserialize, Serialize};

/// A tool as its server lists it: untrusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListedTool {
    /// `readOnlyHint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// `destructiveHint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destructive: Option<bool>,
    /// `openWorldHint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_world: Option<bool>,
}

impl ListedTool {
    /// The hint that the protocol calls so.
    pub fn named(&mut self, name: &str) -> Option<&mut Option<bool>> {
        match name {
            "readOnlyHint" => Some(&mut self.read_only),
            "destructiveHint" => Some(&mut self.destructive),
            "openWorldHint" => Some(&mut self.open_world),
            _ => None,
        }
    }
}

impl From<Hints> for ListedTool {
    fn from(hints: Hints) -> Self {
        let Hints {
            read_only,
            destructive,
            open_world,
        } = hints;
        Self {
            read_only,
            destructive,
            open_world,
        }
    }
}

impl From<ListedTool> for Hints {
    fn from(listed: ListedTool) -> Self {
        let ListedTool {
            read_only,
            destructive,
            open_world,
        } = listed;
        Self {
            read_only,
            destructive,
            open_world,
        }
    }
}
