//! What the running kernel offers.

use crate::btf::Btf;
use crate::{bpf, cgroup};
use std::fs;
use std::path::PathBuf;

/// Oldest kernel that has all that the programs call for: network namespace cookies in sockops.
const OLDEST: (u32, u32) = (5, 15);

/// From here on `kernel.unprivileged_bpf_disabled` leaves the use of maps that a process was given alone
/// (`kernel/bpf/syscall.c`, `__sys_bpf`); before, it refuses every request of a process without `CAP_BPF`.
const GIVEN_MAPS: (u32, u32) = (5, 19);

/// What was found; everything mandatory is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// Major and minor version of the kernel.
    pub kernel: (u32, u32),
    /// Where cgroup2 is mounted.
    pub cgroup_root: PathBuf,
    /// Refused connects fail with ECONNREFUSED; else with EPERM (before Linux 6.1).
    pub refusal_errno: bool,
}

/// Something mandatory that is not there; displays as one sentence with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Missing(pub(crate) String);

/// Looks for everything that the programs need.
///
/// # Errors
/// All that is missing.
pub fn probe() -> Result<Features, Vec<Missing>> {
    let mut missing = Vec::new();
    // SAFETY: the call has no arguments and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        missing.push(Missing(
            "loading kernel programs takes root: run it as root".to_owned(),
        ));
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = version(&release).unwrap_or((0, 0));
    if kernel < OLDEST {
        missing.push(Missing(format!(
            "Linux {} is too old: boot {}.{} or newer",
            release.trim(),
            OLDEST.0,
            OLDEST.1
        )));
    }
    let setting = fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled");
    missing.extend(given_maps(kernel, setting.unwrap_or_default().trim()));
    if let Err(error) = Btf::running() {
        missing.push(error);
    }
    match cgroup::mount_point() {
        Ok(cgroup_root) if missing.is_empty() => Ok(Features {
            kernel,
            cgroup_root,
            refusal_errno: bpf::has_set_retval(),
        }),
        Ok(_) => Err(missing),
        Err(error) => {
            missing.push(error);
            Err(missing)
        }
    }
}

/// What keeps an unprivileged gate from the maps that it is handed.
fn given_maps(kernel: (u32, u32), setting: &str) -> Option<Missing> {
    if kernel >= GIVEN_MAPS || setting == "0" {
        return None;
    }
    // 1 cannot be taken back while the machine runs.
    let remedy = if setting == "1" {
        "boot with it at 0"
    } else {
        "set it to 0 (sysctl)"
    };
    Some(Missing(format!(
        "Linux {}.{} with kernel.unprivileged_bpf_disabled={setting} keeps the unprivileged gate from the kernel's \
         maps: {remedy}, or boot {}.{} or newer",
        kernel.0, kernel.1, GIVEN_MAPS.0, GIVEN_MAPS.1
    )))
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|byte: char| !byte.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{given_maps, version};

    #[test]
    fn older_kernels_need_a_setting_for_the_gates_maps() {
        assert_eq!(given_maps((5, 15), "0"), None);
        assert_eq!(given_maps((5, 19), "2"), None);
        let said = |setting| given_maps((5, 18), setting).unwrap().to_string();
        assert!(
            said("2").contains("=2 keeps the unprivileged gate"),
            "{}",
            said("2")
        );
        assert!(said("2").contains("set it to 0"), "{}", said("2"));
        assert!(said("1").contains("boot with it at 0"), "{}", said("1"));
    }

    #[test]
    fn versions_of_all_kinds() {
        for (text, expected) in [
            ("6.18.44-custom\n", Some((6, 18))),
            ("5.15.0-203-generic", Some((5, 15))),
            ("7.2-rc1", Some((7, 2))),
            ("", None),
            ("x.y", None),
        ] {
            assert_eq!(version(text), expected, "{text}");
        }
    }
}
