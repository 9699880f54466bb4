//! What ends an exchange with a server before it has ended by itself.

use std::future::pending;
use std::sync::Arc;

use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::flow::Stages;
use crate::identify::certificate::Shown;
use crate::identify::token::{Expiry, Verified};
use crate::intake::Actor;
use crate::refuse::Refusal;

/// How long what is under way may go on.
#[derive(Clone)]
pub(super) struct Until {
    severed: CancellationToken,
    expiry: Expiry,
    certificate: Option<(Shown, Arc<Stages>)>,
}

/// Why it may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{}", self.why())]
pub(in crate::flow) enum Over {
    /// The server was disconnected.
    Severed,
    /// The token that authorised it expired.
    Expired,
    /// The client certificate that authorised it expired, or nobody vouches for it any more.
    Uncertified,
}

impl Until {
    /// Until the server is disconnected (`severed`), and for as long as the token and the certificate are good by which
    /// `actor` asked.
    pub(super) fn new(severed: CancellationToken, actor: &Actor, stages: &Arc<Stages>) -> Self {
        let token = actor.token.as_deref();
        let certificate = actor.certificate.clone();
        Self {
            severed,
            expiry: token.map_or(Expiry::NEVER, Verified::expiry),
            certificate: certificate.map(|shown| (shown, Arc::clone(stages))),
        }
    }

    /// Waits for what ends it.
    pub(super) async fn over(self) -> Over {
        tokio::select! {
            biased;
            () = self.severed.cancelled() => Over::Severed,
            () = self.expiry.over() => Over::Expired,
            () = uncertified(self.certificate.as_ref()) => Over::Uncertified,
        }
    }

    /// Whether token or certificate have expired, whatever became of the timer.
    pub(super) fn is_over(&self) -> Option<Over> {
        if self.expiry.is_over() {
            return Some(Over::Expired);
        }
        let certificate = self.certificate.as_ref();
        let expired = certificate.is_some_and(|(shown, _)| shown.verified().expiry().is_over());
        expired.then_some(Over::Uncertified)
    }
}

async fn uncertified(certificate: Option<&(Shown, Arc<Stages>)>) {
    match certificate {
        // On the heap: most exchanges have none, and each would keep room for it.
        Some((shown, stages)) => Box::pin(shown.over(&stages.authorities)).await,
        None => pending().await,
    }
}

impl Over {
    /// Every one.
    pub(super) const ALL: [Self; 3] = [Self::Severed, Self::Expired, Self::Uncertified];

    /// What whoever waits is told.
    pub(in crate::flow) fn refusal(self) -> Refusal<'static> {
        match self {
            Self::Severed => Refusal::Disconnected,
            Self::Expired => Refusal::InvalidToken,
            Self::Uncertified => Refusal::InvalidCertificate,
        }
    }

    /// Why, for the record of what was being answered.
    pub(super) const fn why(self) -> &'static str {
        match self {
            Self::Severed => "the server was disconnected while it answered",
            Self::Expired => "the token that authorised it expired while it was answered",
            Self::Uncertified => {
                "the client certificate that authorised it ceased to count while it was answered"
            }
        }
    }
}
