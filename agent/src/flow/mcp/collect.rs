//! Why there is no whole body of a server.

use thiserror::Error;

use super::until::Over;
use crate::forward::whole::Incomplete;
use crate::refuse::{Refusal, Timeout, Upstream};

/// Why there is no whole body.
#[derive(Debug, Error)]
pub(super) enum Uncollected {
    /// It may not go on.
    #[error(transparent)]
    Over(Over),
    /// It did not come.
    #[error(transparent)]
    Incomplete(#[from] Incomplete),
}

impl Uncollected {
    /// What the client is told.
    pub(super) fn refusal(&self) -> Refusal<'static> {
        match self {
            Self::Over(over) => over.refusal(),
            Self::Incomplete(Incomplete::NoRoom(_)) => Refusal::HeldBytes,
            Self::Incomplete(Incomplete::TooLarge) => Refusal::ResponseTooLarge,
            Self::Incomplete(Incomplete::Late(_)) => Refusal::TimedOut(Timeout::Body),
            Self::Incomplete(Incomplete::Read(_)) => Refusal::Upstream(Upstream::Reset),
        }
    }
}
