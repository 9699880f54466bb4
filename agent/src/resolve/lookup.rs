//! From a name to judged addresses: cache, budget, upstream, class; and the proxy's look-up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use tokio::time::Instant;

use super::Name;
use super::cache::{Family, Found};
use super::class::{self, Class};
use super::fault::{ResolveFault, UpstreamFault};
use super::outcome::RefusedAddress;
use super::server::Resolver;
use super::special::{self, Treatment};
use super::upstream::{self, Patience};
use super::{NameGrant, Oracle};

/// Addresses of one name and type with where they came from.
pub(super) struct Lookup {
    pub(super) found: Arc<Found>,
    pub(super) ttl: u32,
    pub(super) cached: bool,
}

pub(super) enum LookupFault {
    Overloaded,
    TooManyNames,
    Upstream(Arc<UpstreamFault>, u32),
}

impl<O: Oracle> Resolver<O> {
    /// Resolves a name that policy allows, for a proxy that is about to dial.
    ///
    /// Both families, IPv6 first as upstream ordered them; only addresses whose class the grant
    /// covers (`private` is the rule's flag). One family's failure is tolerated if the other has
    /// addresses.
    pub async fn resolve_checked(
        &self,
        name: &Name,
        private: bool,
    ) -> Result<Vec<IpAddr>, ResolveFault> {
        let shown = || name.to_string();
        let grant = NameGrant {
            private,
            ..NameGrant::default()
        };
        match special::treatment(name) {
            Treatment::Loopback if private => {
                return Ok(vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]);
            }
            Treatment::Loopback => {
                let address = Ipv4Addr::LOCALHOST.into();
                return Err(ResolveFault::Refused {
                    name: shown(),
                    address,
                    class: Class::Loopback,
                });
            }
            treatment if is_kept_here(treatment, &grant) => {
                return Err(ResolveFault::Reserved { name: shown() });
            }
            Treatment::Ordinary | Treatment::PrivateOnly | Treatment::Never => {}
        }
        let (v6, v4) = tokio::join!(
            self.look_up(None, name, Family::V6),
            self.look_up(None, name, Family::V4)
        );
        let (mut addresses, mut refused, mut exists, mut fault) = (vec![], vec![], false, None);
        for lookup in [v6, v4] {
            match lookup {
                Ok(lookup) => {
                    let (good, bad) = self.judge(&lookup.found.addresses, private);
                    addresses.extend(good);
                    refused.extend(bad);
                    exists |= lookup.found.exists;
                }
                // Only workloads have a budget of names.
                Err(LookupFault::Overloaded | LookupFault::TooManyNames) => {
                    fault = Some(ResolveFault::Overloaded { name: shown() });
                }
                Err(LookupFault::Upstream(cause, _)) => {
                    fault = Some(ResolveFault::Upstream {
                        name: shown(),
                        cause,
                    });
                }
            }
        }
        match (addresses.is_empty(), refused.first(), fault) {
            (false, _, _) => Ok(addresses),
            (true, Some(&RefusedAddress { address, class }), _) => Err(ResolveFault::Refused {
                name: shown(),
                address,
                class,
            }),
            (true, None, Some(fault)) => Err(fault),
            (true, None, None) if exists => Err(ResolveFault::NoAddress { name: shown() }),
            (true, None, None) => Err(ResolveFault::NoName { name: shown() }),
        }
    }

    pub(super) fn judge(
        &self,
        addresses: &[IpAddr],
        private: bool,
    ) -> (Vec<IpAddr>, Vec<RefusedAddress>) {
        let own = self.own.load();
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for address in addresses {
            let class = class::classify(*address, &own);
            if class::permitted(class, private) {
                good.push(*address);
            } else {
                bad.push(RefusedAddress {
                    address: *address,
                    class,
                });
            }
        }
        (good, bad)
    }

    /// `workload` is `None` for the proxy, which asks only for names that were asked before it.
    pub(super) async fn look_up(
        &self,
        workload: Option<u32>,
        name: &Name,
        family: Family,
    ) -> Result<Lookup, LookupFault> {
        let now = Instant::now();
        if let Some((found, left)) = self.cache.get(name, family, now) {
            let ttl = u32::try_from(left.as_secs()).unwrap_or(self.limits.max_ttl);
            return Ok(Lookup {
                found,
                ttl,
                cached: true,
            });
        }
        // Who waits for what is asked already costs no question: a program that begins hundreds of connections at once looks
        // up one name as often.
        let joins = self.cache.is_under_way(name, family);
        let budget = if joins { &self.joining } else { &self.budget };
        let place = match workload {
            Some(workload) => budget.enter(workload, now),
            None => budget.enter_proxy(),
        };
        let _place = place.ok_or(LookupFault::Overloaded)?;
        if !joins && workload.is_some_and(|workload| !self.budget.spend_fresh(workload, now)) {
            return Err(LookupFault::TooManyNames);
        }
        let servers = self.upstreams.load_full();
        let patience = Patience {
            attempt: self.limits.attempt,
            total: self.limits.total,
            rounds: self.limits.rounds,
            max_ttl: self.limits.max_ttl,
            max_negative_ttl: self.limits.max_negative_ttl,
        };
        let resolve = || upstream::resolve(&servers, patience, name, family);
        match self.cache.share(name, family, resolve).await {
            Ok(found) => Ok(Lookup {
                ttl: found.ttl,
                found,
                cached: false,
            }),
            Err((fault, dropped)) => Err(LookupFault::Upstream(fault, dropped)),
        }
    }
}

/// Whether a name that policy allows is still not asked upstream.
pub(super) fn is_kept_here(treatment: Treatment, grant: &NameGrant) -> bool {
    match treatment {
        Treatment::Ordinary => false,
        Treatment::PrivateOnly => !grant.private,
        Treatment::Loopback | Treatment::Never => true,
    }
}
