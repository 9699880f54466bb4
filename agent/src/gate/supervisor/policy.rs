//! The policy in force, and whose client certificates count: replaced as the supervisor says.

use std::sync::Arc;

use exeat_policy::PolicySet;

use super::Supervisor;
use crate::audit::Text;
use crate::audit::record::{Kind, PolicyChange};
use crate::channel::ToSupervisor;
use crate::gate::GateError;
use crate::identify::certificate::Authorities;
use crate::telemetry::clock;

impl Supervisor {
    /// All or nothing: the new policy is in force for every decision after this, the kernel is brought in step,
    /// and connections that are no longer allowed are cut.
    pub(super) async fn policy(&mut self, generation: u64) -> Result<(), GateError> {
        let mut faults = Vec::new();
        let action = match self.compiled(generation).await {
            Ok(set) => {
                self.stages.credentials.keep(&set);
                self.stages.decider.replace(set, generation);
                self.stages.log.in_force(generation);
                for known in self.stages.intake.workloads.all() {
                    if let Err(error) = self.openings.agree(&self.stages, &known) {
                        tracing::error!(%error, "bringing the kernel in step with the policy");
                    }
                }
                let cut = self.stages.cut_disallowed(|_any| true);
                let sessions = self.stages.sessions.recheck(&self.stages.decider);
                tracing::info!(generation, cut, sessions, "the policy is in force");
                "reloaded"
            }
            Err(error) => {
                self.stages.decider.reject(error.to_string());
                faults.push(error.to_string());
                "refused"
            }
        };
        self.record_policy(action, &faults).await;
        let reloaded = ToSupervisor::Reloaded {
            generation: self.stages.decider.in_force().generation,
            faults,
        };
        Ok(self.channel.send(&reloaded, &[]).await?)
    }

    /// The policy of this number, which is being compiled since it was told.
    async fn compiled(&mut self, generation: u64) -> Result<PolicySet, GateError> {
        match self.prepared.take() {
            Some((prepared, compiled)) if prepared == generation => {
                compiled.await.unwrap_or_else(|_panic| {
                    Err(GateError::Policy("its compiler panicked".to_owned()))
                })
            }
            _ => Err(GateError::Policy(format!(
                "policy {generation} was not told of"
            ))),
        }
    }

    pub(super) async fn record_policy(&self, action: &'static str, faults: &[String]) {
        let state = self.stages.decider.in_force();
        let mut record = self.stages.log.record(Kind::Policy, clock::now());
        record.policy = Some(PolicyChange {
            action: Text::fixed(action),
            fingerprint: Some(Text::new(state.set.fingerprint())),
            generation: Some(state.generation),
            faults: faults.iter().map(Text::from).collect(),
        });
        if let Err(error) = self.stages.log.event(record).await {
            tracing::error!(%error, "a change of policy could not be recorded");
        }
    }

    /// Client certificates are verified by these from here on, at the next request of each connection.
    pub(super) fn authorities(&self, given: &[(String, String)]) {
        let given = given.iter().map(|(name, text)| (&**name, &**text));
        match Authorities::new(given) {
            Ok(authorities) => self.stages.authorities.store(Arc::new(authorities)),
            // The supervisor made them before it sent them.
            Err(fault) => tracing::error!(%fault, "the client authorities were not taken"),
        }
    }
}
