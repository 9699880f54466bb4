//! `--manifest`: what servers list, out of files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use exeat_policy::PolicySet;
use exeat_policy::yaml::closest;
use serde::Deserialize;
use serde_json::Value;

use super::files;
use crate::cli::error::{CliError, Kind};
use crate::control::reply::Server;

/// Tools by their servers' names.
pub(super) type Manifests = BTreeMap<Arc<str>, BTreeSet<String>>;

/// What `tools/list` is answered with, as far as it matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    tools: Vec<Tool>,
    next_cursor: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Tool {
    name: String,
}

/// Reads the files. Every server in them is one of the policy's, and no list ends before its last page.
pub(super) fn read(given: &[String], set: &PolicySet) -> Result<Manifests, CliError> {
    let mut manifests = Manifests::new();
    // The pages in the order given: what a list of which there is more has as its last file.
    let mut open: BTreeMap<Arc<str>, &str> = BTreeMap::new();
    for given in given {
        let (server, file) = named(given);
        let text = files::source(Path::new(file))?.text;
        let wrong = |why: &str| wrong(file, why);
        let document: Value =
            serde_json::from_str(&text).map_err(|error| wrong(&error.to_string()))?;
        let (said, tools, more) = document_of(document).map_err(|why| wrong(&why))?;
        let server = match (server, said) {
            (Some(server), Some(said)) if server != said => {
                return Err(wrong(&format!("it is what server `{said}` lists")));
            }
            (Some(server), _) => server.to_owned(),
            (None, Some(said)) => said,
            (None, None) => {
                return Err(wrong("it does not say which server it is of")
                    .with_next(format_args!("write `--manifest SERVER={file}`")));
            }
        };
        let Some(known) = set.server(&server) else {
            let names = set.servers().map(|known| &*known.name);
            let error = wrong(&format!("the policy has no server `{server}`"));
            return Err(match closest(&server, names) {
                Some(meant) => error.with_next(format_args!("did you mean `{meant}`?")),
                None => error,
            });
        };
        let name = Arc::clone(&known.name);
        manifests
            .entry(Arc::clone(&name))
            .or_default()
            .extend(tools);
        if more {
            open.insert(name, file);
        } else {
            open.remove(&name);
        }
    }
    match open.into_iter().next() {
        None => Ok(manifests),
        Some((server, file)) => Err(wrong(file, "the list goes on (`nextCursor`)").with_next(
            format_args!("give the next page as well, with `--manifest {server}=FILE`"),
        )),
    }
}

fn wrong(file: &str, why: &str) -> CliError {
    CliError::new(Kind::Usage, format!("read `{file}` as a manifest: {why}"))
}

/// `SERVER=FILE` or `FILE`; a file whose name holds `=` is written with a slash before.
fn named(given: &str) -> (Option<&str>, &str) {
    match given.split_once('=') {
        Some((server, file)) if !server.contains('/') => (Some(server), file),
        _ => (None, given),
    }
}

/// The server that the document names, the tools, and whether there are more.
fn document_of(document: Value) -> Result<(Option<String>, Vec<String>, bool), String> {
    if document.get("reached").is_some() {
        let shown: Server = serde_json::from_value(document).map_err(|error| error.to_string())?;
        if shown.listed.is_empty() {
            return Err("the daemon had seen no list of the server, or did not tell it".to_owned());
        }
        let tools = shown.listed.into_keys().collect();
        return Ok((Some(shown.name), tools, false));
    }
    // A whole answer, or its result alone.
    let result = match document {
        Value::Object(mut answer) if answer.contains_key("result") => {
            answer.remove("result").unwrap_or_default()
        }
        document => document,
    };
    let page: Page = serde_json::from_value(result).map_err(|error| {
        format!("neither a result of `tools/list` nor of `servers show`: {error}")
    })?;
    let tools = page.tools.into_iter().map(|tool| tool.name).collect();
    Ok((None, tools, page.next_cursor.is_some()))
}

#[cfg(test)]
mod tests;
