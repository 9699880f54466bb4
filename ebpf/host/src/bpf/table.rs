//! A map of known key and value types, by descriptor.

use super::{Element, address, bpf, command, number};
use exeat_ebpf_abi::Pod;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};

/// A map. Works without privileges, as the kernel checked those when the descriptor was made.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    fd: OwnedFd,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Pod, V: Pod> Table<K, V> {
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let info = super::map_info(fd.as_fd())?;
        // The kernel copies as many bytes as the map says, not as many as we have.
        let (key, value) = (size_of::<K>(), size_of::<V>());
        if usize::try_from(info.key_size) != Ok(key)
            || usize::try_from(info.value_size) != Ok(value)
        {
            return Err(io::Error::other(format!(
                "keys and values have {} and {} bytes, not {key} and {value}",
                info.key_size, info.value_size
            )));
        }
        Ok(Self {
            fd,
            types: PhantomData,
        })
    }

    fn element(&self, key: *const K, value: u64) -> Element {
        Element {
            map: number(self.fd.as_fd()),
            pad: 0,
            key: address(key),
            value,
            flags: 0,
        }
    }

    fn read(&self, command: libc::c_int, key: &K) -> io::Result<Option<V>> {
        let mut value = MaybeUninit::<V>::zeroed();
        let mut attribute = self.element(key, address(value.as_mut_ptr()));
        match bpf(command, &mut attribute) {
            // SAFETY: `Pod` holds for any bytes, and all of them are initialised.
            Ok(_) => Ok(Some(unsafe { value.assume_init() })),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn get(&self, key: &K) -> io::Result<Option<V>> {
        self.read(command::MAP_LOOKUP, key)
    }

    /// Reads and removes in one step.
    pub(crate) fn take(&self, key: &K) -> io::Result<Option<V>> {
        self.read(command::MAP_TAKE, key)
    }

    pub(crate) fn set(&self, key: &K, value: &V) -> io::Result<()> {
        let mut attribute = self.element(key, address(std::ptr::from_ref(value)));
        bpf(command::MAP_UPDATE, &mut attribute).map(drop)
    }

    /// Whether there was something to remove.
    pub(crate) fn remove(&self, key: &K) -> io::Result<bool> {
        let mut attribute = self.element(key, 0);
        match bpf(command::MAP_DELETE, &mut attribute) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn next_key(&self, previous: Option<&K>) -> io::Result<Option<K>> {
        let mut next = MaybeUninit::<K>::zeroed();
        let previous = previous.map_or(std::ptr::null(), std::ptr::from_ref);
        let mut attribute = self.element(previous, address(next.as_mut_ptr()));
        match bpf(command::MAP_NEXT_KEY, &mut attribute) {
            // SAFETY: as in `read`.
            Ok(_) => Ok(Some(unsafe { next.assume_init() })),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All keys, at most `limit`: a map that others change meanwhile may start over.
    pub(crate) fn keys(&self, limit: u32) -> io::Result<Vec<K>> {
        let mut keys = Vec::new();
        let mut previous = None;
        for _ in 0..limit {
            match self.next_key(previous.as_ref())? {
                Some(key) => {
                    keys.push(key);
                    previous = Some(key);
                }
                None => break,
            }
        }
        Ok(keys)
    }
}

/// The sum of a per-CPU counter.
pub(crate) fn per_cpu_sum(map: &OwnedFd, index: u32) -> io::Result<u64> {
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
    let mut values = vec![0_u64; cpus];
    let mut attribute = Element {
        map: number(map.as_fd()),
        pad: 0,
        key: address(&raw const index),
        value: address(values.as_mut_ptr()),
        flags: 0,
    };
    bpf(command::MAP_LOOKUP, &mut attribute)?;
    Ok(values
        .iter()
        .fold(0, |sum: u64, value| sum.saturating_add(*value)))
}
