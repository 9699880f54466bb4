//! An opaque TCP server that sends back what it gets, and remembers it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// The server; it ends on drop.
#[derive(Debug)]
pub struct Echo {
    address: Option<SocketAddr>,
    got: Arc<Mutex<Vec<Vec<u8>>>>,
    task: JoinHandle<()>,
}

impl Echo {
    /// Serves `listener`.
    pub fn serve(listener: TcpListener) -> Self {
        let got = Arc::new(Mutex::new(Vec::new()));
        let address = listener.local_addr().ok();
        let task = tokio::spawn(accept(listener, Arc::clone(&got)));
        Self { address, got, task }
    }

    /// Where it listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// What each connection has sent so far, in the order in which they were accepted. A
    /// connection that was accepted and sent nothing is an empty entry.
    pub fn got(&self) -> Vec<Vec<u8>> {
        self.got
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, got: Arc<Mutex<Vec<Vec<u8>>>>) {
    let mut connections = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        let index = {
            let mut all = got.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(Vec::new());
            all.len() - 1
        };
        let got = Arc::clone(&got);
        connections.spawn(async move {
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                let bytes = buffer.get(..length).unwrap_or_default();
                if let Some(entry) = got
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_mut(index)
                {
                    entry.extend_from_slice(bytes);
                }
                if stream.write_all(bytes).await.is_err() {
                    break;
                }
            }
        });
    }
}
