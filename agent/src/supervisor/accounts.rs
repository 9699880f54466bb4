//! Accounts by name or number.

use std::ffi::CString;
use std::io;
use std::path::PathBuf;

use nix::unistd::{Uid, User, getgrouplist};

use crate::launch::stage::Account;

/// Why an account cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The user database failed.
    #[error("looking up the user `{name}`")]
    LookUp {
        /// Who.
        name: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// No such user.
    #[error("there is no user `{0}`; create it, or name another")]
    Unknown(String),
    /// Nothing of ours runs as root.
    #[error("the user `{0}` is root, or has root's group")]
    Root(String),
}

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LocalUser {
    /// Name; digits where the uid has none.
    pub(super) name: String,
    /// Home directory, `/` where it does not exist.
    pub(super) home: PathBuf,
    /// Ids.
    pub(super) account: Account,
}

/// The user of this name or number. A number that has no entry stands for itself alone.
pub(super) fn find(name: &str) -> Result<LocalUser, AccountError> {
    let failed = |e: nix::errno::Errno| AccountError::LookUp {
        name: name.to_owned(),
        cause: e.into(),
    };
    let uid = name.parse::<u32>().ok();
    let user = match uid {
        Some(uid) => User::from_uid(Uid::from_raw(uid)).map_err(failed)?,
        None => User::from_name(name).map_err(failed)?,
    };
    let found = match (user, uid) {
        (Some(user), _) => {
            let c_name = CString::new(user.name.as_str())
                .map_err(|_e| AccountError::Unknown(name.to_owned()))?;
            let groups = getgrouplist(&c_name, user.gid).map_err(failed)?;
            let account = Account {
                uid: user.uid.as_raw(),
                gid: user.gid.as_raw(),
                groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
            };
            let home = if user.dir.is_dir() {
                user.dir
            } else {
                "/".into()
            };
            LocalUser {
                name: user.name,
                home,
                account,
            }
        }
        (None, Some(uid)) => LocalUser {
            name: uid.to_string(),
            home: "/".into(),
            account: Account {
                uid,
                gid: uid,
                groups: vec![uid],
            },
        },
        (None, None) => return Err(AccountError::Unknown(name.to_owned())),
    };
    let Account { uid, gid, groups } = &found.account;
    if *uid == 0 || *gid == 0 || groups.contains(&0) {
        return Err(AccountError::Root(name.to_owned()));
    }
    Ok(found)
}

/// The name of a uid, where it has one.
pub(crate) fn name_of(uid: u32) -> Option<String> {
    User::from_uid(Uid::from_raw(uid))
        .ok()
        .flatten()
        .map(|user| user.name)
}
