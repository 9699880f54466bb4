//! `cargo xtask test`: everything that proves the project, in one run.

use crate::{demo, fixtures, setup, shell, tidy};
use anyhow::{Context as _, Result, bail};
use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _, stdout};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What the checks use.
const PROGRAMS: [(&str, &str); 2] = [("curl", "curl"), ("shellcheck", "shellcheck")];

/// Runtimes that the whole-system tests put under a policy, beside those that fixtures bring.
const RUNTIMES: [(&str, &str); 4] = [
    ("dig", "bind9-dnsutils"),
    ("musl-gcc", "musl-tools"),
    ("go", "golang-go"),
    ("javac", "default-jdk-headless"),
];

/// Scripts of this repository.
const SCRIPTS: [&str; 3] = [".ci/deny", ".ci/run", "vagrant/provision.sh"];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only the packages' own tests: no whole system, no fixtures, no demonstration
    #[arg(long)]
    quick: bool,
}

/// What was counted: each test, and each other step as one.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
}

/// The run so far.
#[derive(Default)]
struct Run {
    count: Count,
    done: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if !setup::is_root() {
        bail!(
            "the tests load kernel programs and make namespaces, which takes root: \
             sudo --preserve-env=HOME env \"PATH=$PATH\" cargo xtask test"
        );
    }
    let mut run = Run::default();
    // Without these nothing else can run.
    let start = now();
    setup::run(&setup::Arguments::default())?;
    setup::install_missing(&demo::PROGRAMS, "what test networks are made with")?;
    setup::install_missing(&PROGRAMS, "what tests use")?;
    run.note("setup", start, "done");
    checks(&mut run);
    let mut tests = cargo()?;
    tests.args(["test", "--locked", "--no-fail-fast", "--workspace"]);
    if arguments.quick {
        run.tests(tests.args(["--exclude", "exeat-tests"]));
    } else {
        let start = now();
        setup::install(&fixtures::missing(), "what fixtures are installed with")?;
        setup::install_missing(&RUNTIMES, "runtimes that tests put under a policy")?;
        let installed =
            fixtures::install(&shell::root()?, shell::say).context("install fixtures")?;
        run.note("fixtures", start, "done");
        run.tests(tests.envs(installed.environment()));
        run.step("demonstration", demonstration);
    }
    run.end()
}

/// What needs no test to be wrong.
fn checks(run: &mut Run) {
    run.step("format", || {
        shell::run(cargo()?.args(["fmt", "--all", "--", "--check", "-l"]))
    });
    run.step("tidy", tidy::run);
    run.step("scripts", || {
        shell::run(
            Command::new("shellcheck")
                .args(SCRIPTS)
                .current_dir(shell::root()?),
        )
    });
    run.step("lints", || {
        let lint = ["clippy", "--locked", "--workspace", "--all-targets"];
        shell::run(cargo()?.args(lint).args(["--", "--deny", "warnings"]))
    });
    run.step("fuzz targets", fuzz_targets);
}

/// Fuzz targets stand outside the workspace, since they run on nightly alone; that they compile is seen here.
fn fuzz_targets() -> Result<()> {
    let root = shell::root()?;
    let fuzz = root.join("agent/fuzz");
    // Its own lock file is nobody's. With the workspace's versions, most of what it needs is there from the lints.
    fs::copy(root.join("Cargo.lock"), fuzz.join("Cargo.lock")).context("copy Cargo.lock")?;
    let mut check = cargo()?;
    check.args(["check", "--manifest-path", "agent/fuzz/Cargo.toml"]);
    if env::var_os("CARGO_TARGET_DIR").is_none() {
        check.arg("--target-dir").arg(root.join("target"));
    }
    // By name, so that one is missed that the manifest leaves out.
    for target in fs::read_dir(fuzz.join("fuzz_targets")).context("list fuzz targets")? {
        let target = target.context("list fuzz targets")?.path();
        let name = target.file_stem().context("name a fuzz target")?;
        let corpus = fuzz.join("corpus").join(name);
        if !corpus.is_dir() {
            bail!("{} has no {}", target.display(), corpus.display());
        }
        check.arg("--bin").arg(name);
    }
    // Nothing is linked: the fuzzer itself, which is C++, is not built.
    shell::run(check.env("CUSTOM_LIBFUZZER_PATH", "/nonexistent/libfuzzer.a"))
}

/// By the virtual machine's script, which installs nothing that is there already.
fn demonstration() -> Result<()> {
    let root = shell::root()?;
    let mut script = Command::new(root.join("vagrant/provision.sh"));
    shell::run(script.env("EXEAT_SOURCE", &root).current_dir("/"))
}

impl Run {
    fn step(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        shell::say(&format!("==> {name}"));
        let start = now();
        let ended = match work() {
            Ok(()) => {
                self.count.passed += 1;
                "passed"
            }
            Err(error) => {
                shell::say(&format!("error: {error:#}"));
                self.count.failed += 1;
                "FAILED"
            }
        };
        self.note(name, start, ended);
    }

    /// Runs `cargo test`, and counts what it says.
    fn tests(&mut self, command: &mut Command) {
        let mut counted = Count::default();
        self.step("tests", || {
            let mut child = command
                .stdout(Stdio::piped())
                .spawn()
                .context("start cargo")?;
            let output = child.stdout.take().context("read cargo's output")?;
            let mut ignored = 0;
            for line in BufReader::new(output).lines() {
                let line = line.context("read cargo's output")?;
                writeln!(stdout(), "{line}").context("print")?;
                if let Some((count, skipped)) = summary(&line) {
                    counted.passed += count.passed;
                    counted.failed += count.failed;
                    ignored += skipped;
                }
            }
            let status = child.wait().context("wait for cargo")?;
            if !status.success() {
                bail!("{command:?}: {status}, {} tests failed", counted.failed);
            }
            if counted.passed == 0 || ignored > 0 {
                bail!("{} tests ran, {ignored} did not", counted.passed);
            }
            Ok(())
        });
        self.count.passed += counted.passed;
        self.count.failed += counted.failed;
    }

    fn note(&mut self, name: &str, start: Instant, ended: &str) {
        self.done
            .push(format!("{ended:7} {:>8}  {name}", seconds(start.elapsed())));
    }

    fn end(self) -> Result<()> {
        shell::say("");
        for line in &self.done {
            shell::say(line);
        }
        let Count { passed, failed } = self.count;
        writeln!(stdout(), "{passed} passed, {failed} failed").context("print")?;
        if failed > 0 {
            bail!("{failed} failed");
        }
        Ok(())
    }
}

/// Reads `test result: ok. 3 passed; 1 failed; 2 ignored; ...`: what was counted, and what was ignored.
fn summary(line: &str) -> Option<(Count, u64)> {
    let rest = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let number = |word: &str| {
        rest.split("; ")
            .find_map(|part| part.strip_suffix(word)?.trim().parse::<u64>().ok())
    };
    // Tests that start their own binary again for one test print its summary, too; it is not another test.
    if number("filtered out")? > 0 {
        return None;
    }
    let count = Count {
        passed: number("passed")?,
        failed: number("failed")?,
    };
    Some((count, number("ignored")?))
}

fn cargo() -> Result<Command> {
    let mut cargo = shell::cargo();
    cargo.current_dir(shell::root()?);
    Ok(cargo)
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[expect(
    clippy::disallowed_methods,
    reason = "durations are for the reader; nothing is decided by them"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_cargo_says() {
        let line = "test result: FAILED. 31 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.50s";
        let count = Count {
            passed: 31,
            failed: 2,
        };
        assert_eq!(summary(line), Some((count, 1)));
        let again = "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 30 filtered out; finished in 0.00s";
        assert_eq!(summary(again), None);
        assert_eq!(summary("test result: nonsense"), None);
        assert_eq!(summary("running 3 tests"), None);
    }
}
