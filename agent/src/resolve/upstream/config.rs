//! Which servers to ask: the system's resolv.conf.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// The most servers taken from a file or a list.
pub(in crate::resolve) const MAX_SERVERS: usize = 8;
const PORT: u16 = 53;

/// What a resolv.conf says that matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// The servers in order, at most eight.
    pub servers: Vec<SocketAddr>,
    /// Lines that name a server which cannot be used, as `line: text`.
    pub ignored: Vec<String>,
}

/// Reads the text of a resolv.conf (resolv.conf(5)).
///
/// Only `nameserver` lines matter: names are asked as workloads ask them, so search lists and
/// their options are the workload's own business. `scope` turns the interface name of a scoped
/// address (`fe80::1%eth0`) into its index.
pub fn parse_resolv_conf(text: &str, scope: impl Fn(&str) -> Option<u32>) -> ResolvConf {
    let mut conf = ResolvConf::default();
    for (number, line) in (1_usize..).zip(text.lines()) {
        let mut words = line.split_ascii_whitespace();
        // The keyword must start the line; comments start with `#` or `;`.
        if !line.starts_with("nameserver") || words.next() != Some("nameserver") {
            continue;
        }
        let server = words.next().and_then(|word| parse_server(word, &scope));
        match server {
            Some(server) if conf.servers.len() < MAX_SERVERS => {
                if !conf.servers.contains(&server) {
                    conf.servers.push(server);
                }
            }
            Some(_) | None => conf
                .ignored
                .push(format!("{number}: {}", line.escape_debug())),
        }
    }
    conf
}

fn parse_server(word: &str, scope: &impl Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    if let Some((address, zone)) = word.split_once('%') {
        let address: Ipv6Addr = address.parse().ok()?;
        let index = zone.parse().ok().or_else(|| scope(zone))?;
        return Some(SocketAddrV6::new(address, PORT, 0, index).into());
    }
    let address: IpAddr = word.parse().ok()?;
    // glibc takes 0.0.0.0 for this machine; here it would be no address at all.
    (!address.is_unspecified() && !address.is_multicast()).then(|| SocketAddr::new(address, PORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_and_the_rest_is_not() {
        let text = "# nameserver 9.9.9.9\nsearch corp.example\nnameserver 127.0.0.53\n\
                    nameserver\t2001:db8::1 # comment\n nameserver 1.1.1.1\nnameservers 8.8.8.8\n\
                    nameserver fe80::1%eth0\nnameserver fe80::2%7\nnameserver fe80::3%nope\n\
                    nameserver 10.0.0.1:5353\nnameserver\nnameserver 0.0.0.0\nnameserver 127.0.0.53\n";
        let conf = parse_resolv_conf(text, |name| (name == "eth0").then_some(2));
        let servers: Vec<String> = conf.servers.iter().map(ToString::to_string).collect();
        assert_eq!(
            servers,
            [
                "127.0.0.53:53",
                "[2001:db8::1]:53",
                "[fe80::1%2]:53",
                "[fe80::2%7]:53"
            ]
        );
        assert_eq!(conf.ignored.len(), 4, "{:?}", conf.ignored);
    }

    #[test]
    fn the_list_is_bounded() {
        let lines: Vec<String> = (1..40).map(|n| format!("nameserver 10.0.0.{n}")).collect();
        let text = lines.join(
            "
",
        );
        assert_eq!(
            parse_resolv_conf(&text, |_| None).servers.len(),
            MAX_SERVERS
        );
    }
}
