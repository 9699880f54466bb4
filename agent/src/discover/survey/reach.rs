//! What the policy lets something reach, as far as it is known.

use exeat_policy::{PolicySet, Server, Transport};

use crate::control::describe;
use crate::discover::found::{Found, Kind, Standing};

/// Nothing, where that is so; `None` where it is not known.
pub(super) fn reaches(set: Option<&PolicySet>, found: &Found) -> Option<Vec<String>> {
    if found.isolated {
        return Some(Vec::new());
    }
    if found.standing != Standing::Managed {
        let local = found.url.is_none() || !found.pids.is_empty();
        return local.then(|| vec!["anything: nothing holds it".to_owned()]);
    }
    let name = found.registered.as_ref()?;
    match found.kind {
        Kind::Server => {
            let server = held(set?.server(name)?)?;
            Some(server.egress.iter().map(describe::egress).collect())
        }
        Kind::Host => {
            let host = set?.host(name)?;
            let servers = host.servers.iter().map(|name| format!("server {name}"));
            let egress = host.egress.iter().map(describe::egress);
            Some(servers.chain(egress).collect())
        }
    }
}

/// The hosts that it may fetch from until it speaks.
pub(super) fn fetches(set: Option<&PolicySet>, found: &Found) -> Vec<String> {
    if found.isolated || found.standing != Standing::Managed || found.kind != Kind::Server {
        return Vec::new();
    }
    let name = found.registered.as_ref();
    let server = name.and_then(|name| set?.server(name));
    let launch = server.and_then(|server| server.launch());
    let fetch = launch.map(|launch| launch.fetch.as_slice());
    let fetch = fetch.unwrap_or_default().iter();
    fetch.map(ToString::to_string).collect()
}

/// A server whose ways out are the policy's: one at a URL runs where nothing is known of it.
fn held(server: &Server) -> Option<&Server> {
    match server.transport {
        Transport::Launch(_) | Transport::Listen(_) => Some(server),
        Transport::Url(_) => None,
    }
}
