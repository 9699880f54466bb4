//! The lab: two namespaces, an authority, a name server, and the servers that a test asks for.
//!
//! ```text
//!  inside (daemon, workloads)                outside (the world)
//!  lo, in0 10.77.0.2/24, fd77::2  ──veth──  out0 10.77.0.1/24, fd77::1
//!     default route ─────────────────────►  lo: WORLD addresses, LAN, METADATA
//! ```

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

use crate::authority::{Authority, Fault};
use crate::cgroup::mount;
use crate::dns::FakeDns;
use crate::namespace::Namespace;
use crate::tcp::Echo;
use crate::upstream::{Manner, Upstream};

/// Where the name server listens, port 53.
pub const DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 215, 53));

/// An address of the world that looks public; nothing listens there unless a test lets it.
pub const WORLD: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 215, 14));

/// A second one, for tests where two names must not share an address.
pub const WORLD_OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 215, 15));

/// One of the new protocol.
pub const WORLD_V6: IpAddr =
    IpAddr::V6(Ipv6Addr::new(0x2606, 0x2800, 0x21f, 0xcb07, 0, 0, 0, 0x14));

/// A private address beyond the machine: somebody's intranet.
pub const LAN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 78, 0, 5));

/// Where clouds keep their instances' credentials.
pub const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

/// The machine under test as its neighbours know it.
pub const MACHINE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));

static LABS: AtomicU32 = AtomicU32::new(0);

/// The lab; everything in it ends on drop.
#[expect(
    missing_debug_implementations,
    reason = "its authority holds a private key"
)]
pub struct Lab {
    /// Signs the certificates of the lab's servers.
    pub authority: Authority,
    /// The name server for everything.
    pub dns: FakeDns,
    /// The machine under test.
    pub inside: Namespace,
    /// The world.
    pub outside: Namespace,
    name: String,
    directory: TempDir,
}

impl Lab {
    /// Makes a lab; to be called within a runtime, as root.
    pub fn new() -> Result<Self> {
        as_many_descriptors_as_may_be()?;
        let number = LABS.fetch_add(1, Ordering::SeqCst);
        let name = format!("exl{}n{number}", process::id());
        let outside = Namespace::create(&format!("{name}o"))?;
        let inside = Namespace::create(&format!("{name}i"))?;
        cable(&inside, &outside)?;
        let directory = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .permissions(readable())
            .tempdir()
            .context("make the lab's directory")?;
        let authority = Authority::new("Exeat lab authority")?;
        fs::write(directory.path().join("world-ca.pem"), authority.pem())
            .context("write the authority's certificate")?;
        let dns = FakeDns::serve(&outside, SocketAddr::new(DNS, 53))?;
        fs::write(
            directory.path().join("resolv.conf"),
            format!("nameserver {DNS}\n"),
        )
        .context("write a resolv.conf")?;
        Ok(Self {
            authority,
            dns,
            inside,
            outside,
            name,
            directory,
        })
    }

    /// A name that no other lab of this machine has; for cgroups and pins.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The gate's pid.
    pub fn gate(&self) -> Result<u32> {
        let processes = self.cgroup()?.join("gate/cgroup.procs");
        let text = fs::read_to_string(&processes)
            .with_context(|| format!("read {}", processes.display()))?;
        let first = text.lines().next().context("find the gate")?;
        first.parse().context("read the gate's pid")
    }

    /// Where its daemon's cgroups are, the gate's and the workloads'.
    pub fn cgroup(&self) -> Result<PathBuf> {
        Ok(mount()?.join(&self.name))
    }

    /// The lab's directory. Readable by everyone, since servers run without rights.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// An HTTPS server for `names` at `address`, reachable under each of the names.
    pub fn https(&self, names: &[&str], address: SocketAddr) -> Result<Upstream> {
        self.tls(
            names,
            address,
            &["h2", "http/1.1"],
            Fault::Sound,
            Manner::Http,
        )
    }

    /// The same with a choice of ALPN, certificate and manner.
    pub fn tls(
        &self,
        names: &[&str],
        address: SocketAddr,
        protocols: &[&str],
        fault: Fault,
        manner: Manner,
    ) -> Result<Upstream> {
        let config = self.authority.leaf(names, fault)?.server(protocols, None)?;
        self.publish(names, address.ip());
        Upstream::serve(self.outside.listen(address)?, Some(config), manner)
    }

    /// A plain HTTP server at `address`, reachable under each of the names.
    pub fn http(&self, names: &[&str], address: SocketAddr, manner: Manner) -> Result<Upstream> {
        self.publish(names, address.ip());
        Upstream::serve(self.outside.listen(address)?, None, manner)
    }

    /// An opaque TCP server at `address`.
    pub fn echo(&self, address: SocketAddr) -> Result<Echo> {
        Ok(Echo::serve(self.outside.listen(address)?))
    }

    fn publish(&self, names: &[&str], address: IpAddr) {
        for name in names.iter().filter(|name| name.parse::<IpAddr>().is_err()) {
            self.dns.points(name, &[address]);
        }
    }
}

fn readable() -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt as _;
    fs::Permissions::from_mode(0o755)
}

fn cable(inside: &Namespace, outside: &Namespace) -> Result<()> {
    let far = outside.name();
    inside.ip(&[
        "link", "add", "in0", "type", "veth", "peer", "name", "out0", "netns", far,
    ])?;
    let ends = [
        (inside, "in0", "10.77.0.2/24", "fd77::2/64"),
        (outside, "out0", "10.77.0.1/24", "fd77::1/64"),
    ];
    for (side, link, v4, v6) in ends {
        side.ip(&["addr", "add", v4, "dev", link])?;
        side.ip(&["-6", "addr", "add", v6, "dev", link, "nodad"])?;
        side.ip(&["link", "set", link, "up"])?;
    }
    for address in [DNS, WORLD, WORLD_OTHER, LAN, METADATA] {
        outside.ip(&["addr", "add", &format!("{address}/32"), "dev", "lo"])?;
    }
    outside.ip(&[
        "-6",
        "addr",
        "add",
        &format!("{WORLD_V6}/128"),
        "dev",
        "lo",
        "nodad",
    ])?;
    inside.ip(&["route", "add", "default", "via", "10.77.0.1"])?;
    inside.ip(&["-6", "route", "add", "default", "via", "fd77::1"])
}

/// For this process and the daemons that it starts: whoever runs tests may have a soft limit of 1,024, and some start
/// hundreds of servers at once.
fn as_many_descriptors_as_may_be() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).context("raise the limit of descriptors")
}

#[cfg(test)]
mod tests;
