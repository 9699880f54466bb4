//! What leaves: opening a connection takes a permit, which only `decide` can make, and everything that leaves the
//! proof that the audit log knows of it.

pub mod body;
pub mod credential;
pub mod dial;
pub mod headers;
pub mod open;
pub mod outlet;
mod percent;
pub mod stream;
pub mod tunnel;
pub mod upstream;
pub mod whole;
