//! Names: answers the DNS of workloads, binds what they were given in the kernel, and resolves
//! again for the proxy before it dials.
//!
//! Order of a query: `message` parses it strictly, [`Oracle::may_resolve`] asks policy before
//! anything is sent, `special` keeps names that must not leave, `cache` and `upstream` find the
//! addresses, `class` refuses those that the grant does not cover, [`Oracle::bind`] puts the rest
//! into the kernel map, and only then is the answer built.

mod budget;
mod cache;
mod class;
#[cfg(test)]
mod fake;
mod fault;
mod frame;
mod lookup;
mod message;
#[cfg(any(test, feature = "oracle"))]
pub mod oracle;
mod outcome;
mod server;
mod settings;
mod special;
mod upstream;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use class::{Class, Own, classify, permitted};
pub use exeat_policy::{Name, Protocol};
pub use fault::{BindFault, ResolveFault, SettingsFault, UpstreamFault};
pub use frame::{FrameFault, FrameLimits, Frames};
pub use message::MessageFault;
pub use outcome::{Answer, DnsOutcome, DnsResult, RefusedAddress, Transport, describe_type};
pub use server::{Resolver, asked, unserved};
pub use settings::{Limits, Settings};
pub use upstream::{ResolvConf, parse_resolv_conf};

/// What policy grants for one name to one workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameGrant {
    /// The name may resolve to private addresses (`private: true`); see [`permitted`].
    pub private: bool,
    /// The answer is a synthetic address; nothing is asked upstream.
    pub synthetic: bool,
    /// Ports of the rules that allow the name.
    pub ports: Vec<(u16, Protocol)>,
}

/// What the resolver asks of the agent: policy before, the kernel after.
pub trait Oracle: Send + Sync {
    /// Whether the workload may resolve the name; asked before any upstream query, and again after
    /// one, so that what is bound is what policy grants then.
    ///
    /// `None` is answered with NXDOMAIN.
    fn may_resolve(&self, workload: u32, name: &Name) -> Option<NameGrant>;

    /// Puts (workload, address, port) of every address and granted port into the kernel map.
    ///
    /// Called before the answer leaves; a fault is answered with SERVFAIL and no address.
    fn bind(
        &self,
        workload: u32,
        name: &Name,
        addresses: &[IpAddr],
        grant: &NameGrant,
    ) -> Result<(), BindFault>;

    /// Whether the workload has synthetic addresses for this name already.
    fn is_synthetic(&self, workload: u32, name: &Name) -> bool;

    /// The synthetic addresses that mean this name for this workload, bound in the kernel.
    fn synthetic(&self, workload: u32, name: &Name) -> Result<(Ipv4Addr, Ipv6Addr), BindFault>;
}

impl<T: Oracle + ?Sized> Oracle for std::sync::Arc<T> {
    fn may_resolve(&self, workload: u32, name: &Name) -> Option<NameGrant> {
        T::may_resolve(self, workload, name)
    }

    fn bind(
        &self,
        workload: u32,
        name: &Name,
        addresses: &[IpAddr],
        grant: &NameGrant,
    ) -> Result<(), BindFault> {
        T::bind(self, workload, name, addresses, grant)
    }

    fn is_synthetic(&self, workload: u32, name: &Name) -> bool {
        T::is_synthetic(self, workload, name)
    }

    fn synthetic(&self, workload: u32, name: &Name) -> Result<(Ipv4Addr, Ipv6Addr), BindFault> {
        T::synthetic(self, workload, name)
    }
}
