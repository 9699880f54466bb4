//! Ingress: datagrams only from whom datagrams may go to. TCP is left to egress, without whose
//! answers no connection comes to be.

use crate::address::is_loopback;
use crate::egress::socket;
use crate::maps::config;
use crate::packet::{Odd, is_on_loopback, parse};
use crate::report::{Refusal, by_packet};
use crate::rule::may_pass_directly;
use crate::workload::of_socket;
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use exeat_ebpf_abi::kind::{self, drop};
use exeat_ebpf_abi::{Owner, protocol};

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
            } else if packet.protocol == protocol::TCP {
                return PASS;
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
