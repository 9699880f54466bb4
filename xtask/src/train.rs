//! The program optimised by where its time goes: built so that it counts, run under load, and built again by the counts.
//!
//! A call passes a long way of which each part is run once: how its parts are laid out is a third of its time.

use crate::{setup, shell};
use anyhow::{Context as _, Result, bail};
use std::env;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is trained with: calls over kept and new connections, large answers, streams, and standard streams.
const LOAD: &str = "call_16,new,big,stream,stdio";
/// Seconds of each.
const SECONDS: &str = "5";
/// Debian's account `nobody`, as which the gate of the load runs. It writes its counts itself.
const GATE: u32 = 65_534;

/// Builds the program into `target`, with `measure` of the tests' package for the load; where it is.
pub(crate) fn build(root: &Path, target: &Path, measure: &Path) -> Result<PathBuf> {
    if !setup::is_root() {
        bail!("training takes root: the load has network namespaces, and loads Exeat's programs");
    }
    let version = shell::output("rustc", &["-vV"]).context("ask rustc for its version")?;
    let host = said(&version, "host: ").context("find rustc's host in what it says")?;
    let merge = profdata(&version, host)?;
    let target = target.join("trained");
    let counts = target.join("counts");
    if counts.exists() {
        fs::remove_dir_all(&counts).context("remove the counts of an earlier training")?;
    }
    fs::create_dir_all(&counts).context("make a directory for the counts")?;
    let program = target.join(host).join("release/exeat");
    let compile = |flag: &str, place: &Path| {
        let given = env::var("RUSTFLAGS").unwrap_or_default();
        let flags = format!("{given} -C{flag}={}", place.display());
        let mut cargo = shell::cargo();
        cargo
            .current_dir(root)
            .env("RUSTFLAGS", flags.trim())
            .args(["build", "--locked", "--release", "--package", "exeat"])
            // By name, so that what only builds it does not count.
            .args(["--target", host, "--target-dir"])
            .arg(&target);
        shell::run(&mut cargo)
    };
    shell::say("building a program that counts (as long as a release)");
    compile("profile-generate", &counts)?;
    let load = |cases: &str, seconds: &str| {
        let mut measure = Command::new(measure);
        measure
            .env("EXEAT_BINARY", &program)
            .args(["--rounds", "1", "--seconds", seconds])
            .args(["--ways", "exeat", "--cases", cases]);
        let output = measure.output().context("run the load")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("the load failed: {said}");
        }
        Ok(())
    };
    shell::say("running it under load (a minute)");
    // Who ends first makes the file, and both are to write it.
    load("call_16", "1")?;
    for count in counted(&counts)? {
        chown(&count, Some(GATE), None).context("give the counts to the gate's account")?;
    }
    load(LOAD, SECONDS)?;
    let profile = counts.join("merged.profdata");
    let mut merging = Command::new(merge);
    merging.args(["merge", "--output"]).arg(&profile);
    shell::run(merging.args(counted(&counts)?))?;
    shell::say("building it by the counts (as long as a release)");
    compile("profile-use", &profile)?;
    Ok(program)
}

fn counted(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).context("read the directory of the counts")?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.context("read the directory of the counts")?.path();
        if path.extension().is_some_and(|it| it == "profraw") {
            found.push(path);
        }
    }
    if found.is_empty() {
        bail!(
            "the program counted nothing: no file in {}",
            directory.display()
        );
    }
    Ok(found)
}

/// What puts counts together: of the very LLVM that rustc has.
fn profdata(version: &str, host: &str) -> Result<PathBuf> {
    let llvm = said(version, "LLVM version: ").context("find rustc's LLVM in what it says")?;
    let major = llvm.split('.').next().unwrap_or(llvm);
    let sysroot = shell::output("rustc", &["--print", "sysroot"]).unwrap_or_default();
    let component = format!("lib/rustlib/{host}/bin/llvm-profdata");
    let places = [
        Path::new(sysroot.trim()).join(component),
        format!("/usr/lib/llvm-{major}/bin/llvm-profdata").into(),
    ];
    let find = || places.iter().find(|place| place.is_file()).cloned();
    if let Some(found) = find() {
        return Ok(found);
    }
    let package = format!("llvm-{major}");
    if shell::has("apt-get") && setup::available(&[&package]) {
        setup::install(&[&package], "what counts are put together with")?;
        if let Some(found) = find() {
            return Ok(found);
        }
    }
    bail!(
        "no llvm-profdata for LLVM {major}: run `rustup component add llvm-tools`, then this again"
    )
}

/// What stands behind `key` in a line of `text`.
fn said<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key))
}
