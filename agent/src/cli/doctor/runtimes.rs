//! Which runtimes are here, by which variable each learns whom to trust, and whether that works.
//!
//! Each is tried against a server whose certificate is from an authority made for this one trial: it
//! must fail without the variable, or the trial would prove nothing, and succeed with it.

use std::env;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::trial::{Outcome, Trial};
use super::{Check, fail, ok, warn};
use crate::cli::error::CliError;

/// A runtime and how to make it fetch a URL.
struct Runtime {
    /// As shown.
    name: &'static str,
    /// As found on the PATH.
    program: &'static str,
    /// The variable that `exeat run` sets for it.
    variable: &'static str,
    /// Arguments that fetch the URL which follows them, and end with 0 if that works; `None`: there is no
    /// way to try it without building something.
    fetch: Option<&'static [&'static str]>,
    /// What runs only if this does: a library that need not be installed.
    needs: Option<&'static [&'static str]>,
    /// What to do where it does not work.
    remedy: &'static str,
}

const NODE: &str = "fetch(process.argv[1]).then(r => r.text()).then(() => process.exit(0), \
                    () => process.exit(1))";
const URLLIB: &str = "import sys, urllib.request as r; r.urlopen(sys.argv[1]).read()";
const REQUESTS: &str = "import sys, requests; requests.get(sys.argv[1]).raise_for_status()";
const HTTPX: &str = "import sys, httpx; httpx.get(sys.argv[1]).raise_for_status()";
const DENO: &str = "await (await fetch(Deno.args[0])).text()";

const RUNTIMES: [Runtime; 9] = [
    Runtime {
        name: "curl",
        program: "curl",
        variable: "CURL_CA_BUNDLE",
        fetch: Some(&[
            "--silent",
            "--fail",
            "--noproxy",
            "*",
            "--output",
            "/dev/null",
        ]),
        needs: None,
        remedy: "this curl is built to trust a fixed store: use `exeat ca install` on this machine",
    },
    Runtime {
        name: "node",
        program: "node",
        variable: "NODE_EXTRA_CA_CERTS",
        fetch: Some(&["-e", NODE]),
        needs: Some(&["-e", "if (typeof fetch !== 'function') process.exit(1)"]),
        remedy: "see whether NODE_OPTIONS says `--use-openssl-ca` or `--use-system-ca`",
    },
    Runtime {
        name: "python",
        program: "python3",
        variable: "SSL_CERT_FILE",
        fetch: Some(&["-c", URLLIB]),
        needs: Some(&["-c", "import ssl"]),
        remedy: "this Python is built against a TLS library of its own: use `exeat ca install`",
    },
    Runtime {
        name: "python requests",
        program: "python3",
        variable: "REQUESTS_CA_BUNDLE",
        fetch: Some(&["-c", REQUESTS]),
        needs: Some(&["-c", "import requests"]),
        remedy: "see whether the program passes `verify=` itself",
    },
    Runtime {
        name: "python httpx",
        program: "python3",
        variable: "SSL_CERT_FILE",
        fetch: Some(&["-c", HTTPX]),
        needs: Some(&["-c", "import httpx"]),
        remedy: "see whether the program passes `verify=` itself",
    },
    Runtime {
        name: "deno",
        program: "deno",
        variable: "DENO_CERT",
        fetch: Some(&["eval", DENO]),
        needs: None,
        remedy: "use Deno 1.18 or newer",
    },
    Runtime {
        name: "git",
        program: "git",
        variable: "GIT_SSL_CAINFO",
        fetch: None,
        needs: None,
        remedy: "",
    },
    Runtime {
        name: "go",
        program: "go",
        variable: "SSL_CERT_FILE",
        fetch: None,
        needs: None,
        remedy: "",
    },
    Runtime {
        name: "java",
        program: "java",
        variable: "JAVA_TOOL_OPTIONS",
        fetch: None,
        needs: None,
        remedy: "",
    },
];

/// Tries every runtime that is on the PATH.
pub(super) async fn checks() -> Result<Vec<Check>, CliError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut trial = None;
    let mut checks = Vec::new();
    for runtime in &RUNTIMES {
        let Some(program) = find(runtime.program, env::split_paths(&path)) else {
            continue;
        };
        let Some(fetch) = runtime.fetch else {
            checks.push(untried(runtime));
            continue;
        };
        let trial = match &trial {
            Some(trial) => trial,
            None => trial.insert(Trial::begin().await?),
        };
        if let Some(needs) = runtime.needs
            && !trial.runs(&program, needs).await
        {
            continue;
        }
        checks.push(tried(
            runtime,
            trial.fetch(&program, fetch, runtime.variable).await,
        ));
    }
    if checks.is_empty() {
        checks.push(ok("runtimes", "none of the known ones is on the PATH"));
    }
    Ok(checks)
}

fn tried(runtime: &Runtime, outcome: Outcome) -> Check {
    let variable = runtime.variable;
    match outcome {
        Outcome::Trusts => ok(runtime.name, format!("trusts what {variable} names")),
        Outcome::TrustsAnything => warn(
            runtime.name,
            "accepts a certificate that nobody vouches for",
            "see which option or variable switches its verification off",
        ),
        Outcome::Refuses(said) => fail(
            runtime.name,
            format!("does not trust what {variable} names: {said}"),
            runtime.remedy,
        ),
        Outcome::NotRun(why) => warn(
            runtime.name,
            format!("could not be tried: {why}"),
            "see whether it starts at all",
        ),
    }
}

fn untried(runtime: &Runtime) -> Check {
    ok(
        runtime.name,
        format!("reads {} (not tried)", runtime.variable),
    )
}

fn find(program: &str, mut directories: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    directories.find_map(|directory| Some(directory.join(program)).filter(|path| executable(path)))
}

fn executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
