//! The servers in a host's configuration.

use std::fmt;
use std::path::Path;

use super::formats::Format;
use super::tree::{Member, Node, Value};

/// Executables that are Exeat's own.
const OWN: &str = "exeat";

/// A server as a host's configuration has it.
pub struct Entry {
    /// Its name there.
    pub name: String,
    /// Where it stands: its keys, joined with dots.
    pub at: String,
    /// How it is reached.
    pub how: How,
    /// The directory that the host starts it in, where the entry names one.
    pub cwd: Option<String>,
    /// Where the entry begins, in bytes.
    pub(super) start: usize,
    /// The values that are replaced when it is rewritten.
    pub(super) sites: Option<Sites>,
}

/// How a server is reached.
pub enum How {
    /// The host starts it.
    Stdio(Stdio),
    /// By Exeat already, under this name of the register.
    Exeat(String),
    /// At a URL.
    Remote(String),
    /// Neither a command nor a URL is there, or one that is not understood.
    Other(&'static str),
}

/// A server that the host starts.
#[derive(Clone, PartialEq, Eq)]
pub struct Stdio {
    /// The program.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment, beyond the host's.
    pub env: Vec<(String, String)>,
}

/// Where an entry says what is started.
pub(super) struct Sites {
    /// The mapping that holds both.
    pub(super) parent: std::ops::Range<usize>,
    /// The program.
    pub(super) command: Site,
    /// The arguments, where there are any.
    pub(super) args: Option<Site>,
}

/// A value and the key before it.
pub(super) struct Site {
    pub(super) key: usize,
    pub(super) value: std::ops::Range<usize>,
}

impl fmt::Debug for Stdio {
    /// Secrets may stand anywhere, so only the program is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stdio")
            .field("command", &self.command)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdio(stdio) => stdio.fmt(f),
            Self::Exeat(name) => write!(f, "Exeat({name})"),
            // Keys stand in URLs.
            Self::Remote(_) => f.write_str("Remote(..)"),
            Self::Other(why) => write!(f, "Other({why})"),
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("name", &self.name)
            .field("at", &self.at)
            .field("how", &self.how)
            .finish_non_exhaustive()
    }
}

/// Every server of a file, in the order written.
pub(super) fn entries(format: &Format, text: &str, root: &Node) -> Vec<Entry> {
    let mut found = Vec::new();
    for path in format.servers {
        descend(root, path, &mut Vec::new(), text, &mut found);
    }
    // A key path may lead to the same place as another.
    found.sort_by_key(|entry: &Entry| entry.start);
    found.dedup_by_key(|entry| entry.start);
    found
}

fn descend(node: &Node, path: &[&str], trail: &mut Vec<String>, text: &str, out: &mut Vec<Entry>) {
    let Some((first, rest)) = path.split_first() else {
        return servers(node, trail, text, out);
    };
    for member in node.members() {
        if *first == "*" || member.key == *first {
            trail.push(member.key.clone());
            descend(&member.node, rest, trail, text, out);
            trail.pop();
        }
    }
}

fn servers(node: &Node, trail: &[String], text: &str, out: &mut Vec<Entry>) {
    let at = |name: &str| {
        let parts = trail.iter().map(String::as_str).chain([name]);
        parts.collect::<Vec<_>>().join(".")
    };
    match &node.value {
        Value::Map(members) => {
            for Member { key, start, node } in members {
                out.push(entry(key.clone(), at(key), *start, node, text));
            }
        }
        Value::List(items) => {
            for item in items {
                let name = item.get("name").and_then(|name| name.node.text());
                let name = name.unwrap_or_default().to_owned();
                out.push(entry(name.clone(), at(&name), item.span.start, item, text));
            }
        }
        Value::Text(_) | Value::Other => {}
    }
}

fn entry(name: String, at: String, start: usize, node: &Node, text: &str) -> Entry {
    let (how, sites) = read(node, text);
    let cwd = node.get("cwd").and_then(|cwd| cwd.node.text());
    Entry {
        name,
        at,
        how,
        cwd: cwd.map(str::to_owned),
        start,
        sites,
    }
}

fn read(node: &Node, text: &str) -> (How, Option<Sites>) {
    let url = ["url", "serverUrl", "httpUrl"]
        .iter()
        .find_map(|key| node.get(key)?.node.text());
    let Some(command) = node.get("command") else {
        let how = url.map_or(How::Other("it names neither a command nor a URL"), |url| {
            How::Remote(url.to_owned())
        });
        return (how, None);
    };
    // An older form of Zed's: `command: { path, args, env }`.
    let inner = command.node.get("path").is_some();
    let (holder, program) = if inner {
        (&command.node, command.node.get("path"))
    } else {
        (node, Some(command))
    };
    let Some((program, path)) = program.and_then(|member| Some((member, member.node.text()?)))
    else {
        return (How::Other("its command is no text"), None);
    };
    if path.contains("${") {
        return (How::Other("its command is filled in by the host"), None);
    }
    let args = holder.get("args");
    let texts = match args.map(|args| &args.node) {
        None => Some(Vec::new()),
        Some(Node {
            value: Value::Other,
            span,
        }) if is_nothing(text, span) => Some(Vec::new()),
        Some(node) => node.texts(),
    };
    let Some(texts) = texts else {
        return (How::Other("its arguments are not all texts"), None);
    };
    if let Some(name) = own(path, &texts) {
        return (How::Exeat(name), None);
    }
    let site = |member: &Member| Site {
        key: member.start,
        value: member.node.span.clone(),
    };
    let sites = Sites {
        parent: holder.span.clone(),
        command: site(program),
        args: args.map(site),
    };
    let stdio = Stdio {
        command: path.to_owned(),
        args: texts,
        env: environment(holder, text),
    };
    (How::Stdio(stdio), Some(sites))
}

fn environment(node: &Node, text: &str) -> Vec<(String, String)> {
    let members = node.get("env").map(|env| env.node.members());
    let members = members.unwrap_or_default().iter();
    members
        .filter_map(|member| {
            let value = match &member.node.value {
                Value::Text(text) => text.clone(),
                // Hosts hand on numbers and truth values as they are written.
                Value::Other if !is_nothing(text, &member.node.span) => {
                    text.get(member.node.span.clone())?.to_owned()
                }
                Value::Other | Value::List(_) | Value::Map(_) => return None,
            };
            Some((member.key.clone(), value))
        })
        .collect()
}

/// Whether a value is written as nothing.
fn is_nothing(text: &str, span: &std::ops::Range<usize>) -> bool {
    matches!(
        text.get(span.clone()).map(str::trim),
        None | Some("" | "~" | "null" | "Null" | "NULL")
    )
}

/// The server that `exeat run NAME` starts.
pub(crate) fn own(command: &str, args: &[String]) -> Option<String> {
    let is_own = Path::new(command)
        .file_name()
        .is_some_and(|name| name == OWN);
    let at = args.iter().position(|arg| arg == "run")?;
    let before = args.get(..at)?;
    // Only options of every command may stand before the command.
    let plain = before.iter().enumerate().all(|(index, arg)| {
        let value_of = index.checked_sub(1).and_then(|index| before.get(index));
        arg.starts_with("--") || value_of.is_some_and(|of| of == "--socket" || of == "--config")
    });
    (is_own && plain).then(|| args.get(at.saturating_add(1)).cloned())?
}
