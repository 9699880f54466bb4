//! The environment of a nested cargo.

use std::ffi::OsString;

/// Variables by name that a nested cargo may see.
const KEPT: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "TERM",
    "XDG_CACHE_HOME",
    "CARGO_HOME",
    "RUSTUP_HOME",
    // Without it, rustup's proxies follow the toolchain file of whatever package is compiled, and
    // may install or update toolchains for it.
    "RUSTUP_TOOLCHAIN",
    // The outer cargo's job server, so that both together use no more processors than asked.
    "CARGO_MAKEFLAGS",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Variables by prefix that a nested cargo may see: how to reach the registry.
const PREFIXES: &[&str] = &[
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTR",
    "CARGO_SOURCE_",
];

/// The variables of this process that a nested cargo may see.
///
/// A build script inherits the outer build's compiler, flags, directories, wrappers, library
/// path and more, all of them meant for the host; so the list says what stays, not what goes.
#[must_use]
pub fn kept() -> Vec<(OsString, OsString)> {
    std::env::vars_os()
        .filter(|(name, _)| {
            name.to_str().is_some_and(|name| {
                KEPT.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            })
        })
        .collect()
}
