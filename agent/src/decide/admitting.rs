//! Breakers asked: of every call that policy lets through, and of one that waited for an approval before that is used up.

use exeat_policy::{PolicySet, Reason};
use tokio::time::Instant;

use super::breakers::Trial;
use super::permit::Judged;
use super::{Action, Decider, Refused, TOOLS_CALL};
use crate::audit::Text;
use crate::audit::record::{Effect, Mode};

/// What the breakers of a server and its tool said of one call that may go, as far as they have a say.
#[derive(Debug)]
pub struct Admission(Said);

#[derive(Debug)]
enum Said {
    /// There are none.
    Free,
    /// It goes, and its end is told.
    Goes(Trial),
    /// It would not go, were its server not observed.
    Observed,
}

/// For how many milliseconds calls are refused.
struct Refuses(u64);

impl Admission {
    /// Where nothing was asked.
    #[cfg(test)]
    pub(super) const FREE: Self = Self(Said::Free);
}

impl Decider {
    /// May a call of `tool` go, as far as breakers say? It is to be asked before an approval of it is used up.
    ///
    /// # Errors
    /// The refusal, for the record.
    pub fn admit(&self, server: &str, tool: &str) -> Result<Admission, Refused> {
        let state = self.state.load();
        let admitted = self.admitted(&state.set, server, tool);
        admitted.map_err(|Refuses(wait)| {
            let mut judged = state.refusal(Reason::BreakerOpen);
            judged.retry_after = Some(wait);
            Refused::new(judged)
        })
    }

    fn admitted(&self, set: &PolicySet, server: &str, tool: &str) -> Result<Admission, Refuses> {
        let Some(terms) = set.breaker() else {
            return Ok(Admission(Said::Free));
        };
        match self.breakers.admit(terms, server, tool, Instant::now()) {
            Ok(trial) => Ok(Admission(Said::Goes(trial))),
            Err(_) if set.observes(server) => Ok(Admission(Said::Observed)),
            Err(wait) => Err(Refuses(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))),
        }
    }

    /// Lets a call pass whose server and tool do not fail, or that was `admitted` already; one that is refused here counts
    /// for no limit.
    pub(super) fn unbroken(
        &self,
        set: &PolicySet,
        action: &Action<'_>,
        admitted: Option<Admission>,
        mut judged: Judged,
    ) -> Result<(Judged, Option<Trial>), Refused> {
        let &Action::Mcp {
            server,
            method: TOOLS_CALL,
            name,
            ..
        } = action
        else {
            return Ok((judged, None));
        };
        let admitted = match admitted {
            Some(admission) => Ok(admission),
            None => self.admitted(set, server, name.unwrap_or_default()),
        };
        match admitted {
            Ok(Admission(Said::Free)) => Ok((judged, None)),
            Ok(Admission(Said::Goes(trial))) => Ok((judged, Some(trial))),
            Ok(Admission(Said::Observed)) => {
                judged.decision.mode = Mode::Observe;
                judged.decision.would = Some(Effect::Deny);
                judged.decision.would_rule = None;
                let why = Text::fixed(Reason::BreakerOpen.text());
                judged.decision.would_reason = Some(Box::new(why));
                Ok((judged, None))
            }
            Err(Refuses(wait)) => {
                judged.decision.effect = Effect::Deny;
                judged.decision.rule = None;
                judged.decision.reason = Some(Text::fixed(Reason::BreakerOpen.text()));
                judged.decision.mode = Mode::Enforce;
                judged.dry_run = None;
                judged.reason = Reason::BreakerOpen;
                judged.retry_after = Some(wait);
                Err(Refused::new(judged))
            }
        }
    }
}
