//! `exeat status`: what runs, and a live proof that policy is enforced.

use serde::Serialize;

use super::args::StatusArguments;
use super::ask::Daemon;
use super::error::{CliError, Kind};
use super::output::{Cell, Output, Painter, Table, Tone};
use super::servers::told;
use crate::control::reply::{
    AuditState, BreakerPosition, BreakerState, Canary, Check, CredentialState, Health, KernelState,
    PolicyState, Status, WorkloadKind,
};
use crate::control::{Command, Reply};

/// What was learnt.
#[derive(Debug, Serialize)]
struct Report {
    status: Status,
    /// Absent: not asked for.
    canary: Option<Proof>,
}

/// What came of the proof.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Proof {
    /// It was made.
    Made(Canary),
    /// It could not be made.
    NotMade(String),
}

/// Shows the state and makes the proof; fails where policy is not enforced.
pub(super) async fn run(
    arguments: &StatusArguments,
    daemon: &Daemon,
    output: Output,
) -> Result<(), CliError> {
    let status = daemon
        .one(&Command::Status, |reply| match reply {
            Reply::Status(status) => Some(*status),
            _ => None,
        })
        .await?;
    let canary = if arguments.no_canary {
        None
    } else {
        Some(prove(daemon).await?)
    };
    let report = Report { status, canary };
    output.document(&report, |painter| report.text(painter))?;
    if report.holds() {
        Ok(())
    } else {
        Err(CliError::found())
    }
}

async fn prove(daemon: &Daemon) -> Result<Proof, CliError> {
    let made = daemon
        .one(&Command::Canary, |reply| match reply {
            Reply::Canary(canary) => Some(canary),
            _ => None,
        })
        .await;
    match made {
        Ok(canary) => Ok(Proof::Made(canary)),
        // An ordinary user may see its own; the proof is for administrators.
        Err(error) if error.kind == Kind::Refused => Ok(Proof::NotMade(error.message)),
        Err(error) => Err(error),
    }
}

impl Report {
    /// Whether nothing speaks against enforcement.
    fn holds(&self) -> bool {
        let proved = match &self.canary {
            Some(Proof::Made(canary)) => canary.enforced,
            Some(Proof::NotMade(_)) | None => true,
        };
        let audited = self.status.audit.as_ref().is_none_or(|audit| audit.healthy);
        let supplied = self.status.credentials.iter();
        let supplied = supplied.filter(|credential| credential.problem.is_some());
        let verifies = self.status.issuers.iter().all(|issuer| issuer.keys > 0);
        proved
            && audited
            && verifies
            && supplied.count() == 0
            && self.status.gate.is_some()
            && self.status.policy.rejected.is_none()
    }

    fn text(&self, painter: Painter) -> String {
        let mut table = Table::new(&["", ""]);
        let status = &self.status;
        table.row(["exeat".into(), processes(status)]);
        table.row(["kernel".into(), kernel(&status.kernel)]);
        for lack in &status.kernel.degraded {
            table.row(["".into(), Cell::new(Tone::Doubtful, lack)]);
        }
        table.row(["policy".into(), policy(&status.policy)]);
        if let Some(why) = &status.policy.rejected {
            table.row([
                "".into(),
                Cell::new(Tone::Bad, format!("newer files were refused: {why}")),
            ]);
        }
        table.row(["audit".into(), audit(status.audit.as_ref())]);
        for issuer in &status.issuers {
            table.row(["issuer".into(), cell(issuer.check())]);
        }
        for credential in &status.credentials {
            table.row(["credential".into(), self::credential(credential)]);
        }
        for webhook in &status.webhooks {
            table.row(["webhook".into(), cell(webhook.check())]);
        }
        for breaker in &status.breakers {
            if breaker.position != BreakerPosition::Closed {
                table.row(["breaker".into(), self::breaker(breaker)]);
            }
        }
        for disconnected in &status.disconnected {
            let text = format!("{} {}", disconnected.server, told(disconnected));
            table.row(["disconnected".into(), Cell::new(Tone::Bad, text)]);
        }
        self.proof(&mut table);
        let mut text = table.render(painter);
        text.push('\n');
        text.push_str(&workloads(status, painter));
        if !status.findings.is_empty() {
            text.push('\n');
            text.push_str(&findings(status, painter));
        }
        text
    }

    fn proof(&self, table: &mut Table) {
        let heading = "enforcement";
        match &self.canary {
            None => {}
            Some(Proof::NotMade(why)) => {
                table.row([
                    heading.into(),
                    Cell::new(Tone::Quiet, format!("not proved: {why}")),
                ]);
            }
            Some(Proof::Made(canary)) => {
                let (tone, verdict) = if canary.enforced {
                    (Tone::Good, "proved just now by a managed process")
                } else {
                    (Tone::Bad, "NOT ENFORCED: a managed process was not refused")
                };
                table.row([heading.into(), Cell::new(tone, verdict)]);
                for attempt in &canary.attempts {
                    let tone = if attempt.refused {
                        Tone::Quiet
                    } else {
                        Tone::Bad
                    };
                    let line = format!(
                        "{}: {} in {} µs",
                        attempt.tried, attempt.saw, attempt.micros
                    );
                    table.row(["".into(), Cell::new(tone, line)]);
                }
            }
        }
    }
}

fn processes(status: &Status) -> Cell {
    let Status {
        version,
        supervisor,
        gate,
        gate_restarts,
        ..
    } = status;
    let since = supervisor.started;
    let Some(gate) = gate else {
        let text = format!(
            "{version}, supervisor {} since {since}, NO GATE",
            supervisor.pid
        );
        return Cell::new(Tone::Bad, text);
    };
    let restarts = match gate_restarts {
        0 => String::new(),
        1 => ", gate restarted once".to_owned(),
        count => format!(", gate restarted {count} times"),
    };
    let text = format!(
        "{version}, supervisor {}, gate {}, since {since}{restarts}",
        supervisor.pid, gate.pid
    );
    Cell::new(
        if *gate_restarts == 0 {
            Tone::Plain
        } else {
            Tone::Doubtful
        },
        text,
    )
}

fn kernel(kernel: &KernelState) -> Cell {
    let adopted = if kernel.adopted {
        ", taken over from the daemon before"
    } else {
        ""
    };
    let lost = match kernel.lost_events {
        0 => String::new(),
        lost => format!(", {lost} events lost"),
    };
    format!("programs attached{adopted}{lost}").into()
}

fn policy(policy: &PolicyState) -> Cell {
    let PolicyState {
        generation,
        fingerprint,
        loaded,
        servers,
        rules,
        ..
    } = policy;
    let short: String = fingerprint.chars().take(12).collect();
    format!("generation {generation} ({short}) since {loaded}: {servers} servers, {rules} rules")
        .into()
}

fn audit(audit: Option<&AuditState>) -> Cell {
    let Some(audit) = audit else {
        return Cell::new(Tone::Bad, "unknown while the gate is being started anew");
    };
    if audit.healthy {
        return format!("{} records in {}", audit.sequence, audit.directory).into();
    }
    let problem = audit
        .problem
        .as_deref()
        .unwrap_or("records do not reach the disk");
    Cell::new(
        Tone::Bad,
        format!("NOT RECORDING, so nothing new is let through: {problem}"),
    )
}

fn cell(check: Check) -> Cell {
    let tone = match check.standing {
        Health::Ok => Tone::Plain,
        Health::Warn => Tone::Doubtful,
        Health::Fail => Tone::Bad,
    };
    Cell::new(tone, check.found)
}

fn credential(credential: &CredentialState) -> Cell {
    let CredentialState {
        name,
        read,
        problem,
    } = credential;
    match (read, problem) {
        (_, Some(why)) => {
            let text = format!("{name}: NONE, so requests that need it are refused: {why}");
            Cell::new(Tone::Bad, text)
        }
        (Some(read), None) => format!("{name}: read at {read}").into(),
        (None, None) => Cell::new(Tone::Doubtful, format!("{name}: its source is being read")),
    }
}

fn breaker(breaker: &BreakerState) -> Cell {
    let BreakerState {
        server,
        tool,
        position,
        retry_after_ms,
        ..
    } = breaker;
    let scope = match tool {
        Some(tool) => format!("{server} {tool}"),
        None => server.clone(),
    };
    let (tone, stands) = match (position, retry_after_ms) {
        (BreakerPosition::Closed, _) => (Tone::Plain, "closed: calls pass".to_owned()),
        (BreakerPosition::HalfOpen, _) => (
            Tone::Doubtful,
            "half open: it failed; the next call is let through to see".to_owned(),
        ),
        (BreakerPosition::Open, wait) => {
            let seconds = wait.unwrap_or_default().div_ceil(1000);
            let stands = format!("open: IT FAILS, so calls are refused for another {seconds} s");
            (Tone::Bad, stands)
        }
    };
    Cell::new(tone, format!("{scope}: {stands}"))
}

fn workloads(status: &Status, painter: Painter) -> String {
    if status.workloads.is_empty() {
        return "no workload is running\n".to_owned();
    }
    let mut table = Table::new(&[
        "WORKLOAD",
        "NAME",
        "KIND",
        "UID",
        "PROCESSES",
        "CONNECTIONS",
        "SINCE",
    ]);
    for workload in &status.workloads {
        let kind = match workload.kind {
            WorkloadKind::Server => "server",
            WorkloadKind::Host => "host",
            WorkloadKind::Unregistered => "unregistered",
        };
        table.row([
            workload.number.to_string().into(),
            Cell::new(Tone::Strong, &workload.name),
            kind.into(),
            workload.uid.to_string().into(),
            workload.processes.to_string().into(),
            workload.connections.to_string().into(),
            workload.started.to_string().into(),
        ]);
    }
    table.render(painter)
}

fn findings(status: &Status, painter: Painter) -> String {
    let mut table = Table::new(&["FOUND", "ABOUT", "WHAT"]);
    for finding in &status.findings {
        table.row([
            finding.time.to_string().into(),
            finding.workload.as_deref().unwrap_or("-").into(),
            Cell::new(Tone::Doubtful, &finding.text),
        ]);
    }
    table.render(painter)
}

#[cfg(test)]
mod tests;
