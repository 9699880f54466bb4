//! The screen: a line for each scene, then the records of all of them, then the log's proof.

use std::io::{IsTerminal as _, Write as _, stderr, stdout};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use exeat_tests::Lab;
use exeat_tests::wait::wait_for;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use crate::scenes::{self, Scene};
use crate::stage::{Remains, Stage};

/// How long a record may take to be in the log.
const RECORDED: Duration = Duration::from_secs(10);

/// Prints a line. That nobody reads it ends nothing: there is still something to clean up.
pub(crate) fn tell(line: &str) {
    let _unread = writeln!(stdout(), "{line}");
}

/// Says a line beside the output.
pub(crate) fn complain(line: &str) {
    let _unread = writeln!(stderr(), "{line}");
}

/// Shows everything, and cleans up whatever happens; whether all was as it should be.
pub(crate) async fn run() -> Result<bool> {
    let remains = Remains::look()?;
    let shown = tokio::select! {
        shown = perform() => shown,
        name = interrupted() => name.and_then(|name| bail!("ended by {name}")),
    };
    remains.check()?;
    shown
}

async fn interrupted() -> Result<&'static str> {
    let on = |kind| signal(kind).context("listen for signals");
    let (mut interrupt, mut terminate, mut hangup) = (
        on(SignalKind::interrupt())?,
        on(SignalKind::terminate())?,
        on(SignalKind::hangup())?,
    );
    Ok(tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
        _ = hangup.recv() => "SIGHUP",
    })
}

async fn perform() -> Result<bool> {
    complain(
        "starting two networks, a name server, two HTTPS servers, the daemon and an MCP server ...",
    );
    let lab = Lab::new().context("make the networks")?;
    let stage = Stage::build(&lab).await?;
    tell("");
    let scenes = scenes::play(&stage, |scene| tell(&line(scene))).await?;
    let recorded = records(&stage, &scenes).await;
    tell("");
    let queried = print(&stage, &["audit", "query"]).await?;
    tell("");
    let verified = print(&stage, &["audit", "verify"]).await?;
    stage.strike().await?;
    tell("");
    let wrong = scenes.iter().filter(|scene| !scene.right).count();
    if let Err(error) = &recorded {
        tell(&format!("{} {error:#}", mark(false)));
    }
    let right = wrong == 0 && recorded.is_ok() && queried && verified;
    let all = scenes.len();
    tell(&match (right, wrong) {
        (true, _) => format!("{} All {all} as they should be, and recorded.", mark(true)),
        (false, 0) => format!("{} The records are not as they should be.", mark(false)),
        (false, _) => format!("{} {wrong} of {all} not as they should be.", mark(false)),
    });
    Ok(right)
}

fn line(scene: &Scene) -> String {
    let verdict = if scene.allowed { "allowed" } else { "refused" };
    let verdict = if scene.right {
        paint(if scene.allowed { "32" } else { "33" }, verdict)
    } else {
        paint("31", &format!("NOT {verdict}"))
    };
    let came: String = scene.came.split_whitespace().collect::<Vec<_>>().join(" ");
    let came: String = came.chars().take(70).collect();
    format!(
        "{} {verdict}  {:8} {:48}  {came}",
        mark(scene.right),
        scene.who,
        scene.tries
    )
}

fn mark(right: bool) -> String {
    if right {
        paint("32", "✓")
    } else {
        paint("31", "✗")
    }
}

/// ECMA-48, 8.3.117 (SGR); on a terminal only.
fn paint(code: &str, text: &str) -> String {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if unwanted || !stdout().is_terminal() {
        return text.to_owned();
    }
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// Waits until each scene has its record.
async fn records(stage: &Stage<'_>, scenes: &[Scene]) -> Result<()> {
    for scene in scenes.iter().filter(|scene| !scene.record.is_empty()) {
        let what = format!("a record of {}'s {}", scene.who, scene.tries);
        wait_for(&what, RECORDED, async || {
            let done = stage.exeat(&["audit", "query", "--json"]).await.ok()?;
            let mut records = done
                .stdout
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            records
                .any(|record: Value| is(scene, &record))
                .then_some(())
        })
        .await?;
    }
    Ok(())
}

fn is(scene: &Scene, record: &Value) -> bool {
    scene
        .record
        .iter()
        .all(|(pointer, value)| record.pointer(pointer) == Some(value))
}

/// Prints a command of the product's and what it says; whether it succeeded.
async fn print(stage: &Stage<'_>, arguments: &[&str]) -> Result<bool> {
    tell(&paint("1", &format!("$ exeat {}", arguments.join(" "))));
    let done = stage.exeat(arguments).await?;
    for text in [&done.stdout, &done.stderr] {
        if !text.trim_end().is_empty() {
            tell(text.trim_end());
        }
    }
    Ok(done.status.success())
}
