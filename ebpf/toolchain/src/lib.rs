//! Locates the toolchain that compiles the kernel programs.
//!
//! The host's stable compiler has no `core` for the kernel's target, so a second one is needed:
//! either a distribution's compiler with a prebuilt `core` for BPF, or a nightly with rust-src that
//! builds it. Either way `bpf-linker` must be built against the same major version of LLVM.

mod environment;
mod locate;

pub use environment::kept;
pub use locate::{
    Compiler, Missing, Toolchain, compiler, linker, linker_directory, llvm_major, locate, version,
};

/// The target of the kernel programs.
pub const TARGET: &str = "bpfel-unknown-none";

/// Newest version of bpf-linker that was tried with the versions of aya in use.
pub const LINKER_VERSION: &str = "0.13.0";
