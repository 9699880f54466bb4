//! Which revision a message is spoken in.

use std::fmt;

use crate::decode::json::{Object, Value};
use crate::decode::rpc::Message;

/// `_meta` member of every modern request: the revision that it is spoken in.
pub const META_PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// `_meta` member of modern requests: name and version of the client.
pub const META_CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
/// `_meta` member of every modern request: what the client offers on this request.
pub const META_CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// `_meta` member of modern requests: asks for log notifications.
pub const META_LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
/// `_meta` member of modern results: name and version of the server.
pub const META_SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";

/// The two protocols that share a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Era {
    /// 2024-11-05 to 2025-11-25.
    Legacy,
    /// 2026-07-28.
    Modern,
}

/// A released revision of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Revision {
    /// 2024-11-05: HTTP with server-sent events on a stream of their own.
    V2024_11_05,
    /// 2025-03-26: Streamable HTTP; batches.
    V2025_03_26,
    /// 2025-06-18: no batches; version header.
    V2025_06_18,
    /// 2025-11-25: tasks, resumable polling.
    V2025_11_25,
    /// 2026-07-28: the modern era.
    V2026_07_28,
}

impl Revision {
    /// All released revisions, oldest first.
    pub const ALL: [Revision; 5] = [
        Revision::V2024_11_05,
        Revision::V2025_03_26,
        Revision::V2025_06_18,
        Revision::V2025_11_25,
        Revision::V2026_07_28,
    ];

    /// The revision written `text`, exactly.
    pub fn parse(text: &str) -> Option<Revision> {
        Revision::ALL
            .into_iter()
            .find(|revision| revision.as_str() == text)
    }

    /// As on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Revision::V2024_11_05 => "2024-11-05",
            Revision::V2025_03_26 => "2025-03-26",
            Revision::V2025_06_18 => "2025-06-18",
            Revision::V2025_11_25 => "2025-11-25",
            Revision::V2026_07_28 => "2026-07-28",
        }
    }

    /// The era of the revision.
    pub fn era(self) -> Era {
        match self {
            Revision::V2024_11_05
            | Revision::V2025_03_26
            | Revision::V2025_06_18
            | Revision::V2025_11_25 => Era::Legacy,
            Revision::V2026_07_28 => Era::Modern,
        }
    }

    /// Whether batches are part of the revision.
    pub fn has_batches(self) -> bool {
        self == Revision::V2025_03_26
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a message is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spoken {
    /// By the body: a message that names its revision in `_meta` is modern, whatever it names.
    pub era: Era,
    /// `None` when a revision is named that is not known here; the server answers that.
    pub revision: Option<Revision>,
}

/// How `message` is spoken. `header` is `MCP-Protocol-Version`, or what the session negotiated; it counts for
/// legacy messages only, and its absence means 2025-03-26 (Streamable HTTP, "Protocol Version Header").
pub fn spoken(message: &Message, header: Option<&str>) -> Spoken {
    if let Some(claim) = message.params().and_then(claim) {
        return Spoken {
            era: Era::Modern,
            revision: claim.as_str().and_then(Revision::parse),
        };
    }
    let revision = match header {
        Some(text) => Revision::parse(text).filter(|revision| revision.era() == Era::Legacy),
        None => Some(Revision::V2025_03_26),
    };
    Spoken {
        era: Era::Legacy,
        revision,
    }
}

/// The revision that `params` claim in `_meta`, of any type.
pub(super) fn claim(params: &Object) -> Option<&Value> {
    params.get("_meta")?.get(META_PROTOCOL_VERSION)
}
