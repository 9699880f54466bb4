//! How findings look, and that the trial tells trust from its absence.

use std::path::Path;

use super::trial::{Outcome, Trial};
use super::*;

#[test]
fn findings_carry_the_sentence_to_act_on() {
    let checks = [
        ok("kernel", "6.18.0"),
        warn("daemon", "it does not answer", "start it"),
        fail(
            "btf",
            "/sys/kernel/btf/vmlinux is missing",
            "use another kernel",
        ),
    ];
    insta::assert_snapshot!(text(&checks, Painter::default()));
    assert_eq!(
        checks.iter().map(|check| check.standing).max(),
        Some(Health::Fail)
    );
}

const SHELL: &str = "/bin/sh";

#[tokio::test]
async fn a_trial_tells_the_three_apart() {
    let trial = Trial::begin().await.unwrap();
    let shell = Path::new(SHELL);
    let reads = ["-c", "test -r \"$X_BUNDLE\""];
    assert_eq!(
        trial.fetch(shell, &reads, "X_BUNDLE").await,
        Outcome::Trusts
    );
    assert_eq!(
        trial.fetch(shell, &["-c", "true"], "X_BUNDLE").await,
        Outcome::TrustsAnything
    );
    let refuses = ["-c", "echo bad certificate >&2; exit 60"];
    assert_eq!(
        trial.fetch(shell, &refuses, "X_BUNDLE").await,
        Outcome::Refuses("bad certificate".to_owned())
    );
    let missing = trial
        .fetch(Path::new("/nonexistent"), &[], "X_BUNDLE")
        .await;
    assert!(matches!(missing, Outcome::NotRun(_)), "{missing:?}");
}
