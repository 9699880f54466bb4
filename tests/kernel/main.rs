//! The kernel programs against real cgroups and sockets: every hook is proved by trying what it
//! refuses. Needs root; a test that cannot run fails.

#[cfg(test)]
mod datagram;
#[cfg(test)]
mod foreign;
#[cfg(test)]
mod guard;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod packet;
#[cfg(test)]
mod process;
#[cfg(test)]
mod redirect;
#[cfg(test)]
mod remains;
#[cfg(test)]
mod scope;
#[cfg(test)]
mod sockets;
#[cfg(test)]
mod storm;
#[cfg(test)]
mod world;
