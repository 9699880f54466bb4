//! `connect`: TCP goes to the gate or nowhere, DNS to the resolver, other UDP waits for its packets.

use crate::address::{Target, Words, address, is_loopback, specific};
use crate::guard;
use crate::listener::is_the_gates;
use crate::maps::{CLIENT, Storage, config, set_retval};
use crate::report::{Refusal, by_process};
use crate::rule::action_for;
use crate::workload::{Subject, is_cut, subject};
use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_ktime_get_ns,
    generated,
};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use exeat_ebpf_abi::{Config, Origin, action, family, kind, protocol};

pub const PASS: i32 = 1;
const REFUSE: i32 = 0;
const ECONNREFUSED: i32 = 111;
const DNS: u16 = 53;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    connect::<false>(&ctx)
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    connect::<true>(&ctx)
}

/// Refuses a call with the error of a closed port, where the kernel lets a program choose; else
/// with EPERM.
#[inline(always)]
pub fn refuse() -> i32 {
    if set_retval() != 0 {
        // SAFETY: a helper that takes a number, allowed in this program type where `set_retval` says so.
        unsafe { generated::bpf_set_retval(-ECONNREFUSED) };
    }
    REFUSE
}

/// A call on a socket, taken apart.
pub struct Call<'a> {
    pub ctx: &'a SockAddrContext,
    pub target: Target,
    pub config: &'static Config,
    pub workload: u32,
    pub words: Words,
    pub port: u16,
    pub protocol: u8,
}

impl Call<'_> {
    /// Reports and refuses.
    #[inline(always)]
    pub fn refuse(&self, kind: u32, detail: u32) -> i32 {
        by_process(Refusal {
            kind,
            workload: self.workload,
            words: self.words,
            port: self.port,
            protocol: self.protocol,
            detail,
        });
        refuse()
    }

    /// The call is made where the gate listens.
    #[inline(always)]
    pub fn is_at_home(&self) -> bool {
        // SAFETY: the context is the one that the kernel called this program with.
        let cookie = unsafe { generated::bpf_get_netns_cookie(self.ctx.as_ptr()) };
        self.config.netns != 0 && cookie == self.config.netns
    }

    /// The call is meant for a port of the gate's on loopback.
    #[inline(always)]
    pub fn is_to(&self, port: u16) -> bool {
        self.port == port && is_loopback(self.words)
    }

    #[inline(always)]
    pub fn is_dns(&self) -> bool {
        self.port == DNS
    }

    /// Notes what was asked for, and sends the call to loopback.
    #[inline(always)]
    pub fn redirect<const V6: bool>(&self, port: u16) -> i32 {
        if !is_the_gates(
            self.ctx.as_ptr(),
            self.config,
            self.words,
            port,
            self.protocol,
        ) {
            let kind = if self.protocol == protocol::UDP {
                kind::REFUSED_SEND
            } else {
                kind::REFUSED_CONNECT
            };
            return self.refuse(kind, kind::refused::NO_GATE);
        }
        // SAFETY: a field of the context that the kernel called this program with, of one type in every variant of the union.
        let sk = unsafe { (*self.ctx.sock_addr).__bindgen_anon_1.sk };
        if sk.is_null() {
            return refuse();
        }
        // SAFETY: the socket is what the kernel gave this program, and not null.
        let origin = unsafe { Storage(&CLIENT).make(sk) };
        if origin.is_null() {
            aya_log_ebpf::warn!(self.ctx, "no memory for a socket's destination: refused");
            return refuse();
        }
        let note = Origin {
            workload: self.workload,
            tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
            uid: bpf_get_current_uid_gid() as u32,
            port: self.port,
            family: if V6 { family::V6 } else { family::V4 },
            protocol: self.protocol,
            address: address(self.words),
            // SAFETY: a helper without arguments.
            cgroup: unsafe { bpf_get_current_cgroup_id() },
            // SAFETY: the context is the one that the kernel called this program with.
            cookie: unsafe { generated::bpf_get_socket_cookie(self.ctx.as_ptr()) },
            // SAFETY: a helper without arguments.
            at_ns: unsafe { bpf_ktime_get_ns() },
        };
        // SAFETY: not null, and plain data that lives as long as the socket.
        unsafe { *origin = note };
        self.target.set_loopback::<V6>(self.words, port);
        PASS
    }
}

#[inline(always)]
fn connect<const V6: bool>(ctx: &SockAddrContext) -> i32 {
    let Some(config) = config() else { return PASS };
    let target = Target(ctx.sock_addr);
    let words = specific(target.words::<V6>());
    let port = target.port();
    let number = target.protocol();
    let protocol = if number > 255 { 255 } else { number as u8 };
    let mut call = Call {
        ctx,
        target,
        config,
        workload: 0,
        words,
        port,
        protocol,
    };
    match subject(ctx.sock_addr) {
        Subject::Nobody => return unmanaged::<V6>(&call),
        Subject::Workload(workload) => call.workload = workload,
        Subject::Foreign { workload, owner } => {
            call.workload = workload;
            return call.refuse(kind::FOREIGN_SOCKET, owner);
        }
    }
    if is_cut(call.workload) {
        return call.refuse(kind::REFUSED_CONNECT, kind::refused::CUT);
    }
    match protocol {
        protocol::TCP => tcp::<V6>(&call),
        protocol::UDP => udp::<V6>(&call),
        _ => call.refuse(kind::REFUSED_CONNECT, 0),
    }
}

/// The gate's port is for redirected connections. Nobody dials it, so that nobody can meet a note
/// that another's connection left behind.
#[inline(always)]
fn unmanaged<const V6: bool>(call: &Call<'_>) -> i32 {
    if call.protocol != protocol::TCP {
        return PASS;
    }
    if call.config.proxy_port != 0 && call.is_to(call.config.proxy_port) && call.is_at_home() {
        return call.refuse(kind::PROXY_DIALLED, 0);
    }
    guard::unmanaged::<V6>(call)
}

#[inline(always)]
fn tcp<const V6: bool>(call: &Call<'_>) -> i32 {
    if !call.is_at_home() {
        return call.refuse(kind::FOREIGN_NETNS, 0);
    }
    if call.is_to(call.config.proxy_port) || call.is_to(call.config.dns_port) {
        return call.refuse(kind::PROXY_DIALLED, 0);
    }
    if call.is_dns()
        || action_for(call.workload, call.words, call.port, protocol::TCP) == action::REDIRECT
    {
        return call.redirect::<V6>(call.config.proxy_port);
    }
    call.refuse(kind::REFUSED_CONNECT, 0)
}

#[inline(always)]
fn udp<const V6: bool>(call: &Call<'_>) -> i32 {
    if call.is_dns() {
        if !call.is_at_home() {
            return call.refuse(kind::FOREIGN_NETNS, 0);
        }
        return call.redirect::<V6>(call.config.dns_port);
    }
    if call.is_to(call.config.dns_port) {
        return call.refuse(kind::PROXY_DIALLED, 0);
    }
    // Resolvers connect UDP sockets to order addresses, and send nothing. What is sent after all
    // meets the egress program.
    PASS
}
