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

/// The host of the process `caller`, which is at the other end of `client`; `None` where it has gone.
pub(super) async fn host(
    caller: u32,
    client: &Responder,
    hashes: Arc<Hashes>,
    hashing: Arc<Semaphore>,
) -> Option<HostProcess> {
    let mut line = ancestry(caller);
    // What was read by number is of the process that connected only if that one still lives.
    if !client.is_alive() || line.is_empty() {
        return None;
    }
    let host = line.remove(0);
    let pid = host.pid;
    let sha256 = match hashing.try_acquire_owned() {
        Ok(turn) => {
            let reading = spawn_blocking(move || {
                let _turn = turn;
                hashes.of_process(pid)
            });
            let read = timeout(HASHING, reading).await;
            read.ok().and_then(Result::ok).flatten()
        }
        Err(_) => None,
    };
    // Nor does its hash count if its number has become another's meanwhile.
    let still =
        outline(pid, 0).is_some_and(|now| now.started == host.started && now.exe == host.exe);
    Some(HostProcess {
        pid,
        started: host.started,
        exe: host.exe,
        sha256: sha256.filter(|_| still).map(|hash| shown(&hash)),
        ancestors: line
            .into_iter()
            .map(|process| (process.pid, process.exe))
            .collect(),
    })
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

    use super::ancestry;

    #[test]
    fn a_process_comes_from_its_parent() {
        let line = ancestry(std::process::id());
        let first = line.first().expect("a parent");
        assert_eq!(first.pid, parent_id());
        assert!(line.windows(2).all(|pair| pair[0].parent == pair[1].pid));
        assert!(line.len() <= 17);
        assert!(ancestry(u32::MAX).is_empty());
    }
}
