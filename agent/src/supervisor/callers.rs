//! Who called `exeat run`: the process above it and those that it comes from, read while they live. For the
//! records alone; nothing is decided by it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::processes::{Hashes, outline, shown};
use crate::channel::{HostProcess, Process};
use crate::control::Responder;

/// Ancestors that are named.
const ANCESTORS: usize = 16;
/// Time to hash an executable before a start goes on without: it may lie on a disk that hangs.
const HASHING: Duration = Duration::from_secs(2);

/// Why a host, or the hash of its executable, is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unknown {
    #[error("the process that called had ended")]
    Gone,
    #[error("no process is above the one that called")]
    Alone,
    #[error("its executable was not hashed: as many are being hashed as may be")]
    Busy,
    #[error("its executable was not hashed in time")]
    Late,
    #[error("its executable could not be read")]
    Unread,
    #[error("it ended, or replaced its program, while its executable was hashed")]
    Replaced,
}

/// The host of the process `caller`, which is at the other end of `client`, and what is not known of it.
pub(super) async fn host(
    caller: u32,
    client: &Responder,
    hashes: Arc<Hashes>,
    hashing: Arc<Semaphore>,
) -> (Option<HostProcess>, Option<Unknown>) {
    let mut line = ancestry(caller);
    // What was read by number is of the process that connected only if that one still lives.
    if !client.is_alive() {
        return (None, Some(Unknown::Gone));
    }
    if line.is_empty() {
        return (None, Some(Unknown::Alone));
    }
    let host = line.remove(0);
    let mut hash = hashed(host.pid, hashes, hashing).await;
    // Nor does its hash count if its number has become another's meanwhile.
    let still =
        outline(host.pid, 0).is_some_and(|now| now.started == host.started && now.exe == host.exe);
    if !still {
        hash = Err(Unknown::Replaced);
    }
    let told = HostProcess {
        pid: host.pid,
        started: host.started,
        exe: host.exe,
        sha256: hash.as_ref().ok().map(shown),
        ancestors: line
            .into_iter()
            .map(|process| (process.pid, process.exe))
            .collect(),
    };
    (Some(told), hash.err())
}

async fn hashed(
    pid: u32,
    hashes: Arc<Hashes>,
    hashing: Arc<Semaphore>,
) -> Result<[u8; 32], Unknown> {
    let turn = hashing.try_acquire_owned().map_err(|_none| Unknown::Busy)?;
    let reading = spawn_blocking(move || {
        let _turn = turn;
        hashes.of_process(pid)
    });
    let read = timeout(HASHING, reading).await;
    let read = read.map_err(|_elapsed| Unknown::Late)?;
    read.ok().flatten().ok_or(Unknown::Unread)
}

/// The parent of `pid`, its parent, and so on.
fn ancestry(pid: u32) -> Vec<Process> {
    let mut line = Vec::new();
    let Some(mut child) = outline(pid, 0) else {
        return line;
    };
    while line.len() <= ANCESTORS && child.parent != 0 {
        let Some(parent) = outline(child.parent, 0) else {
            break;
        };
        // If it is still the child's parent after it was read, it was its parent when it was read.
        let again = outline(child.pid, 0);
        if !again.is_some_and(|now| now.started == child.started && now.parent == parent.pid) {
            break;
        }
        child = parent.clone();
        line.push(parent);
    }
    line
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::parent_id;

    use super::*;

    #[test]
    fn a_process_comes_from_its_parent() {
        let line = ancestry(std::process::id());
        let first = line.first().expect("a parent");
        assert_eq!(first.pid, parent_id());
        assert!(line.windows(2).all(|pair| pair[0].parent == pair[1].pid));
        assert!(line.len() <= 17);
        assert!(ancestry(u32::MAX).is_empty());
    }

    #[tokio::test]
    async fn what_keeps_a_hash_from_being_known_is_said() {
        let hashes = || Arc::new(Hashes::default());
        let own = std::process::id();
        let busy = hashed(own, hashes(), Arc::new(Semaphore::new(0))).await;
        assert_eq!(busy, Err(Unknown::Busy));
        let turns = Arc::new(Semaphore::new(1));
        let unread = hashed(u32::MAX, hashes(), Arc::clone(&turns)).await;
        assert_eq!(unread, Err(Unknown::Unread));
        hashed(own, hashes(), turns).await.unwrap();
    }
}
