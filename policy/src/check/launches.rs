//! Servers that Docker starts, beside those that it does not.

use super::fault;
use crate::container::Container;
use crate::fault::Fault;
use crate::load::Draft;
use crate::model::{Launch, Server};

/// A process writes to the memory of another of its user. Docker's client would do anything for it, as root.
pub(super) fn check(draft: &Draft, faults: &mut Vec<Fault>) {
    let all = draft.servers.iter();
    let launched = all.filter_map(|server| Some((server, server.launch()?)));
    let (docker, others): (Vec<_>, Vec<_>) =
        launched.partition(|(_, launch)| Container::is_started_by(&launch.command));
    for (server, launch) in docker {
        let shares = |(_, other): &&(&Server, &Launch)| other.user == launch.user;
        let Some((other, _)) = others.iter().find(shares) else {
            continue;
        };
        let message = format!(
            "`{}` is started by Docker as the same user as `{}`, which could have Docker's client do anything: give it a \
             `user` of its own",
            server.name, other.name
        );
        faults.push(fault(&server.place, message, None));
    }
}
