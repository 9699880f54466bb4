//! Sources of credentials: what is in a file, what systemd hands over, or what a program prints. One line, or keys of AWS.

mod aws;

use std::env;
use std::ffi::OsStr;
use std::fs::{Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use exeat_policy::{Credential, Placement, SecretOrigin};
use rustix::process::{Pid, Signal, geteuid, kill_process_group};
use thiserror::Error;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use zeroize::{Zeroize as _, Zeroizing};

pub use self::aws::{AwsKeys, AwsKeysFault};
use crate::channel::Secret;

/// Longest secret, in bytes.
const MOST: usize = 16 * 1024;
/// Time for a source to tell it.
pub const LIMIT: Duration = Duration::from_secs(10);
/// Where systemd puts what `LoadCredential=` names.
const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";
/// Permissions that a secret's file grants to nobody: others' and the group's writing.
const OTHERS: u32 = 0o027;
/// Permissions by which others than its owner change a file.
const WRITE: u32 = 0o022;

/// Why a source tells no secret. Never says what it told instead.
#[derive(Debug, Error)]
pub enum SecretFault {
    /// The policy that names the source is not root's alone: whoever writes it would read what root reads.
    #[error(
        "`{path}` can be changed by others than root, and says what root is to read or run: `chown root` and `chmod go-w` it, then reload (SIGHUP)"
    )]
    Foreign {
        /// The policy's file or its directory.
        path: String,
    },
    /// The file cannot be read.
    #[error("reading `{path}`")]
    Read {
        /// Which.
        path: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Not a regular file.
    #[error("`{path}` is not a regular file")]
    NotAFile {
        /// Which.
        path: String,
    },
    /// Others may read or change it.
    #[error("`{path}` is not kept secret: `chown root` and `chmod 600` it")]
    Exposed {
        /// Which.
        path: String,
    },
    /// The daemon was started without credentials.
    #[error(
        "`{DIRECTORY}` is not set: the daemon's unit needs `LoadCredential=` or `LoadCredentialEncrypted=`"
    )]
    NoSystemd,
    /// The program cannot be run.
    #[error("running `{program}`")]
    Run {
        /// Which.
        program: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The program failed.
    #[error("`{program}` failed: {status}")]
    Failed {
        /// Which.
        program: String,
        /// How.
        status: ExitStatus,
    },
    /// It hangs.
    #[error("{origin} told nothing within {} s", LIMIT.as_secs())]
    Late {
        /// Which.
        origin: SecretOrigin,
    },
    /// Whoever read it last is not back.
    #[error(
        "{origin} is not read anew: an earlier reading has not come back from its disk, which is to be looked at"
    )]
    Away {
        /// Which.
        origin: SecretOrigin,
    },
    /// So many are not back that there is nobody left.
    #[error(
        "{origin} is not read: too many readings of others have not come back from their disks, which are to be looked at"
    )]
    Busy {
        /// Which.
        origin: SecretOrigin,
    },
    /// Nothing is in it.
    #[error("{origin} is empty")]
    Empty {
        /// Which.
        origin: SecretOrigin,
    },
    /// Too much is in it.
    #[error("{origin} holds more than {MOST} bytes")]
    TooLong {
        /// Which.
        origin: SecretOrigin,
    },
    /// More than a line, or no text.
    #[error("{origin} does not hold one line of text")]
    NotALine {
        /// Which.
        origin: SecretOrigin,
    },
    /// Not what requests to AWS are signed with.
    #[error("{origin} does not hold keys of AWS")]
    NotKeys {
        /// Which.
        origin: SecretOrigin,
        /// Why.
        #[source]
        cause: AwsKeysFault,
    },
}

type Bytes = Zeroizing<Vec<u8>>;

/// A reader's places. Its threads have them too, which a disk may keep for longer than anybody waits.
#[derive(Debug, Clone)]
pub struct Reader {
    _places: Arc<Vec<OwnedSemaphorePermit>>,
}

impl Reader {
    /// A reader in these places.
    pub fn new(places: Vec<OwnedSemaphorePermit>) -> Self {
        Self {
            _places: Arc::new(places),
        }
    }

    /// Does `work` in a thread that may not come back.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, SecretFault> + Send + 'static,
    ) -> Result<T, SecretFault> {
        let own = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(own);
            done
        });
        done.await.unwrap_or_else(|stopped| {
            Err(SecretFault::Read {
                path: String::new(),
                cause: io::Error::other(stopped),
            })
        })
    }
}

/// Asks the source of `credential`, within [`LIMIT`]. May be dropped: a program that it started ends then.
///
/// # Errors
/// A [`SecretFault`].
pub async fn read(reader: &Reader, credential: &Credential) -> Result<Secret, SecretFault> {
    read_within(LIMIT, reader, credential).await
}

async fn read_within(
    limit: Duration,
    reader: &Reader,
    credential: &Credential,
) -> Result<Secret, SecretFault> {
    let origin = credential.origin.clone();
    let asked = async {
        match &credential.origin {
            SecretOrigin::Command(words) => printed(words).await,
            SecretOrigin::File(_) | SecretOrigin::Systemd(_) => {
                let origin = credential.origin.clone();
                reader.blocking(move || file(&path(&origin)?)).await
            }
        }
    };
    let bytes = timeout(limit, asked)
        .await
        .map_err(|_late| SecretFault::Late {
            origin: origin.clone(),
        })??;
    secret(bytes, credential)
}

/// Looks at the source without running anything: what can be said before the daemon asks it. `None`: nothing.
///
/// # Errors
/// A [`SecretFault`].
pub fn look(credential: &Credential) -> Option<Result<(), SecretFault>> {
    let looked = match &credential.origin {
        // Of the daemon's own, nothing is known here.
        SecretOrigin::Systemd(_) => return None,
        SecretOrigin::File(name) => file(Path::new(name))
            .and_then(|bytes| secret(bytes, credential))
            .map(drop),
        SecretOrigin::Command(words) => program(words),
    };
    let policy = Path::new(&*credential.place.file);
    Some(root_alone(policy).and(looked))
}

fn path(origin: &SecretOrigin) -> Result<PathBuf, SecretFault> {
    match origin {
        SecretOrigin::File(path) => Ok(path.into()),
        SecretOrigin::Systemd(name) => {
            let directory = env::var_os(DIRECTORY).ok_or(SecretFault::NoSystemd)?;
            Ok(Path::new(&directory).join(name))
        }
        SecretOrigin::Command(words) => Ok(words.first().map(PathBuf::from).unwrap_or_default()),
    }
}

/// Whether a file of the policy and its directory are [`is_alone`] now: what the daemon will find when it loads them.
///
/// # Errors
/// [`SecretFault::Foreign`], or that one cannot be looked at.
pub fn root_alone(policy: &Path) -> Result<(), SecretFault> {
    let directory = policy.parent().filter(|path| *path != Path::new(""));
    for path in [Some(policy), directory].into_iter().flatten() {
        let shown = path.display().to_string();
        let metadata = path.metadata().map_err(|cause| SecretFault::Read {
            path: shown.clone(),
            cause,
        })?;
        if !is_alone(&metadata) {
            return Err(SecretFault::Foreign { path: shown });
        }
    }
    Ok(())
}

/// Whether what this is about is the owner's alone to change: root's, for the daemon.
pub fn is_alone(metadata: &Metadata) -> bool {
    is_own(metadata) && metadata.mode() & WRITE == 0
}

fn is_own(metadata: &Metadata) -> bool {
    metadata.uid() == 0 || metadata.uid() == geteuid().as_raw()
}

fn file(path: &Path) -> Result<Bytes, SecretFault> {
    let shown = || path.display().to_string();
    let failed = |cause| SecretFault::Read {
        path: shown(),
        cause,
    };
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path);
    let file = opened.map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(SecretFault::NotAFile { path: shown() });
    }
    if !is_own(&metadata) || metadata.mode() & OTHERS != 0 {
        return Err(SecretFault::Exposed { path: shown() });
    }
    let mut bytes = room();
    let most = u64::try_from(MOST).unwrap_or(u64::MAX);
    let read = file.take(most + 1).read_to_end(&mut bytes);
    read.map_err(failed)?;
    Ok(bytes)
}

/// Room for all that is read, so that growing leaves no copy behind.
fn room() -> Bytes {
    Zeroizing::new(Vec::with_capacity(MOST + 1024))
}

fn program(words: &[String]) -> Result<(), SecretFault> {
    let program = words.first().cloned().unwrap_or_default();
    let found = Path::new(&program).metadata();
    let found = found.and_then(|metadata| match metadata.mode() & 0o111 {
        0 => Err(io::ErrorKind::PermissionDenied.into()),
        _ => Ok(()),
    });
    found.map_err(|cause| SecretFault::Run { program, cause })
}

/// What the program prints, in the daemon's own environment. Its standard error is nobody's: it may hold secrets.
async fn printed(words: &[String]) -> Result<Bytes, SecretFault> {
    let (program, arguments) = words
        .split_first()
        .map_or(("", &[][..]), |(program, rest)| (program.as_str(), rest));
    let failed = |cause| SecretFault::Run {
        program: program.to_owned(),
        cause,
    };
    let mut command = Command::new(program);
    command
        .args(arguments.iter().map(OsStr::new))
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0);
    let mut running = Running(command.spawn().map_err(failed)?);
    let mut bytes = room();
    if let Some(stdout) = running.0.stdout.take() {
        let most = u64::try_from(MOST).unwrap_or(u64::MAX);
        let read = stdout.take(most + 1).read_to_end(&mut bytes).await;
        read.map_err(failed)?;
    }
    if bytes.len() > MOST {
        return Ok(bytes);
    }
    let status = running.0.wait().await.map_err(failed)?;
    if status.success() {
        Ok(bytes)
    } else {
        Err(SecretFault::Failed {
            program: program.to_owned(),
            status,
        })
    }
}

/// A program and what it started; ends when dropped, if it did not by itself.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let id = self.0.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = id.and_then(Pid::from_raw) {
            // It may have ended meanwhile.
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The one line in `bytes`, without its end; or the keys, where requests are signed with them.
fn secret(mut bytes: Bytes, credential: &Credential) -> Result<Secret, SecretFault> {
    let origin = credential.origin.clone();
    if bytes.len() > MOST {
        return Err(SecretFault::TooLong { origin });
    }
    let text = match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => text,
        Err(error) => {
            error.into_bytes().zeroize();
            return Err(SecretFault::NotALine { origin });
        }
    };
    let mut text = Zeroizing::new(text);
    let length = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(length);
    if text.trim().is_empty() {
        return Err(SecretFault::Empty { origin });
    }
    match credential.placement {
        Placement::AwsSigV4 { .. } => {
            // The gate reads them for itself: this is to say here what is wrong.
            AwsKeys::parse(&text).map_err(|cause| SecretFault::NotKeys { origin, cause })?;
        }
        Placement::Header { .. } | Placement::Query(_) | Placement::Basic(_) => {
            if text.chars().any(char::is_control) {
                return Err(SecretFault::NotALine { origin });
            }
        }
    }
    Ok(Secret::new(std::mem::take(&mut *text)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc::channel;

    use exeat_policy::{Source, compile};
    use tempfile::TempDir;
    use tokio::sync::Semaphore;

    use super::*;

    async fn read(credential: &Credential) -> Result<Secret, SecretFault> {
        let place = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        super::read(&Reader::new(vec![place]), credential).await
    }

    const SECRET: &str = "s3cr3t-of-the-source";

    fn chmod(path: &Path, mode: u32) {
        rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(mode & 0o777)).unwrap();
    }

    /// A directory with a policy that has the credential `x` from `origin`.
    fn credential(origin: &str) -> (TempDir, Credential) {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy.yaml");
        let origin = origin.replace("{}", &directory.path().display().to_string());
        let text = format!("version: 1\ncredentials: {{ x: {{ {origin} }} }}\n");
        fs::write(&policy, &text).unwrap();
        chmod(&policy, 0o644);
        let name = policy.display().to_string();
        let set = compile(&[Source { name, text }]).unwrap();
        let credential = Credential::clone(set.credential("x").unwrap());
        (directory, credential)
    }

    fn keep(directory: &TempDir, text: &[u8], mode: u32) {
        let path = directory.path().join("secret");
        fs::write(&path, text).unwrap();
        chmod(&path, mode);
    }

    #[tokio::test]
    async fn a_file_is_read_if_it_is_one_line_and_kept_secret() {
        let (directory, credential) = credential("file: '{}/secret'");
        assert!(matches!(
            read(&credential).await,
            Err(SecretFault::Read { .. })
        ));
        for (text, mode, holds) in [
            (format!("{SECRET}\n"), 0o600, "secret"),
            (format!("{SECRET}\r\n"), 0o640, "secret"),
            (SECRET.to_owned(), 0o400, "secret"),
            (String::new(), 0o600, "is empty"),
            (" \n".to_owned(), 0o600, "is empty"),
            (format!("{SECRET}\nmore\n"), 0o600, "one line"),
            (format!("{SECRET}\0"), 0o600, "one line"),
            ("x".repeat(MOST + 1), 0o600, "more than"),
            (SECRET.to_owned(), 0o644, "not kept secret"),
            (SECRET.to_owned(), 0o620, "not kept secret"),
        ] {
            keep(&directory, text.as_bytes(), mode);
            let looked = look(&credential).unwrap();
            match read(&credential).await {
                Ok(secret) => {
                    assert_eq!((secret.expose(), holds), (SECRET, "secret"));
                    looked.unwrap();
                }
                Err(fault) => {
                    let told = format!("{fault} {fault:?}");
                    assert!(told.contains(holds) && !told.contains(SECRET), "{told}");
                    assert_eq!(looked.unwrap_err().to_string(), fault.to_string());
                }
            }
        }
        keep(&directory, b"\xff\xfe", 0o600);
        let fault = read(&credential).await.unwrap_err();
        assert!(matches!(fault, SecretFault::NotALine { .. }), "{fault}");
    }

    #[tokio::test]
    async fn what_is_no_file_is_not_waited_for() {
        let (directory, credential) = credential("file: '{}/secret'");
        let path = directory.path().join("secret");
        fs::create_dir(&path).unwrap();
        let fault = read(&credential).await.unwrap_err();
        assert!(matches!(fault, SecretFault::NotAFile { .. }), "{fault}");
        fs::remove_dir(&path).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let fault = read(&credential).await.unwrap_err();
        assert!(matches!(fault, SecretFault::NotAFile { .. }), "{fault}");
    }

    #[test]
    fn a_policy_that_others_write_is_said_to_be() {
        let (directory, credential) = credential("file: '{}/secret'");
        keep(&directory, SECRET.as_bytes(), 0o600);
        look(&credential).unwrap().unwrap();
        for (path, mode) in [("policy.yaml", 0o664), ("policy.yaml", 0o646), (".", 0o777)] {
            let path = directory.path().join(path);
            let before = path.metadata().unwrap().mode();
            chmod(&path, mode);
            let fault = look(&credential).unwrap().unwrap_err();
            assert!(matches!(fault, SecretFault::Foreign { .. }), "{fault}");
            chmod(&path, before);
        }
    }

    #[tokio::test]
    async fn a_program_prints_the_secret_or_is_a_fault() {
        for (script, holds) in [
            ("printf s3cr3t-of-the-source", "secret"),
            ("echo s3cr3t-of-the-source; echo no >&2", "secret"),
            ("echo s3cr3t-of-the-source; exit 3", "failed"),
            ("true", "is empty"),
            ("yes", "more than"),
        ] {
            let (_directory, credential) =
                credential(&format!("command: [/bin/sh, -c, '{script}']"));
            match read(&credential).await {
                Ok(secret) => assert_eq!((secret.expose(), holds), (SECRET, "secret")),
                Err(fault) => {
                    let told = format!("{fault} {fault:?}");
                    assert!(told.contains(holds) && !told.contains(SECRET), "{told}");
                }
            }
            look(&credential).unwrap().unwrap();
        }
        let (_directory, credential) = credential("command: [/nowhere/at-all]");
        assert!(matches!(
            read(&credential).await,
            Err(SecretFault::Run { .. })
        ));
        assert!(look(&credential).unwrap().is_err());
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_a_fault() {
        let (_directory, credential) = credential("command: [/bin/sleep, '1000']");
        let soon = Duration::from_millis(50);
        let places = Arc::new(Semaphore::new(1));
        let reader = Reader::new(vec![Arc::clone(&places).try_acquire_owned().unwrap()]);
        let asked = read_within(soon, &reader, &credential).await;
        let fault = asked.unwrap_err();
        assert!(matches!(fault, SecretFault::Late { .. }), "{fault}");
        // It ended, and so nothing is out.
        drop(reader);
        assert_eq!(places.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_thread_that_does_not_come_back_keeps_its_place() {
        let places = Arc::new(Semaphore::new(1));
        let reader = Reader::new(vec![Arc::clone(&places).try_acquire_owned().unwrap()]);
        let (release, held) = channel::<()>();
        let hung = reader.blocking(move || {
            held.recv().unwrap_err();
            Ok(())
        });
        timeout(Duration::from_millis(50), hung).await.unwrap_err();
        drop(reader);
        assert_eq!(places.available_permits(), 0);
        drop(release);
        drop(places.acquire().await.unwrap());
    }

    #[tokio::test]
    async fn a_program_ends_with_all_that_it_started() {
        let (directory, credential) =
            credential("command: [/bin/sh, -c, 'sleep 1000 & echo $! > {}/child; wait']");
        let file = directory.path().join("child");
        let begun = async {
            loop {
                match fs::read_to_string(&file) {
                    Ok(text) if text.ends_with('\n') => break text,
                    _ => tokio::task::yield_now().await,
                }
            }
        };
        let child = tokio::select! {
            child = begun => child,
            ended = read(&credential) => panic!("{ended:?}"),
        };
        let status = Path::new("/proc").join(child.trim()).join("stat");
        let alive = || {
            let text = fs::read_to_string(&status).unwrap_or_default();
            text.contains(" S ") || text.contains(" R ")
        };
        while alive() {
            tokio::task::yield_now().await;
        }
    }
}
