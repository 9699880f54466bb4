//! What leaves: everything here takes a permit, which only `decide` can make.

pub mod body;
pub mod dial;
pub mod tunnel;
pub mod upstream;
