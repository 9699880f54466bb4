//! The kernel programs against real cgroups and sockets: every hook is proved by trying what it
//! refuses. Needs root; a test that cannot run fails.

#[cfg(test)]
mod redirect;
#[cfg(test)]
mod world;
