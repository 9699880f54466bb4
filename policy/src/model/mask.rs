//! What records leave out.

use std::sync::Arc;

use super::argument::Pointer;
use crate::fault::Place;

/// An entry of `mask`: what records of some servers do not hold.
#[derive(Debug, Clone)]
pub struct Mask {
    /// The servers that it is about; empty: all.
    pub servers: Vec<Arc<str>>,
    /// Where it stands in the arguments.
    pub args: Vec<Pointer>,
    /// Where it stands in the results.
    pub results: Vec<Pointer>,
    /// Where it is written.
    pub place: Place,
}
