//! The rules.

use super::Source;
use std::path::{Component, Path, PathBuf};

/// Lines after which a file should be two, and after which it has to be.
const LONG: usize = 400;
const TOO_LONG: usize = 700;

/// What is not committed, put together here so that this file does not contain it.
const UNFINISHED: [&str; 6] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("#[ig", "nore"),
    concat!("/wo", "rk/"),
];

/// The stages of the path, in the order in which a byte meets them.
const STAGES: [&str; 8] = [
    "intake", "identify", "tls", "decode", "decide", "forward", "refuse", "audit",
];

/// What puts stages together, so that no stage may know it.
const ROOTS: [&str; 5] = ["supervisor", "gate", "control", "cli", "console"];

/// Files that are longer than they should be.
pub(super) fn long(sources: &[Source]) -> Vec<String> {
    rust(sources)
        .filter(|source| (LONG + 1..=TOO_LONG).contains(&source.text.lines().count()))
        .map(|source| format!("{}: {} lines", source.path, source.text.lines().count()))
        .collect()
}

/// Everything that breaks a rule, each with its place.
pub(super) fn faults(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources {
        each_file(source, &mut faults);
    }
    for source in rust(sources) {
        each_rust_file(source, &mut faults);
    }
    evaluations(sources, &mut faults);
    members(sources, &mut faults);
    links(sources, &mut faults);
    faults
}

fn rust(sources: &[Source]) -> impl Iterator<Item = &Source> {
    sources.iter().filter(|source| is(source, "rs"))
}

fn is(source: &Source, extension: &str) -> bool {
    Path::new(&source.path)
        .extension()
        .is_some_and(|found| found == extension)
}

fn each_file(source: &Source, faults: &mut Vec<String>) {
    let Source { path, text } = source;
    if path.ends_with("package-lock.json") && text.contains("\"resolved\"") {
        faults.push(format!("{path}: `resolved` ties the build to one registry"));
    }
    // Third parties' names and prose in lock files and licences are theirs.
    let written = ["rs", "toml", "sh", "md", "mjs", "py", "yml", "yaml"];
    if !written.iter().any(|extension| is(source, extension)) {
        return;
    }
    for (number, line) in text.lines().enumerate() {
        for word in UNFINISHED.iter().filter(|word| line.contains(**word)) {
            faults.push(format!("{path}:{}: `{word}`", number + 1));
        }
        if line.trim_end() != line && !is(source, "md") {
            faults.push(format!("{path}:{}: blank at the end", number + 1));
        }
    }
}

fn each_rust_file(source: &Source, faults: &mut Vec<String>) {
    let Source { path, text } = source;
    if !text.starts_with("//!") {
        faults.push(format!(
            "{path}: the first line does not say what the file is for"
        ));
    }
    let lines = text.lines().count();
    if lines > TOO_LONG {
        faults.push(format!("{path}: {lines} lines, more than {TOO_LONG}"));
    }
    let unsafe_code = ["{", "fn ", "impl ", "extern "].map(|what| format!("unsafe {what}"));
    let kernel = path.starts_with("ebpf/") || path.starts_with("xtask/src/tidy/");
    for (number, line) in code(text) {
        if !kernel && unsafe_code.iter().any(|word| line.contains(word)) {
            faults.push(format!("{path}:{number}: unsafe code outside ebpf/"));
        }
        if path.starts_with("ebpf/probes/")
            && line.contains("unsafe {")
            && !is_reasoned(text, number)
        {
            faults.push(format!(
                "{path}:{number}: unsafe code without a `SAFETY` comment above it"
            ));
        }
        if !path.starts_with("agent/src/decide/") && makes_proof(path, line) {
            faults.push(format!(
                "{path}:{number}: only `decide` makes permits and refusals"
            ));
        }
        if let Some(root) = forbidden_import(path, line) {
            faults.push(format!("{path}:{number}: a stage must not know `{root}`"));
        }
    }
}

/// Whether the comment right above a line says why it is sound. Clippy asks the same of every other member; the
/// programs are compiled by a toolchain without it.
fn is_reasoned(text: &str, number: usize) -> bool {
    let above: Vec<&str> = text.lines().take(number.saturating_sub(1)).collect();
    let comment = |line: &&&str| line.trim_start().starts_with("//");
    let mut comments = above.iter().rev().take_while(comment);
    comments.any(|line| line.contains("SAFETY: "))
}

/// The lines that are not comments, with their numbers.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The type system guards the fields; this guards against a second type of that name, or a way around.
fn makes_proof(path: &str, line: &str) -> bool {
    let built = [
        "Permit {",
        "Permit::<",
        "impl Permit<",
        "struct Permit<",
        "struct Refused ",
        "impl Refused ",
    ];
    path.starts_with("agent/src/") && built.iter().any(|form| line.contains(form))
}

/// What a line of a stage imports and must not.
fn forbidden_import(path: &str, line: &str) -> Option<&'static str> {
    let stage = path.strip_prefix("agent/src/")?.split('/').next()?;
    let names = |module: &str| {
        let direct = format!("crate::{module}");
        line.match_indices(&direct).any(|(at, _)| {
            let rest = line.get(at + direct.len()..).unwrap_or_default();
            !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_')
        })
    };
    if STAGES.contains(&stage) {
        if names("replay") {
            return Some("replay");
        }
        return ROOTS.into_iter().find(|root| names(root));
    }
    if stage == "replay" {
        let allowed = ["audit", "decide", "replay"];
        let others = STAGES
            .iter()
            .chain(&ROOTS)
            .chain(&["flow", "launch", "resolve"]);
        return others
            .copied()
            .find(|module| !allowed.contains(module) && names(module));
    }
    None
}

/// INVARIANT: live traffic, replay and explanations share one evaluation.
fn evaluations(sources: &[Source], faults: &mut Vec<String>) {
    let calls: Vec<String> = rust(sources)
        .filter(|source| source.path.starts_with("agent/src/"))
        .flat_map(|source| {
            code(&source.text)
                .filter(|(_, line)| {
                    line.match_indices("evaluate(").any(|(at, _)| {
                        let before = line.get(..at).unwrap_or_default();
                        !before.ends_with(|last: char| last.is_alphanumeric() || last == '_')
                            && !before.ends_with("fn ")
                    })
                })
                .map(|(number, _)| format!("{}:{number}", source.path))
                .collect::<Vec<_>>()
        })
        .collect();
    match calls.as_slice() {
        [one] if one.starts_with("agent/src/decide/") => {}
        [] => faults.push("agent/src: nothing calls `exeat_policy::evaluate`".to_owned()),
        several => faults.push(format!(
            "`evaluate` is called once, in decide; found: {}",
            several.join(", ")
        )),
    }
}

/// Every member of the workspace obeys its lints.
fn members(sources: &[Source], faults: &mut Vec<String>) {
    let Some(workspace) = sources.iter().find(|source| source.path == "Cargo.toml") else {
        faults.push("Cargo.toml is missing".to_owned());
        return;
    };
    let list = workspace
        .text
        .lines()
        .find_map(|line| line.strip_prefix("members = "));
    for member in list.unwrap_or_default().split('"').skip(1).step_by(2) {
        let path = format!("{member}/Cargo.toml");
        let manifest = sources.iter().find(|source| source.path == path);
        if !manifest.is_some_and(|manifest| manifest.text.contains("[lints]\nworkspace = true")) {
            faults.push(format!("{path}: `[lints] workspace = true` is missing"));
        }
    }
}

/// What a page links to exists.
fn links(sources: &[Source], faults: &mut Vec<String>) {
    for page in sources.iter().filter(|source| is(source, "md")) {
        let folder = Path::new(&page.path)
            .parent()
            .unwrap_or_else(|| Path::new(""));
        for target in page
            .text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") || file.contains(char::is_whitespace) {
                continue;
            }
            let wanted = plain(&folder.join(file));
            if !sources
                .iter()
                .any(|source| Path::new(&source.path).starts_with(&wanted))
            {
                faults.push(format!(
                    "{}: links to `{target}`, which is not there",
                    page.path
                ));
            }
        }
    }
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::Normal(name) => plain.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    plain
}
