//! Which processes, started by others, belong to a server or a host.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
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
        let interpreted = exe
            .and_then(interpreter)
            .is_some_and(|interpreter| runs(process, &interpreter));
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
        let Some(exe) = self.matcher.exe.as_deref() else {
            return given(&process.exe, 1);
        };
        // A link to the executable is the executable; a script is what its interpreter runs.
        (runs(process, Path::new(exe)) && given(exe, 1))
            || (is_script(exe, process) && given(exe, 2))
    }
}

/// Whether a process executes this file. What its executable is called says nothing: in another mount namespace, such
/// as a container's, any file may have the name.
fn runs(process: &Process, file: &Path) -> bool {
    let image = PathBuf::from(format!("/proc/{}/exe", process.pid));
    is_same(&image, file)
}

/// Whether two paths lead to one file.
fn is_same(one: &Path, other: &Path) -> bool {
    let file = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    file(one).is_ok_and(|one| file(other).is_ok_and(|other| one == other))
}

/// Whether `process` runs the script `exe`: its interpreter with the script as first argument.
fn is_script(exe: &str, process: &Process) -> bool {
    let Some(interpreter) = interpreter(Path::new(exe)) else {
        return false;
    };
    let Some(script) = process.args.get(1).map(Path::new) else {
        return false;
    };
    // As the process sees it, whose root may be another.
    let within = if script.is_absolute() { "root" } else { "cwd" };
    let script = script.strip_prefix("/").unwrap_or(script);
    let script = PathBuf::from(format!("/proc/{}/{within}", process.pid)).join(script);
    runs(process, &interpreter) && is_same(Path::new(exe), &script)
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
    use std::process::{Child, Command, Stdio};

    use exeat_policy::Glob;

    use super::*;

    fn subject(matcher: Matcher) -> Subject {
        Subject {
            name: "s".into(),
            kind: Kind::Server,
            matcher,
        }
    }

    /// A program that waits for its standard input.
    struct Running(Child);

    impl Running {
        fn new(program: &str) -> Self {
            let mut command = Command::new(program);
            Self(command.stdin(Stdio::piped()).spawn().unwrap())
        }

        /// What is known of it, with these arguments.
        fn process(&self, args: &[&str]) -> Process {
            let pid = self.0.id();
            let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
            Process {
                workload: 0,
                pid,
                parent: 1,
                started: 1,
                uid: 0,
                exe: exe.to_str().unwrap().into(),
                args: args.iter().map(|&arg| arg.to_owned()).collect(),
                sha256: None,
            }
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            drop(self.0.stdin.take());
            self.0.wait().unwrap();
        }
    }

    fn plain(subject: &Subject, process: &Process, cgroup: Option<&str>) -> bool {
        subject.matches(process, cgroup, &mut || None)
    }

    #[test]
    fn an_executable_matches_by_the_file_and_not_by_what_it_calls_itself() {
        let matcher = Matcher {
            exe: Some("/bin/sh".into()),
            ..Matcher::default()
        };
        let subject = subject(matcher);
        let (shell, cat) = (Running::new("/bin/sh"), Running::new("/bin/cat"));
        let shell = shell.process(&["anything"]);
        assert!(plain(&subject, &shell, None));
        let mut other = cat.process(&["/bin/sh"]);
        assert!(!plain(&subject, &other, None));
        // So another mount namespace can name it.
        other.exe = shell.exe;
        assert!(!plain(&subject, &other, None));
        let file = exeat_ebpf::identify(Path::new("/bin/sh")).unwrap();
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
        let (shell, cat) = (Running::new("/bin/sh"), Running::new("/bin/cat"));
        let runs = |running: &Running, args: &[&str]| plain(&subject, &running.process(args), None);
        assert!(runs(&shell, &["sh", &exe, "-v"]));
        assert!(!runs(&shell, &["sh", "/etc/passwd"]));
        assert!(!runs(&shell, &["sh"]));
        assert!(!runs(&cat, &["sh", &exe]));
        assert!(subject.executable().unwrap().is_some());
    }

    #[test]
    fn a_hash_is_taken_only_where_it_is_asked_for() {
        let cat = Running::new("/bin/cat");
        let of = |exe: &str, sha256| {
            subject(Matcher {
                exe: Some(exe.into()),
                sha256,
                ..Matcher::default()
            })
        };
        let asks = of("/bin/cat", Some([7; 32]));
        let process = cat.process(&["cat"]);
        assert!(asks.matches(&process, None, &mut || Some([7; 32])));
        assert!(!asks.matches(&process, None, &mut || Some([8; 32])));
        assert!(!asks.matches(&process, None, &mut || None));
        let other = of("/bin/sh", Some([7; 32]));
        assert!(!other.matches(&process, None, &mut || panic!(
            "what does not fit is not hashed"
        )));
        let free = of("/bin/cat", None);
        assert!(free.matches(&process, None, &mut || panic!("not asked for")));
    }

    #[test]
    fn what_cannot_be_read_may_be_whatever_else_fits() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("tool");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        let script = script.to_str().unwrap();
        let of = |exe: &str| {
            subject(Matcher {
                exe: Some(exe.into()),
                args: vec![Glob::parse("serve").unwrap()],
                sha256: Some([7; 32]),
                ..Matcher::default()
            })
        };
        let shell = Running::new("/bin/sh");
        let unread = shell.process(&[]);
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
