//! Users of this machine and their homes.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User, geteuid};

/// A user with a home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Name; digits where the uid has none.
    pub name: String,
    /// The user's number.
    pub uid: u32,
    /// Home directory.
    pub home: PathBuf,
}

/// Why a user cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeFault {
    /// The user database failed.
    #[error("look up the user `{name}`")]
    LookUp {
        /// Who.
        name: String,
        /// Why.
        #[source]
        cause: nix::errno::Errno,
    },
    /// No such user.
    #[error("there is no user `{0}`")]
    Unknown(String),
    /// Only root may act for others.
    #[error("only root may act for `{0}`")]
    NotRoot(String),
}

/// The user who runs this, with the home that the environment names.
pub fn invoking() -> Result<Account, HomeFault> {
    let uid = geteuid();
    let mut account = of(uid)?;
    if let Some(home) = std::env::var_os("HOME").filter(|home| Path::new(home).is_absolute()) {
        account.home = home.into();
    }
    Ok(account)
}

/// The user of this name, for whom the invoking one may act.
pub fn named(name: &str) -> Result<Account, HomeFault> {
    let found = User::from_name(name).map_err(|cause| HomeFault::LookUp {
        name: name.to_owned(),
        cause,
    })?;
    let user = found.ok_or_else(|| HomeFault::Unknown(name.to_owned()))?;
    if !geteuid().is_root() && user.uid != geteuid() {
        return Err(HomeFault::NotRoot(name.to_owned()));
    }
    Ok(Account {
        name: user.name,
        uid: user.uid.as_raw(),
        home: user.dir,
    })
}

/// The user of this number.
pub fn numbered(uid: u32) -> Result<Account, HomeFault> {
    of(Uid::from_raw(uid))
}

fn of(uid: Uid) -> Result<Account, HomeFault> {
    let user = User::from_uid(uid).map_err(|cause| HomeFault::LookUp {
        name: uid.to_string(),
        cause,
    })?;
    Ok(user.map_or_else(
        || Account {
            name: uid.to_string(),
            uid: uid.as_raw(),
            home: PathBuf::from("/"),
        },
        |user| Account {
            name: user.name,
            uid: user.uid.as_raw(),
            home: user.dir,
        },
    ))
}

/// Every user with a home of this machine: those of `/etc/passwd`, and the owners of the
/// directories in `/home`, whom a directory service may know.
pub fn accounts() -> Vec<Account> {
    let mut found: Vec<Account> = Vec::new();
    let mut add = |uid: u32| {
        if found.iter().all(|account| account.uid != uid)
            && let Ok(account) = of(Uid::from_raw(uid))
            && account.home != Path::new("/")
            && account.home.is_dir()
        {
            found.push(account);
        }
    };
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    for line in passwd.lines() {
        if let Some(uid) = line.split(':').nth(2).and_then(|uid| uid.parse().ok()) {
            add(uid);
        }
    }
    for entry in fs::read_dir("/home").into_iter().flatten().flatten() {
        if let Ok(metadata) = entry.metadata() {
            add(metadata.uid());
        }
    }
    found
}
