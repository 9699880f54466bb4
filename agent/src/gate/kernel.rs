//! The kernel's refusals as records, and the gate's sign of life to kernel and supervisor.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use exeat_ebpf::kind::{drop as dropped, refused};
use exeat_ebpf::{Event, EventKind, KernelError};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::build::{dns_upstreams, own_addresses};
use crate::audit::record::{Decision, Effect, Finding, Kind, Mode, Status, Tcp};
use crate::audit::{Outcome, Record, Text};
use crate::channel::{GateEnd, Health, Kind as Workload, ToSupervisor};
use crate::config::Config;
use crate::flow::Stages;
use crate::telemetry::clock::{self, Monotonic};

/// Equal refusals within this time share a record.
const TOGETHER: Duration = Duration::from_secs(1);
/// More refusals than the kernel holds for the gate (a ring of 1 MiB): none waits behind so many.
const HELD: usize = 32_768;
/// Kinds of refusal counted apart within that time; more are recorded one by one.
const APART: usize = 4096;
/// The kernel takes the gate for dead after three times this.
const BEAT: Duration = Duration::from_secs(1);

/// Why a host was cut off.
const LOOKED_AT: &str =
    "refused in the kernel: what the host had started already was still being looked at";

/// What makes two refusals equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Same {
    kind: EventKind,
    workload: u32,
    address: Option<IpAddr>,
    port: u16,
    protocol: u8,
    tgid: u32,
}

/// Records refusals until `over`; then what was counted and not told yet.
///
/// # Errors
/// [`KernelError`] when the ring cannot be read.
pub(super) fn events(
    stages: Arc<Stages>,
    over: CancellationToken,
) -> Result<impl Future<Output = ()> + Send + use<>, KernelError> {
    let mut ring = stages.intake.kernel.events()?;
    Ok(async move {
        let mut repeated: HashMap<Same, (Event, u64)> = HashMap::new();
        let mut tick = interval(TOGETHER);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = ring.next() => match event {
                    Ok(event) => heed(&stages, event, &mut repeated).await,
                    Err(error) => tracing::error!(%error, "reading the kernel's refusals"),
                },
                _ = tick.tick() => tell(&stages, &mut repeated).await,
                () = over.cancelled() => break,
            }
        }
        // What the kernel had refused by then: it may be many times what was read, where the machine is busy.
        let mut rest = Rest::new(|| ring.try_next());
        for event in rest.by_ref() {
            heed(&stages, event, &mut repeated).await;
        }
        tell(&stages, &mut repeated).await;
        if let Some(error) = rest.failed {
            tracing::error!(%error, "reading the last of the kernel's refusals");
            lost(&stages, "the last refusals could not all be read", None).await;
        }
    })
}

/// What is left in the ring: no more than it holds, and nothing behind what cannot be read, since all of it may be so.
struct Rest<F> {
    next: F,
    room: usize,
    failed: Option<KernelError>,
}

impl<F> Rest<F> {
    const fn new(next: F) -> Self {
        Self {
            next,
            room: HELD,
            failed: None,
        }
    }
}

impl<F: FnMut() -> Result<Option<Event>, KernelError>> Iterator for Rest<F> {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.room = self.room.checked_sub(1)?;
        match (self.next)() {
            Ok(event) => event,
            Err(error) => {
                self.room = 0;
                self.failed = Some(error);
                None
            }
        }
    }
}

async fn tell(stages: &Stages, repeated: &mut HashMap<Same, (Event, u64)>) {
    for (_, (event, count)) in repeated.drain() {
        if count > 0 {
            record(stages, &event, Some(count)).await;
        }
    }
}

async fn heed(stages: &Stages, event: Event, repeated: &mut HashMap<Same, (Event, u64)>) {
    let same = Same {
        kind: event.kind,
        workload: event.workload,
        address: event.address,
        port: event.port,
        protocol: event.protocol,
        tgid: event.tgid,
    };
    if let Some((_, count)) = repeated.get_mut(&same) {
        *count = count.saturating_add(1);
        return;
    }
    record(stages, &event, None).await;
    if repeated.len() < APART {
        repeated.insert(same, (event, 0));
    }
}

async fn record(stages: &Stages, event: &Event, count: Option<u64>) {
    let Some((kind, what, reason)) = meaning(event.kind) else {
        return;
    };
    let known = stages.intake.workloads.get(event.workload);
    let barred = known.as_ref().and_then(|known| known.barred());
    let host = known
        .as_ref()
        .is_some_and(|known| known.workload.kind == Workload::Host);
    let looked_at = (host && is_cut(event)).then_some(LOOKED_AT);
    let reason = looked_at
        .or_else(|| particular(event))
        .or(barred)
        .unwrap_or(reason);
    let mut record: Record = stages.log.record(kind, clock::now());
    if let Some(known) = known {
        let moment = Monotonic::from_nanoseconds(event.at_ns);
        stages.intake.told.reach(moment).await;
        record.workload = Some(stages.intake.workloads.recorded(&known, event.tgid));
        let number = known.workload.number;
        let cause = |server| stages.calls.cause(server, number);
        record.cause = known.server().and_then(cause);
    }
    record.tcp = Some(Tcp {
        protocol: protocol(event.protocol),
        address: event.address,
        port: event.address.map(|_| event.port),
        ..Tcp::default()
    });
    let state = stages.decider.in_force();
    record.decision = Some(Decision {
        effect: Effect::Deny,
        rule: None,
        reason: Some(Text::fixed(reason)),
        mode: Mode::Enforce,
        would: None,
        would_rule: None,
        would_reason: None,
        policy: Some(Text::new(state.set.fingerprint())),
        generation: Some(state.generation),
        counters: Vec::new(),
    });
    if kind == Kind::Finding || count.is_some() {
        let detail = Text::new(&format!("{} ({reason})", event.comm));
        record.finding = Some(Finding {
            what: Text::fixed(what),
            detail: Some(detail),
            count,
        });
    }
    record.outcome = Some(Outcome {
        status: Status::Refused,
        ..Outcome::default()
    });
    if let Err(error) = stages.log.event(record).await {
        tracing::error!(%error, "a refusal of the kernel could not be recorded");
    }
}

/// What a refusal is called in records; nothing for what is no refusal.
fn meaning(kind: EventKind) -> Option<(Kind, &'static str, &'static str)> {
    let row = match kind {
        EventKind::RefusedConnect => (
            Kind::Tcp,
            "refused_connect",
            "refused in the kernel: nothing allows the address",
        ),
        EventKind::RefusedSend => (
            Kind::Tcp,
            "refused_send",
            "refused in the kernel: nothing allows the datagram",
        ),
        EventKind::RefusedSocket => (
            Kind::Finding,
            "refused_socket",
            "refused in the kernel: a kind of socket that workloads do not get",
        ),
        EventKind::EgressDrop => (
            Kind::Finding,
            "egress_drop",
            "dropped in the kernel: a packet that nothing allows out",
        ),
        EventKind::IngressDrop => (
            Kind::Finding,
            "ingress_drop",
            "dropped in the kernel: a packet that nothing allows in",
        ),
        EventKind::ForeignSocket => (
            Kind::Finding,
            "foreign_socket",
            "refused in the kernel: a socket that another created",
        ),
        EventKind::ProxyDialled => (
            Kind::Finding,
            "proxy_dialled",
            "refused in the kernel: the gate's own port",
        ),
        EventKind::ForeignNetns => (
            Kind::Finding,
            "foreign_namespace",
            "refused in the kernel: another network namespace",
        ),
        EventKind::Exec | EventKind::Fork | EventKind::Exit | EventKind::WatchedExec => {
            return None;
        }
    };
    Some(row)
}

/// Its workload was cut off.
const fn is_cut(event: &Event) -> bool {
    matches!(
        (event.kind, event.detail),
        (
            EventKind::RefusedConnect | EventKind::RefusedSend,
            refused::CUT
        ) | (EventKind::EgressDrop | EventKind::IngressDrop, dropped::CUT)
    )
}

/// A reason that the event itself gives.
fn particular(event: &Event) -> Option<&'static str> {
    match (event.kind, event.detail) {
        (EventKind::RefusedConnect | EventKind::RefusedSend, refused::NO_GATE) => {
            Some("refused in the kernel: no gate was there to decide")
        }
        _ if is_cut(event) => Some("refused in the kernel: the server is disconnected"),
        (EventKind::IngressDrop, dropped::NOT_BY_GATE) => {
            Some("dropped in the kernel: a connection past the gate")
        }
        _ => None,
    }
}

fn protocol(number: u8) -> Text {
    match number {
        6 => Text::fixed("tcp"),
        17 => Text::fixed("udp"),
        1 | 58 => Text::fixed("icmp"),
        132 => Text::fixed("sctp"),
        136 => Text::fixed("udplite"),
        other => Text::new(&other.to_string()),
    }
}

/// Beats for the kernel and the supervisor, watches for lost events, for changed addresses and resolvers.
#[expect(clippy::infinite_loop, reason = "ends with the gate, which aborts it")]
pub(super) async fn pulse(stages: Arc<Stages>, channel: Arc<GateEnd>, config: Config) {
    let mut tick = interval(BEAT);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = stages.intake.kernel.lost().unwrap_or_default();
    loop {
        tick.tick().await;
        if let Err(error) = stages.intake.kernel.heartbeat() {
            tracing::error!(%error, "telling the kernel that the gate lives");
        }
        stages.resolver.set_own(own_addresses());
        // A file that is being rewritten may name none for a moment; the old ones stay then.
        if let Err(error) = stages.resolver.set_upstreams(dns_upstreams(&config)) {
            tracing::debug!(%error, "taking the resolvers anew");
        }
        let now = stages.intake.kernel.lost().unwrap_or(known);
        if now > known {
            let detail = "refusals came faster than they could be read";
            lost(&stages, detail, Some(now - known)).await;
            known = now;
        }
        let health = Health {
            connections: stages.intake.live.len() as u64,
            generation: stages.decider.in_force().generation,
        };
        if let Err(error) = channel.send(&ToSupervisor::Health(health), &[]).await {
            tracing::warn!(%error, "telling the supervisor that the gate lives");
        }
    }
}

/// Records that refusals have no records, and how many, if that is known.
async fn lost(stages: &Stages, detail: &'static str, count: Option<u64>) {
    let mut record = stages.log.record(Kind::Finding, clock::now());
    record.finding = Some(Finding {
        what: Text::fixed("kernel_events_lost"),
        detail: Some(Text::fixed(detail)),
        count,
    });
    if let Err(error) = stages.log.event(record).await {
        tracing::error!(%error, "lost events could not be recorded");
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn event(port: u16) -> Event {
        Event {
            kind: EventKind::RefusedConnect,
            workload: 1,
            tgid: 1,
            tid: 1,
            ppid: 0,
            uid: 1,
            port,
            protocol: 6,
            family: 4,
            address: None,
            detail: 0,
            cgroup: 0,
            at_ns: 0,
            started_ns: 0,
            comm: String::new(),
            execution: None,
        }
    }

    /// How many are read of a ring of which this is said, how often it is asked, and whether that failed.
    fn read(says: impl Fn(usize) -> Result<Option<Event>, KernelError>) -> (usize, usize, bool) {
        let mut asked = 0;
        let mut rest = Rest::new(|| {
            asked += 1;
            says(asked)
        });
        let read = rest.by_ref().count();
        assert!(rest.next().is_none(), "it is over");
        let failed = rest.failed.is_some();
        (read, asked, failed)
    }

    #[test]
    fn what_is_left_of_the_ring_is_read_to_its_end_or_to_what_cannot_be_read() {
        let failing = || KernelError::System {
            what: "read",
            cause: io::Error::other("no"),
        };
        let nine = |asked| Ok((asked <= 9).then(|| event(443)));
        assert_eq!(read(nine), (9, 11, false));
        assert_eq!(read(|_| Err(failing())), (0, 1, true));
        // What stands behind it may be as it is, however much there is.
        assert_eq!(
            read(|asked| if asked == 4 {
                Err(failing())
            } else {
                Ok(Some(event(1)))
            }),
            (3, 4, true)
        );
        // The kernel goes on while it is read.
        assert_eq!(read(|_| Ok(Some(event(1)))), (HELD, HELD, false));
    }
}
