//! `exeat policy test`: the cases in `*.test.yaml` put to the policy, by the engine that decides.

mod cases;
mod report;

use std::path::PathBuf;

use exeat_policy::{Fault, PolicySet, Timestamp, compile};

use self::cases::{Case, Expected};
use self::report::{Judged, Report};
use super::files;
use crate::cli::args::TestArguments;
use crate::cli::error::{CliError, Kind};
use crate::cli::output::Output;
use crate::config::Config;
use crate::control::explain;
use crate::control::reply::Explanation;
use crate::decide::unused;
use crate::telemetry::clock;

/// Runs all cases; needs no daemon.
pub(super) fn run(
    arguments: &TestArguments,
    config: &Config,
    output: Output,
) -> Result<(), CliError> {
    let paths: Vec<PathBuf> = if arguments.paths.is_empty() {
        vec![config.policy.clone()]
    } else {
        arguments.paths.clone()
    };
    let (policy, tests) = files::read_with_cases(&paths)?;
    if tests.is_empty() {
        let message = "there is no *.test.yaml file among what was given";
        return Err(CliError::new(Kind::Usage, message)
            .with_next("see what a case looks like in `exeat policy test --help`"));
    }
    let set = compile(&policy).map_err(|faults| faulty("the policy", &faults))?;
    let mut cases = Vec::new();
    let mut faults = Vec::new();
    for source in &tests {
        match cases::read(source, &set) {
            Ok(found) => cases.extend(found),
            Err(found) => faults.extend(found),
        }
    }
    if !faults.is_empty() {
        return Err(faulty("the cases", &faults));
    }
    let now = Timestamp::from_millis(clock::wall().microseconds().div_euclid(1000));
    let judged = cases.iter().map(|case| judge(&set, case, now)).collect();
    let report = Report::new(judged);
    if let Some(path) = &arguments.junit {
        std::fs::write(path, report.junit())
            .map_err(|error| CliError::io(format_args!("write `{}`", path.display()), &error))?;
    }
    output.document(&report, |painter| report.text(painter))?;
    if report.failed == 0 {
        Ok(())
    } else {
        Err(CliError::found())
    }
}

/// Puts one case to the policy.
fn judge(set: &PolicySet, case: &Case, now: Timestamp) -> Judged {
    let now = case.now.unwrap_or(now);
    let failure = match explain::answer(set, &case.question, now, unused) {
        Ok(explained) => differs(&case.expected, &explained),
        Err(error) => Some(crate::control::chain(&error)),
    };
    Judged {
        place: case.place.clone(),
        name: case.name.clone(),
        passed: failure.is_none(),
        failure,
    }
}

/// What is otherwise than expected.
fn differs(expected: &Expected, explained: &Explanation) -> Option<String> {
    let Expected {
        effect,
        rule,
        would,
    } = expected;
    let effect = effect.to_string();
    let same_rule = rule
        .as_ref()
        .is_none_or(|rule| explained.rule.as_ref() == Some(rule));
    let said = explained.would.as_deref().unwrap_or_default();
    let same_would = would.is_none_or(|would| {
        let word = said.split([' ', ':']).next().unwrap_or_default();
        word == would.to_string()
    });
    if effect == explained.effect && same_rule && same_would {
        return None;
    }
    let by = |rule: Option<&str>| rule.map(|rule| format!(" by `{rule}`")).unwrap_or_default();
    let observed = |would: &str| {
        if would.is_empty() {
            String::new()
        } else {
            format!(", observed only; enforced it would be {would}")
        }
    };
    let wanted = would.map(|would| would.to_string()).unwrap_or_default();
    Some(format!(
        "expected {effect}{}{}, found {}{}: {}{}",
        by(rule.as_deref()),
        observed(&wanted),
        explained.effect,
        by(explained.rule.as_deref()),
        explained.reason,
        observed(said),
    ))
}

fn faulty(what: &str, faults: &[Fault]) -> CliError {
    let mut message = format!("load {what}: {} faults", faults.len());
    for fault in faults.iter().take(20) {
        message.push_str("; ");
        message.push_str(&fault.to_string());
    }
    CliError::new(Kind::Usage, message)
}

#[cfg(test)]
mod tests;
