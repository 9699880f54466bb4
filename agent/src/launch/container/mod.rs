//! `exeat internal container`: what a workload's first process does where the launcher is Docker. It is the register's
//! user, in the workload's cgroup and without capabilities, and has every byte that it fetches pass the gate.
//!
//! Docker's daemon fetches nothing and chooses nothing: an image that is not here is fetched by this process, and
//! handed over whole. Then this process becomes Docker's client, which has the container made within the workload.

mod archive;
mod client;
mod engine;
mod registry;

use std::convert::Infallible;
use std::env;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use exeat_policy::{Container, ContainerFault, Image};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use tokio::time::{sleep, timeout};

pub use self::client::HttpError;
use self::engine::Engine;
pub use self::engine::EngineError;
pub use self::registry::PullError;
use super::environment::{JAVA, TRUST};
use super::stage::container_profile;

/// Where Debian's and Alpine's images have their roots.
const SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";
/// How often it is looked whether a container was made yet.
const INTERVAL: Duration = Duration::from_millis(100);
/// How often, at most.
const LOOKS: u32 = 100;
/// How much earlier than the gate an image is given up, at most.
const MARGIN: Duration = Duration::from_secs(1);
/// The variable that says where Docker's daemon listens.
const HOST: &str = "DOCKER_HOST";

/// Why no container was started.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The arguments; the register's were examined before.
    #[error("{}", .0.message)]
    Arguments(ContainerFault),
    /// Where Docker's daemon listens.
    #[error("{0}")]
    Host(&'static str),
    /// A volume is not what its path says.
    #[error(
        "the volume `{0}` is not there for the server's user, or behind a link: name the directory that it leads to"
    )]
    Volume(String),
    /// A volume may be another when Docker's daemon looks for it.
    #[error("the volume `{volume}` may become another: `{}` has to be root's, and written to by root alone", at.display())]
    Movable {
        /// As it is written.
        volume: String,
        /// A directory above it.
        at: PathBuf,
    },
    /// There is no client.
    #[error("there is no program `{0}`")]
    Absent(String),
    /// Docker's client may be something else.
    #[error("`{program}` may be another program: `{}` has to be root's, and written to by root alone", at.display())]
    Foreign {
        /// As it is written.
        program: String,
        /// It, or a directory above it.
        at: PathBuf,
    },
    /// Nobody said whom to trust.
    #[error("no trust bundle was given: a container is started by the daemon alone")]
    NoTrust,
    /// Docker's daemon.
    #[error("asking Docker's daemon at `{}`", socket.display())]
    Engine {
        /// Where it listens.
        socket: PathBuf,
        /// Why.
        #[source]
        cause: EngineError,
    },
    /// The image could not be fetched.
    #[error("fetching the image `{image}`")]
    Pull {
        /// As it is written.
        image: String,
        /// Why.
        #[source]
        cause: PullError,
    },
    /// The profile for the container could not be handed over.
    #[error("handing over the refused system calls")]
    Profile(#[source] io::Error),
    /// Docker's client did not start.
    #[error("starting `{program}`")]
    Start {
        /// The client.
        program: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// What keeps a container where it belongs.
#[derive(Debug)]
pub struct Kept<'a> {
    /// The workload's cgroup, a path below the root of cgroups.
    pub cgroup: &'a str,
    /// By what Docker knows it.
    pub name: &'a str,
}

/// Has the image there, within `deadline` (`limits.fetch_deadline`), then becomes `program` (Docker's client). Returns only with an error.
pub async fn run(
    kept: &Kept<'_>,
    deadline: Duration,
    program: &str,
    arguments: &[String],
) -> Result<Infallible, ContainerError> {
    let container = Container::parse(arguments).map_err(ContainerError::Arguments)?;
    let client = client(program)?;
    let host = env::var(HOST).ok();
    let socket = Container::socket(host.as_deref()).map_err(ContainerError::Host)?;
    let bundle = env::var(TRUST[0]).map_err(|_absent| ContainerError::NoTrust)?;
    container.volumes.iter().try_for_each(|it| volume(it))?;
    let engine = Engine::new(socket);
    let asking = |cause| ContainerError::Engine {
        socket: socket.into(),
        cause,
    };
    engine.examine().await.map_err(asking)?;
    let image = &container.image;
    let found = match engine.image(&image.written).await.map_err(asking)? {
        None => engine.image(&image.kept_as()).await.map_err(asking)?,
        found => found,
    };
    let id = match found {
        Some(id) => id,
        None => pulled(image, &engine, Path::new(&bundle), deadline).await?,
    };
    let profile = profile(&container_profile()).map_err(ContainerError::Profile)?;
    let mut command = Command::new(client);
    command
        .arg0(program)
        // The user's own configuration may name another daemon, and programs of its own.
        .args(["--config", "/nonexistent", "--host"])
        .arg(format!("unix://{socket}"))
        .args(closed(kept, &profile))
        .args(&container.options)
        .args(user(&container))
        .args(trusted(&bundle))
        // What was looked at is what is started, whatever its name means by then.
        .arg(id)
        .args(&container.arguments);
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("DOCKER_") {
            command.env_remove(name);
        }
    }
    Err(ContainerError::Start {
        program: program.to_owned(),
        cause: command.exec(),
    })
}

async fn pulled(
    image: &Image,
    engine: &Engine,
    bundle: &Path,
    deadline: Duration,
) -> Result<String, ContainerError> {
    // Before the gate refuses what is still missing: only then is it clear why.
    let time = deadline.saturating_sub(MARGIN.min(deadline / 10));
    let pull = registry::pull(image, engine, bundle, deadline);
    let cause = match timeout(time, pull).await {
        Ok(Ok(id)) => return Ok(id),
        Ok(Err(error)) => error,
        Err(_late) => PullError::Late(deadline.as_secs()),
    };
    Err(ContainerError::Pull {
        image: image.written.clone(),
        cause,
    })
}

/// Where a program is that nobody but root can change: it is going to speak to Docker's daemon.
fn client(program: &str) -> Result<PathBuf, ContainerError> {
    let directories = env::var_os("PATH").unwrap_or_default();
    let found = if program.contains('/') {
        Some(PathBuf::from(program))
    } else {
        env::split_paths(&directories)
            .map(|directory| directory.join(program))
            .find(|path| path.is_file())
    };
    let found = found.and_then(|path| fs::canonicalize(path).ok());
    let found = found.ok_or_else(|| ContainerError::Absent(program.to_owned()))?;
    if let Some(at) = foreign(found.ancestors()) {
        return Err(ContainerError::Foreign {
            program: program.to_owned(),
            at: at.to_owned(),
        });
    }
    Ok(found)
}

/// Refuses what may be elsewhere than policy says when Docker's daemon, which is root, looks for it.
fn volume(written: &str) -> Result<(), ContainerError> {
    // It follows links that a server may have made, and goes where its user may not.
    let path = Path::new(written);
    if fs::canonicalize(path).ok().as_deref() != Some(path) {
        return Err(ContainerError::Volume(written.to_owned()));
    }
    // It looks later than this.
    match foreign(path.ancestors().skip(1)) {
        None => Ok(()),
        Some(at) => Err(ContainerError::Movable {
            volume: written.to_owned(),
            at: at.to_owned(),
        }),
    }
}

/// The first of these that others than root may change.
fn foreign<'a>(mut paths: impl Iterator<Item = &'a Path>) -> Option<&'a Path> {
    paths.find(|path| {
        let is_roots = |metadata: fs::Metadata| metadata.uid() == 0 && metadata.mode() & 0o022 == 0;
        !fs::metadata(path).is_ok_and(is_roots)
    })
}

/// Removes a container, running or not, if there is one. With `wait` it is looked for some time: where its client was
/// ended in the middle, Docker's daemon may make it yet.
pub async fn remove(name: &str, wait: bool) -> Result<(), ContainerError> {
    let host = env::var(HOST).ok();
    let socket = Container::socket(host.as_deref()).map_err(ContainerError::Host)?;
    let engine = Engine::new(socket);
    for _look in 0..LOOKS {
        let removed = engine.remove(name).await;
        let is_removed = removed.map_err(|cause| ContainerError::Engine {
            socket: socket.into(),
            cause,
        })?;
        if is_removed || !wait {
            break;
        }
        sleep(INTERVAL).await;
    }
    Ok(())
}

/// What every container is started with: in the workload's cgroup and the machine's network, where the kernel's
/// programs decide; without capabilities; by the one runtime that makes processes of this kernel.
fn closed(kept: &Kept<'_>, profile: &File) -> Vec<String> {
    let profile = format!("seccomp=/proc/self/fd/{}", profile.as_raw_fd());
    [
        "run",
        "--rm",
        "--pull=never",
        "--runtime=runc",
        "--network=host",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        // What is said is recorded by Exeat, masked; Docker's own log would keep it as it is.
        "--log-driver=none",
        "--no-healthcheck",
        "--name",
        kept.name,
        "--cgroup-parent",
        kept.cgroup,
        "--security-opt",
        &profile,
    ]
    .map(str::to_owned)
    .into()
}

/// The register's user, as of every other server, unless the options name one.
fn user(container: &Container) -> Vec<String> {
    if container.user.is_some() {
        return Vec::new();
    }
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    vec![format!(
        "--user={uid}:{gid}",
        uid = uid.as_raw(),
        gid = gid.as_raw()
    )]
}

/// The trust bundle where it is outside, and where images have theirs; the variables that name it.
fn trusted(bundle: &str) -> Vec<String> {
    let directory = Path::new(bundle).parent().unwrap_or_else(|| Path::new("/"));
    let directory = directory.display();
    let mut arguments = vec![
        format!("--volume={directory}:{directory}:ro"),
        format!("--volume={bundle}:{SYSTEM}:ro"),
    ];
    let names = TRUST.iter().chain([&JAVA]);
    // Without a value: Docker's client takes it from its own environment.
    arguments.extend(names.map(|name| format!("--env={name}")));
    arguments
}

/// A file without a name that Docker's client reads by its descriptor, and that nobody changes any more: other
/// processes of the same user get to it too.
fn profile(text: &str) -> io::Result<File> {
    // Kept open when this process becomes the client.
    let mut file = File::from(memfd_create("seccomp", MemfdFlags::ALLOW_SEALING)?);
    file.write_all(text.as_bytes())?;
    seal(&file, text)?;
    Ok(file)
}

fn seal(file: &File, text: &str) -> io::Result<()> {
    fcntl_add_seals(
        file,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    // It may have been changed before.
    if fs::read(format!("/proc/self/fd/{}", file.as_raw_fd()))? != text.as_bytes() {
        return Err(io::Error::other("somebody else wrote to it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    #[test]
    fn what_keeps_a_container_inside_comes_before_what_the_register_says() {
        let profile = profile("{}").unwrap();
        let kept = Kept {
            cgroup: "/exeat/w/a-1",
            name: "exeat-a-1",
        };
        let all = closed(&kept, &profile);
        assert_eq!(all[0], "run");
        assert!(all.contains(&"--network=host".to_owned()));
        let of = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            user(&Container::parse(&words).unwrap())
        };
        assert_eq!(of("run -i --user 7:7 x"), [""; 0]);
        assert_eq!(of("run -i x").len(), 1);
    }

    #[test]
    fn a_volume_stays_where_it_was_seen() {
        volume("/etc/passwd").unwrap();
        volume("/usr/lib").unwrap();
        let linked = volume("/proc/self/root").unwrap_err();
        assert!(matches!(linked, ContainerError::Volume(_)), "{linked}");
        // Anybody makes something in the directory for temporary files, whose own directory is root's.
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        let inside = directory.path().join("data");
        fs::create_dir(&inside).unwrap();
        let said = volume(inside.to_str().unwrap()).unwrap_err().to_string();
        assert!(said.contains("`/tmp` has to be root's"), "{said}");
        chown(directory.path(), Some(7), None).unwrap();
        let said = volume(inside.to_str().unwrap()).unwrap_err().to_string();
        let expected = format!("`{}` has to be root's", directory.path().display());
        assert!(said.contains(&expected), "{said}");
    }

    #[test]
    fn the_client_is_roots() {
        let shell = fs::canonicalize("/bin/sh").unwrap();
        assert_eq!(client("/bin/sh").unwrap(), shell);
        assert_eq!(client("sh").unwrap().file_name(), shell.file_name());
        let absent = client("no-such-program").unwrap_err();
        assert!(matches!(absent, ContainerError::Absent(_)), "{absent}");
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        let program = directory.path().join("docker");
        fs::write(&program, "").unwrap();
        let link = directory.path().join("link");
        symlink("/bin/sh", &link).unwrap();
        assert_eq!(client(link.to_str().unwrap()).unwrap(), shell);
        let said = client(program.to_str().unwrap()).unwrap_err().to_string();
        assert!(said.contains("`/tmp` has to be root's"), "{said}");
        chown(&program, Some(7), None).unwrap();
        let said = client(program.to_str().unwrap()).unwrap_err().to_string();
        let expected = format!("`{}` has to be root's", program.display());
        assert!(said.contains(&expected), "{said}");
    }

    #[test]
    fn nobody_changes_the_profile() {
        let file = profile("refuse").unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        assert_eq!(fs::read_to_string(&path).unwrap(), "refuse");
        fs::write(&path, "permit").unwrap_err();
        let mut other = File::options().read(true).write(true).open(&path).unwrap();
        other.write_all(b"permit").unwrap_err();
        other.set_len(0).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "refuse");
        // Nor was it changed before that.
        let file = memfd_create("seccomp", MemfdFlags::ALLOW_SEALING).unwrap();
        let mut file = File::from(file);
        file.write_all(b"permit").unwrap();
        seal(&file, "refuse").unwrap_err();
    }

    #[test]
    fn the_profile_is_one_that_docker_reads() {
        let profile: serde_json::Value = serde_json::from_str(&container_profile()).unwrap();
        let rules = profile["syscalls"].as_array().unwrap();
        let first = rules[0]["names"].as_array().unwrap();
        assert!(first.contains(&"io_uring_setup".into()), "{profile}");
        assert!(
            first
                .iter()
                .all(|name| !name.as_str().unwrap().starts_with("SYS"))
        );
    }
}
