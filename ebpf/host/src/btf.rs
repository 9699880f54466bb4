//! Offsets of the running kernel's structures, from its BTF (Documentation/bpf/btf.rst).
//!
//! The programs are compiled once and run on many kernels; Rust has no relocations for that, so the
//! loader writes the offsets into constants before the verifier looks.

use crate::Missing;
use std::fs;

const PATH: &str = "/sys/kernel/btf/vmlinux";
const STRUCT: u32 = 4;
const UNION: u32 = 5;

/// The type section, indexed.
pub(crate) struct Btf {
    data: Vec<u8>,
    /// Position of each type; type 0 is void.
    types: Vec<usize>,
    strings: usize,
}

impl Btf {
    /// Reads the running kernel's.
    pub(crate) fn running() -> Result<Self, Missing> {
        let data = fs::read(PATH).map_err(|error| {
            Missing(format!(
                "the kernel does not describe its types in {PATH} ({error}): boot one that is built with CONFIG_DEBUG_INFO_BTF"
            ))
        })?;
        Self::parse(data).ok_or_else(|| {
            Missing(format!(
                "{PATH} cannot be read as BTF: boot a kernel of a released version"
            ))
        })
    }

    fn parse(data: Vec<u8>) -> Option<Self> {
        let header = word(&data, 4)?;
        let (offset, length) = (word(&data, 8)?, word(&data, 12)?);
        let strings = index(header)?.checked_add(index(word(&data, 16)?)?)?;
        let mut position = index(header)?.checked_add(index(offset)?)?;
        let end = position.checked_add(index(length)?)?;
        let mut types = vec![0];
        while position < end {
            types.push(position);
            let info = word(&data, position.checked_add(4)?)?;
            let count = index(info & 0xffff)?;
            let extra = match kind(info) {
                // INT, VAR, DECL_TAG
                1 | 14 | 17 => 4,
                // ARRAY
                3 => 12,
                // STRUCT, UNION, DATASEC, ENUM64
                4 | 5 | 15 | 19 => count.checked_mul(12)?,
                // ENUM, FUNC_PROTO
                6 | 13 => count.checked_mul(8)?,
                _ => 0,
            };
            position = position.checked_add(12)?.checked_add(extra)?;
        }
        Some(Self {
            data,
            types,
            strings,
        })
    }

    fn is_named(&self, offset: u32, name: &str) -> bool {
        index(offset)
            .and_then(|offset| self.data.get(self.strings.checked_add(offset)?..))
            .and_then(|rest| rest.strip_prefix(name.as_bytes()))
            .is_some_and(|rest| rest.first() == Some(&0))
    }

    fn structure(&self, name: &str) -> Option<usize> {
        self.types.iter().copied().skip(1).find(|position| {
            word(&self.data, position.saturating_add(4)).map(kind) == Some(STRUCT)
                && word(&self.data, *position).is_some_and(|offset| self.is_named(offset, name))
        })
    }

    /// The offset of a member, in bytes; members of unnamed structures count as the outer's own.
    pub(crate) fn offset(&self, structure: &str, member: &str) -> Result<u32, Missing> {
        self.structure(structure)
            .and_then(|position| self.member(position, member, 4))
            .map(|bits| bits / 8)
            .ok_or_else(|| {
                Missing(format!(
                    "the kernel's `{structure}` has no `{member}`: boot a kernel that this version of Exeat knows"
                ))
            })
    }

    fn member(&self, position: usize, name: &str, depth: u32) -> Option<u32> {
        let info = word(&self.data, position.checked_add(4)?)?;
        if !matches!(kind(info), STRUCT | UNION) {
            return None;
        }
        // With the kind flag set, the upper byte is a bit field's size.
        let mask = if info >> 31 == 1 {
            0x00ff_ffff
        } else {
            u32::MAX
        };
        for entry in 0..index(info & 0xffff)? {
            let entry = position
                .checked_add(12)?
                .checked_add(entry.checked_mul(12)?)?;
            let offset = word(&self.data, entry.checked_add(8)?)? & mask;
            let named = word(&self.data, entry)?;
            if self.is_named(named, name) {
                return Some(offset);
            }
            if depth > 0 && self.is_named(named, "") {
                let inner = index(word(&self.data, entry.checked_add(4)?)?)?;
                let inner = self.types.get(inner).copied()?;
                if let Some(found) = self.member(inner, name, depth - 1) {
                    return offset.checked_add(found);
                }
            }
        }
        None
    }
}

const fn kind(info: u32) -> u32 {
    (info >> 24) & 0x1f
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn index(value: u32) -> Option<usize> {
    usize::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::Btf;

    #[test]
    fn rejects_what_is_not_btf() {
        for bytes in [vec![], vec![0xff; 24], b"\x9f\xeb\x01\0".to_vec()] {
            assert!(Btf::parse(bytes).is_none());
        }
    }

    #[test]
    fn finds_members_of_the_running_kernel() {
        let btf = Btf::running().unwrap();
        assert!(
            btf.offset("mm_struct", "arg_start").unwrap() > 0,
            "inside an unnamed structure"
        );
        assert!(btf.offset("task_struct", "mm").unwrap() > 0);
        btf.offset("task_struct", "no_such_member").unwrap_err();
        btf.offset("no_such_structure", "mm").unwrap_err();
    }
}
