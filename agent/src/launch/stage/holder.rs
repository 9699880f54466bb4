//! Who has a port.

use std::fs;

/// The process that has a local port, as `process PID (NAME)`.
pub(super) fn of(protocol: &str, port: u16) -> Option<String> {
    let wanted: Vec<String> = ["", "6"]
        .iter()
        .filter_map(|family| fs::read_to_string(format!("/proc/net/{protocol}{family}")).ok())
        .flat_map(|table| inodes(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let holds = descriptors.flatten().any(|descriptor| {
            fs::read_link(descriptor.path()).is_ok_and(|link| {
                wanted
                    .iter()
                    .any(|socket| link.as_os_str() == socket.as_str())
            })
        });
        if holds {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let pid = process.file_name();
            return Some(format!(
                "process {} ({})",
                pid.to_string_lossy(),
                name.trim()
            ));
        }
    }
    None
}

/// Inodes of the sockets bound to a port, in a table as `/proc/net/tcp` (`proc_net(5)`): local address
/// `HEX:PORT` in the second column, inode in the tenth. Connections have their own ports there, but
/// accepted ones have the listener's: it comes first.
fn inodes(table: &str, port: u16) -> Vec<String> {
    let line = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (_, local) = columns.get(1)?.rsplit_once(':')?;
        let inode = columns.get(9).filter(|inode| **inode != "0")?;
        (u16::from_str_radix(local, 16).ok()? == port).then(|| (*inode).to_owned())
    };
    table.lines().skip(1).filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn the_holder_of_a_port_is_named() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        // Another thread of the harness may be between fork and exec, with a copy of the socket.
        let named = |found: Option<String>| found.unwrap().starts_with("process ");
        assert!(named(of("tcp", tcp.local_addr().unwrap().port())));
        assert!(named(of("udp", udp.local_addr().unwrap().port())));
        assert_eq!(of("tcp", 0), None);
    }
}
