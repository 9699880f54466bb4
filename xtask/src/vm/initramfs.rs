//! What a guest starts with: a file system of two programs and a few modules, in the kernel's own archive format
//! ("newc", Documentation/driver-api/early-userspace/buffer-format.rst).

use super::packages::Kernel;
use anyhow::{Context as _, Result, bail};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Modules in an order in which each finds what it needs; what a kernel lacks is built in or not there. First what
/// the guest's files come by, then what the tests use: interfaces, protocols that must stay shut, and what the
/// socket tables are read through.
const MODULES: [&str; 30] = [
    "virtio",
    "virtio_ring",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "netfs",
    "fscache",
    "9pnet",
    "9pnet_virtio",
    "9p",
    "overlay",
    "veth",
    "tun",
    "dummy",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "raw_diag",
    "unix_diag",
    "netlink_diag",
    "af_packet_diag",
    "mptcp_diag",
    "crc32c_generic",
    "libcrc32c",
    "udp_tunnel",
    "ip6_udp_tunnel",
    "sctp",
    "vsock",
    "vmw_vsock_virtio_transport_common",
    "vsock_loopback",
];

/// The guest's first program.
const INIT: &str = include_str!("init.sh");

/// Writes the archive to `target`.
pub(super) fn write(busybox: &Path, kernel: &Kernel, target: &Path) -> Result<()> {
    let mut archive = Archive::default();
    for directory in [
        "bin", "dev", "host", "layer", "modules", "proc", "root", "sys",
    ] {
        archive.directory(directory);
    }
    let program = fs::read(busybox).context("read busybox")?;
    archive.file("bin/busybox", 0o755, &program)?;
    archive.file("init", 0o755, INIT.as_bytes())?;
    let mut found = HashMap::new();
    gather(&kernel.modules, &mut found)?;
    let there = MODULES
        .iter()
        .filter_map(|name| Some((name, found.get(*name)?)));
    for (index, (name, path)) in there.enumerate() {
        archive.file(
            &format!("modules/{index:02}-{name}.ko"),
            0o644,
            &module(path)?,
        )?;
    }
    fs::write(target, archive.finish()).with_context(|| format!("write {}", target.display()))
}

/// Every module by its name, as the kernel says it.
fn gather(folder: &Path, found: &mut HashMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry.context("list modules")?;
        if entry.file_type().context("list modules")?.is_dir() {
            gather(&entry.path(), found)?;
        } else if let Some((name, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            found.insert(name.replace('-', "_"), entry.path());
        }
    }
    Ok(())
}

fn module(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(path).with_context(|| format!("read {}", path.display())),
    };
    let mut command = Command::new(program);
    let output = command
        .args(["--decompress", "--stdout"])
        .arg(path)
        .output();
    let output = output.with_context(|| format!("start {program}"))?;
    if !output.status.success() {
        bail!("{program} cannot read {}", path.display());
    }
    Ok(output.stdout)
}

/// The archive so far.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    const DIRECTORY: u32 = 0o040_755;
    const FILE: u32 = 0o100_000;

    fn directory(&mut self, name: &str) {
        self.head(name, Self::DIRECTORY, 0);
    }

    fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        let length = u32::try_from(content.len()).context("fit a file into the archive")?;
        self.head(name, Self::FILE | mode, length);
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn finish(mut self) -> Vec<u8> {
        self.head("TRAILER!!!", 0, 0);
        self.bytes
    }

    fn head(&mut self, name: &str, mode: u32, length: u32) {
        self.entries += 1;
        let name_length = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        // Number, mode, user, group, links, time, size, four parts of device numbers, length of the name, checksum.
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            length,
            0,
            0,
            0,
            0,
            name_length,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_heads_and_contents_on_multiples_of_four() {
        let mut archive = Archive::default();
        archive.directory("dev");
        archive.file("init", 0o755, b"hello").unwrap();
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with("07070100000001000041ed"), "{text}");
        assert!(text.contains("init\0\0hello\0\0\x00070701"), "{text:?}");
        assert!(text.ends_with("TRAILER!!!\0\0\0\0"), "{text:?}");
    }
}
