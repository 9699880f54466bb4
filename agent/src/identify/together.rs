//! One digest of many things, whatever their order and number: what differs in one of them differs in it.
//!
//! The sum of the things' expanded hashes, lane by lane (`LtHash`, Lewi and others, "Securing Update Propagation with
//! Homomorphic Hashing", 2019). A plain sum or exclusive or of hashes would not do: who chooses many of the things
//! finds others with the same sum.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::channel::encode_hex;

/// Lanes of 16 bits, as that paper has them.
const LANES: usize = 1024;
/// Lanes that one hash fills.
const AT_ONCE: usize = 16;

/// What was added so far.
pub struct Together(Box<[u16; LANES]>);

impl Default for Together {
    fn default() -> Self {
        Self(Box::new([0; LANES]))
    }
}

impl fmt::Debug for Together {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sha256())
    }
}

impl Together {
    /// Adds a thing of two parts.
    pub fn add(&mut self, key: &str, value: &str) {
        let key = Sha256::digest(key.as_bytes());
        let thing = Sha256::new().chain_update(key).chain_update(value);
        let thing = thing.finalize();
        let (places, _none) = self.0.as_chunks_mut::<AT_ONCE>();
        for (number, place) in (0_u64..).zip(places) {
            let hash = Sha256::new().chain_update(number.to_le_bytes());
            let hash = hash.chain_update(thing).finalize();
            let (words, _none) = hash.as_slice().as_chunks::<2>();
            for (lane, word) in place.iter_mut().zip(words) {
                *lane = lane.wrapping_add(u16::from_le_bytes(*word));
            }
        }
    }

    /// SHA-256 of the sum, in hex.
    pub fn sha256(&self) -> String {
        let mut digest = Sha256::new();
        for lane in self.0.iter() {
            digest.update(lane.to_le_bytes());
        }
        encode_hex(&digest.finalize())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Together;

    fn of(things: &[(String, String)]) -> String {
        let mut together = Together::default();
        for (key, value) in things {
            together.add(key, value);
        }
        together.sha256()
    }

    #[test]
    fn every_lane_takes_part() {
        let mut together = Together::default();
        together.add("a", "b");
        assert!(together.0.iter().filter(|lane| **lane == 0).count() < 4);
        let first = together.sha256();
        together.add("a", "b");
        assert_ne!(first, together.sha256(), "twice is not once");
        // Where one part ends counts.
        assert_ne!(
            of(&[("a".into(), "b".into())]),
            of(&[("ab".into(), String::new())])
        );
    }

    proptest! {
        #[test]
        fn order_does_not_count_and_each_thing_does(
            things in prop::collection::vec(("[a-c]{0,3}", "[a-c]{0,3}"), 1..12),
            at in any::<prop::sample::Index>(),
        ) {
            let mut turned = things.clone();
            turned.reverse();
            prop_assert_eq!(of(&things), of(&turned));
            let place = at.index(things.len());
            turned = things.clone();
            turned[place].1.push('d');
            prop_assert_ne!(of(&things), of(&turned));
            turned.remove(place);
            prop_assert_ne!(of(&things), of(&turned));
        }
    }
}
