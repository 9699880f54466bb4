//! What is asked of the supervisor, and its answers: certificates, and that calls which wait for a person are kept.

use super::Supervisor;
use crate::channel::{Hex, ToSupervisor};
use crate::decide::approvals::KeepRequest;
use crate::gate::GateError;
use crate::tls::leaf::SignRequest;

/// Certificates asked for and not yet answered.
const WAITING: usize = 256;

impl Supervisor {
    pub(super) async fn sign(&mut self, request: SignRequest) -> Result<(), GateError> {
        let SignRequest {
            name,
            public_key,
            reply,
        } = request;
        self.waiting.retain(|_, waiting| !waiting.is_closed());
        if self.waiting.len() >= WAITING {
            drop(reply.send(Err("too many certificates are being asked for".to_owned())));
            return Ok(());
        }
        self.next = self.next.wrapping_add(1);
        let request = self.next;
        self.waiting.insert(request, reply);
        let sign = ToSupervisor::Sign {
            request,
            names: vec![name],
            key: Hex(public_key),
        };
        Ok(self.channel.send(&sign, &[]).await?)
    }

    pub(super) fn certificate(&mut self, request: u64, chain: Result<Vec<Hex>, String>) {
        if let Some(waiting) = self.waiting.remove(&request) {
            let chain = chain.map(|chain| chain.into_iter().map(|Hex(der)| der).collect());
            // Who asked may have given up.
            drop(waiting.send(chain));
        }
    }

    pub(super) async fn keep(&mut self, request: KeepRequest) -> Result<(), GateError> {
        let KeepRequest { waiting, reply } = request;
        self.next = self.next.wrapping_add(1);
        let request = self.next;
        self.keeps = Some((request, reply));
        let keep = ToSupervisor::Approvals { request, waiting };
        Ok(self.channel.send(&keep, &[]).await?)
    }

    pub(super) fn kept(&mut self, request: u64, fault: Option<String>) {
        if let Some((_, waiting)) = self.keeps.take_if(|(kept, _)| *kept == request) {
            // Who asked may have given up.
            drop(waiting.send(fault.map_or(Ok(()), Err)));
        }
    }
}
