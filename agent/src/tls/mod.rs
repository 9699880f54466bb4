//! TLS on both sides of the gate.

pub mod leaf;
pub mod tee;
pub mod upstream;
