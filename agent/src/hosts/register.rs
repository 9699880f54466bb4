//! Entries for the register, proposed from what hosts start.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use exeat_policy::{Directory, Glob, PolicySet, Server, Transport, Url};

use super::entry::Stdio;
use super::package::{Package, REGISTRIES, before_variable, variable_at};
use super::tree::quoted;
use crate::audit::mask::{self, is_telling};
use crate::launch::environment::PATH;

/// Longest name in the register.
const MAX_NAME: usize = 64;
/// What a person has to write.
const FILL_IN: &str = "FILL IN";

/// The names that are taken, by the policy and by what was proposed.
#[derive(Default)]
pub struct Register<'a> {
    policy: Option<&'a PolicySet>,
    proposed: BTreeMap<String, Wanted>,
    /// Patterns of what hosts add to the arguments of a proposed server.
    extra_args: BTreeMap<String, BTreeSet<String>>,
    hosts: BTreeMap<String, Matched>,
    /// Where hosts find programs that servers would not be found by.
    own: Vec<PathBuf>,
}

/// What is proposed under a name.
#[derive(Clone, PartialEq, Eq)]
enum Wanted {
    Launch(Stdio),
    Url(String),
    Listen(String, Matched),
}

/// Which processes an entry means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Matched {
    /// The executable's absolute path.
    pub exe: String,
    /// The first argument, where the executable is an interpreter.
    pub script: Option<String>,
    /// The user's name.
    pub user: String,
}

/// An entry for the register, as YAML. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The server's name.
    pub name: String,
    /// Its lines, indented as a member of `servers`.
    pub yaml: String,
}

impl std::fmt::Debug for Register<'_> {
    /// The names alone: what is proposed under them may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.proposed.keys()).finish()
    }
}

impl<'a> Register<'a> {
    /// With what the policy has.
    pub fn new(policy: Option<&'a PolicySet>) -> Self {
        Self {
            policy,
            ..Self::default()
        }
    }

    /// The same, for hosts that find programs in these directories as well. What is found there alone is proposed by its
    /// whole path, since `exeat run` does not look there.
    #[must_use]
    pub fn finding_in(mut self, own: Vec<PathBuf>) -> Self {
        self.own = own;
        self
    }

    /// The program that is proposed to be started as `name`, if that is.
    pub fn program(&self, name: &str) -> Option<&str> {
        match self.proposed.get(name)? {
            Wanted::Launch(stdio) => Some(&stdio.command),
            Wanted::Url(_) | Wanted::Listen(..) => None,
        }
    }

    /// Whether `name` is registered to begin where its host does not start it.
    pub fn begins_elsewhere(&self, name: &str) -> bool {
        let server = self.policy.and_then(|policy| policy.server(name));
        let launch = server.and_then(Server::launch);
        launch.is_some_and(|launch| launch.directory != Directory::Caller)
    }

    /// Whether `name` is registered and may not be started with what its host adds to the arguments.
    pub fn lacks_extra_args(&self, name: &str, stdio: &Stdio) -> bool {
        let server = self.policy.and_then(|policy| policy.server(name));
        let launch = server.and_then(Server::launch);
        launch.is_some_and(|launch| launch.uncovered(own_part(stdio)).is_some())
    }

    /// The variables that its host gives a registered server and the register does not.
    pub fn lacks_variables<'s>(&self, name: &str, stdio: &'s Stdio) -> Vec<&'s str> {
        let server = self.policy.and_then(|policy| policy.server(name));
        let Some(launch) = server.and_then(Server::launch) else {
            return Vec::new();
        };
        let given = |name: &str| launch.env.iter().any(|(other, _)| other == name);
        let names = stdio.env.iter().map(|(name, _)| name.as_str());
        names.filter(|name| !given(name)).collect()
    }

    /// The server of the policy that this is: started in the same way, or the same package under
    /// the same name.
    pub fn known(&self, name: &str, stdio: &Stdio) -> Option<&'a Server> {
        let wanted = registered_part(stdio);
        let package = Package::of(&wanted.command, &wanted.args);
        let name = plain(name);
        let mut same = None;
        for server in self.policy?.servers() {
            let Some(launch) = server.launch() else {
                continue;
            };
            let named = *server.name == *name;
            if launch.command == wanted.command && launch.args == wanted.args {
                if named {
                    return Some(server);
                }
                same = same.or(Some(server));
            } else if named && Package::of(&launch.command, &launch.args).is(&package) {
                same = Some(server);
            }
        }
        same
    }

    /// The server of the policy that runs this package, whatever its arguments are.
    pub fn runs(&self, package: &Package) -> Option<&'a Server> {
        self.policy?.servers().find(|server| {
            server
                .launch()
                .is_some_and(|launch| Package::of(&launch.command, &launch.args).is(package))
        })
    }

    /// The server of the policy at this URL.
    pub fn at(&self, url: &str) -> Option<&'a Server> {
        let wanted = Url::parse(bare(url)).ok()?.to_string();
        self.policy?
            .servers()
            .find(|server| match &server.transport {
                Transport::Url(url) => url.to_string() == wanted,
                Transport::Launch(_) | Transport::Listen(_) => false,
            })
    }

    /// The name for a server that a host starts: the policy's, or one that is free, which is
    /// proposed.
    pub fn name(&mut self, name: &str, stdio: &Stdio) -> String {
        if let Some(server) = self.known(name, stdio) {
            return server.name.to_string();
        }
        let mut part = registered_part(stdio);
        if !is_found(&part.command)
            && let Some(path) = found_in(&self.own, &part.command)
        {
            part.command = path;
            // As it was proposed before.
            if let Some(server) = self.known(name, &part) {
                return server.name.to_string();
            }
        }
        let name = self.free(name, Wanted::Launch(part));
        let extra_args = self.extra_args.entry(name.clone()).or_default();
        extra_args.extend(patterns(own_part(stdio)));
        name
    }

    /// Proposes a server at a URL, unless the policy has it or would not take the URL; its name.
    pub fn remote(&mut self, name: &str, url: &str) -> Option<String> {
        let url = bare(url);
        let fits = self.at(url).is_none() && Url::parse(url).is_ok() && masked_url(url) == url;
        fits.then(|| self.free(name, Wanted::Url(url.to_owned())))
    }

    /// Proposes a server that something else starts and that listens; its name.
    pub fn listening(&mut self, name: &str, address: &str, matched: &Matched) -> String {
        self.free(name, Wanted::Listen(address.to_owned(), matched.clone()))
    }

    /// Proposes a host, unless one is proposed that is the same processes; its name.
    pub fn host(&mut self, name: &str, matched: Matched) -> Option<String> {
        if matched.rule().is_none() || self.hosts.values().any(|other| *other == matched) {
            return None;
        }
        let held = self
            .policy
            .is_some_and(|policy| policy.host(name).is_some() || policy.identity(name).is_some());
        let name = if held || self.hosts.contains_key(name) {
            plain(&format!("{name}-{}", matched.user))
        } else {
            plain(name)
        };
        self.hosts.insert(name.clone(), matched);
        Some(name)
    }

    fn free(&mut self, name: &str, wanted: Wanted) -> String {
        let base = plain(name);
        let mut number = 1_u32;
        loop {
            let name = if number == 1 {
                base.clone()
            } else {
                let ending = format!("-{number}");
                let kept = MAX_NAME.saturating_sub(ending.len());
                format!("{}{ending}", base.get(..kept).unwrap_or(&base))
            };
            let taken = self
                .policy
                .is_some_and(|policy| policy.server(&name).is_some());
            match self.proposed.get(&name) {
                Some(other) if *other == wanted => return name,
                None if !taken => {
                    self.proposed.insert(name.clone(), wanted);
                    return name;
                }
                Some(_) | None => number = number.saturating_add(1),
            }
        }
    }

    /// What was proposed, by name.
    pub fn proposals(&self) -> Vec<Proposal> {
        let proposal = |(name, wanted): (&String, &Wanted)| Proposal {
            name: name.clone(),
            yaml: match wanted {
                Wanted::Launch(stdio) => launch(name, stdio, self.extra_args.get(name)),
                Wanted::Url(url) => format!("{}    url: {}\n", head(name), quoted(url)),
                Wanted::Listen(address, matched) => {
                    // Two entries must not claim the same processes.
                    let same = |other: &&Wanted| matches!(other, Wanted::Listen(_, claimed) if claimed == matched);
                    let first = self.proposed.values().find(same) == Some(wanted);
                    let rule = matched.rule().filter(|_| first);
                    let rule = rule.map(|rule| format!("    match: {rule}\n"));
                    let listen = format!("    listen: {}\n", quoted(address));
                    head(name) + &listen + &rule.unwrap_or_default()
                }
            },
        };
        self.proposed.iter().map(proposal).collect()
    }

    /// The hosts that were proposed, by name.
    pub fn host_proposals(&self) -> Vec<Proposal> {
        let proposal = |(name, matched): (&String, &Matched)| Proposal {
            name: name.clone(),
            yaml: format!(
                "  {}:\n    match: {}\n",
                word(name),
                matched.rule().unwrap_or_default()
            ),
        };
        self.hosts.iter().map(proposal).collect()
    }
}

impl Matched {
    /// As `match:` in the policy; `None` where it cannot be written.
    fn rule(&self) -> Option<String> {
        let path = |path: &str| path.starts_with('/') && !path.ends_with(" (deleted)");
        if !path(&self.exe) {
            return None;
        }
        let args = match &self.script {
            // A pattern's letters would mean something else.
            Some(script) if script.contains(['*', '?', '[', ']', '{', '}', '\\']) => return None,
            Some(script) => format!(", args: [{}]", quoted(script)),
            None => String::new(),
        };
        Some(format!(
            "{{ exe: {}{args}, user: {} }}",
            quoted(&self.exe),
            quoted(&self.user)
        ))
    }
}

/// A whole policy file with these entries; nothing where there are none.
pub fn document(servers: &[Proposal], hosts: &[Proposal]) -> String {
    if servers.is_empty() && hosts.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "# Replace what says {FILL_IN}, add `egress` for what each may reach, then `exeat policy check`.\nversion: 1\n"
    );
    for (section, proposals) in [("servers", servers), ("hosts", hosts)] {
        if !proposals.is_empty() {
            text.push_str(section);
            text.push_str(":\n");
        }
        for proposal in proposals {
            text.push_str(&proposal.yaml);
        }
    }
    text
}

/// Whether `exeat run` finds the program: it has a path, or is where servers' programs are looked for.
pub fn is_found(command: &str) -> bool {
    let base: Vec<PathBuf> = PATH.split(':').map(PathBuf::from).collect();
    command.contains('/') || found_in(&base, command).is_some()
}

/// The program of this name in the first of the directories that has it.
fn found_in(directories: &[PathBuf], command: &str) -> Option<String> {
    let paths = directories
        .iter()
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(command));
    let is_program = |path: &PathBuf| {
        let metadata = path.metadata();
        metadata.is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
    };
    paths
        .into_iter()
        .find(is_program)?
        .to_str()
        .map(str::to_owned)
}

/// What the register starts: without the arguments that stay the host's.
fn registered_part(stdio: &Stdio) -> Stdio {
    let mut part = stdio.clone();
    part.args.truncate(variable_at(&stdio.args));
    part
}

/// The arguments that stay the host's, which it may hand on after `--`.
fn own_part(stdio: &Stdio) -> &[String] {
    let at = variable_at(&stdio.args);
    stdio.args.get(at..).unwrap_or_default()
}

/// Patterns for `extra_args` that cover these arguments, whatever their variables become; they tell no secret.
fn patterns(args: &[String]) -> BTreeSet<String> {
    let pattern = |(arg, shown): (&String, String)| {
        let text = match before_variable(arg) {
            Some(before) => format!("{before}*"),
            None => arg.clone(),
        };
        let fits = Glob::parse(&text).is_ok_and(|glob| glob.matches(arg));
        if fits && shown == *arg {
            text
        } else {
            "*".to_owned()
        }
    };
    args.iter()
        .zip(masked_arguments(args))
        .map(pattern)
        .collect()
}

fn head(name: &str) -> String {
    format!(
        "  {}:\n    purpose: {}\n    owner: {}\n",
        word(name),
        quoted(&format!("{FILL_IN}: what it is for")),
        quoted(&format!("{FILL_IN}: who answers for it")),
    )
}

fn launch(name: &str, stdio: &Stdio, extra_args: Option<&BTreeSet<String>>) -> String {
    let mut text = head(name);
    // Writing to a string cannot fail.
    let mut line = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").unwrap_or_default();
    line(format_args!("    launch:"));
    line(format_args!("      command: {}", word(&stdio.command)));
    let masked = masked_arguments(&stdio.args);
    if masked
        .iter()
        .zip(&stdio.args)
        .any(|(masked, arg)| masked != arg)
    {
        line(format_args!(
            "      # a secret stood in the arguments: give it in `env`, as {{ secret: NAME }}"
        ));
    }
    if !stdio.args.is_empty() {
        let items = masked.iter().zip(&stdio.args).map(|(masked, arg)| {
            let text = if masked == arg {
                word(arg)
            } else {
                quoted(&format!("{FILL_IN}: {masked}"))
            };
            if text.starts_with('"') {
                text
            } else {
                quoted(arg)
            }
        });
        let items: Vec<String> = items.collect();
        line(format_args!("      args: [{}]", items.join(", ")));
    }
    let patterns = extra_args.into_iter().flatten();
    let patterns: Vec<String> = patterns.map(|pattern| quoted(pattern)).collect();
    if !patterns.is_empty() {
        let patterns = patterns.join(", ");
        line(format_args!(
            "      extra_args: [{patterns}]   # what its host adds, after `--`"
        ));
    }
    // As without Exeat: where its host starts it.
    line(format_args!("      directory: caller"));
    let fetch = fetched(stdio);
    if !fetch.is_empty() {
        line(format_args!("      fetch: [{}]", fetch.join(", ")));
    }
    text.push_str(&variables(name, &stdio.env));
    text
}

/// What the host gives a server, as far as the register can: what it cannot is said where it would stand.
fn variables(name: &str, env: &[(String, String)]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let mut line = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").unwrap_or_default();
    if !env.is_empty() {
        let none = env.iter().all(|(variable, _)| !is_variable(variable));
        line(format_args!("      env:{}", if none { " {}" } else { "" }));
    }
    for (variable, value) in env {
        if !is_variable(variable) {
            line(format_args!(
                "        # a variable of another name than the register takes"
            ));
            continue;
        }
        match variable_value(variable, value) {
            Given::Secret => {
                let secret = secret_name(name, variable);
                line(format_args!(
                    "        # the server gets a placeholder: define `{secret}` under `credentials`, and name it in `egress`"
                ));
                line(format_args!(
                    "        {variable}: {{ secret: {} }}",
                    word(&secret)
                ));
            }
            Given::Filled => {
                line(format_args!(
                    "        # its host filled this in, which reaches the server no more: write what it is"
                ));
                let value = quoted(&format!("{FILL_IN}: {value}"));
                line(format_args!("        {variable}: {value}"));
            }
            Given::Plain => line(format_args!("        {variable}: {}", quoted(value))),
        }
    }
    text
}

/// The registries that the launcher fetches from: those that the environment names, else what is to be filled in.
fn fetched(stdio: &Stdio) -> Vec<String> {
    const NAMED: &[(&str, &[&str])] = &[
        ("npm", &["npm_config_registry", "NPM_CONFIG_REGISTRY"]),
        (
            "python",
            &["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"],
        ),
    ];
    let package = Package::of(&stdio.command, &stdio.args);
    let launched = !matches!(&package, Package::Python(_)) || !is_interpreter(&stdio.command);
    let list = |table: &'static [(&str, &[&'static str])]| {
        let found = table
            .iter()
            .find(|(kind, _)| *kind == package.kind() && launched);
        found.map(|(_, list)| *list).unwrap_or_default()
    };
    let named = list(NAMED).iter().find_map(|variable| {
        let (_, value) = stdio.env.iter().find(|(name, _)| name == variable)?;
        let authority = value.split_once("://")?.1.split(['/', '?', '#']).next()?;
        let host = authority.rsplit('@').next()?.split(':').next()?;
        exeat_policy::Name::parse(host)
            .ok()
            .map(|name| name.to_string())
    });
    named.map_or_else(
        || {
            list(REGISTRIES)
                .iter()
                .map(|host| (*host).to_owned())
                .collect()
        },
        |host| vec![host],
    )
}

/// Whether a program runs what is installed already.
fn is_interpreter(command: &str) -> bool {
    let name = command.rsplit('/').next().unwrap_or(command);
    name.starts_with("python") || name == "node"
}

/// What a host gives as a variable's value.
enum Given {
    /// To be named, and never told.
    Secret,
    /// What it fills in itself.
    Filled,
    /// This very text.
    Plain,
}

fn variable_value(variable: &str, value: &str) -> Given {
    let secret = is_telling(variable) || matches!(mask::text(value), Cow::Owned(_));
    if secret && !value.is_empty() {
        Given::Secret
    } else if value.contains("${") || value.starts_with('$') {
        Given::Filled
    } else {
        Given::Plain
    }
}

fn secret_name(server: &str, variable: &str) -> String {
    let variable = plain(&variable.to_ascii_lowercase().replace('_', "-"));
    if variable.starts_with(server) {
        variable
    } else {
        plain(&format!("{server}-{variable}"))
    }
}

/// As the policy names variables.
fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A name as the register takes it.
fn plain(name: &str) -> String {
    let kept = |c: char| {
        if c.is_ascii_alphanumeric() || "-_.".contains(c) {
            c
        } else {
            '-'
        }
    };
    let name: String = name.chars().map(kept).collect();
    let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let name = name.get(..MAX_NAME.min(name.len())).unwrap_or(name);
    if name.is_empty() {
        "server".to_owned()
    } else {
        name.to_owned()
    }
}

/// A text without quotes where YAML reads it as the same text.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./@+".contains(c);
    let first = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let special = matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
    );
    if first && text.chars().all(plain) && !special {
        text.to_owned()
    } else {
        quoted(text)
    }
}

/// Arguments as they may be shown: secrets in them, and after a telling option, are masked.
pub fn masked_arguments(args: &[String]) -> Vec<String> {
    let mut after = false;
    args.iter()
        .map(|arg| {
            let option = arg.starts_with('-');
            let secret = after && !option;
            after = option && !arg.contains('=') && is_telling(arg);
            if secret {
                mask::MASK.to_owned()
            } else {
                masked(arg)
            }
        })
        .collect()
}

fn masked(arg: &str) -> String {
    let text = mask::text(arg);
    if arg.contains("://") {
        return mask::path(&text).into_owned();
    }
    text.into_owned()
}

/// A URL as it may be shown.
pub fn masked_url(url: &str) -> String {
    masked(url)
}

/// Without what a register's URL does not have, and keys may stand in.
fn bare(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}
