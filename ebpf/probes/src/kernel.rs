//! Fields of the kernel's own structures, at offsets that the loader found.

use aya_ebpf::helpers::bpf_probe_read_kernel;

/// Reads a field of a kernel structure, zero if it cannot be read.
#[inline(always)]
pub fn field<T: Copy>(base: *const u8, offset: u32, otherwise: T) -> T {
    if base.is_null() {
        return otherwise;
    }
    let place = base.wrapping_add(offset as usize).cast::<T>();
    // SAFETY: the helper fails instead of faulting, whatever the address; a `T: Copy` of integers has no invalid value.
    unsafe { bpf_probe_read_kernel(place) }.unwrap_or(otherwise)
}

#[inline(always)]
pub fn pointer(base: *const u8, offset: u32) -> *const u8 {
    field::<usize>(base, offset, 0) as *const u8
}

/// The address behind a socket that the verifier tracks, as a mere number: arithmetic on the tracked
/// pointer is forbidden, and copying it through a helper makes it forget what it is.
#[inline(always)]
pub fn untracked<T>(tracked: *mut T) -> *const u8 {
    let slot = tracked;
    field::<usize>((&raw const slot).cast(), 0, 0) as *const u8
}
