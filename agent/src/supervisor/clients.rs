//! Clients of the control socket: what needs privileges is done here, the rest goes to the gate.

use std::os::fd::AsFd as _;

use super::core::Supervisor;
use crate::channel::ToGate;
use crate::control::access::Place;
use crate::control::reply::{KernelState, Process};
use crate::control::{Client, Code, Command, Facts, Responder};
use crate::launch::stage::chain;
use crate::telemetry::clock;

impl Supervisor {
    pub(super) async fn serve(&mut self, client: Client) {
        match client.command.place() {
            Place::Gate => self.hand_over(client).await,
            Place::Supervisor => match client.command {
                Command::Run(ref run) => {
                    let run = run.clone();
                    self.ask_run(client, run).await;
                }
                Command::Reload => self.reload(Some(client.responder)).await,
                Command::ServerDisconnect(order) => {
                    self.disconnect(client.responder, &client.peer, order).await;
                }
                Command::ServerReconnect(order) => {
                    self.reconnect(client.responder, &client.peer, order).await;
                }
                Command::Canary => self.canary(client.responder).await,
                _ => {
                    fail(
                        client.responder,
                        Code::Internal,
                        "nobody answers this command",
                    )
                    .await;
                }
            },
        }
    }

    async fn hand_over(&mut self, client: Client) {
        let Some(gate) = self.gate.as_ref().filter(|gate| gate.ready) else {
            let text = "the gate is being started anew; try again";
            return fail(client.responder, Code::Unavailable, text).await;
        };
        let (socket, handover) = match client.hand_over(self.facts()) {
            Ok(parts) => parts,
            Err(error) => {
                return tracing::warn!(error = chain(&error), "a client could not be handed over");
            }
        };
        let sent = gate
            .send(&ToGate::Client(Box::new(handover)), &[socket.as_fd()])
            .await;
        if let Err(error) = sent {
            self.gate_lost(&error).await;
        }
    }

    fn facts(&self) -> Facts {
        let lost = self.parts.kernel.lost();
        let mut degraded = self.parts.degraded.clone();
        degraded.extend(
            self.missing_links
                .iter()
                .map(|link| format!("not attached: {link}")),
        );
        if let Err(error) = &lost {
            degraded.push(chain(error));
        }
        Facts {
            supervisor: Process {
                pid: std::process::id(),
                started: self.started,
            },
            gate: self.gate.as_ref().map(|gate| {
                let started = clock::wall().before(gate.started.elapsed());
                Process {
                    pid: gate.pid,
                    started,
                }
            }),
            gate_restarts: self.backoff.restarts,
            kernel: KernelState {
                adopted: self.parts.kernel.adopted(),
                degraded,
                lost_events: lost.unwrap_or_default(),
            },
            rejected: self.rejected.clone(),
        }
    }
}

/// Ends an answer with a failure.
pub(super) async fn fail(client: Responder, code: Code, text: impl Into<String>) {
    if let Err(error) = client.fail(code, text).await {
        tracing::debug!(%error, "a client did not wait for its answer");
    }
}
