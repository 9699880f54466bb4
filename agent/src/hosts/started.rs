//! What a configuration or the register starts, recognised in a process that runs.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::entry::{How, entries};
use super::formats::Format;
use super::package::{Package, is_runner};
use super::tree::{Syntax, TreeFault};

/// Where a command without a slash is looked for.
const PATH: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin"];

/// A command and its arguments, as somebody wrote them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Started {
    /// The program.
    pub command: String,
    /// Its arguments; `${…}` stands for what the host fills in.
    pub args: Vec<String>,
}

/// Whether arguments may follow those that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// They are all there are.
    Whole,
    /// `exeat run NAME -- MORE` adds to them.
    Beginning,
}

/// What a process runs.
#[derive(Clone, Copy, Debug)]
pub struct Ran<'a> {
    /// The executable, links resolved.
    pub exe: &'a str,
    /// Its arguments, with what it is called first.
    pub args: &'a [String],
    /// What that is.
    pub package: &'a Package,
}

/// The servers that a host's configuration file starts without Exeat. The path says whose it is and how it is
/// written; nothing is opened.
///
/// # Errors
/// The text is not of the form that its host reads.
pub fn started(path: &Path, text: &str) -> Result<Vec<Started>, TreeFault> {
    let root = Syntax::of(path).parse(text)?;
    let found = entries(Format::of(path), text, &root).into_iter();
    Ok(found
        .filter_map(|entry| match entry.how {
            How::Stdio(stdio) => Some(Started {
                command: stdio.command,
                args: stdio.args,
            }),
            How::Exeat(_) | How::Remote(_) | How::Other(_) => None,
        })
        .collect())
}

impl Started {
    /// Whether a process is this: started so, run so by an interpreter, or the same package of npm or Python or the
    /// same image, however it is started.
    pub fn is(&self, ran: Ran<'_>, extent: Extent) -> bool {
        let wanted = Package::of(&self.command, &self.args);
        if !matches!(wanted, Package::Program(_)) && wanted.is(ran.package) {
            return true;
        }
        // An interpreter alone, or one whose arguments the host fills in, would be every process of it.
        if is_runner(&self.command) && !self.args.iter().any(|arg| is_telling(arg)) {
            return false;
        }
        let fits = |rest: &[String]| {
            let length = match extent {
                Extent::Whole => rest.len() == self.args.len(),
                Extent::Beginning => rest.len() >= self.args.len(),
            };
            length
                && self
                    .args
                    .iter()
                    .zip(rest)
                    .all(|(want, arg)| fits(want, arg))
        };
        let Some((called, rest)) = ran.args.split_first() else {
            return false;
        };
        let named = file_name(&self.command);
        let direct = named == file_name(called)
            || named == file_name(ran.exe)
            || resolved(&self.command).is_some_and(|path| path == Path::new(ran.exe));
        if direct && fits(rest) {
            return true;
        }
        // A script: behind its interpreter, which may have one argument of its own.
        let script = |at: usize| {
            let path = rest.get(at).filter(|path| file_name(path) == named);
            path.is_some() && fits(rest.get(at.saturating_add(1)..).unwrap_or_default())
        };
        is_runner(ran.exe) && (script(0) || script(1))
    }
}

/// Whether something stands there beside what the host fills in.
fn is_telling(arg: &str) -> bool {
    let (before, after) = around(arg);
    !before.is_empty() || !after.is_empty()
}

fn fits(wanted: &str, arg: &str) -> bool {
    if !wanted.contains("${") {
        return wanted == arg;
    }
    let (before, after) = around(wanted);
    arg.len() >= before.len().saturating_add(after.len())
        && arg.starts_with(before)
        && arg.ends_with(after)
}

/// What stands before the first and after the last variable.
fn around(arg: &str) -> (&str, &str) {
    let Some((before, rest)) = arg.split_once("${") else {
        return (arg, "");
    };
    (before, rest.rsplit_once('}').map_or("", |(_, after)| after))
}

fn resolved(command: &str) -> Option<PathBuf> {
    if command.contains('/') {
        return fs::canonicalize(command).ok();
    }
    let candidates = PATH
        .iter()
        .map(|directory| Path::new(directory).join(command));
    candidates
        .filter(|path| path.is_file())
        .find_map(|path| fs::canonicalize(path).ok())
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        // A blank within a word is written as one that does not break.
        let word = |word: &str| word.replace('\u{a0}', " ");
        line.split(' ').map(word).collect()
    }

    /// Whether `exe` with these arguments, the name first, is what `entry` starts.
    fn is(entry: &str, exe: &str, args: &str, extent: Extent) -> bool {
        let mut entry = words(entry);
        let started = Started {
            command: entry.remove(0),
            args: entry,
        };
        let args = words(args);
        let package = Package::running(exe, &args, Path::new("/"));
        let ran = Ran {
            exe,
            args: &args,
            package: &package,
        };
        started.is(ran, extent)
    }

    #[test]
    fn what_a_configuration_starts_is_recognised() {
        for (entry, exe, args) in [
            ("/opt/notes --db x", "/opt/notes", "/opt/notes --db x"),
            ("notes --db x", "/opt/notes", "notes --db x"),
            // Whatever it calls itself.
            ("/opt/notes --db x", "/opt/notes", "git --db x"),
            // By its interpreter.
            (
                "notes --db x",
                "/usr/bin/python3.11",
                "/usr/bin/python3 /opt/bin/notes --db x",
            ),
            (
                "notes --db x",
                "/usr/bin/dash",
                "/bin/sh -e /opt/bin/notes --db x",
            ),
            ("python3 /s.py", "/usr/bin/python3.11", "python3 /s.py"),
            // Launchers, by themselves and through a shell.
            (
                "npx -y @a/b@1",
                "/usr/bin/node",
                "node /usr/bin/npx -y @a/b@1",
            ),
            (
                "npx -y @a/b@1",
                "/usr/bin/node",
                "npm\u{a0}exec\u{a0}@a/b@1",
            ),
            (
                "uvx a-b",
                "/usr/bin/python3.11",
                "python3 /root/.cache/x/bin/a_b --x",
            ),
            ("npx -y x", "/usr/bin/dash", "sh -c npx\u{a0}-y\u{a0}x"),
            // What the host fills in.
            (
                "notes ${workspaceFolder}/x.db",
                "/opt/notes",
                "notes /home/d/x.db",
            ),
        ] {
            assert!(is(entry, exe, args, Extent::Whole), "{entry}: {args}");
        }
        assert!(is(
            "/opt/notes -a",
            "/opt/notes",
            "notes -a -b",
            Extent::Beginning
        ));
    }

    #[test]
    fn what_it_does_not_start_is_not() {
        for (entry, exe, args) in [
            ("/opt/notes --db x", "/opt/notes", "notes --db y"),
            ("/opt/notes --db x", "/opt/notes", "notes --db x more"),
            ("/opt/notes", "/usr/bin/cat", "cat /opt/notes"),
            ("npx -y @a/b", "/usr/bin/node", "node /usr/bin/npx -y @a/c"),
            ("python3 /s.py", "/usr/bin/python3.11", "python3 /t.py"),
            // Every process of an interpreter would be it.
            ("node ${file}", "/usr/bin/node", "node /x.js"),
            ("/usr/bin/env", "/usr/bin/env", "env ls"),
            ("bash", "/usr/bin/bash", "bash"),
            ("notes ${a}.db", "/opt/notes", "notes x.sql"),
        ] {
            for extent in [Extent::Whole, Extent::Beginning] {
                let more = extent == Extent::Beginning && args.ends_with("more");
                assert!(more || !is(entry, exe, args, extent), "{entry}: {args}");
            }
        }
    }

    #[test]
    fn a_configuration_is_read_by_its_path() {
        let text = r#"{"mcpServers": {
            "a": {"command": "x", "args": ["y"], "env": {"TOKEN": "secret"}},
            "b": {"command": "exeat", "args": ["run", "b"]},
            "c": {"url": "https://c.example/"}}}"#;
        let found = started(Path::new("/home/d/.mcp.json"), text).unwrap();
        let x = Started {
            command: "x".into(),
            args: vec!["y".into()],
        };
        assert_eq!(found, [x]);
        started(Path::new("/home/d/.mcp.json"), "{").unwrap_err();
    }
}
