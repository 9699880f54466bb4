//! Locates the toolchain that compiles the kernel programs.
