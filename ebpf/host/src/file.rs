//! Files as the kernel programs name them.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use exeat_ebpf_abi::File;

/// The file at `path`, links followed.
///
/// The device is the mount's (`/proc/self/mountinfo`), which is what the kernel keeps. `st_dev` would be another on
/// filesystems that make one up for each subvolume (btrfs) or layer (overlayfs).
///
/// # Errors
/// There is no such file, or `/proc` does not say where it is mounted.
pub fn identify(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let device = mount_of(&info).and_then(|mount| device_of(&mounts, mount));
    let device = device.ok_or_else(|| io::Error::other("the file's mount is not in mountinfo"))?;
    let inode = file.metadata()?.ino();
    Ok(File { device, inode })
}

/// The mount's number in `/proc/PID/fdinfo/FD` (proc(5)).
fn mount_of(info: &str) -> Option<u32> {
    let number = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?;
    number.trim().parse().ok()
}

/// The device of `mount` in the kernel's own form (`dev_t` of `include/linux/kdev_t.h`), whose minor number has
/// twenty bits.
fn device_of(mounts: &str, mount: u32) -> Option<u64> {
    let device = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let number: u32 = fields.next()?.parse().ok()?;
        (number == mount).then(|| fields.nth(1)).flatten()
    })?;
    let (major, minor) = device.split_once(':')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    Some(u64::from(major) << 20 | u64::from(minor))
}

#[cfg(test)]
mod tests {
    use super::{device_of, identify, mount_of};
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;
    use std::path::Path;

    #[test]
    fn a_device_is_its_mounts() {
        let mounts =
            "24 1 0:27 / / rw - overlay overlay rw\n36 24 259:300 / /data rw - ext4 /dev/x rw\n";
        assert_eq!(device_of(mounts, 24), Some(27));
        assert_eq!(device_of(mounts, 36), Some(0x1030_012c));
        assert_eq!(device_of(mounts, 1), None);
        assert_eq!(device_of("24 1 0:x / /\n24", 24), None);
        assert_eq!(
            mount_of("pos:\t0\nflags:\t012000000\nmnt_id:\t36\n"),
            Some(36)
        );
        assert_eq!(mount_of("pos:\t0\n"), None);
    }

    #[test]
    fn a_link_is_followed_and_what_is_not_there_is_an_error() {
        let shell = fs::metadata("/bin/sh").unwrap();
        assert_eq!(identify(Path::new("/bin/sh")).unwrap().inode, shell.ino());
        identify(Path::new("/nonexistent")).unwrap_err();
    }
}
