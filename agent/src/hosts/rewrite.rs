//! Having a host start its servers by `exeat run`, and nothing else of its file changed.

use std::fmt;

use super::entry::{Entry, How, Site, Sites, Stdio, entries};
use super::formats::Format;
use super::package::variable_at;
use super::tree::{Edit, Member, Node, Syntax, TreeFault, Value, apply, line_of, quoted};

/// A file that was rewritten.
pub struct Rewritten {
    /// The whole new text.
    pub text: String,
    /// What changed, in the order of the file.
    pub changes: Vec<Change>,
}

/// A server that is started otherwise than before; what was started may hold secrets.
pub struct Change {
    /// Where it stands: its keys, joined with dots.
    pub at: String,
    /// The line that the entry begins in, from 1.
    pub line: usize,
    /// The server's name in the register.
    pub name: String,
    /// What was started.
    pub before: Stdio,
    /// The directory that it was started in, where the entry names one.
    pub cwd: Option<String>,
    /// What is started: `exeat` and its arguments.
    pub after: (String, Vec<String>),
}

impl fmt::Debug for Rewritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rewritten")
            .field("changes", &self.changes)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change")
            .field("at", &self.at)
            .field("line", &self.line)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Why a file was not rewritten.
#[derive(Debug, thiserror::Error)]
pub enum RewriteFault {
    /// It cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeFault),
    /// It would read otherwise than meant.
    #[error(
        "line {line}: the server there is written in a way that cannot be changed safely; change it by hand to `exeat run NAME`"
    )]
    Unsafe {
        /// Counted from 1.
        line: usize,
    },
}

/// Rewrites every server that the host starts itself; `name_of` gives its name in the register.
///
/// Arguments that the host fills in (`${workspaceFolder}`) and those after them stay the host's, and
/// are handed on after `--`.
pub(super) fn rewrite(
    format: &Format,
    syntax: Syntax,
    text: &str,
    exeat: &str,
    mut name_of: impl FnMut(&Entry, &Stdio) -> String,
) -> Result<Rewritten, RewriteFault> {
    let root = syntax.parse(text)?;
    let mut edits = Vec::new();
    let mut changes = Vec::new();
    for entry in entries(format, text, &root) {
        let (How::Stdio(stdio), Some(sites)) = (&entry.how, &entry.sites) else {
            continue;
        };
        let name = name_of(&entry, stdio);
        let mut args = vec!["run".to_owned(), name.clone()];
        let own = stdio
            .args
            .get(variable_at(&stdio.args)..)
            .unwrap_or_default();
        if !own.is_empty() {
            args.push("--".to_owned());
            args.extend(own.iter().cloned());
        }
        edits.extend(edit(syntax, text, sites, exeat, &args));
        changes.push(Change {
            at: entry.at.clone(),
            line: line_of(text, entry.start),
            name,
            before: stdio.clone(),
            cwd: entry.cwd.clone(),
            after: (exeat.to_owned(), args),
        });
    }
    let rewritten = Rewritten {
        text: apply(text, &edits),
        changes,
    };
    prove(format, syntax, (&root, text), &rewritten)?;
    Ok(rewritten)
}

/// What the new text says is what was meant, and all else is what it was.
fn prove(
    format: &Format,
    syntax: Syntax,
    before: (&Node, &str),
    rewritten: &Rewritten,
) -> Result<(), RewriteFault> {
    let line = rewritten.changes.first().map_or(1, |change| change.line);
    let unsafe_at = |line| RewriteFault::Unsafe { line };
    let after = syntax
        .parse(&rewritten.text)
        .map_err(|_fault| unsafe_at(line))?;
    let mut through = entries(format, &rewritten.text, &after).into_iter();
    for change in &rewritten.changes {
        let found = through.find(|entry| entry.at == change.at);
        let same =
            matches!(found.map(|entry| entry.how), Some(How::Exeat(name)) if name == change.name);
        if !same {
            return Err(unsafe_at(change.line));
        }
    }
    if same(before, (&after, &rewritten.text)) {
        Ok(())
    } else {
        Err(unsafe_at(line))
    }
}

/// Whether two trees, each with its text, are the same, commands and arguments aside.
fn same(before: (&Node, &str), after: (&Node, &str)) -> bool {
    let both = |was: &Node, is: &Node| same((was, before.1), (is, after.1));
    match (&before.0.value, &after.0.value) {
        (Value::Text(was), Value::Text(is)) => was == is,
        (Value::Other, Value::Other) => {
            before.1.get(before.0.span.clone()) == after.1.get(after.0.span.clone())
        }
        (Value::List(was), Value::List(is)) => {
            was.len() == is.len() && was.iter().zip(is).all(|(was, is)| both(was, is))
        }
        (Value::Map(was), Value::Map(is)) => {
            let started = |key: &str| matches!(key, "command" | "args" | "path");
            let kept = |members: &[Member]| -> Vec<String> {
                let keys = members.iter().map(|member| member.key.clone());
                keys.filter(|key| !started(key)).collect()
            };
            kept(was) == kept(is)
                && was.iter().all(|member| {
                    let leaf = !matches!(member.node.value, Value::Map(_));
                    after.0.get(&member.key).is_some_and(|now| {
                        (started(&member.key) && leaf) || both(&member.node, &now.node)
                    })
                })
        }
        _ => false,
    }
}

fn edit(syntax: Syntax, text: &str, sites: &Sites, exeat: &str, args: &[String]) -> Vec<Edit> {
    let mut command = Edit {
        span: sites.command.value.clone(),
        text: quoted(exeat),
    };
    if let Some(site) = &sites.args {
        let args = Edit {
            span: site.value.clone(),
            text: list(syntax, text, site, args),
        };
        return vec![command, args];
    }
    command.text.push_str(&added(syntax, text, sites, args));
    vec![command]
}

/// A list of texts, in the form that the one before it had.
fn list(syntax: Syntax, text: &str, site: &Site, args: &[String]) -> String {
    let block = text
        .get(site.value.clone())
        .is_some_and(|value| value.starts_with('-'));
    if syntax == Syntax::Yaml && block {
        let indent = before(text, site.value.start);
        let blank: String = indent.chars().map(|_| ' ').collect();
        let items: Vec<String> = args
            .iter()
            .map(|arg| format!("- {}", quoted(arg)))
            .collect();
        return items.join(&format!("{}{blank}", line_end(text)));
    }
    flow(args)
}

fn flow(args: &[String]) -> String {
    let items: Vec<String> = args.iter().map(|arg| quoted(arg)).collect();
    format!("[{}]", items.join(", "))
}

/// Arguments after a command that had none: on a line of their own if the command has one.
fn added(syntax: Syntax, text: &str, sites: &Sites, args: &[String]) -> String {
    let prefix = before(text, sites.command.key);
    let inline = text
        .get(sites.parent.clone())
        .is_some_and(|parent| parent.starts_with('{'));
    let args = flow(args);
    let first = prefix.trim().is_empty();
    match syntax {
        Syntax::Json if first => format!(",{}{prefix}\"args\": {args}", line_end(text)),
        Syntax::Json => format!(", \"args\": {args}"),
        Syntax::Toml if inline => format!(", args = {args}"),
        Syntax::Yaml if inline => format!(", args: {args}"),
        // The prefix holds the front of a dotted key.
        Syntax::Toml => format!("{}{prefix}args = {args}", line_end(text)),
        Syntax::Yaml => {
            let blank: String = prefix.chars().map(|_| ' ').collect();
            format!("{}{blank}args: {args}", line_end(text))
        }
    }
}

/// What stands before `at` in its line.
fn before(text: &str, at: usize) -> &str {
    let head = text.get(..at).unwrap_or_default();
    let line = head.rsplit('\n').next().unwrap_or_default();
    line.trim_start_matches('\u{feff}')
}

fn line_end(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}
