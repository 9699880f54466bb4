//! The schema, the types and the document say the same.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::*;
use crate::audit::record::{self, Record};
use crate::audit::{Kind, RecordId, Text as Recorded};
use crate::telemetry::clock::{self, Monotonic};

const DOCUMENT: &str = include_str!("../../../docs/audit-format.md");

#[test]
fn the_schema_describes_each_member_that_is_written_and_no_other() {
    let mut written = serde_json::to_value(full()).unwrap();
    let members = written.as_object_mut().unwrap();
    for added in ["v", "seq", "prev", "carried", "hash"] {
        members.insert(added.to_owned(), Value::Null);
    }
    let mut described = BTreeSet::new();
    paths(LINE, "", &mut described);
    let mut found = BTreeSet::new();
    members_of(&written, "", &mut found);
    let open = ["cause/", "mcp/arguments/", "mcp/notifications/"];
    found.retain(|path| !open.iter().any(|open| path.starts_with(open)));
    assert_eq!(found, described);
}

#[test]
fn members_that_the_schema_calls_optional_are_left_out_when_empty() {
    let id: RecordId = "00000000-0000-7000-8000-000000000000".parse().unwrap();
    let record = Record::new(id, clock::now(), Kind::Http);
    let written = serde_json::to_value(&record).unwrap();
    let names: BTreeSet<_> = written
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        names,
        BTreeSet::from(["id", "time", "mono", "kind", "generation"])
    );
    assert_eq!(serde_json::from_value::<Record>(written).unwrap(), record);
    let full = full();
    let written = serde_json::to_value(&full).unwrap();
    assert_eq!(serde_json::from_value::<Record>(written).unwrap(), full);
}

#[test]
fn the_words_of_the_schema_are_those_of_the_types() {
    fn check<T: serde::de::DeserializeOwned>(words: &[&str]) {
        for word in words {
            serde_json::from_value::<T>(Value::from(*word)).unwrap();
        }
        let error = serde_json::from_value::<T>(Value::from("no such word"));
        let error = error.err().unwrap().to_string();
        assert_eq!(error.matches('`').count(), 2 + 2 * words.len(), "{error}");
    }
    check::<Kind>(KINDS);
    check::<record::Effect>(EFFECTS);
    check::<record::Stage>(STAGES);
    for (members, name) in [(WORKLOAD, "kind!"), (MCP, "from"), (MCP, "response")] {
        let Some((_, Word(words), _)) = members.iter().find(|member| member.0 == name) else {
            panic!("{name}")
        };
        match (name, words.len()) {
            ("kind!", _) => check::<record::WorkloadKind>(words),
            ("from", _) => check::<record::Side>(words),
            _ => check::<record::ResponseKind>(words),
        }
    }
    let Some((_, Word(statuses), _)) = OUTCOME.first() else {
        panic!("outcome")
    };
    check::<record::Status>(statuses);
    let Some((_, Word(extents), _)) = INSPECTION.first() else {
        panic!("inspection")
    };
    check::<record::Extent>(extents);
}

#[test]
fn the_document_has_a_row_for_each_member() {
    let mut rows = String::new();
    table(LINE, "", &mut rows);
    let missing: Vec<_> = rows.lines().filter(|row| !DOCUMENT.contains(row)).collect();
    assert!(
        missing.is_empty(),
        "add to docs/audit-format.md:\n{}",
        missing.join("\n")
    );
    let rows: BTreeSet<_> = rows.lines().collect();
    for row in DOCUMENT.lines().filter(|line| line.starts_with("| `")) {
        assert!(
            rows.contains(row),
            "docs/audit-format.md describes what is not written: {row}"
        );
    }
}

fn table(members: &[Member], prefix: &str, rows: &mut String) {
    for (name, holds, meaning) in members {
        let path = format!("{prefix}{}", name.trim_end_matches('!'));
        let always = if name.ends_with('!') { "always" } else { "" };
        writeln!(rows, "| `{path}` | {always} | {meaning} |").unwrap();
        if let Section(inner) | Sections(inner) = holds {
            table(inner, &format!("{path}."), rows);
        }
    }
}

fn paths(members: &[Member], prefix: &str, described: &mut BTreeSet<String>) {
    for (name, holds, _) in members {
        let path = format!("{prefix}{}", name.trim_end_matches('!'));
        if let Section(inner) | Sections(inner) = holds {
            paths(inner, &format!("{path}/"), described);
        }
        described.insert(path);
    }
}

fn members_of(value: &Value, prefix: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let path = format!("{prefix}{name}");
                members_of(member, &format!("{path}/"), found);
                found.insert(path);
            }
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| members_of(item, prefix, found)),
        _ => {}
    }
}

/// A record with every member.
#[expect(clippy::too_many_lines, reason = "every member of a record, once")]
fn full() -> Record {
    let text = || Recorded::fixed("x");
    let some = || Some(text());
    let address = Some(Ipv4Addr::LOCALHOST.into());
    let id: RecordId = "00000000-0000-7000-8000-000000000001".parse().unwrap();
    let workload = record::Workload {
        name: text(),
        kind: record::WorkloadKind::Server,
        cgroup: Some(1),
        pid: Some(1),
        start: Some(Monotonic::from_nanoseconds(1)),
        exe: some(),
        args: vec![text()],
        uid: Some(1),
        sha256: some(),
    };
    let identity = record::Identity {
        name: text(),
        verified_by: text(),
        user: some(),
        uid: Some(1),
        issuer: some(),
        subject: some(),
        claims: Some(json!(["a"])),
        claims_read: vec![text()],
        certificate: Some(record::Certificate {
            authority: text(),
            subject: text(),
            sha256: text(),
        }),
        identities: vec![text()],
        roles: vec![text()],
    };
    let session = record::Session {
        id: text(),
        client: some(),
        client_version: some(),
        revision: some(),
        host: Some(record::HostProcess {
            pid: 1,
            started: 1,
            exe: text(),
            sha256: some(),
            ancestors: vec![text()],
        }),
        host_unknown: some(),
    };
    let mcp = record::Mcp {
        server: some(),
        method: text(),
        from: Some(record::Side::Client),
        name: some(),
        class: some(),
        arguments: Some(json!({"a": 1})),
        arguments_cut: true,
        id: some(),
        task_of: Some(id),
        response: Some(record::ResponseKind::Result),
        code: Some(-1),
        is_error: Some(true),
        dry_run: Some(record::DryRun {
            sent: true,
            argument: some(),
        }),
        notifications: [(text(), 1)].into(),
        count: Some(1),
    };
    let http = record::Http {
        name: some(),
        address,
        port: Some(1),
        sni: some(),
        version: some(),
        method: some(),
        path: some(),
        credential: some(),
        status: Some(200),
        request_bytes: Some(1),
        response_bytes: Some(1),
    };
    let tcp = record::Tcp {
        protocol: text(),
        name: some(),
        sni: some(),
        address,
        port: Some(1),
        sent_bytes: Some(1),
        received_bytes: Some(1),
    };
    let dns = record::Dns {
        name: text(),
        record_type: text(),
        code: some(),
        answers: vec![text()],
        upstream: some(),
    };
    let exec = record::Exec {
        exe: text(),
        args: vec![text()],
        pid: 1,
        ppid: Some(1),
        uid: Some(1),
        sha256: some(),
    };
    let decision = record::Decision {
        effect: record::Effect::Deny,
        rule: some(),
        reason: some(),
        mode: record::Mode::Observe,
        would: Some(record::Effect::Allow),
        would_rule: Some(Box::new(text())),
        would_reason: Some(Box::new(text())),
        policy: some(),
        generation: Some(1),
        counters: vec![record::Counter {
            name: text(),
            value: 1.into(),
            limit: 1.into(),
        }],
    };
    let approval = record::Approval {
        id: text(),
        rules: vec![text()],
        decision: Some(Recorded::fixed("approved")),
        approver: some(),
        approver_uid: Some(1),
        decided: Some(clock::wall()),
        reason: some(),
        arguments_sha256: Recorded::fixed(
            "0000000000000000000000000000000000000000000000000000000000000000",
        ),
    };
    let inspection = record::Inspection {
        extent: record::Extent::Partial,
        why: some(),
    };
    let policy = record::PolicyChange {
        action: text(),
        fingerprint: some(),
        generation: Some(1),
        faults: vec![text()],
    };
    let cut = record::Cut {
        segment: 1,
        offset: 1,
        bytes: 1,
        sha256: text(),
    };
    let outcome = record::Outcome {
        status: record::Status::Failed,
        stage: Some(record::Stage::Tls),
        error: some(),
        latency_us: 1,
        upstream_us: Some(1),
        bytes: Some(1),
    };
    Record {
        id,
        open: Some(record::Open {
            stage: record::Stage::Forward,
        }),
        time: clock::wall(),
        mono: clock::monotonic(),
        kind: Kind::Mcp,
        generation: 1,
        workload: Some(workload.into()),
        identity: Some(identity.into()),
        session: Some(session.into()),
        mcp: Some(mcp),
        http: Some(http),
        tcp: Some(tcp),
        dns: Some(dns),
        exec: Some(exec),
        decision: Some(decision),
        approval: Some(approval),
        inspected: Some(record::Inspected {
            request: inspection.clone(),
            response: inspection,
        }),
        cause: Some(record::Cause::Candidates(vec![id])),
        policy: Some(policy),
        finding: Some(record::Finding {
            what: text(),
            detail: some(),
            count: Some(1),
        }),
        lifecycle: Some(record::Lifecycle {
            event: text(),
            detail: some(),
            extra_args: vec![text()],
            cut: Some(cut),
            counts: vec![record::Counted {
                what: text(),
                from: Some(record::Side::Client),
                count: 1,
            }],
            fetched: vec![record::Fetched {
                host: text(),
                path: text(),
                package: some(),
                version: some(),
                bytes: 1,
                sha256: some(),
            }],
        }),
        outcome: Some(outcome),
    }
}
