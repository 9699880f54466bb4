//! How much of a text is read at most.

/// Bounds on what is read. The defaults are the smallest that the reference implementations accept, with room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole text.
    pub bytes: usize,
    /// Containers inside each other; the root counts as one. A `u8`, so that recursion fits any stack.
    pub depth: u8,
    /// Values in all, because a value costs more memory than the two bytes that it can be written in.
    pub values: usize,
    /// Characters of one number. Python refuses integers of more than 4300 digits; a 1024-bit integer has 309.
    pub number: usize,
}

impl Limits {
    /// Bounds for one request body: 4 MiB, as the TypeScript and Python servers have it.
    pub const REQUEST: Limits = Limits {
        bytes: 4 << 20,
        depth: 64,
        values: 1 << 20,
        number: 512,
    };
    /// Bounds for one response, event or frame: 10 MiB, as the TypeScript stdio reader has it.
    pub const RESPONSE: Limits = Limits {
        bytes: 10 << 20,
        depth: 64,
        values: 1 << 21,
        number: 512,
    };
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::REQUEST
    }
}
