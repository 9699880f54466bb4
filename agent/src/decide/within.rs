//! Where a message's request goes, decided anew where another policy had let it go there.

use exeat_policy::{Action, Caller, Reason};
use hyper::Method;

use super::{Decider, Exchange, InForce, Permit, Refused};
use crate::identify::peer::Peer;

/// A request that policy let through to a registered server before its messages were read: by the time they are, another
/// policy may be in force.
#[derive(Debug)]
pub struct Within {
    /// The generation of the policy that let it through.
    pub generation: Option<u64>,
    /// Where to.
    pub peer: Peer,
    /// Which port.
    pub port: u16,
    /// The method.
    pub method: Method,
    /// The path that it was judged by.
    pub path: String,
    /// Whether the connection is intercepted TLS.
    pub tls: bool,
}

impl Decider {
    /// Whether the policy in force lets the request go to this server.
    pub fn leads(&self, caller: Caller<'_>, within: &Within, server: &str) -> bool {
        let policy = self.in_force();
        self.leads_to(&policy, caller, within, server).is_ok()
    }

    /// A request and its messages are decided by one policy: what another let through is decided anew.
    pub(super) fn leads_to(
        &self,
        policy: &InForce,
        caller: Caller<'_>,
        within: &Within,
        server: &str,
    ) -> Result<(), Refused> {
        if within.generation == Some(policy.generation) {
            return Ok(());
        }
        let asked = Action::Http {
            target: within.peer.target(),
            port: within.port,
            method: within.method.as_str(),
            path: &within.path,
            tls: within.tls,
            upgrade: false,
            calls: &[],
        };
        let permit: Permit<Exchange> = self.judge_by(policy, caller, None, asked, false)?;
        let there = permit.egress().and_then(|terms| terms.server.as_deref());
        if there == Some(server) {
            return Ok(());
        }
        Err(Refused::new(policy.refusal(Reason::NotReachable)))
    }
}
