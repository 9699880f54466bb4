//! Many connections at once: none is lost, none gets another's destination.

use crate::world::{SHARED, World};
use exeat_ebpf::{Action, Protocol};
use rustix::net::sockopt::set_socket_linger;
use std::env;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::process::Command;
use std::time::Duration;

const CONNECTIONS: u32 = 200_000;
const THREADS: u32 = 8;
const VARIABLE: &str = "EXEAT_TEST_STORM";

/// Not a test of its own: the client, when the test starts it with the variable.
#[test]
fn client() {
    if env::var_os(VARIABLE).is_none() {
        return;
    }
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            std::thread::spawn(move || {
                (0..CONNECTIONS / THREADS).for_each(|turn| connect(thread, turn));
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Asks for an address that nobody else asks for, and is told which it was.
fn connect(thread: u32, turn: u32) {
    let number = thread * (CONNECTIONS / THREADS) + turn;
    let address = Ipv4Addr::from(0x0a00_0000 + number.wrapping_mul(37) % 0x00ff_ffff);
    let port = u16::try_from(1_000 + number % 60_000).unwrap();
    let asked = SocketAddr::V4(SocketAddrV4::new(address, port));
    let mut stream = TcpStream::connect(asked).unwrap();
    // Without the wait after closing, ports would run out.
    set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    let mut said = [0; 64];
    let mut length = 0;
    while !said[..length].ends_with(b"\n") {
        let read = stream.read(&mut said[length..]).unwrap();
        assert!(read > 0, "closed early");
        length += read;
    }
    let said = std::str::from_utf8(&said[..length]).unwrap();
    let said = said.trim().split_once(' ').unwrap().1;
    assert_eq!(said, format!("{address} {port} 4"));
}

#[test]
fn no_connection_is_lost_or_confused() {
    let world: &World = &SHARED;
    let workload = world.workload("storm");
    let net = "10.0.0.0".parse().unwrap();
    let gate = &world.gate;
    gate.allow_range(
        workload.number,
        net,
        8,
        None,
        Protocol::Tcp,
        Action::Redirect,
    )
    .unwrap();
    let status = Command::new("sh")
        .args([
            "-c",
            "echo $$ > \"$1/cgroup.procs\" && exec \"$2\" --exact storm::client",
            "sh",
        ])
        .arg(&workload.cgroup)
        .arg(env::current_exe().unwrap())
        .env(VARIABLE, "1")
        .status()
        .unwrap();
    assert!(status.success());
    // Each of them was heard here, before it was told anything.
    assert_eq!(workload.arrivals(), CONNECTIONS);
}
