//! Which listeners are asked whether they speak MCP, how many at once and for how long: nobody's keep others' from it.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Listening;
use super::probe::{self, Spoken};

/// Most listeners that are asked.
const MOST: usize = 256;
/// Listeners that are asked at once.
const AT_ONCE: usize = 32;
/// For all of them.
const LIMIT: Duration = Duration::from_mins(1);

/// What came of asking.
#[derive(Debug)]
pub struct Heard {
    /// Those that speak MCP, in the order of addresses.
    pub spoken: Vec<(Listening, Spoken)>,
    /// How many were not asked, or were not done when the time for it was over.
    pub unasked: usize,
}

/// Asks those that there is room and time for.
pub async fn ask_all(sockets: &[Listening]) -> Heard {
    each(sockets, probe::ask, sleep(LIMIT)).await
}

/// Asks until time is `over`.
async fn each<A>(
    sockets: &[Listening],
    ask: impl Fn(SocketAddr) -> A,
    over: impl Future<Output = ()>,
) -> Heard
where
    A: Future<Output = Option<Spoken>> + Send + 'static,
{
    let mut over = pin!(over);
    let mut chosen = in_turn(sockets).into_iter().take(MOST);
    let mut asking = JoinSet::new();
    let mut heard = Heard {
        spoken: Vec::new(),
        unasked: sockets.len(),
    };
    loop {
        while asking.len() < AT_ONCE
            && let Some(socket) = chosen.next()
        {
            let answer = ask(socket.reached());
            asking.spawn(async move { (socket, answer.await) });
        }
        let asked = tokio::select! {
            biased;
            asked = asking.join_next() => asked,
            // Those that are not done are let go with the set.
            () = &mut over => None,
        };
        match asked {
            Some(Ok((socket, spoken))) => {
                heard.unasked = heard.unasked.saturating_sub(1);
                heard.spoken.extend(spoken.map(|spoken| (socket, spoken)));
            }
            Some(Err(error)) => tracing::error!(%error, "asking a listener"),
            None => break,
        }
    }
    heard.spoken.sort_by_key(|(socket, _)| socket.address);
    heard
}

/// One of each user, then the second of each, and so on: who opens many pushes out none of the others'.
fn in_turn(sockets: &[Listening]) -> Vec<Listening> {
    let mut of_users: HashMap<u32, usize> = HashMap::new();
    let mut all: Vec<(usize, Listening)> = sockets
        .iter()
        .map(|socket| {
            let own = of_users.entry(socket.uid).or_default();
            let turn = *own;
            *own = turn.saturating_add(1);
            (turn, *socket)
        })
        .collect();
    all.sort_by_key(|(turn, socket)| (*turn, socket.uid));
    all.into_iter().map(|(_, socket)| socket).collect()
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::sync::{Barrier, watch};
    use tokio::task::yield_now;

    use super::*;

    const MCP: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"protocolVersion\":\"2025-11-25\",\"serverInfo\":{\"name\":\"x\"}}}";

    fn socket(uid: u32, address: SocketAddr) -> Listening {
        let inode = u64::from(address.port());
        Listening {
            address,
            uid,
            inode,
        }
    }

    /// So many listeners of a user on every address, which come before those on loopback.
    fn everywhere(uid: u32, count: u16) -> Vec<Listening> {
        let ports = 20_000..20_000 + count;
        ports
            .map(|port| socket(uid, SocketAddr::from(([0, 0, 0, 0], port))))
            .collect()
    }

    fn spoken() -> Spoken {
        Spoken {
            path: "/mcp",
            name: None,
        }
    }

    #[test]
    fn users_take_turns() {
        let local = |uid, port| socket(uid, SocketAddr::from(([127, 0, 0, 1], port)));
        let mut all = everywhere(1001, 300);
        all.extend([local(1000, 1), local(1000, 2), local(0, 3)]);
        let order = in_turn(&all);
        assert_eq!(order.len(), all.len());
        let first = [
            local(0, 3),
            local(1000, 1),
            all[0],
            local(1000, 2),
            all[1],
            all[2],
        ];
        assert_eq!(order[..6], first);
        assert_eq!(order[6..], all[3..300]);
    }

    /// None of them answers before all were asked.
    #[tokio::test]
    async fn listeners_are_asked_at_once() {
        let together = Arc::new(Barrier::new(AT_ONCE));
        let mut sockets = Vec::new();
        let mut listeners = JoinSet::new();
        for _ in 0..AT_ONCE {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            sockets.push(socket(1000, listener.local_addr().unwrap()));
            let together = Arc::clone(&together);
            listeners.spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = vec![0; 4096];
                let length = stream.read(&mut buffer).await.unwrap();
                assert!(length > 0, "it is asked something");
                together.wait().await;
                stream.write_all(MCP.as_bytes()).await.unwrap();
            });
        }
        sockets.sort_by_key(|socket| socket.address);
        let heard = ask_all(&sockets).await;
        let speak: Vec<Listening> = heard.spoken.iter().map(|(socket, _)| *socket).collect();
        assert_eq!((speak, heard.unasked), (sockets, 0));
    }

    #[tokio::test]
    async fn what_is_asked_is_bounded() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
        let ask = |_| {
            let asked = now.fetch_add(1, Ordering::SeqCst).saturating_add(1);
            most.fetch_max(asked, Ordering::SeqCst);
            let now = Arc::clone(&now);
            async move {
                yield_now().await;
                now.fetch_sub(1, Ordering::SeqCst);
                None
            }
        };
        let heard = each(&everywhere(1000, 300), ask, pending()).await;
        assert_eq!(most.into_inner(), AT_ONCE);
        assert_eq!((heard.spoken, heard.unasked), (Vec::new(), 300 - MOST));
    }

    /// Listen on every address, and never answer: others' servers are found, and the asking ends.
    #[tokio::test]
    async fn slow_listeners_hold_up_nobody_elses() {
        let server = socket(1000, SocketAddr::from(([127, 0, 0, 1], 3001)));
        let mut sockets = everywhere(1001, 256);
        sockets.push(server);
        let (asked, mut slow) = watch::channel(0);
        let over = async move {
            // As many as may be asked beside each other.
            slow.wait_for(|slow| *slow == AT_ONCE).await.unwrap();
        };
        let heard = each(
            &sockets,
            |address| {
                let is_server = address.port() == 3001;
                if !is_server {
                    asked.send_modify(|asked| *asked += 1);
                }
                async move {
                    if !is_server {
                        pending::<()>().await;
                    }
                    Some(spoken())
                }
            },
            over,
        )
        .await;
        assert_eq!(heard.spoken, [(server, spoken())]);
        assert_eq!(heard.unasked, 256);
    }
}
