//! The register that a command without a daemon compares with: a policy's files, or what the daemon says.

use std::collections::BTreeSet;
use std::path::Path;

use exeat_policy::PolicySet;

use super::ask::{Daemon, unexpected};
use super::error::{CliError, Kind};
use super::policy::files;
use crate::config::Config;
use crate::control::{Command, Reply};

/// What is known of the register.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The policy, where its files could be read.
    pub(super) set: Option<PolicySet>,
    /// The names of its servers.
    pub(super) names: BTreeSet<String>,
    /// What is less than it could be, and why.
    pub(super) notes: Vec<String>,
}

/// The policy at `path`; else the configured one; else the daemon's list of servers.
pub(super) async fn known(
    path: Option<&Path>,
    config: &Config,
    daemon: &Daemon,
) -> Result<Known, CliError> {
    let set = match path {
        Some(path) => Some(compile(path)?),
        None if !config.policy.exists() => None,
        None => match compile(&config.policy) {
            Ok(set) => Some(set),
            Err(error) => return named(daemon, error.message).await,
        },
    };
    let mut known = Known::default();
    match set {
        Some(set) => {
            known.names = set
                .servers()
                .map(|server| server.name.to_string())
                .collect();
            known.set = Some(set);
        }
        None => known.notes.push(format!(
            "there is no policy at `{}`: no server counts as registered",
            config.policy.display()
        )),
    }
    Ok(known)
}

fn compile(path: &Path) -> Result<PolicySet, CliError> {
    let sources = files::read(&[path.to_owned()])?;
    exeat_policy::compile(&sources).map_err(|faults| {
        let first = faults.first().map(ToString::to_string).unwrap_or_default();
        CliError::new(
            Kind::Usage,
            format_args!("read the policy `{}`: {first}", path.display()),
        )
        .with_next("see all faults with `exeat policy check`")
    })
}

/// The names alone, from the daemon.
async fn named(daemon: &Daemon, why: String) -> Result<Known, CliError> {
    let mut known = Known {
        notes: vec![format!(
            "{why}; servers are compared with the daemon's list of names alone, for an ordinary user of those that it may use"
        )],
        ..Known::default()
    };
    daemon
        .each(&Command::Servers, |reply| match reply {
            Reply::Server(server) => {
                known.names.insert(server.name);
                Ok(())
            }
            other => Err(unexpected(&Command::Servers, other.name())),
        })
        .await?;
    Ok(known)
}
