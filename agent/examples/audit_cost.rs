//! What a record costs: CPU per record of the closing task and of the writer, and the rate.
//!
//! `cargo run --release --example audit_cost -- [DIRECTORY] [RECORDS]`

use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;
use std::{env, io};

use exeat::audit::record::{
    Decision, Effect, Extent, Http, Identity, Inspected, Inspection, Mcp, Mode, Session, Workload,
    WorkloadKind,
};
use exeat::audit::{Kind, Log, Options, Outcome, Segments, Shared, Start, Text, mask};
use exeat::telemetry::clock;
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let directory = arguments.next().map_or_else(env::temp_dir, PathBuf::from);
    let records: u32 = arguments
        .next()
        .map_or(Ok(200_000), |records| records.parse())?;
    let directory = directory.join(format!("audit-cost-{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    let result = measure(&directory, records).await;
    std::fs::remove_dir_all(&directory)?;
    result
}

async fn measure(directory: &PathBuf, records: u32) -> Result<(), Box<dyn Error>> {
    let (log, writer) = Log::start(File::open(directory)?.into(), Options::default())?;
    let start = start();
    let arguments = json!({"repository": "acme/site", "title": "a title", "labels": ["bug", "ui"]});
    let built = building(&log, records, &arguments)?;
    let (cpu, began) = (cpu()?, clock::monotonic());
    let (mut own, mut told) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..records {
        let before = clock::monotonic();
        let mut open = log.open(Kind::Mcp, start.clone()).await?;
        fill(&mut open.record_mut(), &arguments);
        let telling = clock::monotonic();
        drop(open.intend().await?);
        told += clock::monotonic().since(telling);
        drop(open.close(Outcome::done()));
        own += clock::monotonic().since(before);
    }
    log.flush().await?;
    let (cpu, wall) = (
        self::cpu()?.saturating_sub(cpu),
        clock::monotonic().since(began),
    );
    writer.finish(Duration::from_secs(10)).await;
    let began = clock::monotonic();
    let verification = Segments::open(directory)?.verify(&[])?;
    let verified = clock::monotonic().since(began);
    let bytes = u32::try_from(size(directory)?)?;
    let proved = u32::try_from(verification.records)?;
    report(&[
        ("records", f64::from(records)),
        ("bytes per record", f64::from(bytes) / f64::from(records)),
        (
            "records per second",
            f64::from(records) / wall.as_secs_f64(),
        ),
        (
            "CPU per record, all threads, us",
            cpu.as_secs_f64() * 1e6 / f64::from(records),
        ),
        (
            "of it building and masking the record, us",
            built.as_secs_f64() * 1e6 / f64::from(records),
        ),
        (
            "wall per record, opening to closing, us",
            own.as_secs_f64() * 1e6 / f64::from(records),
        ),
        (
            "wall per record, of it telling the intent, us",
            told.as_secs_f64() * 1e6 / f64::from(records),
        ),
        (
            "verified records per second",
            f64::from(proved) / verified.as_secs_f64(),
        ),
    ])?;
    Ok(())
}

/// CPU that it takes to build the records and to mask what they hold.
fn building(log: &Log, records: u32, arguments: &Value) -> Result<Duration, Box<dyn Error>> {
    let before = cpu()?;
    for _ in 0..records {
        let mut record = log.record(Kind::Mcp, clock::now());
        fill(&mut record, arguments);
        black_box(record);
    }
    Ok(cpu()?.saturating_sub(before))
}

/// Bytes of all files in a directory.
fn size(directory: &PathBuf) -> io::Result<u64> {
    let entries = std::fs::read_dir(directory)?;
    let sizes = entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
    Ok(sizes.sum())
}

fn start() -> Start {
    let workload = Workload {
        name: Text::fixed("claude-code"),
        kind: WorkloadKind::Host,
        cgroup: Some(4_711),
        pid: Some(1_234),
        exe: Some(Text::fixed("/usr/local/bin/claude")),
        uid: Some(1_000),
        ..Workload::default()
    };
    let identity = Identity {
        name: Text::fixed("dave"),
        verified_by: Text::fixed("kernel"),
        ..Identity::default()
    };
    let session = Session {
        id: Text::fixed("s-17"),
        client: Some(Text::fixed("claude-code")),
        revision: Some(Text::fixed("2025-11-25")),
        ..Session::default()
    };
    Start {
        workload: Some(Shared::from(workload)),
        identity: Some(Shared::from(identity)),
        session: Some(Shared::from(session)),
        ..Start::default()
    }
}

fn fill(record: &mut exeat::audit::Record, arguments: &Value) {
    let (arguments, arguments_cut) = mask::arguments::<&str>(arguments, &[]);
    record.mcp = Some(Mcp {
        server: Some(Text::fixed("github")),
        method: Text::fixed("tools/call"),
        name: Some(Text::new("create_issue")),
        class: Some(Text::fixed("write")),
        arguments: Some(arguments),
        arguments_cut,
        id: Some(Text::new("17")),
        ..Mcp::default()
    });
    record.http = Some(Http {
        name: Some(Text::new("mcp.example.com")),
        address: Some([192, 0, 2, 7].into()),
        port: Some(443),
        sni: Some(Text::new("mcp.example.com")),
        version: Some(Text::fixed("HTTP/2")),
        method: Some(Text::fixed("POST")),
        path: Some(Text::path("/mcp?session=abc")),
        status: Some(200),
        request_bytes: Some(200),
        response_bytes: Some(900),
        ..Http::default()
    });
    record.decision = Some(Decision {
        effect: Effect::Allow,
        rule: Some(Text::new("writers-may-write")),
        reason: None,
        mode: Mode::Enforce,
        would: None,
        would_rule: None,
        would_reason: None,
        policy: Some(Text::fixed("3b0c44298fc1c149")),
        generation: Some(3),
        counters: Vec::new(),
    });
    let full = Inspection {
        extent: Extent::Full,
        why: None,
    };
    record.inspected = Some(Inspected {
        request: full.clone(),
        response: full,
    });
}

/// User and system time of this process so far.
fn cpu() -> Result<Duration, io::Error> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).map_err(io::Error::other)?;
    let nanoseconds = u32::try_from(time.tv_nsec).map_err(io::Error::other)?;
    Ok(Duration::new(seconds, nanoseconds))
}

fn report(figures: &[(&str, f64)]) -> io::Result<()> {
    use std::io::Write as _;
    let mut out = io::stdout().lock();
    for (name, figure) in figures {
        writeln!(out, "{figure:>12.2}  {name}")?;
    }
    Ok(())
}
