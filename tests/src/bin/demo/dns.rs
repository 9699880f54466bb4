//! Looks up a name as a program without the C library does: one question to the name server.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::net::UdpSocket;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(5);

/// The IPv4 address of `host`, which may be one already.
pub(crate) async fn look_up(host: &str) -> Result<IpAddr> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let name = Name::from_ascii(format!("{host}.")).context("read a name")?;
    let mut question = Message::new(4242, MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name, RecordType::A));
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect((server(), 53)).await?;
    socket.send(&question.to_vec()?).await?;
    let mut buffer = vec![0; 4096];
    let length = timeout(LIMIT, socket.recv(&mut buffer))
        .await
        .context("no answer")??;
    let answer = Message::from_vec(buffer.get(..length).unwrap_or_default())?;
    let address = answer.answers.iter().find_map(|record| match &record.data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        _ => None,
    });
    match address {
        Some(address) => Ok(address),
        None if answer.metadata.response_code == ResponseCode::NXDomain => {
            bail!("no such name (NXDOMAIN)")
        }
        None => bail!("no address ({})", answer.metadata.response_code),
    }
}

/// The first name server of this machine. Which one it is does not matter to a managed process.
fn server() -> IpAddr {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    text.lines()
        .filter_map(|line| line.strip_prefix("nameserver")?.trim().parse().ok())
        .find(IpAddr::is_ipv4)
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}
