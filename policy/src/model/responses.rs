//! What a server may answer to tool calls.

/// Bounds on the results of tool calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Responses {
    /// The most bytes of one result, as compact JSON; `None`: as many as can be read.
    pub max_bytes: Option<u64>,
    /// The types of content that a result may hold; `None`: any.
    pub content: Option<Box<[Content]>>,
    /// Whether a result that is no error has to hold structured content.
    pub structured: bool,
}

/// The types of content (MCP 2025-06-18, `ContentBlock`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// A text.
    Text,
    /// A picture.
    Image,
    /// A sound.
    Audio,
    /// The contents of a resource.
    Resource,
    /// Where a resource is.
    ResourceLink,
}

impl Content {
    /// All, by what a block's `type` says.
    pub const ALL: [(&'static str, Self); 5] = [
        ("text", Self::Text),
        ("image", Self::Image),
        ("audio", Self::Audio),
        ("resource", Self::Resource),
        ("resource_link", Self::ResourceLink),
    ];
}

impl Responses {
    /// Whether a block of this `type` may stand in a result.
    #[must_use]
    pub fn permits(&self, named: &str) -> bool {
        self.content.as_ref().is_none_or(|permitted| {
            let mut known = Content::ALL.iter();
            known.any(|(word, content)| *word == named && permitted.contains(content))
        })
    }
}
