//! Other proxies, for measurements side by side: the same way through somebody else's work.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::authority::{Authority, Fault};

const HAPROXY: &str = include_str!("../fixtures/rivals/haproxy.cfg");

/// What every proxy is told.
#[derive(Debug, Clone)]
pub struct Way<'a> {
    /// The name of the upstream server, under which clients call it.
    pub name: &'a str,
    /// Where the proxy listens.
    pub listen: SocketAddr,
    /// Where the upstream server listens.
    pub upstream: SocketAddr,
    /// Threads, where that can be chosen.
    pub threads: u32,
    /// A directory for certificates and configuration.
    pub directory: &'a Path,
}

impl Way<'_> {
    /// Writes the proxy's certificate, signed by `authority`, with its key, and the authority's.
    fn certificates(&self, authority: &Authority) -> Result<(PathBuf, PathBuf)> {
        let leaf = authority.leaf(&[self.name], Fault::Sound)?;
        let both = self.directory.join("proxy.pem");
        fs::write(&both, format!("{}{}", leaf.key_pem, leaf.certificate_pem))
            .context("write the proxy's certificate")?;
        let roots = self.directory.join("proxy-ca.pem");
        fs::write(&roots, authority.pem()).context("write the authority's certificate")?;
        Ok((both, roots))
    }

    /// HAProxy. `launcher` says where it runs (`env`, or `nsenter ... --`); with `haproxy` its
    /// program (Debian's package has it in /usr/sbin). It stays in the foreground.
    pub fn haproxy(
        &self,
        authority: &Authority,
        haproxy: &Path,
        mut launcher: Command,
    ) -> Result<Command> {
        let (certificate, roots) = self.certificates(authority)?;
        let config = self.directory.join("haproxy.cfg");
        fs::write(&config, HAPROXY).context("write haproxy.cfg")?;
        launcher
            .arg(haproxy)
            .args(["-db", "-f"])
            .arg(config)
            .env("THREADS", self.threads.to_string())
            .env("LISTEN", self.listen.to_string())
            .env("UPSTREAM", self.upstream.to_string())
            .env("NAME", self.name)
            .env("CERTIFICATE", certificate)
            .env("AUTHORITY", roots);
        Ok(launcher)
    }

    /// mitmproxy without add-ons, as `cargo xtask` installs it.
    pub fn mitmproxy(
        &self,
        authority: &Authority,
        mitmdump: &Path,
        mut launcher: Command,
    ) -> Result<Command> {
        let (certificate, roots) = self.certificates(authority)?;
        let home = self.directory.join("mitmproxy");
        fs::create_dir_all(&home).context("make mitmproxy's directory")?;
        launcher
            .arg(mitmdump)
            .args([
                "--quiet",
                "--set",
                "connection_strategy=lazy",
                "--set",
                "keep_host_header=true",
            ])
            .args(["--mode", &format!("reverse:https://{}", self.upstream)])
            .args(["--listen-host", &self.listen.ip().to_string()])
            .args(["--listen-port", &self.listen.port().to_string()])
            .arg("--set")
            .arg(format!("confdir={}", home.display()))
            .arg("--set")
            .arg(format!(
                "ssl_verify_upstream_trusted_ca={}",
                roots.display()
            ))
            .arg("--certs")
            .arg(format!("*={}", certificate.display()));
        Ok(launcher)
    }
}
