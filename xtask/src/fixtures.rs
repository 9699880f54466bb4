//! Installs the servers, SDKs and suites that whole-system tests run against, once per set of lock files.
//!
//! What lies where under [`Fixtures::directory`] (`exeat_tests::fixtures` reads it):
//!
//! | path | content |
//! |---|---|
//! | `node/node_modules` | what `tests/fixtures/node/package-lock.json` pins, Node 20 and 22 among it |
//! | `node/scripts/<hash>/{servers,clients}` | copies of the project's own scripts, beside the packages that they import |
//! | `python`, `python-mcp1` | virtual environments of `requirements.txt` and `requirements-mcp1.txt` |
//! | `python-launchers` | that of `requirements-launchers.txt`: uvx and pipx |
//! | `python-mitmproxy` | made only when measurements ask for it |

use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::{setup, shell};

/// The system's Python. Not the first on the PATH: that of a version manager lies in somebody's home,
/// where the servers' users cannot go.
const PYTHON: &str = "/usr/bin/python3";

/// Programs that an installation needs, each with the Debian package that brings it.
const PROGRAMS: [(&str, &[&str], &str); 5] = [
    ("npm", &["--version"], "npm"),
    (PYTHON, &["-c", "import venv, ensurepip"], "python3-venv"),
    ("curl", &["--version"], "curl"),
    ("jq", &["--version"], "jq"),
    // Its daemon; tests start one of their own.
    (
        "sh",
        &["-c", "PATH=/usr/sbin:/usr/bin:$PATH exec dockerd --version"],
        "docker.io",
    ),
];

/// Environments that every test run needs: name of the directory, name of the list.
const ENVIRONMENTS: [(&str, &str); 3] = [
    ("python", "requirements.txt"),
    ("python-mcp1", "requirements-mcp1.txt"),
    ("python-launchers", "requirements-launchers.txt"),
];

/// Where the installed fixtures are. The paths are what `EXEAT_FIXTURES` and
/// `EXEAT_FIXTURE_SCRIPTS` must name when a test binary is started.
#[derive(Debug, Clone)]
pub(crate) struct Fixtures {
    /// The installed packages.
    pub(crate) directory: PathBuf,
    /// The copies of `tests/fixtures/{servers,clients}`.
    pub(crate) scripts: PathBuf,
}

impl Fixtures {
    /// The variables that tell a test binary where the fixtures are.
    pub(crate) fn environment(&self) -> [(&'static str, &Path); 2] {
        [
            ("EXEAT_FIXTURES", &self.directory),
            ("EXEAT_FIXTURE_SCRIPTS", &self.scripts),
        ]
    }
}

/// `cargo xtask fixtures`: installs them, and prints the variables that a test binary needs to find them:
/// `eval "$(cargo xtask fixtures)"`, then `cargo test -p exeat-tests --test mcp NAME`.
pub(crate) fn print() -> Result<()> {
    setup::install(&missing(), "what fixtures are installed with")?;
    let installed = install(&shell::root()?, shell::say)?;
    for (name, path) in installed.environment() {
        writeln!(io::stdout(), "export {name}={}", path.display()).context("print")?;
    }
    Ok(())
}

/// Debian packages without which [`install`] cannot work; empty when nothing is missing.
pub(crate) fn missing() -> Vec<&'static str> {
    let works = |program: &str, arguments: &[&str]| {
        let status = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    };
    PROGRAMS
        .iter()
        .filter(|(program, arguments, _)| !works(program, arguments))
        .map(|(_, _, package)| *package)
        .collect()
}

/// Installs whatever the lock files under `root/tests/fixtures` name and is not there yet.
///
/// A second call with the same lock files does nothing but compare. Two calls at once wait for each
/// other. `say` gets one line for each step that takes time.
pub(crate) fn install(root: &Path, say: impl Fn(&str)) -> Result<Fixtures> {
    let sources = root.join("tests/fixtures");
    let directory = directory(&sources)?;
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let lock = File::create(directory.join("lock")).context("create the fixtures' lock")?;
    lock.lock().context("wait for another installation")?;
    let absent = missing();
    let node = directory.join("node");
    if !done(&node) {
        require(&absent)?;
        say("installing npm packages: about 30 s, 0.8 GB");
        packages(&sources.join("node"), &node)?;
    }
    for (name, list) in ENVIRONMENTS {
        if !done(&directory.join(name)) {
            require(&absent)?;
            say(&format!("installing Python packages of {list}: about 10 s"));
            environment(&sources.join("python").join(list), &directory.join(name))?;
        }
    }
    let scripts = scripts(&sources, &node)?;
    Ok(Fixtures { directory, scripts })
}

/// Installs mitmproxy for side-by-side measurements and returns `mitmdump`.
pub(crate) fn install_mitmproxy(root: &Path, say: impl Fn(&str)) -> Result<PathBuf> {
    let sources = root.join("tests/fixtures");
    let target = directory(&sources)?.join("python-mitmproxy");
    if !done(&target) {
        require(&missing())?;
        say("installing mitmproxy: about 20 s");
        environment(&sources.join("python/requirements-mitmproxy.txt"), &target)?;
    }
    Ok(target.join("bin/mitmdump"))
}

/// Finds HAProxy for side-by-side measurements.
pub(crate) fn haproxy() -> Result<PathBuf> {
    let program = Path::new("/usr/sbin/haproxy");
    if program.exists() {
        return Ok(program.to_owned());
    }
    bail!("measurements beside HAProxy need it; run: apt-get install -y haproxy")
}

fn require(absent: &[&str]) -> Result<()> {
    if absent.is_empty() {
        return Ok(());
    }
    bail!(
        "test fixtures need packages that are not installed; run: apt-get install -y {}",
        absent.join(" ")
    )
}

/// Where what tests fetch is kept.
///
/// The servers run as users without rights, so root's own home (0700) will not do: root keeps the
/// cache in /var/cache. `EXEAT_CACHE` overrides both.
pub(crate) fn cache() -> Result<PathBuf> {
    let shared = Path::new("/var/cache/exeat");
    if let Some(chosen) = env::var_os("EXEAT_CACHE") {
        return Ok(PathBuf::from(chosen));
    }
    if fs::create_dir_all(shared.join("fixtures")).is_ok() {
        return Ok(shared.to_owned());
    }
    let home = env::var_os("HOME").context("find a cache: neither /var/cache nor HOME")?;
    Ok(Path::new(&home).join(".cache/exeat"))
}

/// The cache's directory for these lock files.
fn directory(sources: &Path) -> Result<PathBuf> {
    let mut hash = Sha256::new();
    hash.update(PYTHON);
    for list in [
        "node/package.json",
        "node/package-lock.json",
        "python/requirements.txt",
        "python/requirements-mcp1.txt",
        "python/requirements-launchers.txt",
        "python/requirements-mitmproxy.txt",
    ] {
        let path = sources.join(list);
        hash.update(fs::read(&path).with_context(|| format!("read {}", path.display()))?);
    }
    Ok(cache()?.join("fixtures").join(short(hash)))
}

fn short(hash: Sha256) -> String {
    let mut text = String::new();
    for byte in hash.finalize().iter().take(8) {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}

/// An installation that was cut short has no mark and is made anew.
fn done(directory: &Path) -> bool {
    directory.join(".complete").exists()
}

fn finish(directory: &Path) -> Result<()> {
    fs::write(directory.join(".complete"), "").context("mark the installation complete")
}

fn afresh(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

fn packages(lists: &Path, target: &Path) -> Result<()> {
    afresh(target)?;
    fs::create_dir_all(target).with_context(|| format!("create {}", target.display()))?;
    for name in ["package.json", "package-lock.json"] {
        fs::copy(lists.join(name), target.join(name)).with_context(|| format!("copy {name}"))?;
    }
    // No package needs its install script, and none is trusted with one.
    let mut npm = Command::new("npm");
    npm.args([
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
    ]);
    run(npm.current_dir(target))?;
    finish(target)
}

fn environment(list: &Path, target: &Path) -> Result<()> {
    afresh(target)?;
    run(Command::new(PYTHON).args(["-m", "venv"]).arg(target))?;
    let pip = target.join("bin/pip");
    run(Command::new(pip)
        .args([
            "install",
            "--quiet",
            "--no-deps",
            "--disable-pip-version-check",
            "-r",
        ])
        .arg(list))?;
    finish(target)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    bail!(
        "{} ended with {}: {}{}",
        command.get_program().display(),
        output.status,
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    )
}

/// Copies the project's scripts beside the packages, where Node finds what they import.
fn scripts(sources: &Path, node: &Path) -> Result<PathBuf> {
    let mut files = Vec::new();
    for folder in ["servers", "clients"] {
        gather(&sources.join(folder), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    let mut contents = Vec::new();
    for file in &files {
        let content = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        let name = file.strip_prefix(sources).context("name a script")?;
        hash.update(name.as_os_str().as_encoded_bytes());
        hash.update(&content);
        contents.push((name, content));
    }
    let target = node.join("scripts").join(short(hash));
    if done(&target) {
        return Ok(target);
    }
    afresh(&target)?;
    for (name, content) in contents {
        let path = target.join(name);
        let parent = path.parent().context("find a script's folder")?;
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
    }
    finish(&target)?;
    Ok(target)
}

fn gather(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry.context("list scripts")?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "__pycache__") {
                gather(&path, files)?;
            }
        } else {
            files.push(path);
        }
    }
    Ok(())
}
