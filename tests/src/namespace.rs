//! Network namespaces: made with ip(8), entered with nsenter(1) or by a thread of its own.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::must;

/// A named network namespace, removed on drop.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace with its loopback interface up.
    pub fn create(name: &str) -> Result<Self> {
        must("ip", &["netns", "add", name])?;
        let made = Self {
            name: name.to_owned(),
        };
        made.ip(&["link", "set", "lo", "up"])?;
        Ok(made)
    }

    /// Its name, as ip(8) knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Runs `ip -n NAME arguments`.
    pub fn ip(&self, arguments: &[&str]) -> Result<()> {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend_from_slice(arguments);
        must("ip", &all).map(drop)
    }

    /// A command that runs `program` in this namespace, under its own pid.
    ///
    /// Not `ip netns exec`, which hides the mounts of cgroup2 and bpffs below a /sys of its own.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path().display()))
            .arg("--")
            .arg(program)
            // Cargo's, for tests: no user has it, and it is one of those that load code into a process.
            .env_remove("LD_LIBRARY_PATH");
        command
    }

    /// Does `work` on a thread that is in this namespace. Sockets that it makes stay there.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let file = File::open(self.path()).with_context(|| format!("open {}", self.name))?;
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("enter {}", self.name))?;
                work()
            });
            thread
                .join()
                .map_err(|_panic| anyhow!("a thread in {} panicked", self.name))?
        })
    }

    /// Listens on `address` in this namespace; to be called within a runtime.
    pub fn listen(&self, address: SocketAddr) -> Result<tokio::net::TcpListener> {
        let listener = self.within(|| {
            let made =
                TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
            made.set_nonblocking(true)
                .context("make a listener non-blocking")?;
            Ok(made)
        })?;
        tokio::net::TcpListener::from_std(listener).context("use a listener")
    }

    /// Binds a UDP socket in this namespace; to be called within a runtime.
    pub fn bind_udp(&self, address: SocketAddr) -> Result<tokio::net::UdpSocket> {
        let socket = self.within(|| {
            let made = UdpSocket::bind(address).with_context(|| format!("bind {address}"))?;
            made.set_nonblocking(true)
                .context("make a socket non-blocking")?;
            Ok(made)
        })?;
        tokio::net::UdpSocket::from_std(socket).context("use a socket")
    }

    /// Connects from within this namespace; to be called within a runtime.
    pub fn connect(&self, address: SocketAddr) -> Result<tokio::net::TcpStream> {
        let stream = self.within(|| {
            let made = TcpStream::connect(address).with_context(|| format!("connect {address}"))?;
            made.set_nonblocking(true)
                .context("make a stream non-blocking")?;
            Ok(made)
        })?;
        tokio::net::TcpStream::from_std(stream).context("use a stream")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Processes that still run in it keep it alive; nothing more can be done about that here.
        let _gone = must("ip", &["netns", "del", self.name.as_str()]);
    }
}
