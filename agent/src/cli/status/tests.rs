//! What `exeat status` shows.

use super::*;
use crate::control::reply::{
    Attempt, CredentialState, Finding, IssuerState, Process, WebhookState, Workload,
};
use crate::telemetry::clock::Timestamp;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_microseconds((1_795_224_773 + seconds) * 1_000_000)
}

fn credential() -> CredentialState {
    CredentialState {
        name: "github-read".to_owned(),
        read: Some(at(6)),
        problem: None,
    }
}

fn webhook() -> WebhookState {
    WebhookState {
        approver: "dana".to_owned(),
        host: "hooks.example".to_owned(),
        problem: None,
    }
}

#[expect(clippy::too_many_lines, reason = "a table is read line by line")]
fn status() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        supervisor: Process {
            pid: 812,
            started: at(0),
        },
        gate: Some(Process {
            pid: 815,
            started: at(1),
        }),
        gate_restarts: 0,
        kernel: KernelState {
            adopted: true,
            degraded: Vec::new(),
            lost_events: 0,
        },
        policy: PolicyState {
            generation: 4,
            fingerprint: "3f1c2a9be0d1aaaabbbb".to_owned(),
            loaded: at(5),
            servers: 2,
            rules: 7,
            rejected: None,
        },
        audit: Some(AuditState {
            healthy: true,
            directory: "/var/lib/exeat/audit".to_owned(),
            sequence: 18_234,
            queued: 0,
            problem: None,
        }),
        workloads: vec![Workload {
            number: 3,
            name: "github".to_owned(),
            kind: WorkloadKind::Server,
            cgroup: "/exeat/w/github-3".to_owned(),
            uid: 1000,
            processes: 2,
            connections: 4,
            started: at(60),
        }],
        issuers: vec![IssuerState {
            issuer: "https://login.example".to_owned(),
            keys: 2,
            fetched: Some(at(7)),
            problem: None,
        }],
        credentials: vec![credential()],
        webhooks: vec![webhook()],
        breakers: vec![BreakerState {
            server: "github".to_owned(),
            tool: None,
            position: BreakerPosition::Closed,
            retry_after_ms: None,
            calls: 3,
            failed: 0,
        }],
        disconnected: Vec::new(),
        findings: vec![Finding {
            time: at(90),
            record: "0".to_owned(),
            workload: Some("github".to_owned()),
            text: "dialled the proxy's port \u{1b}[2J directly".to_owned(),
        }],
    }
}

fn proof(refused: bool) -> Proof {
    let saw = if refused {
        "Connection refused (os error 111)"
    } else {
        "it went through"
    };
    Proof::Made(Canary {
        enforced: refused,
        attempts: vec![Attempt {
            tried: "tcp to 127.0.0.1:4711".to_owned(),
            saw: saw.to_owned(),
            refused,
            micros: 31,
        }],
    })
}

#[test]
fn all_is_well() {
    let report = Report {
        status: status(),
        canary: Some(proof(true)),
    };
    assert!(report.holds());
    insta::assert_snapshot!(report.text(Painter::default()));
}

#[test]
fn nothing_is_well() {
    let mut status = status();
    status.gate = None;
    status.audit = Some(AuditState {
        healthy: false,
        problem: Some("no space left on device".to_owned()),
        ..status.audit.unwrap()
    });
    status.policy.rejected = Some("a.yaml:3:1: unknown field `sevrers`".to_owned());
    status.kernel.degraded = vec!["a refused connection fails with EPERM here".to_owned()];
    status.kernel.lost_events = 12;
    status.workloads.clear();
    let problem = Some("fetching the keys of the issuer `https://login.example`: late".to_owned());
    status.issuers[0].problem = problem.clone();
    status.webhooks[0].problem = Some("it answered 500".to_owned());
    status.credentials[0].problem = Some("reading `/etc/exeat/github`: no such file".to_owned());
    status.breakers[0].position = BreakerPosition::HalfOpen;
    status.breakers.push(BreakerState {
        server: "github".to_owned(),
        tool: Some("get_issue".to_owned()),
        position: BreakerPosition::Open,
        retry_after_ms: Some(12_300),
        calls: 0,
        failed: 0,
    });
    status.credentials.push(CredentialState {
        name: "other".to_owned(),
        read: None,
        problem: None,
    });
    status.issuers.push(IssuerState {
        issuer: "https://other.example".to_owned(),
        keys: 0,
        fetched: None,
        problem,
    });
    let report = Report {
        status,
        canary: Some(proof(false)),
    };
    assert!(!report.holds());
    insta::assert_snapshot!(report.text(Painter::default()));
}

#[test]
fn any_one_fault_is_a_finding() {
    let report = |change: fn(&mut Status), canary| {
        let mut status = status();
        change(&mut status);
        Report { status, canary }.holds()
    };
    assert!(report(|_| {}, None));
    assert!(report(|_| {}, Some(Proof::NotMade("refused".to_owned()))));
    assert!(!report(|_| {}, Some(proof(false))));
    assert!(!report(|status| status.gate = None, None));
    assert!(!report(|status| status.issuers[0].keys = 0, None));
    assert!(!report(
        |status| status.credentials[0].problem = Some(String::new()),
        None
    ));
    assert!(!report(
        |status| status.policy.rejected = Some(String::new()),
        None
    ));
    assert!(!report(
        |status| status.audit.as_mut().unwrap().healthy = false,
        None
    ));
}
