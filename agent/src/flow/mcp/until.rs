//! What ends an exchange with a server before it has ended by itself.

use tokio_util::sync::CancellationToken;

use crate::identify::token::{Expiry, Verified};
use crate::intake::Actor;
use crate::refuse::Refusal;

/// How long what is under way may go on.
#[derive(Clone)]
pub(super) struct Until {
    severed: CancellationToken,
    expiry: Expiry,
}

/// Why it may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// The server was disconnected.
    Severed,
    /// The token that authorised it expired.
    Expired,
}

impl Until {
    /// Until the server is disconnected (`severed`), and for as long as the token is good by which `actor` asked.
    pub(super) fn new(severed: CancellationToken, actor: &Actor) -> Self {
        let token = actor.token.as_deref();
        Self {
            severed,
            expiry: token.map_or(Expiry::NEVER, Verified::expiry),
        }
    }

    /// Waits for what ends it.
    pub(super) async fn over(self) -> Over {
        tokio::select! {
            biased;
            () = self.severed.cancelled() => Over::Severed,
            () = self.expiry.over() => Over::Expired,
        }
    }

    /// Whether the token has expired, whatever became of the timer.
    pub(super) fn is_expired(&self) -> bool {
        self.expiry.is_over()
    }
}

impl Over {
    /// What whoever waits is told.
    pub(super) fn refusal(self) -> Refusal<'static> {
        match self {
            Self::Severed => Refusal::Disconnected,
            Self::Expired => Refusal::InvalidToken,
        }
    }

    /// Why, for the record of what was being answered.
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::Severed => "the server was disconnected while it answered",
            Self::Expired => "the token that authorised it expired while it was answered",
        }
    }
}
