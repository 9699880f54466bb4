//! Exeat's kernel programs: they select, redirect and refuse; they never decide by name. Every
//! match is over integers that user space put into a map.
//!
//! Nothing here may pass a packet or a connection of a managed workload by default: an entry that
//! is missing, a store that fails and a header that is not understood all refuse.
#![no_std]
#![no_main]

mod address;
mod arrival;
mod connect;
mod egress;
mod guard;
mod ingress;
mod kernel;
mod listener;
mod lookup;
mod maps;
mod name;
mod packet;
mod process;
mod report;
mod rule;
mod send;
mod sock_create;
mod sock_ops;
mod workload;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier proves that this cannot be reached: an endless loop would not load.
    loop {}
}

// Reading kernel memory and sending signals are reserved for programs under the GPL; these programs
// are offered under it as well as under Apache-2.0.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
