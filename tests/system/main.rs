//! The daemon from end to end: real workloads on one side, servers of every manner on the other.
//! What counts is what arrives, what the client was told, and what the audit log says. Needs root.

#![cfg_attr(
    test,
    expect(
        clippy::too_many_lines,
        clippy::similar_names,
        reason = "a test is one story, told from its beginning to its end"
    )
)]

#[cfg(test)]
mod allowed;
#[cfg(test)]
mod breakers;
#[cfg(test)]
mod cause;
#[cfg(test)]
mod certificates;
#[cfg(test)]
mod containers;
#[cfg(test)]
mod credentials;
#[cfg(test)]
mod disconnected;
#[cfg(test)]
mod discover;
#[cfg(test)]
mod drafted;
#[cfg(test)]
mod fetching;
#[cfg(test)]
mod greetings;
#[cfg(test)]
mod hand;
#[cfg(test)]
mod held;
#[cfg(test)]
mod http2;
#[cfg(test)]
mod hung;
#[cfg(test)]
mod imported;
#[cfg(test)]
mod issuers;
#[cfg(test)]
mod killed;
#[cfg(test)]
mod labelled;
#[cfg(test)]
mod lacking;
#[cfg(test)]
mod life;
#[cfg(test)]
mod listening;
#[cfg(test)]
mod matched;
#[cfg(test)]
mod names;
#[cfg(test)]
mod place;
#[cfg(test)]
mod provision;
#[cfg(test)]
mod records;
#[cfg(test)]
mod refused;
#[cfg(test)]
mod replaced;
#[cfg(test)]
mod runtimes;
#[cfg(test)]
mod servers;
#[cfg(test)]
mod serving;
#[cfg(test)]
mod signing;
#[cfg(test)]
mod site;
#[cfg(test)]
mod starts;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod told;
#[cfg(test)]
mod trusting;
#[cfg(test)]
mod units;
#[cfg(test)]
mod unregistered;
#[cfg(test)]
mod upstreams;
#[cfg(test)]
mod ways;
#[cfg(test)]
mod working;
