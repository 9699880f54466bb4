//! TLS on both sides of the gate.

pub mod hello;
pub mod leaf;
pub mod tee;
pub mod upstream;
