//! A small world of random policies and requests, and a naive reading of both, for tests and for a fuzz target.

pub(crate) mod arguments;
pub(crate) mod bytes;
pub(crate) mod compared;
pub(crate) mod conditions;
pub(crate) mod evaluator;
pub(crate) mod limited;
pub(crate) mod people;
pub(crate) mod question;
pub(crate) mod uris;
pub(crate) mod world;
