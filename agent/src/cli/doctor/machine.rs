//! What the kernel and the system give.

use std::fs;
use std::path::Path;

use nix::unistd::User;
use rustix::fs::statfs;
use rustix::process::geteuid;
use rustix::system::uname;

use super::{Check, fail, ok, warn};
use crate::config::Config;
use crate::control::chain;
use crate::launch::stage::{Reach, reach};
use crate::supervisor::cgroups;

/// The oldest kernel that the programs load on.
const OLDEST: (u32, u32) = (5, 15);

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS: u64 = 0xcafe_4a11;

/// Looks at everything that does not need the daemon.
pub(super) fn checks(config: &Config) -> Vec<Check> {
    let mut checks = vec![
        kernel(),
        cgroup2(),
        bpffs(),
        btf(),
        landlock(),
        account(&config.gate.user),
    ];
    checks.extend(programs());
    checks.extend(tables(config));
    checks.push(authority(config));
    checks
}

fn kernel() -> Check {
    let uname = uname();
    let release = uname.release().to_string_lossy().into_owned();
    match version(&release) {
        Some(version) if version >= OLDEST => ok("kernel", release),
        _ => fail("kernel", release, "use Linux 5.15 or newer"),
    }
}

/// Major and minor number of a release such as `6.18.0-1-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn cgroup2() -> Check {
    match cgroups::find_root() {
        Ok(root) => ok("cgroup2", format!("mounted at {}", root.display())),
        Err(error) => fail(
            "cgroup2",
            chain(&error),
            "mount it: `mount -t cgroup2 none /sys/fs/cgroup`, or boot with \
             `systemd.unified_cgroup_hierarchy=1`",
        ),
    }
}

fn bpffs() -> Check {
    let path = Path::new("/sys/fs/bpf");
    let mounted = statfs(path)
        .is_ok_and(|found| u64::try_from(found.f_type).is_ok_and(|kind| kind == BPF_FS));
    if mounted {
        return ok("bpffs", format!("mounted at {}", path.display()));
    }
    let remedy = "mount it: `mount -t bpf bpf /sys/fs/bpf`";
    fail(
        "bpffs",
        format!("not mounted at {}", path.display()),
        remedy,
    )
}

fn btf() -> Check {
    let path = Path::new("/sys/kernel/btf/vmlinux");
    if path.exists() {
        return ok("btf", path.display().to_string());
    }
    let remedy =
        "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as every large distribution's is";
    fail("btf", format!("{} is missing", path.display()), remedy)
}

/// Whether a server can be kept out of other processes of its user.
fn landlock() -> Check {
    let subject = "landlock";
    match reach() {
        Reach::All => ok(
            subject,
            "keeps servers out of other processes of their user",
        ),
        Reach::Memory => warn(
            subject,
            "keeps servers out of the memory of other processes of their user, not from signalling them, nor from \
             their sockets without a path",
            "use Linux 6.12 or newer, or give each server a user of its own (`launch.user`)",
        ),
        Reach::Nothing => warn(
            subject,
            "not there: a server can write into other processes of its user, unless Yama forbids it",
            "use Linux 5.19 or newer with `landlock` in the kernel's `lsm=`, or give each server a user of its own \
             (`launch.user`)",
        ),
    }
}

fn account(user: &str) -> Check {
    let subject = "gate user";
    if user.bytes().all(|byte| byte.is_ascii_digit()) {
        return ok(subject, format!("uid {user}"));
    }
    match User::from_name(user) {
        Ok(Some(found)) if found.uid.is_root() => fail(
            subject,
            format!("`{user}` is root"),
            "name another account in `gate.user`",
        ),
        Ok(Some(found)) => ok(subject, format!("`{user}`, uid {}", found.uid)),
        Ok(None) => fail(
            subject,
            format!("there is no account `{user}`"),
            format!(
                "make it: `useradd --system --no-create-home --shell /usr/sbin/nologin {user}`"
            ),
        ),
        Err(errno) => fail(
            subject,
            format!("the account `{user}` could not be looked up: {errno}"),
            "see whether `getent passwd` works",
        ),
    }
}

/// What the programs themselves need; only root may ask the kernel.
fn programs() -> Vec<Check> {
    let subject = "programs";
    if !geteuid().is_root() {
        let remedy = "run `sudo exeat doctor`";
        return vec![warn(
            subject,
            "only root may ask what the kernel takes",
            remedy,
        )];
    }
    match exeat_ebpf::probe() {
        Ok(features) => {
            let mut checks = vec![ok(subject, "this kernel takes all of them"), sockets()];
            if !features.refusal_errno {
                checks.push(warn(
                    "refusals",
                    "a refused connection fails with EPERM here, and not with ECONNREFUSED",
                    "nothing has to be done; newer kernels say it as programs expect it",
                ));
            }
            checks
        }
        // Each says its own remedy.
        Err(missing) => missing
            .iter()
            .map(|missing| {
                fail(
                    subject,
                    missing.to_string(),
                    "nothing is enforced without it",
                )
            })
            .collect(),
    }
}

/// Whether what a server has open ends with its disconnection.
fn sockets() -> Check {
    let subject = "sockets";
    match exeat_ebpf::try_destroying() {
        Ok(()) => ok(subject, "this kernel closes those of others"),
        Err(error) => warn(
            subject,
            chain(&error),
            "until then what a server has open when it is disconnected, or first managed, stays open until its \
             processes end, though no packet passes by it",
        ),
    }
}

/// How full the tables in the kernel are; nothing where no daemon has made them.
fn tables(config: &Config) -> Option<Check> {
    let subject = "tables";
    if !geteuid().is_root() || !config.bpffs.exists() {
        return None;
    }
    let fills = match exeat_ebpf::fill(&config.bpffs) {
        Ok(fills) => fills,
        Err(error) => {
            let remedy = "start the daemon, which makes them";
            return Some(warn(subject, chain(&error), remedy));
        }
    };
    let shown: Vec<String> = fills
        .iter()
        .map(|fill| format!("{} {} of {}", fill.entries, fill.what, fill.limit))
        .collect();
    let shown = shown.join(", ");
    let scarce = |fill: &exeat_ebpf::Fill| fill.entries >= fill.limit as usize / 10 * 9;
    Some(if fills.iter().any(scarce) {
        let remedy = "what finds no place is refused: end workloads, or name fewer places";
        warn(subject, shown, remedy)
    } else {
        ok(subject, shown)
    })
}

fn authority(config: &Config) -> Check {
    let path = config.state_dir.join("ca.pem");
    let place = path.display();
    let begins = "the daemon makes it when it first starts";
    match fs::read_to_string(&path) {
        Ok(text) if text.contains("-----BEGIN CERTIFICATE-----") => {
            ok("ca", format!("its certificate is in {place}"))
        }
        Ok(_) => fail("ca", format!("{place} holds no certificate"), begins),
        Err(error) => warn("ca", format!("{place}: {error}"), begins),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_as_distributions_write_them() {
        for (release, expected) in [
            ("6.18.0", Some((6, 18))),
            ("5.15.0-91-generic", Some((5, 15))),
            ("6.1-rc3", Some((6, 1))),
            ("5.4+", Some((5, 4))),
            ("generic", None),
            ("", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
        assert!(version("5.4.0").unwrap() < OLDEST);
        assert!(version("10.0.1").unwrap() > OLDEST);
    }
}
