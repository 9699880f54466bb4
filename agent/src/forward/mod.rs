//! What leaves: everything here takes a permit, which only `decide` can make.

pub mod dial;
pub mod tunnel;
