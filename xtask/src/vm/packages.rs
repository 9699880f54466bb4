//! Kernels as distributions pack them: found by apt, unpacked into the cache, never installed.
//!
//! The archive is the machine's own; of a Debian archive suites older and newer than the machine's are read as well,
//! from lists that are kept apart from the machine's.

use crate::{fixtures, shell};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines of kernels that are tried, each with the suite of Debian that has it. The first is Ubuntu's: it is tried
/// where the machine's own lists offer it.
const LINES: [(&str, Option<&str>); 4] = [
    ("5.15", None),
    ("6.1", Some("bookworm")),
    ("6.12", Some("trixie")),
    (NEWEST, Some("sid")),
];

/// What Debian's archive is signed with, as Debian installs it.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Whatever is the highest version.
const NEWEST: &str = "newest";

/// How packages of images are called.
const IMAGE: &str = "linux-image-";

/// Flavours of images that are no general kernels.
const SPECIAL: [&str; 4] = ["-cloud-", "-rt-", "-dbg", "-unsigned"];

/// An unpacked kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    /// `uname -r`.
    pub(super) version: String,
    /// The image.
    pub(super) image: PathBuf,
    /// The folder of its modules.
    pub(super) modules: PathBuf,
}

/// Where everything is kept between runs.
pub(super) fn cache() -> Result<PathBuf> {
    let cache = fixtures::cache()?.join("vm");
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    Ok(cache)
}

/// The kernel whose packages lie in `folder`.
pub(super) fn given(cache: &Path, folder: &Path) -> Result<Kernel> {
    let name = folder.file_name().and_then(|name| name.to_str());
    let target = cache.join("given").join(name.context("name the folder")?);
    if target.exists() {
        fs::remove_dir_all(&target).with_context(|| format!("remove {}", target.display()))?;
    }
    let mut found = false;
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry.context("list packages")?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            unpack(&path, &target)?;
            found = true;
        }
    }
    if !found {
        bail!("{} holds no package (*.deb)", folder.display());
    }
    kernel(&target)
}

/// The kernels that apt offers, of these lines (none: of all).
pub(super) fn offered(cache: &Path, only: &[String]) -> Result<Vec<Kernel>> {
    for wanted in only {
        if !LINES.iter().any(|(line, _)| line == wanted) {
            let lines = LINES.map(|(line, _)| line).join(", ");
            bail!("no line `{wanted}`; there are: {lines}");
        }
    }
    let apt = Apt::open(cache)?;
    let lines = || {
        let all = LINES.into_iter();
        all.filter(|(line, _)| only.is_empty() || only.iter().any(|wanted| wanted == line))
    };
    let mut names = apt.names(IMAGE)?;
    let mut best_ones = lines().filter_map(|(line, _)| best(&names, line));
    // Lists are fetched anew when something of them is, lest they name what is there no longer.
    if names.is_empty() || !best_ones.all(|image| done(&place(cache, image))) {
        apt.update()?;
        names = apt.names(IMAGE)?;
    }
    let mut kernels = Vec::new();
    for (line, suite) in lines() {
        match best(&names, line) {
            Some(image) => kernels.push(apt.kernel(cache, image)?),
            None if suite.is_none() || apt.sources.is_none() => shell::say(&format!(
                "no {line} in this machine's package lists; name its packages with --packages"
            )),
            None => bail!("no kernel of line {line} in the package lists"),
        }
    }
    Ok(kernels)
}

/// A statically linked busybox, for the guest's first moments.
pub(super) fn busybox(cache: &Path) -> Result<PathBuf> {
    let target = cache.join("busybox");
    if !done(&target) {
        let apt = Apt::open(cache)?;
        apt.fetch("busybox-static", &target)?;
    }
    let places = ["bin/busybox", "usr/bin/busybox"].map(|place| target.join(place));
    let found = places.into_iter().find(|place| place.is_file());
    found.context("find busybox in its package")
}

/// The image of the highest version in a line.
fn best<'a>(names: &'a [String], line: &str) -> Option<&'a str> {
    let of_line = |name: &&str| {
        let rest = name.strip_prefix(IMAGE).unwrap_or_default();
        let version = rest
            .strip_prefix(line)
            .is_some_and(|rest| rest.starts_with('.'));
        let general = !SPECIAL.iter().any(|special| name.contains(special));
        let flavour = name.ends_with("-amd64") || name.ends_with("-generic");
        let numbered = rest.starts_with(|first: char| first.is_ascii_digit());
        (version || line == NEWEST) && general && flavour && numbered
    };
    let names = names.iter().map(String::as_str).filter(of_line);
    names.max_by_key(|name| numbers(name))
}

/// The numbers of a version, by which it is compared.
fn numbers(name: &str) -> Vec<u64> {
    // Not the architecture's.
    let name = name.strip_suffix("-amd64").unwrap_or(name);
    name.split(|next: char| !next.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

/// Where a package of an image is unpacked.
fn place(cache: &Path, image: &str) -> PathBuf {
    cache.join("kernels").join(image)
}

/// apt, with lists of its own where the machine's archive is Debian's.
struct Apt {
    directory: PathBuf,
    sources: Option<PathBuf>,
}

impl Apt {
    /// Writes the sources.
    fn open(cache: &Path) -> Result<Self> {
        let directory = cache.join("apt");
        for folder in ["lists/partial", "cache"] {
            fs::create_dir_all(directory.join(folder)).context("make apt's folders")?;
        }
        let Some(archive) = debian()? else {
            return Ok(Self {
                directory,
                sources: None,
            });
        };
        let sources = directory.join("sources.list");
        let suites = LINES.iter().filter_map(|(_, suite)| *suite);
        let line = |suite| format!("deb [signed-by={KEYRING}] {archive} {suite} main\n");
        let text: String = suites.map(line).collect();
        fs::write(&sources, text).context("write apt's sources")?;
        Ok(Self {
            directory,
            sources: Some(sources),
        })
    }

    fn update(&self) -> Result<()> {
        shell::say("fetching lists of kernels");
        shell::run(self.command("apt-get").args(["update", "--quiet"]))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let Some(sources) = &self.sources else {
            return command;
        };
        let at = |name: &str| self.directory.join(name).display().to_string();
        for (option, value) in [
            ("Dir::Etc::SourceList", sources.display().to_string()),
            ("Dir::Etc::SourceParts", "/dev/null".to_owned()),
            ("Dir::State::Lists", at("lists")),
            ("Dir::Cache", at("cache")),
            // Neither translations nor pictures.
            ("Acquire::Languages", "none".to_owned()),
            (
                "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled",
                "false".to_owned(),
            ),
            // Files in the cache are root's.
            ("APT::Sandbox::User", "root".to_owned()),
        ] {
            command.arg("--option").arg(format!("{option}={value}"));
        }
        command
    }

    fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let output = self
            .command("apt-cache")
            .args(["pkgnames", prefix])
            .output()
            .context("start apt-cache")?;
        let text = String::from_utf8(output.stdout).context("read apt-cache's answer")?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Fetches an image with the modules that some distributions pack apart.
    fn kernel(&self, cache: &Path, image: &str) -> Result<Kernel> {
        let target = place(cache, image);
        if !done(&target) {
            let rest = image.trim_start_matches(IMAGE);
            let mut wanted = vec![image.to_owned()];
            for apart in ["linux-modules-", "linux-binary-", "linux-modules-extra-"] {
                let name = format!("{apart}{rest}");
                if self.names(&name)?.contains(&name) {
                    wanted.push(name);
                }
            }
            self.fetch(&wanted.join(" "), &target)?;
        }
        kernel(&target)
    }

    /// Fetches packages and unpacks them into `target`.
    fn fetch(&self, packages: &str, target: &Path) -> Result<()> {
        if target.exists() {
            fs::remove_dir_all(target).with_context(|| format!("remove {}", target.display()))?;
        }
        let folder = self.directory.join("cache/fetched");
        if folder.exists() {
            fs::remove_dir_all(&folder).context("remove old packages")?;
        }
        fs::create_dir_all(&folder).context("make a folder for packages")?;
        shell::say(&format!("fetching {packages}"));
        let mut get = self.command("apt-get");
        get.args(["download", "--quiet"]).args(packages.split(' '));
        shell::run(get.current_dir(&folder))?;
        for entry in fs::read_dir(&folder).context("list what was fetched")? {
            unpack(&entry.context("list what was fetched")?.path(), target)?;
        }
        fs::remove_dir_all(&folder).context("remove packages")?;
        fs::write(target.join(".complete"), "").context("mark what was fetched")
    }
}

/// Debian's archive as this machine's apt knows it.
fn debian() -> Result<Option<String>> {
    let format = "$(ORIGIN) $(COMPONENT) $(REPO_URI) $(RELEASE)";
    let targets = shell::output("apt-get", &["indextargets", "--format", format])
        .context("ask apt-get for this machine's sources")?;
    // The one without the security updates, which has every suite.
    Ok(targets.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (origin, component) = (fields.next()?, fields.next()?);
        let (uri, release) = (fields.next()?, fields.next()?);
        let whole = origin == "Debian" && component == "main" && !release.contains('-');
        whole.then(|| uri.to_owned())
    }))
}

/// An unpacking that was cut short has no mark.
fn done(directory: &Path) -> bool {
    directory.join(".complete").exists()
}

fn unpack(package: &Path, target: &Path) -> Result<()> {
    fs::create_dir_all(target).with_context(|| format!("create {}", target.display()))?;
    shell::run(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(package)
            .arg(target),
    )
}

fn kernel(unpacked: &Path) -> Result<Kernel> {
    let modules = ["lib/modules", "usr/lib/modules"]
        .into_iter()
        .find_map(|place| fs::read_dir(unpacked.join(place)).ok()?.next()?.ok())
        .with_context(|| format!("find modules in {}", unpacked.display()))?
        .path();
    let version = modules.file_name().and_then(|name| name.to_str());
    let version = version.context("read the kernel's version")?.to_owned();
    let images = [
        unpacked.join(format!("boot/vmlinuz-{version}")),
        modules.join("vmlinuz"),
    ];
    let image = images.into_iter().find(|image| image.is_file());
    Ok(Kernel {
        image: image.with_context(|| format!("find the image of {version}"))?,
        version,
        modules,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_general_kernel_of_a_line_is_taken() {
        let names = [
            "linux-image-amd64",
            "linux-image-6.1.0-9-amd64",
            "linux-image-6.1.0-53-amd64",
            "linux-image-6.1.0-54-cloud-amd64",
            "linux-image-6.1.0-54-amd64-dbg",
            "linux-image-6.12.100+deb13-amd64",
            "linux-image-7.2.1+deb14-amd64",
            "linux-image-7.10.1+deb14-rt-amd64",
            "linux-image-5.15.0-125-generic",
        ]
        .map(str::to_owned);
        for (line, wanted) in [
            ("5.15", Some("linux-image-5.15.0-125-generic")),
            ("6.1", Some("linux-image-6.1.0-53-amd64")),
            ("6.12", Some("linux-image-6.12.100+deb13-amd64")),
            (NEWEST, Some("linux-image-7.2.1+deb14-amd64")),
            ("6.6", None),
        ] {
            assert_eq!(best(&names, line), wanted, "{line}");
        }
    }
}
