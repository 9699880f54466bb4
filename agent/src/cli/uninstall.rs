//! `exeat uninstall`: gives back what the daemon leaves in the kernel, since pins outlive it on purpose.

use std::path::PathBuf;

use exeat_ebpf::{Kernel, KernelError, Layout};
use serde::Serialize;

use super::error::{CliError, Kind};
use super::output::Output;
use crate::config::Config;
use crate::supervisor::cgroups::{find_root, processes, remove};

/// What was given back.
#[derive(Debug, Serialize)]
struct Removed {
    /// The directory of pins.
    pins: PathBuf,
    /// The daemon's cgroup.
    cgroup: PathBuf,
}

/// Detaches and unpins everything and removes the daemon's cgroups. Refuses while the daemon runs, and while processes
/// that it started do: nothing held to a policy is let go by mistake.
pub(super) fn run(config: &Config, output: Output) -> Result<(), CliError> {
    if !rustix::process::geteuid().is_root() {
        return Err(
            CliError::new(Kind::Usage, "only root can detach programs from the kernel")
                .with_next("run it with `sudo`"),
        );
    }
    let failed = |error| CliError::from_error(Kind::Usage, &error);
    let root = find_root().map_err(failed)?;
    let base = root.join(&config.cgroup);
    let layout = Layout {
        bpffs: config.bpffs.clone(),
        managed: base.join("w"),
        gate: base.join("gate"),
        cgroup_root: root,
    };
    if base.exists() {
        let held = processes(&base).map_err(failed)?;
        if !held.is_empty() {
            let pids: Vec<String> = held.iter().take(20).map(u32::to_string).collect();
            let message = format!(
                "{} processes in `{}` are held to the policy: {}",
                held.len(),
                base.display(),
                pids.join(" ")
            );
            return Err(CliError::new(Kind::Refused, message).with_next(
                "stop the daemon with `systemctl stop exeat`, and end what still runs",
            ));
        }
    }
    Kernel::release(&layout).map_err(|error| release_failed(&error))?;
    if base.exists() {
        remove(&base).map_err(failed)?;
    }
    let removed = Removed {
        pins: config.bpffs.clone(),
        cgroup: base,
    };
    output.document(&removed, |_| {
        format!(
            "removed `{}` and `{}`; keys, records and policy are where they were\n",
            removed.pins.display(),
            removed.cgroup.display()
        )
    })
}

fn release_failed(error: &KernelError) -> CliError {
    let failed = CliError::from_error(Kind::Refused, error);
    match error {
        KernelError::Held { .. } => failed.with_next("stop it first: `systemctl stop exeat`"),
        _ => failed,
    }
}
