//! MCP over HTTP and over standard streams through the daemon: real clients and servers as managed hosts see them, what policy refuses,
//! what must not be smuggled, streams, records, and the conformance suite beside a direct run. Needs root and
//! the fixtures; a test that cannot run fails.

#![cfg_attr(
    test,
    expect(
        clippy::too_many_lines,
        reason = "a scenario is read from its beginning to its end"
    )
)]

#[cfg(test)]
mod answers;
#[cfg(test)]
mod approvals;
#[cfg(test)]
mod approvers;
#[cfg(test)]
mod asking;
#[cfg(test)]
mod bare;
#[cfg(test)]
mod bounded;
#[cfg(test)]
mod bounds;
#[cfg(test)]
mod breakers;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod directions;
#[cfg(test)]
mod effects;
#[cfg(test)]
mod generations;
#[cfg(test)]
mod headers;
#[cfg(test)]
mod held;
#[cfg(test)]
mod hints;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod masked;
#[cfg(test)]
mod named;
#[cfg(test)]
mod observed;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod replaced;
#[cfg(test)]
mod scenario;
#[cfg(test)]
mod scripted;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod smuggling;
#[cfg(test)]
mod stdio;
#[cfg(test)]
mod stdio_bytes;
#[cfg(test)]
mod stdio_daemon;
#[cfg(test)]
mod stdio_ends;
#[cfg(test)]
mod stdio_faults;
#[cfg(test)]
mod stdio_floods;
#[cfg(test)]
mod stdio_leaks;
#[cfg(test)]
mod stdio_limits;
#[cfg(test)]
mod stdio_methods;
#[cfg(test)]
mod stdio_pages;
#[cfg(test)]
mod stdio_real;
#[cfg(test)]
mod stdio_refused;
#[cfg(test)]
mod stdio_suite;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod suite;
#[cfg(test)]
mod talk;
#[cfg(test)]
mod tasks;
#[cfg(test)]
mod world;
