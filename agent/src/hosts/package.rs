//! What a command line really runs: the package behind `npx`, `uvx` and interpreters.

use std::fs;
use std::path::Path;

/// What a server is, whoever starts it and by which of its names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Package {
    /// Of npm, without its version.
    Npm(String),
    /// Of Python, its name normalised (PEP 503), without its version.
    Python(String),
    /// A container's image, without tag and digest.
    Image(String),
    /// A program or script, as its path or name is written.
    Program(String),
}

/// What stands for the hosts that packages of a kind are fetched from, in a proposed `launch.fetch`: which they are is
/// for the user to say (RFC 2606 reserves the domain).
pub const REGISTRIES: &[(&str, &[&str])] = &[
    ("npm", &["fill-in.npm.example"]),
    ("python", &["fill-in.python.example"]),
];

/// A program that fetches or runs something else.
struct Launcher {
    name: &'static str,
    /// Words between the launcher and what it runs, one of these sequences.
    after: &'static [&'static [&'static str]],
    /// Options whose value is the package.
    package: &'static [&'static str],
    /// Options with a value of no interest.
    valued: &'static [&'static str],
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Npm,
    Python,
    Image,
    /// Runs a script of JavaScript.
    Node,
    /// Runs a script or module of Python.
    Interpreter,
}

const DIRECT: &[&[&str]] = &[&[]];

const LAUNCHERS: &[Launcher] = &[
    npm("npx", DIRECT),
    npm("npx-cli.js", DIRECT),
    npm("pnpx", DIRECT),
    npm("bunx", DIRECT),
    npm("npm", &[&["exec"], &["x"]]),
    npm("npm-cli.js", &[&["exec"], &["x"]]),
    npm("pnpm", &[&["dlx"], &["exec"]]),
    npm("yarn", &[&["dlx"]]),
    npm("bun", &[&["x"]]),
    python("uvx", DIRECT, &["--from"]),
    python(
        "uv",
        &[&["tool", "run"], &["tool", "uvx"], &["run"]],
        &["--from"],
    ),
    python("pipx", &[&["run"]], &["--spec"]),
    image("docker"),
    image("podman"),
    script("node", Kind::Node),
    script("nodejs", Kind::Node),
    script("bun", Kind::Node),
    script("tsx", Kind::Node),
    script("ts-node", Kind::Node),
    Launcher {
        name: "deno",
        after: &[&["run"]],
        package: &[],
        valued: &[],
        kind: Kind::Node,
    },
    script("python", Kind::Interpreter),
    script("python3", Kind::Interpreter),
];

const fn npm(name: &'static str, after: &'static [&'static [&'static str]]) -> Launcher {
    Launcher {
        name,
        after,
        package: &["-p", "--package"],
        valued: &["-c", "--call", "--prefix", "-w", "--workspace"],
        kind: Kind::Npm,
    }
}

const fn python(
    name: &'static str,
    after: &'static [&'static [&'static str]],
    package: &'static [&'static str],
) -> Launcher {
    Launcher {
        name,
        after,
        package,
        valued: &[
            "--with",
            "--python",
            "-p",
            "--directory",
            "--project",
            "--index",
            "--index-url",
            "--default-index",
            "--extra-index-url",
            "--env-file",
            "--with-editable",
        ],
        kind: Kind::Python,
    }
}

const fn image(name: &'static str) -> Launcher {
    Launcher {
        name,
        after: &[&["run"], &["container", "run"]],
        package: &[],
        valued: &[
            "-e",
            "--env",
            "--env-file",
            "-v",
            "--volume",
            "--mount",
            "-p",
            "--publish",
            "--name",
            "--network",
            "--net",
            "-w",
            "--workdir",
            "-u",
            "--user",
            "--entrypoint",
            "-l",
            "--label",
            "--add-host",
            "-m",
            "--memory",
            "--cpus",
            "--platform",
            "--pull",
            "-h",
            "--hostname",
        ],
        kind: Kind::Image,
    }
}

const fn script(name: &'static str, kind: Kind) -> Launcher {
    Launcher {
        name,
        after: DIRECT,
        package: &[],
        valued: &["-r", "--require", "--import", "--loader", "-W", "-X"],
        kind,
    }
}

impl Package {
    /// What this command line runs.
    pub fn of(command: &str, args: &[String]) -> Self {
        Self::within(command, args, 4)
    }

    /// What a process runs: by its executable, which it cannot make up, then by its arguments, its name among them.
    pub fn running(exe: &str, args: &[String], cwd: &Path) -> Self {
        // npm writes what it does over its arguments, as one.
        if let [title] = args
            && title.contains(' ')
        {
            let words: Vec<String> = title.split_whitespace().map(str::to_owned).collect();
            if let Some((command, args)) = words.split_first()
                && let package @ Self::Npm(_) = Self::of(command, args)
            {
                return package;
            }
        }
        let args = args.get(1..).unwrap_or_default();
        let found = Self::of(exe, args);
        // A link in `.bin` leads into the package's folder.
        let Self::Program(script) = &found else {
            return found;
        };
        if script == exe {
            return found;
        }
        let Ok(real) = fs::canonicalize(cwd.join(script)) else {
            return found;
        };
        let real = real.to_string_lossy().into_owned();
        let args: Vec<String> = args
            .iter()
            .map(|arg| {
                if arg == script {
                    real.clone()
                } else {
                    arg.clone()
                }
            })
            .collect();
        match Self::of(exe, &args) {
            Self::Program(path) if path == real => Self::Program(real),
            package => package,
        }
    }

    fn within(command: &str, args: &[String], depth: u32) -> Self {
        let program = Self::Program(command.to_owned());
        let Some(depth) = depth.checked_sub(1) else {
            return program;
        };
        let name = file_name(command);
        if name == "env" {
            let rest = args
                .iter()
                .position(|arg| !arg.starts_with('-') && !arg.contains('='));
            let rest = rest.and_then(|at| args.get(at..)).unwrap_or_default();
            return match rest.split_first() {
                Some((command, args)) => Self::within(command, args, depth),
                None => program,
            };
        }
        if let ("sh" | "bash" | "dash" | "zsh", [flag, line, ..]) = (name, args)
            && flag.starts_with('-')
            && flag.ends_with('c')
            && !line.contains([';', '|', '&', '$', '`', '<', '>', '(', '"', '\''])
        {
            let mut words = line.split_whitespace().map(str::to_owned);
            let rest: Vec<String> = words.by_ref().skip_while(|word| word == "exec").collect();
            if let Some((command, args)) = rest.split_first() {
                return Self::within(command, args, depth);
            }
        }
        LAUNCHERS
            .iter()
            .filter(|launcher| launcher.names(name))
            .find_map(|launcher| launcher.package(args, depth))
            .unwrap_or(program)
    }

    /// Whether its name says that it is an MCP server, as by far the most do.
    pub fn is_mcp(&self) -> bool {
        let (Self::Npm(name) | Self::Python(name) | Self::Image(name)) = self else {
            let Self::Program(path) = self else {
                return false;
            };
            let parts = Path::new(path).iter().rev().take(2);
            return parts.filter_map(|part| part.to_str()).any(speaks_of_mcp);
        };
        name.starts_with("@modelcontextprotocol/server-") || speaks_of_mcp(name)
    }

    /// Whether both are one: a program's name and its path are.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Program(one), Self::Program(two)) => {
                let absolute = one.starts_with('/') && two.starts_with('/');
                one == two || (!absolute && file_name(one) == file_name(two))
            }
            // A tool's executable is mostly called as its package is.
            (Self::Program(path), Self::Python(name))
            | (Self::Python(name), Self::Program(path)) => python_name(file_name(path)) == *name,
            _ => self == other,
        }
    }

    /// The kind, as [`REGISTRIES`] names it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Npm(_) => "npm",
            Self::Python(_) => "python",
            Self::Image(_) => "image",
            Self::Program(_) => "program",
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Npm(name) | Self::Python(name) | Self::Image(name) | Self::Program(name) => name,
        }
    }
}

impl Launcher {
    fn names(&self, name: &str) -> bool {
        let versioned = name.strip_prefix(self.name).is_some_and(|rest| {
            self.kind == Kind::Interpreter && rest.chars().all(|c| c.is_ascii_digit() || c == '.')
        });
        name == self.name || versioned
    }

    /// What the launcher runs; `None` if these arguments are not of that kind.
    fn package(&self, args: &[String], depth: u32) -> Option<Package> {
        let rest = self.after.iter().find_map(|words| {
            let (head, rest) = args.split_at_checked(words.len())?;
            head.iter().eq(words.iter()).then_some(rest)
        })?;
        let mut found: Option<&str> = None;
        let mut words = rest.iter();
        while let Some(word) = words.next() {
            if word == "--" {
                found = found.or_else(|| words.next().map(String::as_str));
                break;
            }
            if self.kind == Kind::Interpreter && word == "-m" {
                return words
                    .next()
                    .map(|module| Package::Python(python_name(module)));
            }
            let Some((option, value)) = option(word) else {
                found = found.or(Some(word));
                break;
            };
            if self.package.contains(&option) {
                found = value.or_else(|| words.next().map(String::as_str));
            } else if value.is_none() && self.valued.contains(&option) {
                words.next();
            }
        }
        let found = found?;
        Some(match self.kind {
            Kind::Npm => Package::Npm(npm_name(found)),
            // `uv run server.py` runs a script, `uv run NAME` a tool.
            Kind::Python if found.contains('/') || is_script(found) => {
                Package::Program(found.to_owned())
            }
            Kind::Python if matches!(file_name(found), "python" | "python3") => {
                return Some(Package::within(found, words.as_slice(), depth));
            }
            Kind::Python => Package::Python(python_name(found)),
            Kind::Image => Package::Image(image_name(found)),
            Kind::Node => {
                let name = file_name(found);
                let runs = LAUNCHERS
                    .iter()
                    .any(|other| other.kind == Kind::Npm && other.name == name);
                if runs {
                    return Some(Package::within(name, words.as_slice(), depth));
                }
                script_of_node(found)
            }
            Kind::Interpreter => script_of_python(found),
        })
    }
}

/// Whether a program runs what its arguments say: an interpreter, a shell, a launcher.
pub(super) fn is_runner(command: &str) -> bool {
    const SHELLS: [&str; 9] = [
        "env", "sh", "bash", "dash", "zsh", "busybox", "ruby", "perl", "java",
    ];
    let name = file_name(command);
    SHELLS.contains(&name) || LAUNCHERS.iter().any(|launcher| launcher.names(name))
}

/// An option and the value that it carries.
fn option(word: &str) -> Option<(&str, Option<&str>)> {
    if !word.starts_with('-') {
        return None;
    }
    Some(match word.split_once('=') {
        Some((option, value)) => (option, Some(value)),
        None => (word, None),
    })
}

fn is_script(name: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|extension| extension == "py")
}

/// A script in a package's folder is that package.
fn script_of_node(path: &str) -> Package {
    if let Some(name) = path.strip_prefix("npm:") {
        return Package::Npm(npm_name(name));
    }
    let Some((_, below)) = path.rsplit_once("node_modules/") else {
        return Package::Program(path.to_owned());
    };
    let mut parts = below.split('/');
    let first = parts.next().unwrap_or_default();
    match parts.next() {
        Some(_) if first == ".bin" => Package::Program(path.to_owned()),
        Some(second) if first.starts_with('@') => Package::Npm(format!("{first}/{second}")),
        _ => Package::Npm(first.to_owned()),
    }
}

/// A script that an installer wrote into `bin` is called as its package, mostly.
fn script_of_python(path: &str) -> Package {
    let mut parts = path.rsplit('/');
    match (parts.next(), parts.next()) {
        (Some(name), Some("bin")) if !is_script(name) => Package::Python(python_name(name)),
        _ => Package::Program(path.to_owned()),
    }
}

/// Without its version.
fn npm_name(name: &str) -> String {
    let at = name.rfind('@').filter(|at| *at > 0).unwrap_or(name.len());
    name.get(..at).unwrap_or(name).to_owned()
}

/// Without version and extras, as PEP 503 compares names.
fn python_name(name: &str) -> String {
    let end = name
        .find(['@', '=', '[', '<', '>', '~', '!', ' '])
        .unwrap_or(name.len());
    let name = name.get(..end).unwrap_or(name).to_ascii_lowercase();
    name.replace(['_', '.'], "-")
}

/// Without tag and digest.
fn image_name(name: &str) -> String {
    let name = name.split('@').next().unwrap_or(name);
    match name.rsplit_once(':') {
        Some((image, tag)) if !tag.contains('/') => image.to_owned(),
        _ => name.to_owned(),
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether `mcp` is a word of the name, or begins one.
fn speaks_of_mcp(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| word.starts_with("mcp") || word.ends_with("mcp"))
}

/// The first argument that the host fills in: from there on they stay the host's.
pub(super) fn variable_at(args: &[String]) -> usize {
    let filled = |arg: &String| before_variable(arg).is_some();
    args.iter().position(filled).unwrap_or(args.len())
}

/// What stands before the first variable in an argument, if there is one.
pub(super) fn before_variable(arg: &str) -> Option<&str> {
    let is_variable = |&(at, _): &(usize, &str)| {
        let after = arg.get(at.saturating_add(1)..).unwrap_or_default();
        after.starts_with(|c: char| c == '{' || c == '_' || c.is_ascii_uppercase())
    };
    let (at, _) = arg.match_indices('$').find(is_variable)?;
    arg.get(..at)
}
