//! Records of MCP servers that a host started without Exeat.

use exeat_policy::Reason;

use crate::audit::mask;
use crate::audit::record::{Decision, Effect, Exec, Finding, Kind, Mode, Status};
use crate::audit::{Outcome, Text};
use crate::channel::{Done, Unregistered};
use crate::flow::Stages;
use crate::telemetry::clock;

/// Records one, with what became of it and what to do about it.
pub(super) async fn record(stages: &Stages, told: &Unregistered) {
    let process = &told.process;
    let mut record = stages.log.record(Kind::Exec, clock::now());
    let workloads = &stages.intake.workloads;
    record.workload = workloads
        .get(told.host)
        .map(|known| workloads.recorded(&known, process.pid));
    record.exec = Some(Exec {
        exe: Text::new(&process.exe),
        args: mask::command(process.args.iter().map(String::as_str)),
        pid: process.pid,
        ppid: Some(process.parent),
        uid: Some(process.uid),
        sha256: process.sha256.as_deref().map(Text::new),
    });
    let (effect, status, done) = match told.done {
        Done::Left => (Effect::Allow, Status::Done, "it reaches what its host may"),
        Done::Isolated => (Effect::Deny, Status::Refused, "it reaches nothing"),
        Done::Stopped => (Effect::Deny, Status::Refused, "it was ended"),
    };
    let state = stages.decider.in_force();
    record.decision = Some(Decision {
        effect,
        rule: None,
        reason: Some(Text::fixed(Reason::Unregistered.text())),
        mode: Mode::Enforce,
        would: None,
        would_rule: None,
        would_reason: None,
        policy: Some(Text::new(state.set.fingerprint())),
        generation: Some(state.generation),
        counters: Vec::new(),
    });
    let detail = format!(
        "{}; {done}; register it and have the host call `exeat run NAME`, as `exeat hosts import` arranges",
        told.why
    );
    record.finding = Some(Finding {
        what: Text::fixed("unregistered_server"),
        detail: Some(Text::new(&detail)),
        count: None,
    });
    record.outcome = Some(Outcome {
        status,
        ..Outcome::default()
    });
    if let Err(error) = stages.log.event(record).await {
        tracing::error!(%error, "an unregistered server could not be recorded");
    }
}
