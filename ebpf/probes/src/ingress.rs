//! Ingress: datagrams only from whom datagrams may go to, and connections only from the gate, which has
//! decided on them. Anybody else, on this machine or another, finds no server.

use crate::address::is_loopback;
use crate::egress::socket;
use crate::lookup::{release, sender};
use crate::maps::config;
use crate::packet::{Odd, Packet, begins, is_on_loopback, parse};
use crate::report::{Refusal, by_packet};
use crate::rule::may_pass_directly;
use crate::workload::{is_cut, of_socket};
use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated;
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use exeat_ebpf_abi::kind::{self, drop};
use exeat_ebpf_abi::{Config, Owner, protocol};

const PASS: i32 = 1;
const DROP: i32 = 0;

#[cgroup_skb]
pub fn ingress(ctx: SkBuffContext) -> i32 {
    let Some(config) = config() else { return DROP };
    let sk = socket(&ctx);
    let owner = if sk.is_null() {
        Owner {
            workload: 0,
            tgid: 0,
            uid: 0,
            pad: 0,
        }
    } else {
        // SAFETY: a full socket that the kernel gave this program, and not null.
        unsafe { of_socket(config, sk) }
    };
    let (words, port, number, detail) = match parse(&ctx) {
        Err(Odd {
            detail,
            source,
            protocol,
            ..
        }) => (source, 0, protocol, detail),
        Ok(packet) => {
            let reason = if owner.workload == 0 {
                drop::UNKNOWN_WORKLOAD
            } else if is_cut(owner.workload) {
                drop::CUT
            } else if packet.protocol == protocol::TCP {
                if !begins(&ctx, &packet) || is_by_gate(&ctx, config, &packet) {
                    return PASS;
                }
                drop::NOT_BY_GATE
            } else if is_on_loopback(&ctx)
                && is_loopback(packet.source)
                && packet.source_port == config.dns_port
                || may_pass_directly(owner.workload, packet.source, packet.source_port)
            {
                return PASS;
            } else {
                drop::DESTINATION
            };
            (packet.source, packet.source_port, packet.protocol, reason)
        }
    };
    let kind = kind::INGRESS_DROP;
    let workload = owner.workload;
    by_packet(
        Refusal {
            kind,
            workload,
            words,
            port,
            protocol: number,
            detail,
        },
        owner,
    );
    DROP
}

/// The socket that opens the connection is one of the gate's. A packet from another machine, or from
/// another network namespace, has no such socket here, whatever address it carries.
#[inline(always)]
fn is_by_gate(ctx: &SkBuffContext, config: &Config, packet: &Packet) -> bool {
    if !is_on_loopback(ctx) {
        return false;
    }
    let found = sender(ctx.as_ptr(), packet);
    if found.is_null() {
        return false;
    }
    // SAFETY: the socket came from a look-up, is not null and is still held.
    let id = unsafe { generated::bpf_sk_cgroup_id(found.cast()) };
    release(found);
    id != 0 && id == config.gate
}
