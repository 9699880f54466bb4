//! The proof of enforcement: a managed process tries what is forbidden, on targets that really answer.
//!
//! The daemon opens [`Targets`] on loopback, outside of all management, and starts
//! `exeat internal canary` with their [`Targets::arguments`] in a managed cgroup that is allowed
//! nothing. Without enforcement every attempt would succeed, so a refusal proves something, no
//! packet leaves the machine, and nothing waits for a time-out. [`Targets::judge`] also looks
//! whether anything arrived: what the process says of itself is only half of the proof.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rustix::io::Errno;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::reply::{Attempt, Canary};

/// How long loopback may take where nothing stands in the way.
const LOOPBACK: Duration = Duration::from_secs(2);

/// By when what was sent over loopback before the process ended has arrived.
const SETTLED: Duration = Duration::from_millis(20);

/// What the canary's process writes to its standard output: attempts, as JSON, in this many bytes at most.
pub const MAX_OUTPUT: usize = 16 * 1024;

/// The proof could not be made; nothing is said about enforcement.
#[derive(Debug, Error)]
pub enum CanaryError {
    /// No socket to be refused.
    #[error("open a target for the canary on `{address}`")]
    Open {
        /// Where.
        address: SocketAddr,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The target cannot be reached without enforcement either, so a refusal would prove nothing.
    #[error("reach the canary's target on `{address}` from outside of management")]
    Control {
        /// Where.
        address: SocketAddr,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// What the process wrote is not what it writes.
    #[error("read what the canary's process wrote")]
    Output(#[source] serde_json::Error),
}

/// Sockets that answer whoever is let through to them.
#[derive(Debug)]
pub struct Targets {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
}

impl Targets {
    /// Opens them, and proves that they can be reached by whom nothing forbids it.
    pub async fn open() -> Result<Self, CanaryError> {
        let mut targets = Self {
            tcp: Vec::new(),
            udp: Vec::new(),
        };
        for address in [any_port(Ipv4Addr::LOCALHOST), any_port(Ipv6Addr::LOCALHOST)] {
            let opened = open(address).await;
            match opened {
                Ok((tcp, udp)) => {
                    targets.tcp.push(tcp);
                    targets.udp.push(udp);
                }
                // A machine without IPv6 has nothing to prove there.
                Err(error) if address.is_ipv6() && is_absent(&error) => {}
                Err(source) => return Err(CanaryError::Open { address, source }),
            }
        }
        for listener in &targets.tcp {
            control(listener).await?;
        }
        Ok(targets)
    }

    /// The arguments for `exeat internal canary`.
    pub fn arguments(&self) -> Vec<String> {
        let tcp = self.tcp.iter().map(|socket| ("tcp", socket.local_addr()));
        let udp = self.udp.iter().map(|socket| ("udp", socket.local_addr()));
        tcp.chain(udp)
            .filter_map(|(protocol, address)| Some(format!("{protocol}/{}", address.ok()?)))
            .collect()
    }

    /// What `output`, the process's standard output, and the targets' own sight amount to.
    pub async fn judge(&self, output: &[u8]) -> Result<Canary, CanaryError> {
        let mut attempts: Vec<Attempt> =
            serde_json::from_slice(output).map_err(CanaryError::Output)?;
        let expected = self.tcp.len().saturating_add(self.udp.len());
        attempts.extend(self.arrived().await);
        let enforced = expected > 0
            && attempts.len() == expected
            && attempts.iter().all(|attempt| attempt.refused);
        Ok(Canary { enforced, attempts })
    }

    /// Whatever arrived at a target came past the enforcement.
    async fn arrived(&self) -> Vec<Attempt> {
        let mut arrived = Vec::new();
        for listener in &self.tcp {
            if let Ok(Ok((_, from))) = timeout(SETTLED, listener.accept()).await {
                arrived.push(passed("tcp", from));
            }
        }
        for socket in &self.udp {
            let mut byte = [0];
            if let Ok(Ok((_, from))) = timeout(SETTLED, socket.recv_from(&mut byte)).await {
                arrived.push(passed("udp", from));
            }
        }
        arrived
    }
}

fn any_port(address: impl Into<IpAddr>) -> SocketAddr {
    SocketAddr::new(address.into(), 0)
}

async fn open(address: SocketAddr) -> io::Result<(TcpListener, UdpSocket)> {
    Ok((
        TcpListener::bind(address).await?,
        UdpSocket::bind(address).await?,
    ))
}

fn is_absent(error: &io::Error) -> bool {
    let absent = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL];
    absent
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// A refusal counts only of something that answers: the daemon itself gets through.
async fn control(listener: &TcpListener) -> Result<(), CanaryError> {
    let address = listener.local_addr().map_err(|source| CanaryError::Open {
        address: any_port(Ipv4Addr::LOCALHOST),
        source,
    })?;
    let reach = async {
        let (connected, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        connected?;
        accepted?;
        Ok(())
    };
    let reached = timeout(LOOPBACK, reach)
        .await
        .unwrap_or_else(|elapsed| Err(elapsed.into()));
    reached.map_err(|source| CanaryError::Control { address, source })
}

fn passed(protocol: &str, from: SocketAddr) -> Attempt {
    Attempt {
        tried: format!("{protocol} from {from}"),
        saw: "it arrived".to_owned(),
        refused: false,
        micros: 0,
    }
}

#[cfg(test)]
mod tests;
