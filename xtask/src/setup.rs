//! `cargo xtask setup`: finds or installs what compiling the kernel programs takes.
//!
//! Two things are needed: a Rust compiler with `core` for BPF, and bpf-linker built against that
//! compiler's LLVM. Where they are found already, this takes a moment and changes nothing.

use crate::shell;
use anyhow::{Context as _, Result, bail};
use exeat_ebpf_toolchain::{
    Compiler, LINKER_VERSION, compiler, linker, linker_directory, llvm_major,
};
use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Pairs of packages that bring a compiler and its `core` for BPF, best first: distributions name
/// them differently, and their plain `rustc` may be too old to have the second.
const COMPILERS: [[&str; 2]; 2] = [
    ["rustc-web", "libstd-rust-web-dev-bpf"],
    ["rustc", "libstd-rust-dev-bpf"],
];

/// What building bpf-linker takes beside LLVM.
const BUILD_TOOLS: [(&str, &str); 2] = [("c++", "g++"), ("make", "make")];

// Flattened into another of this name, and groups are named as their structs are.
#[derive(Debug, Default, clap::Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// Only say what is missing, and fail if anything is
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let compiler = match compiler() {
        Some(compiler) => compiler,
        None if arguments.check => bail!("no Rust compiler with `core` for BPF"),
        None => install_compiler()?,
    };
    let major = llvm_major(&compiler).context("the compiler does not name its LLVM")?;
    if linker(major).is_some() {
        return Ok(());
    }
    if arguments.check {
        bail!("no bpf-linker for LLVM {major}");
    }
    install_linker(&compiler, major)?;
    linker(major)
        .context("bpf-linker was built but does not run")
        .map(drop)
}

fn install_compiler() -> Result<Compiler> {
    if shell::has("apt-get") {
        update_lists(|| COMPILERS.iter().any(|pair| available(pair)))?;
        if let Some(pair) = COMPILERS.iter().find(|pair| available(&pair[..])) {
            install_packages(pair, "a Rust compiler with `core` for BPF")?;
            if let Some(found) = compiler() {
                return Ok(found);
            }
        }
    }
    if !shell::has("rustup") {
        bail!("install rustup (https://rustup.rs), then run this again");
    }
    shell::say("installing the nightly Rust toolchain with rust-src, to build `core` for BPF");
    shell::run(Command::new("rustup").args([
        "toolchain",
        "install",
        "nightly",
        "--profile",
        "minimal",
        "--component",
        "rust-src",
    ]))?;
    compiler().context("rustup's nightly has no rust-src after all")
}

fn install_linker(compiler: &Compiler, major: u32) -> Result<()> {
    let directory = linker_directory(major).context("neither XDG_CACHE_HOME nor HOME is set")?;
    let prefix = match llvm_prefix(major) {
        Some(prefix) => prefix,
        None => install_llvm(compiler, major)?,
    };
    shell::say(&format!(
        "building bpf-linker {LINKER_VERSION} against LLVM {major} into {} (about a minute)",
        directory.display()
    ));
    let mut cargo = shell::cargo();
    cargo.env_clear().envs(exeat_ebpf_toolchain::kept());
    // This cargo's own compiler, not rustup's proxy: packages with toolchain files would make that
    // change the user's toolchains.
    let compiler = env::var_os("CARGO").map(|cargo| Path::new(&cargo).with_file_name("rustc"));
    if let Some(compiler) = compiler.filter(|compiler| compiler.is_file()) {
        cargo.env("RUSTC", compiler);
    }
    // The linker's build finds LLVM by its llvm-config, and its libraries by the prefix.
    let path = env::var_os("PATH").unwrap_or_default();
    let entries = [prefix.join("bin")]
        .into_iter()
        .chain(env::split_paths(&path));
    cargo.env("PATH", env::join_paths(entries).context("compose PATH")?);
    cargo.env("LLVM_PREFIX", &prefix);
    cargo.args([
        "install",
        "bpf-linker",
        "--version",
        LINKER_VERSION,
        "--locked",
        "--force",
    ]);
    cargo.args([
        "--no-default-features",
        "--features",
        &format!("llvm-{major}"),
    ]);
    cargo.arg("--root").arg(&directory);
    // Not in the workspace's directory, whose toolchain file and configuration are not meant.
    cargo.current_dir("/");
    shell::run(&mut cargo)
}

/// Where an LLVM of the right version is, with what linking against it takes.
fn llvm_prefix(major: u32) -> Option<PathBuf> {
    let usual = PathBuf::from(format!("/usr/lib/llvm-{major}"));
    let named = format!("llvm-config-{major}");
    let candidates = [
        usual.join("bin/llvm-config"),
        named.into(),
        "llvm-config".into(),
    ];
    candidates.iter().find_map(|config| {
        let version = shell::output(config, &["--version"])?;
        if version.trim().split('.').next()? != major.to_string() {
            return None;
        }
        let prefix = PathBuf::from(shell::output(config, &["--prefix"])?.trim());
        let headers = Path::new(&prefix).join("include/llvm-c").is_dir();
        headers.then_some(prefix)
    })
}

fn install_llvm(compiler: &Compiler, major: u32) -> Result<PathBuf> {
    let packages = [format!("llvm-{major}-dev"), format!("libpolly-{major}-dev")];
    let mut names: Vec<&str> = packages.iter().map(String::as_str).collect();
    for (program, package) in BUILD_TOOLS {
        if !shell::has(program) {
            names.push(package);
        }
    }
    if shell::has("apt-get") {
        update_lists(|| available(&names))?;
        if available(&names) {
            install_packages(&names, "what bpf-linker is built with")?;
            return llvm_prefix(major).with_context(|| format!("no LLVM {major} after all"));
        }
    }
    bail!(
        "LLVM {major}'s development files are needed, as the compiler ({}) uses that version: \
         install them, or put a bpf-linker built for it on PATH, and run this again",
        match compiler {
            Compiler::Prebuilt(path) => path.display().to_string(),
            Compiler::BuildStd(name) => name.clone(),
        }
    )
}

/// All packages can be installed from the sources that the machine knows.
pub(crate) fn available(packages: &[&str]) -> bool {
    packages.iter().all(|package| {
        let policy = shell::output("apt-cache", &["policy", package]).unwrap_or_default();
        let candidate = policy
            .lines()
            .find_map(|line| line.trim().strip_prefix("Candidate: "));
        candidate.is_some_and(|version| version != "(none)")
    })
}

/// Fetches the package lists, unless they already have what is wanted.
pub(crate) fn update_lists(satisfied: impl Fn() -> bool) -> Result<()> {
    if satisfied() {
        return Ok(());
    }
    shell::say("fetching package lists");
    shell::run(privileged("apt-get")?.args(["update", "--quiet"]))
}

pub(crate) fn install_packages(packages: &[&str], purpose: &str) -> Result<()> {
    shell::say(&format!("installing {purpose}: {}", packages.join(" ")));
    let mut command = privileged("apt-get")?;
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
        .args(["install", "--yes", "-qq", "--no-install-recommends"])
        // No progress bars in logs.
        .args(["--option", "Dpkg::Use-Pty=0"])
        .args(packages);
    shell::run(&mut command)
}

/// Installs the Debian packages of those programs that are not on PATH.
pub(crate) fn install_missing(programs: &[(&str, &'static str)], purpose: &str) -> Result<()> {
    let missing = programs.iter().filter(|(program, _)| !shell::has(program));
    let mut packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    install(&packages, purpose)
}

/// Installs these packages, if any.
pub(crate) fn install(packages: &[&str], purpose: &str) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    if !shell::has("apt-get") {
        bail!(
            "{purpose}: install {}, then run this again",
            packages.join(", ")
        );
    }
    update_lists(|| available(packages))?;
    install_packages(packages, purpose)
}

/// This runs as root.
pub(crate) fn is_root() -> bool {
    shell::output("id", &["-u"]).as_deref().map(str::trim) == Some("0")
}

/// A command that runs as root: by itself, or through sudo. What it prints goes to standard error, as whoever asks
/// for something that is installed on the way reads standard output.
fn privileged(program: &str) -> Result<Command> {
    let mut command = if is_root() {
        Command::new(program)
    } else if shell::has("sudo") {
        let mut sudo = Command::new("sudo");
        sudo.arg(program);
        sudo
    } else {
        bail!("`{program}` takes root: run this as root, or install sudo")
    };
    command.stdout(io::stderr());
    Ok(command)
}
