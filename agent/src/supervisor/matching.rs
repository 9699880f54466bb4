//! Which processes, started by others, belong to a server or a host.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use exeat_policy::{Matcher, PolicySet, Process as Known};

use super::accounts::name_of;
use crate::channel::{Kind, Process};

/// Longest first line of a script that the kernel reads (`BINPRM_BUF_SIZE`).
const SHEBANG: u64 = 256;
/// Where `env` looks without a `PATH` of its own.
const PATH: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin"];

/// A server or host that names processes.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(super) matcher: Matcher,
}

/// Everything in the register that names processes, servers first, in the order of names.
pub(crate) fn subjects(set: &PolicySet) -> Vec<Subject> {
    let subject = |name: &str, kind, matcher: &Option<Matcher>| {
        matcher.clone().map(|matcher| Subject {
            name: name.to_owned(),
            kind,
            matcher,
        })
    };
    let servers = set
        .servers()
        .filter_map(|s| subject(&s.name, Kind::Server, &s.matcher));
    let hosts = set
        .hosts()
        .filter_map(|h| subject(&h.name, Kind::Host, &h.matcher));
    servers.chain(hosts).collect()
}

impl Subject {
    /// Whether its processes are containers that carry labels.
    pub(super) fn is_labelled(&self) -> bool {
        !self.matcher.container.is_empty()
    }

    /// Whether a container with these labels is meant.
    pub(super) fn is_carried_by(&self, labels: &BTreeMap<String, String>) -> bool {
        let asked = &self.matcher.container;
        !asked.is_empty() && asked.iter().all(|label| label.is_among(labels))
    }

    /// Whether it is whole cgroups that are meant, which may appear at any time.
    pub(super) fn is_of_cgroups(&self) -> bool {
        let matcher = &self.matcher;
        matcher.unit.is_some() || matcher.cgroup.is_some() || self.is_labelled()
    }

    /// The cgroups below `root` that are this subject as a whole: by path, or found by unit.
    pub(super) fn cgroups(&self, root: &Path) -> Vec<PathBuf> {
        let matcher = &self.matcher;
        // More conditions than the cgroup's name: looked at process by process.
        if matcher.exe.is_some() || !matcher.user.is_empty() || matcher.sha256.is_some() {
            return Vec::new();
        }
        let below = |path: &str| root.join(path.trim_start_matches('/'));
        match (&matcher.cgroup, &matcher.unit) {
            (Some(path), None) => {
                let path = below(path);
                if path.is_dir() {
                    vec![path]
                } else {
                    Vec::new()
                }
            }
            (cgroup, Some(unit)) => {
                let top = cgroup.as_deref().map_or_else(|| root.to_owned(), below);
                let mut found = Vec::new();
                find_unit(&top, unit, 6, &mut found);
                found
            }
            (None, None) => Vec::new(),
        }
    }

    /// The file whose execution has to be looked at: the executable, or what runs it. None where none is named, and
    /// while it is not there.
    ///
    /// # Errors
    /// It is there and cannot be identified: its execution would not be seen.
    pub(super) fn executable(&self) -> io::Result<Option<exeat_ebpf::File>> {
        let Some(exe) = self.matcher.exe.as_deref().map(Path::new) else {
            return Ok(None);
        };
        let interpreter = interpreter(exe);
        match exeat_ebpf::identify(interpreter.as_deref().unwrap_or(exe)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a process is meant. `hash` is called only where the policy asks for a hash and all else fits.
    pub(crate) fn matches(
        &self,
        process: &Process,
        cgroup: Option<&str>,
        hash: &mut dyn FnMut() -> Option<[u8; 32]>,
    ) -> bool {
        if self.matcher.sha256.is_none() {
            return self.fits(process, cgroup, None);
        }
        let without = Self {
            matcher: Matcher {
                sha256: None,
                ..self.matcher.clone()
            },
            ..self.clone()
        };
        without.fits(process, cgroup, None)
            && hash().is_some_and(|sha256| self.fits(process, cgroup, Some(sha256)))
    }

    /// Whether a process may be meant of which no argument is known.
    pub(super) fn may_match(&self, process: &Process, cgroup: Option<&str>) -> bool {
        let exe = self.matcher.exe.as_deref().map(Path::new);
        let interpreted = exe.and_then(interpreter).is_some_and(|interpreter| {
            fs::canonicalize(interpreter).is_ok_and(|found| found == Path::new(&process.exe))
        });
        let without = Self {
            matcher: Matcher {
                exe: if interpreted {
                    Some(process.exe.clone())
                } else {
                    self.matcher.exe.clone()
                },
                args: Vec::new(),
                sha256: None,
                ..self.matcher.clone()
            },
            ..self.clone()
        };
        without.fits(process, cgroup, None)
    }

    fn fits(&self, process: &Process, cgroup: Option<&str>, sha256: Option<[u8; 32]>) -> bool {
        let user = name_of(process.uid).unwrap_or_else(|| process.uid.to_string());
        let unit = cgroup.and_then(unit_of);
        let given = |exe: &str, skip: usize| {
            let known = Known {
                unit,
                cgroup,
                exe: Some(exe),
                args: process.args.get(skip..).unwrap_or_default(),
                sha256: sha256.as_ref(),
                user: Some(&user),
            };
            self.matcher.matches(&known)
        };
        let exe = self.matcher.exe.as_deref();
        let same_file = exe.is_some_and(|exe| {
            fs::canonicalize(exe).is_ok_and(|found| found == Path::new(&process.exe))
        });
        // A link to the executable is the executable; a script is what its interpreter runs.
        given(
            if same_file {
                exe.unwrap_or_default()
            } else {
                &process.exe
            },
            1,
        ) || exe.is_some_and(|exe| is_script(exe, process) && given(exe, 2))
    }
}

/// Whether `process` runs the script `exe`: its interpreter with the script as first argument.
fn is_script(exe: &str, process: &Process) -> bool {
    let Some(interpreter) = interpreter(Path::new(exe)) else {
        return false;
    };
    let Some(script) = process.args.get(1) else {
        return false;
    };
    let same = |a: &Path, b: &Path| {
        fs::canonicalize(a).is_ok_and(|a| fs::canonicalize(b).is_ok_and(|b| a == b))
    };
    let directory = PathBuf::from(format!("/proc/{}/cwd", process.pid));
    same(&interpreter, Path::new(&process.exe)) && same(Path::new(exe), &directory.join(script))
}

/// What the kernel, or `env`, runs for a script.
fn interpreter(script: &Path) -> Option<PathBuf> {
    let mut head = Vec::new();
    File::open(script)
        .ok()?
        .take(SHEBANG)
        .read_to_end(&mut head)
        .ok()?;
    let line = head.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_ascii_whitespace();
    let program = PathBuf::from(words.next()?);
    if program.file_name()? != "env" {
        return Some(program);
    }
    let name = words.find(|word| !word.starts_with('-') && !word.contains('='))?;
    PATH.iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.is_file())
}

/// Looks for the directory of a unit; systemd nests slices.
fn find_unit(directory: &Path, unit: &str, depth: u32, found: &mut Vec<PathBuf>) {
    let Some(depth) = depth.checked_sub(1) else {
        return;
    };
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name() == *unit {
            found.push(path);
        } else if entry.file_name().to_string_lossy().ends_with(".slice") {
            find_unit(&path, unit, depth, found);
        }
    }
}

/// The unit in a cgroup's path: the innermost part that is a service or scope.
fn unit_of(cgroup: &str) -> Option<&str> {
    let unit = |part: &&str| {
        part.rsplit_once('.')
            .is_some_and(|(_, suffix)| matches!(suffix, "service" | "scope"))
    };
    cgroup.rsplit('/').find(unit)
}

/// The cgroup2 path of a process.
pub(crate) fn cgroup_of(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("0::"))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use exeat_policy::Glob;

    use super::*;

    fn subject(matcher: Matcher) -> Subject {
        Subject {
            name: "s".into(),
            kind: Kind::Server,
            matcher,
        }
    }

    fn process(exe: &str, args: &[&str]) -> Process {
        Process {
            workload: 0,
            pid: std::process::id(),
            parent: 1,
            started: 1,
            uid: 0,
            exe: exe.into(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            sha256: None,
        }
    }

    fn plain(subject: &Subject, process: &Process, cgroup: Option<&str>) -> bool {
        subject.matches(process, cgroup, &mut || None)
    }

    #[test]
    fn an_executable_matches_by_the_file_and_not_by_what_it_calls_itself() {
        let shell = fs::canonicalize("/bin/sh").unwrap();
        let matcher = Matcher {
            exe: Some("/bin/sh".into()),
            ..Matcher::default()
        };
        let subject = subject(matcher);
        let real = shell.to_str().unwrap();
        assert!(plain(&subject, &process(real, &["anything"]), None));
        assert!(!plain(
            &subject,
            &process("/usr/bin/env", &["/bin/sh"]),
            None
        ));
        let file = exeat_ebpf::identify(&shell).unwrap();
        assert_eq!(subject.executable().unwrap(), Some(file));
    }

    #[test]
    fn a_script_is_found_behind_its_interpreter() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("tool");
        fs::write(&script, "#!/usr/bin/env sh\n").unwrap();
        let exe = script.to_str().unwrap().to_owned();
        let subject = subject(Matcher {
            exe: Some(exe.clone()),
            ..Matcher::default()
        });
        let shell = fs::canonicalize("/bin/sh").unwrap();
        let shell = shell.to_str().unwrap();
        assert!(plain(&subject, &process(shell, &["sh", &exe, "-v"]), None));
        assert!(!plain(
            &subject,
            &process(shell, &["sh", "/etc/passwd"]),
            None
        ));
        assert!(!plain(
            &subject,
            &process("/usr/bin/env", &["sh", &exe]),
            None
        ));
        assert!(subject.executable().unwrap().is_some());
    }

    #[test]
    fn a_hash_is_taken_only_where_it_is_asked_for() {
        let exe = "/nonexistent/exe";
        let asks = Matcher {
            exe: Some(exe.into()),
            sha256: Some([7; 32]),
            ..Matcher::default()
        };
        let (asks, process) = (subject(asks), process(exe, &["exe"]));
        assert!(asks.matches(&process, None, &mut || Some([7; 32])));
        assert!(!asks.matches(&process, None, &mut || Some([8; 32])));
        assert!(!asks.matches(&process, None, &mut || None));
        let mut other = process.clone();
        other.exe = "/nonexistent/other".into();
        assert!(!asks.matches(&other, None, &mut || panic!(
            "what does not fit is not hashed"
        )));
        let free = subject(Matcher {
            exe: Some(exe.into()),
            ..Matcher::default()
        });
        assert!(free.matches(&process, None, &mut || panic!("not asked for")));
    }

    #[test]
    fn what_cannot_be_read_may_be_whatever_else_fits() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("tool");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        let shell = fs::canonicalize("/bin/sh").unwrap();
        let (shell, script) = (shell.to_str().unwrap(), script.to_str().unwrap());
        let of = |exe: &str| {
            subject(Matcher {
                exe: Some(exe.into()),
                args: vec![Glob::parse("serve").unwrap()],
                sha256: Some([7; 32]),
                ..Matcher::default()
            })
        };
        let unread = process(shell, &[]);
        assert!(of("/bin/sh").may_match(&unread, None));
        assert!(of(script).may_match(&unread, None));
        assert!(!of("/usr/bin/env").may_match(&unread, None));
        assert!(!plain(&of("/bin/sh"), &unread, None));
    }

    #[test]
    fn units_are_found_in_slices_and_in_paths() {
        let root = tempfile::tempdir().unwrap();
        let unit = root
            .path()
            .join("system.slice/system-x.slice/inventory.service");
        fs::create_dir_all(&unit).unwrap();
        fs::create_dir_all(root.path().join("other/inventory.service")).unwrap();
        let by_unit = subject(Matcher {
            unit: Some("inventory.service".into()),
            ..Matcher::default()
        });
        assert_eq!(by_unit.cgroups(root.path()), [unit]);
        let by_path = subject(Matcher {
            cgroup: Some("/other".into()),
            ..Matcher::default()
        });
        assert_eq!(by_path.cgroups(root.path()), [root.path().join("other")]);
        let absent = subject(Matcher {
            cgroup: Some("/absent".into()),
            ..Matcher::default()
        });
        assert!(absent.cgroups(root.path()).is_empty());
        assert_eq!(unit_of("/system.slice/a.service/sub"), Some("a.service"));
        assert_eq!(unit_of("/user.slice"), None);
        assert!(cgroup_of(std::process::id()).is_some());
    }
}
