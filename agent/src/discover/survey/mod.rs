//! Putting together what the sources say: each thing once, with all that is known of it.

mod bare;
mod matched;
mod reach;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::Path;

use exeat_policy::{Host, PolicySet, Transport};
use serde::Serialize;
use serde_json::Value;

use self::matched::matched;
use self::reach::{fetches, reaches};
use super::found::{Found, Kind, Standing};
use super::probe::Spoken;
use super::processes::Running;
use super::sockets::Listening;
use crate::channel;
use crate::hosts::{
    Account, Children, Entry, Format, How, Listed, Matched, Package, Register, Stdio, document,
    masked_arguments, masked_url,
};
use crate::supervisor::matching::{Subject, subjects};
use crate::supervisor::runs::file_name;
use crate::supervisor::unregistered::SUFFIX;

/// Everything that was found.
#[derive(Debug, Serialize)]
pub struct Inventory {
    /// Servers and hosts, the unregistered ones first.
    pub found: Vec<Found>,
    /// A policy file with an entry for each that the register does not have; empty where it has all.
    pub entries: String,
    /// What could not be looked at, and why.
    pub notes: Vec<String>,
}

/// What was found so far.
pub struct Survey<'a> {
    set: Option<&'a PolicySet>,
    names: &'a BTreeSet<String>,
    register: Register<'a>,
    found: Vec<Found>,
    /// Which of them each process is.
    of_process: HashMap<u32, usize>,
    traffic: BTreeMap<(String, String), (u64, String)>,
    bare: BTreeMap<(Vec<String>, String), bare::Told>,
    containers: BTreeMap<String, String>,
    notes: Vec<String>,
}

impl std::fmt::Debug for Survey<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Survey")
            .field("found", &self.found)
            .finish_non_exhaustive()
    }
}

impl<'a> Survey<'a> {
    /// Compared with this policy, or where there is none with the register's names alone.
    pub fn new(set: Option<&'a PolicySet>, names: &'a BTreeSet<String>) -> Self {
        Self {
            set,
            names,
            register: Register::new(set),
            found: Vec::new(),
            of_process: HashMap::new(),
            traffic: BTreeMap::new(),
            bare: BTreeMap::new(),
            containers: BTreeMap::new(),
            notes: Vec::new(),
        }
    }

    /// Says what could not be looked at.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// The servers that containers are by their labels, by the containers' cgroups.
    pub fn containers(&mut self, containers: BTreeMap<String, String>) {
        self.containers = containers;
    }

    /// A host's configuration.
    pub fn file(&mut self, account: &Account, listed: &Listed) {
        let seen = format!("in `{}`", listed.place.path.display());
        if listed.format.id != "unknown" {
            let row = self.host_row(listed.format, &account.name);
            self.see(row, seen.clone());
        }
        for entry in &listed.entries {
            let mut found = self.entry(entry);
            found.owner = Some(account.name.clone());
            found.see(format!("{seen}, {}", listed.format.host));
            self.add(found);
        }
    }

    fn entry(&mut self, entry: &Entry) -> Found {
        let unregistered = |name: &str| Found::new(Kind::Server, name, Standing::Unregistered);
        match &entry.how {
            How::Stdio(stdio) => self.started(&entry.name, stdio),
            How::Exeat(name) if self.names.contains(name) => {
                let mut found = Found::new(Kind::Server, name, Standing::Managed);
                found.registered = Some(name.clone());
                found.command = vec!["exeat".to_owned(), "run".to_owned(), name.clone()];
                found
            }
            How::Exeat(name) => {
                let mut found = unregistered(name);
                found.see("`exeat run` refuses it: no such server is in the register".to_owned());
                found
            }
            How::Remote(url) => self.remote(&entry.name, url),
            How::Other(why) => {
                let mut found = unregistered(&entry.name);
                found.see((*why).to_owned());
                found
            }
        }
    }

    /// A server that is started without Exeat.
    fn started(&mut self, name: &str, stdio: &Stdio) -> Found {
        let package = Package::of(&stdio.command, &stdio.args);
        let known = self
            .register
            .known(name, stdio)
            .or_else(|| self.register.runs(&package));
        let mut found = if let Some(server) = known {
            let mut found = Found::new(Kind::Server, &*server.name, Standing::Around);
            found.registered = Some(server.name.to_string());
            found
        } else {
            let name = self.register.name(name, stdio);
            let mut found = Found::new(Kind::Server, &name, Standing::Unregistered);
            found.proposed = Some(name);
            found
        };
        found.command = vec![stdio.command.clone()];
        found.command.extend(masked_arguments(&stdio.args));
        found.package = Some(package);
        found
    }

    /// A server at a URL.
    fn remote(&mut self, name: &str, url: &str) -> Found {
        let mut found = if let Some(server) = self.register.at(url) {
            let mut found = Found::new(Kind::Server, &*server.name, Standing::Managed);
            found.registered = Some(server.name.to_string());
            found
        } else {
            let proposed = self.register.remote(name, url);
            let name = proposed.as_deref().unwrap_or(name);
            let mut found = Found::new(Kind::Server, name, Standing::Unregistered);
            found.proposed = proposed;
            found
        };
        found.url = Some(masked_url(url));
        found
    }

    /// What runs; `cgroup` is the name of Exeat's own.
    pub fn processes(&mut self, all: &[Running], cgroup: &str) {
        let subjects = self.set.map(subjects).unwrap_or_default();
        for running in all {
            let pid = running.process.pid;
            let above = self.of_process.get(&running.process.parent).copied();
            let row = if pid == std::process::id() {
                None
            } else if let Some((name, number)) = workload(running, cgroup) {
                Some(match name.strip_suffix(SUFFIX) {
                    Some(host) => self.isolated(running, above, host),
                    None => self.workload_row(running, name, number),
                })
            } else if let Some(subject) = matched(&subjects, running, &self.containers) {
                Some(self.subject_row(running, subject))
            } else {
                self.stranger(running, above)
            };
            if let Some(row) = row.or(above) {
                self.of_process.insert(pid, row);
            }
        }
    }

    /// A process that no policy means.
    fn stranger(&mut self, running: &Running, above: Option<usize>) -> Option<usize> {
        let parent = above
            .and_then(|row| self.found.get(row))
            .map(|found| found.kind);
        if let Some(format) = running.host() {
            let row = self.host_row(format, &running.user);
            if above != Some(row) {
                self.ran(row, running);
                let script = script(running);
                let matched = Matched {
                    exe: running.process.exe.clone(),
                    script,
                    user: running.user.clone(),
                };
                let unregistered = self.standing(row) == Some(Standing::Unregistered);
                if unregistered
                    && let Some(name) = self.register.host(format.id, matched)
                    && let Some(found) = self.found.get_mut(row)
                {
                    found.proposed = Some(name);
                }
            }
            return Some(row);
        }
        if parent == Some(Kind::Server) {
            // A launcher's child is the server itself, or what the server started.
            let row = above?;
            self.found.get_mut(row)?.pids.push(running.process.pid);
            return Some(row);
        }
        if !running.piped || is_exeat(running) {
            return None;
        }
        let known =
            self.row_of(running).is_some() || self.register.runs(&running.package).is_some();
        let child = above
            .and_then(|row| self.found.get(row))
            .is_some_and(|host| {
                Format::named(&host.name).is_some_and(|format| format.children == Children::Servers)
            });
        (known || child || running.package.is_mcp()).then(|| self.server_row(running))
    }

    /// The row of what a process runs, where there is one.
    fn row_of(&self, running: &Running) -> Option<usize> {
        self.found.iter().position(|found| {
            found.kind == Kind::Server
                && found.owner.as_ref() == Some(&running.user)
                && found
                    .package
                    .as_ref()
                    .is_some_and(|package| package.is(&running.package))
        })
    }

    fn server_row(&mut self, running: &Running) -> usize {
        let row = self.row_of(running).unwrap_or_else(|| {
            let found = self.started(&title(&running.package), &launch_of(running));
            self.push(found, &running.user)
        });
        self.ran(row, running);
        row
    }

    fn ran(&mut self, row: usize, running: &Running) {
        let Some(found) = self.found.get_mut(row) else {
            return;
        };
        found.pids.push(running.process.pid);
        if found.command.is_empty() {
            found.command = masked_arguments(&words(running));
        }
        found.see(format!(
            "process {} `{}`",
            running.process.pid, running.process.exe
        ));
    }

    fn workload_row(&mut self, running: &Running, name: &str, number: &str) -> usize {
        let host = self
            .set
            .and_then(|set| set.hosts().find(|host| file_name(&host.name) == name));
        let server = self.names.iter().find(|server| file_name(server) == name);
        let (kind, shown) = match (host, server) {
            (Some(host), None) => (Kind::Host, host.name.to_string()),
            (_, server) => (
                Kind::Server,
                server.cloned().unwrap_or_else(|| name.to_owned()),
            ),
        };
        self.managed_row(running, kind, &shown, format!("workload {number}"))
    }

    fn subject_row(&mut self, running: &Running, subject: &Subject) -> usize {
        let kind = match subject.kind {
            channel::Kind::Host => Kind::Host,
            channel::Kind::Server | channel::Kind::Unregistered => Kind::Server,
        };
        self.managed_row(
            running,
            kind,
            &subject.name,
            "the policy's `match`".to_owned(),
        )
    }

    fn managed_row(&mut self, running: &Running, kind: Kind, name: &str, why: String) -> usize {
        let same = |found: &Found| {
            found.kind == kind
                && found.name == name
                && found.standing == Standing::Managed
                && found.owner.as_ref() == Some(&running.user)
        };
        let row = self.found.iter().position(same).unwrap_or_else(|| {
            let mut found = Found::new(kind, name, Standing::Managed);
            found.registered = Some(name.to_owned());
            self.push(found, &running.user)
        });
        let first = self
            .found
            .get(row)
            .is_some_and(|found| found.pids.is_empty());
        if first {
            self.ran(row, running);
        } else if let Some(found) = self.found.get_mut(row) {
            found.pids.push(running.process.pid);
        }
        self.see(row, why);
        row
    }

    /// What listens and belongs to what was found, or is a server by its name.
    pub fn listeners(&mut self, all: &[Running], sockets: &[Listening]) {
        for socket in sockets {
            let running = all
                .iter()
                .find(|running| running.sockets.contains(&socket.inode));
            let row = running
                .and_then(|running| self.of_process.get(&running.process.pid).copied())
                .filter(|row| {
                    self.found
                        .get(*row)
                        .is_some_and(|found| found.kind == Kind::Server)
                })
                .or_else(|| self.reached_at(socket.address))
                .or_else(|| self.listed_at(socket.address, running));
            let named = running.filter(|running| running.package.is_mcp() && !is_exeat(running));
            let row = row.or_else(|| named.map(|running| self.listening_row(running, socket)));
            if let (Some(row), Some(running)) = (row, running) {
                self.of_process.insert(running.process.pid, row);
            }
            if let Some(found) = row.and_then(|row| self.found.get_mut(row)) {
                found.listens.insert(socket.address);
                found.see(format!("listens on {}", socket.address));
            }
        }
    }

    /// The row whose URL leads to a socket of this machine.
    fn reached_at(&self, address: SocketAddr) -> Option<usize> {
        self.found.iter().position(|found| {
            let Some(url) = &found.url else { return false };
            let Some(authority) = url
                .split("://")
                .nth(1)
                .and_then(|rest| rest.split('/').next())
            else {
                return false;
            };
            let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
            let local = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
            local && port == address.port().to_string()
        })
    }

    /// The row of a server whose `listen` in the policy is this.
    fn listed_at(&mut self, address: SocketAddr, running: Option<&Running>) -> Option<usize> {
        let server = self.set?.servers().find(|server| match &server.transport {
            Transport::Listen(endpoint) => endpoint.to_string() == address.to_string(),
            Transport::Launch(_) | Transport::Url(_) => false,
        })?;
        let mut found = Found::new(Kind::Server, &*server.name, Standing::Managed);
        found.registered = Some(server.name.to_string());
        found
            .pids
            .extend(running.map(|running| running.process.pid));
        let user = running.map_or("-", |running| running.user.as_str());
        Some(self.push(found, user))
    }

    fn listening_row(&mut self, running: &Running, socket: &Listening) -> usize {
        let matched = Matched {
            exe: running.process.exe.clone(),
            script: script(running),
            user: running.user.clone(),
        };
        let address = socket.reached().to_string();
        let name = self
            .register
            .listening(&title(&running.package), &address, &matched);
        let mut found = Found::new(Kind::Server, &name, Standing::Unregistered);
        found.proposed = Some(name);
        found.package = Some(running.package.clone());
        let row = self.push(found, &running.user);
        self.ran(row, running);
        row
    }

    /// What a listener said when it was asked.
    pub fn spoken(&mut self, all: &[Running], socket: &Listening, spoken: &Spoken) {
        let url = format!("http://{}{}", socket.reached(), spoken.path);
        let at = self
            .found
            .iter()
            .position(|found| found.listens.contains(&socket.address));
        let running = all
            .iter()
            .find(|running| running.sockets.contains(&socket.inode));
        let running = running.filter(|_| self.register.at(&url).is_none());
        let row = at.unwrap_or_else(|| {
            if let Some(running) = running {
                return self.listening_row(running, socket);
            }
            let name = spoken.name.as_deref().unwrap_or("server");
            let found = self.remote(name, &url);
            self.push(found, "-")
        });
        if let Some(found) = self.found.get_mut(row) {
            found.listens.insert(socket.address);
            found.see(format!("answers MCP at {url}"));
            found.url.get_or_insert(url);
        }
    }

    /// A record of the audit log that tells of something unregistered.
    pub fn record(&mut self, line: &str) {
        let Ok(record) = serde_json::from_str::<Value>(line) else {
            return;
        };
        let text = |path: &str| {
            record
                .pointer(path)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let who = text("/workload/name")
            .or_else(|| text("/identity/user"))
            .unwrap_or_default();
        if self.bare(&record) {
            return;
        }
        let what = match text("/http/name") {
            Some(name) => {
                let port = record
                    .pointer("/http/port")
                    .and_then(Value::as_u64)
                    .unwrap_or(443);
                let path = text("/http/path").unwrap_or_default();
                let path = path.split('?').next().unwrap_or_default();
                let (scheme, port) = match port {
                    443 => ("https", String::new()),
                    80 => ("http", String::new()),
                    port => ("https", format!(":{port}")),
                };
                format!("{scheme}://{name}{port}{path}")
            }
            None => return,
        };
        let time = text("/time").unwrap_or_default();
        let seen = self.traffic.entry((what, who)).or_default();
        *seen = (
            seen.0.saturating_add(1),
            time.max(std::mem::take(&mut seen.1)),
        );
    }

    fn refused(&mut self) {
        for ((what, who), (count, last)) in std::mem::take(&mut self.traffic) {
            let mut found = if what.contains("://") {
                let host = what.split("://").nth(1).unwrap_or_default();
                let host = host.split(['/', ':']).next().unwrap_or_default().to_owned();
                self.remote(&host, &what)
            } else {
                let name = title(&Package::Program(what.clone()));
                let mut found = Found::new(Kind::Server, name, Standing::Unregistered);
                found.command = vec![what];
                found
            };
            // What the register has by now is no news.
            if found.registered.is_none() {
                found.see(format!("refused to `{who}` {count} times, last at {last}"));
                self.add(found);
            }
        }
    }

    /// Everything, with what each may reach and an entry for what the register lacks.
    pub fn finish(mut self) -> Inventory {
        self.refused();
        self.told();
        let servers = self.register.proposals();
        let hosts = self.register.host_proposals();
        for found in &mut self.found {
            let of = if found.kind == Kind::Host {
                &hosts
            } else {
                &servers
            };
            let proposal = of
                .iter()
                .find(|of| Some(&of.name) == found.proposed.as_ref());
            found.entry = proposal.map(|proposal| proposal.yaml.clone());
            found.reaches = reaches(self.set, found);
            found.fetches = fetches(self.set, found);
            found.pids.sort_unstable();
            found.pids.dedup();
        }
        self.found.sort_by(|a, b| {
            let key = |found: &Found| (found.standing, found.name.clone(), found.owner.clone());
            key(a).cmp(&key(b))
        });
        Inventory {
            entries: document(&servers, &hosts),
            found: self.found,
            notes: self.notes,
        }
    }

    fn host_row(&mut self, format: &'static Format, owner: &str) -> usize {
        let at = self.found.iter().position(|found| {
            found.kind == Kind::Host
                && found.name == format.id
                && found.owner.as_deref() == Some(owner)
        });
        at.unwrap_or_else(|| {
            let held = self
                .set
                .and_then(|set| set.hosts().find(|host| is_host(host, format)));
            let standing = held.map_or(Standing::Unregistered, |_| Standing::Managed);
            let mut found = Found::new(Kind::Host, format.id, standing);
            found.registered = held.map(|host| host.name.to_string());
            self.push(found, owner)
        })
    }

    fn standing(&self, row: usize) -> Option<Standing> {
        self.found.get(row).map(|found| found.standing)
    }

    fn see(&mut self, row: usize, sentence: String) {
        if let Some(found) = self.found.get_mut(row) {
            found.see(sentence);
        }
    }

    fn push(&mut self, mut found: Found, owner: &str) -> usize {
        found.owner = Some(owner.to_owned()).filter(|owner| owner != "-");
        self.found.push(found);
        self.found.len().saturating_sub(1)
    }

    /// Adds what may be there already.
    fn add(&mut self, found: Found) {
        let same = |other: &&mut Found| {
            (
                other.kind,
                &other.name,
                &other.owner,
                &other.command,
                &other.url,
                other.standing,
            ) == (
                found.kind,
                &found.name,
                &found.owner,
                &found.command,
                &found.url,
                found.standing,
            )
        };
        if let Some(other) = self.found.iter_mut().find(same) {
            for sentence in found.seen {
                other.see(sentence);
            }
            return;
        }
        self.found.push(found);
    }
}

/// The workload of Exeat's that a process is in: name and number, as its cgroup is called.
fn workload<'r>(running: &'r Running, cgroup: &str) -> Option<(&'r str, &'r str)> {
    let path = running.cgroup.as_deref()?;
    let below = path
        .strip_prefix('/')?
        .strip_prefix(cgroup)?
        .strip_prefix("/w/")?;
    below.split('/').next()?.rsplit_once('-')
}

/// Whether a host of the policy is one of a known kind, by its executable.
fn is_host(host: &Host, format: &Format) -> bool {
    let exe = host
        .matcher
        .as_ref()
        .and_then(|matcher| matcher.exe.as_deref());
    let name = exe
        .and_then(|exe| Path::new(exe).file_name())
        .and_then(|name| name.to_str());
    *host.name == *format.id || name.is_some_and(|name| format.executables.contains(&name))
}

fn is_exeat(running: &Running) -> bool {
    Path::new(&running.process.exe)
        .file_name()
        .is_some_and(|name| name == "exeat")
}

/// The script that an interpreter runs.
fn script(running: &Running) -> Option<String> {
    let first = running.process.args.get(1)?;
    let interpreter =
        !matches!(&running.package, Package::Program(path) if *path == running.process.exe);
    (interpreter && first.starts_with('/')).then(|| first.clone())
}

fn words(running: &Running) -> Vec<String> {
    let rest = running.process.args.iter().skip(1).cloned();
    [running.process.exe.clone()]
        .into_iter()
        .chain(rest)
        .collect()
}

/// How the register would start what runs.
fn launch_of(running: &Running) -> Stdio {
    let args = &running.process.args;
    let fetched = |at: &usize| args.get(*at).is_some_and(|arg| arg.contains("/_npx/"));
    let (command, args) = match &running.package {
        Package::Npm(name) if args.len() == 1 || fetched(&1) => {
            let own = args.get(2..).unwrap_or_default().iter().cloned();
            let package = ["-y".to_owned(), name.clone()];
            ("npx".to_owned(), package.into_iter().chain(own).collect())
        }
        _ => {
            let rest = args.get(1..).unwrap_or_default();
            (running.process.exe.clone(), rest.to_vec())
        }
    };
    Stdio {
        command,
        args,
        env: Vec::new(),
    }
}

/// A name for what has none of its own.
fn title(package: &Package) -> String {
    const PLAIN: [&str; 6] = ["index", "main", "server", "cli", "dist", "bin"];
    let parts = package
        .name()
        .rsplit('/')
        .map(|part| part.split('.').next().unwrap_or(part));
    let mut parts = parts.filter(|part| !part.is_empty());
    let told = parts.clone().find(|part| !PLAIN.contains(part));
    told.or_else(|| parts.next()).unwrap_or("server").to_owned()
}
