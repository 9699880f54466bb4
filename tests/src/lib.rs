//! The harness of the whole-system tests.
//!
//! A [`Lab`] is a small world: two network namespaces joined by a cable, with the machine under test
//! (daemon, workloads) on one side, and on the other everything that a real machine would reach over
//! the internet: name servers, HTTPS, plain HTTP and opaque TCP servers that record what arrives.
//! Addresses look public but exist in the far namespace only, so nothing leaves the machine and a
//! leak is seen where it lands.

#![forbid(unsafe_code)]

pub mod authority;
pub mod cgroup;
pub mod conformance;
pub mod daemon;
pub mod dns;
pub mod docker;
pub mod files;
pub mod fixtures;
pub mod lab;
pub mod namespace;
pub mod process;
pub mod rivals;
pub mod stdio;
pub mod tcp;
pub mod upstream;
pub mod wait;
pub mod wire;

pub use lab::Lab;
