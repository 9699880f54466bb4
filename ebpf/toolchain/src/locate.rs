//! Finds a compiler with `core` for BPF, and the linker that fits it.

use crate::{TARGET, kept};
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A compiler that can produce code for the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// Has a prebuilt `core` for the target.
    Prebuilt(PathBuf),
    /// A rustup toolchain with rust-src, that builds `core` itself.
    BuildStd(String),
}

/// All that is needed to compile the kernel programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// The compiler.
    pub compiler: Compiler,
    /// bpf-linker.
    pub linker: PathBuf,
}

/// No toolchain; displays as one sentence that names the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing(&'static str);

impl std::fmt::Display for Missing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "compiling Exeat's kernel programs needs {}, which was not found: run `cargo xtask setup` once",
            self.0
        )
    }
}

impl std::error::Error for Missing {}

/// Finds a compiler and a linker of the same LLVM.
///
/// # Errors
/// One of them is missing.
pub fn locate() -> Result<Toolchain, Missing> {
    let compiler = compiler().ok_or(Missing("a Rust compiler with `core` for BPF"))?;
    let major = llvm_major(&compiler).ok_or(Missing("a Rust compiler that names its LLVM"))?;
    let linker = linker(major).ok_or(Missing("bpf-linker, built for that compiler's LLVM,"))?;
    Ok(Toolchain { compiler, linker })
}

/// The compiler to use, distribution first: it is a release, nightly moves.
#[must_use]
pub fn compiler() -> Option<Compiler> {
    prebuilt().or_else(nightly)
}

fn prebuilt() -> Option<Compiler> {
    // By full path: on PATH, rustup's proxy usually comes first.
    ["/usr/bin/rustc", "/usr/local/bin/rustc"]
        .into_iter()
        .map(PathBuf::from)
        .find_map(|rustc| {
            let mut command = clean(&rustc);
            command.args(["--print", "target-libdir", "--target", TARGET]);
            let directory = PathBuf::from(stdout(&mut command)?.trim());
            let has_core = fs::read_dir(directory).ok()?.flatten().any(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                name.starts_with("libcore-") && has_extension(&name, "rlib")
            });
            has_core.then_some(Compiler::Prebuilt(rustc))
        })
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension() == Some(OsStr::new(extension))
}

fn nightly() -> Option<Compiler> {
    let listing = stdout(clean("rustup").args(["toolchain", "list"]))?;
    let toolchains = listing
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    toolchains
        .filter(|name| name.starts_with("nightly"))
        .find_map(|name| {
            let sysroot =
                stdout(clean("rustup").args(["run", name, "rustc", "--print", "sysroot"]))?;
            let core = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core");
            core.is_dir().then(|| Compiler::BuildStd(name.to_owned()))
        })
}

/// What the compiler says of itself (`-vV`).
#[must_use]
pub fn version(compiler: &Compiler) -> Option<String> {
    match compiler {
        Compiler::Prebuilt(rustc) => stdout(clean(rustc).arg("-vV")),
        Compiler::BuildStd(name) => stdout(clean("rustup").args(["run", name, "rustc", "-vV"])),
    }
}

/// The major version of the compiler's LLVM.
#[must_use]
pub fn llvm_major(compiler: &Compiler) -> Option<u32> {
    let version = version(compiler)?;
    let line = version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.parse().ok()
}

/// Where `cargo xtask setup` puts the linker for an LLVM: a cache that outlives `target`.
#[must_use]
pub fn linker_directory(llvm_major: u32) -> Option<PathBuf> {
    let set = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(
        cache
            .join("exeat")
            .join(format!("bpf-linker-llvm-{llvm_major}")),
    )
}

/// The linker for an LLVM: the cached one, else one on PATH that runs.
#[must_use]
pub fn linker(llvm_major: u32) -> Option<PathBuf> {
    let cached = linker_directory(llvm_major).map(|root| root.join("bin/bpf-linker"));
    let on_path = env::var_os("PATH").into_iter().flat_map(|path| {
        env::split_paths(&path)
            .map(|entry| entry.join("bpf-linker"))
            .collect::<Vec<_>>()
    });
    cached
        .into_iter()
        .chain(on_path)
        .filter(|linker| linker.is_file())
        .find(|linker| stdout(clean(linker).arg("--version")).is_some())
}

impl Toolchain {
    /// A cargo that compiles the package in `package` into `target_directory`, to be given a
    /// subcommand by the caller's environment only.
    #[must_use]
    pub fn build(&self, package: &Path, target_directory: &Path) -> Command {
        let mut command = match &self.compiler {
            Compiler::Prebuilt(rustc) => {
                let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
                let mut command = clean(cargo);
                command.env("RUSTC", rustc);
                // The compiler is a release; its target is not offered to the stable channel.
                command.env("RUSTC_BOOTSTRAP", "1");
                command
            }
            Compiler::BuildStd(name) => {
                let mut command = clean("rustup");
                command.args(["run", name, "cargo"]);
                command
            }
        };
        command.args(["build", "--release", "--locked", "--target", TARGET]);
        if let Compiler::BuildStd(_) = self.compiler {
            command.args(["-Z", "build-std=core"]);
        }
        command.arg("--target-dir").arg(target_directory);
        command.current_dir(package);
        command.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker);
        // BTF carries the maps' types and the functions' names to the kernel.
        command.env("RUSTFLAGS", "-C debuginfo=2 -C link-arg=--btf");
        command
    }
}

fn clean(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(kept());
    command
}

fn stdout(command: &mut Command) -> Option<String> {
    let Output { status, stdout, .. } = command.output().ok()?;
    if status.success() {
        String::from_utf8(stdout).ok()
    } else {
        None
    }
}
