//! Tools that servers were seen to list, as the daemon tells.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use exeat_policy::{Hints, PolicySet};

use super::ask::Daemon;
use super::error::{CliError, Kind};
use crate::control::command::ServerShow;
use crate::control::{Command, Reply};

/// Tools by their servers' names, and how they are described.
pub(super) type Listed = BTreeMap<Arc<str>, BTreeMap<String, Hints>>;

/// What each server of `set` was seen to list since the gate began, where it was; an administrator alone is told.
/// `None`: the daemon does not answer.
pub(super) async fn listed(set: &PolicySet, daemon: &Daemon) -> Result<Option<Listed>, CliError> {
    let mut registered = BTreeSet::new();
    let register = daemon.each(&Command::Servers, |reply| {
        if let Reply::Server(server) = reply {
            registered.insert(server.name);
        }
        Ok(())
    });
    match register.await {
        Err(error) if error.kind == Kind::Unreachable => return Ok(None),
        asked => asked?,
    }
    let mut listed = Listed::new();
    // Others are only in these files.
    let servers = set.servers().map(|server| &server.name);
    for name in servers.filter(|name| registered.contains(&***name)) {
        let show = Command::ServerShow(ServerShow {
            name: name.to_string(),
        });
        let mut tools = BTreeMap::new();
        daemon
            .each(&show, |reply| {
                if let Reply::Server(server) = reply {
                    for (tool, hints) in server.listed {
                        tools.insert(tool, hints.into());
                    }
                }
                Ok(())
            })
            .await?;
        if !tools.is_empty() {
            listed.insert(Arc::clone(name), tools);
        }
    }
    Ok(Some(listed))
}
