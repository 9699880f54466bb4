//! Reading and replacing a user's file, without being led elsewhere by another user.
//!
//! Root acts on files of people who may have arranged links in their directories. Each part of a
//! path is opened by itself and looked at: a link is followed only if the user for whom we act, or
//! root, made it; a directory is entered only if one of them owns it; the file itself must be that
//! user's.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, fstat, fsync, open,
    openat, readlinkat, renameat, unlinkat,
};
use rustix::io::Errno;

/// Largest file that is read, in bytes.
pub const MAX_FILE: u64 = 16 * 1024 * 1024;
/// Most links on the way (`MAXSYMLINKS` of the kernel).
const MAX_LINKS: u32 = 40;

/// A name in a directory that is held open.
#[derive(Debug)]
pub struct Place {
    directory: OwnedFd,
    name: OsString,
    /// The path with its links resolved.
    pub path: PathBuf,
    owner: u32,
}

/// A file as it was read. Its text may hold secrets.
pub struct Seen {
    /// What is in it.
    pub text: String,
    inode: (u64, u64),
    uid: u32,
    gid: u32,
    mode: u32,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen")
            .field("inode", &self.inode)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// Why a file is not read or written.
#[derive(Debug, thiserror::Error)]
pub enum PlaceFault {
    /// The system refused.
    #[error("{attempt} `{path}`")]
    System {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Somebody else could have put it there.
    #[error(
        "`{path}` belongs to user {found}, not to {wanted} for whom this is done; name the owner with --user, or run it as the owner"
    )]
    Owner {
        /// The file, directory or link.
        path: PathBuf,
        /// Whose it is.
        found: u32,
        /// Whose it should be.
        wanted: u32,
    },
    /// No regular file of UTF-8.
    #[error("`{path}` is {what}")]
    Kind {
        /// What was opened.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Written to by someone else meanwhile.
    #[error("`{0}` changed while it was looked at; nothing was written, try again")]
    Changed(PathBuf),
}

impl PlaceFault {
    /// Whether there is no such file.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::System { cause, .. } if cause.kind() == io::ErrorKind::NotFound)
    }
}

impl Place {
    /// Finds the file at an absolute path, on behalf of the user `owner`.
    pub fn find(path: &Path, owner: u32) -> Result<Self, PlaceFault> {
        let mut todo: VecDeque<OsString> = parts(path);
        let mut at = PathBuf::from("/");
        let mut directory = root()?;
        let mut links = 0_u32;
        while let Some(part) = todo.pop_front() {
            let here = at.join(&part);
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let next = openat(&directory, &part, flags, Mode::empty())
                .map_err(|cause| fault("open", &here, cause))?;
            let stat = fstat(&next).map_err(|cause| fault("look at", &here, cause))?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink => {
                    links = links.saturating_add(1);
                    if links > MAX_LINKS {
                        return Err(fault("follow", &here, Errno::LOOP));
                    }
                    arranged_by(&stat, owner, &here)?;
                    let target = readlinkat(&next, "", Vec::new())
                        .map_err(|cause| fault("follow", &here, cause))?;
                    let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                        directory = root()?;
                    }
                    for part in parts(&target).into_iter().rev() {
                        todo.push_front(part);
                    }
                }
                FileType::Directory if !todo.is_empty() => {
                    arranged_by(&stat, owner, &here)?;
                    if part == ".." {
                        at.pop();
                    } else {
                        at = here;
                    }
                    directory = next;
                }
                _ if todo.is_empty() => {
                    return Ok(Self {
                        directory,
                        name: part,
                        path: here,
                        owner,
                    });
                }
                _ => return Err(fault("enter", &here, Errno::NOTDIR)),
            }
        }
        Err(PlaceFault::Kind {
            path: at,
            what: "a directory",
        })
    }

    /// The file beside it of this name, which need not exist.
    pub fn beside(&self, name: OsString) -> io::Result<Self> {
        Ok(Self {
            directory: self.directory.try_clone()?,
            path: self.path.with_file_name(&name),
            name,
            owner: self.owner,
        })
    }

    /// The name alone.
    pub fn name(&self) -> &OsString {
        &self.name
    }

    /// The names in the directory that begin with `prefix`.
    pub fn siblings(&self, prefix: &[u8]) -> Result<Vec<OsString>, PlaceFault> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let listing = openat(&self.directory, ".", flags, Mode::empty())
            .and_then(rustix::fs::Dir::new)
            .map_err(|cause| self.fault("list the directory of", cause.into()))?;
        let names = listing
            .filter_map(Result::ok)
            .map(|entry| entry.file_name().to_bytes().to_vec());
        let mut names: Vec<_> = names
            .filter(|name| name.starts_with(prefix))
            .map(OsString::from_vec)
            .collect();
        names.sort();
        Ok(names)
    }

    /// Reads the file.
    pub fn read(&self) -> Result<Seen, PlaceFault> {
        // A pipe is opened without waiting for a writer, and refused.
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(&self.directory, &self.name, flags, Mode::empty())
            .map_err(|cause| self.fault("read", cause.into()))?;
        let stat = fstat(&file).map_err(|cause| self.fault("look at", cause.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.kind("no regular file"));
        }
        if stat.st_uid != self.owner {
            return Err(PlaceFault::Owner {
                path: self.path.clone(),
                found: stat.st_uid,
                wanted: self.owner,
            });
        }
        let mut bytes = Vec::new();
        let read = File::from(file)
            .take(MAX_FILE.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|cause| self.fault("read", cause))?;
        if u64::try_from(read).unwrap_or(u64::MAX) > MAX_FILE {
            return Err(self.kind("larger than 16 MiB"));
        }
        let text = String::from_utf8(bytes).map_err(|_bytes| self.kind("not UTF-8"))?;
        Ok(Seen {
            text,
            inode: (stat.st_dev, stat.st_ino),
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode & 0o7777,
        })
    }

    /// Puts a text in the place of what was `seen`, with the same owner and mode.
    pub fn replace(&self, seen: &Seen, text: &str) -> Result<(), PlaceFault> {
        self.put(text, seen, || {
            let now = self.read()?;
            let same = now.inode == seen.inode && now.text == seen.text;
            if same {
                Ok(())
            } else {
                Err(PlaceFault::Changed(self.path.clone()))
            }
        })
    }

    /// Writes a text with the owner and mode of `like`; whatever has the name is replaced.
    pub fn write(&self, text: &str, like: &Seen) -> Result<(), PlaceFault> {
        self.put(text, like, || Ok(()))
    }

    /// Removes the file.
    pub fn remove(&self) -> Result<(), PlaceFault> {
        unlinkat(&self.directory, &self.name, AtFlags::empty())
            .map_err(|cause| self.fault("remove", cause.into()))
    }

    /// Whole or not at all: a file of another name, complete and on the disk, takes the name.
    fn put(
        &self,
        text: &str,
        like: &Seen,
        check: impl FnOnce() -> Result<(), PlaceFault>,
    ) -> Result<(), PlaceFault> {
        let temporary = OsString::from(format!(".exeat-{}.new", std::process::id()));
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(&self.directory, &temporary, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|cause| self.fault("write beside", cause.into()))?;
        let mut file = File::from(made);
        let written = fill(&mut file, text, like)
            .map_err(|cause| self.fault("write beside", cause))
            .and_then(|()| check())
            .and_then(|()| {
                renameat(&self.directory, &temporary, &self.directory, &self.name)
                    .map_err(|cause| self.fault("replace", cause.into()))
            });
        if written.is_err()
            && let Err(error) = unlinkat(&self.directory, &temporary, AtFlags::empty())
        {
            tracing::debug!(%error, "the temporary file stays");
        }
        written?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(&self.directory, ".", flags, Mode::empty())
            .and_then(fsync)
            .map_err(|cause| self.fault("write the directory of", cause.into()))
    }

    fn fault(&self, attempt: &'static str, cause: io::Error) -> PlaceFault {
        PlaceFault::System {
            attempt,
            path: self.path.clone(),
            cause,
        }
    }

    fn kind(&self, what: &'static str) -> PlaceFault {
        PlaceFault::Kind {
            path: self.path.clone(),
            what,
        }
    }
}

fn fill(file: &mut File, text: &str, like: &Seen) -> io::Result<()> {
    let made = fstat(&*file)?;
    if (made.st_uid, made.st_gid) != (like.uid, like.gid) {
        fchown(
            &*file,
            Some(Uid::from_raw(like.uid)),
            Some(Gid::from_raw(like.gid)),
        )?;
    }
    file.write_all(text.as_bytes())?;
    fchmod(&*file, Mode::from_raw_mode(like.mode))?;
    file.sync_all()
}

fn fault(attempt: &'static str, path: &Path, cause: Errno) -> PlaceFault {
    PlaceFault::System {
        attempt,
        path: path.to_owned(),
        cause: cause.into(),
    }
}

fn root() -> Result<OwnedFd, PlaceFault> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open("/", flags, Mode::empty()).map_err(|cause| fault("open", Path::new("/"), cause))
}

/// Refuses what another user may have arranged, where that is a danger: for root.
fn arranged_by(stat: &Stat, owner: u32, path: &Path) -> Result<(), PlaceFault> {
    let trusted = stat.st_uid == 0 || stat.st_uid == owner;
    if trusted || !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(PlaceFault::Owner {
        path: path.to_owned(),
        found: stat.st_uid,
        wanted: owner,
    })
}

/// The parts of a path that lead somewhere; `..` is left to the kernel.
fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// An absolute path, from the working directory where it is not one.
pub(super) fn absolute(path: &Path) -> io::Result<PathBuf> {
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    Ok(std::env::current_dir()?.join(path))
}

/// The directory entries of a path, as the process itself finds them.
pub(super) fn names(directory: &Path) -> Vec<OsString> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listing = openat(CWD, directory, flags, Mode::empty()).and_then(rustix::fs::Dir::new);
    let entries = listing.into_iter().flatten().filter_map(Result::ok);
    let names = entries.map(|entry| OsString::from_vec(entry.file_name().to_bytes().to_vec()));
    names.take(1_000).collect()
}
