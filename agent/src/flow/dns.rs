//! Names: whose query it is, what policy says of the name, and the answer's record.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use exeat_policy::Name;
use hickory_proto::op::ResponseCode;
use hyper::body::Bytes;
use tokio::net::{TcpStream, UdpSocket};

use super::describe::{Story as _, finding};
use super::{KernelBindings, Stages, open};
use crate::audit::record::{Decision, Dns, Effect, Kind, Mode, Stage};
use crate::audit::{Outcome, Text};
use crate::decide::Decider;
use crate::identify::bindings::BindFault as Unbound;
use crate::identify::workloads::Workloads;
use crate::intake::{Actor, Arrived};
use crate::resolve::{
    BindFault, DnsOutcome, DnsResult, FrameLimits, Frames, NameGrant, Oracle, Transport, asked,
    describe_type, unserved,
};
use crate::telemetry::clock;

/// Datagrams of a query beyond which it is not read (EDNS or not, a question is short).
const DATAGRAM: usize = 1500;

/// What the resolver asks of policy and kernel.
#[derive(Debug)]
pub struct Names {
    /// The decision.
    pub decider: Arc<Decider>,
    /// Who is managed.
    pub workloads: Arc<Workloads>,
    /// What the kernel was told.
    pub bindings: Arc<KernelBindings>,
}

impl Oracle for Names {
    fn may_resolve(&self, workload: u32, name: &Name) -> Option<NameGrant> {
        let known = self.workloads.get(workload)?;
        let caller = known.caller();
        let permit = self.decider.resolve(caller, name).ok()?;
        let terms = permit.egress();
        let bindings = self.decider.ports(caller, name);
        Some(NameGrant {
            private: terms.is_some_and(|terms| terms.private)
                || bindings.iter().any(|binding| binding.egress.private),
            synthetic: bindings.iter().any(|binding| binding.egress.synthetic),
            ports: bindings
                .iter()
                .map(|binding| (binding.port, exeat_policy::Protocol::Tcp))
                .collect(),
        })
    }

    fn bind(
        &self,
        workload: u32,
        name: &Name,
        addresses: &[IpAddr],
        grant: &NameGrant,
    ) -> Result<(), BindFault> {
        self.bindings
            .bind(workload, name, addresses, &ports(grant))
            .map_err(|cause| unbound(workload, name, cause))
    }

    fn is_synthetic(&self, workload: u32, name: &Name) -> bool {
        self.bindings.is_synthetic(workload, name)
    }

    fn synthetic(&self, workload: u32, name: &Name) -> Result<(Ipv4Addr, Ipv6Addr), BindFault> {
        let given = self.bindings.synthetic(workload, name);
        let (v4, v6) = given.map_err(|cause| unbound(workload, name, cause))?;
        // A name that policy has dropped meanwhile has no ports, so that nothing opens.
        let ports = self
            .may_resolve(workload, name)
            .map(|grant| ports(&grant))
            .unwrap_or_default();
        self.bindings
            .bind(workload, name, &[v4.into(), v6.into()], &ports)
            .map_err(|cause| unbound(workload, name, cause))?;
        Ok((v4, v6))
    }
}

fn unbound(workload: u32, name: &Name, cause: Unbound) -> BindFault {
    BindFault {
        name: name.to_string(),
        workload,
        cause: Box::new(cause),
    }
}

fn ports(grant: &NameGrant) -> Vec<(u16, exeat_ebpf::Protocol)> {
    grant
        .ports
        .iter()
        .map(|(port, _)| (*port, exeat_ebpf::Protocol::Tcp))
        .collect()
}

/// Serves the resolver's datagram socket until it fails.
#[expect(clippy::infinite_loop, reason = "ends with the gate, which drops it")]
pub async fn serve_datagrams(stages: Arc<Stages>, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0_u8; DATAGRAM];
    loop {
        let (count, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "receiving a query");
                continue;
            }
        };
        let query = Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default());
        let Some([high, low]) = query.first_chunk::<2>() else {
            continue;
        };
        let id = u16::from_be_bytes([*high, *low]);
        let source = match stages.intake.kernel.dns_source(from, id) {
            Ok(Some(source)) => source,
            // Not from a managed process: there is nobody to answer for.
            Ok(None) => continue,
            Err(error) => {
                finding(&stages.log, "dns_source", &error, None).await;
                continue;
            }
        };
        let came = clock::monotonic();
        let (stages, socket) = (Arc::clone(&stages), Arc::clone(&socket));
        stages.tasks.clone().spawn(async move {
            let actor = stages
                .intake
                .actor(source.workload, source.tgid, source.uid, came)
                .await;
            let Some(actor) = actor else { return };
            let answer = serve_query(&stages, &actor, &query, Transport::Udp).await;
            if let Some(answer) = answer
                && let Err(error) = socket.send_to(&answer, from).await
            {
                tracing::debug!(%error, "sending an answer");
            }
        });
    }
}

/// Serves DNS over a redirected connection, until it is over or the gate stops.
pub(super) async fn serve_stream(stages: &Arc<Stages>, arrived: &Arrived, stream: TcpStream) {
    let mut frames = Frames::new(stream, FrameLimits::default());
    loop {
        // One that idles holds no gate that stops.
        let next = tokio::select! {
            biased;
            () = stages.stopping.cancelled() => return,
            next = frames.next() => next,
        };
        let query = match next {
            Ok(Some(query)) => query,
            Ok(None) => return,
            Err(fault) => {
                let workload = Some(arrived.actor.process.clone());
                return finding(&stages.log, "dns_stream", &fault, workload).await;
            }
        };
        let answer = serve_query(stages, &arrived.actor, &query, Transport::Tcp).await;
        let Some(answer) = answer else { return };
        if let Err(fault) = frames.send(&answer).await {
            tracing::debug!(%fault, "sending an answer");
            return;
        }
    }
}

/// One query, with its record.
async fn serve_query(
    stages: &Stages,
    actor: &Actor,
    query: &[u8],
    transport: Transport,
) -> Option<Vec<u8>> {
    let Ok(mut record) = open(stages, actor, Kind::Dns).await else {
        // Said at once: a client that hears nothing waits for a long time.
        return unserved(query, transport);
    };
    record.stage(Stage::Decide);
    let resolver = &stages.resolver;
    record.record_mut().dns = asked(query).map(|(name, record_type)| Dns {
        name: Text::new(name.strip_suffix('.').unwrap_or(&name)),
        record_type: Text::new(&record_type),
        ..Dns::default()
    });
    let answer = match record.intend().await {
        Ok(intended) => {
            let workload = actor.number();
            resolver
                .serve_query(workload, query, transport, &intended)
                .await
        }
        Err(unavailable) => {
            record.refuse_with(&unavailable);
            return unserved(query, transport);
        }
    };
    let outcome = &answer.outcome;
    record.record_mut().dns = Some(described(outcome));
    let refusal = outcome.is_refusal();
    let state = stages.decider.in_force();
    record.record_mut().decision = Some(Decision {
        effect: if refusal { Effect::Deny } else { Effect::Allow },
        rule: None,
        reason: Some(
            actor
                .known
                .barred()
                .map_or_else(|| reason(outcome), Text::fixed),
        ),
        mode: Mode::Enforce,
        would: None,
        would_rule: None,
        would_reason: None,
        policy: Some(Text::new(state.set.fingerprint())),
        generation: Some(state.generation),
        counters: Vec::new(),
    });
    drop(record.close(if refusal {
        Outcome::refused()
    } else if let DnsResult::Upstream(fault) = &outcome.result {
        Outcome::failed(Text::error(&**fault))
    } else if outcome.is_failure() {
        Outcome::failed(Text::fixed(said(&outcome.result)))
    } else {
        Outcome::done()
    }));
    answer.bytes
}

fn described(outcome: &DnsOutcome) -> Dns {
    let addresses = outcome.addresses.iter().map(ToString::to_string);
    let aliases = outcome.aliases.iter().map(ToString::to_string);
    Dns {
        // As policy and the other records write it: without the root's dot.
        name: Text::new(outcome.asked.strip_suffix('.').unwrap_or(&outcome.asked)),
        record_type: Text::new(&outcome.kind.map(describe_type).unwrap_or_default()),
        code: outcome.rcode.map(|code| {
            let code = ResponseCode::from(0, code.to_be_bytes()[1]);
            Text::new(&format!("{code:?}").to_ascii_uppercase())
        }),
        answers: addresses
            .chain(aliases)
            .map(|answer| Text::new(&answer))
            .collect(),
        upstream: outcome
            .upstream
            .map(|upstream| Text::new(&upstream.to_string())),
    }
}

/// What became of a query, in words.
fn said(result: &DnsResult) -> &'static str {
    match result {
        DnsResult::Answered => "addresses were given",
        DnsResult::Synthetic => "a synthetic address was given",
        DnsResult::Loopback => "the loopback address was given",
        DnsResult::NoData => "the name has no address of this type",
        DnsResult::NoName => "the name does not exist",
        DnsResult::OtherType => "a type that is never asked upstream",
        DnsResult::NotAllowed => "the name is not allowed",
        DnsResult::NotAHostName => "not a host name",
        DnsResult::Reserved => "a reserved name",
        DnsResult::Reverse => "a reverse look-up",
        DnsResult::Refused => "every address is of a class that is not allowed",
        DnsResult::Malformed(_) => "a malformed query",
        DnsResult::Overloaded => "too many queries at once",
        DnsResult::TooManyNames => "too many new names in a minute",
        DnsResult::GrantChanged => "the policy changed meanwhile",
        DnsResult::Unbound(_) => "the addresses could not be bound",
        DnsResult::Upstream(_) => "the upstream resolvers failed",
        DnsResult::Unencodable => "the answer could not be written",
    }
}

fn reason(outcome: &DnsOutcome) -> Text {
    let mut reason = said(&outcome.result).to_owned();
    for refused in &outcome.refused {
        reason.push_str("; ");
        reason.push_str(&refused.address.to_string());
        reason.push_str(" is ");
        reason.push_str(refused.class.as_str());
    }
    Text::new(&reason)
}
