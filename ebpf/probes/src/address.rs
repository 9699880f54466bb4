//! Addresses as the socket hooks see them.

use aya_ebpf::bindings::bpf_sock_addr;
use core::ptr;
use exeat_ebpf_abi::{Address, family};

const LOOPBACK: u32 = u32::from_ne_bytes([127, 0, 0, 1]);
const ONE: u32 = u32::from_ne_bytes([0, 0, 0, 1]);
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// An address as four words in network byte order; IPv4 is mapped.
pub type Words = [u32; 4];

pub const LOOPBACK_V4: Words = [0, 0, MAPPED, LOOPBACK];
pub const LOOPBACK_V6: Words = [0, 0, 0, ONE];

/// The words of an IPv4 address.
#[inline(always)]
pub fn mapped(word: u32) -> Words {
    [0, 0, MAPPED, word]
}

/// As a map's key holds it.
#[inline(always)]
pub fn address(words: Words) -> Address {
    // Both are sixteen bytes without a rule on their values.
    // SAFETY: both are sixteen bytes, and every value of them is valid.
    Address(unsafe { core::mem::transmute::<Words, [u8; 16]>(words) })
}

/// As the kernel's contexts hold it.
#[inline(always)]
pub fn words(address: Address) -> Words {
    // SAFETY: both are sixteen bytes, and every value of them is valid.
    unsafe { core::mem::transmute::<[u8; 16], Words>(address.0) }
}

#[inline(always)]
pub fn is_mapped(words: Words) -> bool {
    words[0] == 0 && words[1] == 0 && words[2] == MAPPED
}

/// 4 or 6, by the address.
#[inline(always)]
pub fn family_of(words: Words) -> u8 {
    if is_mapped(words) {
        family::V4
    } else {
        family::V6
    }
}

#[inline(always)]
pub fn same(a: Words, b: Words) -> bool {
    a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3]
}

#[inline(always)]
pub fn is_loopback(words: Words) -> bool {
    same(words, LOOPBACK_V4) || same(words, LOOPBACK_V6)
}

/// Loopback for an unspecified address, which the kernel would turn into loopback after the hook.
#[inline(always)]
pub fn specific(words: Words) -> Words {
    if words[0] == 0 && words[1] == 0 && words[3] == 0 {
        if words[2] == MAPPED {
            return LOOPBACK_V4;
        }
        if words[2] == 0 {
            return LOOPBACK_V6;
        }
    }
    words
}

/// The address and port in a socket address hook.
///
/// Every access is volatile: merged or widened ones are refused by the verifier.
pub struct Target(pub *mut bpf_sock_addr);

impl Target {
    #[inline(always)]
    pub fn words<const V6: bool>(&self) -> Words {
        let sa = self.0;
        // SAFETY: a field of the context that the kernel called this program with; the verifier checks place and width.
        unsafe {
            if V6 {
                [
                    ptr::read_volatile(&raw const (*sa).user_ip6[0]),
                    ptr::read_volatile(&raw const (*sa).user_ip6[1]),
                    ptr::read_volatile(&raw const (*sa).user_ip6[2]),
                    ptr::read_volatile(&raw const (*sa).user_ip6[3]),
                ]
            } else {
                mapped(ptr::read_volatile(&raw const (*sa).user_ip4))
            }
        }
    }

    #[inline(always)]
    pub fn port(&self) -> u16 {
        // SAFETY: a field of the context that the kernel called this program with; the verifier checks place and width.
        u16::from_be(unsafe { ptr::read_volatile(&raw const (*self.0).user_port) } as u16)
    }

    #[inline(always)]
    pub fn set_port(&self, port: u16) {
        // SAFETY: a field of the context that the kernel called this program with; the verifier checks place and width.
        unsafe { ptr::write_volatile(&raw mut (*self.0).user_port, u32::from(port.to_be())) }
    }

    #[inline(always)]
    pub fn set<const V6: bool>(&self, words: Words) {
        let sa = self.0;
        // SAFETY: a field of the context that the kernel called this program with; the verifier checks place and width.
        unsafe {
            if V6 {
                ptr::write_volatile(&raw mut (*sa).user_ip6[0], words[0]);
                ptr::write_volatile(&raw mut (*sa).user_ip6[1], words[1]);
                ptr::write_volatile(&raw mut (*sa).user_ip6[2], words[2]);
                ptr::write_volatile(&raw mut (*sa).user_ip6[3], words[3]);
            } else {
                ptr::write_volatile(&raw mut (*sa).user_ip4, words[3]);
            }
        }
    }

    /// Points the call at this machine's loopback address of the same family.
    #[inline(always)]
    pub fn set_loopback<const V6: bool>(&self, asked: Words, port: u16) {
        self.set::<V6>(if is_mapped(asked) {
            LOOPBACK_V4
        } else {
            LOOPBACK_V6
        });
        self.set_port(port);
    }

    #[inline(always)]
    pub fn protocol(&self) -> u32 {
        // SAFETY: a field of the context that the kernel called this program with; the verifier checks place and width.
        unsafe { ptr::read_volatile(&raw const (*self.0).protocol) }
    }
}
